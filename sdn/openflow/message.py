# SPDX-License-Identifier: Apache-2.0
"""What all messages share: the header, the barrier, errors, and cutting a byte stream into messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sdn.openflow.errors import CodecError
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPBAC_BAD_OUT_GROUP,
    OFPET_BAD_ACTION,
    OFPT_BARRIER_REQUEST,
    OFPT_ERROR,
)


class Header(NamedTuple):
    """The eight bytes that begin every message (OpenFlow 1.5, section 7.1.1). ``length`` counts them too."""

    version: int
    type: int
    length: int
    xid: int


def decode_header(message: bytes) -> Header:
    """The header of one whole message. Raises CodecError when its length is not the message's."""
    if len(message) < HEADER.size:
        raise CodecError(f"a message of {len(message)} bytes has no header", 0)
    header = Header(*HEADER.unpack_from(message))
    if header.length != len(message):
        raise CodecError(f"header says {header.length} bytes, the message has {len(message)}", 2)
    return header


def barrier_request(xid: int) -> bytes:
    """Asks the switch to finish what came before and then say so (section 7.3.7)."""
    return HEADER.pack(OFP_VERSION, OFPT_BARRIER_REQUEST, HEADER.size, xid)


#: Names of the errors that flow, group, bundle and role messages bring (section 7.5.4), for people.
_ERROR_TYPES: Final = {
    0: "HELLO_FAILED",
    1: "BAD_REQUEST",
    2: "BAD_ACTION",
    3: "BAD_INSTRUCTION",
    4: "BAD_MATCH",
    5: "FLOW_MOD_FAILED",
    6: "GROUP_MOD_FAILED",
    11: "ROLE_REQUEST_FAILED",
    17: "BUNDLE_FAILED",
    0xFFFF: "EXPERIMENTER",
}
_ERROR_CODES: Final = {
    (1, 5): "EPERM",
    (1, 6): "BAD_LEN",
    (1, 10): "IS_SLAVE",
    (2, 0): "BAD_TYPE",
    (2, 1): "BAD_LEN",
    (2, 4): "BAD_OUT_PORT",
    (2, 5): "BAD_ARGUMENT",
    (2, 9): "BAD_OUT_GROUP",
    (2, 10): "MATCH_INCONSISTENT",
    (2, 13): "BAD_SET_TYPE",
    (2, 14): "BAD_SET_LEN",
    (2, 15): "BAD_SET_ARGUMENT",
    (2, 16): "BAD_SET_MASK",
    (3, 2): "BAD_TABLE_ID",
    (4, 1): "BAD_LEN",
    (4, 6): "BAD_FIELD",
    (4, 7): "BAD_VALUE",
    (4, 8): "BAD_MASK",
    (4, 9): "BAD_PREREQ",
    (4, 10): "DUP_FIELD",
    (4, 11): "EPERM",
    (5, 1): "TABLE_FULL",
    (5, 2): "BAD_TABLE_ID",
    (5, 4): "EPERM",
    (6, 0): "GROUP_EXISTS",
    (6, 1): "INVALID_GROUP",
    (6, 3): "OUT_OF_GROUPS",
    (6, 7): "LOOP",
    (6, 8): "UNKNOWN_GROUP",
    (6, 12): "BAD_BUCKET",
    (6, 15): "UNKNOWN_BUCKET",
    (6, 16): "BUCKET_EXISTS",
    (11, 0): "STALE",
    (11, 1): "UNSUP",
    (11, 2): "BAD_ROLE",
    (11, 3): "ID_UNSUP",
    (11, 4): "ID_IN_USE",
    (17, 2): "BAD_ID",
    (17, 3): "BUNDLE_EXIST",
    (17, 4): "BUNDLE_CLOSED",
    (17, 8): "MSG_BAD_LEN",
    (17, 9): "MSG_BAD_XID",
    (17, 10): "MSG_UNSUP",
    (17, 13): "MSG_FAILED",
    (17, 14): "TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """What a switch refused. ``xid`` is that of the refused message, ``data`` begins with that message,
    maybe cut short.
    """

    type: int
    code: int
    xid: int
    data: bytes

    def __str__(self) -> str:
        kind = _ERROR_TYPES.get(self.type, str(self.type))
        return f"{kind}/{_ERROR_CODES.get((self.type, self.code), self.code)} for message {self.xid:#x}"


def decode_error(message: bytes) -> ErrorMessage:
    """An ``ofp_error_msg``, header included. Raises CodecError."""
    header = decode_header(message)
    if header.type != OFPT_ERROR:
        raise CodecError(f"message type {header.type} is not an error", 1)
    if len(message) < 12:
        raise CodecError("error message is cut short", 8)
    kind, code = struct.unpack_from("!HH", message, 8)
    return ErrorMessage(kind, code, header.xid, message[12:])


class Framer:
    """Cuts what a connection receives into whole messages.

    One owner, one thread. What is left over waits in pieces and is joined once, when enough has come for a
    message, so the cost is that of the bytes, in whatever sizes they arrive.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = HEADER.size

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that ``data`` completes. Raises CodecError when a header cannot be one; the stream
        is lost then.
        """
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return
        data = b"".join(self._pieces)
        position, end = 0, len(data)
        needed = HEADER.size
        while end - position >= HEADER.size:
            length = data[position + 2] << 8 | data[position + 3]
            if length < HEADER.size:
                raise CodecError(f"header says {length} bytes", position)
            if end - position < length:
                needed = length
                break
            yield data[position : position + length]
            position += length
        self._pieces = [data[position:]]
        self._held = end - position
        self._needed = needed


def wants_group(error: ErrorMessage) -> bool:
    """Whether a flow was refused since it uses a group that is not there."""
    return (error.type, error.code) == (OFPET_BAD_ACTION, OFPBAC_BAD_OUT_GROUP)
