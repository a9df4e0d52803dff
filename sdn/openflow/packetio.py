# SPDX-License-Identifier: Apache-2.0
"""Packets between switch and controller: packet-in (OpenFlow 1.5, section 7.4.1) and packet-out (7.3.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from sdn.openflow.actionwire import encode_actions
from sdn.openflow.errors import CodecError
from sdn.openflow.message import decode_header
from sdn.openflow.oxm import decode_match, encode_match
from sdn.openflow.wire import (
    HEADER,
    MAX_MESSAGE,
    OFP_NO_BUFFER,
    OFP_VERSION,
    OFPT_PACKET_IN,
    OFPT_PACKET_OUT,
)
from sdn.pipeline.actions import Action
from sdn.pipeline.fields import IN_PORT
from sdn.pipeline.match import Match

#: Why a packet came (section 7.4.1): no flow, an action, a TTL that ran out, the action set, a group, a packet-out.
OFPR_TABLE_MISS: Final = 0
OFPR_APPLY_ACTION: Final = 1
OFPR_INVALID_TTL: Final = 2
OFPR_ACTION_SET: Final = 3
OFPR_GROUP: Final = 4
OFPR_PACKET_OUT: Final = 5

_PACKET_IN: Final = struct.Struct("!IHBBQ")
_PACKET_OUT: Final = struct.Struct("!IH2x")
_COOKIE: Final = slice(HEADER.size + _PACKET_IN.size - 8, HEADER.size + _PACKET_IN.size)


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A packet that a switch sent to its controller.

    ``reason`` is one of OFPR_*; ``table`` and ``cookie`` are those of the flow that sent it; ``fields`` is what the
    switch knew of it beside its headers: the port of arrival, registers, connection state. ``data`` is the frame,
    ``length`` its length before the switch cut it, if it did.
    """

    in_port: int
    reason: int
    table: int
    cookie: int
    fields: Match
    data: bytes
    length: int


def decode_packet_in(message: bytes) -> PacketIn:
    """An ``ofp_packet_in``, header included. Fields that the registry does not know are left out. Raises CodecError."""
    header = decode_header(message)
    if header.type != OFPT_PACKET_IN:
        raise CodecError(f"message type {header.type} is not a packet-in", 1)
    start = HEADER.size + _PACKET_IN.size
    if len(message) < start:
        raise CodecError("packet-in is cut short", HEADER.size)
    _buffer, length, reason, table, cookie = _PACKET_IN.unpack_from(message, HEADER.size)
    fields, _unknown, end = decode_match(message, start, len(message))
    in_port = fields.get("in_port")
    if in_port is None:
        raise CodecError("packet-in does not say by which port the packet came", start)
    # Two bytes that align the IP header behind the Ethernet header.
    if len(message) < end + 2:
        raise CodecError("packet-in is cut short", end)
    return PacketIn(in_port[0], reason, table, cookie, fields, message[end + 2 :], length)


def packet_in_cookie(message: bytes) -> int:
    """The cookie of the flow that sent an ``ofp_packet_in``, without looking at the rest; 0 where it is cut short."""
    return int.from_bytes(message[_COOKIE], "big") if len(message) >= _COOKIE.stop else 0


def packet_out(xid: int, in_port: int, actions: tuple[Action, ...], data: bytes) -> bytes:
    """Have the switch run ``actions`` on the frame ``data``, as if it had come in by ``in_port`` (OFPP_CONTROLLER for a
    packet that came from nowhere). Raises CodecError when it is too long or an action cannot be said.
    """
    match = encode_match(Match(((IN_PORT, in_port, None),)))
    encoded = encode_actions(actions)
    length = HEADER.size + _PACKET_OUT.size + len(match) + len(encoded) + len(data)
    if length > MAX_MESSAGE:
        raise CodecError(f"a packet-out of {length} bytes does not fit into a message")
    return b"".join(
        (
            HEADER.pack(OFP_VERSION, OFPT_PACKET_OUT, length, xid),
            _PACKET_OUT.pack(OFP_NO_BUFFER, len(encoded)),
            match,
            encoded,
            data,
        )
    )
