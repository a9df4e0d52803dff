# SPDX-License-Identifier: Apache-2.0
"""What controllers say to each other over their direct links, and how it is sent.

Whoever has connected says who it is, and the other answers who that one is: :data:`MAGIC`, then name and incarnation,
each one byte of length and so many bytes of text. From then on the one sends a byte now and then, :data:`BEAT`, and
the other sends the same back. Anything else ends the connection.

:func:`send` and :func:`receive` do not let other threads run, as methods of sockets do. Each call of those gives the
interpreter to whoever waits for it, and gets it back a switch interval later or more: with four busy threads, the few
bytes to and from 30 peers took 100 to 250 ms (measured), longer than the silence that counts as death. These calls
never block, so that nobody is held up: microseconds each.
"""

from __future__ import annotations

import ctypes
import os
import socket
from dataclasses import dataclass
from typing import Final

from controller.addresses import split_address

MAGIC: Final = b"sdn-hb/1"
BEAT: Final = b"."
#: Bytes that are read in one go; a greeting and some beats.
READ_SIZE: Final = 1024

_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

# PyDLL: called with the interpreter's lock held.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_send: Final = _libc.send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_receive: Final = _libc.recv
_receive.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_receive.restype = ctypes.c_ssize_t


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


def send(descriptor: int, data: bytes) -> int:
    """Send what there is room for; gives the number of bytes, 0 when there is no room. OSError."""
    sent: int = _send(descriptor, data, len(data), _FLAGS)
    if sent < 0:
        problem = _problem()
        if isinstance(problem, BlockingIOError):
            return 0
        raise problem
    return sent


class Buffer:
    """Memory to receive into; for one thread."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(READ_SIZE)

    def receive(self, descriptor: int) -> bytes | None:
        """What has arrived, at most :data:`READ_SIZE`; None when nothing has, empty when the other end has closed.
        OSError.
        """
        received: int = _receive(descriptor, self._memory, READ_SIZE, _FLAGS)
        if received < 0:
            problem = _problem()
            if isinstance(problem, BlockingIOError):
                return None
            raise problem
        return self._memory.raw[:received]


def _problem() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


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
