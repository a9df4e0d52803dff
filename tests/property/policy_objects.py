# SPDX-License-Identifier: Apache-2.0
"""Random policies with every field, of a vocabulary so small that selectors, ranges, ports and names often hit.

Plain functions of a ``random.Random``: equal generators give equal policies. What they give is valid, as an API server
would take it. The clusters that they are for are in policy_clusters.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, TypeVar

from sdn.model import clusternetworkpolicy as cnp
from sdn.model import networkpolicy as netpol
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy, ClusterNetworkPolicyPeer
from sdn.model.meta import ObjectMeta
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.selector import LabelSelectorRequirement, LabelSelectorSpec
from sdn.policy.matching import NAMESPACE_NAME

POD_LABELS: Final = {"app": ("web", "db"), "tier": ("front", "back")}
NAMESPACE_LABELS: Final = {"team": ("red", "blue"), "env": ("prod", "test")}
NODE_LABELS: Final = {"zone": ("a", "b"), "kubernetes.io/hostname": ("node-1", "node-2")}
NAMESPACES: Final = ("ns-1", "ns-2", "ns-3", "ns-4")
#: Names of ports with the numbers that pods have under them.
PORT_NAMES: Final = {"http": (80, 8080, 8081), "dns": (53, 5353), "metrics": (9090, 8080)}
PORTS: Final = (53, 80, 443, 5353, 8080, 8081, 9090)
PORT_RANGES: Final = (
    (53, 80),
    (80, 81),
    (1, 443),
    (81, 8080),
    (8080, 8095),
    (8081, 9090),
    (9090, 65535),
    (1, 65535),
)
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
DOMAINS: Final = (
    "kubernetes.io",
    "www.kubernetes.io",
    "latest.blog.kubernetes.io",
    "my-kubernetes.io",
    "a.example.com",
    "example.com",
)
DOMAIN_PATTERNS: Final = (
    "kubernetes.io",
    "*.kubernetes.io",
    "WWW.Kubernetes.io.",
    "*.example.com",
    "*.blog.kubernetes.io",
    "example.com",
)
#: Addresses that are no pod's and no node's: outside the cluster, and in the pods' ranges.
OUTSIDE: Final = {
    4: ("192.0.2.9", "192.0.2.200", "203.0.113.7", "10.244.1.200", "10.244.9.4"),
    6: ("2001:db8::9", "2001:db8::8000:9", "2001:db8:ffff::7", "fd00:10:244:1::200", "fd00:10:244:9::4"),
}
#: What ranges of policies begin with: pods, gateways, nodes, and what is outside.
_SEEDS: Final = {
    4: (
        "10.244.1.4",
        "10.244.1.5",
        "10.244.2.4",
        "10.244.2.5",
        "10.244.3.4",
        "10.244.1.1",
        "172.30.0.11",
        *OUTSIDE[4],
    ),
    6: (
        *("fd00:10:244:1::4", "fd00:10:244:1::5", "fd00:10:244:2::4", "fd00:10:244:2::5", "fd00:10:244:3::4"),
        *("fd00:10:244:1::1", "fd00:30::11", *OUTSIDE[6]),
    ),
}
_LENGTHS: Final = {4: (0, 8, 16, 22, 24, 25, 28, 30, 31, 32), 6: (0, 16, 48, 62, 64, 96, 124, 126, 127, 128)}
_STAGED: Final[tuple[dict[str, str], ...]] = (
    {},
    {},
    {},
    {},
    {netpol.STAGED: "true"},
    {netpol.STAGED: "false"},
)
_AUDIT: Final[tuple[dict[str, str], ...]] = ({}, {}, {netpol.AUDIT: "deny"}, {netpol.AUDIT: "accept,deny"})
_PRIORITIES: Final = (0, 1, 1, 2, 1000)

_Item = TypeVar("_Item")


def random_policy(
    rng: Random, name: str, namespaces: int = len(NAMESPACES)
) -> NetworkPolicy | ClusterNetworkPolicy:
    """A policy of either kind, of one of the first ``namespaces`` namespaces where it has one."""
    if rng.random() < 0.5:
        return random_network_policy(rng, name, rng.choice(NAMESPACES[:namespaces]))
    return random_cluster_policy(rng, name)


def random_network_policy(rng: Random, name: str, namespace: str) -> NetworkPolicy:
    """A NetworkPolicy with up to four rules a direction."""
    types = rng.choice(((), (), (netpol.INGRESS,), (netpol.EGRESS,), (netpol.INGRESS, netpol.EGRESS)))
    spec = netpol.NetworkPolicySpec(
        pod_selector=LabelSelectorSpec() if rng.random() < 0.4 else _selector(rng, POD_LABELS),
        ingress=_several(rng, (0, 1, 1, 2, 4), _ingress_rule),
        egress=_several(rng, (0, 1, 1, 2, 4), _egress_rule),
        policy_types=types,
    )
    return NetworkPolicy(metadata=_metadata(rng, name, namespace), spec=spec)


def random_cluster_policy(rng: Random, name: str) -> ClusterNetworkPolicy:
    """A ClusterNetworkPolicy with up to five rules a direction, often of another one's priority."""
    spec = cnp.ClusterNetworkPolicySpec(
        tier=rng.choice(cnp.TIERS),
        priority=rng.choice(_PRIORITIES),
        subject=_subject(rng),
        ingress=_several(rng, (0, 1, 2, 3, 5), _cluster_ingress_rule),
        egress=_several(rng, (0, 1, 2, 3, 5), _cluster_egress_rule),
    )
    return ClusterNetworkPolicy(metadata=_metadata(rng, name, ""), spec=spec)


def _metadata(rng: Random, name: str, namespace: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace=namespace, annotations=rng.choice(_STAGED) | rng.choice(_AUDIT))


def _several(rng: Random, counts: Sequence[int], make: Callable[[Random], _Item]) -> tuple[_Item, ...]:
    return tuple(make(rng) for _ in range(rng.choice(counts)))


# Selectors and ranges.


def _selector(rng: Random, labels: Mapping[str, Sequence[str]]) -> LabelSelectorSpec:
    """One that selects everything, or has conditions of either form, or of both."""
    kind = rng.random()
    if kind < 0.3:
        return LabelSelectorSpec()
    keys = tuple(labels)
    wanted = {}
    if kind < 0.7:
        key = rng.choice(keys)
        wanted[key] = rng.choice(labels[key])
    if kind > 0.6:
        return LabelSelectorSpec(
            match_labels=wanted,
            match_expressions=_several(rng, (1, 1, 2), lambda one: _requirement(one, labels)),
        )
    return LabelSelectorSpec(match_labels=wanted)


def _requirement(rng: Random, labels: Mapping[str, Sequence[str]]) -> LabelSelectorRequirement:
    key = rng.choice(tuple(labels))
    operator = rng.choice(("In", "NotIn", "Exists", "DoesNotExist"))
    if operator in ("Exists", "DoesNotExist"):
        return LabelSelectorRequirement(key=key, operator=operator)
    count = rng.choice((1, 1, 2))
    return LabelSelectorRequirement(key=key, operator=operator, values=tuple(rng.sample(labels[key], count)))


_NAMESPACE_VOCABULARY: Final = {**NAMESPACE_LABELS, NAMESPACE_NAME: NAMESPACES}


def _namespace_selector(rng: Random) -> LabelSelectorSpec:
    return _selector(rng, _NAMESPACE_VOCABULARY)


def _pods(rng: Random) -> cnp.NamespacedPods:
    return cnp.NamespacedPods(
        namespace_selector=_namespace_selector(rng), pod_selector=_selector(rng, POD_LABELS)
    )


def random_cidr(rng: Random) -> str:
    """A range with something in it, of either version: from one address to all."""
    version = rng.choice((4, 6))
    return str(
        ipaddress.ip_network((rng.choice(_SEEDS[version]), rng.choice(_LENGTHS[version])), strict=False)
    )


def _except(rng: Random, cidr: str) -> tuple[str, ...]:
    """Up to two smaller ranges inside one: they hold what is known to be there, or halve it."""
    whole = ipaddress.ip_network(cidr)
    known = [one for one in _SEEDS[whole.version] if ipaddress.ip_address(one) in whole]
    lengths = (*_LENGTHS[whole.version], whole.prefixlen + 1)
    longer = [one for one in lengths if whole.prefixlen < one <= whole.max_prefixlen]
    if not longer or not known or rng.random() < 0.5:
        return ()
    return tuple(
        str(ipaddress.ip_network((rng.choice(known), rng.choice(longer)), strict=False))
        for _ in range(rng.choice((1, 1, 2)))
    )


# NetworkPolicy.


def _ingress_rule(rng: Random) -> netpol.NetworkPolicyIngressRule:
    return netpol.NetworkPolicyIngressRule(
        from_=_several(rng, (0, 1, 1, 2, 3), _peer), ports=_several(rng, (0, 0, 1, 1, 2, 3), _port)
    )


def _egress_rule(rng: Random) -> netpol.NetworkPolicyEgressRule:
    return netpol.NetworkPolicyEgressRule(
        to=_several(rng, (0, 1, 1, 2, 3), _peer), ports=_several(rng, (0, 0, 1, 1, 2, 3), _port)
    )


def _peer(rng: Random) -> netpol.NetworkPolicyPeer:
    kind = rng.randrange(5)
    if kind == 0:
        return netpol.NetworkPolicyPeer(pod_selector=_selector(rng, POD_LABELS))
    if kind == 1:
        return netpol.NetworkPolicyPeer(namespace_selector=_namespace_selector(rng))
    if kind == 2:
        return netpol.NetworkPolicyPeer(
            pod_selector=_selector(rng, POD_LABELS), namespace_selector=_namespace_selector(rng)
        )
    cidr = random_cidr(rng)
    return netpol.NetworkPolicyPeer(ip_block=netpol.IPBlock(cidr=cidr, except_=_except(rng, cidr)))


def _port(rng: Random) -> netpol.NetworkPolicyPort:
    protocol = rng.choice(("", *PROTOCOLS))
    kind = rng.randrange(5)
    if kind == 0:
        return netpol.NetworkPolicyPort(protocol=protocol)
    if kind == 1:
        return netpol.NetworkPolicyPort(protocol=protocol, port=rng.choice(tuple(PORT_NAMES)))
    if kind == 2:
        first, last = rng.choice(PORT_RANGES)
        return netpol.NetworkPolicyPort(protocol=protocol, port=first, end_port=last)
    return netpol.NetworkPolicyPort(protocol=protocol, port=rng.choice(PORTS))


# ClusterNetworkPolicy.


def _subject(rng: Random) -> cnp.Subject:
    return rng.choice((cnp.Subject(namespaces=_namespace_selector(rng)), cnp.Subject(pods=_pods(rng))))


def _cluster_ingress_rule(rng: Random) -> cnp.ClusterNetworkPolicyIngressRule:
    return cnp.ClusterNetworkPolicyIngressRule(
        name=rng.choice(("", "a rule")),
        action=rng.choice(cnp.ACTIONS),
        from_=_several(rng, (1, 1, 2, 3), _pod_peer),
        protocols=_several(rng, (0, 0, 1, 1, 2), lambda one: _protocol(one, named=True)),
    )


def _cluster_egress_rule(rng: Random) -> cnp.ClusterNetworkPolicyEgressRule:
    """Only pods have named ports, and only Accept knows the names of domains."""
    action = rng.choice(cnp.ACTIONS)
    peers = _several(rng, (1, 1, 2, 3), lambda one: _egress_peer(one, domains=action == cnp.ACCEPT))
    named = all(one.namespaces is not None or one.pods is not None for one in peers)
    return cnp.ClusterNetworkPolicyEgressRule(
        name=rng.choice(("", "a rule")),
        action=action,
        to=peers,
        protocols=_several(rng, (0, 0, 1, 1, 2), lambda one: _protocol(one, named=named)),
    )


def _pod_peer(rng: Random) -> ClusterNetworkPolicyPeer:
    if rng.random() < 0.5:
        return ClusterNetworkPolicyPeer(namespaces=_namespace_selector(rng))
    return ClusterNetworkPolicyPeer(pods=_pods(rng))


def _egress_peer(rng: Random, *, domains: bool) -> ClusterNetworkPolicyPeer:
    kind = rng.randrange(6)
    if kind == 0:
        return ClusterNetworkPolicyPeer(nodes=_selector(rng, NODE_LABELS))
    if kind == 1 and domains:
        return ClusterNetworkPolicyPeer(domain_names=tuple(rng.sample(DOMAIN_PATTERNS, rng.choice((1, 2)))))
    if kind <= 2:
        count = rng.choice((1, 2))
        return ClusterNetworkPolicyPeer(networks=tuple(sorted({random_cidr(rng) for _ in range(count)})))
    return _pod_peer(rng)


def _protocol(rng: Random, *, named: bool) -> cnp.ClusterNetworkPolicyProtocol:
    if named and rng.random() < 0.25:
        return cnp.ClusterNetworkPolicyProtocol(destination_named_port=rng.choice(tuple(PORT_NAMES)))
    if rng.random() < 0.3:
        start, end = rng.choice(PORT_RANGES)
        port = cnp.DestinationPort(range=cnp.PortRange(start=start, end=end))
    else:
        port = cnp.DestinationPort(number=rng.choice(PORTS))
    fields: dict[str, Any] = {rng.choice(PROTOCOLS).lower(): cnp.ProtocolPorts(destination_port=port)}
    return cnp.ClusterNetworkPolicyProtocol(**fields)
