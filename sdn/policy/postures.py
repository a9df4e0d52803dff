# SPDX-License-Identifier: Apache-2.0
"""What policies make of a pod before any rule is asked: in which directions it is isolated, and whether it is guarded.

What several policies say together is the union, so postures of groups are merged for the pods that are in all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Final, NamedTuple

from sdn.model.address import Address
from sdn.policy.cells import Cell, CellKey, GuardCell, GuardKey, IsolationCell, IsolationKey
from sdn.policy.compiled import CompiledPolicy
from sdn.policy.values import Direction, PolicyRef


class Isolation(NamedTuple):
    """By which policy first (kind, namespace, name), by how many, and whether one of them has denials reported."""

    first: tuple[str, str, str]
    policies: int
    log: bool


class Posture(NamedTuple):
    """``isolations``: for ingress and for egress, then the same by staged policies."""

    isolations: tuple[Isolation | None, ...] = (None, None, None, None)
    guarded: bool = False

    @property
    def isolated(self) -> tuple[bool, bool]:
        """Whether policies in force isolate, for ingress and for egress."""
        return self.isolations[0] is not None, self.isolations[1] is not None


UNTOUCHED: Final = Posture()


class Standing(NamedTuple):
    """What stands at a port of a switch: a pod, as far as cells tell of it, and what policies make of it."""

    posture: Posture
    addresses: tuple[Address, ...]
    ref: PolicyRef
    key: Hashable


def posture_of(policy: CompiledPolicy) -> Posture:
    """What one policy makes of the pods that it selects."""
    ref = policy.ref
    one = Isolation((ref.kind, ref.namespace, ref.name), 1, policy.log_denied)
    ingress = one if Direction.INGRESS in policy.isolates else None
    egress = one if Direction.EGRESS in policy.isolates else None
    if policy.staged:
        return Posture((None, None, ingress, egress))
    return Posture((ingress, egress, None, None), policy.guards)


def merged(given: Iterable[Posture]) -> Posture:
    """What all of them make together."""
    whole = UNTOUCHED
    for one in given:
        if whole is UNTOUCHED:
            whole = one
        elif one is not UNTOUCHED:
            pairs = zip(whole.isolations, one.isolations, strict=True)
            whole = Posture(tuple([_both(*pair) for pair in pairs]), whole.guarded or one.guarded)
    return whole


def _both(one: Isolation | None, other: Isolation | None) -> Isolation | None:
    if one is None or other is None:
        return one or other
    return Isolation(min(one.first, other.first), one.policies + other.policies, one.log or other.log)


#: What isolations are, in the order of a posture.
_ISOLATIONS: Final = (
    (Direction.INGRESS, False),
    (Direction.EGRESS, False),
    (Direction.INGRESS, True),
    (Direction.EGRESS, True),
)


def _alike(one: Isolation | None, other: Isolation | None) -> bool:
    """Whether both make the same of a pod, be it by more policies or fewer."""
    if one is None or other is None:
        return one is other
    return (one.first, one.log) == (other.first, other.log)


def alike(one: Posture, other: Posture) -> bool:
    """Whether the cells of a pod are the same under both."""
    return one.guarded == other.guarded and all(map(_alike, one.isolations, other.isolations))


def isolation_cell(key: IsolationKey, addresses: tuple[Address, ...], isolation: Isolation) -> IsolationCell:
    """What a switch is told of the isolation of the pod with these addresses."""
    return IsolationCell(key, addresses, PolicyRef(*isolation.first), isolation.policies, isolation.log)


def differences(
    ofport: int, before: Standing | None, now: Standing | None
) -> Iterator[tuple[CellKey, Cell | None]]:
    """The cells of postures that make the difference between what stood at a port and what stands there."""
    old = UNTOUCHED if before is None else before.posture
    new = UNTOUCHED if now is None else now.posture
    addresses: tuple[Address, ...] = () if now is None else now.addresses
    same_addresses = before is not None and before.addresses == addresses
    for (direction, staged), was, isolation in zip(_ISOLATIONS, old.isolations, new.isolations, strict=True):
        if _alike(isolation, was) and (isolation is None or same_addresses):
            continue
        key = IsolationKey(direction, ofport, staged)
        yield key, None if isolation is None else isolation_cell(key, addresses, isolation)
    guard = GuardKey(ofport)
    if now is not None and new.guarded:
        if not (old.guarded and same_addresses and before is not None and before.ref == now.ref):
            yield guard, GuardCell(guard, addresses, now.ref)
    elif old.guarded:
        yield guard, None
