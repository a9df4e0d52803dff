# SPDX-License-Identifier: Apache-2.0
"""How a switch tells what others change (OpenFlow 1.5.1, sections 7.3.5.19, 7.3.10 and 7.4.7): flows by a flow monitor,
groups by forwarded requests.

What Open vSwitch 3.1 does with that (tests/switch/test_codec_monitor.py holds it):

- Updates of flows come as multipart replies with transaction id 0, whatever the request had, each as soon as a flow
  has changed; the answer to the request itself is empty unless it asked for the flows that there are.
- What the connection that has the monitor changes itself is told in one update "abbreviated", which says nothing but a
  transaction id: one a bundle, however many flows are in it. What anybody else changes is told whole: an ADD over
  an entry that is there is ADDED again, a changed one MODIFIED, a deleted one REMOVED with the reason (deleted with the
  group that it used: GROUP_DELETE), each with what the flow is now, or was; of time-outs and cookie all, of flags and
  importance nothing.
- What the switch learns by itself is told as anybody else's. 100,000 flows that another one adds are 100,000 messages.
- When the connection does not take them as fast as they come, the switch says PAUSED, keeps what has changed since,
  tells it when there is room, and then RESUMED. Meanwhile the connection's own changes are not told apart.
- A monitor ends with its connection, or when asked for, by a slave, too. Never ask for a second one with the same
  number: the refusal's bytes, its transaction id among them, are read from memory that the switch has freed.
- Group requests of others are forwarded (type 32) as they came, once the switch has done them; nothing about one's own.
  There is no request for that, but a setting of the connection, by role.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sdn.openflow.errors import CodecError
from sdn.openflow.multipart import multipart_kind, multipart_request
from sdn.openflow.oxm import encode_match
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPG_ANY,
    OFPMP_FLOW_MONITOR,
    OFPT_SET_ASYNC,
    OFPTT_ALL,
    padded,
)
from sdn.pipeline.fields import OFPP_ANY
from sdn.pipeline.match import Match

OFPFMC_ADD: Final = 0
OFPFMC_DELETE: Final = 2
OFPFMF_ADD: Final = 0x02
OFPFMF_REMOVED: Final = 0x04
OFPFMF_MODIFY: Final = 0x08
OFPFMF_INSTRUCTIONS: Final = 0x10

#: To whoever is the master, of all group changes and of none.
_OFPACPT_REQUESTFORWARD_MASTER: Final = 11
_GROUP_MODS: Final = 1 << 0

_REQUEST: Final = struct.Struct("!IIIHBB")
_PROPERTY: Final = struct.Struct("!HHI")
#: length, event, table, reason, idle, hard, priority, zeros, cookie; then match and instructions.
_FULL: Final = struct.Struct("!HHBBHHH4xQ")
_LENGTHS: Final = struct.Struct("!HH")


class FlowEvent(enum.IntEnum):
    """What has happened to a flow, or to the monitor."""

    INITIAL = 0
    ADDED = 1
    REMOVED = 2
    MODIFIED = 3
    #: The connection itself has changed something.
    ABBREVIATED = 4
    PAUSED = 5
    RESUMED = 6


#: Reasons for REMOVED (section 7.4.2): the flow's time was over, the group that it used was deleted.
OFPRR_IDLE_TIMEOUT: Final = 0
OFPRR_HARD_TIMEOUT: Final = 1
OFPRR_GROUP_DELETE: Final = 3


class FlowUpdate(NamedTuple):
    """What a monitor tells. Of ABBREVIATED, PAUSED and RESUMED only the event counts. ``key`` is that of
    :mod:`sdn.openflow.image`; of the body there is what the switch tells.
    """

    event: int
    reason: int = 0
    key: bytes = b""
    timeouts: bytes = b""
    cookie: bytes = b""
    instructions: bytes = b""

    def body(self) -> bytes:
        """The flow's body, as far as it is told: without flags and importance."""
        return self.timeouts + bytes(4) + self.cookie + self.instructions

    def is_body(self, body: bytes) -> bool:
        """Whether the flow has this body, as far as it is told."""
        return body[16:] == self.instructions and body[8:16] == self.cookie and body[:4] == self.timeouts


def flow_monitor_request(xid: int, monitor_id: int) -> bytes:
    """Ask to be told of each change of a flow that others make, in any table."""
    flags = OFPFMF_ADD | OFPFMF_REMOVED | OFPFMF_MODIFY | OFPFMF_INSTRUCTIONS
    return _monitor(xid, monitor_id, flags, OFPFMC_ADD)


def flow_monitor_end(xid: int, monitor_id: int) -> bytes:
    """Ask to be told no more."""
    return _monitor(xid, monitor_id, 0, OFPFMC_DELETE)


def _monitor(xid: int, monitor_id: int, flags: int, command: int) -> bytes:
    head = _REQUEST.pack(monitor_id, OFPP_ANY, OFPG_ANY, flags, OFPTT_ALL, command)
    return multipart_request(OFPMP_FLOW_MONITOR, head + encode_match(Match()), xid)


def forward_group_changes(xid: int, wanted: bool) -> bytes:
    """Ask to be told of each change of a group that others make, while this is the master's connection. No answer."""
    body = _PROPERTY.pack(_OFPACPT_REQUESTFORWARD_MASTER, _PROPERTY.size, _GROUP_MODS if wanted else 0)
    return HEADER.pack(OFP_VERSION, OFPT_SET_ASYNC, HEADER.size + len(body), xid) + body


def is_flow_monitor(message: bytes) -> bool:
    """Whether a multipart reply is one of a flow monitor. Raises CodecError."""
    return multipart_kind(message) == OFPMP_FLOW_MONITOR


def split_flow_updates(body: bytes) -> Iterator[FlowUpdate]:
    """What the body of a flow monitor's reply tells. Raises CodecError."""
    position, end = 0, len(body)
    while position < end:
        if end - position < _LENGTHS.size:
            raise CodecError("flow update is cut short", position)
        length, event = _LENGTHS.unpack_from(body, position)
        if length < 8 or length % 8 or position + length > end:
            raise CodecError(f"flow update says {length} bytes, {end - position} are left", position)
        if event > FlowEvent.RESUMED:
            raise CodecError(f"unknown flow update {event}", position + 2)
        if event < FlowEvent.ABBREVIATED:
            yield _full(body, position, position + length)
        else:
            yield FlowUpdate(event)
        position += length


def _full(body: bytes, start: int, end: int) -> FlowUpdate:
    match = start + _FULL.size
    if match + 8 > end:
        raise CodecError("flow update is cut short", start)
    match_length = body[match + 2] << 8 | body[match + 3]
    instructions = match + padded(match_length)
    if match_length < 4 or instructions > end:
        raise CodecError(f"match says {match_length} bytes in a flow update of {end - start}", match)
    return FlowUpdate(
        body[start + 2] << 8 | body[start + 3],
        body[start + 5],
        body[start + 4 : start + 5] + b"\0" + body[start + 10 : start + 12] + body[match:instructions],
        body[start + 6 : start + 10],
        body[start + 16 : start + 24],
        body[instructions:end],
    )
