# SPDX-License-Identifier: Apache-2.0
"""The packet and metadata fields that flows match and set: one registry, named as ovs-fields(7) names them.

What lives here: for each field its name, its width, how ``ovs-ofctl`` prints it, its OXM/NXM header on the
wire, and the other fields that it requires. What may not live here: bytes on the wire (``sdn/openflow``) or
any decision about flows.
 Values are plain integers everywhere in the pipeline (an IPv6 address is a 128-bit integer): integers
compare, hash, mask and encode without thought. Text is parsed once, at the border, by :meth:`Field.parse`.
 The *order* of the registry is the order in which Open vSwitch puts the fields of a match on the wire
(``nx_put_raw`` in its ``lib/nx-match.c``; held by a test against a real switch). A match encoded in that
order has, byte for byte, the form in which the switch gives it back, which is what lets the synchronizer
compare 100,000 flows without understanding one of them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

Kind = Literal["decimal", "hex", "mac", "ipv4", "ipv6", "port", "ct_state", "tcp_flags", "ip_frag"]

OXM_OPENFLOW_BASIC = 0x8000
OXM_NXM_0 = 0x0000
OXM_NXM_1 = 0x0001
OXM_PACKET_REGS = 0x8001
#: Two ND fields of Ericsson's that Open vSwitch puts in a class of their own (ERICOXM_OF_* in its
#: ``meta-flow.h``).
OXM_OVS_ND = 0x1000

ETH_TYPE_IPV4 = 0x0800
ETH_TYPE_ARP = 0x0806
ETH_TYPE_IPV6 = 0x86DD
IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMPV6 = 58
IPPROTO_SCTP = 132
ICMPV6_NEIGHBOR_SOLICITATION = 135
ICMPV6_NEIGHBOR_ADVERTISEMENT = 136

#: Bits of ct_state (ovs-fields(7), "Connection Tracking State Field").
CT_STATES: dict[str, int] = {
    "new": 0x01,
    "est": 0x02,
    "rel": 0x04,
    "rpl": 0x08,
    "inv": 0x10,
    "trk": 0x20,
    "snat": 0x40,
    "dnat": 0x80,
}

#: Bit of ip_frag that every fragment has (ovs-fields(7)).
IP_FRAG_ANY = 0x1

#: Reserved port numbers that flows name (OpenFlow 1.5, section 7.2.1.2).
OFPP_IN_PORT = 0xFFFFFFF8
OFPP_CONTROLLER = 0xFFFFFFFD
OFPP_LOCAL = 0xFFFFFFFE
OFPP_ANY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One match field.

    ``prerequisites`` lists, for each alternative, the field values of which one alternative must hold for
    this field to exist in a packet: ``ip_src`` needs ``eth_type=0x0800``; ``tcp_dst`` needs IPv4 or IPv6, and
    TCP. Identity is equality: each field exists once, in :data:`FIELDS`.
    """

    name: str
    bits: int
    oxm_class: int
    oxm_field: int
    kind: Kind
    ofctl: str
    order: int
    maskable: bool
    prerequisites: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def all_ones(self) -> int:
        """The mask that means an exact match."""
        return (1 << self.bits) - 1

    def parse(self, value: int | str) -> tuple[int, int | None]:
        """Value and mask from an integer or from text such as ``10.0.0.0/24``, ``0x1/0xf`` or
        ``0a:58:00:00:00:01``.

        The mask is None for an exact match. Raises ValueError that names the field.
        """
        try:
            return self._parse(value)
        except ValueError as error:
            raise ValueError(f"field {self.name}: {value!r} is not a valid value: {error}") from None

    def _parse(self, value: int | str) -> tuple[int, int | None]:
        mask: int | None = None
        if isinstance(value, int):
            number = value
        elif self.kind == "ct_state" and value[:1] in "+-":
            return self._parse_ct_state(value)
        else:
            text, slash, mask_text = value.partition("/")
            number = self._number(text)
            if slash:
                if self.kind in ("ipv4", "ipv6") and mask_text.isdecimal():
                    prefix = int(mask_text)
                    if prefix > self.bits:
                        raise ValueError(f"prefix length above {self.bits}")
                    mask = self.all_ones ^ (self.all_ones >> prefix)
                else:
                    mask = self._number(mask_text)
        if not 0 <= number <= self.all_ones or (mask is not None and not 0 <= mask <= self.all_ones):
            raise ValueError(f"does not fit in {self.bits} bits")
        if mask is not None:
            if mask == self.all_ones:
                return number, None
            if not self.maskable:
                raise ValueError("this field takes no mask")
            if number & ~mask:
                raise ValueError("has bits outside its mask")
        return number, mask

    def _number(self, text: str) -> int:
        if self.kind == "mac" and ":" in text:
            parts = text.split(":")
            if len(parts) != 6 or not all(len(part) == 2 for part in parts):
                raise ValueError("not a MAC address")
            return int("".join(parts), 16)
        if self.kind == "ipv4" and "." in text:
            return int(ipaddress.IPv4Address(text))
        if self.kind == "ipv6" and ":" in text:
            return int(ipaddress.IPv6Address(text))
        return int(text, 0)

    def _parse_ct_state(self, text: str) -> tuple[int, int | None]:
        value = mask = 0
        for part in text.replace("-", " -").replace("+", " +").split():
            bit = CT_STATES.get(part[1:])
            if bit is None:
                raise ValueError(f"unknown connection state {part[1:]!r}")
            mask |= bit
            if part[0] == "+":
                value |= bit
        return value, mask

    def format(self, value: int) -> str:
        """The value as a person reads it: addresses as addresses, the rest as numbers."""
        if self.kind == "mac":
            return ":".join(f"{byte:02x}" for byte in value.to_bytes(6, "big"))
        if self.kind == "ipv4":
            return str(ipaddress.IPv4Address(value))
        if self.kind == "ipv6":
            return str(ipaddress.IPv6Address(value))
        if self.kind in ("decimal", "port"):
            return str(value)
        return hex(value)

    def __repr__(self) -> str:
        return self.name


FIELDS: dict[str, Field] = {}

_IPV4 = (("eth_type", ETH_TYPE_IPV4),)
_IPV6 = (("eth_type", ETH_TYPE_IPV6),)
_ARP = (("eth_type", ETH_TYPE_ARP),)
_IP = (_IPV4, _IPV6)


def _over_ip(protocol: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    return tuple((*version, ("nw_proto", protocol)) for version in _IP)


_ICMP = ((*_IPV4, ("nw_proto", IPPROTO_ICMP)),)
_ICMPV6 = ((*_IPV6, ("nw_proto", IPPROTO_ICMPV6)),)
_NS = ((*_ICMPV6[0], ("icmpv6_type", ICMPV6_NEIGHBOR_SOLICITATION)),)
_NA = ((*_ICMPV6[0], ("icmpv6_type", ICMPV6_NEIGHBOR_ADVERTISEMENT)),)


def _field(
    name: str,
    bits: int,
    oxm_class: int,
    oxm_field: int,
    kind: Kind = "decimal",
    *,
    ofctl: str = "",
    maskable: bool = False,
    needs: tuple[tuple[tuple[str, int], ...], ...] = ((),),
) -> Field:
    field = Field(name, bits, oxm_class, oxm_field, kind, ofctl or name, len(FIELDS), maskable, needs)
    FIELDS[name] = field
    return field


# Metadata that the datapath gives. (dp_hash and recirc_id are not here: Open vSwitch lets no controller match them.)
CONJ_ID = _field("conj_id", 32, OXM_NXM_1, 37)
IN_PORT = _field("in_port", 32, OXM_OPENFLOW_BASIC, 0, "port")
# Ethernet.
ETH_SRC = _field("eth_src", 48, OXM_OPENFLOW_BASIC, 4, "mac", ofctl="dl_src", maskable=True)
ETH_DST = _field("eth_dst", 48, OXM_OPENFLOW_BASIC, 3, "mac", ofctl="dl_dst", maskable=True)
ETH_TYPE = _field("eth_type", 16, OXM_OPENFLOW_BASIC, 5, "hex", ofctl="dl_type")
# Internet protocols.
IP_SRC = _field("ip_src", 32, OXM_OPENFLOW_BASIC, 11, "ipv4", ofctl="nw_src", maskable=True, needs=(_IPV4,))
IP_DST = _field("ip_dst", 32, OXM_OPENFLOW_BASIC, 12, "ipv4", ofctl="nw_dst", maskable=True, needs=(_IPV4,))
IPV6_SRC = _field("ipv6_src", 128, OXM_OPENFLOW_BASIC, 26, "ipv6", maskable=True, needs=(_IPV6,))
IPV6_DST = _field("ipv6_dst", 128, OXM_OPENFLOW_BASIC, 27, "ipv6", maskable=True, needs=(_IPV6,))
IP_FRAG = _field("ip_frag", 2, OXM_NXM_1, 26, "ip_frag", maskable=True, needs=_IP)
IP_DSCP = _field("ip_dscp", 6, OXM_OPENFLOW_BASIC, 8, needs=_IP)
NW_ECN = _field("nw_ecn", 2, OXM_OPENFLOW_BASIC, 9, needs=_IP)
NW_TTL = _field("nw_ttl", 8, OXM_NXM_1, 29, needs=_IP)
NW_PROTO = _field("nw_proto", 8, OXM_OPENFLOW_BASIC, 10, needs=_IP)
TCP_SRC = _field(
    "tcp_src", 16, OXM_OPENFLOW_BASIC, 13, ofctl="tp_src", maskable=True, needs=_over_ip(IPPROTO_TCP)
)
TCP_DST = _field(
    "tcp_dst", 16, OXM_OPENFLOW_BASIC, 14, ofctl="tp_dst", maskable=True, needs=_over_ip(IPPROTO_TCP)
)
TCP_FLAGS = _field(
    "tcp_flags", 12, OXM_OPENFLOW_BASIC, 42, "tcp_flags", maskable=True, needs=_over_ip(IPPROTO_TCP)
)
UDP_SRC = _field(
    "udp_src", 16, OXM_OPENFLOW_BASIC, 15, ofctl="tp_src", maskable=True, needs=_over_ip(IPPROTO_UDP)
)
UDP_DST = _field(
    "udp_dst", 16, OXM_OPENFLOW_BASIC, 16, ofctl="tp_dst", maskable=True, needs=_over_ip(IPPROTO_UDP)
)
SCTP_SRC = _field(
    "sctp_src", 16, OXM_OPENFLOW_BASIC, 17, ofctl="tp_src", maskable=True, needs=_over_ip(IPPROTO_SCTP)
)
SCTP_DST = _field(
    "sctp_dst", 16, OXM_OPENFLOW_BASIC, 18, ofctl="tp_dst", maskable=True, needs=_over_ip(IPPROTO_SCTP)
)
ICMP_TYPE = _field("icmp_type", 8, OXM_OPENFLOW_BASIC, 19, needs=_ICMP)
ICMP_CODE = _field("icmp_code", 8, OXM_OPENFLOW_BASIC, 20, needs=_ICMP)
ICMPV6_TYPE = _field("icmpv6_type", 8, OXM_OPENFLOW_BASIC, 29, ofctl="icmp_type", needs=_ICMPV6)
ICMPV6_CODE = _field("icmpv6_code", 8, OXM_OPENFLOW_BASIC, 30, ofctl="icmp_code", needs=_ICMPV6)
ND_RESERVED = _field("nd_reserved", 32, OXM_OVS_ND, 1, needs=(_NS[0], _NA[0]))
ND_TARGET = _field("nd_target", 128, OXM_OPENFLOW_BASIC, 31, "ipv6", maskable=True, needs=(_NS[0], _NA[0]))
ND_OPTIONS_TYPE = _field("nd_options_type", 8, OXM_OVS_ND, 2, needs=(_NS[0], _NA[0]))
ND_SLL = _field("nd_sll", 48, OXM_OPENFLOW_BASIC, 32, "mac", maskable=True, needs=_NS)
ND_TLL = _field("nd_tll", 48, OXM_OPENFLOW_BASIC, 33, "mac", maskable=True, needs=_NA)
# ARP.
ARP_OP = _field("arp_op", 16, OXM_OPENFLOW_BASIC, 21, needs=(_ARP,))
ARP_SPA = _field("arp_spa", 32, OXM_OPENFLOW_BASIC, 22, "ipv4", maskable=True, needs=(_ARP,))
ARP_TPA = _field("arp_tpa", 32, OXM_OPENFLOW_BASIC, 23, "ipv4", maskable=True, needs=(_ARP,))
ARP_SHA = _field("arp_sha", 48, OXM_OPENFLOW_BASIC, 24, "mac", maskable=True, needs=(_ARP,))
ARP_THA = _field("arp_tha", 48, OXM_OPENFLOW_BASIC, 25, "mac", maskable=True, needs=(_ARP,))
# Tunnel metadata.
TUN_ID = _field("tun_id", 64, OXM_OPENFLOW_BASIC, 38, "hex", maskable=True)
TUN_SRC = _field("tun_src", 32, OXM_NXM_1, 31, "ipv4", maskable=True)
TUN_DST = _field("tun_dst", 32, OXM_NXM_1, 32, "ipv4", maskable=True)
TUN_IPV6_SRC = _field("tun_ipv6_src", 128, OXM_NXM_1, 109, "ipv6", maskable=True)
TUN_IPV6_DST = _field("tun_ipv6_dst", 128, OXM_NXM_1, 110, "ipv6", maskable=True)
# Registers: 32-bit working memory of one packet, nothing outside the pipeline sees them.
REGISTERS = tuple(_field(f"reg{i}", 32, OXM_NXM_1, i, "hex", maskable=True) for i in range(16))
PKT_MARK = _field("pkt_mark", 32, OXM_NXM_1, 33, "hex", maskable=True)
# Connection tracking.
CT_STATE = _field("ct_state", 32, OXM_NXM_1, 105, "ct_state", maskable=True)
CT_ZONE = _field("ct_zone", 16, OXM_NXM_1, 106)
CT_MARK = _field("ct_mark", 32, OXM_NXM_1, 107, "hex", maskable=True)
CT_LABEL = _field("ct_label", 128, OXM_NXM_1, 108, "hex", maskable=True)
# The tracked connection's original direction, in every packet of it: fragments and answers too. Open vSwitch refuses a
# match on these (BAD_PREREQ) that does not also say that there is a connection: ct_state with +new, +est, +rel, +rpl,
# +snat or +dnat, or +trk-inv. It takes ports without a protocol and then ignores them, so ports need one here.
CT_NW_SRC = _field("ct_nw_src", 32, OXM_NXM_1, 120, "ipv4", maskable=True, needs=(_IPV4,))
CT_IPV6_SRC = _field("ct_ipv6_src", 128, OXM_NXM_1, 122, "ipv6", maskable=True, needs=(_IPV6,))
CT_NW_DST = _field("ct_nw_dst", 32, OXM_NXM_1, 121, "ipv4", maskable=True, needs=(_IPV4,))
CT_IPV6_DST = _field("ct_ipv6_dst", 128, OXM_NXM_1, 123, "ipv6", maskable=True, needs=(_IPV6,))
CT_NW_PROTO = _field("ct_nw_proto", 8, OXM_NXM_1, 119)
_CT_PORTED = tuple((("ct_nw_proto", protocol),) for protocol in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP))
CT_TP_SRC = _field("ct_tp_src", 16, OXM_NXM_1, 124, maskable=True, needs=_CT_PORTED)
CT_TP_DST = _field("ct_tp_dst", 16, OXM_NXM_1, 125, maskable=True, needs=_CT_PORTED)
METADATA = _field("metadata", 64, OXM_OPENFLOW_BASIC, 2, "hex", maskable=True)
