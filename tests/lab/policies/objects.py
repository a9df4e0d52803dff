# SPDX-License-Identifier: Apache-2.0
"""Policies, and the objects that they select, as documents: written in tests as short as people say them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Document = dict[str, Any]
#: A selector that takes everything.
ALL: Document = {}


def labels(**wanted: str) -> Document:
    """A selector by equal labels: ``labels(pod="a")``."""
    return {"matchLabels": wanted}


def expression(key: str, operator: str, *values: str) -> Document:
    """A selector by one of matchExpressions."""
    plain: Document = {"key": key, "operator": operator}
    return {"matchExpressions": [plain | ({"values": list(values)} if values else {})]}


# NetworkPolicy.


def network_policy(name: str, namespace: str = "x", **spec: Any) -> Document:
    """Fields of the spec as the API names them. Without a podSelector it is for all pods of its namespace."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, **spec},
    }


def pods(selector: Document) -> Document:
    """A peer: pods of the policy's own namespace."""
    return {"podSelector": selector}


def namespaces(selector: Document) -> Document:
    """A peer: all pods of these namespaces."""
    return {"namespaceSelector": selector}


def pods_of(namespaces: Document, pods: Document) -> Document:
    """A peer: these pods of these namespaces."""
    return {"namespaceSelector": namespaces, "podSelector": pods}


def block(cidr: str, *exceptions: str) -> Document:
    """A peer: a range of addresses."""
    return {"ipBlock": {"cidr": cidr, **({"except": list(exceptions)} if exceptions else {})}}


def hosts(addresses: Iterable[str]) -> list[Document]:
    """Peers: single addresses."""
    return [block(cidr) for cidr in cidrs(addresses)]


def cidrs(addresses: Iterable[str]) -> list[str]:
    """Single addresses as ranges."""
    return [f"{address}/{128 if ':' in address else 32}" for address in addresses]


def port(number: int | str | None = None, protocol: str = "", end: int = 0) -> Document:
    """A member of a rule's ports."""
    plain = {"port": number, "protocol": protocol, "endPort": end}
    return {key: value for key, value in plain.items() if value}


# ClusterNetworkPolicy.


def cluster_policy(name: str, tier: str, priority: int, subject: Document, **rules: Any) -> Document:
    """``rules``: ``ingress`` and ``egress``. ``subject``: a member of spec.subject."""
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": subject, **rules},
    }


def in_namespaces(selector: Document) -> Document:
    """A subject or peer: all pods of these namespaces."""
    return {"namespaces": selector}


def in_pods(namespaces: Document, pods: Document) -> Document:
    """A subject or peer: these pods of these namespaces."""
    return {"pods": {"namespaceSelector": namespaces, "podSelector": pods}}


def accept(peers: Sequence[Document], *protocols: Document, egress: bool = False) -> Document:
    """A rule; of ``egress`` the peers are its ``to``."""
    return _rule("Accept", peers, protocols, egress)


def deny(peers: Sequence[Document], *protocols: Document, egress: bool = False) -> Document:
    """As :func:`accept`."""
    return _rule("Deny", peers, protocols, egress)


def pass_on(peers: Sequence[Document], *protocols: Document, egress: bool = False) -> Document:
    """As :func:`accept`: the tier of NetworkPolicies decides."""
    return _rule("Pass", peers, protocols, egress)


def number(protocol: str, port: int) -> Document:
    """A member of a rule's protocols: one port."""
    return {protocol: {"destinationPort": {"number": port}}}


def range_of(protocol: str, start: int, end: int) -> Document:
    """A member of a rule's protocols: a range of ports."""
    return {protocol: {"destinationPort": {"range": {"start": start, "end": end}}}}


def _rule(action: str, peers: Sequence[Document], protocols: Sequence[Document], egress: bool) -> Document:
    rule: Document = {"action": action, ("to" if egress else "from"): list(peers)}
    return rule | ({"protocols": list(protocols)} if protocols else {})


# What policies select.


def namespace(name: str, labels: Mapping[str, str]) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def node(name: str, labels: Mapping[str, str]) -> Document:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}


def pod(
    name: str, labels: Mapping[str, str], ports: Sequence[tuple[str, str, int]] = (), **spec: Any
) -> Document:
    """A Pod NAMESPACE/NAME. ``ports``: name, protocol, number, each in a container of its own, since within one a name
    is there once.
    """
    namespace, _, short = name.partition("/")
    containers = [
        {
            "name": f"c-{index}",
            "ports": [{"name": port_name, "protocol": protocol, "containerPort": number}],
        }
        for index, (port_name, protocol, number) in enumerate(ports)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": short, "namespace": namespace, "labels": dict(labels)},
        "spec": {"containers": containers, **spec},
    }


def service(name: str, ports: Sequence[Document], selector: Mapping[str, str], **spec: Any) -> Document:
    """A Service NAMESPACE/NAME of both families."""
    namespace, _, short = name.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": short, "namespace": namespace},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "ports": list(ports),
            "selector": dict(selector),
            **spec,
        },
    }
