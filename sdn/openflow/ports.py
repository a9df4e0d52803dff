# SPDX-License-Identifier: Apache-2.0
"""Ports of a switch: their descriptions, the message that tells of a change, and the one that changes their
configuration (OpenFlow 1.5.1, sections 7.2.1, 7.3.4.3, 7.3.5.6 and 7.4.3).

The *configuration* is what somebody has asked for by OpenFlow, a set of bits; a port that nobody has touched has none.
What Open vSwitch 3.1 does: PORT_DOWN is the kernel interface's own flag, whoever has set it; of the other bits nobody
but OpenFlow knows, and they last as long as the port. All connections that want to know are told of a change at once,
the one that has made it, too.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sdn.openflow.errors import CodecError
from sdn.openflow.message import decode_header
from sdn.openflow.multipart import multipart_request
from sdn.openflow.wire import HEADER, OFP_VERSION, OFPMP_PORT_DESC, OFPT_PORT_MOD, OFPT_PORT_STATUS
from sdn.pipeline.fields import OFPP_ANY

_REQUEST: Final = struct.Struct("!I4x")
#: Number, length, hardware address, name, configuration, state; properties follow.
_PORT: Final = struct.Struct("!IH2x6s2x16sII")
_STATUS: Final = struct.Struct("!B7x")
_MOD: Final = struct.Struct("!I4x6s2xII")


class PortConfig(enum.IntFlag):
    """Bits of a port's configuration, by the names that ``ovs-ofctl`` has for them."""

    DOWN = 1 << 0
    NO_RECEIVE = 1 << 2
    NO_FORWARD = 1 << 5
    NO_PACKET_IN = 1 << 6

    def __str__(self) -> str:
        known = [bit for bit in PortConfig if bit in self]
        names = [(bit.name or "").lower().replace("_", "-") for bit in known]
        rest = self & ~sum(known)
        return ",".join([*names, *([f"{int(rest):#x}"] if rest else [])])


class PortDescription(NamedTuple):
    """A port as the switch describes it."""

    number: int
    hardware_address: bytes
    name: str
    config: PortConfig


def port_desc_request(xid: int) -> bytes:
    """Ask for the descriptions of all ports."""
    return multipart_request(OFPMP_PORT_DESC, _REQUEST.pack(OFPP_ANY), xid)


def decode_port_descs(body: bytes) -> Iterator[PortDescription]:
    """The ports of a reply's body. Raises CodecError."""
    position = 0
    while position < len(body):
        port, length = _decode(body, position)
        yield port
        position += length


def decode_port_status(message: bytes) -> PortDescription | None:
    """The port that a message tells of, as it is now; None: of no port. Raises CodecError."""
    if decode_header(message).type != OFPT_PORT_STATUS:
        return None
    return _decode(message, HEADER.size + _STATUS.size)[0]


def port_mod(port: PortDescription, config: int, mask: int, xid: int) -> bytes:
    """Set the bits of ``mask`` in a port's configuration to those of ``config``. Refused when another port has the
    number now.
    """
    body = _MOD.pack(port.number, port.hardware_address, config, mask)
    return HEADER.pack(OFP_VERSION, OFPT_PORT_MOD, HEADER.size + len(body), xid) + body


def _decode(data: bytes, position: int) -> tuple[PortDescription, int]:
    left = len(data) - position
    if left < _PORT.size:
        raise CodecError("port is cut short", min(position, len(data)))
    number, length, address, name, config, _state = _PORT.unpack_from(data, position)
    if not _PORT.size <= length <= left:
        raise CodecError(f"port says {length} bytes, {left} are left", position + 4)
    text = name.partition(b"\0")[0].decode(errors="replace")
    return PortDescription(number, address, text, PortConfig(config)), length
