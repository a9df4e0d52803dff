# SPDX-License-Identifier: Apache-2.0
"""Being told by a switch that its flows or groups are others than before, without asking again and again.

Flows: a flow monitor over all tables (OpenFlow 1.5.1, section 7.3.5.19). Groups: Open vSwitch has no monitor of them,
but forwards each change of a group to whoever wants to hear of it (OFPT_REQUESTFORWARD, section 7.4.6). A management
connection gets such messages only after it has set a length for packets that it never gets (``miss_send_len``), and
must then say of which kinds it wants none (section 7.3.10).

What Open vSwitch 3.1 does: changes by a bundle are told like single ones, and before the answer to whatever was asked
after them. Who does not read is told nothing more for a while (the monitor is *paused*), so that nothing piles up.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.message import decode_header
from sdn.openflow.multipart import BODY_OFFSET, multipart_kind, multipart_request
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPG_ANY,
    OFPMP_FLOW_MONITOR,
    OFPT_MULTIPART_REPLY,
    OFPT_REQUESTFORWARD,
    OFPT_SET_ASYNC,
    OFPT_SET_CONFIG,
    OFPTT_ALL,
)
from sdn.pipeline.fields import OFPP_ANY

_CONFIG: Final = struct.Struct("!HH")
_ASYNC: Final = struct.Struct("!HHI")
#: Packet-in, port, flow removed, role, table, then the forwarded requests; each for a slave and for others.
_ASYNC_KINDS: Final = range(12)
_PORT_STATUS: Final = (2, 3)
_FORWARDED: Final = (10, 11)
_GROUP_CHANGES: Final = 1
#: A port is there, is there no more, is another.
_PORT_REASONS: Final = 1 | 2 | 4

_MONITOR: Final = struct.Struct("!IIIHBB")
_MATCH_ALL: Final = struct.pack("!HH4x", 1, 4)
#: Added, removed, changed; nothing of what is there already, and no instructions.
_EVENTS: Final = 2 | 4 | 8

_UPDATE: Final = struct.Struct("!HH")
_TIMEOUTS: Final = struct.Struct("!2xHH")
_ADDED, _MODIFIED = 1, 3


def notice_requests(xid: int) -> bytes:
    """Ask to be told of every change of flows and groups from now on. Answered by an empty multipart reply."""
    monitor = _MONITOR.pack(1, OFPP_ANY, OFPG_ANY, _EVENTS, OFPTT_ALL, 0) + _MATCH_ALL
    wanted = dict.fromkeys(_FORWARDED, _GROUP_CHANGES)
    return _only(wanted, xid) + multipart_request(OFPMP_FLOW_MONITOR, monitor, xid)


def port_notice_requests(xid: int) -> bytes:
    """Ask to be told of every change of ports from now on, and of nothing else. Not answered."""
    return _only(dict.fromkeys(_PORT_STATUS, _PORT_REASONS), xid)


def _only(wanted: Mapping[int, int], xid: int) -> bytes:
    """Let a management connection have asynchronous messages of these kinds, for these reasons (bits)."""
    config = HEADER.pack(OFP_VERSION, OFPT_SET_CONFIG, HEADER.size + _CONFIG.size, xid) + _CONFIG.pack(0, 1)
    kinds = b"".join(_ASYNC.pack(kind, _ASYNC.size, wanted.get(kind, 0)) for kind in _ASYNC_KINDS)
    return config + HEADER.pack(OFP_VERSION, OFPT_SET_ASYNC, HEADER.size + len(kinds), xid) + kinds


def is_notice(message: bytes) -> bool:
    """Whether a message tells of a change. Raises CodecError."""
    kind = decode_header(message).type
    if kind == OFPT_MULTIPART_REPLY:
        return multipart_kind(message) == OFPMP_FLOW_MONITOR
    return kind == OFPT_REQUESTFORWARD


def tells_change(message: bytes) -> bool:
    """Whether a notice tells of more than flows that end by themselves, which the switch makes of what it learns: a
    flow without time-outs, a group, or that not everything is told. Raises CodecError.
    """
    if decode_header(message).type == OFPT_REQUESTFORWARD:
        return True
    position, end = BODY_OFFSET, len(message)
    while position < end:
        if end - position < _UPDATE.size:
            raise CodecError("flow update is cut short", position)
        length, event = _UPDATE.unpack_from(message, position)
        if length < 8 or position + length > end:
            raise CodecError(f"flow update says {length} bytes, {end - position} are left", position)
        if not _ADDED <= event <= _MODIFIED or length < 16:
            return True
        if not any(_TIMEOUTS.unpack_from(message, position + _UPDATE.size)):
            return True
        position += length
    return False
