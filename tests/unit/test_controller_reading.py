# SPDX-License-Identifier: Apache-2.0
"""Few threads read all connections: nobody is shut out, and what waits to be written is written."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from controller.reading import Readers, Reading
from controller.transport import HEADER, ProtocolError, Transport
from tests.switch.ovs import wait_until

ECHO = 2


def message(xid: int, size: int = 0) -> bytes:
    return HEADER.pack(6, ECHO, HEADER.size + size, xid) + bytes(size)


class Peers:
    """Connections that are read, and the other end of each."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.readers = Readers(2)
        self._pool = stack.enter_context(ThreadPoolExecutor(300))

    def connect(
        self,
        handle: Callable[[int, int, int, bytes], None] = lambda *_message: None,
        idle_seconds: float = 60.0,
        on_idle: Callable[[], None] = lambda: None,
    ) -> tuple[Transport, socket.socket, Future[None]]:
        ours, theirs = socket.socketpair()
        transport = Transport(ours, self.readers.next())
        reading = self._pool.submit(transport.receive, handle, idle_seconds, on_idle)
        self._stack.callback(transport.release)
        self._stack.callback(reading.exception)
        self._stack.callback(transport.close)
        self._stack.callback(theirs.close)
        return transport, theirs, reading


@pytest.fixture
def peers() -> Iterator[Peers]:
    with ExitStack() as stack:
        yield Peers(stack)


def test_however_many_have_something_few_threads_want_the_interpreter(peers: Peers) -> None:
    threads: set[int] = set()
    heard: set[int] = set()

    def handle(_version: int, _kind: int, xid: int, _message: bytes) -> None:
        threads.add(threading.get_ident())
        heard.add(xid)

    others = [peers.connect(handle)[1] for _ in range(200)]
    for number, other in enumerate(others):
        other.sendall(message(number))
    wait_until(lambda: len(heard) == 200, "all messages to be handled")
    assert len(threads) == 2


def test_one_that_floods_does_not_shut_out_another(peers: Peers) -> None:
    peers.readers = Readers(1)
    portions = 0
    at = 0
    heard = threading.Event()

    def count(*_message: object) -> None:
        nonlocal portions
        portions += 1

    def hear(*_message: object) -> None:
        nonlocal at
        at = portions
        heard.set()

    # Of the greatest size that a message can have: each is a portion of its own.
    _, flooding, _ = peers.connect(count)
    _, quiet, _ = peers.connect(hear)
    ended = threading.Event()

    def flood() -> None:
        whole = message(1, 65000)
        while not ended.is_set():
            flooding.sendall(whole)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        wait_until(lambda: portions > 100, "the flood")
        before = portions
        quiet.sendall(message(2))
        assert heard.wait(60)
        # It was sent between two portions, and what the sender did in between took its time.
        assert at - before < 100
    finally:
        ended.set()
        thread.join()


def test_what_was_put_aside_before_the_reading_begins_is_sent(peers: Peers) -> None:
    ours, other = socket.socketpair()
    transport = Transport(ours, peers.readers.next())
    for number in range(40):
        transport.send(message(number, 8000))
    reading = threading.Thread(target=transport.receive, args=(lambda *_message: None, 60.0, lambda: None))
    reading.start()
    assert len(read(other, 40 * 8008)) == 40 * 8008
    other.close()
    reading.join()
    transport.release()


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.3])
def test_a_silence_that_ends_at_the_very_moment_is_told(
    peers: Peers, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Sums of seconds are rounded: what was waited for must be what is looked at."""
    told: list[int] = []
    reader = peers.readers.next()
    clock = iter(number * 0.1 for number in itertools.count(3))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    reading = Reading(peers.connect()[0], seconds, lambda: told.append(1))
    for number in range(100):
        now = reading.idle_at
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        reader._push_idle(reading)
        reader._tell_idle()
        reader._idle.clear()
        assert len(told) == number + 1


def test_a_reader_that_reads_nothing_keeps_nothing(peers: Peers) -> None:
    transport, other, reading = peers.connect()
    other.close()
    reading.result(60)
    for _ in range(50):
        transport._reader.when_writable(transport)
    assert not transport._reader._tasks


def test_messages_are_whole_however_they_arrive(peers: Peers) -> None:
    heard: list[tuple[int, bytes]] = []
    _, other, _ = peers.connect(lambda _version, _kind, xid, whole: heard.append((xid, whole)))
    stream = b"".join(message(number, number) for number in range(40))
    for start in range(0, len(stream), 7):
        other.sendall(stream[start : start + 7])
    wait_until(lambda: len(heard) == 40, "all messages")
    assert heard == [(number, message(number, number)) for number in range(40)]


def test_silence_is_told_again_and_again_and_a_sign_of_life_puts_it_off(peers: Peers) -> None:
    told: list[int] = []
    heard: list[int] = []
    _, other, _ = peers.connect(
        lambda _version, _kind, xid, _message: heard.append(xid), 0.2, lambda: told.append(len(heard))
    )
    wait_until(lambda: len(told) >= 2, "the silence to be told twice")
    other.sendall(message(1))
    wait_until(lambda: 1 in told, "the silence after the message to be told")


@pytest.mark.parametrize("where", ["handle", "idle", "stream"])
def test_what_goes_wrong_ends_the_reading_and_no_other(peers: Peers, where: str) -> None:
    peers.readers = Readers(1)

    def fail(*_message: object) -> None:
        raise ProtocolError(f"no {where}")

    heard: list[int] = []
    _, good, _ = peers.connect(lambda _version, _kind, xid, _message: heard.append(xid))
    if where == "idle":
        _, bad, reading = peers.connect(idle_seconds=0.05, on_idle=fail)
    else:
        _, bad, reading = peers.connect(fail)
        bad.sendall(message(1) if where == "handle" else struct.pack("!BBHI", 6, ECHO, 3, 1))
    with pytest.raises(ProtocolError):
        reading.result(60)
    good.sendall(message(7))
    wait_until(lambda: heard == [7], "the other one to be heard")


@pytest.mark.parametrize("who", ["peer", "we"])
def test_the_end_of_a_connection_ends_its_reading(peers: Peers, who: str) -> None:
    transport, other, reading = peers.connect()
    if who == "peer":
        other.close()
    else:
        transport.close()
    assert reading.result(60) is None


def test_what_was_put_aside_for_a_full_socket_is_sent_when_it_takes_more(peers: Peers) -> None:
    transport, other, _ = peers.connect()
    sent = 0
    # The kernel takes some hundred kilobytes; more is put aside.
    for number in range(40):
        transport.send(message(number, 8000))
        sent += 8008
    assert len(read(other, sent)) == sent


def test_what_is_sent_while_somebody_writes_follows_at_once(peers: Peers) -> None:
    transport, other, _ = peers.connect()
    # More than the kernel takes at once, in one piece.
    much = message(1, 60000) * 100
    writer = threading.Thread(target=transport.write, args=([much],))
    writer.start()
    first = read(other, 1)
    transport.send(message(2))
    assert first + read(other, len(much) - 1) == much
    assert read(other, 8) == message(2)
    writer.join()


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes. AssertionError: they did not come."""
    connection.settimeout(60)
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part
        data += part
    return bytes(data)
