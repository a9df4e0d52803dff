# SPDX-License-Identifier: Apache-2.0
"""A small cluster in which policies are tried, and short ways to write policies and to ask what becomes of connections.

Two nodes, both families. ``shop`` has ``DB``, ``WEB`` and ``JOB``; ``partner`` (labelled ``project: mine``) has
``CLIENT``; ``bare`` was never declared, and has ``STRAY``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import STAGED, NetworkPolicy
from sdn.policy.evaluator import evaluate
from sdn.policy.values import ICMP, ICMPV6, NamedPort, PolicyNode, PolicyPod, PolicyRef, Protocol
from sdn.policy.verdict import Connection, Policy, PolicyCluster, Verdict, connection_between

TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP
GRE = 47


def _node(number: int, **labels: str) -> PolicyNode:
    return PolicyNode(
        f"node-{number}",
        labels,
        (Address.parse(f"172.30.0.1{number}"), Address.parse(f"fd00:30::1{number}")),
        (Address.parse(f"10.244.{number}.1"), Address.parse(f"fd00:10:244:{number}::1")),
    )


def pod(namespace: str, name: str, node: int, slot: int, *ports: NamedPort, **labels: str) -> PolicyPod:
    """A pod in a slot of its own on its node."""
    addresses = (Address.parse(f"10.244.{node}.{slot}"), Address.parse(f"fd00:10:244:{node}::{slot}"))
    return PolicyPod(
        f"{namespace}/{name}", namespace, name, f"node-{node}", labels, addresses, 12 + slot, ports
    )


NODE_1, NODE_2 = _node(1, zone="a"), _node(2, zone="b")
DB = pod("shop", "db", 1, 4, NamedPort("sql", TCP, 5432), NamedPort("stats", UDP, 8125), role="db")
WEB = pod("shop", "web", 1, 5, NamedPort("http", TCP, 8080), role="web")
JOB = pod("shop", "job", 2, 4, NamedPort("http", TCP, 9000))
CLIENT = pod("partner", "client", 2, 5, NamedPort("http", UDP, 8080), role="web")
STRAY = pod("bare", "stray", 2, 6, role="db")
OUTSIDE = Address.parse("192.0.2.9")
ELSEWHERE = Address.parse("198.51.100.7")

CLUSTER = PolicyCluster(
    namespaces={"shop": {"team": "red"}, "partner": {"project": "mine", "team": "blue"}},
    nodes=(NODE_1, NODE_2),
    pods=(DB, WEB, JOB, CLIENT, STRAY),
)


def network_policy(
    name: str = "policy", namespace: str = "shop", *, staged: bool = False, **spec: Any
) -> NetworkPolicy:
    """A NetworkPolicy with this ``spec``, as in YAML; without ``podSelector`` for all pods of the namespace."""
    metadata = {"name": name, "namespace": namespace, "annotations": {STAGED: "true"} if staged else {}}
    return msgspec.convert({"metadata": metadata, "spec": {"podSelector": {}, **spec}}, NetworkPolicy)


def cluster_policy(
    name: str = "policy", tier: str = "Admin", priority: int = 10, *, staged: bool = False, **spec: Any
) -> ClusterNetworkPolicy:
    """A ClusterNetworkPolicy with this ``spec``, as in YAML; without ``subject`` for all pods."""
    metadata = {"name": name, "annotations": {STAGED: "true"} if staged else {}}
    spec = {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, **spec}
    return msgspec.convert({"metadata": metadata, "spec": spec}, ClusterNetworkPolicy)


def rule(action: str, *peers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rule of a ClusterNetworkPolicy, for ingress and egress alike; without peers for every pod."""
    members = list(peers) or [{"namespaces": {}}]
    return {"action": action, "from": members, "to": members, **more}


def labels(**wanted: str) -> dict[str, Any]:
    """A selector of these labels."""
    return {"matchLabels": wanted}


def ref(policy: Policy) -> PolicyRef:
    return PolicyRef(policy.KIND, policy.metadata.namespace, policy.metadata.name)


def with_policies(*policies: Policy, **fields: Any) -> PolicyCluster:
    return dataclasses.replace(CLUSTER, policies=policies, **fields)


def connection(
    cluster: PolicyCluster,
    source: PolicyPod | PolicyNode | Address,
    destination: PolicyPod | PolicyNode | Address,
    port: int = 80,
    protocol: int = TCP,
    version: int = 4,
) -> Connection:
    """From one end to the other; a node stands for its own address. ICMP is that of the version."""
    if protocol == ICMP and version == 6:
        protocol = ICMPV6
    ends = (_address(source, version), _address(destination, version))
    return connection_between(cluster, *ends, protocol, port if protocol in tuple(Protocol) else 0)


def _address(end: PolicyPod | PolicyNode | Address, version: int) -> Address:
    if isinstance(end, Address):
        return end
    return next(one for one in end.addresses if one.version == version)


def verdict(cluster: PolicyCluster, *args: Any, **fields: Any) -> Verdict:
    """What becomes of the :func:`connection`."""
    return evaluate(cluster, connection(cluster, *args, **fields))


def allowed(cluster: PolicyCluster, *args: Any, **fields: Any) -> bool:
    """Whether the :func:`connection` is allowed."""
    return verdict(cluster, *args, **fields).allowed
