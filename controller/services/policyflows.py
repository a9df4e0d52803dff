# SPDX-License-Identifier: Apache-2.0
"""What a node's switch holds of one policy, and what it has counted.

Of a rule two flows carry its number: one takes the packets that begin a connection, the other all further ones, so the
first one's packets are connections and both together the traffic. The flow that denies what no rule of an isolated
pod allows comes in two as well.

Reading waits for a switch, and runs in worker threads. ConnectionClosedError, CodecError.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from controller.connection import SwitchConnection
from controller.services.listing import Flows
from sdn.pipeline.compiler import policy_flows
from sdn.pipeline.flow import Flow
from sdn.policy.cells import Cell, IsolationCell, PeerCell, RuleCell, SubjectCell
from sdn.policy.values import Direction
from sdn.v1 import inspection_pb2

_NEW = 1
"""The bit of ct_state that says so."""


@dataclass(slots=True)
class Count:
    """Of one rule, or of one direction's isolation."""

    connections: int = 0
    packets: int = 0
    bytes: int = 0

    def add(self, other: Count) -> None:
        self.connections += other.connections
        self.packets += other.packets
        self.bytes += other.bytes

    def message(self) -> inspection_pb2.PolicyCount:
        return inspection_pb2.PolicyCount(
            connections=self.connections, packets=self.packets, bytes=self.bytes
        )


@dataclass(slots=True)
class Counted:
    """By number of the rule's conjunction, and by direction; ``others``: the most policies that isolate one of the pods
    besides.
    """

    rules: dict[int, Count] = field(default_factory=lambda: defaultdict(Count))
    isolation: dict[Direction, Count] = field(default_factory=lambda: defaultdict(Count))
    others: dict[Direction, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, other: Counted) -> None:
        for number, count in other.rules.items():
            self.rules[number].add(count)
        for direction, count in other.isolation.items():
            self.isolation[direction].add(count)
        for direction, policies in other.others.items():
            self.others[direction] = max(self.others[direction], policies)


def names_any(cell: Cell, numbers: Collection[int]) -> bool:
    """Whether a cell of peers or of a subject counts for one of these rules, be it beside others."""
    return isinstance(cell, PeerCell | SubjectCell) and any(one in numbers for one in cell.conjunctions)


def read(
    connection: SwitchConnection, cells: Iterable[Cell], most: int
) -> tuple[list[inspection_pb2.FlowEntry], int, Counted]:
    """The flows of a policy's cells as the switch has them: ``most`` of them, those that count first; how many there
    are to be; and what was counted by all.
    """
    counted = Counted()
    counts: dict[Flow, Count] = {}
    subjects: list[Flow] = []
    peers: list[Flow] = []
    for cell in cells:
        flows = policy_flows(cell)
        if isinstance(cell, RuleCell):
            counts.update((flow, counted.rules[cell.key.conjunction]) for flow in flows)
        elif isinstance(cell, IsolationCell):
            direction = cell.key.direction
            counts.update((flow, counted.isolation[direction]) for flow in flows)
            counted.others[direction] = max(counted.others[direction], cell.policies - 1)
        else:
            (peers if isinstance(cell, PeerCell) else subjects).extend(flows)
    shown = [*counts, *subjects[:most], *peers[:most]][: max(most, len(counts))]
    places = {flow: place for place, flow in enumerate(shown)}
    found: list[tuple[int, inspection_pb2.FlowEntry]] = []
    for flow, entry in Flows(shown).read_each(connection):
        found.append((places[flow], entry))
        count = counts.get(flow)
        if count is not None:
            first = entry.packets if _begins(flow) else 0
            count.add(Count(first, entry.packets, entry.bytes))
    entries = [entry for _, entry in sorted(found, key=lambda one: one[0])]
    return entries[:most], len(counts) + len(subjects) + len(peers), counted


def _begins(flow: Flow) -> bool:
    """Whether a flow takes packets that begin connections, and no others."""
    state = flow.match.get("ct_state")
    return state is not None and bool(state[0] & _NEW)
