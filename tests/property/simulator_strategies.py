# SPDX-License-Identifier: Apache-2.0
"""Random flows, groups and packets that have something to do with each other.

Values come from small pools, so that packets meet flows; what a flow may match and set follows from the
registry's prerequisites, so that every field of the registry takes part, also one that is added later.
Priorities are unique within a case: which of two equal flows wins is undefined, and nothing to compare.
Conjunctive flows are in :mod:`~tests.property.simulator_conjunctions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from sdn.pipeline.actions import (
    IN_PORT,
    Action,
    Bucket,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Learn,
    LearnMatch,
    Move,
    Nat,
    Output,
    OutputField,
    Resubmit,
    SetField,
)
from sdn.pipeline.fields import (
    CT_LABEL,
    CT_MARK,
    CT_STATES,
    FIELDS,
    OFPP_CONTROLLER,
    OFPP_LOCAL,
    REGISTERS,
    TUN_DST,
    TUN_IPV6_DST,
    Field,
)
from sdn.pipeline.flow import Flow, Group, GroupType
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import ORIGINAL_FIELDS, Packet, has_field, packet

TABLES = 5
GROUPS = 3
#: Ports of the switch that a case is for: plain ones, then a tunnel port.
PLAIN_PORTS = (1, 2, 3, 4)
TUNNEL_PORT = 9
PORTS = (*PLAIN_PORTS, TUNNEL_PORT)
#: Tunnel endpoints that the switch has a route and a neighbour for.
TUNNEL_DESTINATIONS = ("172.30.0.2", "172.30.0.3")
#: The real switch's own tunnel addresses.
TUNNEL_OWN = "172.30.0.254"
TUNNEL_OWN_IPV6 = "fd00:30::fe"
TUNNEL_IPV6_DESTINATIONS = ("fd00:30::2",)

#: Kinds of packets and of matches: the fields that make them what they are.
KINDS: Mapping[str, Mapping[str, int]] = {
    "any": {},
    "arp": {"eth_type": 0x0806},
    "ipv4": {"eth_type": 0x0800},
    "ipv6": {"eth_type": 0x86DD},
    "tcp4": {"eth_type": 0x0800, "nw_proto": 6},
    "udp4": {"eth_type": 0x0800, "nw_proto": 17},
    "sctp4": {"eth_type": 0x0800, "nw_proto": 132},
    "icmp": {"eth_type": 0x0800, "nw_proto": 1},
    "tcp6": {"eth_type": 0x86DD, "nw_proto": 6},
    "udp6": {"eth_type": 0x86DD, "nw_proto": 17},
    "sctp6": {"eth_type": 0x86DD, "nw_proto": 132},
    "icmpv6": {"eth_type": 0x86DD, "nw_proto": 58},
    "solicitation": {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 135, "icmpv6_code": 0},
    "advertisement": {"eth_type": 0x86DD, "nw_proto": 58, "icmpv6_type": 136, "icmpv6_code": 0},
}

_MACS = (0, 0x0A5800000001, 0x0A580AF40105, 0xFFFFFFFFFFFF)
_IPV4 = (0, 0x0AF40105, 0x0AF40206, 0xAC1E0002)
_IPV6 = (0, 0xFD00_0010_0244_0001 << 64 | 5, 0xFE80 << 112 | 1, 0xFF02 << 112 | 0x1FF000005)
_L4_PORTS = (0, 80, 0x8050, 65535)
_WORDS = (0, 1, 2, 0x10001, 0x80000000)

_POOLS: Mapping[str, Sequence[int]] = {
    "in_port": (*PORTS, OFPP_LOCAL),
    "ip_frag": (0, 0, 0, 1, 3),
    "ip_dscp": (0, 10, 63),
    "nw_ecn": (0, 1, 3),
    "nw_ttl": (64, 0, 1, 2, 3, 255),
    "tcp_flags": (0, 2, 18),
    "icmp_type": (8, 0, 3),
    "icmp_code": (0, 1),
    "icmpv6_type": (128, 133, 135, 136),
    "icmpv6_code": (0, 0, 1),
    "nd_reserved": (0, 0x20000000, 0xE0000000),
    "nd_options_type": (0, 1, 2),
    "arp_op": (1, 2, 3),
    "tun_id": (0, 5, 0xABCDEF),
    "tun_dst": (0, 0xAC1E0002, 0xAC1E0003),
    "tun_ipv6_dst": (0, 0xFD00_0030 << 96 | 2),
    "pkt_mark": (0, 1),
    "ct_state": (0, 0x21, 0x22, 0x2A, 0x30),
    "ct_zone": (0, 1, 2, 3),
}
_BY_KIND: Mapping[str, Sequence[int]] = {"mac": _MACS, "ipv4": _IPV4, "ipv6": _IPV6}

#: Fields that only the datapath gives, or that no match of ours uses.
_NOT_MATCHED = frozenset(("conj_id",))
#: Fields that actions may not write (ovs-fields(7): "read-only", or inside ct only).
_READ_ONLY = _NOT_MATCHED | {
    *("in_port", "eth_type", "nw_proto", "ip_frag", "tcp_flags"),
    *("ct_state", "ct_zone", "ct_mark", "ct_label"),
    *(field.name for field in ORIGINAL_FIELDS),
}
#: Ways to say that there is a connection, without which nothing is matched or learned of its original direction.
_CONNECTED = ("0x20/0x30", "0x1/0x1", "0x2/0x2", "0x28/0x28")
#: What a packet may come with beside its headers; the rest of the metadata is 0 when it arrives.
_ARRIVING = frozenset(("in_port", "tun_id", "tun_src", "tun_dst", "pkt_mark", "reg0", "reg3", "metadata"))


def pool(field: Field) -> Sequence[int]:
    """The few values that the field takes in random cases."""
    found = _POOLS.get(field.name) or _BY_KIND.get(field.kind)
    if found is not None:
        return found
    return _L4_PORTS if field.bits == 16 else [word & field.all_ones for word in _WORDS]


def _possible(kind: str) -> list[Field]:
    """The fields that a match of this kind may look at."""
    fixed = KINDS[kind]
    values = [0] * len(FIELDS)
    values[FIELDS["ct_state"].order] = 0x21
    for name, value in fixed.items():
        values[FIELDS[name].order] = value
    return [
        field
        for field in FIELDS.values()
        if field.name not in fixed
        and field.name not in _NOT_MATCHED
        and field.name not in ("eth_type", "nw_proto")
        and has_field(values, field)
    ]


_POSSIBLE = {kind: _possible(kind) for kind in KINDS}
_SETTABLE = {
    kind: [field for field in fields if field.name not in _READ_ONLY] for kind, fields in _POSSIBLE.items()
}
#: What a trace knows of a packet that it is told in words: not these two, which have no place in its text.
_READABLE = {
    kind: [field for field in fields if field.name not in ("nd_reserved", "nd_options_type")]
    for kind, fields in _POSSIBLE.items()
}
_LEARNED = {
    kind: [field for field in fields if field.name not in (*_READ_ONLY, "icmpv6_type", "icmpv6_code")]
    for kind, fields in _READABLE.items()
}
_ANY_SETTABLE = [field for field in FIELDS.values() if field.name not in _READ_ONLY]


@dataclass(frozen=True, slots=True)
class Case:
    """A switch and packets for it."""

    flows: tuple[Flow, ...]
    groups: tuple[Group, ...]
    packets: tuple[Packet, ...]


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """A packet of a random kind."""
    kind = draw(st.sampled_from(list(KINDS)))
    values: dict[str, int | str] = dict(KINDS[kind])
    for field in _POSSIBLE[kind]:
        if field.prerequisites == ((),) and field.name not in _ARRIVING and not field.name.startswith("eth_"):
            continue
        if field not in ORIGINAL_FIELDS:
            values[field.name] = draw(st.sampled_from(pool(field)))
    # Neighbour discovery is never tracked: it has no fields for it.
    if ("ip_src" in values or "ipv6_src" in values) and values.get("icmpv6_type") not in (135, 136):
        values |= draw(_connections("ip" if "ip_src" in values else "ipv6"))
    if kind in ("ipv4", "ipv6"):
        # Not 0: Open vSwitch takes that for a packet without an IP header, and leaves its TTL as it is.
        values["nw_proto"] = draw(st.sampled_from([47, 89]))
    if values["in_port"] == TUNNEL_PORT:
        # Sent to this switch: Open vSwitch does not tunnel back to the address that a packet came to.
        values["tun_dst"] = TUNNEL_OWN
    else:
        for name in ("tun_id", "tun_src", "tun_dst"):
            values[name] = 0
    if values.get("ip_frag", 0) == 3:
        # Later fragments have no transport header.
        values = {
            name: value
            for name, value in values.items()
            if not name.endswith(("_type", "_code")) or name == "eth_type"
        }
        values = {
            name: value
            for name, value in values.items()
            if not name.startswith(("tcp_", "udp_", "sctp_", "nd_"))
        }
    elif "icmpv6_code" in values and values["icmpv6_code"] != 0:
        values = {name: value for name, value in values.items() if not name.startswith("nd_")}
    return packet(**values)


@st.composite
def _connections(draw: st.DrawFn, family: str) -> dict[str, int | str]:
    """A packet is traced from its arrival, and may be told to have been tracked before, once in a while."""
    if draw(st.integers(0, 3)):
        return {}
    prefix = "ct_nw" if family == "ip" else "ct_ipv6"
    protocol = draw(st.sampled_from([6, 17, 132]))
    names = (f"{prefix}_src", f"{prefix}_dst", "ct_tp_src", "ct_tp_dst")
    drawn = {name: draw(st.sampled_from(pool(FIELDS[name]))) for name in names}
    return {"ct_state": draw(st.sampled_from([0x21, 0x22, 0x2A])), "ct_nw_proto": protocol, **drawn}


def _masks(field: Field) -> st.SearchStrategy[int | None]:
    if not field.maskable:
        return st.none()
    # Of ct_state Open vSwitch knows eight bits, and ovs-ofctl refuses others. The switch takes them, but by a flow that
    # looks at these alone no conjunction is met, which is not simulated.
    bits = sum(CT_STATES.values()).bit_length() if field.name == "ct_state" else field.bits
    ones, half = (1 << bits) - 1, bits // 2
    return st.sampled_from([None, None, ones >> half << half, 1, 3 & ones])


def is_kind(seen: Packet, kind: str) -> bool:
    return all(seen[name] == value for name, value in KINDS[kind].items())


@st.composite
def matches(draw: st.DrawFn, kind: str, seen: Packet, fields: int = 2) -> dict[str, int | str]:
    """A match that the packet, as it arrives, meets more often than not."""
    values: dict[str, int | str] = dict(KINDS[kind])
    for field in draw(st.lists(st.sampled_from(_POSSIBLE[kind]), max_size=fields, unique=True)):
        value = seen[field] if draw(st.integers(0, 3)) else draw(st.sampled_from(pool(field)))
        mask = draw(_masks(field))
        values[field.name] = value if mask is None else f"{value & mask:#x}/{mask:#x}"
    if any(field.name in values for field in ORIGINAL_FIELDS):
        values["ct_state"] = draw(st.sampled_from(_CONNECTED))
        if draw(st.booleans()):
            values["ct_nw_proto"] = seen["ct_nw_proto"] or 6
            values["ct_tp_dst"] = seen["ct_tp_dst"]
    return values


@st.composite
def _set_fields(draw: st.DrawFn, fields: Sequence[Field]) -> SetField:
    field = draw(st.sampled_from(fields))
    value, mask = draw(st.sampled_from(pool(field))), draw(_masks(field))
    return SetField(field, value, None) if mask is None else SetField(field, value & mask, mask)


@st.composite
def _moves(draw: st.DrawFn, sources: Sequence[Field], destinations: Sequence[Field]) -> Move:
    destination = draw(st.sampled_from(destinations))
    source = draw(st.sampled_from([field for field in sources if field is not destination]))
    bits = draw(
        st.sampled_from([min(source.bits, destination.bits), 1, min(8, source.bits, destination.bits)])
    )
    return Move(
        source,
        draw(st.sampled_from([0, source.bits - bits])),
        destination,
        draw(st.sampled_from([0, destination.bits - bits])),
        bits,
    )


_TO_TUNNEL: Sequence[tuple[Action, ...]] = [
    *((SetField(TUN_DST, TUN_DST.parse(text)[0]), Output(TUNNEL_PORT)) for text in TUNNEL_DESTINATIONS),
    *(
        (SetField(TUN_DST, 0), SetField(TUN_IPV6_DST, TUN_IPV6_DST.parse(text)[0]), Output(TUNNEL_PORT))
        for text in TUNNEL_IPV6_DESTINATIONS
    ),
]
_OUTPUTS: st.SearchStrategy[tuple[Action, ...]] = st.one_of(
    st.sampled_from([(Output(port),) for port in (*PLAIN_PORTS, OFPP_LOCAL)]),
    st.sampled_from([(IN_PORT,), (Output(OFPP_CONTROLLER),)]),
    st.sampled_from(_TO_TUNNEL),
)


@st.composite
def _learns(draw: st.DrawFn, kind: str) -> Learn:
    """A flow for packets that are alike in a few fields."""
    match = [LearnMatch(FIELDS[name], value) for name, value in KINDS[kind].items()]
    for field in draw(st.lists(st.sampled_from(_LEARNED[kind]), max_size=3, unique=True)):
        match.append(LearnMatch(field, draw(st.sampled_from([None, None, *pool(field)]))))
    registers = st.lists(st.sampled_from(REGISTERS[4:8]), max_size=2, unique=True)
    loads = tuple(SetField(field, draw(st.sampled_from(_WORDS))) for field in draw(registers))
    # Its number is one that no other flow has, and above theirs.
    number = draw(st.integers(1000, 60000))
    return Learn(
        draw(st.integers(0, TABLES - 1)),
        number,
        number,
        tuple(match),
        loads,
        delete_learned=draw(st.booleans()),
    )


@st.composite
def _conntracks(draw: st.DrawFn, kind: str, tables: Sequence[int]) -> Ct:
    commit = draw(st.booleans())
    execute: list[SetField | Move] = []
    if commit and draw(st.booleans()):
        execute.append(draw(_set_fields((CT_MARK, CT_LABEL))))
    nat = None
    version = KINDS[kind].get("eth_type")
    # A translation without a table shows in no trace.
    if commit and version is not None and tables and draw(st.booleans()):
        ported = KINDS[kind].get("nw_proto") in (6, 17)
        ipv6 = version == 0x86DD
        nat = Nat(
            kind=draw(st.sampled_from(["src", "dst"])),
            ipv6=ipv6,
            address_min=(_IPV6 if ipv6 else _IPV4)[1],
            port_min=draw(st.sampled_from([0, 8080])) if ported else 0,
        )
    by_register = draw(st.booleans())
    return Ct(
        zone=0 if by_register else draw(st.integers(0, 3)),
        zone_field=(REGISTERS[3], 0) if by_register else None,
        commit=commit,
        table=draw(st.sampled_from([*([None] if nat is None else []), *tables])),
        nat=nat,
        execute=tuple(execute),
    )


def _action_lists(
    kind: str,
    settable: Sequence[Field],
    tables: Sequence[int],
    tracked: Sequence[int],
    at_most: int,
    bucket: bool = False,
) -> st.SearchStrategy[list[Action]]:
    choices: list[st.SearchStrategy[tuple[Action, ...]]] = [
        _OUTPUTS,
        _OUTPUTS,
        st.tuples(_set_fields(settable)),
        st.tuples(_set_fields(settable)),
        st.tuples(_moves(_READABLE[kind], settable)),
        st.just((OutputField(REGISTERS[0], 0, 16),)),
    ]
    if not bucket:
        choices.append(st.tuples(_learns(kind)))
    # Open vSwitch takes these only after a match on IP; it does not check the actions of buckets.
    ip = bucket or kind not in ("any", "arp")
    if ip:
        choices += [st.just((DecTtl(),)), *[st.tuples(_conntracks(kind, tracked))] * (3 if tracked else 1)]
    if tables:
        with_ct = st.sampled_from([False, False, bucket])
        choices.append(st.tuples(st.builds(Resubmit, st.sampled_from(tables), with_ct)))
    lists = st.lists(st.one_of(choices), max_size=at_most)
    return lists.map(lambda parts: [action for part in parts for action in part])


OWNER = Owner("Test", "random", "flow")


@st.composite
def actions_of(
    draw: st.DrawFn, kind: str, table: int, groups: Sequence[int] = (), loops: bool = False
) -> tuple[Action, ...]:
    """The actions of a flow of that table whose match is of that kind."""
    forward = range(table + 1, TABLES)
    # Loops only now and then: nothing else is seen of a packet that ends in one.
    tables = range(TABLES) if loops and draw(st.integers(0, 7)) == 0 else forward
    actions = draw(_action_lists(kind, _SETTABLE[kind], tables, () if loops else forward, 4))
    if groups and (loops or forward) and draw(st.integers(0, 3)) == 0:
        actions.append(GroupAction(draw(st.sampled_from(groups))))
    if forward and draw(st.integers(0, 2)) > 0:
        actions.append(Goto(draw(st.sampled_from(forward))))
    return tuple(actions)


@st.composite
def _flows(draw: st.DrawFn, number: int, groups: Sequence[int], seen: Packet, loops: bool) -> Flow:
    table = max(0, draw(st.integers(-2, TABLES - 1)))
    kind = draw(st.sampled_from([kind for kind in KINDS if is_kind(seen, kind)]))
    actions = draw(actions_of(kind, table, groups, loops))
    # The number is unique, as priority and as cookie.
    return Flow(table, number, match(**draw(matches(kind, seen))), actions, number, OWNER, f"flow {number}")


@st.composite
def _groups(draw: st.DrawFn, number: int, loops: bool) -> Group:
    kinds: list[GroupType] = ["all", "select", "indirect", "fast_failover"]
    kind = draw(st.sampled_from(kinds))
    buckets = []
    for bucket_id in range(1 if kind == "indirect" else draw(st.integers(1, 3))):
        tables = range(TABLES) if loops else (TABLES - 1,)
        actions = draw(_action_lists("any", _ANY_SETTABLE, tables, () if loops else tables, 3, bucket=True))
        actions += draw(_OUTPUTS)
        if draw(st.booleans()):
            actions.insert(0, DecTtl())
        if number > 1 and draw(st.integers(0, 4)) == 0:
            actions.append(GroupAction(number - 1))
        watch = draw(st.sampled_from(PLAIN_PORTS)) if kind == "fast_failover" else None
        allowed = tuple(action for action in actions if not isinstance(action, OutputField))
        buckets.append(Bucket(bucket_id, allowed, 1, watch))
    method = "hash" if kind == "select" else ""
    return Group(number, kind, tuple(buckets), OWNER, f"group {number}", method)


@st.composite
def cases(draw: st.DrawFn, packets_each: int = 8) -> Case:
    """A small switch full of random flows, and packets for it."""
    arriving = tuple(draw(packets()) for _ in range(packets_each))
    # Either tables lead back, or connection tracking goes on in later ones: a trace of both at once may never end.
    loops = draw(st.integers(0, 3)) == 0
    groups = tuple(draw(_groups(number, loops)) for number in range(1, draw(st.integers(0, GROUPS)) + 1))
    numbers = [group.group_id for group in groups]
    count = draw(st.integers(4, 16))
    flows = tuple(
        draw(_flows(number, numbers, draw(st.sampled_from(arriving)), loops))
        for number in range(1, count + 1)
    )
    return Case(flows, groups, arriving)
