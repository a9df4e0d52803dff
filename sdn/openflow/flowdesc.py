# SPDX-License-Identifier: Apache-2.0
"""Flow descriptions: what the switch answers when asked for its flows (OpenFlow 1.5, section 7.3.5.2).

Two levels. :func:`split_flow_descs` only cuts, into the images of :mod:`sdn.openflow.image`: the hot path,
for comparing. :func:`decode_flow_descs` understands, with counters: for people, and for what differs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sdn.openflow.actionread import DecodedAction, decode_instructions
from sdn.openflow.errors import CodecError
from sdn.openflow.oxm import decode_match, encode_match, split_oxms
from sdn.openflow.wire import (
    OFPXSC_OPENFLOW_BASIC,
    OXS_BYTE_COUNT,
    OXS_DURATION,
    OXS_IDLE_TIME,
    OXS_PACKET_COUNT,
    padded,
)
from sdn.pipeline.match import Match

#: length, pad, table, pad, priority, idle, hard, flags, importance, cookie; then match, statistics,
#: instructions.
_FIXED: Final = struct.Struct("!H2xBxHHHHHQ")
_LENGTHS: Final = struct.Struct("!HH")
_SHORTEST: Final = _FIXED.size + 8 + 8


@dataclass(frozen=True, slots=True)
class DecodedFlow:
    """One flow as the switch holds it.

    ``unknown_fields`` has, raw, the match fields that the registry does not know (a foreign flow may match
    a VLAN). ``duration`` and ``idle`` are seconds; counters are what the switch knew when it answered, None
    where it did not say.
    """

    table: int
    priority: int
    match: Match
    actions: tuple[DecodedAction, ...]
    cookie: int
    idle_timeout: int = 0
    hard_timeout: int = 0
    flags: int = 0
    importance: int = 0
    unknown_fields: tuple[bytes, ...] = ()
    packets: int | None = None
    bytes: int | None = None
    duration: float | None = None
    idle: float | None = None


def split_flow_descs(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut the body of a flow description reply into images: (key, body), as
    :func:`~sdn.openflow.image.flow_image` makes them. Raises CodecError at the first entry whose lengths do
    not fit.
    """
    position, end = 0, len(body)
    while position < end:
        length, match_end, instructions = _bounds(body, position, end)
        entry_end = position + length
        yield (
            body[position + 4 : position + 8] + body[position + 24 : match_end],
            body[position + 8 : position + 24] + body[instructions:entry_end],
        )
        position = entry_end


def _bounds(body: bytes, position: int, end: int) -> tuple[int, int, int]:
    """Of the entry at ``position``: its length, where its match ends, where its instructions begin. Checks
    all three.
    """
    if end - position < _SHORTEST:
        raise CodecError("flow description is cut short", position)
    length, _ = _LENGTHS.unpack_from(body, position)
    if length < _SHORTEST or position + length > end:
        raise CodecError(f"flow description says {length} bytes, {end - position} are left", position)
    entry_end = position + length
    match_length = body[position + 26] << 8 | body[position + 27]
    statistics = position + 24 + padded(match_length)
    if match_length < 4 or statistics + 8 > entry_end:
        raise CodecError(f"match says {match_length} bytes in a flow description of {length}", position + 24)
    statistics_length = body[statistics + 2] << 8 | body[statistics + 3]
    instructions = statistics + padded(statistics_length)
    if statistics_length < 4 or instructions > entry_end:
        raise CodecError(f"statistics say {statistics_length} bytes", statistics)
    return length, statistics, instructions


def decode_flow_descs(body: bytes) -> Iterator[DecodedFlow]:
    """The flows in the body of a flow description reply, with their counters. Raises CodecError."""
    position, end = 0, len(body)
    while position < end:
        length, statistics, instructions = _bounds(body, position, end)
        _, table, priority, idle, hard, flags, importance, cookie = _FIXED.unpack_from(body, position)
        match, unknown, _ = decode_match(body, position + 24, statistics)
        counters = _decode_statistics(body, statistics)
        yield DecodedFlow(
            table,
            priority,
            match,
            decode_instructions(body, instructions, position + length),
            cookie,
            idle,
            hard,
            flags,
            importance,
            unknown,
            counters.get(OXS_PACKET_COUNT),
            counters.get(OXS_BYTE_COUNT),
            _seconds(counters.get(OXS_DURATION)),
            _seconds(counters.get(OXS_IDLE_TIME)),
        )
        position += length


def decode_flow(key: bytes, body: bytes) -> DecodedFlow:
    """One flow from its image, without counters. Raises CodecError."""
    if len(key) < 12 or len(body) < 16:
        raise CodecError("flow image is cut short", 0)
    match, unknown, _ = decode_match(key, 4, len(key))
    idle, hard, flags, importance, cookie = struct.unpack_from("!HHHHQ", body)
    return DecodedFlow(
        key[0],
        key[2] << 8 | key[3],
        match,
        decode_instructions(body, 16, len(body)),
        cookie,
        idle,
        hard,
        flags,
        importance,
        unknown,
    )


def canonical_key(key: bytes) -> bytes:
    """The key as :func:`~sdn.openflow.image.flow_image` would make it, whatever the order of its match
    fields.

    Open vSwitch 3.1 prints matches as we write them, and then this changes nothing. Another version may
    order fields otherwise or print registers singly; before a flow is taken for a stranger because of its
    key, ask this. A match with fields that the registry does not know comes back as it is. Raises
    CodecError.
    """
    match, unknown, end = decode_match(key, 4, len(key))
    if unknown or end != len(key):
        return key
    return key[:4] + encode_match(match)


def _decode_statistics(data: bytes, start: int) -> dict[int, int]:
    """The OXS fields (section 7.2.4) that we know, by number; they are laid out as match fields are."""
    length = data[start + 2] << 8 | data[start + 3]
    return {
        number >> 1: int.from_bytes(data[offset : offset + size], "big")
        for stat_class, number, offset, size in split_oxms(data, start + 4, start + length)
        if stat_class == OFPXSC_OPENFLOW_BASIC and size == 8
    }


def _seconds(time: int | None) -> float | None:
    """Seconds in the upper half, nanoseconds in the lower."""
    return None if time is None else (time >> 32) + (time & 0xFFFFFFFF) / 1e9
