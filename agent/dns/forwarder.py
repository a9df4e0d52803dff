# SPDX-License-Identifier: Apache-2.0
"""Questions to upstream servers, as they came; their answers, as they are.

Each question leaves with an identifier and a port of its own, and an answer must have both and the same question
(RFC 5452): nobody who does not see the packets can easily pass off his own. A server that does not answer in time, or
says that it cannot or will not, is passed over; who answered last is asked first.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Final

from agent.dns.upstreams import Server
from sdn import logs

log: Final = logs.get("agent.dns.forwarder")

#: Questions under way at once; more are told that nobody knows.
MOST_AT_ONCE: Final = 512
#: Resolvers give up, or ask again, after five seconds (resolv.conf(5)): in all, we do earlier.
_TRY_SECONDS: Final = 1.5
_ALL_SECONDS: Final = 4.5
_MOST_BYTES: Final = 65535
_HEADER: Final = 12
_SERVFAIL, _NOTIMP, _REFUSED, _FORMERR = 2, 4, 5, 1


class Forwarder:
    """Asks upstream servers. For one event loop."""

    def __init__(
        self,
        servers: Callable[[], Sequence[Server]],
        most: int = MOST_AT_ONCE,
        try_seconds: float = _TRY_SECONDS,
        all_seconds: float = _ALL_SECONDS,
    ) -> None:
        self._servers = servers
        self._most = most
        self._try_seconds = try_seconds
        self._all_seconds = all_seconds
        self._busy = 0
        self._preferred: Server | None = None

    async def ask(self, raw: bytes, end: int, tcp: bool) -> bytes | None:
        """The answer to the question `raw`, whose question section ends at `end`; None when no server has one."""
        if self._busy >= self._most:
            return None
        self._busy += 1
        try:
            async with asyncio.timeout(self._all_seconds):
                return await self._ask_each(raw, end, tcp)
        except TimeoutError:
            return None
        finally:
            self._busy -= 1

    async def _ask_each(self, raw: bytes, end: int, tcp: bool) -> bytes | None:
        second_best = None
        # Two rounds: a packet may be lost.
        for server in self._in_order() * 2:
            try:
                async with asyncio.timeout(self._try_seconds):
                    reply = await (_over_tcp if tcp else _over_udp)(server, raw, end)
            except (TimeoutError, OSError, EOFError) as problem:
                log.debug("upstream does not answer", server=server[0], error=str(problem))
                continue
            if reply[3] & 0xF in (_SERVFAIL, _NOTIMP, _REFUSED):
                if second_best is not None:
                    break
                second_best = reply
                continue
            self._preferred = server
            return reply
        return second_best

    def _in_order(self) -> list[Server]:
        servers = list(self._servers())
        if self._preferred in servers:
            servers.remove(self._preferred)
            servers.insert(0, self._preferred)
        return servers


async def _over_udp(server: Server, raw: bytes, end: int) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.connect(server)
        asked = secrets.token_bytes(2) + raw[2:]
        channel.send(asked)
        while True:
            reply = await loop.sock_recv(channel, _MOST_BYTES)
            if _answers(reply, asked, end):
                return raw[:2] + reply[2:]


async def _over_tcp(server: Server, raw: bytes, end: int) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        asked = secrets.token_bytes(2) + raw[2:]
        writer.write(len(asked).to_bytes(2, "big") + asked)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not _answers(reply, asked, end):
        raise OSError(f"{server[0]} answered another question")
    return raw[:2] + reply[2:]


def _answers(reply: bytes, asked: bytes, end: int) -> bool:
    """Whether it is the answer to what was asked; one that refuses may leave the question out."""
    if len(reply) < _HEADER or reply[:2] != asked[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":
        return reply[3] & 0xF in (_FORMERR, _SERVFAIL, _NOTIMP, _REFUSED)
    return reply[4:6] == b"\0\1" and reply[_HEADER:end].lower() == asked[_HEADER:end].lower()
