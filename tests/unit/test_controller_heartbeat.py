# SPDX-License-Identifier: Apache-2.0
"""Controllers that listen for each other: who is told to be silent, who is not, and when."""

from __future__ import annotations

import ctypes
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.ha import answering, heartbeat
from controller.ha.heartbeat import SILENCE_SECONDS, Heartbeats
from controller.ha.wire import MAGIC, Greeting, ask
from controller.listening import listen
from tests.ports import unused_port
from tests.unit.heartbeat_process import PATIENCE, Collected, RawPeer, Remote, answer, greet

#: Longer than anything takes to be told.
QUIET = 1.5


@contextmanager
def beating(name: str = "a", incarnation: str = "a1") -> Iterator[tuple[Heartbeats, Collected]]:
    told = Collected()
    heartbeats = Heartbeats(name, incarnation, listen("127.0.0.1:0"), told.silent, told.heard)
    try:
        yield heartbeats, told
    finally:
        heartbeats.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes nobody silent."""
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 10.0)
    monkeypatch.setattr(heartbeat, "DOUBT_SECONDS", 10.0)


def at(heartbeats: Heartbeats) -> str:
    return f"127.0.0.1:{heartbeats.port}"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def unused_address() -> str:
    return f"127.0.0.1:{unused_port()}"


def test_two_that_live_hear_each_other_and_go_on(patient: None) -> None:
    with beating("a", "a1") as (a, told_a), beating("b", "b1") as (b, told_b):
        a.peers({"b": ("b1", at(b))})
        b.peers({"a": ("a1", at(a)), "b": ("b1", at(b))})
        assert told_a.next()[:3] == ("heard", "b", "b1")
        assert told_b.next()[:3] == ("heard", "a", "a1")
        told_a.nothing_for(QUIET)
        told_b.nothing_for(0)
        heard = a.heard("b")
        assert heard is not None
        assert heard < QUIET
        assert a.heard("c") is None
        assert b.heard("b") is None  # itself


def test_one_that_was_never_heard_is_silent_after_the_full_time() -> None:
    with beating() as (a, told):
        named = time.monotonic()
        a.peers({"b": ("b1", unused_address())})
        silent = told.next()
        assert silent[:3] == ("silent", "b", "b1")
        assert "refused" in silent.why
        assert silent.at - named >= SILENCE_SECONDS
        assert a.heard("b") is None
        told.nothing_for(QUIET)


def test_one_that_is_only_starting_is_waited_for(patient: None) -> None:
    address = unused_address()
    with beating() as (a, told):
        a.peers({"b": ("b1", address)})
        time.sleep(0.2)
        started = Heartbeats("b", "b1", listen(address), told.silent, told.heard)
        try:
            assert told.next().what == "heard"
        finally:
            started.close()


def test_an_address_that_is_none_is_said() -> None:
    with beating() as (a, told):
        a.peers({"b": ("b1", "controller-b.example:7000")})
        assert "'controller-b.example' is no IP address" in told.next().why


def test_a_killed_one_is_told_by_its_broken_connection(patient: None) -> None:
    with beating() as (a, told), Remote() as b:
        a.peers(b.named)
        assert told.next().what == "heard"
        b.signal(signal.SIGKILL)
        silent = told.next()
        assert silent[:3] == ("silent", "b", "b1")
        assert "connection" in silent.why
        assert "nothing was heard" not in silent.why


def test_a_stopped_one_is_silent_and_is_heard_when_it_goes_on() -> None:
    with beating() as (a, told), Remote() as b:
        a.peers(b.named)
        for _ in range(2):
            assert told.next().what == "heard"
            b.signal(signal.SIGSTOP)
            silent = told.next()
            assert silent.what == "silent"
            assert "nothing was heard" in silent.why
            told.nothing_for(QUIET)
            b.signal(signal.SIGCONT)
        assert told.next().what == "heard"
        told.nothing_for(QUIET)


def test_who_was_only_slow_gets_more_time_up_to_a_limit_and_is_forgiven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with beating() as (a, told), Remote() as b:
        a.peers(b.named)
        for factor in (1, 2, 4, 8, 8):
            assert told.next().what == "heard"
            b.signal(signal.SIGSTOP)
            assert f"nothing was heard for {SILENCE_SECONDS * factor * 1000:.0f} ms" in told.next().why
            b.signal(signal.SIGCONT)
        assert told.next().what == "heard"
        monkeypatch.setattr(heartbeat, "FORGIVEN_SECONDS", 0.0)
        wait_until(lambda: a._peers["b"].patience == SILENCE_SECONDS)


def test_who_was_away_for_longer_than_anybody_is_waited_for_gets_no_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "LONGEST_SILENCE_SECONDS", 3 * SILENCE_SECONDS)
    with beating() as (a, told), Remote() as b:
        a.peers(b.named)
        for _ in range(3):
            assert told.next().what == "heard"
            b.signal(signal.SIGSTOP)
            assert f"nothing was heard for {SILENCE_SECONDS * 1000:.0f} ms" in told.next().why
            # Time in which the test itself does not run does not count as silence.
            told.nothing_for(8 * SILENCE_SECONDS)
            b.signal(signal.SIGCONT)
        assert told.next().what == "heard"


def test_who_was_stopped_itself_takes_nobody_for_dead() -> None:
    with Remote(("b", "c", "d")) as others, Remote(("a",), silence=1.0) as a:
        a.peers(others.named)
        for _ in range(3):
            assert a.told.next().what == "heard"
        for seconds in (0.5, 0.9, 1.2, answering.IDLE_SECONDS + 2):
            a.signal(signal.SIGSTOP)
            time.sleep(seconds)
            a.signal(signal.SIGCONT)
            a.told.nothing_for(2.0)


def test_who_was_stopped_itself_still_finds_who_died_meanwhile() -> None:
    with Remote(("a",)) as a, Remote(("b",)) as b, Remote(("c",)) as c:
        a.peers(b.named | c.named)
        for _ in range(2):
            assert a.told.next().what == "heard"
        a.signal(signal.SIGSTOP)
        b.signal(signal.SIGKILL)
        c.signal(signal.SIGSTOP)
        time.sleep(1.0)
        on = a.signal(signal.SIGCONT)
        assert a.told.next()[:2] == ("silent", "b")
        silent = a.told.next()
        assert silent[:2] == ("silent", "c")
        assert silent.at - on >= SILENCE_SECONDS


def test_time_without_the_interpreter_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 1.0)
    hold = ctypes.PyDLL(None).usleep  # does not let other threads run
    with beating() as (a, told), Remote() as b:
        a.peers(b.named)
        assert told.next().what == "heard"
        for _ in range(3):
            hold(900_000)  # usleep takes less than a second
            hold(900_000)
            told.nothing_for(1.5)


def test_a_connection_that_breaks_and_is_made_again_is_no_death(patient: None) -> None:
    served: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        served.append(number)
        greet(connection, "b", "b1")
        answer(connection, beats=3)

    with RawPeer(serve) as b, beating() as (a, told):
        a.peers({"b": ("b1", b.address)})
        assert told.next().what == "heard"
        wait_until(lambda: len(served) >= 4)
        told.nothing_for(0)


def test_a_connection_that_breaks_and_is_not_answered_again_is_told_without_waiting_for_silence() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        if number == 0:
            greet(connection, "b", "b1")
            answer(connection, beats=3)
        else:
            connection.recv(1)
            time.sleep(PATIENCE)

    with RawPeer(serve) as b, beating() as (a, told):
        a.peers({"b": ("b1", b.address)})
        assert told.next().what == "heard"
        silent = told.next()
        assert silent.what == "silent"
        assert "nothing was heard" not in silent.why


def test_after_silence_a_new_connection_is_tried() -> None:
    """The kernel sends again on the former one only after seconds, when the network was cut."""

    def serve(connection: socket.socket, number: int) -> None:
        greet(connection, "b", "b1")
        answer(connection, beats=3 if number == 0 else None)
        time.sleep(PATIENCE)

    with RawPeer(serve) as b, beating() as (a, told):
        a.peers({"b": ("b1", b.address)})
        assert [told.next().what for _ in range(3)] == ["heard", "silent", "heard"]


def test_another_incarnation_in_its_place_is_not_the_peer(patient: None) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        greet(connection, "b", "b1" if number == 0 else "b2")
        answer(connection, beats=3)

    with RawPeer(serve) as b, beating() as (a, told):
        a.peers({"b": ("b1", b.address)})
        assert told.next()[:3] == ("heard", "b", "b1")
        silent = told.next()
        assert silent[:3] == ("silent", "b", "b1")
        assert "b answers in its place, in incarnation b2" in silent.why
        told.nothing_for(0.5)
        a.peers({"b": ("b2", b.address)})
        assert told.next()[:3] == ("heard", "b", "b2")


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", MAGIC + b"\x01b\x02b1" + b"x", MAGIC + b"\x01\xff\x02b1"]
)
def test_who_answers_something_else_is_not_the_peer(said: bytes) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(1024)
        connection.sendall(said)
        time.sleep(PATIENCE)

    with RawPeer(serve) as b, beating() as (a, told):
        a.peers({"b": ("b1", b.address)})
        silent = told.next()
        assert silent.what == "silent"
        assert "no controller sends" in silent.why or "another program" in silent.why


def test_a_greeting_in_pieces_is_one(patient: None) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(1024)
        for byte in Greeting("b", "b1").encode():
            connection.sendall(bytes((byte,)))
            time.sleep(0.002)
        answer(connection)

    with RawPeer(serve) as b, beating() as (a, told):
        a.peers({"b": ("b1", b.address)})
        assert told.next().what == "heard"


def test_of_who_is_no_longer_named_nothing_is_told(patient: None) -> None:
    with beating() as (a, told), Remote(("b", "c")) as others:
        a.peers(others.named)
        assert {told.next().name, told.next().name} == {"b", "c"}
        a.peers({"c": others.named["c"]})
        others.signal(signal.SIGKILL)
        assert told.next()[:2] == ("silent", "c")
        told.nothing_for(QUIET)


def test_one_that_was_left_out_for_a_moment_is_another_peer() -> None:
    """Also when the thread has not looked meanwhile: whoever left it out waits to be told anew."""
    with beating() as (a, told):
        nobody = {"b": ("b1", "127.0.0.1:1")}
        a.peers(nobody)
        assert told.next()[:2] == ("silent", "b")
        wake = a._wake
        a._wake = lambda: None  # type: ignore[method-assign]
        a.peers({})
        a._wake = wake  # type: ignore[method-assign]
        a.peers(nobody)
        assert told.next()[:2] == ("silent", "b")


def test_naming_the_same_again_changes_nothing_and_another_address_is_another_peer() -> None:
    with beating() as (a, told), beating("b", "b1") as (b, _):
        a.peers({"b": ("b1", at(b))})
        assert told.next().what == "heard"
        a.peers({"b": ("b1", at(b))})
        told.nothing_for(0.2)
        a.peers({"b": ("b1", unused_address())})
        assert told.next().what == "silent"
        a.peers({"b": ("b1", at(b))})
        assert told.next().what == "heard"


def test_rubbish_on_the_port_is_closed_and_disturbs_nobody(patient: None) -> None:
    with beating() as (a, _), beating("b", "b1") as (b, told):
        b.peers({"a": ("a1", at(a))})
        assert told.next().what == "heard"
        for rubbish in (b"GET / HTTP/1.1\r\n\r\n", MAGIC + b"\x01a\x01", MAGIC[:3], b"", bytes(100_000)):
            with socket.create_connection(("127.0.0.1", a.port), timeout=PATIENCE) as connection:
                try:
                    connection.sendall(rubbish)
                    received = connection.recv(1024)
                except (ConnectionResetError, BrokenPipeError):
                    received = b""
                # Also what is only the beginning of a greeting, after a while.
                assert received == b""
        with socket.create_connection(("127.0.0.1", a.port), timeout=PATIENCE) as connection:
            connection.sendall(Greeting("x", "x1").encode() + b"..x")
            assert connection.recv(1024) in (b"", Greeting("a", "a1").encode())
        told.nothing_for(0)


def test_there_are_only_so_many_connections(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MAX_LINKS", 20)
    monkeypatch.setattr(answering, "GREETING_SECONDS", 5.0)
    with beating() as (a, _), beating("b", "b1") as (b, told):
        b.peers({"a": ("a1", at(a))})
        assert told.next().what == "heard"
        many = [socket.create_connection(("127.0.0.1", a.port), timeout=PATIENCE) for _ in range(60)]
        with selectors.DefaultSelector() as closed:
            for connection in many:
                closed.register(connection, selectors.EVENT_READ)
            # Those for which there is no room at once, the others for want of a greeting.
            wait_until(lambda: len(closed.select(0)) >= 41)
            refused = len(closed.select(0))
            wait_until(lambda: len(closed.select(0)) == 60)
        for connection in many:
            connection.close()
        assert refused < 60
        told.nothing_for(0)


def test_who_sends_without_reading_is_given_no_memory(patient: None) -> None:
    with beating() as (a, _), beating("b", "b1") as (b, told):
        b.peers({"a": ("a1", at(a))})
        assert told.next().what == "heard"
        with socket.create_connection(("127.0.0.1", a.port)) as connection:
            connection.sendall(Greeting("x", "x1").encode())
            before = memory()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                connection.sendall(b"." * 65536)
            assert memory() - before < 20_000_000
        told.nothing_for(0.1)


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_callback_that_fails_is_logged_and_others_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    told = threading.Event()

    def heard(name: str, incarnation: str) -> None:
        if name == "b":
            raise RuntimeError("not now")
        told.set()

    a = Heartbeats("a", "a1", listen("127.0.0.1:0"), lambda *_: None, heard)
    try:
        with beating("b", "b1") as (b, _), beating("c", "c1") as (c, _):
            a.peers({"b": ("b1", at(b))})
            wait_until(lambda: a.heard("b") is not None)
            a.peers({"b": ("b1", at(b)), "c": ("c1", at(c))})
            assert told.wait(PATIENCE)
    finally:
        a.close()


def test_nothing_is_left_open_when_it_is_closed() -> None:
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir()))
    with beating() as (a, told), beating("b", "b1") as (b, _):
        a.peers({"b": ("b1", at(b)), "c": ("c1", unused_address())})
        while told.next().what != "silent":
            pass
    a.peers({})
    a.close()
    assert len(list(folder.iterdir())) == before


def test_who_is_there_can_be_asked_once() -> None:
    me = Greeting("x", "x1")
    with beating("a", "a1") as (a, _):
        assert ask(at(a), me, PATIENCE) == Greeting("a", "a1")
    assert ask(unused_address(), me, PATIENCE) is None
    with RawPeer(lambda connection, _: connection.sendall(b"SSH-2.0-sshd\r\n")) as other:
        assert ask(other.address, me, PATIENCE) is None
    with RawPeer(lambda connection, _: time.sleep(PATIENCE)) as dumb, pytest.raises(TimeoutError):
        ask(dumb.address, me, 0.1)
    with pytest.raises(ValueError, match="no IP address"):
        ask("localhost:1", me, PATIENCE)
