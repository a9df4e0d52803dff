# SPDX-License-Identifier: Apache-2.0
"""What becomes of one connection, from the indexes: the rules of its two pods are asked, and nothing else.

The answer is the evaluator's (:mod:`sdn.policy.evaluator`), the rule that decides and the reason among it. The rules of
a class are put in order once, so that thousands of connections can be asked one after the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from sdn.model.address import Address
from sdn.policy.compiled import stage_of
from sdn.policy.groups import PodGroup, kin_posture
from sdn.policy.networks import code_of
from sdn.policy.portcodes import covers
from sdn.policy.program import policy_of, rules_of
from sdn.policy.values import Action, Direction, PolicyPod, PolicyRef, Tier
from sdn.policy.verdict import Connection, Decision, End, Reason, RuleRef, Verdict

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Body, Owner
    from sdn.policy.index import LabelIndex
    from sdn.policy.members import LabelClass, Pod

#: The rules of a class, in the order in which they are asked: by direction, then by tier.
Order: TypeAlias = tuple[tuple["Body", ...], ...]

_TIERS = len(Tier)


class _End(NamedTuple):
    """An end of a connection: the class of the pod, where the engine knows one there, and the address."""

    pod: Pod | None
    kin: LabelClass | None
    address: Address
    code: int


class _Asked(NamedTuple):
    """What came of one direction."""

    allowed: bool
    reason: Reason
    rule: Body | None = None
    passed: Body | None = None


class Decisions:
    """See the module."""

    def __init__(self, index: LabelIndex, book: AddressBook, pods: Mapping[Hashable, Pod]) -> None:
        self._index = index
        self._book = book
        self._pods = pods

    def connection(self, source: Address, destination: Address, protocol: int, port: int) -> Connection:
        """From one address to another, between the pods that have them, where there are any. ValueError when both are
        not of one version.
        """
        ends: list[End] = []
        for address in (source, destination):
            pods = self._book.pods.get(code_of(address))
            ends.append(pods[0].spec if pods else address)
        return Connection(ends[0], ends[1], source, destination, protocol, port)

    def allows(self, source: Address, destination: Address, protocol: int, port: int) -> bool:
        """Whether a connection is allowed in both directions."""
        start, end = self._at(source), self._at(destination)
        return (
            self._ask(Direction.EGRESS, start, end, protocol, port).allowed
            and self._ask(Direction.INGRESS, end, start, protocol, port).allowed
        )

    def verdict(self, connection: Connection) -> Verdict:
        """What becomes of a connection, and why."""
        source = self._end(connection.source, connection.source_address)
        destination = self._end(connection.destination, connection.destination_address)
        protocol, port = connection.protocol, connection.port
        egress = self._ask(Direction.EGRESS, source, destination, protocol, port)
        ingress = self._ask(Direction.INGRESS, destination, source, protocol, port)
        return Verdict(
            connection,
            _decision(Direction.EGRESS, source.kin, egress),
            _decision(Direction.INGRESS, destination.kin, ingress),
        )

    def _at(self, address: Address) -> _End:
        """Whoever has an address."""
        code = code_of(address)
        pods = self._book.pods.get(code)
        return _End(pods[0], pods[0].kin, address, code) if pods else _End(None, None, address, code)

    def _end(self, end: End, address: Address) -> _End:
        pod = self._pods.get(end.key) if isinstance(end, PolicyPod) else None
        return _End(pod, None if pod is None else pod.kin, address, code_of(address))

    def _ask(self, direction: Direction, own: _End, other: _End, protocol: int, port: int) -> _Asked:
        """One direction, at the pod at ``own``, in the order of the tiers."""
        pod, kin = own.pod, own.kin
        if pod is None or kin is None:
            return _Asked(True, Reason.NO_POD)
        if other.pod is pod:
            return _Asked(True, Reason.ITSELF)
        spec = pod.node.spec
        own_node = spec is not None and (other.address in spec.addresses or other.address in spec.gateways)
        if own_node and direction is Direction.INGRESS:
            return _Asked(True, Reason.OWN_NODE)
        order = self._order(kin)[direction * _TIERS : (direction + 1) * _TIERS]

        rule = _first(order[Tier.ADMIN], pod, other, protocol, port)
        passed = None
        if rule is not None:
            if rule.content.action is not Action.PASS:
                return _Asked(rule.content.action is Action.ACCEPT, Reason.RULE, rule)
            passed = rule
        if own_node:
            return _Asked(True, Reason.OWN_NODE, passed=passed)

        rule = _first(order[Tier.NETWORK_POLICY], pod, other, protocol, port)
        if rule is not None:
            return _Asked(True, Reason.RULE, rule, passed)
        if kin_posture(kin).isolations[direction] is not None:
            return _Asked(False, Reason.ISOLATED, passed=passed)

        rule = _first(order[Tier.BASELINE], pod, other, protocol, port)
        if rule is not None and rule.content.action is not Action.PASS:
            return _Asked(rule.content.action is Action.ACCEPT, Reason.RULE, rule, passed)
        selected = any(direction in policy.rules_for for group in kin.groups for policy in group.policies)
        return _Asked(True, Reason.UNMATCHED if selected else Reason.UNSELECTED, passed=passed)

    def _order(self, kin: LabelClass) -> Order:
        """The rules of a class by direction and tier, in the order in which they are asked."""
        if kin.order_of != self._index.version:
            places: list[list[Body]] = [[] for _ in range(2 * _TIERS)]
            for body in rules_of(kin):
                if not body.staged:
                    stage = stage_of(body.content.stage)
                    places[stage.direction * _TIERS + stage.tier].append(body)
            for place in places:
                place.sort(key=_asked_at)
            kin.order = tuple(map(tuple, places))
            kin.order_of = self._index.version
        return kin.order


def _asked_at(body: Body) -> tuple[int, Owner]:
    """Where in its tier a rule is asked. Rules of NetworkPolicies all say the same: there the first is named."""
    stage = stage_of(body.content.stage)
    return (0 if stage.tier is Tier.NETWORK_POLICY else stage.level), body.owners[0]


def _first(bodies: tuple[Body, ...], pod: Pod, other: _End, protocol: int, port: int) -> Body | None:
    """The first rule that is for the connection: its subject is ``pod``."""
    for body in bodies:
        if covers(body.port_codes(pod), protocol, port) and _meets(body, other):
            return body
    return None


def _meets(body: Body, other: _End) -> bool:
    """Whether the other end is a peer of a rule."""
    for source in body.content.sources:
        if other.kin in source.classes if isinstance(source, PodGroup) else source.contains(other.code):
            return True
    return body.holds(other.code)


def _decision(direction: Direction, kin: LabelClass | None, asked: _Asked) -> Decision:
    in_tier = asked.reason is Reason.ISOLATED or (
        asked.rule is not None and stage_of(asked.rule.content.stage).tier is Tier.NETWORK_POLICY
    )
    isolating: list[PolicyRef] = []
    if in_tier and kin is not None:
        policies = (policy for group in kin.groups for policy in group.policies)
        isolating = sorted(
            policy.ref for policy in policies if policy.posture.isolations[direction] is not None
        )
    rule, passed = _rule_ref(asked.rule), _rule_ref(asked.passed)
    return Decision(direction, asked.allowed, asked.reason, rule, passed, tuple(isolating))


def _rule_ref(body: Body | None) -> RuleRef | None:
    if body is None:
        return None
    owner = body.owners[0]
    return RuleRef(stage_of(body.content.stage).tier, policy_of(owner), owner[4], body.content.action)
