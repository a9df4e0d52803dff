# SPDX-License-Identifier: Apache-2.0
"""The controllers' ends of a switch's connections, as raw messages: what a switch does with roles."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from sdn.openflow.wire import HEADER, OFP_VERSION
from tests.switch.ovs import OFPT_HELLO, Connection, Message, PrivateSwitch


class Accepted(Connection):
    """A connection that the switch has opened."""

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._socket.settimeout(60)
        self._stream = self._socket.makefile("rb", buffering=1 << 18)
        self._xid = 0x7F000000
        self.send(HEADER.pack(OFP_VERSION, OFPT_HELLO, HEADER.size, 0))
        hello = self.receive()
        if hello.type != OFPT_HELLO:
            raise AssertionError(f"expected HELLO, got message type {hello.type}")

    def until_barrier(self, data: bytes) -> list[Message]:
        """Send messages and a barrier; everything that came before its reply, errors too."""
        self._xid += 1
        self.send(data + HEADER.pack(OFP_VERSION, 20, HEADER.size, self._xid))
        answers: list[Message] = []
        while (message := self.receive()).type != 21 or message.xid != self._xid:
            answers.append(message)
        return answers


class Target:
    """Where a switch is told to connect to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(60)

    @property
    def text(self) -> str:
        """As Open vSwitch wants it."""
        return f"tcp:127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> Accepted:
        """The next connection, its handshake done."""
        return Accepted(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.close()


def set_targets(switch: PrivateSwitch, targets: Sequence[str]) -> None:
    """Point a switch at these controllers, as an agent does."""
    switch.vsctl("set-controller", switch.bridge, *targets)
    rows = switch.vsctl("--bare", "--columns=_uuid", "list", "controller").split()
    for row in rows:
        switch.vsctl("set", "controller", row, "max_backoff=1000", "inactivity_probe=5000")


def whole(message: Message) -> bytes:
    """A received message with its header, for the codec."""
    return HEADER.pack(OFP_VERSION, message.type, HEADER.size + len(message.body), message.xid) + message.body
