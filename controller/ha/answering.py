# SPDX-License-Identifier: Apache-2.0
"""The answering end of the links between controllers: says who it is, and sends each byte back.

It need not know who asks, and believes nothing that it is told. What comes from elsewhere is closed at the first byte
that no controller sends; at no time is more kept of a connection than a part of a greeting.
"""

from __future__ import annotations

import selectors
import socket
from typing import Final

from controller.addresses import format_address
from controller.ha import wire
from controller.ha.wire import Greeting
from sdn import logs

log = logs.get("controller.heartbeat")

#: Connections at one time.
MAX_LINKS: Final = 256
#: Without a word for so many seconds a connection is closed; and one whose greeting has not come.
IDLE_SECONDS: Final = 10.0
GREETING_SECONDS: Final = 1.0
#: How often that is looked at, and accepting tried again after descriptors ran out.
TIDY_SECONDS: Final = 1.0
#: At most one line in the log for so many seconds about connections that were refused.
REFUSED_SECONDS: Final = 10.0


class _Link:
    """A connection that another controller has made."""

    def __init__(self, connection: socket.socket, peer: str, now: float) -> None:
        self.connection = connection
        self.peer = peer
        self.received = b""
        self.greeted = False
        self.last = now


class Answering:
    """Registers what it waits for with ``selector``; the data of each key is to be called with the time when the key
    is ready. ``listener`` must not block. For one thread.
    """

    def __init__(self, selector: selectors.BaseSelector, listener: socket.socket, me: Greeting) -> None:
        self._selector = selector
        self._listener = listener
        self._greeting = me.encode()
        self._links: set[_Link] = set()
        self._tidy_at = 0.0
        self._refused_at = float("-inf")
        #: The controller does not run: nobody is answered, and new connections are ended. Set in any thread.
        self.paused = False
        selector.register(listener, selectors.EVENT_READ, self._accept)
        self._accepting = True

    def tidy(self, now: float) -> None:
        """Close what is idle. To be called often."""
        if now < self._tidy_at:
            return
        self._tidy_at = now + TIDY_SECONDS
        for link in list(self._links):
            if now > link.last + (IDLE_SECONDS if link.greeted else GREETING_SECONDS):
                self._drop(link)
        if not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accepting = True

    def close(self) -> None:
        for link in list(self._links):
            self._drop(link)
        self._listener.close()

    def _accept(self, now: float) -> None:
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as problem:
            # Out of descriptors, most likely: later again, and not at once without end.
            log.error("cannot accept a peer's connection", error=str(problem))
            self._selector.unregister(self._listener)
            self._accepting = False
            return
        if len(self._links) >= MAX_LINKS:
            self._refused(now, format_address(address), "too many connections")
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(connection, format_address(address), now)
        self._links.add(link)
        self._selector.register(connection, selectors.EVENT_READ, lambda now: self._serve(link, now))

    def _serve(self, link: _Link, now: float) -> None:
        if link not in self._links:
            return  # closed since
        try:
            data = wire.receive(link.connection)
            if data is None:
                return
            if not data or not self._answer(link, data):
                self._drop(link)
            link.last = now
        except ValueError as problem:
            self._refused(now, link.peer, str(problem))
            self._drop(link)
        except OSError:
            self._drop(link)  # Who made it sees to it.

    def _answer(self, link: _Link, data: bytes) -> bool:
        """Whether the connection can go on. ValueError: not with that one."""
        if self.paused:
            return link.greeted
        if not link.greeted:
            parsed = wire.parse(link.received + data)
            if parsed is None:
                link.received += data
                return True
            _, data = parsed
            link.greeted, link.received = True, b""
            if wire.send(link.connection, self._greeting) < len(self._greeting):
                return False
        if data.strip(wire.BEAT):
            raise ValueError("it sent what no controller sends")
        if data:
            # One for all that have arrived. Who does not read them hears nothing; nothing is kept for it.
            wire.send(link.connection, wire.BEAT)
        return True

    def _drop(self, link: _Link) -> None:
        self._selector.unregister(link.connection)
        self._links.discard(link)
        link.connection.close()

    def _refused(self, now: float, peer: str, why: str) -> None:
        if now >= self._refused_at + REFUSED_SECONDS:
            self._refused_at = now
            log.warning("peer's connection refused", peer=peer, reason=why)
