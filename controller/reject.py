# SPDX-License-Identifier: Apache-2.0
"""The answer to a packet that nobody serves: a TCP reset, an SCTP abort, or an ICMP port unreachable.

A frame goes in, the frame for its sender comes out, as the host that was asked for would have sent it: its
address is the answer's source. Nothing here does I/O, and nothing is raised for whatever bytes come in: they
are written by pods. For the same reason the few headers are read here and not by os-ken's packet library,
whose parsers can be made to loop by options of length zero; tests hold the answers against that library.

Never answered (RFC 1122, 3.2.2; RFC 4443, 2.4; RFC 9293, 3.5.2; RFC 9260, 8.4): what is itself a reset, an
abort or ICMP; what comes from or goes to anything but one host; fragments after the first.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_ETHERNET: Final = 14
_IPV4_TYPE, _IPV6_TYPE = b"\x08\x00", b"\x86\xdd"
_TCP, _UDP, _ICMPV6, _SCTP, _ICMP = 6, 17, 58, 132, 1
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
#: Hop-by-hop options, routing, destination options: next header and length come first in each (RFC 8200, 4).
_IPV6_OPTIONS: Final = frozenset({0, 43, 60})
_IPV6_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8


class _Datagram(NamedTuple):
    """An IP datagram, as far as it matters: ``whole`` is all of it, ``payload`` what its protocol carries."""

    version: int
    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    whole: bytes
    #: It is the first of several fragments.
    fragmented: bool


def reject(frame: bytes) -> bytes | None:
    """The Ethernet frame that tells the sender of ``frame`` that nobody serves what it asks for, or None."""
    if len(frame) < _ETHERNET or (frame[0] | frame[6]) & 1:
        return None
    kind = frame[12:14]
    if kind == _IPV4_TYPE:
        datagram = _ipv4(frame[_ETHERNET:])
    elif kind == _IPV6_TYPE:
        datagram = _ipv6(frame[_ETHERNET:])
    else:
        return None
    answer = None if datagram is None else _answer(datagram)
    return None if answer is None else frame[6:12] + frame[0:6] + kind + answer


def _ipv4(data: bytes) -> _Datagram | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    header = (data[0] & 15) * 4
    total, fragment = data[2] << 8 | data[3], data[6] << 8 | data[7]
    if header < 20 or not header <= total <= len(data) or fragment & 0x1FFF:
        return None
    source, destination = data[12:16], data[16:20]
    if not (_is_ipv4_host(source) and _is_ipv4_host(destination)):
        return None
    more = bool(fragment & 0x2000)
    return _Datagram(4, source, destination, data[9], data[header:total], data[:total], more)


def _is_ipv4_host(address: bytes) -> bool:
    """Not "this network", loopback, multicast, reserved or broadcast (RFC 1122, 3.2.1.3)."""
    return address[0] not in (0, 127) and address[0] < 224


def _ipv6(data: bytes) -> _Datagram | None:
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    end = 40 + (data[4] << 8 | data[5])
    if end > len(data):
        return None
    source, destination = data[8:24], data[24:40]
    if not (_is_ipv6_host(source) and _is_ipv6_host(destination)):
        return None
    protocol, position, more = data[6], 40, False
    for _ in range(_MOST_EXTENSIONS):
        if position + 8 > end:
            break
        if protocol in _IPV6_OPTIONS:
            protocol, position = data[position], position + 8 + data[position + 1] * 8
        elif protocol == _IPV6_FRAGMENT:
            offset_flags = data[position + 2] << 8 | data[position + 3]
            if offset_flags >> 3:
                return None
            more = more or bool(offset_flags & 1)
            protocol, position = data[position], position + 8
        else:
            break
    return _Datagram(6, source, destination, protocol, data[position:end], data[:end], more)


def _is_ipv6_host(address: bytes) -> bool:
    """Not multicast, unspecified or loopback (RFC 4291, 2.4)."""
    return address[0] != 0xFF and int.from_bytes(address, "big") > 1


def _answer(asked: _Datagram) -> bytes | None:
    if asked.protocol == _TCP:
        segment = _reset(asked)
        return None if segment is None else _datagram(asked, _TCP, segment)
    if asked.protocol == _SCTP:
        packet = _abort(asked.payload)
        return None if packet is None else _datagram(asked, _SCTP, packet)
    if asked.protocol == _UDP and len(asked.payload) >= 8:
        return _unreachable(asked)
    return None


def _reset(asked: _Datagram) -> bytes | None:
    """A reset as RFC 9293, 3.5.2 has it for a connection that does not exist (group 1)."""
    segment = asked.payload
    if len(segment) < _TCP_HEADER.size or asked.fragmented:
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
    checksum = _checksum(_pseudo_header(asked, _TCP, len(reset)) + reset)
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


def _unreachable(asked: _Datagram) -> bytes:
    """Destination unreachable, port unreachable (RFC 792; RFC 4443, 3.1), with as much of the datagram as
    may be quoted.
    """
    if asked.version == 4:
        error = struct.pack("!BBHI", 3, 3, 0, 0) + asked.whole[: _LONGEST_ICMP - 28]
        return _datagram(asked, _ICMP, error[:2] + _checksum(error) + error[4:])
    error = struct.pack("!BBHI", 1, 4, 0, 0) + asked.whole[: _LONGEST_ICMPV6 - 48]
    checksum = _checksum(_pseudo_header(asked, _ICMPV6, len(error)) + error)
    return _datagram(asked, _ICMPV6, error[:2] + checksum + error[4:])


def _datagram(asked: _Datagram, protocol: int, payload: bytes) -> bytes:
    """``payload`` on its way back from where the datagram was to go."""
    source, destination = asked.destination, asked.source
    if asked.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, _HOP_LIMIT)
        return header + source + destination + payload
    header = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 0, _DONT_FRAGMENT, _HOP_LIMIT, protocol)
    addresses = source + destination
    return header + _checksum(header + addresses) + addresses + payload


def _pseudo_header(asked: _Datagram, protocol: int, length: int) -> bytes:
    """What the checksum of the answer covers besides itself (RFC 9293, 3.1; RFC 8200, 8.1)."""
    if asked.version == 4:
        tail = struct.pack("!BBH", 0, protocol, length)
    else:
        tail = struct.pack("!I3xB", length, protocol)
    return asked.destination + asked.source + tail


def _checksum(data: bytes) -> bytes:
    """The internet checksum (RFC 1071). A number modulo 65,535 is the one's complement sum of its 16-bit
    digits.
    """
    total = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    folded = total % 0xFFFF or (0xFFFF if total else 0)
    return (0xFFFF - folded).to_bytes(2, "big")


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
