# SPDX-License-Identifier: Apache-2.0
"""Multipart requests and replies (OpenFlow 1.5, section 7.3.5): asking for flow and group descriptions and
counters.

A long answer comes as many reply messages with one xid; :func:`multipart_more` says whether another follows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sdn.openflow.errors import CodecError
from sdn.openflow.message import decode_header
from sdn.openflow.oxm import encode_match
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPG_ALL,
    OFPG_ANY,
    OFPMP_DESC,
    OFPMP_FLOW_DESC,
    OFPMP_GROUP_DESC,
    OFPMP_GROUP_STATS,
    OFPMPF_REPLY_MORE,
    OFPT_MULTIPART_REPLY,
    OFPT_MULTIPART_REQUEST,
    OFPTT_ALL,
)
from sdn.pipeline.fields import OFPP_ANY
from sdn.pipeline.match import Match

_MULTIPART: Final = struct.Struct("!HH4x")
_FLOW_REQUEST: Final = struct.Struct("!B3xII4xQQ")
_GROUP_REQUEST: Final = struct.Struct("!I4x")
_GROUP_STATS: Final = struct.Struct("!H2xII4xQQII")
#: Manufacturer, hardware, software, serial number, name of the datapath.
_DESC: Final = struct.Struct("!256s256s256s32s256s")
_BUCKET_COUNTER: Final = struct.Struct("!QQ")
#: Bytes before a reply's body.
BODY_OFFSET: Final = HEADER.size + _MULTIPART.size


def multipart_request(kind: int, body: bytes, xid: int) -> bytes:
    """A multipart request of this kind (an OFPMP_* number)."""
    length = BODY_OFFSET + len(body)
    return HEADER.pack(OFP_VERSION, OFPT_MULTIPART_REQUEST, length, xid) + _MULTIPART.pack(kind, 0) + body


def flow_desc_request(
    xid: int, *, table: int | None = None, match: Match | None = None, cookie: int = 0, cookie_mask: int = 0
) -> bytes:
    """Ask for flow descriptions: of all tables or one, of flows at least as specific as ``match``, of
    cookies that agree with ``cookie`` where ``cookie_mask`` has ones.
    """
    return multipart_request(
        OFPMP_FLOW_DESC,
        _FLOW_REQUEST.pack(OFPTT_ALL if table is None else table, OFPP_ANY, OFPG_ANY, cookie, cookie_mask)
        + encode_match(match or Match()),
        xid,
    )


def group_desc_request(xid: int, group_id: int | None = None) -> bytes:
    """Ask for the descriptions of all groups, or of one."""
    return multipart_request(
        OFPMP_GROUP_DESC, _GROUP_REQUEST.pack(OFPG_ALL if group_id is None else group_id), xid
    )


def group_stats_request(xid: int, group_id: int | None = None) -> bytes:
    """Ask for the counters of all groups, or of one."""
    return multipart_request(
        OFPMP_GROUP_STATS, _GROUP_REQUEST.pack(OFPG_ALL if group_id is None else group_id), xid
    )


def desc_request(xid: int) -> bytes:
    """Ask what the switch is."""
    return multipart_request(OFPMP_DESC, b"", xid)


def decode_software(body: bytes) -> str:
    """The software version in the answer to :func:`desc_request` (section 7.3.5.1), "3.1.0". Raises CodecError."""
    if len(body) != _DESC.size:
        raise CodecError(f"a switch's description is {_DESC.size} bytes long, got {len(body)}")
    software: bytes = _DESC.unpack(body)[2]
    return software.partition(b"\0")[0].decode("ascii", "replace")


def multipart_kind(message: bytes) -> int:
    """Which question a multipart reply answers (an OFPMP_* number). Raises CodecError when it is not such a
    reply.
    """
    header = decode_header(message)
    if header.type != OFPT_MULTIPART_REPLY:
        raise CodecError(f"message type {header.type} is not a multipart reply", 1)
    if len(message) < BODY_OFFSET:
        raise CodecError("multipart reply is cut short", HEADER.size)
    return message[8] << 8 | message[9]


def multipart_more(message: bytes) -> bool:
    """Whether more replies follow to the same request. Raises CodecError."""
    multipart_kind(message)
    return bool((message[10] << 8 | message[11]) & OFPMPF_REPLY_MORE)


def multipart_body(message: bytes) -> bytes:
    """What a multipart reply carries behind its two headers. Raises CodecError."""
    multipart_kind(message)
    return message[BODY_OFFSET:]


class GroupCounters(NamedTuple):
    """Counters of one group; ``buckets`` has (packets, bytes) in the group's order, ``references`` counts
    flows.
    """

    group_id: int
    references: int
    packets: int
    bytes: int
    duration: float
    buckets: tuple[tuple[int, int], ...]


def decode_group_stats(body: bytes) -> Iterator[GroupCounters]:
    """The body of a group statistics reply (section 7.3.5.9). ``duration`` is in seconds. Raises
    CodecError.
    """
    position, end = 0, len(body)
    while position < end:
        if end - position < _GROUP_STATS.size:
            raise CodecError("group counters are cut short", position)
        length, group_id, references, packets, octets, seconds, nanoseconds = _GROUP_STATS.unpack_from(
            body, position
        )
        if length < _GROUP_STATS.size or length % 8 or position + length > end:
            raise CodecError(f"group counters say {length} bytes, {end - position} are left", position)
        if (length - _GROUP_STATS.size) % _BUCKET_COUNTER.size:
            raise CodecError("bucket counters are cut short", position)
        buckets = tuple(_BUCKET_COUNTER.iter_unpack(body[position + _GROUP_STATS.size : position + length]))
        yield GroupCounters(group_id, references, packets, octets, seconds + nanoseconds / 1e9, buckets)
        position += length
