# SPDX-License-Identifier: Apache-2.0
"""Connections that the node's own stack tracks, as `conntrack` shows them: what must be forgotten.

Translation is decided by a connection's first packet and then kept. UDP has no end that could be seen, so a client that
goes on sending would keep being translated to what is no more, or not be translated to what has come.

ctnetlink is spoken here directly (linux/netfilter/nfnetlink_conntrack.h): the kernel is told what to list, and what it
lists is handed back to it as it came. pyroute2's NFCTSocket decodes each entry whole and takes milliseconds for one, so
ten thousand clients of one port would take half a minute.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final

from agent.ipam import Address

#: (address of the node, port)
Destination = tuple[Address, int]

_NETLINK_NETFILTER: Final = 12
_GET, _DELETE = 0x101, 0x102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = 20  # the header, and nfgenmsg: family, version, resource
_NESTED: Final = 0x8000
# Attributes, each with the level that it stands in.
_ORIGINAL, _ZONE, _FILTER = 1, 18, 25
_ADDRESSES, _TRANSPORT = 1, 2
_DESTINATION: Final = {4: 2, 6: 4}
_PROTOCOL, _PORT = 1, 3
_FILTER_ORIGINAL: Final = 1
_BY_ADDRESS, _BY_PROTOCOL, _BY_PORT = 0x2, 0x8, 0x20
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_TIMEOUT: Final = 30.0
#: Each list costs the kernel a walk through all connections: for more ports than these, one list of all ports.
_FEW_PORTS: Final = 16
_AT_ONCE: Final = 100


def forget_udp(destinations: Collection[Destination]) -> int:
    """Remove the UDP connections that clients opened to these destinations; how many there were. OSError.

    Only what the node's stack tracks itself: on the kernel datapath the switch keeps its connections in the same
    table, in zones of its own.
    """
    ports: dict[Address, set[int]] = {}
    for address, port in destinations:
        ports.setdefault(address, set()).add(port)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    forgotten = 0
    for address, wanted in ports.items():
        with socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER) as table:
            table.bind((0, 0))
            table.settimeout(_TIMEOUT)
            found = set()
            only: list[int | None] = [*wanted] if len(wanted) <= _FEW_PORTS else [None]
            for one in only:
                found |= set(_list(table, address, one, wanted))
            forgotten += _forget(table, address, sorted(found))
    return forgotten


def _list(
    table: socket.socket, address: Address, port: int | None, wanted: Collection[int]
) -> Iterator[bytes]:
    """The original direction of each connection, as an attribute's bytes."""
    flags = _BY_PROTOCOL | (_BY_PORT if port is not None else 0)
    if address.version == 4:
        # Of IPv6 the kernel (6.18) lists those with any *other* address when it is told one.
        flags |= _BY_ADDRESS
    transport = _attribute(_PROTOCOL, bytes([socket.IPPROTO_UDP]))
    transport += _attribute(_PORT, struct.pack("!H", port or 0))
    addresses = _attribute(_DESTINATION[address.version], address.packed)
    original = _nested(_ADDRESSES, addresses) + _nested(_TRANSPORT, transport)
    only = _nested(_FILTER, _attribute(_FILTER_ORIGINAL, struct.pack("=I", flags)))
    table.send(_message(_GET, _DUMP, 1, address, _nested(_ORIGINAL, original) + only))
    for kind, data in _replies(table):
        if kind == _DONE:
            return
        if kind == _ERROR:
            raise _refusal("list connections", data)
        # Kernels before 5.8 list everything.
        entry = dict(_attributes(data[_GENERIC:]))
        original = entry.get(_ORIGINAL, b"")
        if not any(entry.get(_ZONE, b"")) and _is_one(original, address, wanted):
            yield original


def _is_one(original: bytes, address: Address, wanted: Collection[int]) -> bool:
    halves = dict(_attributes(original))
    transport = dict(_attributes(halves.get(_TRANSPORT, b"")))
    return (
        dict(_attributes(halves.get(_ADDRESSES, b""))).get(_DESTINATION[address.version]) == address.packed
        and transport.get(_PROTOCOL) == bytes([socket.IPPROTO_UDP])
        and int.from_bytes(transport.get(_PORT, b""), "big") in wanted
    )


def _forget(table: socket.socket, address: Address, originals: list[bytes]) -> int:
    """Remove what was listed; what went by itself meanwhile is not counted."""
    forgotten = 0
    for start in range(0, len(originals), _AT_ONCE):
        some = originals[start : start + _AT_ONCE]
        messages = [_message(_DELETE, _ACK, 1, address, _nested(_ORIGINAL, one)) for one in some]
        table.send(b"".join(messages))
        waiting = len(some)
        for _kind, data in _replies(table):
            number = -int(struct.unpack_from("=i", data, 16)[0])
            if number not in (0, errno.ENOENT):
                raise _refusal("forget a connection", data)
            forgotten += number == 0
            waiting -= 1
            if not waiting:
                break
    return forgotten


def _message(kind: int, flags: int, sequence: int, address: Address, body: bytes) -> bytes:
    generic = struct.pack("!BBH", _FAMILY[address.version], 0, 0)
    length = _HEADER.size + len(generic) + len(body)
    return _HEADER.pack(length, kind, _REQUEST | flags, sequence, 0) + generic + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _replies(table: socket.socket) -> Iterator[tuple[int, bytes]]:
    """(type, whole message) as they come, without an end."""
    while True:
        data = table.recv(1 << 17)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_rest = _HEADER.unpack_from(data, offset)
            yield kind, data[offset : offset + length]
            offset += (length + 3) & ~3


def _refusal(what: str, data: bytes) -> OSError:
    number = -int(struct.unpack_from("=i", data, 16)[0])
    return OSError(number, f"{what}: {os.strerror(number)}")
