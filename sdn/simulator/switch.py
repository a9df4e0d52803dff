# SPDX-License-Identifier: Apache-2.0
"""The simulated switch: what Open vSwitch does with a packet, action by action.

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
- After ``ct`` the packet goes on untracked; with a table, a tracked copy starts there anew.

Not simulated, since no flow of ours uses them: NORMAL and FLOOD ports, and the limit of 64 kB of datapath
actions. Nor that Open vSwitch does not rewrite the IP header of an IPv4 packet whose protocol is 0 (it takes
that for "no header"). A translation by ``ct(nat)`` shows only in the copy that goes on in a table, as in
``ofproto/trace``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from sdn.pipeline.actions import (
    Action,
    Bucket,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Move,
    Output,
    OutputField,
    Resubmit,
    SetField,
)
from sdn.pipeline.fields import (
    CT_LABEL,
    CT_MARK,
    CT_STATE,
    CT_ZONE,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FIELDS,
    ICMP_CODE,
    ICMP_TYPE,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_DST,
    IP_FRAG,
    IP_SRC,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPV6_DST,
    IPV6_SRC,
    NW_PROTO,
    NW_TTL,
    OFPP_ANY,
    OFPP_CONTROLLER,
    OFPP_IN_PORT,
    OFPP_LOCAL,
    SCTP_DST,
    SCTP_SRC,
    TCP_DST,
    TCP_SRC,
    UDP_DST,
    UDP_SRC,
    Field,
)
from sdn.pipeline.flow import Flow, Group
from sdn.simulator.conntrack import Conntrack, OriginalTuple, Request, Tracked, new
from sdn.simulator.journey import Change, Journey, Outcome, Step, StepKind
from sdn.simulator.lookup import FlowTables
from sdn.simulator.packet import FRAG_ANY, Packet, has_field

#: Limits of Open vSwitch (MAX_DEPTH and MAX_RESUBMITS of ofproto-dpif-xlate.c).
MAX_DEPTH: Final = 64
MAX_RESUBMITS: Final = MAX_DEPTH * MAX_DEPTH

#: Chooses a bucket of a select group for a packet from those that are alive.
Choose: TypeAlias = Callable[[Group, Packet, tuple[Bucket, ...]], Bucket]

_FIRST_RESERVED_PORT: Final = 0xFFFFFF00
_PORTS: Final[dict[int, tuple[Field, Field]]] = {
    IPPROTO_TCP: (TCP_SRC, TCP_DST),
    IPPROTO_UDP: (UDP_SRC, UDP_DST),
    IPPROTO_SCTP: (SCTP_SRC, SCTP_DST),
    IPPROTO_ICMP: (ICMP_TYPE, ICMP_CODE),
    IPPROTO_ICMPV6: (ICMPV6_TYPE, ICMPV6_CODE),
}
_PORT_PLACES: Final = tuple(field.order for pair in _PORTS.values() for field in pair)
_CT_PLACES: Final = tuple(field.order for field in (CT_STATE, CT_ZONE, CT_MARK, CT_LABEL))


class UnsupportedPortError(Exception):
    """A flow sends to a reserved port that this switch does not simulate (NORMAL, FLOOD, ALL, TABLE)."""


def first_bucket(group: Group, packet: Packet, buckets: tuple[Bucket, ...]) -> Bucket:
    """The choice of a select group when nobody chooses: the first bucket that is alive."""
    return buckets[0]


class SimulatedSwitch:
    """The flows and groups of one switch. Flows and groups may come and go between packets.

    ``down_ports`` are ports without link: buckets that watch them are not chosen.
    """

    def __init__(
        self,
        flows: Iterable[Flow] = (),
        groups: Iterable[Group] = (),
        down_ports: Iterable[int] = (),
    ) -> None:
        self.flows = FlowTables(flows)
        self.groups = {group.group_id: group for group in groups}
        self.down_ports = frozenset(down_ports)

    def run(
        self, packet: Packet, *, conntrack: Conntrack = new, choose: Choose = first_bucket, table: int = 0
    ) -> Journey:
        """What becomes of a packet, from ``table`` on.

        Raises AmbiguousFlowsError where two flows of one priority take the packet, UnsupportedPortError where
        a flow uses a port that is not simulated.
        """
        return _Run(self, conntrack, choose).run(packet, table)

    def runs(self, packet: Packet, *, conntrack: Conntrack = new, table: int = 0) -> Iterator[Journey]:
        """Every journey that the packet may make: one for each way in which select groups may choose."""
        prefix: list[int] = []
        while True:
            script = _Script(prefix)
            yield self.run(packet, conntrack=conntrack, choose=script.choose, table=table)
            taken = script.taken
            while taken and taken[-1][0] + 1 == taken[-1][1]:
                taken.pop()
            if not taken:
                return
            prefix = [place for place, _ in taken]
            prefix[-1] += 1


class _Script:
    """Chooses as told as far as it goes, then the first bucket, and remembers what there was to choose from."""

    def __init__(self, prefix: list[int]) -> None:
        self._prefix = prefix
        self.taken: list[tuple[int, int]] = []

    def choose(self, group: Group, packet: Packet, buckets: tuple[Bucket, ...]) -> Bucket:
        number = len(self.taken)
        place = self._prefix[number] if number < len(self._prefix) else 0
        self.taken.append((place, len(buckets)))
        return buckets[place]


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


class _Run:
    """One packet's journey."""

    def __init__(self, switch: SimulatedSwitch, conntrack: Conntrack, choose: Choose) -> None:
        self.switch = switch
        self.conntrack = conntrack
        self.choose = choose
        self.steps: list[Step] = []
        self.values: list[int] = []
        # Of the pass that runs now.
        self.frames: list[_Frame] = []
        self.depth = 0
        self.resubmits = 0
        self.sent: list[Outcome] = []
        self.forks: list[tuple[list[int], int, OriginalTuple | None]] = []
        self.original: OriginalTuple | None = None
        self.error = ""

    def run(self, packet: Packet, table: int) -> Journey:
        outcomes: list[Outcome] = []
        finals: list[Packet] = []
        errors: list[str] = []
        waiting: deque[tuple[list[int], int, OriginalTuple | None]] = deque()
        waiting.append((list(packet.values), table, None))
        while waiting:
            self.values, start, self.original = waiting.popleft()
            if finals:
                self._step(
                    StepKind.RESUME, start, 0, note=f"tracked copy, ct_zone={self.values[CT_ZONE.order]}"
                )
            self._pass(start)
            outcomes += self.sent
            waiting += self.forks
            finals.append(Packet(self.values))
            if self.error:
                errors.append(self.error)
        return Journey(packet, tuple(outcomes), tuple(self.steps), tuple(finals), "; ".join(errors))

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
        flow = self.switch.flows.lookup(table, self._lookup_values(with_ct))
        if flow is None:
            self._step(StepKind.MISS, table, level)
            return
        self._step(StepKind.MATCH, table, level, flow)
        self.frames.append(_Frame(flow.actions, flow, table, level, deepens))

    def _lookup_values(self, with_ct: bool) -> list[int]:
        values = self.values
        original = self.original if with_ct else None
        if original is not None:
            values = values.copy()
            four = values[ETH_TYPE.order] == ETH_TYPE_IPV4
            source, destination = (IP_SRC, IP_DST) if four else (IPV6_SRC, IPV6_DST)
            for place in _PORT_PLACES:
                values[place] = 0
            values[NW_PROTO.order] = original.protocol
            values[source.order] = original.source
            values[destination.order] = original.destination
            ports = _PORTS.get(original.protocol)
            if ports is not None:
                values[ports[0].order] = original.source_port
                values[ports[1].order] = original.destination_port
        if values[IP_FRAG.order] & FRAG_ANY:
            values = values.copy()
            for place in _PORT_PLACES:
                values[place] = 0
        return values

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
        if action.with_ct and (self.original is None or not ip):
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
            self._assign(frame, action, action.field, _masked(self.values, action))

    def move(self, action: Move, frame: _Frame) -> None:
        if not self._lacks(frame, action, action.source, action.destination):
            self._assign(frame, action, action.destination, _moved(self.values, action))

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
        group = self.switch.groups.get(action.group_id)
        if group is None:
            self._note(frame, action, f"there is no group {action.group_id}: the rest is not done")
            frame.end()
            return
        chosen = self._buckets(group)
        if not chosen:
            self._note(frame, action, f"group {group.group_id} has no bucket that is alive")
        snapshot = tuple(self.values)
        for bucket in reversed(chosen):
            inner = _Frame(action_set(bucket.actions), frame.flow, frame.table, frame.level + 1, deepens=True)
            inner.bucket = (group, bucket)
            inner.restore = snapshot
            self.frames.append(inner)

    def _buckets(self, group: Group) -> tuple[Bucket, ...]:
        if group.type in ("all", "indirect"):
            return group.buckets
        alive = tuple(bucket for bucket in group.buckets if bucket.watch_port not in self.switch.down_ports)
        if group.type == "fast_failover":
            return alive[:1]
        candidates = tuple(bucket for bucket in alive if bucket.weight > 0)
        return (self.choose(group, Packet(self.values), candidates),) if candidates else ()

    # Connection tracking.

    def ct(self, action: Ct, frame: _Frame) -> None:
        zone = action.zone
        if action.zone_field is not None:
            field, offset = action.zone_field
            zone = self.values[field.order] >> offset & 0xFFFF
        tracked = self.conntrack(Request(Packet(self.values), zone, action))
        if action.table is not None:
            self.forks.append((self._tracked_copy(action, zone, tracked), action.table, tracked.original))
        follows = "" if action.table is None else f", a tracked copy goes to table {action.table}"
        verb = "committed to" if action.commit else "tracked in"
        state = CT_STATE.format(tracked.state)
        self._note(frame, action, f"{verb} zone {zone} (ct_state={state}){follows}", StepKind.TRACK)
        for place in _CT_PLACES:
            self.values[place] = 0
        self.original = None

    def _tracked_copy(self, action: Ct, zone: int, tracked: Tracked) -> list[int]:
        values = self.values.copy()
        values[CT_STATE.order] = tracked.state
        values[CT_ZONE.order] = zone
        values[CT_MARK.order] = tracked.mark
        values[CT_LABEL.order] = tracked.label
        for inner in action.execute:
            if isinstance(inner, SetField):
                values[inner.field.order] = _masked(values, inner)
            else:
                values[inner.destination.order] = _moved(values, inner)
        for name, raw in tracked.translation.items():
            field = FIELDS[name]
            values[field.order] = field.parse(raw)[0]
        return values


def _masked(values: list[int], action: SetField) -> int:
    if action.mask is None:
        return action.value
    return values[action.field.order] & ~action.mask | action.value & action.mask


def _moved(values: list[int], action: Move) -> int:
    ones = (1 << action.bits) - 1
    bits = values[action.source.order] >> action.source_offset & ones
    return (
        values[action.destination.order] & ~(ones << action.destination_offset)
        | bits << action.destination_offset
    )


#: What runs each action; a test holds that every action of the flow language is here.
HANDLERS: Final[dict[type, Callable[..., None]]] = {
    Output: _Run.output,
    OutputField: _Run.output_field,
    SetField: _Run.set_field,
    Move: _Run.move,
    DecTtl: _Run.dec_ttl,
    GroupAction: _Run.group,
    Resubmit: _Run.resubmit,
    Ct: _Run.ct,
    Goto: _Run.goto,
}
