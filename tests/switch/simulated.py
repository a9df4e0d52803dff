# SPDX-License-Identifier: Apache-2.0
"""A real switch and a simulated one with the same flows, and the comparison of what they do with a packet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sdn.openflow import (
    DecodedFlow,
    FlowCommand,
    GroupCommand,
    barrier_request,
    decode_flow_descs,
    flow_desc_request,
    flow_image,
    flow_mod,
    format_flow,
    group_image,
    group_mod,
    multipart_body,
    multipart_more,
)
from sdn.openflow.groupimage import delete_all_groups
from sdn.openflow.wire import HEADER, OFP_VERSION
from sdn.pipeline.fields import (
    CONJ_ID,
    CT_STATES,
    ETH_TYPE_ARP,
    FIELDS,
    IN_PORT,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    OFPP_CONTROLLER,
    OFPP_LOCAL,
    PKT_MARK,
    Field,
)
from sdn.pipeline.flow import Flow, Group
from sdn.simulator.conntrack import ESTABLISHED, INVALID, NEW, REPLY, OriginalTuple, Request, Tracked
from sdn.simulator.journey import Journey, Outcome, StepKind
from sdn.simulator.packet import LOCAL_FIELDS, TUNNEL_FIELDS, Packet
from sdn.simulator.switch import SimulatedSwitch
from sdn.simulator.text import format_packet
from sdn.simulator.values import original_addresses
from tests.property.simulator_strategies import (
    PLAIN_PORTS,
    TUNNEL_DESTINATIONS,
    TUNNEL_IPV6_DESTINATIONS,
    TUNNEL_OWN,
    TUNNEL_OWN_IPV6,
    TUNNEL_PORT,
)
from tests.switch.frames import frame
from tests.switch.ofproto_trace import Sent, Trace, Tracer
from tests.switch.ovs import OFPT_BARRIER_REPLY, OFPT_ERROR, Connection, PrivateSwitch

#: What the connection tracker says, by zone (modulo their number).
STATES = (NEW, ESTABLISHED, REPLY, INVALID)
_PORTED = {IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp", IPPROTO_SCTP: "sctp"}
#: More alternatives than this and a case is not worth its time.
MOST_ALTERNATIVES = 81

# What the datapath sends is compared in the fields that another machine sees, and the mark that the host
# sees.
_INTERNAL = frozenset((*LOCAL_FIELDS, *TUNNEL_FIELDS, IN_PORT, CONJ_ID))
_SEEN = (*(field for field in FIELDS.values() if field not in _INTERNAL), PKT_MARK)
_TOO_LARGE = "over 64 kB"
_NO_TUNNEL = ("Not tunneling to our own address", "Tunneling decided against output")
# Open vSwitch does not print these in a flow; what it does with them shows in the datapath actions.
_UNPRINTED = frozenset(("nd_reserved", "nd_options_type"))
_FINAL = tuple(
    field
    for field in FIELDS.values()
    if field.name not in _UNPRINTED and field.name not in ("conj_id", "tun_id")
)


@dataclass(slots=True)
class Wiring:
    """The ports of both switches, and the tunnel endpoints that the real one has a way to."""

    plain: tuple[int, ...]
    tunnel: int
    reachable: set[str]


@contextmanager
def both_switches(plain: Sequence[int] = PLAIN_PORTS, tunnel: int = TUNNEL_PORT) -> Iterator[Both]:
    """A real switch with plain ports, a Geneve port and routes for its tunnels, beside a simulated one."""
    with PrivateSwitch() as switch:
        for port in plain:
            switch.add_port(f"p{port}", port)
        switch.vsctl("add-br", "br-phy", "--", "set", "bridge", "br-phy", f"datapath_type={switch.datapath}")
        switch.vsctl("add-port", "br-phy", "uplink", "--", "set", "interface", "uplink", "type=dummy")
        switch.add_port("tunnel", tunnel, "geneve", remote_ip="flow", key="flow")
        with Tracer(switch) as tracer, switch.connect() as connection:
            tracer.command("netdev-dummy/ip4addr", "br-phy", f"{TUNNEL_OWN}/24")
            tracer.command("netdev-dummy/ip6addr", "br-phy", f"{TUNNEL_OWN_IPV6}/64")
            for prefix in ("172.30.0.0/24", "fd00:30::/64"):
                tracer.command("ovs/route/add", prefix, "br-phy")
            both = Both(tracer, connection, Wiring(tuple(plain), tunnel, set()))
            both.reach(*TUNNEL_DESTINATIONS, *TUNNEL_IPV6_DESTINATIONS)
            yield both


class Both:
    """The two switches. ``compared``, ``refused`` and ``satisfied`` (packets that satisfied a conjunction) count, so
    that a test can show that it compared something.
    """

    def __init__(self, tracer: Tracer, connection: Connection, wiring: Wiring) -> None:
        self._tracer = tracer
        self._connection = connection
        self._wiring = wiring
        self._simulated = SimulatedSwitch()
        self._states: tuple[int, ...] = STATES
        self._taken: list[int] = []
        self.compared = 0
        self.refused = 0
        self.satisfied = 0

    def reach(self, *addresses: str) -> None:
        """Let the real switch know a neighbour for these tunnel endpoints."""
        for address in addresses:
            if address not in self._wiring.reachable:
                self._tracer.command("tnl/neigh/set", "br-phy", address, "aa:bb:cc:00:00:01")
                self._wiring.reachable.add(address)

    def load(self, flows: Iterable[Flow], groups: Iterable[Group] = ()) -> None:
        """Replace what both switches hold. What the real switch refuses, the simulated one does not get
        either.
        """
        old = [flow_mod(FlowCommand.DELETE_STRICT, *flow_image(flow)) for flow in self._simulated.flows]
        self._transact([*old, delete_all_groups()])
        groups, flows = tuple(groups), tuple(flows)
        refused = self._transact([_add_group(group) for group in groups])
        groups = tuple(group for number, group in enumerate(groups) if number not in refused)
        self.refused += len(refused)
        refused = self._transact([flow_mod(FlowCommand.ADD, *flow_image(flow)) for flow in flows])
        flows = tuple(flow for number, flow in enumerate(flows) if number not in refused)
        self.refused += len(refused)
        self._simulated = SimulatedSwitch(flows, groups)

    def receive(self, packet: Packet) -> None:
        """Let the real switch receive a packet, as bytes, with everything that follows from it."""
        self._tracer.command("netdev-dummy/receive", f"p{packet['in_port']}", frame(packet).hex())

    def trace(self, packet: Packet, state: int, passes: int) -> Trace:
        """What the real switch says of a packet, when its tracker says ``state`` each time."""
        self.compared += 1
        return self._tracer.trace(packet, [_state_text(state)] * passes)

    def installed(self) -> list[DecodedFlow]:
        """The flows of the real switch."""
        self._connection.send(flow_desc_request(1))
        seen: list[DecodedFlow] = []
        more = True
        while more:
            answer = self._connection.receive()
            message = (
                HEADER.pack(OFP_VERSION, answer.type, HEADER.size + len(answer.body), answer.xid)
                + answer.body
            )
            seen += decode_flow_descs(multipart_body(message))
            more = multipart_more(message)
        return seen

    def _transact(self, messages: Sequence[bytes]) -> set[int]:
        """Send messages; the places of those that were refused."""
        for number, message in enumerate(messages):
            self._connection.send(message[:4] + number.to_bytes(4, "big") + message[8:])
        self._connection.send(barrier_request(len(messages)))
        refused = set()
        while (answer := self._connection.receive()).type != OFPT_BARRIER_REPLY:
            if answer.type == OFPT_ERROR:
                refused.add(answer.xid)
        return refused

    def _conntrack(self, request: Request) -> Tracked:
        """As ``ofproto/trace`` does: the state it is told, the packet's own mark, the first address of a
        translation, and of the connection's first addresses what the packet came with.
        """
        packet, nat = request.packet, request.action.nat
        state = self._states[request.zone % len(self._states)]
        if request.action.table is not None:
            self._taken.append(state)
        translation: dict[str, int | str] = {}
        if nat is not None and nat.kind:
            if nat.address_min is not None:
                translation[f"{'ipv6' if nat.ipv6 else 'ip'}_{nat.kind}"] = nat.address_min
            if nat.port_min:
                protocol = _PORTED.get(packet["nw_proto"], "udp")
                translation[f"{protocol}_{nat.kind}"] = nat.port_min
        return Tracked(state, packet["ct_mark"], packet["ct_label"], translation, _original(packet))

    def compare(self, packet: Packet, states: Sequence[int] = STATES) -> Journey:
        """The journey on which both agree. One of the packet's possible journeys must be what the real switch
        says. ``states`` are what the connection tracker says, by zone. Raises AssertionError that shows both.
        """
        self._states = tuple(states)
        traces: dict[tuple[int, ...], Trace] = {}
        complaints: list[str] = []
        journeys = self._simulated.runs(packet, conntrack=self._conntrack)
        for _ in range(MOST_ALTERNATIVES):
            self._taken.clear()
            journey = next(journeys, None)
            if journey is None:
                break
            states = tuple(self._taken)
            if states not in traces:
                traces[states] = self._tracer.trace(packet, [_state_text(state) for state in states])
                self.compared += 1
            complaint = differences(journey, traces[states], self._wiring)
            if not complaint:
                self.satisfied += any(step.kind is StepKind.CLAUSE for step in journey.steps)
                return journey
            complaints.append(f"{complaint}\n--- simulated:\n{journey}")
        shown = next(iter(traces.values())).text
        flows = "\n".join(format_flow(flow) for flow in self._simulated.flows)
        raise AssertionError(
            f"{format_packet(packet)}\n"
            + "\n".join(complaints)
            + f"\n--- real:\n{shown}\n--- flows:\n{flows}"
        )


def _original(packet: Packet) -> OriginalTuple:
    source, destination = original_addresses(packet.values)
    addresses = packet[source], packet[destination]
    return OriginalTuple(packet["ct_nw_proto"], *addresses, packet["ct_tp_src"], packet["ct_tp_dst"])


def _add_group(group: Group) -> bytes:
    image = group_image(group)
    return group_mod(GroupCommand.ADD, group.group_id, image.body)


def _state_text(state: int) -> str:
    return ",".join(name for name, bit in CT_STATES.items() if state & bit)


def _met(journey: Journey) -> list[list[tuple[int, int | None]]]:
    """(table, cookie) of each lookup, by pass; cookie None for a miss."""
    passes: list[list[tuple[int, int | None]]] = [[]]
    for step in journey.steps:
        if step.kind is StepKind.RESUME:
            passes.append([])
        elif step.kind is StepKind.MATCH and step.flow is not None:
            passes[-1].append((step.table, step.flow.cookie))
        elif step.kind is StepKind.MISS:
            passes[-1].append((step.table, None))
    return passes


def differences(journey: Journey, trace: Trace, wiring: Wiring) -> str:
    """What the two say differently, empty when nothing."""
    met = _met(journey)
    if any(words in trace.text for words in _NO_TUNNEL):
        # An output to nowhere leaves the tunnel fields as it finds them convenient.
        return ""
    errors = [one.error for one in trace.passes if one.error]
    if any(_TOO_LARGE in error for error in errors):
        return ""
    if bool(journey.error) != bool(errors):
        return f"error {journey.error!r}, in the switch {errors}"
    if errors:
        # A translation that failed leaves nothing in the switch, while the trace goes on as if it had.
        return (
            ""
            if met[0] == list(trace.passes[0].met)
            else f"met {met[0]}, in the switch {trace.passes[0].met}"
        )
    if len(met) != len(trace.passes):
        return f"{len(met)} passes through the tables, {len(trace.passes)} in the switch"
    for number, (one, final, passed) in enumerate(zip(met, journey.finals, trace.passes, strict=True)):
        if tuple(one) != passed.met:
            return f"pass {number} met {one}, in the switch {list(passed.met)}"
        printed = [field for field in _FINAL if field not in TUNNEL_FIELDS or _encapsulated(final)]
        different = _different(final, passed.final, printed)
        if different:
            return f"pass {number} ends with other fields (simulated, real): {different}"
    mine = [_mine(outcome, wiring) for outcome in journey.outcomes if _leaves(outcome, wiring)]
    theirs = [sent for one in trace.passes for sent in one.sent]
    if [(sent.port, sent.reason, sent.tunnel, sent.key) for sent in mine] != [
        (sent.port, sent.reason, sent.tunnel, sent.key) for sent in theirs
    ]:
        return f"left by {mine}, in the switch {theirs}"
    # The second pass of a trace starts without what Open vSwitch does not print.
    unprinted = () if len(trace.passes) == 1 else _UNPRINTED
    seen = [field for field in _SEEN if field.name not in unprinted]
    for one_sent, other in zip(mine, theirs, strict=True):
        if one_sent.packet["eth_type"] == ETH_TYPE_ARP and not one_sent.packet["arp_op"]:
            # Open vSwitch takes such a message for unknown, and leaves it as it came.
            continue
        told = [field for field in seen if not _untold(field, journey.packet, one_sent.packet, other.packet)]
        different = _different(one_sent.packet, other.packet, told)
        if different:
            return f"what leaves port {other.port} differs (simulated, real): {different}"
    return ""


def _untold(field: Field, start: Packet, mine: Packet, theirs: Packet) -> bool:
    """Whether the switch sends 0 for what its trace was not told of the packet, next to something that it sets."""
    return field.name in _UNPRINTED and mine[field] == start[field] and not theirs[field]


def _different(mine: Packet, theirs: Packet, fields: Sequence[Field]) -> str:
    return ", ".join(
        f"{field} {field.format(mine[field])} {field.format(theirs[field])}"
        for field in fields
        if mine[field] != theirs[field] and mine.has(field)
    )


def _encapsulated(packet: Packet) -> bool:
    """Open vSwitch prints a tunnel's fields only where it has a destination."""
    return bool(packet["tun_dst"] or packet["tun_ipv6_dst"])


def _leaves(outcome: Outcome, wiring: Wiring) -> bool:
    """Whether the real switch has that port, and a way to the tunnel's other end (its routes are for mark 0)."""
    if outcome.port == wiring.tunnel:
        return _tunnel(outcome.packet) in wiring.reachable and not outcome.packet["pkt_mark"]
    return outcome.port in (*wiring.plain, OFPP_LOCAL, OFPP_CONTROLLER)


def _tunnel(packet: Packet) -> str:
    """The tunnel's other end as text."""
    four, six = packet["tun_dst"], packet["tun_ipv6_dst"]
    return FIELDS["tun_dst"].format(four) if four else FIELDS["tun_ipv6_dst"].format(six)


def _mine(outcome: Outcome, wiring: Wiring) -> Sent:
    """An outcome as the datapath would show it. A Geneve key has 24 bits (RFC 8926, section 3.4)."""
    if outcome.port != wiring.tunnel:
        return Sent(outcome.port, outcome.packet, outcome.reason)
    key = outcome.packet["tun_id"] & 0xFFFFFF
    return Sent(outcome.port, outcome.packet, outcome.reason, _tunnel(outcome.packet), key)
