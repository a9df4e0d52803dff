# SPDX-License-Identifier: Apache-2.0
"""A packet as the pipeline sees it: one integer for each field of the registry, 0 where a packet has no such
field.

That is how Open vSwitch's own ``struct flow`` sees packets, and matching depends on it: a match on
``tcp_dst=0`` does take a packet whose port is unknown. The registers, the tunnel metadata and the connection
state travel in the same value, since flows match and set them like headers.

Packets are immutable; changing one gives another. The constructors below (:func:`tcp`, :func:`arp`, ...) fill
in what any sensible packet of that kind carries, so that a test or a question names only what matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sdn.pipeline.fields import (
    CT_IPV6_DST,
    CT_IPV6_SRC,
    CT_LABEL,
    CT_MARK,
    CT_NW_DST,
    CT_NW_PROTO,
    CT_NW_SRC,
    CT_STATE,
    CT_STATES,
    CT_TP_DST,
    CT_TP_SRC,
    CT_ZONE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FIELDS,
    ICMPV6_CODE,
    ICMPV6_NEIGHBOR_ADVERTISEMENT,
    ICMPV6_NEIGHBOR_SOLICITATION,
    IP_FRAG,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    METADATA,
    ND_OPTIONS_TYPE,
    ND_RESERVED,
    ND_SLL,
    ND_TARGET,
    ND_TLL,
    PKT_MARK,
    REGISTERS,
    SCTP_DST,
    SCTP_SRC,
    TCP_DST,
    TCP_FLAGS,
    TCP_SRC,
    TUN_DST,
    TUN_ID,
    TUN_IPV6_DST,
    TUN_IPV6_SRC,
    TUN_SRC,
    UDP_DST,
    UDP_SRC,
    Field,
)
from sdn.pipeline.match import match

#: Bits of ip_frag (ovs-fields(7)): any fragment, and any but the first.
FRAG_ANY: Final = 1
FRAG_LATER: Final = 2

#: The original direction of the packet's connection, as the connection tracker knows it.
ORIGINAL_FIELDS: Final = (CT_NW_PROTO, CT_NW_SRC, CT_NW_DST, CT_IPV6_SRC, CT_IPV6_DST, CT_TP_SRC, CT_TP_DST)
#: Working memory of one packet in one switch: what no other switch ever sees of it.
LOCAL_FIELDS: Final = (*REGISTERS, METADATA, PKT_MARK, CT_STATE, CT_ZONE, CT_MARK, CT_LABEL, *ORIGINAL_FIELDS)
#: What a tunnel carries beside the packet.
TUNNEL_FIELDS: Final = (TUN_ID, TUN_SRC, TUN_DST, TUN_IPV6_SRC, TUN_IPV6_DST)

_COUNT: Final = len(FIELDS)
_ALL: Final = tuple(FIELDS.values())
_OPTION_SOURCE_ADDRESS, _OPTION_TARGET_ADDRESS = 1, 2

# Fields of the transport header, which later fragments do not carry (Open vSwitch, mf_are_prereqs_ok__);
# flags are among them only where they can be set.
_TRANSPORT: Final = frozenset((TCP_SRC, TCP_DST, TCP_FLAGS, UDP_SRC, UDP_DST, SCTP_SRC, SCTP_DST))
_NEIGHBOR: Final = frozenset((ND_TARGET, ND_SLL, ND_TLL, ND_RESERVED, ND_OPTIONS_TYPE))
# What says that there is a connection (Open vSwitch, is_ct_valid).
_ORIGINAL: Final = frozenset(ORIGINAL_FIELDS)
_OF_A_CONNECTION: Final = sum(CT_STATES[name] for name in ("new", "est", "rpl"))
_ALWAYS: Final = tuple(field.prerequisites == ((),) for field in _ALL)
_PREREQUISITES: Final = tuple(
    tuple(
        tuple((FIELDS[name].order, value) for name, value in alternative)
        for alternative in field.prerequisites
    )
    for field in _ALL
)


def has_field(values: list[int] | tuple[int, ...], field: Field) -> bool:
    """Whether a packet with these values has the field at all, so that an action may read or set it."""
    if field in _ORIGINAL and not values[CT_STATE.order] & _OF_A_CONNECTION:
        return False
    if _ALWAYS[field.order]:
        return True
    if field in _TRANSPORT:
        if values[IP_FRAG.order] & FRAG_LATER:
            return False
    elif field in _NEIGHBOR and values[ICMPV6_CODE.order] != 0:
        return False
    return any(
        all(values[order] == value for order, value in alternative)
        for alternative in _PREREQUISITES[field.order]
    )


class Packet:
    """One packet and its metadata. Build it with a constructor of this module or with
    :func:`sdn.simulator.text.parse`.
    """

    __slots__ = ("values",)

    values: tuple[int, ...]

    def __init__(self, values: Iterable[int] = (0,) * _COUNT) -> None:
        """``values`` in the order of the registry, one for each field."""
        object.__setattr__(self, "values", tuple(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a packet is a value: use with_(...) for another one")

    def __getitem__(self, field: Field | str) -> int:
        """The value of a field, 0 when the packet has none. Raises KeyError for a name that is no field."""
        return self.values[(FIELDS[field] if isinstance(field, str) else field).order]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packet) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f"<Packet {self}>"

    def __str__(self) -> str:
        from sdn.simulator.text import format_packet

        return format_packet(self)

    def has(self, field: Field | str) -> bool:
        """Whether the packet has the field (an ARP packet has no ``tcp_dst``); metadata exists always."""
        return has_field(self.values, FIELDS[field] if isinstance(field, str) else field)

    def with_(self, **changes: int | str) -> Packet:
        """The same packet with some fields changed. Raises ValueError naming the field."""
        values = list(self.values)
        for name, raw in changes.items():
            field = FIELDS.get(name)
            if field is None:
                raise ValueError(f"unknown field {name!r}")
            values[field.order] = _exact(field, raw)
        return Packet(values)

    def differences(self, other: Packet) -> dict[Field, tuple[int, int]]:
        """The fields in which the two differ, each with this packet's value and the other's."""
        return {
            field: (mine, theirs)
            for field, mine, theirs in zip(_ALL, self.values, other.values, strict=True)
            if mine != theirs
        }

    def arriving(self, in_port: int, *, tunnel_source: int | str | None = None) -> Packet:
        """The packet as the next switch receives it on ``in_port``: registers and connection state are gone.

        With ``tunnel_source`` (the sender's tunnel address, either family) it came through a tunnel and keeps
        its tunnel metadata; without, the tunnel metadata is gone as well.
        """
        values = list(self.values)
        for field in LOCAL_FIELDS:
            values[field.order] = 0
        values[FIELDS["in_port"].order] = in_port
        if tunnel_source is None:
            for field in TUNNEL_FIELDS:
                values[field.order] = 0
        else:
            source = TUN_IPV6_SRC if values[TUN_IPV6_DST.order] else TUN_SRC
            values[source.order] = _exact(source, tunnel_source)
        return Packet(values)


def _exact(field: Field, raw: int | str) -> int:
    value, mask = field.parse(raw)
    # "+trk-new" is how a state is written, and its mask says only which states were named.
    if mask is not None and field is not CT_STATE:
        raise ValueError(f"field {field.name}: a packet has one value, not the range {raw!r}")
    return value


def packet(**values: int | str) -> Packet:
    """A packet from fields by name, with what they imply filled in (``arp_op`` brings ``eth_type=0x0806``),
    and no more.

    Raises ValueError naming a field that is unknown, malformed, or cannot occur together with the others.
    """
    numbers = {name: _exact(FIELDS[name], raw) if name in FIELDS else raw for name, raw in values.items()}
    result = [0] * _COUNT
    for field, value, _mask in match(**numbers):
        result[field.order] = value
    return Packet(result)


def _build(values: dict[str, int | str], **defaults: int | str) -> Packet:
    return packet(**{**defaults, **values})


def ipv4(**values: int | str) -> Packet:
    """An IPv4 packet with a TTL of 64 (the default of RFC 1700) where nothing else is said."""
    return _build(values, eth_type=ETH_TYPE_IPV4, nw_ttl=64)


def ipv6(**values: int | str) -> Packet:
    """An IPv6 packet with a hop limit of 64 where nothing else is said."""
    return _build(values, eth_type=ETH_TYPE_IPV6, nw_ttl=64)


def _ip(protocol: int, values: dict[str, int | str], **defaults: int | str) -> Packet:
    six = any(name.startswith("ipv6_") for name in values) or values.get("eth_type") == ETH_TYPE_IPV6
    return (ipv6 if six else ipv4)(**{"nw_proto": protocol, **defaults, **values})


def tcp(**values: int | str) -> Packet:
    """A TCP segment; IPv6 when an IPv6 address or ``eth_type`` says so."""
    return _ip(IPPROTO_TCP, values)


def udp(**values: int | str) -> Packet:
    """A UDP datagram; IPv6 when an IPv6 address or ``eth_type`` says so."""
    return _ip(IPPROTO_UDP, values)


def sctp(**values: int | str) -> Packet:
    """An SCTP packet; IPv6 when an IPv6 address or ``eth_type`` says so."""
    return _ip(IPPROTO_SCTP, values)


def icmp(**values: int | str) -> Packet:
    """An ICMP echo request (RFC 792) where ``icmp_type`` does not say otherwise."""
    return ipv4(**{"nw_proto": IPPROTO_ICMP, **_first("icmp_type", 8, values), **values})


def icmpv6(**values: int | str) -> Packet:
    """An ICMPv6 echo request (RFC 4443) where ``icmpv6_type`` does not say otherwise."""
    return ipv6(**{"nw_proto": IPPROTO_ICMPV6, **_first("icmpv6_type", 128, values), **values})


def _first(name: str, value: int, values: dict[str, int | str]) -> dict[str, int | str]:
    """A field of the message's header, which only the first fragment carries."""
    later = "ip_frag" in values and _exact(IP_FRAG, values["ip_frag"]) & FRAG_LATER
    return {} if later else {name: value}


def arp(**values: int | str) -> Packet:
    """An ARP request (RFC 826) to the broadcast address, where ``arp_op`` and ``eth_dst`` do not say
    otherwise.
    """
    return _build(values, eth_type=ETH_TYPE_ARP, arp_op=1, eth_dst="ff:ff:ff:ff:ff:ff")


def nd_solicit(**values: int | str) -> Packet:
    """A neighbour solicitation (RFC 4861, section 4.3): hop limit 255, and the option type where ``nd_sll``
    is given.

    Give ``nd_target``; the destination is the target's solicited-node address (RFC 4291, section 2.7.1) where
    nothing else is said. Without ``nd_sll`` it is what duplicate address detection sends.
    """
    given = dict(values)
    if "nd_target" in values:
        target = _exact(ND_TARGET, values["nd_target"])
        group = 0xFF0200000000000000000001FF000000 | target & 0xFFFFFF
        given.setdefault("ipv6_dst", group)
        given.setdefault("eth_dst", 0x333300000000 | group & 0xFFFFFFFF)
    if "nd_sll" in values:
        given.setdefault("nd_options_type", _OPTION_SOURCE_ADDRESS)
    return _neighbor(ICMPV6_NEIGHBOR_SOLICITATION, given)


def nd_advertise(**values: int | str) -> Packet:
    """A neighbour advertisement (RFC 4861, section 4.4): hop limit 255, and the option type where ``nd_tll``
    is given.
    """
    given = dict(values)
    if "nd_tll" in values:
        given.setdefault("nd_options_type", _OPTION_TARGET_ADDRESS)
    return _neighbor(ICMPV6_NEIGHBOR_ADVERTISEMENT, given)


def _neighbor(kind: int, values: dict[str, int | str]) -> Packet:
    return ipv6(**{"nw_proto": IPPROTO_ICMPV6, "icmpv6_type": kind, "nw_ttl": 255, **values})
