# SPDX-License-Identifier: Apache-2.0
"""Whether a connection is allowed, from the indexes: the rules of its two pods are asked, and nothing else.

The answer is the evaluator's (:mod:`sdn.policy.evaluator`), which tells the reasons, too. The rules of a class are put
in order once, so that thousands of connections can be asked one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sdn.model.address import Address
from sdn.policy.compiled import stage_of
from sdn.policy.groups import PodGroup, kin_posture
from sdn.policy.networks import code_of
from sdn.policy.portcodes import covers
from sdn.policy.program import rules_of
from sdn.policy.values import Action, Direction, Tier

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Body
    from sdn.policy.index import LabelIndex
    from sdn.policy.members import LabelClass, Pod

_TIERS = len(Tier)


class _End(NamedTuple):
    """An end of a connection: the pod that has the address, where there is one, and the class of that pod."""

    pod: Pod | None
    kin: LabelClass | None
    address: Address
    code: int


class Decisions:
    """See the module."""

    def __init__(self, index: LabelIndex, book: AddressBook) -> None:
        self._index = index
        self._book = book

    def allows(self, source: Address, destination: Address, protocol: int, port: int) -> bool:
        """Whether a connection is allowed in both directions."""
        start, end = self._end(source), self._end(destination)
        return self._lets(Direction.EGRESS, start, end, protocol, port) and self._lets(
            Direction.INGRESS, end, start, protocol, port
        )

    def _end(self, address: Address) -> _End:
        """Whoever has an address."""
        code = code_of(address)
        pods = self._book.pods.get(code)
        return _End(pods[0], pods[0].kin, address, code) if pods else _End(None, None, address, code)

    def _lets(self, direction: Direction, own: _End, other: _End, protocol: int, port: int) -> bool:
        """One direction, at the pod at ``own``, in the order of the tiers."""
        pod, kin = own.pod, own.kin
        if pod is None or kin is None or other.pod is pod:
            return True
        spec = pod.node.spec
        own_node = spec is not None and (other.address in spec.addresses or other.address in spec.gateways)
        if own_node and direction is Direction.INGRESS:
            return True
        rules = self._order(kin)[direction * _TIERS : (direction + 1) * _TIERS]

        action = _first(rules[Tier.ADMIN], pod, other, protocol, port)
        if action is Action.ACCEPT or action is Action.DENY:
            return action is Action.ACCEPT
        if own_node:
            return True

        if _first(rules[Tier.NETWORK_POLICY], pod, other, protocol, port) is not None:
            return True
        if kin_posture(kin).isolations[direction] is not None:
            return False

        return _first(rules[Tier.BASELINE], pod, other, protocol, port) is not Action.DENY

    def _order(self, kin: LabelClass) -> tuple[tuple[Body, ...], ...]:
        """The rules of a class by direction and tier, in the order in which they are asked."""
        if kin.order_of != self._index.version:
            places: list[list[Body]] = [[] for _ in range(2 * _TIERS)]
            for body in rules_of(kin):
                if not body.staged:
                    stage = stage_of(body.content.stage)
                    places[stage.direction * _TIERS + stage.tier].append(body)
            for place in places:
                # Rules of one stage have one action, so that their order means nothing.
                place.sort(key=lambda body: body.content.stage)
            kin.order = tuple(map(tuple, places))
            kin.order_of = self._index.version
        return kin.order


def _first(bodies: tuple[Body, ...], pod: Pod, other: _End, protocol: int, port: int) -> Action | None:
    """What the first rule says that is for the connection, and whose subject is ``pod``; None: there is none."""
    for body in bodies:
        if covers(body.port_codes(pod), protocol, port) and _meets(body, other):
            return body.content.action
    return None


def _meets(body: Body, other: _End) -> bool:
    """Whether the other end is a peer of a rule."""
    for source in body.content.sources:
        if other.kin in source.classes if isinstance(source, PodGroup) else source.contains(other.code):
            return True
    return body.holds(other.code)
