# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on a packet's values: masked sets, moves of bits, and the values that a lookup sees.

A packet in motion is a list with one integer for each field of the registry, in its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sdn.pipeline.actions import Move, SetField
from sdn.pipeline.fields import (
    CT_IPV6_DST,
    CT_IPV6_SRC,
    CT_NW_DST,
    CT_NW_PROTO,
    CT_NW_SRC,
    CT_TP_DST,
    CT_TP_SRC,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ICMP_CODE,
    ICMP_TYPE,
    ICMPV6_CODE,
    ICMPV6_TYPE,
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
    SCTP_DST,
    SCTP_SRC,
    TCP_DST,
    TCP_SRC,
    UDP_DST,
    UDP_SRC,
    Field,
)
from sdn.simulator.packet import FRAG_ANY

#: By protocol the fields of source and destination port, of ICMP type and code.
PORTS: Final[dict[int, tuple[Field, Field]]] = {
    IPPROTO_TCP: (TCP_SRC, TCP_DST),
    IPPROTO_UDP: (UDP_SRC, UDP_DST),
    IPPROTO_SCTP: (SCTP_SRC, SCTP_DST),
    IPPROTO_ICMP: (ICMP_TYPE, ICMP_CODE),
    IPPROTO_ICMPV6: (ICMPV6_TYPE, ICMPV6_CODE),
}
_PORT_PLACES: Final = tuple(field.order for pair in PORTS.values() for field in pair)


def masked(values: list[int], action: SetField) -> int:
    """The value that a field has after ``set_field``."""
    if action.mask is None:
        return action.value
    # A mask may be a flag of an enumeration, and the rest of that is not the rest of the field.
    return values[action.field.order] & ~int(action.mask) | action.value & action.mask


def moved(values: list[int], action: Move) -> int:
    """The value that the destination has after ``move``."""
    ones = (1 << action.bits) - 1
    bits = values[action.source.order] >> action.source_offset & ones
    kept = values[action.destination.order] & ~(ones << action.destination_offset)
    return kept | bits << action.destination_offset


def addresses(values: Sequence[int]) -> tuple[Field, Field]:
    """The fields of source and destination address that a packet with these values has."""
    return (IP_SRC, IP_DST) if values[ETH_TYPE.order] == ETH_TYPE_IPV4 else (IPV6_SRC, IPV6_DST)


def original_addresses(values: Sequence[int]) -> tuple[Field, Field]:
    """The same of the connection's original direction."""
    if values[ETH_TYPE.order] == ETH_TYPE_IPV4:
        return CT_NW_SRC, CT_NW_DST
    return CT_IPV6_SRC, CT_IPV6_DST


def lookup_values(values: list[int], with_ct: bool) -> list[int]:
    """What matches see: the packet, with ``with_ct`` its addresses and ports exchanged for those of its connection's
    original direction, and no ports in fragments.
    """
    if with_ct:
        values = _exchanged(values)
    if values[IP_FRAG.order] & FRAG_ANY:
        values = values.copy()
        for place in _PORT_PLACES:
            values[place] = 0
    return values


def _exchanged(values: list[int]) -> list[int]:
    result = values.copy()
    for mine, original in zip(addresses(values), original_addresses(values), strict=True):
        result[mine.order], result[original.order] = values[original.order], values[mine.order]
    own, other = PORTS.get(values[NW_PROTO.order]), PORTS.get(values[CT_NW_PROTO.order])
    result[NW_PROTO.order], result[CT_NW_PROTO.order] = values[CT_NW_PROTO.order], values[NW_PROTO.order]
    for place in _PORT_PLACES:
        result[place] = 0
    for number, original in enumerate((CT_TP_SRC, CT_TP_DST)):
        result[original.order] = 0 if own is None else values[own[number].order]
        if other is not None:
            result[other[number].order] = values[original.order]
    return result
