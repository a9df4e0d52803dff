# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on a packet's values: masked sets, moves of bits, and the values that a lookup sees.

A packet in motion is a list with one integer for each field of the registry, in its order.
"""

from __future__ import annotations

from typing import Final

from sdn.pipeline.actions import Move, SetField
from sdn.pipeline.fields import (
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
from sdn.simulator.conntrack import OriginalTuple
from sdn.simulator.packet import FRAG_ANY

_PORTS: Final[dict[int, tuple[Field, Field]]] = {
    IPPROTO_TCP: (TCP_SRC, TCP_DST),
    IPPROTO_UDP: (UDP_SRC, UDP_DST),
    IPPROTO_SCTP: (SCTP_SRC, SCTP_DST),
    IPPROTO_ICMP: (ICMP_TYPE, ICMP_CODE),
    IPPROTO_ICMPV6: (ICMPV6_TYPE, ICMPV6_CODE),
}
_PORT_PLACES: Final = tuple(field.order for pair in _PORTS.values() for field in pair)


def masked(values: list[int], action: SetField) -> int:
    """The value that a field has after ``set_field``."""
    if action.mask is None:
        return action.value
    return values[action.field.order] & ~action.mask | action.value & action.mask


def moved(values: list[int], action: Move) -> int:
    """The value that the destination has after ``move``."""
    ones = (1 << action.bits) - 1
    bits = values[action.source.order] >> action.source_offset & ones
    kept = values[action.destination.order] & ~(ones << action.destination_offset)
    return kept | bits << action.destination_offset


def lookup_values(values: list[int], original: OriginalTuple | None) -> list[int]:
    """What matches see: the packet, its addresses and ports replaced by a connection's original ones where
    given, and no ports in fragments.
    """
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
