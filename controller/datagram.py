# SPDX-License-Identifier: Apache-2.0
"""IP datagrams as bytes: what is read of those that switches hand over, and the checksum of those that are made.

The bytes are written by pods, so nothing is raised for whatever they are, and nothing loops. For the same reason the
few headers are read here and not by os-ken's packet library, whose parsers can be made to loop by options of length
zero.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ETHERNET: Final = 14
IPV4_TYPE, IPV6_TYPE = b"\x08\x00", b"\x86\xdd"
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132

_VLAN_TYPES: Final = (b"\x81\x00", b"\x88\xa8")
_MOST_VLANS: Final = 2
#: Hop-by-hop options, routing, destination options: next header and length come first in each (RFC 8200, 4).
_IPV6_OPTIONS: Final = frozenset({0, 43, 60})
_IPV6_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8


class Datagram(NamedTuple):
    """An IP datagram, as far as it matters: ``whole`` is all of it, ``payload`` what its protocol carries."""

    version: int
    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    whole: bytes
    #: It is a fragment, and others follow.
    more: bool
    #: It is a fragment, not the first: the payload has no header.
    later: bool
    #: Its end is missing.
    cut: bool

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port, 0 where there is none."""
        if self.protocol not in (TCP, UDP, SCTP) or self.later or len(self.payload) < 4:
            return 0, 0
        return int.from_bytes(self.payload[:2], "big"), int.from_bytes(self.payload[2:4], "big")


def of_frame(frame: bytes) -> Datagram | None:
    """The datagram in an Ethernet frame, with VLAN tags or without; None: there is none."""
    position = ETHERNET - 2
    for _ in range(_MOST_VLANS):
        if frame[position : position + 2] in _VLAN_TYPES:
            position += 4
    kind, data = frame[position : position + 2], frame[position + 2 :]
    if kind == IPV4_TYPE:
        return _ipv4(data)
    return _ipv6(data) if kind == IPV6_TYPE else None


def _ipv4(data: bytes) -> Datagram | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    header = (data[0] & 15) * 4
    total, fragment = data[2] << 8 | data[3], data[6] << 8 | data[7]
    if header < 20 or total < header:
        return None
    return Datagram(
        version=4,
        source=data[12:16],
        destination=data[16:20],
        protocol=data[9],
        payload=data[header:total],
        whole=data[:total],
        more=bool(fragment & 0x2000),
        later=bool(fragment & 0x1FFF),
        cut=total > len(data),
    )


def _ipv6(data: bytes) -> Datagram | None:
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    total = 40 + (data[4] << 8 | data[5])
    end = min(total, len(data))
    protocol, position, more, later = data[6], 40, False, False
    for _ in range(_MOST_EXTENSIONS):
        if position + 8 > end or later:
            break
        if protocol in _IPV6_OPTIONS:
            protocol, position = data[position], position + 8 + data[position + 1] * 8
        elif protocol == _IPV6_FRAGMENT:
            offset_flags = data[position + 2] << 8 | data[position + 3]
            later = bool(offset_flags >> 3)
            more = more or bool(offset_flags & 1)
            protocol, position = data[position], position + 8
        else:
            break
    return Datagram(
        version=6,
        source=data[8:24],
        destination=data[24:40],
        protocol=protocol,
        payload=data[position:end],
        whole=data[:total],
        more=more,
        later=later,
        cut=total > len(data),
    )


def internet_checksum(data: bytes) -> bytes:
    """The internet checksum (RFC 1071). A number modulo 65,535 is the one's complement sum of its 16-bit
    digits.
    """
    total = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    folded = total % 0xFFFF or (0xFFFF if total else 0)
    return (0xFFFF - folded).to_bytes(2, "big")
