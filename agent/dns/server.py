# SPDX-License-Identifier: Apache-2.0
"""UDP and TCP, on single addresses.

The addresses may not be there yet, or go for a while with Open vSwitch: sockets are bound to them all the same
(IP_FREEBIND) and serve when they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from typing import Final, cast

from agent.dns.messages import MOST_TCP, Question
from agent.dns.resolver import Resolver
from sdn import logs

log: Final = logs.get("agent.dns.server")

_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_RETRY_SECONDS: Final = 0.5
#: A burst waits here rather than being lost.
_RECEIVE_BUFFER: Final = 1 << 20
_BACKLOG: Final = 256
#: Connections at once; of more the one that has been silent longest is ended, so that nobody can keep others out by
#: opening many.
_MOST_CONNECTIONS: Final = 256
#: Of a connection on which nothing is asked (RFC 7766, section 6.2.3: some seconds).
_IDLE_SECONDS: Final = 10.0
#: For questions that are under way to upstream servers.
_END_SECONDS: Final = 2.0


def bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket on an address, be that there or not. OSError, when another program has it."""
    v6 = ipaddress.ip_address(address).version == 6
    channel = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if v6:
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            channel.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            channel.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        # With the process of the agent before, until that has ended.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        channel.bind((address, port))
    except BaseException:
        channel.close()
        raise
    return channel


async def patiently_bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """The same, once nobody else has the address and port."""
    told = False
    while True:
        try:
            return bound(address, port, kind)
        except OSError as problem:
            if not told:
                told = True
                log.warning("cannot serve DNS yet", address=address, port=port, error=str(problem))
            await asyncio.sleep(_RETRY_SECONDS)


class Server:
    """Serves a resolver's answers."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._tasks: set[asyncio.Task[None]] = set()
        self._datagrams: list[tuple[socket.socket, asyncio.DatagramTransport]] = []
        #: Those that asked last at the end.
        self._connections: dict[asyncio.StreamWriter, None] = {}

    async def listen(self, address: str, port: int) -> None:
        """Serve on one address, from now on."""
        loop = asyncio.get_running_loop()
        datagrams = await patiently_bound(address, port, socket.SOCK_DGRAM)
        transport, _protocol = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        self._datagrams.append((datagrams, transport))
        stream = await patiently_bound(address, port, socket.SOCK_STREAM)
        await asyncio.start_server(self._connected, sock=stream, backlog=_BACKLOG)
        log.info("serving DNS", address=address, port=port)

    async def end(self) -> None:
        """Answer what has come, and take no more: another process has the same addresses by now."""
        if under_way := set(self._tasks):
            await asyncio.wait(under_way, timeout=_END_SECONDS)
        for channel, transport in self._datagrams:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.received(transport, *channel.recvfrom(MOST_TCP))
            transport.close()

    def received(self, transport: asyncio.DatagramTransport, raw: bytes, sender: tuple[str, int]) -> None:
        """A datagram came."""
        answer = self._resolver.at_once(raw)
        if isinstance(answer, bytes):
            transport.sendto(answer, sender)
        elif answer is not None:
            task = asyncio.ensure_future(self._later(transport, answer, sender))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(
        self, transport: asyncio.DatagramTransport, question: Question, sender: tuple[str, int]
    ) -> None:
        answer = await self._resolver.later(question, sender[0])
        if not transport.is_closing():
            transport.sendto(answer, sender)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MOST_CONNECTIONS:
            silent = next(iter(self._connections))
            del self._connections[silent]
            silent.transport.abort()
        self._connections[writer] = None
        try:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                await self._converse(reader, writer)
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions and answers in turn, until the client is silent, gone, or says what is no question."""
        client = (writer.get_extra_info("peername") or ("",))[0]
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                raw = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            if self._connections.pop(writer, writer) is None:
                self._connections[writer] = None
            answer = self._resolver.at_once(raw, tcp=True)
            if isinstance(answer, Question):
                answer = await self._resolver.later(answer, client, tcp=True)
            if answer is None:
                return
            writer.write(len(answer[:MOST_TCP]).to_bytes(2, "big") + answer[:MOST_TCP])
            async with asyncio.timeout(_IDLE_SECONDS):
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # It is one, but not by inheritance in Python 3.11.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._server.received(self._transport, data, addr)

    def error_received(self, exc: Exception) -> None:
        """A client that is gone sends ICMP errors; nobody has to know."""
