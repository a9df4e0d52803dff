# SPDX-License-Identifier: Apache-2.0
"""Packets as text, in the form that ``ovs-appctl ofproto/trace`` takes:
``in_port=16,tcp,ip_src=10.244.1.5,tcp_dst=80``.

Fields may be given by their names in the registry or by those that ``ovs-ofctl`` prints (``nw_src``,
``dl_dst``, ``tp_dst``, ``icmp_type``); protocols by the short names of ovs-fields(7). What is not said is 0,
save what the protocol implies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdn.pipeline.fields import (
    CT_STATE,
    CT_STATES,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FIELDS,
    IN_PORT,
    IP_FRAG,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NW_PROTO,
    OFPP_CONTROLLER,
    OFPP_LOCAL,
    Field,
)
from sdn.simulator.packet import Packet, has_field, packet

#: Short name → (eth_type, nw_proto).
PROTOCOLS: Final[dict[str, tuple[int, int | None]]] = {
    "arp": (ETH_TYPE_ARP, None),
    "ip": (ETH_TYPE_IPV4, None),
    "ipv6": (ETH_TYPE_IPV6, None),
    "icmp": (ETH_TYPE_IPV4, IPPROTO_ICMP),
    "icmp6": (ETH_TYPE_IPV6, IPPROTO_ICMPV6),
    "tcp": (ETH_TYPE_IPV4, IPPROTO_TCP),
    "tcp6": (ETH_TYPE_IPV6, IPPROTO_TCP),
    "udp": (ETH_TYPE_IPV4, IPPROTO_UDP),
    "udp6": (ETH_TYPE_IPV6, IPPROTO_UDP),
    "sctp": (ETH_TYPE_IPV4, IPPROTO_SCTP),
    "sctp6": (ETH_TYPE_IPV6, IPPROTO_SCTP),
}
_SHORT: Final = {kinds: name for name, kinds in PROTOCOLS.items()}
_NAMED_PORTS: Final = {"LOCAL": OFPP_LOCAL, "CONTROLLER": OFPP_CONTROLLER}
# ip_frag in words (ovs-fields(7)): bit 0 any fragment, bit 1 not the first.
_FRAGMENTS: Final = {"no": 0, "yes": 1, "first": 1, "later": 3}
#: Bits of tcp_flags (RFC 9293, section 3.1, and RFC 3540).
TCP_FLAGS: Final = {
    name: 1 << bit for bit, name in enumerate(("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"))
}
_FLAGS: Final = {"ct_state": CT_STATES, "tcp_flags": TCP_FLAGS}
_ICMPV6: Final = (ETH_TYPE_IPV6, IPPROTO_ICMPV6)
_ALIASES: Final = {"icmp_type": "icmpv6_type", "icmp_code": "icmpv6_code"}
_UNIQUE_ALIASES: Final = {
    "dl_src": "eth_src",
    "dl_dst": "eth_dst",
    "dl_type": "eth_type",
    "nw_src": "ip_src",
    "nw_dst": "ip_dst",
    "nw_frag": "ip_frag",
    "ip_proto": "nw_proto",
}
_PORT_NAMES: Final = {IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp", IPPROTO_SCTP: "sctp"}


def parse(text: str, ports: Mapping[str, int] | None = None) -> Packet:
    """A packet from text. ``ports`` gives the numbers of ports that may be named in ``in_port``.

    Raises ValueError that names the part which is wrong.
    """
    words: dict[str, str] = {}
    kinds: tuple[int, int | None] | None = None
    for part in (piece.strip() for piece in text.split(",")):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if not equals:
            if part not in PROTOCOLS:
                raise ValueError(f"{part!r} is neither field=value nor one of {', '.join(PROTOCOLS)}")
            kinds = PROTOCOLS[part]
        elif name in words:
            raise ValueError(f"{name} is given twice")
        else:
            words[name] = value
    if kinds is None:
        kinds = (
            _number(words, ("dl_type", "eth_type")) or 0,
            _number(words, ("nw_proto", "ip_proto")),
        )
    values: dict[str, int | str] = {}
    if kinds[0]:
        values[ETH_TYPE.name] = kinds[0]
    if kinds[1] is not None:
        values[NW_PROTO.name] = kinds[1]
    for name, value in words.items():
        field = _field_name(name, kinds)
        number = _value(name, field, value, ports or {})
        if field in values and name not in ("dl_type", "eth_type", "nw_proto", "ip_proto"):
            raise ValueError(f"{field} is given twice")
        values.setdefault(field, number)
    return packet(**values)


def _number(words: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        if name in words:
            return _integer(name, words[name])
    return None


def _integer(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"field {name}: {text!r} is not a number") from None


def _field_name(name: str, kinds: tuple[int, int | None]) -> str:
    if name in ("tp_src", "tp_dst"):
        protocol = _PORT_NAMES.get(kinds[1] or 0)
        if protocol is None:
            raise ValueError(f"{name} needs tcp, udp or sctp")
        return f"{protocol}_{name.removeprefix('tp_')}"
    if kinds == _ICMPV6 and name in _ALIASES:
        return _ALIASES[name]
    if name == "nw_tos":
        # The same bits, as Open vSwitch prints them: see _value.
        return "ip_dscp"
    field = _UNIQUE_ALIASES.get(name, name)
    if field not in FIELDS:
        raise ValueError(f"unknown field {name!r}")
    return field


def _value(name: str, field: str, text: str, ports: Mapping[str, int]) -> int | str:
    if name == "nw_tos":
        # The old IPv4 byte: DSCP in its upper six bits (RFC 2474, section 3).
        return _integer(name, text) >> 2
    if field == IN_PORT.name and not text.isdecimal():
        port = _NAMED_PORTS.get(text, ports.get(text))
        if port is None:
            raise ValueError(f"in_port: there is no port named {text!r}")
        return port
    if field == IP_FRAG.name and text in _FRAGMENTS:
        return _FRAGMENTS[text]
    flags = _FLAGS.get(field)
    if flags is not None and not text[:1].isdecimal():
        return _flags(field, text, flags)
    return text


def _flags(field: str, text: str, flags: Mapping[str, int]) -> int:
    result = 0
    for name in text.replace("|", "+").strip("+").split("+"):
        if name not in flags:
            raise ValueError(f"{field}: unknown flag {name!r}")
        result |= flags[name]
    return result


def format_packet(value: Packet) -> str:
    """The packet as text that :func:`parse` and ``ofproto/trace`` read back: what it has and is not 0."""
    values = value.values
    eth_type, protocol = values[ETH_TYPE.order], values[NW_PROTO.order]
    short = _SHORT.get((eth_type, protocol)) or _SHORT.get((eth_type, None))
    parts = [f"in_port={_format(IN_PORT, values[IN_PORT.order])}"]
    if short:
        parts.append(short)
    for field in FIELDS.values():
        number = values[field.order]
        if number == 0 or field is IN_PORT or not has_field(values, field):
            continue
        if short and (field is ETH_TYPE or (field is NW_PROTO and PROTOCOLS[short][1] is not None)):
            continue
        parts.append(f"{field.name}={_format(field, number)}")
    return ",".join(parts)


def _format(field: Field, number: int) -> str:
    if field is IN_PORT:
        return next((name for name, port in _NAMED_PORTS.items() if port == number), str(number))
    if field is IP_FRAG:
        return "later" if number == 3 else "first"
    if field is CT_STATE:
        return "|".join(name for name, bit in CT_STATES.items() if number & bit)
    return field.format(number)
