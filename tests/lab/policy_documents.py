# SPDX-License-Identifier: Apache-2.0
"""Policies, and the namespaces and pods that they select, as documents; and when a change of them is in force."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc

from sdn.lab import readiness
from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import wait_until
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import service_objects as objects

Document = dict[str, Any]
BOTH = ("Ingress", "Egress")
#: The name of a namespace as a label, which every namespace has.
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}


def pod(record: PodRecord, labels: Mapping[str, str]) -> Document:
    """What the kubelet tells of a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": record.name, "namespace": record.namespace, "labels": dict(labels)},
        "spec": {"nodeName": record.node, "containers": [{"name": "main"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def labelled(**labels: str) -> Document:
    """A selector."""
    return {"matchLabels": labels} if labels else {}


def network_policy(name: str, namespace: str, selector: Document | None = None, **spec: Any) -> Document:
    """A NetworkPolicy, for all pods of the namespace without a selector."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": selector or {}, **spec},
    }


def default_deny(namespace: str, selector: Document | None = None) -> Document:
    return network_policy("default-deny", namespace, selector, policyTypes=list(BOTH))


def cluster_policy(name: str, tier: str, subject: Document, **rules: Any) -> Document:
    """A ClusterNetworkPolicy."""
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": 10, "subject": subject, **rules},
    }


def ports(*numbers: int) -> list[Document]:
    """Ports of a NetworkPolicy's rule, for TCP and UDP."""
    return [{"protocol": protocol, "port": number} for number in numbers for protocol in ("TCP", "UDP")]


def protocols(*numbers: int) -> list[Document]:
    """Ports of a ClusterNetworkPolicy's rule, for TCP and UDP."""
    return [
        {protocol: {"destinationPort": {"number": number}}}
        for number in numbers
        for protocol in ("tcp", "udp")
    ]


def delete(lab: Lab, documents: Iterable[Document]) -> None:
    """Remove declared objects; what is not there counts as removed."""
    with grpc.insecure_channel(lab.server) as channel:
        stub = inspection_pb2_grpc.InspectionStub(channel)
        for document in documents:
            metadata = document["metadata"]
            request = inspection_pb2.DeleteRequest(
                kind=document["kind"], namespace=metadata.get("namespace", ""), name=metadata["name"]
            )
            try:
                stub.Delete(request, timeout=30)
            except grpc.RpcError as problem:
                if problem.code() != grpc.StatusCode.NOT_FOUND:
                    raise


def confirmed(lab: Lab, seconds: float = 60) -> float:
    """Wait until every switch has confirmed what follows from all that was declared; when that was seen."""
    wait_until(
        lambda: not readiness.unsynchronized(lab.spec, lab.folder),
        "every switch to hold its flows",
        seconds,
        every=0.005,
        because=lambda: ", ".join(readiness.unsynchronized(lab.spec, lab.folder)),
    )
    return time.monotonic()


def wait_served(lab: Lab) -> None:
    """Wait until the controller can be asked for anything."""
    wait_until(lambda: bool(lab.serving()), "a controller to serve", 60)


def declare(lab: Lab, documents: Sequence[Document]) -> None:
    """Apply, and wait until every switch forwards by what follows."""
    objects.apply(lab, *documents)
    objects.settle(lab)
