# SPDX-License-Identifier: Apache-2.0
"""Ports of this machine for servers that a test starts.

None of those that the kernel gives to whoever asks for any: such a one may be another connection's before the server
has opened it, and while a server that was ended is away. Several runs of tests take theirs at random, with a look each.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

_FIRST = 15_000
_random = random.SystemRandom()


def unused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, neither TCP nor UDP."""
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    while True:
        port = _random.randrange(_FIRST, max(kernels, _FIRST + 1000))
        with suppress(OSError), socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for probe in (stream, datagrams):
                probe.bind(("127.0.0.1", port))
            return port
