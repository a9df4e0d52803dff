# SPDX-License-Identifier: Apache-2.0
"""One packet through the tables: what Open vSwitch does with it, action by action.

The meaning of every action follows ``ofproto/ofproto-dpif-xlate.c`` of Open vSwitch 3.1, which is what the
nodes run and what the property tests hold this module against. Where that differs from what one might expect:

- Fields that an action changes stay changed after ``resubmit`` returns; after a group they are as before it.
- A bucket's actions are an action *set* (OpenFlow 1.5, section 5.6): ``dec_ttl`` first, then the sets and
  moves in order, then only one of group, output, resubmit and ct, and nothing at all happens without one of
  these.
- A packet whose TTL runs out goes to the controller; the actions that follow in the same list are not run,
  those after the ``resubmit`` that led there are.
- Matches see the transport ports (and ICMP type and code) of any fragment as 0; actions see those of the
  first fragment.
- Too deep a nesting, or too many resubmits, drops everything that the pass had sent until then.
- After ``ct`` the packet goes on untracked; with a table, a tracked copy starts there anew, up to six times
  in a row.
- A flow with ``conjunction`` actions takes no packet, so nothing runs these; they have their meaning in the lookup
  (:mod:`~sdn.simulator.conjunction`). Actions see the field conj_id as it was before it.
- What ``learn`` makes is told by the journey and changes nothing in it, as in ``ofproto/trace``.

Not simulated, since no flow of ours uses them: NORMAL and FLOOD ports, and the limit of 64 kB of datapath
actions. Nor that Open vSwitch does not rewrite the IP header of an IPv4 packet whose protocol is 0 (it takes
that for "no header"), nor an ARP message whose operation becomes 0. A translation by ``ct(nat)`` shows only
in the copy that goes on in a table, as in ``ofproto/trace``. And no switch can add the link-layer option that
a solicitation lacks: of such a one it sends an advertisement without, although flow, trace and simulator set
the field.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from sdn.pipeline.actions import (
    Action,
    Bucket,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Learn,
    Move,
    Output,
    OutputField,
    Resubmit,
    SetField,
)
from sdn.pipeline.fields import (
    CT_LABEL,
    CT_MARK,
    CT_NW_PROTO,
    CT_STATE,
    CT_ZONE,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FIELDS,
    IN_PORT,
    NW_TTL,
    OFPP_ANY,
    OFPP_CONTROLLER,
    OFPP_IN_PORT,
    OFPP_LOCAL,
    Field,
)
from sdn.pipeline.flow import Flow, Group
from sdn.simulator.buckets import Choose, action_set, candidates
from sdn.simulator.conntrack import Conntrack, Request, Tracked, place_original
from sdn.simulator.journey import Change, Journey, Outcome, Step, StepKind
from sdn.simulator.learning import learned_flow
from sdn.simulator.lookup import FlowTables
from sdn.simulator.packet import ORIGINAL_FIELDS, Packet, has_field
from sdn.simulator.values import lookup_values, masked, moved

#: Limits of Open vSwitch (MAX_DEPTH and MAX_RESUBMITS of ofproto-dpif-xlate.c).
MAX_DEPTH: Final = 64
MAX_RESUBMITS: Final = MAX_DEPTH * MAX_DEPTH

#: Recirculations of one packet in the userspace datapath (MAX_RECIRC_DEPTH of dpif-netdev.c).
MAX_RECIRCULATIONS: Final = 6
#: Copies of one packet that go on after ``ct``. Open vSwitch has no such limit, and a loop of ``ct`` in
#: several copies would keep it busy for long; here it is an error.
MAX_COPIES: Final = 1024

_FIRST_RESERVED_PORT: Final = 0xFFFFFF00
_CT_PLACES: Final = tuple(field.order for field in (CT_STATE, CT_ZONE, CT_MARK, CT_LABEL, *ORIGINAL_FIELDS))


class UnsupportedPortError(Exception):
    """A flow sends to a reserved port that this switch does not simulate (NORMAL, FLOOD, ALL, TABLE)."""


class Tables(NamedTuple):
    """What a switch holds: its flows, its groups, and which of its ports have no link."""

    flows: FlowTables
    groups: Mapping[int, Group]
    down_ports: frozenset[int]


class _Frame:
    """A list of actions being run: a flow's, or a bucket's."""

    __slots__ = ("actions", "bucket", "deepens", "entered", "flow", "level", "place", "restore", "table")

    def __init__(
        self, actions: tuple[Action, ...], flow: Flow, table: int, level: int, deepens: bool
    ) -> None:
        self.actions = actions
        self.flow = flow
        self.table = table
        self.level = level
        self.deepens = deepens
        self.place = 0
        self.entered = False
        self.bucket: tuple[Group, Bucket] | None = None
        self.restore: tuple[int, ...] | None = None

    def end(self) -> None:
        """Run no more actions of this list."""
        self.place = len(self.actions)


class _Fork(NamedTuple):
    """A tracked copy that waits to go on in a table."""

    values: list[int]
    table: int
    recirculations: int


class Translation:
    """One packet's journey."""

    def __init__(self, tables: Tables, conntrack: Conntrack, choose: Choose) -> None:
        self.tables = tables
        self.conntrack = conntrack
        self.choose = choose
        self.steps: list[Step] = []
        self.values: list[int] = []
        # Of the pass that runs now.
        self.frames: list[_Frame] = []
        self.depth = 0
        self.resubmits = 0
        self.sent: list[Outcome] = []
        self.forks: list[_Fork] = []
        self.learned: list[Flow] = []
        self.recirculations = 0
        self.error = ""

    def run(self, packet: Packet, table: int) -> Journey:
        outcomes: list[Outcome] = []
        finals: list[Packet] = []
        errors: list[str] = []
        waiting = deque([_Fork(list(packet.values), table, 0)])
        while waiting:
            fork = waiting.popleft()
            self.values, self.recirculations = fork.values, fork.recirculations
            start = fork.table
            if finals:
                self._step(
                    StepKind.RESUME, start, 0, note=f"tracked copy, ct_zone={self.values[CT_ZONE.order]}"
                )
            self._pass(start)
            outcomes += self.sent
            waiting += self.forks
            if len(finals) + len(waiting) > MAX_COPIES:
                errors.append(f"more than {MAX_COPIES} tracked copies of one packet")
                waiting.clear()
            finals.append(Packet(self.values))
            if self.error:
                errors.append(self.error)
        return Journey(
            packet,
            tuple(outcomes),
            tuple(self.steps),
            tuple(finals),
            "; ".join(errors),
            tuple(self.learned),
        )

    def _pass(self, table: int) -> None:
        """One pass through the tables, until every list of actions is done."""
        self.frames, self.sent, self.forks = [], [], []
        self.depth = self.resubmits = 0
        self.error = ""
        self._enter(table, 0, deepens=False)
        while self.frames:
            frame = self.frames[-1]
            if not frame.entered:
                frame.entered = True
                self.depth += frame.deepens
                if frame.bucket is not None:
                    group, bucket = frame.bucket
                    self._step(
                        StepKind.BUCKET, frame.table, frame.level - 1, frame.flow, group=group, bucket=bucket
                    )
            if frame.place >= len(frame.actions):
                self.frames.pop()
                self.depth -= frame.deepens
                if frame.restore is not None:
                    self.values[:] = frame.restore
                continue
            action = frame.actions[frame.place]
            frame.place += 1
            HANDLERS[type(action)](self, action, frame)
        if self.error:
            self.sent, self.forks = [], []

    def _step(
        self,
        kind: StepKind,
        table: int,
        depth: int,
        flow: Flow | None = None,
        action: Action | None = None,
        changes: tuple[Change, ...] = (),
        outcome: Outcome | None = None,
        group: Group | None = None,
        bucket: Bucket | None = None,
        note: str = "",
    ) -> None:
        self.steps.append(Step(kind, table, depth, flow, action, changes, outcome, group, bucket, note))

    def _note(self, frame: _Frame, action: Action, note: str, kind: StepKind = StepKind.SKIP) -> None:
        self._step(kind, frame.table, frame.level, frame.flow, action, note=note)

    # Tables.

    def _enter(self, table: int, level: int, *, deepens: bool, with_ct: bool = False) -> None:
        """Look the packet up and queue the actions of the flow that takes it."""
        flow, conjunction = self.tables.flows.find(table, lookup_values(self.values, with_ct))
        if conjunction is not None:
            for part in conjunction.parts:
                self._step(StepKind.CLAUSE, table, level, part.flow, part.action)
        if flow is None:
            self._step(StepKind.MISS, table, level)
            return
        self._step(StepKind.MATCH, table, level, flow)
        self.frames.append(_Frame(flow.actions, flow, table, level, deepens))

    def _within_limits(self, frame: _Frame, action: Action) -> bool:
        if self.depth >= MAX_DEPTH:
            self.error = f"more than {MAX_DEPTH} nested resubmits and groups"
        elif self.resubmits >= MAX_RESUBMITS:
            self.error = f"more than {MAX_RESUBMITS} resubmits"
        else:
            return True
        self._note(frame, action, self.error, StepKind.ERROR)
        self.frames.clear()
        return False

    def _go(self, frame: _Frame, action: Action, table: int, level: int, with_ct: bool = False) -> None:
        if self._within_limits(frame, action):
            self.resubmits += 1
            self._enter(table, level, deepens=table <= frame.table, with_ct=with_ct)

    def goto(self, action: Goto, frame: _Frame) -> None:
        self._go(frame, action, action.table, frame.level)

    def resubmit(self, action: Resubmit, frame: _Frame) -> None:
        ip = self.values[ETH_TYPE.order] in (ETH_TYPE_IPV4, ETH_TYPE_IPV6)
        if action.with_ct and not (self.values[CT_NW_PROTO.order] and ip):
            self._note(frame, action, f"resubmit(,{action.table},ct) of an untracked packet does nothing")
            return
        self._go(frame, action, action.table, frame.level + 1, action.with_ct)

    # Changes.

    def _assign(self, frame: _Frame, action: Action, field: Field, value: int) -> None:
        before = self.values[field.order]
        self.values[field.order] = value
        changes = (Change(field, before, value),) if before != value else ()
        note = "" if changes else f"{field} is {field.format(value)} already"
        self._step(StepKind.CHANGE, frame.table, frame.level, frame.flow, action, changes, note=note)

    def _lacks(self, frame: _Frame, action: Action, *fields: Field) -> bool:
        for field in fields:
            if not has_field(self.values, field):
                self._note(frame, action, f"the packet has no {field}: nothing set")
                return True
        return False

    def set_field(self, action: SetField, frame: _Frame) -> None:
        if not self._lacks(frame, action, action.field):
            self._assign(frame, action, action.field, masked(self.values, action))

    def move(self, action: Move, frame: _Frame) -> None:
        if not self._lacks(frame, action, action.source, action.destination):
            self._assign(frame, action, action.destination, moved(self.values, action))

    def dec_ttl(self, action: DecTtl, frame: _Frame) -> None:
        if not has_field(self.values, NW_TTL):
            self._note(frame, action, "dec_ttl of a packet that is not IP does nothing")
            return
        ttl = self.values[NW_TTL.order]
        if ttl > 1:
            self._assign(frame, action, NW_TTL, ttl - 1)
            return
        self._leave(frame, action, OFPP_CONTROLLER, "invalid_ttl")
        frame.end()

    # Ways out.

    def _leave(self, frame: _Frame, action: Action, port: int, reason: str = "action") -> None:
        outcome = Outcome(port, Packet(self.values), frame.flow, reason)
        self.sent.append(outcome)
        self._step(StepKind.OUTPUT, frame.table, frame.level, frame.flow, action, outcome=outcome)

    def _output(self, frame: _Frame, action: Action, port: int) -> None:
        in_port = self.values[IN_PORT.order]
        if port == OFPP_IN_PORT:
            self._leave(frame, action, in_port)
        elif port == OFPP_ANY:
            self._note(frame, action, "output to no port")
        elif port == in_port:
            self._note(frame, action, f"output to port {port}, where the packet came from, is suppressed")
        elif port >= _FIRST_RESERVED_PORT and port not in (OFPP_LOCAL, OFPP_CONTROLLER):
            raise UnsupportedPortError(
                f"flow of {frame.flow.owner} ({frame.flow.why}) sends to reserved port {port:#x}"
            )
        else:
            self._leave(frame, action, port)

    def output(self, action: Output, frame: _Frame) -> None:
        self._output(frame, action, action.port)

    def output_field(self, action: OutputField, frame: _Frame) -> None:
        number = self.values[action.field.order] >> action.offset & (1 << action.bits) - 1
        if number > 0xFFFF:
            self._note(frame, action, f"output to {number}: no port has so high a number")
            return
        # Reserved ports have 16 bits here, and 32 everywhere else (OpenFlow 1.1 widened them).
        self._output(frame, action, number | 0xFFFF0000 if number >= 0xFF00 else number)

    # Groups.

    def group(self, action: GroupAction, frame: _Frame) -> None:
        if not self._within_limits(frame, action):
            return
        group = self.tables.groups.get(action.group_id)
        if group is None:
            self._note(frame, action, f"there is no group {action.group_id}: the rest is not done")
            frame.end()
            return
        chosen = candidates(group, self.tables.down_ports)
        if group.type == "select" and chosen:
            chosen = (self.choose(group, Packet(self.values), chosen),)
        if not chosen:
            self._note(frame, action, f"group {group.group_id} has no bucket that is alive")
        snapshot = tuple(self.values)
        for bucket in reversed(chosen):
            inner = _Frame(action_set(bucket.actions), frame.flow, frame.table, frame.level + 1, deepens=True)
            inner.bucket = (group, bucket)
            inner.restore = snapshot
            self.frames.append(inner)

    # Connection tracking.

    def ct(self, action: Ct, frame: _Frame) -> None:
        zone = action.zone
        if action.zone_field is not None:
            field, offset = action.zone_field
            zone = self.values[field.order] >> offset & 0xFFFF
        tracked = self.conntrack(Request(Packet(self.values), zone, action))
        follows = ""
        if action.table is not None:
            if self.recirculations < MAX_RECIRCULATIONS:
                copy = self._tracked_copy(action, zone, tracked)
                self.forks.append(_Fork(copy, action.table, self.recirculations + 1))
                follows = f", a tracked copy goes to table {action.table}"
            else:
                follows = f", its copy is dropped: more than {MAX_RECIRCULATIONS} recirculations"
        verb = "committed to" if action.commit else "tracked in"
        state = CT_STATE.format(tracked.state)
        self._note(frame, action, f"{verb} zone {zone} (ct_state={state}){follows}", StepKind.TRACK)
        for place in _CT_PLACES:
            self.values[place] = 0

    def _tracked_copy(self, action: Ct, zone: int, tracked: Tracked) -> list[int]:
        values = self.values.copy()
        values[CT_STATE.order] = tracked.state
        values[CT_ZONE.order] = zone
        values[CT_MARK.order] = tracked.mark
        values[CT_LABEL.order] = tracked.label
        place_original(values, tracked)
        for inner in action.execute:
            if isinstance(inner, SetField):
                values[inner.field.order] = masked(values, inner)
            else:
                values[inner.destination.order] = moved(values, inner)
        for name, raw in tracked.translation.items():
            field = FIELDS[name]
            values[field.order] = field.parse(raw)[0]
        return values

    # Learning.

    def learn(self, action: Learn, frame: _Frame) -> None:
        flow = learned_flow(action, self.values, frame.flow)
        self.learned.append(flow)
        self._note(frame, action, f"learns in table {action.table}: {flow.match}", StepKind.LEARN)


#: What runs each action; a test holds that every action of the flow language is here but ``conjunction``.
HANDLERS: Final[dict[type, Callable[..., None]]] = {
    Output: Translation.output,
    OutputField: Translation.output_field,
    SetField: Translation.set_field,
    Move: Translation.move,
    DecTtl: Translation.dec_ttl,
    GroupAction: Translation.group,
    Resubmit: Translation.resubmit,
    Ct: Translation.ct,
    Learn: Translation.learn,
    Goto: Translation.goto,
}
