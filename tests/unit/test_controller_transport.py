# SPDX-License-Identifier: Apache-2.0
"""How a switch's connection ends: what was written arrives, or must not arrive any more."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from controller.reading import Readers
from controller.transport import ConnectionClosedError, Transport

#: More than the kernel takes at once for a peer that does not read.
MUCH = 64 << 20


def received_after(end: str) -> tuple[int, int]:
    """How many bytes the kernel had taken for a peer that does not read, and how many it got after the end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as peer,
    ):
        connection, _ = listener.accept()
        transport = Transport(connection, Readers(1).next())
        sent = 0

        def write() -> None:
            nonlocal sent
            message = bytes(1 << 16)
            with pytest.raises(ConnectionClosedError):
                for _ in range(MUCH // len(message)):
                    transport.write([message])
                    sent += len(message)

        writer = threading.Thread(target=write)
        writer.start()
        before = -1
        while before != sent:
            before = sent
            time.sleep(0.2)
        getattr(transport, end)()
        writer.join()
        transport.release()
        got = 0
        with suppress(ConnectionResetError):
            while part := peer.recv(1 << 20):
                got += len(part)
        return sent, got


def test_what_was_written_before_a_connection_is_closed_arrives() -> None:
    sent, got = received_after("close")
    assert got >= sent > 0


def test_what_has_not_arrived_when_a_connection_is_aborted_never_does() -> None:
    sent, got = received_after("abort")
    assert got < sent
