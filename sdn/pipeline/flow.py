# SPDX-License-Identifier: Apache-2.0
"""A flow and a group: the values that the compiler makes, the codec encodes and the simulator runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sdn.pipeline.actions import Action, Bucket
from sdn.pipeline.fields import Field
from sdn.pipeline.match import Match
from sdn.pipeline.owner import Owner


class FlowKey(NamedTuple):
    """What makes a flow one flow in a switch (OpenFlow 1.5, section 6.4): a second one with the same key
    replaces it.
    """

    table: int
    priority: int
    match: Match


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry of a flow table.

    ``owner`` and ``why`` never reach the switch (the cookie does): they are for people, and take no part in
    equality, so that equal flows are equal entries in a switch. Time-outs are in seconds; 0 means never.
    """

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...]
    cookie: int
    owner: Owner = field(compare=False)
    why: str = field(compare=False)
    idle_timeout: int = 0
    hard_timeout: int = 0

    @property
    def key(self) -> FlowKey:
        return FlowKey(self.table, self.priority, self.match)


GroupType = Literal["all", "select", "indirect", "fast_failover"]


@dataclass(frozen=True, slots=True)
class Group:
    """One entry of the group table.

    ``selection_method`` "dp_hash" spreads a select group evenly (Open vSwitch's default, "", does too since
    2.10; "hash" misweights and costs a megaflow a connection). With "hash", ``selection_fields`` are what is hashed;
    empty: the five-tuple.
    """

    group_id: int
    type: GroupType
    buckets: tuple[Bucket, ...]
    owner: Owner = field(compare=False)
    why: str = field(compare=False)
    selection_method: str = ""
    selection_fields: tuple[Field, ...] = ()
