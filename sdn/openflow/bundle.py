# SPDX-License-Identifier: Apache-2.0
"""Bundles: many messages that take effect together or not at all (OpenFlow 1.5, section 7.3.9).

A bundle is sent in two strokes. First :func:`bundle`: open, every message, close; all pipelined. Then, only
when the close was answered and no error came before it, :func:`bundle_commit`; else :func:`bundle_discard`.
The pause matters: when Open vSwitch refuses one message while it is being added, the bundle lives on
without it, and a commit sent blindly would apply the rest.

Atomic means that no packet sees half of it, ordered that messages take effect in the order given.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.message import decode_header
from sdn.openflow.wire import MAX_MESSAGE, OFP_VERSION, OFPT_BUNDLE_ADD_MESSAGE, OFPT_BUNDLE_CONTROL

ATOMIC: Final = 1
ORDERED: Final = 2
_FLAGS: Final = ATOMIC | ORDERED

_CONTROL: Final = struct.Struct("!BBHIIHH")
_ADD: Final = struct.Struct("!BBHII2xH")
_XID: Final = struct.Struct("!I")
#: Bytes handed out at a time: large enough that system calls do not count, small enough to keep memory flat.
_CHUNK: Final = 1 << 18
_XIDS: Final = 0xFFFFFFFF


class BundleControl(enum.IntEnum):
    """Types of a bundle control message."""

    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


@dataclass(frozen=True, slots=True)
class BundleReply:
    """The switch's answer to one control message; ``xid`` is that of the request."""

    xid: int
    bundle_id: int
    type: BundleControl


def bundle(bundle_id: int, messages: Iterable[bytes], first_xid: int) -> Iterator[bytes]:
    """Open a bundle, add ``messages`` and close it: chunks of bytes to send one after the other.

    The open request gets ``first_xid``, the close request ``first_xid + 1``, the messages ``first_xid + 2``
    and following in their order (modulo 2**32), so that an error's xid says which message was refused.
    Raises CodecError when a message is too long to be wrapped.
    """
    buffer = bytearray(_control(bundle_id, BundleControl.OPEN_REQUEST, first_xid))
    xid = first_xid + 1
    for message in messages:
        xid = xid + 1 & _XIDS
        length = len(message) + _ADD.size
        if length > MAX_MESSAGE:
            raise CodecError(f"a message of {len(message)} bytes does not fit into a bundle")
        buffer += _ADD.pack(OFP_VERSION, OFPT_BUNDLE_ADD_MESSAGE, length, xid, bundle_id, _FLAGS)
        buffer += message[:4]
        # The switch refuses a message whose own xid is not the wrapper's.
        buffer += _XID.pack(xid)
        buffer += message[8:]
        if len(buffer) >= _CHUNK:
            yield bytes(buffer)
            buffer.clear()
    buffer += _control(bundle_id, BundleControl.CLOSE_REQUEST, first_xid + 1)
    yield bytes(buffer)


def bundle_commit(bundle_id: int, xid: int) -> bytes:
    """Let a closed bundle take effect."""
    return _control(bundle_id, BundleControl.COMMIT_REQUEST, xid)


def bundle_discard(bundle_id: int, xid: int) -> bytes:
    """Throw a bundle away."""
    return _control(bundle_id, BundleControl.DISCARD_REQUEST, xid)


def _control(bundle_id: int, kind: BundleControl, xid: int) -> bytes:
    return _CONTROL.pack(
        OFP_VERSION, OFPT_BUNDLE_CONTROL, _CONTROL.size, xid & _XIDS, bundle_id, kind, _FLAGS
    )


def decode_bundle_reply(message: bytes) -> BundleReply:
    """A bundle control message of the switch, header included. Raises CodecError."""
    header = decode_header(message)
    if header.type != OFPT_BUNDLE_CONTROL:
        raise CodecError(f"message type {header.type} is not bundle control", 1)
    if len(message) < _CONTROL.size:
        raise CodecError("bundle control message is cut short", 8)
    bundle_id, kind = struct.unpack_from("!IH", message, 8)
    try:
        return BundleReply(header.xid, bundle_id, BundleControl(kind))
    except ValueError:
        raise CodecError(f"unknown bundle control type {kind}", 12) from None
