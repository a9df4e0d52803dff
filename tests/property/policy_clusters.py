# SPDX-License-Identifier: Apache-2.0
"""Random small clusters with policies, and connections of all kinds between all kinds of ends.

Everything is made by plain functions of a ``random.Random``, for tests, benchmarks and labs alike; policies are in
policy_objects.py. :func:`policy_clusters` is the strategy. It draws one number for each pod and each policy, from which
the function makes the rest: that is fast, and a failure shrinks to few pods and few policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from hypothesis import strategies as st

from sdn.model import clusternetworkpolicy as cnp
from sdn.model.address import Address, Range
from sdn.model.networkpolicy import NetworkPolicy
from sdn.policy.values import ICMP, ICMPV6, NamedPort, PolicyNode, PolicyPod, Protocol
from sdn.policy.verdict import Connection, PolicyCluster, connection_between
from tests.property.policy_objects import (
    DOMAINS,
    NAMESPACE_LABELS,
    NAMESPACES,
    NODE_LABELS,
    OUTSIDE,
    POD_LABELS,
    PORT_NAMES,
    PORTS,
    random_policy,
)

FAMILIES: Final = ((4,), (6,), (4, 6))
#: The first port of the switch that is a pod's, and the first address of a range that is one.
FIRST_OFPORT, FIRST_HOST = 16, 4
_GRE: Final = 47
_LARGEST: Final = 2**32 - 1


def node_ranges(number: int, versions: Sequence[int]) -> tuple[Range, ...]:
    """The ranges of the pods of the node with this number (from 1)."""
    ranges = {4: f"10.244.{number}.0/24", 6: f"fd00:10:244:{number:x}::/64"}
    return tuple(Range.parse(ranges[version]) for version in versions)


def node(number: int, versions: Sequence[int]) -> PolicyNode:
    """The node with this number (from 1)."""
    addresses = {4: f"172.30.0.{10 + number}", 6: f"fd00:30::{10 + number}"}
    zone = NODE_LABELS["zone"][number % 2]
    return PolicyNode(
        name=f"node-{number}",
        labels={"kubernetes.io/hostname": f"node-{number}", "zone": zone},
        addresses=tuple(Address.parse(addresses[version]) for version in versions),
        gateways=tuple(one.gateway for one in node_ranges(number, versions)),
    )


def random_namespaces(rng: Random, count: int) -> dict[str, Mapping[str, str]]:
    """Labels of the first namespaces. Some are not declared, and so not there."""
    return {name: _labels(rng, NAMESPACE_LABELS) for name in NAMESPACES[:count] if rng.random() < 0.8}


def random_pod(
    rng: Random, number: int, on: int, slot: int, versions: Sequence[int], namespaces: int
) -> PolicyPod:
    """The pod with this number in the cluster, in a slot of its own (from 0) on the node with the number ``on``."""
    own = tuple(versions) if rng.random() < 0.7 else (rng.choice(versions),)
    addresses = (Address(one.version, one.network + FIRST_HOST + slot) for one in node_ranges(on, own))
    return PolicyPod(
        key=f"attachment-{number}",
        namespace=rng.choice(NAMESPACES[:namespaces]),
        name=f"pod-{number}",
        node=f"node-{on}",
        labels=_labels(rng, POD_LABELS),
        addresses=tuple(addresses),
        ofport=FIRST_OFPORT + slot,
        named_ports=_named_ports(rng),
    )


def _labels(rng: Random, vocabulary: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {key: rng.choice(values) for key, values in vocabulary.items() if rng.random() < 0.7}


def _named_ports(rng: Random) -> tuple[NamedPort, ...]:
    """Each name at most once a protocol, and often with another number than in other pods."""
    ports = {}
    for name, numbers in PORT_NAMES.items():
        for protocol in rng.sample(tuple(Protocol), rng.choice((0, 1, 1, 2))):
            ports[name, protocol] = NamedPort(name, protocol, rng.choice(numbers))
    return tuple(ports.values())


def random_domains(rng: Random) -> dict[str, frozenset[Address]]:
    """What the DNS may have answered: mostly addresses outside, seldom a node's or where a pod may be."""
    known = [Address.parse(one) for version in (4, 6) for one in OUTSIDE[version]]
    known += [Address.parse("172.30.0.12"), Address.parse("10.244.1.4"), Address.parse("fd00:10:244:2::4")]
    return {
        name: frozenset(rng.sample(known, rng.choice((1, 2, 3)))) for name in DOMAINS if rng.random() < 0.6
    }


def random_cluster(rng: Random, pods: int | None = None, policies: int | None = None) -> PolicyCluster:
    """A cluster of 2 or 3 nodes, 2 to 4 namespaces, 3 to 8 pods and up to 8 policies, or as many as told."""
    pods = rng.randint(3, 8) if pods is None else pods
    policies = rng.randint(0, 8) if policies is None else policies
    return cluster_of(
        rng.getrandbits(32),
        [rng.getrandbits(32) for _ in range(pods)],
        [rng.getrandbits(32) for _ in range(policies)],
    )


def cluster_of(seed: int, pod_seeds: Sequence[int], policy_seeds: Sequence[int]) -> PolicyCluster:
    """The cluster that follows from these numbers: equal ones give equal clusters. One more pod or policy leaves the
    others as they are. A pod may be a second attachment of an earlier one, as while a sandbox is replaced.
    """
    rng = Random(seed)
    versions = rng.choice(FAMILIES)
    nodes, namespaces = rng.choice((2, 3)), rng.choice((2, 3, 4))
    labels, domains = random_namespaces(rng, namespaces), random_domains(rng)
    pods: list[PolicyPod] = []
    slots = dict.fromkeys(range(1, nodes + 1), 0)
    for number, pod_seed in enumerate(pod_seeds):
        own = Random(pod_seed)
        on = own.randint(1, nodes)
        pod = random_pod(own, number, on, slots[on], versions, namespaces)
        same_node = [one for one in pods if one.node == pod.node]
        if same_node and own.random() < 0.1:
            pod = replace(same_node[-1], key=pod.key, addresses=pod.addresses, ofport=pod.ofport)
        pods.append(pod)
        slots[on] += 1
    policies = (
        random_policy(Random(policy_seed), f"policy-{number}", namespaces)
        for number, policy_seed in enumerate(policy_seeds)
    )
    return PolicyCluster(
        namespaces=labels,
        nodes=tuple(node(number, versions) for number in range(1, nodes + 1)),
        pods=tuple(pods),
        policies=tuple(policies),
        domains=domains,
    )


# Connections.


def random_connections(rng: Random, cluster: PolicyCluster, count: int) -> tuple[Connection, ...]:
    """Connections between pods, nodes (at their own addresses and their gateways'), and addresses that are nobody's; to
    ports that policies and pods speak of, and the ones beside them. At least one end is a pod, where there is any.
    """
    ends = _Ends(cluster)
    return tuple(ends.connection(rng) for _ in range(count))


class _Ends:
    """The addresses of a cluster by their kind, and the ports that mean something in it."""

    def __init__(self, cluster: PolicyCluster) -> None:
        self._cluster = cluster
        self._versions = sorted({one.version for node in cluster.nodes for one in node.addresses})
        self._pods: dict[int, list[Address]] = {4: [], 6: []}
        self._others: dict[int, list[Address]] = {4: [], 6: []}
        self._named: dict[Address, list[tuple[int, int]]] = {}
        for pod in cluster.pods:
            for address in pod.addresses:
                self._pods[address.version].append(address)
                self._named[address] = [(port.protocol, port.port) for port in pod.named_ports]
        for each in cluster.nodes:
            for address in (*each.addresses, *each.gateways):
                self._others[address.version].append(address)
        for version in self._versions:
            self._others[version] += [Address.parse(one) for one in OUTSIDE[version]]
        self._ports = sorted(_ports_near(cluster))

    def connection(self, rng: Random) -> Connection:
        version = rng.choice(self._versions)
        pods, others = self._pods[version] or self._others[version], self._others[version]
        sources, destinations = rng.choice(((pods, pods), (pods, pods), (pods, others), (others, pods)))
        source, destination = rng.choice(sources), rng.choice(destinations)
        if source == destination and rng.random() < 0.8:
            # Seldom to itself, where no policy counts.
            destination = rng.choice(destinations)
        protocol, port = self._port(rng, version, destination)
        return connection_between(self._cluster, source, destination, protocol, port)

    def _port(self, rng: Random, version: int, destination: Address) -> tuple[int, int]:
        """A protocol and a port: one that has a name there, or that a policy means, or any."""
        kind = rng.random()
        if kind < 0.1:
            return (ICMP if version == 4 else ICMPV6) if kind < 0.08 else _GRE, 0
        if kind < 0.4 and (named := self._named.get(destination)):
            return rng.choice(named)
        protocol, port = rng.choice(self._ports)
        return (protocol if kind < 0.8 else rng.choice(tuple(Protocol))), port


def _ports_near(cluster: PolicyCluster) -> set[tuple[int, int]]:
    """Every port that a policy means by its number, the first and last of ranges, and those beside them."""
    near = {(protocol, port) for protocol in Protocol for port in PORTS[:2]}
    for policy in cluster.policies:
        for rule in (*policy.spec.ingress, *policy.spec.egress):
            if isinstance(policy, NetworkPolicy):
                meant = [(one.protocol or "TCP", one.port, one.end_port) for one in rule.ports]
            else:
                meant = [each for one in rule.protocols for each in _cluster_ports(one)]
            for name, *bounds in meant:
                for bound in bounds:
                    if isinstance(bound, int) and bound:
                        near |= {(Protocol[name], bound + step) for step in (-1, 0, 1)}
    return {(protocol, port) for protocol, port in near if 0 < port < 65536}


def _cluster_ports(protocol: cnp.ClusterNetworkPolicyProtocol) -> list[tuple[str, int, int]]:
    ports = []
    for name, one in (("TCP", protocol.tcp), ("UDP", protocol.udp), ("SCTP", protocol.sctp)):
        if one is not None and (wanted := one.destination_port) is not None:
            bounds = (wanted.number, 0) if wanted.range is None else (wanted.range.start, wanted.range.end)
            ports.append((name, *bounds))
    return ports


# The strategy.


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """A cluster, and connections in it."""

    cluster: PolicyCluster
    connections: tuple[Connection, ...] = field(repr=False)


_SEEDS: Final = st.integers(0, _LARGEST)


@st.composite
def policy_clusters(draw: st.DrawFn, *, connections: int = 40, max_policies: int = 8) -> PolicyCase:
    """A cluster as :func:`random_cluster` makes it, and connections."""
    seed = draw(_SEEDS)
    pods = draw(st.lists(_SEEDS, min_size=3, max_size=8))
    policies = draw(st.lists(_SEEDS, max_size=max_policies))
    cluster = cluster_of(seed, pods, policies)
    return PolicyCase(cluster, random_connections(Random(seed), cluster, connections))
