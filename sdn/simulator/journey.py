# SPDX-License-Identifier: Apache-2.0
"""A packet's way through a switch, told: every flow it met, what that changed, and where it came out.

The steps are values for programs; :func:`render` makes them lines for people, one line a step.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sdn.pipeline.actions import Action, Bucket, Conjunction
from sdn.pipeline.fields import OFPP_CONTROLLER, OFPP_LOCAL, Field
from sdn.pipeline.flow import Flow, Group
from sdn.simulator.packet import Packet
from sdn.simulator.text import format_packet


class StepKind(enum.Enum):
    """What a step tells."""

    #: A flow satisfied a clause of the conjunction by which the next step's flow took the packet.
    CLAUSE = "clause"
    #: A flow took the packet.
    MATCH = "match"
    #: No flow of the table takes the packet: it goes no further there (the OpenFlow default).
    MISS = "miss"
    #: An action changed the packet, or left it as it was.
    CHANGE = "change"
    #: An action did nothing, and ``note`` says why.
    SKIP = "skip"
    #: The packet left.
    OUTPUT = "output"
    #: A group handed the packet to a bucket.
    BUCKET = "bucket"
    #: The packet went to the connection tracker.
    TRACK = "track"
    #: The packet made a flow for those after it.
    LEARN = "learn"
    #: The tracked packet goes on in a table.
    RESUME = "resume"
    #: The switch gives up and drops everything of this pass.
    ERROR = "error"


class Change(NamedTuple):
    """A field's value before and after an action."""

    field: Field
    before: int
    after: int


class Outcome(NamedTuple):
    """A packet that leaves: the port (``OFPP_LOCAL`` and ``OFPP_CONTROLLER`` included) and the packet with
    its tunnel metadata.

    ``flow`` is the flow whose action sent it. ``reason`` is "action", or "invalid_ttl" for a packet that goes
    to the controller because its TTL ran out.
    """

    port: int
    packet: Packet
    flow: Flow
    reason: str = "action"


class Step(NamedTuple):
    """One step. ``depth`` counts the resubmits and buckets around it; ``flow`` is the one whose actions run,
    None on a miss. Of a clause ``flow`` satisfies it, and ``action`` is the conjunction action that says so; every flow
    that does has a step of its own, in the order of clauses, before the match that they led to.
    """

    kind: StepKind
    table: int
    depth: int
    flow: Flow | None = None
    action: Action | None = None
    changes: tuple[Change, ...] = ()
    outcome: Outcome | None = None
    group: Group | None = None
    bucket: Bucket | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Journey:
    """What became of one packet.

    ``finals`` holds the packet as it is at the end of each pass through the tables (each ``ct`` with a table
    starts one more): what ``ofproto/trace`` prints as "Final flow". ``error`` is what made the switch give
    up, empty when nothing did. ``learned`` are the flows that the packet made for those after it (see
    :meth:`~sdn.simulator.switch.SimulatedSwitch.learn`).
    """

    packet: Packet
    outcomes: tuple[Outcome, ...]
    steps: tuple[Step, ...]
    finals: tuple[Packet, ...]
    error: str = ""
    learned: tuple[Flow, ...] = ()

    @property
    def dropped(self) -> bool:
        """Nothing came out anywhere."""
        return not self.outcomes

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it came out, in order."""
        return tuple(outcome.port for outcome in self.outcomes)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The flows that took the packet, in order."""
        return tuple(
            step.flow for step in self.steps if step.kind is StepKind.MATCH and step.flow is not None
        )

    @property
    def last(self) -> Step:
        """The step that decided the packet's end: the place of the drop when it was dropped."""
        for step in reversed(self.steps):
            if step.kind is not StepKind.CHANGE:
                return step
        return self.steps[-1]

    def __str__(self) -> str:
        return "\n".join(render(self))


def _table(number: int) -> str:
    return ""


def _port(number: int) -> str:
    return ""


def render(
    journey: Journey,
    table_name: Callable[[int], str] = _table,
    port_name: Callable[[int], str] = _port,
) -> Iterator[str]:
    """The journey as lines of text: the packet, one line a step, the end. Names may be empty where there are
    none.
    """
    names = _Names(table_name, port_name)
    yield f"packet {format_packet(journey.packet)}"
    for step in journey.steps:
        yield "  " * step.depth + _line(step, names)
    if journey.error:
        yield f"end: dropped, {journey.error}"
    elif journey.dropped:
        yield f"end: dropped in {names.table(journey.last.table)}"
    else:
        yield "end: " + ", ".join(names.port(port) for port in journey.ports)


class _Names(NamedTuple):
    table_name: Callable[[int], str]
    port_name: Callable[[int], str]

    def table(self, number: int) -> str:
        return f"table {number} {self.table_name(number)}".rstrip()

    def port(self, number: int) -> str:
        if number == OFPP_CONTROLLER:
            return "controller"
        if number == OFPP_LOCAL:
            return "port LOCAL"
        return f"port {number} {self.port_name(number)}".rstrip()


def _told(flow: Flow) -> str:
    condition = f"priority={flow.priority} {flow.match}".rstrip()
    return f"{condition} [{flow.owner}: {flow.why}]"


def _line(step: Step, names: _Names) -> str:
    flow = step.flow
    if step.kind is StepKind.CLAUSE and flow is not None and isinstance(step.action, Conjunction):
        clause = f"clause {step.action.clause} of {step.action.clauses} of conjunction {step.action.id}"
        return f"{names.table(step.table)}: {clause}: {_told(flow)}"
    if step.kind is StepKind.MATCH and flow is not None:
        return f"{names.table(step.table)}: {_told(flow)}{'' if flow.actions else ': drop'}"
    if step.kind is StepKind.MISS:
        return f"{names.table(step.table)}: no flow takes the packet: drop"
    if step.kind is StepKind.CHANGE:
        if not step.changes:
            return f"  {step.note}"
        return "  " + ", ".join(
            f"{change.field} {change.field.format(change.before)} → {change.field.format(change.after)}"
            for change in step.changes
        )
    if step.kind is StepKind.OUTPUT and step.outcome is not None:
        outcome = step.outcome
        why = "" if outcome.reason == "action" else f" ({outcome.reason})"
        return f"  out to {names.port(outcome.port)}{why}: {format_packet(outcome.packet)}"
    if step.kind is StepKind.BUCKET and step.group is not None and step.bucket is not None:
        group = step.group
        return f"group {group.group_id} {group.type}, bucket {step.bucket.bucket_id} [{group.owner}: {group.why}]"
    if step.kind is StepKind.RESUME:
        return f"{step.note}, on in {names.table(step.table)}"
    return f"  {step.note}"
