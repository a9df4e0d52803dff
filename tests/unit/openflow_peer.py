# SPDX-License-Identifier: Apache-2.0
"""A peer that speaks as much OpenFlow as a test tells it to, and the listening half of a controller for it to
talk to.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from controller import osken
from controller.connection import SwitchConnection
from controller.listener import Listener
from controller.listening import listen

HEADER = struct.Struct("!BBHI")
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY = 0, 1, 2, 3
FEATURES_REQUEST, FEATURES_REPLY, MULTIPART_REQUEST, MULTIPART_REPLY = 5, 6, 18, 19
ROLE_REQUEST, ROLE_REPLY, ROLE_STATUS = 24, 25, 30
NOCHANGE, EQUAL, MASTER, SLAVE = range(4)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    """Poll until the condition holds; fail naming what never came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.01)


def message(kind: int, body: bytes = b"", xid: int = 0, version: int = 6, length: int | None = None) -> bytes:
    return HEADER.pack(version, kind, len(body) + 8 if length is None else length, xid) + body


class Peer:
    """The switch's end of one connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, int, bytes]:
        """Type, xid and body of the next message; ConnectionError at the end."""
        _, kind, length, xid = HEADER.unpack(self._exactly(8))
        return kind, xid, self._exactly(length - 8)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    def handshake(self, datapath_id: int) -> None:
        """All of it, as a real switch does it."""
        self.send(message(HELLO, struct.pack("!HHI", 1, 8, 1 << 6)))
        assert self.receive()[0] == HELLO
        kind, xid, _ = self.receive()
        assert kind == FEATURES_REQUEST
        self.send(message(FEATURES_REPLY, struct.pack("!QIBB2xII", datapath_id, 0, 254, 0, 0x4F, 0), xid))
        kind, xid, body = self.receive()
        assert kind == MULTIPART_REQUEST
        self.send(message(MULTIPART_REPLY, body[:2] + bytes(6), xid))

    def closed_by_controller(self) -> bool:
        """Read to the end; True when the controller ended the connection."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()


class Roles:
    """What a switch knows of its controllers' roles, as Open vSwitch 3.1 does it (tests/switch/test_codec_roles.py);
    shared by all connections of one switch.
    """

    _BODY = struct.Struct("!IH2xQ")
    IS_SLAVE = struct.pack("!HH", 1, 10)
    STALE = struct.pack("!HH", 11, 0)

    def __init__(self) -> None:
        self.generation: int | None = None
        #: Of each connection that has asked, its role; and what it has asked for, in order.
        self.roles: dict[Peer, int] = {}
        self.asked: list[tuple[int, int]] = []

    def role(self, peer: Peer) -> int:
        return self.roles.get(peer, EQUAL)

    def answer(self, peer: Peer, xid: int, body: bytes) -> bytes:
        """To a role request; whoever is deposed by it is told."""
        role, _, generation = self._BODY.unpack(body)
        self.asked.append((role, generation))
        if role in (MASTER, SLAVE):
            if self.generation is not None and generation < self.generation:
                return message(ERROR, self.STALE, xid)
            self.generation = generation
        if role == MASTER:
            for other in [other for other, its in self.roles.items() if its == MASTER and other is not peer]:
                self.depose(other)
        if role != NOCHANGE:
            self.roles[peer] = role
        seen = (1 << 64) - 1 if self.generation is None else self.generation
        return message(ROLE_REPLY, self._BODY.pack(self.role(peer), 0, seen), xid)

    def take_over(self, generation: int) -> None:
        """Another controller, of which there is no connection here, becomes the master."""
        self.generation = generation
        for peer in [peer for peer, role in self.roles.items() if role == MASTER]:
            self.depose(peer)

    def depose(self, peer: Peer, *, tell: bool = True) -> None:
        """Make a master a slave."""
        self.roles[peer] = SLAVE
        if tell:
            peer.send(message(ROLE_STATUS, struct.pack("!IB3xQ", SLAVE, 0, self.generation or 0)))


class Recorder:
    """Takes the switchboard's place: remembers who came and went."""

    def __init__(self) -> None:
        self.came: list[SwitchConnection] = []
        self.went: list[SwitchConnection] = []
        self.on_connected: Callable[[SwitchConnection], None] = lambda _connection: None

    def connected(self, connection: SwitchConnection) -> None:
        self.came.append(connection)
        self.on_connected(connection)

    def disconnected(self, connection: SwitchConnection) -> None:
        connection.ended()
        self.went.append(connection)


class OpenFlowSide:
    """A listener, os-ken with our application, and a recorder."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.listener = Listener(listen("127.0.0.1:0"), osken.serve_connection)
        self._peers: list[Peer] = []
        self._manager = osken.start(
            ["controller.app"], self.listener.accept_forever, switchboard=self.recorder
        )

    def peer(self) -> Peer:
        peer = Peer(self.listener.port)
        self._peers.append(peer)
        return peer

    def switch(self, datapath_id: int = 1) -> Peer:
        """A peer that has finished the handshake and is known to the application."""
        before = len(self.recorder.came)
        peer = self.peer()
        peer.handshake(datapath_id)
        wait_for(lambda: len(self.recorder.came) > before, "the application to hear of the switch")
        return peer

    def end_applications(self) -> None:
        """Safe to repeat. Connections go on."""
        self.listener.close()
        osken.stop(self._manager)

    def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self.end_applications()


@contextmanager
def openflow_side() -> Iterator[OpenFlowSide]:
    """An OpenFlow side that is gone at the end, threads and all."""
    before = set(threading.enumerate())
    side = OpenFlowSide()
    try:
        yield side
    finally:
        side.close()
        wait_for(lambda: set(threading.enumerate()) <= before, "all threads to end")
