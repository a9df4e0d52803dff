# SPDX-License-Identifier: Apache-2.0
"""Groups: which buckets may be chosen, and what a bucket's actions come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sdn.pipeline.actions import (
    Action,
    Bucket,
    Ct,
    DecTtl,
    GroupAction,
    Move,
    Output,
    Resubmit,
    SetField,
)
from sdn.pipeline.flow import Group
from sdn.simulator.packet import Packet

#: Chooses a bucket of a select group for a packet from those that are alive.
Choose: TypeAlias = Callable[[Group, Packet, tuple[Bucket, ...]], Bucket]


def first_bucket(group: Group, packet: Packet, buckets: tuple[Bucket, ...]) -> Bucket:
    """The choice of a select group when nobody chooses: the first bucket that is alive."""
    return buckets[0]


def candidates(group: Group, down_ports: frozenset[int]) -> tuple[Bucket, ...]:
    """The buckets that a packet goes to; for a select group, those of which it goes to one (OpenFlow 1.5,
    section 5.10.1).

    A bucket that watches a port without link is not alive; one of weight 0 is never selected.
    """
    if group.type in ("all", "indirect"):
        return group.buckets
    alive = tuple(bucket for bucket in group.buckets if bucket.watch_port not in down_ports)
    if group.type == "fast_failover":
        return alive[:1]
    return tuple(bucket for bucket in alive if bucket.weight > 0)


def action_set(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """A bucket's actions in the order in which they run; empty when none of them sends the packet anywhere."""
    rank: dict[type, int] = {Ct: 1, Resubmit: 2, Output: 3, GroupAction: 4}
    final: Action | None = None
    for action in actions:
        if type(action) in rank and (final is None or rank[type(action)] >= rank[type(final)]):
            final = action
    if final is None:
        return ()
    decrement = [action for action in actions if isinstance(action, DecTtl)][-1:]
    changes = [action for action in actions if isinstance(action, SetField | Move)]
    return (*decrement, *changes, final)
