# SPDX-License-Identifier: Apache-2.0
"""The answer to a packet that nobody serves: a TCP reset, an SCTP abort, or an ICMP port unreachable.

A frame goes in, the frame for its sender comes out, as the host that was asked for would have sent it: its
address is the answer's source. Nothing here does I/O, and nothing is raised for whatever bytes come in: they
are written by pods. Tests hold the answers against os-ken's packet library.

Never answered (RFC 1122, 3.2.2; RFC 4443, 2.4; RFC 9293, 3.5.2; RFC 9260, 8.4): what is itself a reset, an
abort or ICMP; what comes from or goes to anything but one host; fragments after the first.
"""

from __future__ import annotations

import struct
from typing import Final

from controller.datagram import (
    ETHERNET,
    ICMP,
    ICMPV6,
    IPV4_TYPE,
    IPV6_TYPE,
    SCTP,
    TCP,
    UDP,
    Datagram,
    internet_checksum,
    of_frame,
)

_HOP_LIMIT: Final = 64
_DONT_FRAGMENT: Final = 0x4000

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_TCP_HEADER: Final = struct.Struct("!HHIIBBHHH")

_SCTP_HEADER: Final = struct.Struct("!HHI4s")
_SCTP_INIT, _SCTP_ABORT, _SCTP_SHUTDOWN_COMPLETE = 1, 6, 14
#: The receiver's tag is reflected, since no association exists (RFC 9260, 3.3.7).
_TAG_REFLECTED: Final = 1

#: Longest ICMP error: 576 bytes for IPv4 (RFC 1812, 4.3.2.3), the smallest MTU for IPv6 (RFC 4443, 2.4 c).
_LONGEST_ICMP: Final = 576
_LONGEST_ICMPV6: Final = 1280


def reject(frame: bytes) -> bytes | None:
    """The Ethernet frame that tells the sender of ``frame`` that nobody serves what it asks for, or None."""
    kind = frame[12:14]
    if len(frame) < ETHERNET or (frame[0] | frame[6]) & 1 or kind not in (IPV4_TYPE, IPV6_TYPE):
        return None
    datagram = of_frame(frame)
    if datagram is None or datagram.cut or datagram.later:
        return None
    is_host = _is_ipv4_host if datagram.version == 4 else _is_ipv6_host
    if not (is_host(datagram.source) and is_host(datagram.destination)):
        return None
    answer = _answer(datagram)
    return None if answer is None else frame[6:12] + frame[0:6] + kind + answer


def _is_ipv4_host(address: bytes) -> bool:
    """Not "this network", loopback, multicast, reserved or broadcast (RFC 1122, 3.2.1.3)."""
    return address[0] not in (0, 127) and address[0] < 224


def _is_ipv6_host(address: bytes) -> bool:
    """Not multicast, unspecified or loopback (RFC 4291, 2.4)."""
    return address[0] != 0xFF and int.from_bytes(address, "big") > 1


def _answer(asked: Datagram) -> bytes | None:
    if asked.protocol == TCP:
        segment = _reset(asked)
        return None if segment is None else _datagram(asked, TCP, segment)
    if asked.protocol == SCTP:
        packet = _abort(asked.payload)
        return None if packet is None else _datagram(asked, SCTP, packet)
    if asked.protocol == UDP and len(asked.payload) >= 8:
        return _unreachable(asked)
    return None


def _reset(asked: Datagram) -> bytes | None:
    """A reset as RFC 9293, 3.5.2 has it for a connection that does not exist (group 1)."""
    segment = asked.payload
    if len(segment) < _TCP_HEADER.size or asked.more:
        return None
    source, destination, sequence, acknowledged, offset, flags, _, _, _ = _TCP_HEADER.unpack_from(segment)
    header = (offset >> 4) * 4
    if flags & _RST or not _TCP_HEADER.size <= header <= len(segment):
        return None
    if flags & _ACK:
        numbers, answer = (acknowledged, 0), _RST
    else:
        length = len(segment) - header + bool(flags & _SYN) + bool(flags & _FIN)
        numbers, answer = (0, sequence + length & 0xFFFFFFFF), _RST | _ACK
    reset = _TCP_HEADER.pack(destination, source, *numbers, 5 << 4, answer, 0, 0, 0)
    checksum = internet_checksum(_pseudo_header(asked, TCP, len(reset)) + reset)
    return reset[:16] + checksum + reset[18:]


def _abort(packet: bytes) -> bytes | None:
    """An abort for a packet "out of the blue" (RFC 9260, 8.4)."""
    if len(packet) < _SCTP_HEADER.size + 4:
        return None
    source, destination, tag, _ = _SCTP_HEADER.unpack_from(packet)
    flags = _TAG_REFLECTED
    if packet[12] == _SCTP_INIT:
        if len(packet) < 20:
            return None
        flags, tag = 0, int.from_bytes(packet[16:20], "big")
    position = _SCTP_HEADER.size
    while position + 4 <= len(packet):
        length = packet[position + 2] << 8 | packet[position + 3]
        if length < 4 or packet[position] in (_SCTP_ABORT, _SCTP_SHUTDOWN_COMPLETE):
            return None
        position += length + 3 & ~3
    abort = bytes((_SCTP_ABORT, flags, 0, 4))
    checksum = _crc32c(_SCTP_HEADER.pack(destination, source, tag, bytes(4)) + abort)
    return _SCTP_HEADER.pack(destination, source, tag, checksum) + abort


def _unreachable(asked: Datagram) -> bytes:
    """Destination unreachable, port unreachable (RFC 792; RFC 4443, 3.1), with as much of the datagram as
    may be quoted.
    """
    if asked.version == 4:
        error = struct.pack("!BBHI", 3, 3, 0, 0) + asked.whole[: _LONGEST_ICMP - 28]
        return _datagram(asked, ICMP, error[:2] + internet_checksum(error) + error[4:])
    error = struct.pack("!BBHI", 1, 4, 0, 0) + asked.whole[: _LONGEST_ICMPV6 - 48]
    checksum = internet_checksum(_pseudo_header(asked, ICMPV6, len(error)) + error)
    return _datagram(asked, ICMPV6, error[:2] + checksum + error[4:])


def _datagram(asked: Datagram, protocol: int, payload: bytes) -> bytes:
    """``payload`` on its way back from where the datagram was to go."""
    source, destination = asked.destination, asked.source
    if asked.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, _HOP_LIMIT)
        return header + source + destination + payload
    header = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 0, _DONT_FRAGMENT, _HOP_LIMIT, protocol)
    addresses = source + destination
    return header + internet_checksum(header + addresses) + addresses + payload


def _pseudo_header(asked: Datagram, protocol: int, length: int) -> bytes:
    """What the checksum of the answer covers besides itself (RFC 9293, 3.1; RFC 8200, 8.1)."""
    if asked.version == 4:
        tail = struct.pack("!BBH", 0, protocol, length)
    else:
        tail = struct.pack("!I3xB", length, protocol)
    return asked.destination + asked.source + tail


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def _crc32c(data: bytes) -> bytes:
    """SCTP's checksum as it goes into the packet (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little")
