# SPDX-License-Identifier: Apache-2.0
"""Between a switch and its controller: counts what the controller sends, and tells when the switch confirms."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.bench import netns

_HEADER: Final = struct.Struct("!BBHI")
_ECHO_REQUEST, _ECHO_REPLY, _BARRIER_REPLY = 2, 3, 21
_READ: Final = 1 << 18


@dataclass(frozen=True)
class Sent:
    """What went from the controller to the switch, echoes left out."""

    messages: int
    bytes: int


class Relay:
    """Takes one connection of a switch after the other, each with one of its own to the controller.

    Made inside the network namespace of both; messages are passed on as they are, whole or not.
    """

    def __init__(self, namespace: str, controller: tuple[str, int]) -> None:
        self._namespace = namespace
        self._controller = controller
        with netns.entered(namespace):
            self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._condition = threading.Condition()
        self._messages = self._bytes = 0
        self._barriers: list[float] = []
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def sent(self) -> Sent:
        """So far."""
        with self._condition:
            return Sent(self._messages, self._bytes)

    @property
    def confirmations(self) -> int:
        """Barriers that the switch has answered so far."""
        with self._condition:
            return len(self._barriers)

    def confirmed(self, number: int, seconds: float) -> float:
        """When (`time.perf_counter`) the switch answered that barrier, counted from 0; waits for it. TimeoutError."""
        with self._condition:
            if not self._condition.wait_for(lambda: len(self._barriers) > number, seconds):
                raise TimeoutError(f"the switch has confirmed nothing for {seconds} s")
            return self._barriers[number]

    def close(self) -> None:
        """Takes no more connections; those that there are end with the switch or the controller."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                switch, _ = self._listener.accept()
            except OSError:
                return
            with netns.entered(self._namespace):
                controller = socket.create_connection(self._controller)
            for one in (switch, controller):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, see in ((switch, controller, self._answer), (controller, switch, self._order)):
                threading.Thread(target=_pass_on, args=(source, sink, see), daemon=True).start()

    def _order(self, kind: int, length: int) -> None:
        if kind in (_ECHO_REQUEST, _ECHO_REPLY):
            return
        with self._condition:
            self._messages += 1
            self._bytes += length

    def _answer(self, kind: int, _length: int) -> None:
        if kind != _BARRIER_REPLY:
            return
        with self._condition:
            self._barriers.append(time.perf_counter())
            self._condition.notify_all()


def _pass_on(source: socket.socket, sink: socket.socket, see: Callable[[int, int], None]) -> None:
    """Until one of the two ends; then both have ended."""
    with contextlib.suppress(OSError), source, sink:
        waiting = bytearray()
        while data := source.recv(_READ):
            sink.sendall(data)
            waiting += data
            start = 0
            while len(waiting) - start >= _HEADER.size:
                _, kind, length, _ = _HEADER.unpack_from(waiting, start)
                if len(waiting) - start < length:
                    break
                see(kind, length)
                start += length
            del waiting[:start]
        for one in (source, sink):
            one.shutdown(socket.SHUT_RDWR)
