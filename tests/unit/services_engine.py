# SPDX-License-Identifier: Apache-2.0
"""A real engine on a real store, without switches: what it would have them hold is asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.allocation.network import ServiceNetwork
from controller.engine import Engine
from controller.policies import policy_node, policy_pod
from controller.ranges import ClusterRanges
from controller.store import open_store
from controller.switchboard import Switchboard
from sdn.model import parse
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.pipeline.flow import Flow, Group
from sdn.policy.verdict import PolicyCluster
from sdn.v1 import types_pb2
from tests.switch.controller_process import node_info

RANGES = ("10.244.0.0/16", "fd00:10:244::/48")


@asynccontextmanager
async def running_engine(folder: Path, **network: Any) -> AsyncIterator[Engine]:
    """An engine that has loaded what the store in the folder holds; without a DNS Service unless asked for."""
    store = open_store(f"sqlite://{folder}/store.db")
    switchboard = Switchboard()
    services = ServiceNetwork(**{"serve_dns": False, **network})
    engine = Engine(store, ClusterRanges(RANGES), switchboard, services)
    try:
        await engine.load()
        yield engine
    finally:
        engine.stop()
        switchboard.close()
        store.close()


async def apply(engine: Engine, document: dict[str, Any]) -> None:
    await engine.declarations.apply(parse(document), False)
    await engine.loadbalancing.idle()


async def register(engine: Engine, number: int, zone: str = "", **fields: Any) -> types_pb2.NodeInfo:
    """Node number N registers; gives it as it was registered."""
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    info = node_info(number, labels=labels, **fields)
    record = await engine.registrations.register(info)
    info.pod_ranges.extend(record.pod_ranges)
    await engine.loadbalancing.idle()
    return info


async def confirm(engine: Engine) -> None:
    """The switches confirm all attachments."""
    for record in list(engine.cluster.attachments.values()):
        engine.attachments.confirmations.confirmed(record)
    await engine.attachments.confirmations.told()
    await engine.loadbalancing.idle()


def service(name: str, **spec: Any) -> dict[str, Any]:
    """A Service of the pods labelled with its name, at port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }


def endpoint_slice(name: str, service: str, *addresses: str, **endpoint: Any) -> dict[str, Any]:
    """A slice of one Service; all its endpoints are alike but for the address."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], **endpoint} for address in addresses],
        "ports": [{"port": 8080}],
    }


def host_pod(name: str, node: str, ready: bool = True, **labels: str) -> dict[str, Any]:
    """A pod on its node's network."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"hostNetwork": True, "nodeName": node},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def held(engine: Engine, node: str, name: str, namespace: str = "default") -> list[Flow | Group]:
    """What a node's switch must hold of a Service."""
    return engine.loadbalancing.entries_on(node, (namespace, name))()


def destinations(engine: Engine, node: str, name: str, namespace: str = "default") -> set[str]:
    """Where a node's switch sends the Service's connections: "10.244.0.2:8080"."""
    flows = (entry for entry in held(engine, node, name, namespace) if isinstance(entry, Flow))
    return {flow.why.removeprefix("to endpoint ") for flow in flows if flow.why.startswith("to endpoint ")}


def policy_cluster(engine: Engine) -> PolicyCluster:
    """The cluster as the reference evaluator looks at it."""
    objects = engine.cluster.objects
    return PolicyCluster(
        namespaces={name: value.metadata.labels for (_, name), value in objects["Namespace"].items()},
        nodes=tuple(policy_node(engine.cluster, record) for record in engine.cluster.nodes.values()),
        pods=tuple(policy_pod(engine.cluster, record) for record in engine.cluster.attachments.values()),
        policies=tuple(
            value
            for kind in ("NetworkPolicy", "ClusterNetworkPolicy")
            for value in objects[kind].values()
            if isinstance(value, NetworkPolicy | ClusterNetworkPolicy)
        ),
        domains=engine.policies.engine.domains(),
    )
