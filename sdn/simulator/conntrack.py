# SPDX-License-Identifier: Apache-2.0
"""What the connection tracker says of a packet: not simulated, but given by whoever asks.

A packet's fate after ``ct`` depends on the packets before it, so the question has to say what is assumed: "as
the first packet of a connection", "as the reply of an established one", "as translated by zone 2". An answer
is a :class:`Tracked`; what gives answers is any function from a :class:`Request` to one. :func:`new` and
:func:`by_zone` cover the common questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from sdn.pipeline.actions import Ct
from sdn.pipeline.fields import (
    CT_NW_PROTO,
    CT_STATES,
    CT_TP_DST,
    CT_TP_SRC,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    NW_PROTO,
)
from sdn.simulator.packet import Packet
from sdn.simulator.values import PORTS, addresses, original_addresses

NEW = CT_STATES["trk"] | CT_STATES["new"]
ESTABLISHED = CT_STATES["trk"] | CT_STATES["est"]
REPLY = ESTABLISHED | CT_STATES["rpl"]
INVALID = CT_STATES["trk"] | CT_STATES["inv"]


@dataclass(frozen=True, slots=True)
class Request:
    """A packet that reaches ``ct``: as it is at that moment, the zone, and the action."""

    packet: Packet
    zone: int
    action: Ct


@dataclass(frozen=True, slots=True)
class OriginalTuple:
    """The connection's original direction, as its first packet was before any translation: what the fields ct_nw_proto,
    ct_nw_src (ct_ipv6_src), ct_tp_src and so on hold, and what ``resubmit(...,ct)`` looks up in place of the packet's
    own.

    Addresses are integers of the packet's own family. For ICMP the ports are type and code.
    """

    protocol: int
    source: int
    destination: int
    source_port: int = 0
    destination_port: int = 0


#: Of a packet that belongs to no connection.
NO_CONNECTION = OriginalTuple(0, 0, 0)


def own_tuple(packet: Packet) -> OriginalTuple:
    """The original direction of a connection whose first packet this is."""
    values = packet.values
    if values[ETH_TYPE.order] not in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        return NO_CONNECTION
    source, destination = addresses(values)
    protocol = values[NW_PROTO.order]
    ports = PORTS.get(protocol)
    if ports is None:
        return OriginalTuple(protocol, values[source.order], values[destination.order])
    return OriginalTuple(
        protocol,
        values[source.order],
        values[destination.order],
        values[ports[0].order],
        values[ports[1].order],
    )


@dataclass(frozen=True, slots=True)
class Tracked:
    """The tracker's answer: the state (bits of ct_state), the connection's mark and label, and what
    translation changes.

    ``translation`` holds fields by name with their new values, for example ``{"ip_dst": "10.244.1.5",
    "tcp_dst": 8080}``. ``original`` None stands for the packet's own addresses and ports (:func:`own_tuple`): those of
    a first packet, and of those after it in the same direction. An invalid packet belongs to no connection.
    """

    state: int = NEW
    mark: int = 0
    label: int = 0
    translation: Mapping[str, int | str] = field(default_factory=dict)
    original: OriginalTuple | None = None


def place_original(values: list[int], tracked: Tracked) -> None:
    """Put the original direction into a packet's values, as the tracker leaves it there."""
    original = tracked.original
    if original is None:
        original = NO_CONNECTION if tracked.state & CT_STATES["inv"] else own_tuple(Packet(values))
    source, destination = original_addresses(values)
    values[CT_NW_PROTO.order] = original.protocol
    values[source.order], values[destination.order] = original.source, original.destination
    values[CT_TP_SRC.order], values[CT_TP_DST.order] = original.source_port, original.destination_port


Conntrack: TypeAlias = Callable[[Request], Tracked]


def new(request: Request) -> Tracked:
    """Every packet is the first of its connection, and nothing is translated."""
    return Tracked()


def by_zone(zones: Mapping[int, Tracked], otherwise: Tracked | None = None) -> Conntrack:
    """An answer for each zone; other zones answer ``otherwise``, by default a new connection."""
    fallback = otherwise or Tracked()
    return lambda request: zones.get(request.zone, fallback)
