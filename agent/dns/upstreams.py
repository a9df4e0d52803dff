# SPDX-License-Identifier: Apache-2.0
"""Which servers know the names outside of the cluster: those of the settings, else those that the node itself asks."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from agent.dns.config import PORT, upstream

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_LOOK_SECONDS: Final = 2.0
#: As many as a resolver of the C library takes (resolv.conf(5)).
_MOST: Final = 3

Server = tuple[str, int]


def nameservers(text: str) -> list[Server]:
    """The servers that a resolv.conf names (resolv.conf(5)), without what is no address."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append((words[1], PORT))
    return found[:_MOST]


class Upstreams:
    """The servers to ask, in order; a resolv.conf that changes is read again."""

    def __init__(
        self,
        told: Iterable[str],
        ours: Iterable[str],
        path: Path = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`told` replaces the file, unless empty. `ours` are addresses that lead back here: they are never asked."""
        self._ours = {ipaddress.ip_address(text) for text in ours}
        wanted = [upstream(text) for text in told]
        self._told = self._others(wanted)
        self._from_file = not wanted
        self._path = path
        self._clock = clock
        self._looked = -_LOOK_SECONDS
        self._version: tuple[int, int] | None = None
        self._found: tuple[Server, ...] = ()

    def servers(self) -> tuple[Server, ...]:
        """Empty when there are none."""
        if not self._from_file:
            return self._told
        now = self._clock()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            try:
                stat = self._path.stat()
                version = (stat.st_mtime_ns, stat.st_ino)
                if version != self._version:
                    self._found = self._others(nameservers(self._path.read_text(errors="replace")))
                    self._version = version
            except OSError:
                # Replaced at this very moment, or away: what was read last is better than nothing.
                self._version = None
        return self._found

    def _others(self, servers: list[Server]) -> tuple[Server, ...]:
        return tuple(
            (host, port)
            for host, port in servers
            if port != PORT or ipaddress.ip_address(host) not in self._ours
        )
