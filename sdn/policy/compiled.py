# SPDX-License-Identifier: Apache-2.0
"""A policy of either kind in one form: what it selects, in which directions it isolates, and its rules, normalized.

Rules that mean the same come out equal however they were written: selectors are canonical, exceptions are cut out of
ranges, what one range or port holds of another is merged. What depends on other objects, as which pods a selector takes
and what a port's name means, is left to the engine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from sdn.model import clusternetworkpolicy as cnp
from sdn.model import networkpolicy as np
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.selector import LabelSelectorSpec
from sdn.policy.cells import Stage
from sdn.policy.matching import NAMESPACE_NAME
from sdn.policy.networks import ANYWHERE, NOWHERE, blocks
from sdn.policy.portcodes import Ports, cluster_policy_ports, network_policy_ports
from sdn.policy.precedence import level
from sdn.policy.resolution import plain
from sdn.policy.selectors import EVERYTHING, Selector, selector_of
from sdn.policy.values import Action, Direction, PolicyRef, Tier
from sdn.policy.verdict import rule_text, tier_of

#: Where pods are looked for: a namespace by its name, or those that a selector takes.
Where: TypeAlias = str | Selector
#: Pods: where they are, and what their labels are.
GroupKey: TypeAlias = tuple[Where, Selector]

_ClusterRule: TypeAlias = cnp.ClusterNetworkPolicyIngressRule | cnp.ClusterNetworkPolicyEgressRule

_ACTIONS: Final = {cnp.ACCEPT: Action.ACCEPT, cnp.DENY: Action.DENY, cnp.PASS: Action.PASS}
_AUDITED: Final = {Action.ACCEPT: "accept", Action.DENY: "deny"}
_LEVEL_BITS: Final = 20
_NOT_AUDITED: Final[frozenset[str]] = frozenset()


class Peers(NamedTuple):
    """Whom a rule is for on the other end: any of these. ``networks`` are codes of :mod:`sdn.policy.networks`,
    ``domains`` are patterns in lower case without a dot at the end.
    """

    groups: tuple[GroupKey, ...] = ()
    nodes: tuple[Selector, ...] = ()
    networks: frozenset[int] = NOWHERE
    domains: tuple[str, ...] = ()


class CompiledRule(NamedTuple):
    """One rule. ``stage`` is the :func:`stage_id`; ``position`` and ``text`` are the rule's own among its policy's."""

    direction: Direction
    stage: int
    action: Action
    log: bool
    peers: Peers
    ports: Ports
    position: int
    text: str


class CompiledPolicy(NamedTuple):
    """One policy. ``isolates``: the directions in which pods that it selects are isolated; ``log_denied``: what its
    isolation denies is to be reported.
    """

    ref: PolicyRef
    subject: GroupKey
    isolates: tuple[Direction, ...]
    staged: bool
    log_denied: bool
    rules: tuple[CompiledRule, ...]

    @property
    def guards(self) -> bool:
        """Whether pods that it selects are guarded: it is in force and says something."""
        return not self.staged and bool(self.isolates or self.rules)


def stage_id(direction: Direction, tier: Tier, level: int, staged: bool) -> int:
    """A stage as one integer; they ascend as stages do."""
    return ((direction * 3 + tier) << _LEVEL_BITS | level) << 1 | staged


@lru_cache(maxsize=65_536)
def stage_of(number: int) -> Stage:
    """The stage with this :func:`stage_id`."""
    direction, tier = divmod(number >> _LEVEL_BITS + 1, 3)
    return Stage(
        Direction(direction), Tier(tier), number >> 1 & (1 << _LEVEL_BITS) - 1, staged=bool(number & 1)
    )


def compiled(policy: NetworkPolicy | ClusterNetworkPolicy) -> CompiledPolicy:
    """What a policy means. Its fields must be valid (see :mod:`sdn.model.parse`)."""
    if isinstance(policy, NetworkPolicy):
        return _network_policy(policy)
    return _cluster_policy(policy)


def _network_policy(policy: NetworkPolicy) -> CompiledPolicy:
    metadata, spec = policy.metadata, policy.spec
    namespace = metadata.namespace
    audited, staged = _annotations(policy)
    logged = "accept" in audited
    # Of rules that all say the same those that are reported are asked first, or the report would be left to chance.
    place = 0 if logged else 1
    given = (
        (Direction.INGRESS, np.INGRESS, [(one.from_, one.ports) for one in spec.ingress]),
        (Direction.EGRESS, np.EGRESS, [(one.to, one.ports) for one in spec.egress]),
    )
    rules: list[CompiledRule] = []
    isolates: list[Direction] = []
    for direction, type_, of_direction in given:
        if not spec.isolates(type_):
            continue
        isolates.append(direction)
        stage = stage_id(direction, Tier.NETWORK_POLICY, place, staged)
        for index, (peers, ports) in enumerate(of_direction):
            rules.append(
                CompiledRule(
                    *(direction, stage, Action.ACCEPT, logged),
                    _peers(peers, namespace),
                    *(network_policy_ports(ports), index, rule_text(direction, index)),
                )
            )
    return CompiledPolicy(
        ref=PolicyRef(NetworkPolicy.KIND, namespace, metadata.name),
        subject=(namespace, selector_of(spec.pod_selector)),
        isolates=tuple(isolates),
        staged=staged,
        log_denied=staged or "deny" in audited,
        rules=tuple(rules),
    )


def _annotations(policy: NetworkPolicy | ClusterNetworkPolicy) -> tuple[frozenset[str], bool]:
    """What is audited, and whether the policy is staged."""
    if not policy.metadata.annotations:
        return _NOT_AUDITED, False
    return np.audited(policy.metadata), np.staged(policy.metadata)


def _peers(peers: tuple[np.NetworkPolicyPeer, ...], namespace: str) -> Peers:
    if not peers:
        return Peers(networks=ANYWHERE)
    groups: set[GroupKey] = set()
    cidrs: list[tuple[str, tuple[str, ...]]] = []
    for peer in peers:
        if peer.ip_block is not None:
            cidrs.append((peer.ip_block.cidr, peer.ip_block.except_))
            continue
        where = namespace if peer.namespace_selector is None else _where(peer.namespace_selector)
        pods = EVERYTHING if peer.pod_selector is None else selector_of(peer.pod_selector)
        groups.add((where, pods))
    networks = blocks(cidrs) if cidrs else NOWHERE
    if networks >= ANYWHERE:
        return Peers(networks=ANYWHERE)
    return Peers(_ordered(groups), (), networks)


def _where(spec: LabelSelectorSpec) -> Where:
    """A selector that asks for one namespace by the label that carries its name is this namespace."""
    selector = selector_of(spec)
    if len(selector) == 1:
        key, operator, values = selector[0]
        if key == NAMESPACE_NAME and operator == "in" and len(values) == 1:
            return values[0]
    return selector


def _ordered(groups: set[GroupKey]) -> tuple[GroupKey, ...]:
    if len(groups) < 2:
        return tuple(groups)
    return tuple(sorted(groups, key=lambda one: (isinstance(one[0], str), *one)))


def _cluster_policy(policy: ClusterNetworkPolicy) -> CompiledPolicy:
    metadata, spec = policy.metadata, policy.spec
    audited, staged = _annotations(policy)
    tier = tier_of(policy)
    given: list[tuple[Direction, int, _ClusterRule, tuple[cnp.ClusterNetworkPolicyPeer, ...]]] = [
        *((Direction.INGRESS, index, one, one.from_) for index, one in enumerate(spec.ingress)),
        *((Direction.EGRESS, index, one, one.to) for index, one in enumerate(spec.egress)),
    ]
    rules: list[CompiledRule] = []
    for direction, index, rule, peers in given:
        action = _ACTIONS[rule.action]
        rules.append(
            CompiledRule(
                direction,
                stage_id(direction, tier, level(spec.priority, index, action), staged),
                action,
                _AUDITED.get(action) in audited or (staged and action is Action.DENY),
                _cluster_peers(peers),
                cluster_policy_ports(rule.protocols),
                index,
                rule_text(direction, index, rule.name),
            )
        )
    return CompiledPolicy(
        ref=PolicyRef(ClusterNetworkPolicy.KIND, metadata.namespace, metadata.name),
        subject=_subject(spec.subject),
        isolates=(),
        staged=staged,
        log_denied=False,
        rules=tuple(rules),
    )


def _subject(subject: cnp.Subject) -> GroupKey:
    if subject.namespaces is not None:
        return _where(subject.namespaces), EVERYTHING
    pods = subject.pods
    if pods is None:
        raise ValueError("a ClusterNetworkPolicy's subject is neither namespaces nor pods")
    return _where(pods.namespace_selector), selector_of(pods.pod_selector)


def _cluster_peers(peers: tuple[cnp.ClusterNetworkPolicyPeer, ...]) -> Peers:
    groups: set[GroupKey] = set()
    nodes: set[Selector] = set()
    cidrs: list[tuple[str, tuple[str, ...]]] = []
    domains: set[str] = set()
    for peer in peers:
        if peer.namespaces is not None:
            groups.add((_where(peer.namespaces), EVERYTHING))
        elif peer.pods is not None:
            groups.add((_where(peer.pods.namespace_selector), selector_of(peer.pods.pod_selector)))
        elif peer.nodes is not None:
            nodes.add(selector_of(peer.nodes))
        elif peer.networks:
            cidrs.extend((one, ()) for one in peer.networks)
        else:
            domains.update(map(plain, peer.domain_names))
    networks = blocks(cidrs) if cidrs else NOWHERE
    if networks >= ANYWHERE:
        return Peers(networks=ANYWHERE)
    return Peers(_ordered(groups), tuple(sorted(nodes)), networks, tuple(sorted(domains)))
