# SPDX-License-Identifier: Apache-2.0
"""Random flows, groups, matches and actions, such as a real Open vSwitch accepts.

Shared by whatever must hold for *every* flow: the codec against os-ken and a switch, the simulator against
a switch's trace. What Open vSwitch refuses is left out here, and each such rule says so; everything else of
the flow language is in.

``matches()``, ``actions_for(match)``, ``flows()`` and ``groups()`` are the strategies to use. ``flows`` can
be told which ports, tables and groups exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from sdn.pipeline.actions import (
    Action,
    Bucket,
    Conjunction,
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
    CT_STATES,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FIELDS,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    OFPP_CONTROLLER,
    OFPP_IN_PORT,
    OFPP_LOCAL,
    Field,
)
from sdn.pipeline.flow import Flow, Group, GroupType
from sdn.pipeline.match import Match, Term
from sdn.pipeline.owner import Owner

OWNER: Final = Owner("Pod", "default", "random")

#: Fields that Open vSwitch lets no action set ("read-only"; ct_mark and ct_label only inside ct).
READ_ONLY: Final = frozenset(
    FIELDS[name]
    for name in (
        "conj_id",
        "eth_type",
        "ip_frag",
        "nw_proto",
        "tcp_flags",
        "ct_state",
        "ct_zone",
        "ct_mark",
        "ct_label",
        *("ct_nw_src", "ct_nw_dst", "ct_ipv6_src", "ct_ipv6_dst", "ct_nw_proto", "ct_tp_src", "ct_tp_dst"),
    )
)
#: A connection's first addresses: Open vSwitch wants to be told that there is a connection.
CONNECTION: Final = frozenset(
    field for field in READ_ONLY if field.name.startswith(("ct_nw", "ct_ip", "ct_tp"))
)
#: The largest port that is not a reserved number.
_LAST_PORT: Final = 0xFEFF

#: What a packet is: the exact terms on which other fields depend.
_IPV4_KINDS: Final = [{"eth_type": ETH_TYPE_IPV4}] + [
    {"eth_type": ETH_TYPE_IPV4, "nw_proto": protocol}
    for protocol in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_ICMP, 47)
]
_IPV6_KINDS: Final = [{"eth_type": ETH_TYPE_IPV6}] + [
    {"eth_type": ETH_TYPE_IPV6, "nw_proto": protocol}
    for protocol in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_ICMPV6, 50)
]
_ND_KINDS: Final = [
    {"eth_type": ETH_TYPE_IPV6, "nw_proto": IPPROTO_ICMPV6, "icmpv6_type": kind, "icmpv6_code": 0}
    for kind in (135, 136)
]
#: A packet of a connection, which began as its protocol says: an ICMP error belongs to a TCP connection.
_CONNECTION_KINDS: Final = [
    {"ct_nw_proto": IPPROTO_UDP},
    {"eth_type": ETH_TYPE_IPV4, "ct_nw_proto": IPPROTO_TCP},
    {"eth_type": ETH_TYPE_IPV4, "nw_proto": IPPROTO_ICMP, "ct_nw_proto": IPPROTO_SCTP},
    {"eth_type": ETH_TYPE_IPV6, "ct_nw_proto": 50},
    {"eth_type": ETH_TYPE_IPV6, "nw_proto": IPPROTO_UDP, "ct_nw_proto": IPPROTO_UDP},
]
#: What says which kind a packet is.
DECIDING: Final = ("eth_type", "nw_proto", "icmpv6_type", "icmpv6_code", "ct_nw_proto")
KINDS: Final[list[dict[str, int]]] = [
    {},
    {"eth_type": ETH_TYPE_ARP},
    {"eth_type": 0x88CC},
    *_IPV4_KINDS,
    *_IPV6_KINDS,
    *_ND_KINDS,
    *_CONNECTION_KINDS,
]


def allowed(kind: dict[str, int]) -> list[Field]:
    """The fields that a packet of this kind has, those that say its kind left out."""
    return [
        field
        for field in FIELDS.values()
        if field.name not in DECIDING
        and any(all(kind.get(name) == value for name, value in option) for option in field.prerequisites)
    ]


_BELOW_TRANSPORT: Final = frozenset(
    field.name for kind in [*KINDS[:3], _IPV4_KINDS[0], _IPV6_KINDS[0]] for field in allowed(kind)
)


@st.composite
def values(draw: st.DrawFn, field: Field, masked: bool = True) -> tuple[int, int | None]:
    """A value for a match or a set-field, with a mask if the field takes one."""
    match field.name:
        case "in_port":
            return draw(st.sampled_from([OFPP_LOCAL, 1, 2, 16, 300, _LAST_PORT])), None
        case "ip_frag":
            # no, first, later; then yes, no as a single bit, and not_later.
            return draw(st.sampled_from([(0, None), (1, None), (3, None), (1, 1), (0, 2)]))
        case "ct_state":
            # Open vSwitch refuses the bits beyond those that it knows.
            every = sum(CT_STATES.values())
            mask = draw(st.integers(1, every))
            return draw(st.integers(0, every)) & mask, mask
        case "arp_op":
            # Open vSwitch keeps eight bits of the operation.
            return draw(st.integers(0, 255)), None
        case _:
            pass
    value = draw(st.integers(0, field.all_ones))
    if not (masked and field.maskable and draw(st.booleans())):
        return value, None
    mask = draw(_masks(field))
    return value & mask, None if mask == field.all_ones else mask


def _masks(field: Field) -> st.SearchStrategy[int]:
    prefixes = st.integers(1, field.bits).map(lambda length: field.all_ones ^ (field.all_ones >> length))
    return prefixes | st.integers(1, field.all_ones)


_CT_STATE: Final = FIELDS["ct_state"]
#: Each says enough: +new+trk, +est, +rpl+trk, -inv+trk.
_CONNECTION_STATES: Final = [(0x21, 0x21), (0x02, 0x02), (0x28, 0x28), (0x20, 0x30)]


@st.composite
def matches(draw: st.DrawFn, kinds: Sequence[dict[str, int]] = tuple(KINDS)) -> Match:
    """A match with all its prerequisites, in the registry's order."""
    kind = draw(st.sampled_from(list(kinds)))
    chosen = draw(st.lists(st.sampled_from(allowed(kind)), unique=True, max_size=12))
    if any(field.name == "ip_frag" for field in chosen):
        # Only a first fragment has what lies above the internet protocol.
        chosen = [field for field in chosen if field.name in ("ip_frag", *_BELOW_TRANSPORT)]
        kind = {name: value for name, value in kind.items() if name in ("eth_type", "nw_proto")}
    terms: list[Term] = [(FIELDS[name], value, None) for name, value in kind.items()]
    if "ct_nw_proto" in kind or any(field in CONNECTION for field in chosen):
        chosen = [field for field in chosen if field is not _CT_STATE]
        terms.append((_CT_STATE, *draw(st.sampled_from(_CONNECTION_STATES))))
    terms.extend((field, *draw(values(field))) for field in chosen)
    return Match(tuple(sorted(terms, key=lambda term: term[0].order)))


def kind_of(match: Match) -> dict[str, int]:
    """What a match says about the kind of packet, as in KINDS."""
    return {field.name: value for field, value, mask in match if mask is None and field.name in DECIDING}


@st.composite
def set_fields(draw: st.DrawFn, fields: Sequence[Field]) -> SetField:
    field = draw(st.sampled_from(list(fields)))
    return SetField(field, *draw(values(field)))


@st.composite
def moves(draw: st.DrawFn, sources: Sequence[Field], destinations: Sequence[Field]) -> Move:
    source = draw(st.sampled_from(list(sources)))
    destination = draw(st.sampled_from(list(destinations)))
    bits = draw(st.integers(1, min(source.bits, destination.bits)))
    return Move(
        source,
        draw(st.integers(0, source.bits - bits)),
        destination,
        draw(st.integers(0, destination.bits - bits)),
        bits,
    )


@st.composite
def nats(draw: st.DrawFn, ipv6: bool) -> Nat:
    kind = draw(st.sampled_from(["", "src", "dst"]))
    if not kind:
        return Nat()
    bits = 128 if ipv6 else 32
    low = draw(st.integers(1, 2**bits - 1))
    high = draw(st.none() | st.integers(low, 2**bits - 1))
    port_low = draw(st.just(0) | st.integers(1, 65535))
    port_high = draw(st.just(0) | st.integers(port_low, 65535)) if port_low else 0
    if high == low:
        high = None
    if port_high == port_low:
        port_high = 0
    # Open vSwitch keeps "random" only where there is a range to choose from.
    return Nat(kind, ipv6, low, high, port_low, port_high, draw(st.booleans()))


_CT_ANY_CONNECTION: Final = sum(CT_STATES[name] for name in ("new", "est", "rel", "rpl"))
_CT_FIELDS: Final = [FIELDS["ct_mark"], FIELDS["ct_label"]]
_ZONE_FIELDS: Final = [FIELDS["reg0"], FIELDS["reg7"], FIELDS["reg13"]]


@st.composite
def cts(draw: st.DrawFn, kind: dict[str, int], tables: Sequence[int], *, invalid: bool = False) -> Ct:
    sources = [
        field
        for field in allowed(kind)
        if field.name not in ("in_port", "conj_id") and field not in CONNECTION
    ]
    execute: list[SetField | Move] = []
    # What is matched as invalid has no connection to commit.
    commit = not invalid and draw(st.booleans())
    if commit:
        execute = draw(st.lists(set_fields(_CT_FIELDS) | moves(sources, _CT_FIELDS), max_size=3))
    zone_field = draw(st.none() | st.tuples(st.sampled_from(_ZONE_FIELDS), st.integers(0, 16)))
    nat = draw(st.none() | nats(kind["eth_type"] == ETH_TYPE_IPV6))
    if nat is not None and nat.kind and not commit:
        nat = Nat()  # choosing a translation takes a commit
    return Ct(
        zone=0 if zone_field else draw(st.integers(0, 0xFFFF)),
        zone_field=zone_field,
        commit=commit,
        force=commit and draw(st.booleans()),
        table=draw(st.none() | st.sampled_from(list(tables))),
        nat=nat,
        execute=tuple(execute),
    )


#: Fields of which a learned flow may be told a value, or to take the packet's.
_NOT_LEARNED: Final = frozenset(
    FIELDS[name] for name in ("in_port", "conj_id", "ct_state", "tcp_flags", "ip_frag", *DECIDING)
)


@st.composite
def learns(draw: st.DrawFn, kind: dict[str, int], tables: Sequence[int]) -> Learn:
    """A learned flow for packets of the same kind as the one at hand."""
    fields = [field for field in allowed(kind) if field not in _NOT_LEARNED | CONNECTION]
    # What decides comes first: each part is checked against what was said before.
    match = [LearnMatch(FIELDS[name], value) for name, value in kind.items() if name != "ct_nw_proto"]
    for field in draw(st.lists(st.sampled_from(fields), unique=True, max_size=4)):
        match.append(LearnMatch(field, draw(st.none() | st.integers(0, field.all_ones & 0xFF))))
    load = []
    for field in draw(st.lists(st.sampled_from([FIELDS[f"reg{index}"] for index in range(16)]), max_size=3)):
        bits = draw(st.integers(1, 32))
        offset = draw(st.integers(0, 32 - bits))
        mask = ((1 << bits) - 1) << offset
        value = draw(st.integers(0, 0xFFFFFFFF)) & mask
        load.append(SetField(field, value, None if bits == 32 else mask))
    return Learn(
        draw(st.sampled_from(list(tables))),
        draw(st.integers(0, 0xFFFF)),
        draw(st.integers(0, 2**64 - 2)),
        tuple(match),
        tuple(load),
        draw(st.just(0) | st.integers(1, 0xFFFF)),
        draw(st.just(0) | st.integers(1, 0xFFFF)),
        draw(st.booleans()),
    )


@st.composite
def conjunctions(draw: st.DrawFn) -> Conjunction:
    clauses = draw(st.integers(2, 64))
    return Conjunction(draw(st.integers(0, 0xFFFFFFFF)), draw(st.integers(1, clauses)), clauses)


def _outputs(ports: Sequence[int]) -> st.SearchStrategy[Output]:
    return st.sampled_from([*ports, OFPP_IN_PORT, OFPP_LOCAL, OFPP_CONTROLLER]).map(Output)


@st.composite
def _output_fields(draw: st.DrawFn) -> OutputField:
    bits = draw(st.integers(1, 32))
    field = draw(st.sampled_from([FIELDS[f"reg{index}"] for index in range(16)]))
    return OutputField(field, draw(st.integers(0, 32 - bits)), bits)


@st.composite
def actions_for(
    draw: st.DrawFn,
    match: Match,
    *,
    ports: Sequence[int] = (1, 2, 16, 300, _LAST_PORT),
    tables: Sequence[int] = tuple(range(254)),
    groups: Sequence[int] = (),
    max_size: int = 6,
) -> tuple[Action, ...]:
    """Actions that Open vSwitch accepts beside this match. ``goto_table`` is left to :func:`flows`."""
    kind = kind_of(match)
    state = match.get("ct_state")
    connected = state is not None and bool(state[0] & _CT_ANY_CONNECTION)
    if match.get("ip_frag") is not None:
        # A match on later fragments has nothing above the internet protocol, so no action may name it.
        kind = {"eth_type": kind["eth_type"]}
    readable = [
        field
        for field in allowed(kind)
        if field.name not in ("in_port", "conj_id") and (connected or field not in CONNECTION)
    ]
    writable = [field for field in allowed(kind) if field not in READ_ONLY]
    movable = [field for field in writable if field.name != "in_port"]
    choices: list[st.SearchStrategy[Action]] = [
        _outputs(ports),
        _output_fields(),
        set_fields(writable),
        moves(readable, movable),
        st.builds(Resubmit, st.sampled_from(list(tables))),
        learns(kind, tables),
    ]
    if connected:
        # Searching by the connection's first addresses needs a match that says there is a connection.
        choices.append(st.builds(Resubmit, st.sampled_from(list(tables)), with_ct=st.just(True)))
    if groups:
        choices.append(st.builds(GroupAction, st.sampled_from(list(groups))))
    if kind.get("eth_type") in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        choices.append(st.just(DecTtl()))
        choices.append(cts(kind, tables, invalid=state is not None and bool(state[0] & CT_STATES["inv"])))
    return tuple(draw(st.lists(st.one_of(choices), max_size=max_size)))


@st.composite
def flows(
    draw: st.DrawFn,
    *,
    kinds: Sequence[dict[str, int]] = tuple(KINDS),
    ports: Sequence[int] = (1, 2, 16, 300, _LAST_PORT),
    tables: Sequence[int] = tuple(range(254)),
    groups: Sequence[int] = (),
) -> Flow:
    """One flow in one of ``tables``, sending to ``ports``, ``tables`` and ``groups``, or part of conjunctions."""
    match = draw(matches(kinds))
    table = draw(st.sampled_from(list(tables)))
    # Open vSwitch takes conjunctions with nothing else, in any order and more than once.
    conjunctive = not draw(st.integers(0, 4))
    actions: tuple[Action, ...] = (
        tuple(draw(st.lists(conjunctions(), min_size=1, max_size=6)))
        if conjunctive
        else draw(actions_for(match, ports=ports, tables=tables, groups=groups))
    )
    later = [other for other in tables if other > table]
    onward: bool = draw(st.booleans())
    if later and onward and not conjunctive:
        actions = (*actions, Goto(draw(st.sampled_from(later))))
    return Flow(
        table,
        draw(st.integers(0, 0xFFFF)),
        match,
        actions,
        # Ones in every bit mean "do not change" on the wire, so no flow has that cookie.
        draw(st.integers(0, 2**64 - 2)),
        OWNER,
        "random",
        draw(st.just(0) | st.integers(60, 0xFFFF)),
        draw(st.just(0) | st.integers(60, 0xFFFF)),
    )


@st.composite
def groups(draw: st.DrawFn, *, ports: Sequence[int] = (1, 2, 16), tables: Sequence[int] = (1, 2, 3)) -> Group:
    """One group. Its buckets' numbers are distinct."""
    kinds: list[GroupType] = ["all", "select", "indirect", "fast_failover"]
    kind = draw(st.sampled_from(kinds))
    count = 1 if kind == "indirect" else draw(st.integers(0, 5))
    numbers = draw(st.lists(st.integers(0, 0xFFFFFF00), unique=True, min_size=count, max_size=count))
    buckets = []
    for number in numbers:
        # Fast failover needs something to watch.
        watch = draw(st.sampled_from(list(ports))) if kind == "fast_failover" else None
        actions = draw(actions_for(Match(), ports=ports, tables=tables, max_size=3))
        buckets.append(
            Bucket(number, actions, draw(st.integers(0, 0xFFFF)) if kind == "select" else 1, watch)
        )
    method = draw(st.sampled_from(["", "dp_hash", "hash"])) if kind == "select" else ""
    if kind == "select":
        # That is the form in which groups are compared; another test is about other orders.
        buckets.sort(key=lambda bucket: bucket.bucket_id)
    hashed = draw(st.lists(st.sampled_from(HASHED), unique=True)) if method == "hash" else []
    hashed.sort(key=HASHED.index)
    return Group(
        draw(st.integers(0, 0xFFFFFF00)), kind, tuple(buckets), OWNER, "random", method, tuple(hashed)
    )


#: What the selection of a bucket may be told to look at.
HASHED: Final = [
    FIELDS[name]
    for name in (
        *(
            "tun_id",
            "ct_label",
            "ct_nw_src",
            "reg3",
            "eth_src",
            "eth_dst",
            "eth_type",
            "ip_src",
            "ip_dst",
            "ipv6_src",
        ),
        *("ipv6_dst", "nw_proto", "tcp_src", "tcp_dst", "udp_src", "udp_dst", "sctp_src", "sctp_dst"),
    )
]
