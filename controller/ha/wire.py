# SPDX-License-Identifier: Apache-2.0
"""What controllers say to each other over their direct links, and how it is sent.

Whoever has connected says who it is, and the other answers who that one is: :data:`MAGIC`, then name and incarnation,
each one byte of length and so many bytes of text. From then on the one sends a byte now and then, :data:`BEAT`, and
the other sends the same back. Anything else ends the connection.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from controller.addresses import split_address

MAGIC: Final = b"sdn-hb/1"
BEAT: Final = b"."
#: Bytes that are read in one go; a greeting and some beats.
READ_SIZE: Final = 1024


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who somebody is."""

    name: str
    incarnation: str

    def encode(self) -> bytes:
        """ValueError for a name or an incarnation that is too long."""
        return MAGIC + _text(self.name) + _text(self.incarnation)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{text!r} is longer than the 255 bytes that a greeting has room for")
    return bytes((len(data),)) + data


def parse(data: bytes) -> tuple[Greeting, bytes] | None:
    """A greeting and what comes after it; None as long as some of it is missing. ValueError: it is none."""
    if not MAGIC.startswith(data[: len(MAGIC)]):
        raise ValueError("no controller's greeting")
    texts: list[str] = []
    offset = len(MAGIC)
    for _ in range(2):
        end = offset + 1 + data[offset] if len(data) > offset else 0
        if not end or len(data) < end:
            return None
        try:
            texts.append(data[offset + 1 : end].decode())
        except UnicodeDecodeError:
            raise ValueError("a greeting with a name that is no text") from None
        offset = end
    return Greeting(*texts), data[offset:]


def endpoint(text: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """ "host:port" as family and address. ValueError when the host is no IP address: looking up a name could take
    seconds.
    """
    host, port = split_address(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        raise ValueError(f"{text!r}: {host!r} is no IP address") from None
    return found[0][0], (host, port)


def send(connection: socket.socket, data: bytes) -> int:
    """Send what there is room for on a non-blocking connection; gives the number of bytes, 0 when there is no room.
    OSError.
    """
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0


def receive(connection: socket.socket) -> bytes | None:
    """What has arrived on a non-blocking connection, at most :data:`READ_SIZE`; None when nothing has, empty when the
    other end has closed. OSError.
    """
    try:
        return connection.recv(READ_SIZE)
    except BlockingIOError:
        return None


def ask(address: str, me: Greeting, seconds: float) -> Greeting | None:
    """Who answers at ``address``; None when there is nobody, or somebody else than a controller.

    OSError (TimeoutError among them) when that cannot be known, ValueError for an address that is none. Blocks for at
    most ``seconds`` a step.
    """
    family, target = endpoint(address)
    data = b""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(target)
            connection.sendall(me.encode())
            while (parsed := parse(data)) is None:
                received = connection.recv(READ_SIZE)
                if not received:
                    return None
                data += received
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, ValueError):
            return None
    return parsed[0]
