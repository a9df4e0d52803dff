# SPDX-License-Identifier: Apache-2.0
"""The rules of a policy for people: what is declared, joined with what it comes to in this cluster.

Pure functions, for a worker thread: a rule may have ten thousand peers, of which the first :data:`MOST` are shown.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sdn.model import clusternetworkpolicy as cnp
from sdn.model import networkpolicy as np
from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy, ClusterNetworkPolicyPeer
from sdn.model.networkpolicy import NetworkPolicy, NetworkPolicyPeer
from sdn.policy.descriptions import RuleInForce
from sdn.policy.evaluator import policy_ref
from sdn.policy.matching import domain_matches
from sdn.policy.values import Action, Direction, PolicyNode, PolicyPod, Protocol
from sdn.policy.verdict import Policy, rule_text
from sdn.v1 import inspection_pb2

#: Of pods, nodes, addresses and other policies, so many are shown.
MOST: Final = 100

_ACTIONS: Final = {cnp.ACCEPT: Action.ACCEPT, cnp.DENY: Action.DENY, cnp.PASS: Action.PASS}
_ALL_PORTS: Final = (0, 65535)


@dataclass(frozen=True, slots=True)
class Port:
    """Ports as a rule names them: a range of a protocol, or a name. ``protocol`` None: whichever, under the name."""

    protocol: Protocol | None
    first: int = 0
    last: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as declared. ``text`` is how verdicts and flows name it. No peers: everybody; no ports: all traffic."""

    direction: Direction
    text: str
    action: Action
    peers: Sequence[NetworkPolicyPeer | ClusterNetworkPolicyPeer]
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What rules may be about besides pods. ``domains``: addresses that the DNS gave, by name."""

    nodes: Sequence[PolicyNode]
    domains: Mapping[str, frozenset[Address]]


def rules_of(policy: Policy) -> list[Rule]:
    """A policy's rules, those for ingress first. Of a NetworkPolicy only those of a direction that it isolates mean
    anything.
    """
    if isinstance(policy, NetworkPolicy):
        return list(_network_policy_rules(policy))
    return list(_cluster_policy_rules(policy))


def isolates(policy: Policy) -> tuple[Direction, ...]:
    """The directions in which a policy isolates the pods that it selects."""
    if not isinstance(policy, NetworkPolicy):
        return ()
    named = ((Direction.INGRESS, np.INGRESS), (Direction.EGRESS, np.EGRESS))
    return tuple(direction for direction, name in named if policy.spec.isolates(name))


def _network_policy_rules(policy: NetworkPolicy) -> Iterator[Rule]:
    spec = policy.spec
    given: dict[Direction, Sequence[tuple[Sequence[NetworkPolicyPeer], Sequence[np.NetworkPolicyPort]]]] = {
        Direction.INGRESS: [(rule.from_, rule.ports) for rule in spec.ingress],
        Direction.EGRESS: [(rule.to, rule.ports) for rule in spec.egress],
    }
    for direction in isolates(policy):
        for index, (peers, ports) in enumerate(given[direction]):
            text = rule_text(direction, index)
            yield Rule(direction, text, Action.ACCEPT, peers, tuple(map(_network_policy_port, ports)))


def _network_policy_port(port: np.NetworkPolicyPort) -> Port:
    protocol = Protocol[port.protocol or "TCP"]
    if isinstance(port.port, str):
        return Port(protocol, name=port.port)
    if port.port is None:
        return Port(protocol, *_ALL_PORTS)
    return Port(protocol, port.port, port.end_port or port.port)


def _cluster_policy_rules(policy: ClusterNetworkPolicy) -> Iterator[Rule]:
    for index, one in enumerate(policy.spec.ingress):
        yield _cluster_policy_rule(Direction.INGRESS, index, one, one.from_)
    for index, other in enumerate(policy.spec.egress):
        yield _cluster_policy_rule(Direction.EGRESS, index, other, other.to)


def _cluster_policy_rule(
    direction: Direction,
    index: int,
    rule: cnp.ClusterNetworkPolicyIngressRule | cnp.ClusterNetworkPolicyEgressRule,
    peers: Sequence[ClusterNetworkPolicyPeer],
) -> Rule:
    ports = tuple(port for one in rule.protocols for port in _cluster_policy_ports(one))
    return Rule(direction, rule_text(direction, index, rule.name), _ACTIONS[rule.action], peers, ports)


def _cluster_policy_ports(protocol: cnp.ClusterNetworkPolicyProtocol) -> Iterator[Port]:
    if protocol.destination_named_port:
        yield Port(None, name=protocol.destination_named_port)
    given = ((Protocol.TCP, protocol.tcp), (Protocol.UDP, protocol.udp), (Protocol.SCTP, protocol.sctp))
    for number, ports in given:
        if ports is None:
            continue
        where = ports.destination_port
        if where is None:
            yield Port(number, *_ALL_PORTS)
        elif where.range is not None:
            yield Port(number, where.range.start, where.range.end)
        else:
            yield Port(number, where.number, where.number)


# As messages.


def pod_message(pod: PolicyPod) -> inspection_pb2.PolicyPod:
    """Without what isolates it."""
    return inspection_pb2.PolicyPod(
        namespace=pod.namespace, name=pod.name, node=pod.node, addresses=map(str, pod.addresses)
    )


def first_pods(pods: Iterable[PolicyPod]) -> list[PolicyPod]:
    """The first few, by namespace and name."""
    return heapq.nsmallest(MOST, pods, key=lambda one: (one.namespace, one.name, one.node, one.ofport))


def rule_message(
    policy: Policy,
    rule: Rule,
    in_force: Sequence[RuleInForce],
    selected: Collection[PolicyPod],
    around: Surroundings,
) -> inspection_pb2.PolicyRule:
    """One rule, still without its counters. ``in_force`` is what the engine makes of it: nothing where it can be for no
    peer or port now; ``selected`` are the policy's pods.
    """
    pods = {pod.key: pod for one in in_force for pod in one.pods}
    receiving = selected if rule.direction is Direction.INGRESS else pods.values()
    others = sorted({ref for one in in_force for ref in one.policies} - {policy_ref(policy)})
    answer = inspection_pb2.PolicyRule(
        direction=rule.direction.name.lower(),
        rule=rule.text,
        action=rule.action.name.lower(),
        everybody=not rule.peers,
        ports=[_port_message(port, receiving) for port in rule.ports],
        shared_total=len(others),
        shared_with=map(str, others[:MOST]),
    )
    # Everybody's pods are no news.
    if rule.peers:
        answer.pods.extend(map(pod_message, first_pods(pods.values())))
        answer.pod_total = len(pods)
    nodes: dict[str, PolicyNode] = {}
    for peer in rule.peers:
        answer.networks.extend(_networks(peer))
        if isinstance(peer, ClusterNetworkPolicyPeer):
            nodes.update((node.name, node) for node in _nodes(peer, around.nodes))
            answer.domains.extend(_domains(peer, around.domains))
    answer.node_total = len(nodes)
    answer.nodes.extend(
        inspection_pb2.PolicyNode(name=name, addresses=map(str, nodes[name].addresses))
        for name in heapq.nsmallest(MOST, nodes)
    )
    return answer


def _networks(peer: NetworkPolicyPeer | ClusterNetworkPolicyPeer) -> Iterator[inspection_pb2.PolicyNetwork]:
    if isinstance(peer, ClusterNetworkPolicyPeer):
        for cidr in peer.networks:
            yield inspection_pb2.PolicyNetwork(cidr=cidr)
    elif peer.ip_block is not None:
        yield inspection_pb2.PolicyNetwork(cidr=peer.ip_block.cidr, exceptions=peer.ip_block.except_)


def _nodes(peer: ClusterNetworkPolicyPeer, nodes: Sequence[PolicyNode]) -> Iterator[PolicyNode]:
    if peer.nodes is not None:
        selector = peer.nodes.selector()
        yield from (node for node in nodes if selector.matches(node.labels))


def _domains(
    peer: ClusterNetworkPolicyPeer, domains: Mapping[str, frozenset[Address]]
) -> Iterator[inspection_pb2.PolicyDomain]:
    for pattern in peer.domain_names:
        found = {
            address
            for name, addresses in domains.items()
            if domain_matches(pattern, name)
            for address in addresses
        }
        shown = heapq.nsmallest(MOST, found, key=lambda one: (one.version, one.value))
        yield inspection_pb2.PolicyDomain(
            pattern=pattern, addresses=map(str, shown), address_total=len(found)
        )


def _port_message(port: Port, receiving: Iterable[PolicyPod]) -> inspection_pb2.PolicyPort:
    """``receiving``: the pods that connections go to."""
    answer = inspection_pb2.PolicyPort(
        protocol="" if port.protocol is None else port.protocol.name,
        first=port.first,
        last=port.last,
        name=port.name,
    )
    if port.name:
        found = {
            (one.port, one.protocol)
            for pod in receiving
            for one in pod.named_ports
            if one.name == port.name and port.protocol in (None, one.protocol)
        }
        answer.resolved_total = len(found)
        answer.resolved.extend(
            f"{number}/{protocol.name}" for number, protocol in heapq.nsmallest(MOST, found)
        )
    return answer
