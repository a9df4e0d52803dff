# SPDX-License-Identifier: Apache-2.0
"""Whoever asks is told who answers and whom that one sees: servers in many network namespaces, one process.

    python -S -m tests.lab.service_servers      listeners as JSON lines on stdin, until its end

A server answers each line (TCP, SCTP) or datagram (UDP) with one JSON object: its name, the client's address and port
as it sees them, and the token that it was asked with.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from tests.lab.ordered import Ordered
from tests.lab.service_sockets import BUFFER, Listener, family_of, opened

_SO_RCVBUFFORCE = 33


class Server:
    """All listeners of this process, in one loop."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, list[socket.socket]] = {}
        self._connections: dict[str, set[socket.socket]] = {}
        #: Who received the datagram with which token.
        self._received: dict[str, str] = {}

    def add(self, listener: Listener) -> None:
        """Listen from now on. OSError if the address cannot be had."""
        family = family_of(listener.address)
        channel = opened(listener.netns, listener.transport, family)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if listener.transport == "udp":
                channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
            channel.bind((listener.address, listener.port))
            if listener.transport != "udp":
                channel.listen(4096)
        except BaseException:
            channel.close()
            raise
        channel.setblocking(False)
        kind = "datagram" if listener.transport == "udp" else "listener"
        self._selector.register(channel, selectors.EVENT_READ, (kind, listener.name))
        self._listeners.setdefault(listener.name, []).append(channel)

    def remove(self, name: str) -> None:
        """Close all that belongs to `name`, connections too."""
        for channel in (*self._listeners.pop(name, ()), *self._connections.pop(name, ())):
            self._close(channel)

    def run(self, control: int) -> None:
        """Serve until the file `control` ends; its lines are orders, each acknowledged by a line on stdout."""
        os.set_blocking(control, False)
        self._selector.register(control, selectors.EVENT_READ, ("control", ""))
        orders = b""
        while True:
            for key, _ in self._selector.select():
                kind, name = key.data
                if kind == "control":
                    data = os.read(control, BUFFER)
                    if not data:
                        return
                    *lines, orders = (orders + data).split(b"\n")
                    for line in lines:
                        print(json.dumps(self._obey(json.loads(line))), flush=True)
                elif kind == "datagram":
                    self._datagrams(key.fileobj, name)  # type: ignore[arg-type]
                elif kind == "listener":
                    self._accept(key.fileobj, name)  # type: ignore[arg-type]
                else:
                    self._lines(key.fileobj, name)  # type: ignore[arg-type]

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        problems = []
        for fields in order.get("listen", ()):
            try:
                self.add(Listener(**fields))
            except OSError as problem:
                problems.append(f"{fields}: {problem}")
        for name in order.get("close", ()):
            self.remove(name)
        found = {token: self._received[token] for token in order.get("seen", ()) if token in self._received}
        return {"problems": problems, "seen": found}

    def _datagrams(self, channel: socket.socket, name: str) -> None:
        for _ in range(64):
            try:
                data, sender = channel.recvfrom(BUFFER)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier answer
                continue
            token = data.partition(b"\n")[0]
            self._received[token.decode(errors="replace")] = name
            said = _said(name, sender, token)
            with suppress(OSError):  # a client that went, or a full buffer: datagrams may be lost
                channel.sendto(said.ljust(len(data)), sender)

    def _accept(self, listener: socket.socket, name: str) -> None:
        for _ in range(64):
            try:
                channel, _ = listener.accept()
            except (BlockingIOError, ConnectionError, OSError):
                return
            channel.setblocking(False)
            self._connections.setdefault(name, set()).add(channel)
            self._selector.register(channel, selectors.EVENT_READ, ("connection", name))

    def _lines(self, channel: socket.socket, name: str) -> None:
        try:
            data = channel.recv(BUFFER)
            sender = channel.getpeername()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._connections.get(name, set()).discard(channel)
            self._close(channel)
            return
        with suppress(OSError):  # a client that does not read
            for line in data.splitlines():
                channel.send(_said(name, sender, line) + b"\n")

    def _close(self, channel: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(channel)
        channel.close()


def _said(name: str, sender: Sequence[Any], token: bytes) -> bytes:
    plain = {"name": name, "source": sender[0], "port": sender[1], "token": token.decode(errors="replace")}
    return json.dumps(plain).encode()


class Servers(Ordered):
    """A server process for the time of a `with` block, told from here where to listen."""

    def __init__(self) -> None:
        super().__init__("-S", "-m", "tests.lab.service_servers")

    def listen(self, *listeners: Listener) -> None:
        """Listen; OSError tells what could not be had."""
        self.order({"listen": [asdict(one) for one in listeners]})

    def everywhere(self, netns: str, name: str, addresses: Iterable[str], ports: Iterable[int]) -> None:
        """Listen on all these addresses and ports, for TCP and UDP."""
        ports = list(ports)
        self.listen(
            *(
                Listener(netns, name, transport, address, port)
                for address in addresses
                for port in ports
                for transport in ("tcp", "udp")
            )
        )

    def close(self, *names: str) -> None:
        """Close all listeners and connections of these names."""
        self.order({"close": names})

    def seen(self, *tokens: str) -> dict[str, str]:
        """Who received the datagrams with these tokens, whether his answer arrived or not."""
        found: dict[str, str] = self.order({"seen": tokens})["seen"]
        return found

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Its answer. OSError: it has ended, or could not do it."""
        told = super().order(order)
        if told["problems"]:
            raise OSError("; ".join(told["problems"]))
        return told


if __name__ == "__main__":
    Server().run(sys.stdin.fileno())
