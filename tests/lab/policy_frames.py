# SPDX-License-Identifier: Apache-2.0
"""Packets of every kind that could slip through, written byte by byte: what an intruder sends to a pod, and what a pod
sends before anybody allowed it to.

Both use the same ports, mirrored. So what the one sends looks like an answer to what the other one sent before: also to
an earlier pod that had the same address, whose connections somebody may still remember. Each carries a mark that says
who sent it and of which kind it is.
"""

from __future__ import annotations

import ipaddress
import itertools
import struct
from collections.abc import Iterator, Sequence

from sdn.lab.probe import checksum

#: Of the pod under test, and of everybody else.
INSIDE, OUTSIDE = 5000, 6000
_TCP, _UDP, _ICMP, _ICMPV6, _FRAGMENT, _EXPERIMENT = 6, 17, 1, 58, 44, 253
_SYN, _ACK_DATA, _SYN_ACK = 0x02, 0x18, 0x12
_ECHO = {4: (8, 0), 6: (128, 129)}
#: Fragments of one datagram are told from those of others by their number; it wraps. And what is new each time.
_numbers = itertools.count(1)
_PORTS = range(10000, 60000)
KINDS = ("udp", "syn", "syn-ack", "ack", "echo", "echo-reply", "other", "fragments")
"""UDP; TCP beginning, answering, in the middle; ICMP asking, answering; a protocol without ports; a datagram in two."""
LONE = "lone-fragment"
"""The end of a datagram whose begin never comes. A tracker waits for that, and must not let the end pass then."""
#: Bytes of the first of two fragments. Open vSwitch's userspace tracker refuses those shorter than 1,200 bytes.
_FIRST = 1288


def packets(
    source: str, destination: str, here: int, there: int, mark: str, kinds: Sequence[str] = KINDS
) -> Iterator[bytes]:
    """IP packets of these kinds, again and again, from and to these addresses and ports.

    What begins a TCP connection has another source port each time: when one that was refused begins anew on the same
    ports, Open vSwitch 3.1 aborts (userspace datapath, connections with NAT).
    """
    ready = {
        kind: list(_packets(kind, source, destination, here, there, _mark(mark, kind)))
        for kind in kinds
        if kind != "syn"
    }
    while True:
        for kind in kinds:
            if kind == "syn":
                port = _PORTS[next(_numbers) % len(_PORTS)]
                yield from _packets(kind, source, destination, port, there, _mark(mark, kind))
            else:
                yield from ready[kind]


def _mark(mark: str, kind: str) -> bytes:
    return f"{mark}|{kind}|".encode()


def mark_of(frame: bytes, begins: bytes) -> tuple[str, str] | None:
    """(what was marked, kind) of a packet that carries a mark that begins so."""
    place = frame.find(begins + b"|")
    if place < 0:
        return None
    fields = frame[place:].split(b"|", 3)
    return (fields[1].decode(), fields[2].decode()) if len(fields) == 4 else None


def _packets(kind: str, source: str, destination: str, here: int, there: int, mark: bytes) -> Iterator[bytes]:
    version = ipaddress.ip_address(source).version
    if kind == "udp":
        yield _packet(source, destination, _UDP, _udp(source, destination, here, there, mark))
    elif kind in ("syn", "syn-ack", "ack"):
        flags = {"syn": _SYN, "syn-ack": _SYN_ACK, "ack": _ACK_DATA}[kind]
        yield _packet(source, destination, _TCP, _tcp(source, destination, here, there, flags, mark))
    elif kind in ("echo", "echo-reply"):
        protocol = _ICMP if version == 4 else _ICMPV6
        message = struct.pack("!BBHHH", _ECHO[version][kind == "echo-reply"], 0, 0, INSIDE, 1) + mark
        pseudo = b"" if version == 4 else _pseudo(source, destination, protocol, len(message))
        total = checksum(pseudo + message)
        yield _packet(source, destination, protocol, message[:2] + struct.pack("!H", total) + message[4:])
    elif kind == "other":
        yield _packet(source, destination, _EXPERIMENT, mark)
    else:
        # The first part has the ports and one mark, the rest the other mark.
        payload = mark.ljust(_FIRST - 8, b".") + mark.ljust(64, b".")
        datagram = _udp(source, destination, here, there, payload)
        number = next(_numbers)
        if kind != LONE:
            yield _packet(source, destination, _UDP, datagram[:_FIRST], number, 0, more=True)
        yield _packet(source, destination, _UDP, datagram[_FIRST:], number, _FIRST, more=False)


def _pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    here, there = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    return here + there + struct.pack("!HH", protocol, length)


def _udp(source: str, destination: str, here: int, there: int, payload: bytes) -> bytes:
    length = 8 + len(payload)
    header = struct.pack("!HHHH", here, there, length, 0)
    total = checksum(_pseudo(source, destination, _UDP, length) + header + payload) or 0xFFFF
    return struct.pack("!HHHH", here, there, length, total) + payload


def _tcp(source: str, destination: str, here: int, there: int, flags: int, payload: bytes) -> bytes:
    # What begins a connection carries data as well, as TCP Fast Open does (RFC 7413), so that it has a mark.
    header = struct.pack("!HHIIBBHHH", here, there, 1000, 1000, 5 << 4, flags, 65535, 0, 0)
    total = checksum(_pseudo(source, destination, _TCP, len(header) + len(payload)) + header + payload)
    return header[:16] + struct.pack("!H", total) + header[18:] + payload


def _packet(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    number: int = 0,
    offset: int = 0,
    *,
    more: bool = False,
) -> bytes:
    """With an IP header. A part of a datagram if `number` is given: at `offset` bytes, with `more` to come."""
    here, there = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if here.version == 6:
        if number:
            part = struct.pack("!BBHI", protocol, 0, offset | more, number)
            payload, protocol = part + payload, _FRAGMENT
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
        return header + here.packed + there.packed + payload
    place = (offset >> 3) | (0x2000 if more else 0)
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), number & 0xFFFF or 7, place, 64, protocol)
    total = checksum(start + b"\0\0" + here.packed + there.packed)
    return start + struct.pack("!H", total) + here.packed + there.packed + payload
