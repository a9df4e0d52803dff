# SPDX-License-Identifier: Apache-2.0
"""The heartbeats' process stands for its controller: busy is not dead, and stopped, hung and ended is not alive."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.ha.pulse import Pulse
from controller.listening import ListenError
from tests.unit.heartbeat_process import PATIENCE, Collected
from tests.unit.pulse_process import FAILED, Controller

#: Longer than anything takes to be told.
QUIET = 1.5
ATTEMPTS = 3


@contextmanager
def listening(controller: Controller) -> Iterator[tuple[Pulse, Collected]]:
    """Listens for a controller that is there."""
    told = Collected()
    ours = Pulse("a", "a1", "127.0.0.1:0", told.silent, told.heard, hung_seconds=60.0)
    try:
        ours.peers(controller.named)
        # A machine that is busy elsewhere may make it seem silent before.
        while (first := told.next())[:3] != ("heard", "b", "b1"):
            assert first.what == "silent"
        yield ours, told
    finally:
        ours.close()


def ended(pid: int) -> bool:
    """Whether a process is no more, but for its parent's knowing."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] == b"Z"
    except OSError:
        return True


def heard_first(other: Controller) -> None:
    """It has heard us; before that it may have heard nothing."""
    while (first := other.told.next())[:3] != ("heard", "a", "a1"):
        assert first.what == "silent"


def wait_ended(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_hear_each_other_and_know_since_when() -> None:
    with Controller("b") as other, listening(other) as (ours, told):
        other.peers({"a": ("a1", f"127.0.0.1:{ours.port}")})
        heard_first(other)
        deadline = time.monotonic() + PATIENCE
        while ours.heard("b") is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ours.heard("c") is None
        told.nothing_for(QUIET)


def test_a_controller_that_computes_in_all_threads_is_not_silent() -> None:
    with Controller("b", busy=16) as other, listening(other) as (_, told):
        for attempt in range(ATTEMPTS):
            try:
                told.nothing_for(2 * QUIET)
            except AssertionError:
                # Once may be the machine's.
                if attempt == ATTEMPTS - 1:
                    raise
                while told.next().what != "heard":
                    pass
            else:
                break


def test_a_controller_that_is_stopped_is_silent_and_heard_again_when_it_goes_on() -> None:
    with Controller("b") as other, listening(other) as (ours, told):
        other.peers({"a": ("a1", f"127.0.0.1:{ours.port}")})
        heard_first(other)
        other.signal(signal.SIGSTOP)
        assert told.next()[:3] == ("silent", "b", "b1")
        told.nothing_for(QUIET)
        other.signal(signal.SIGCONT)
        assert told.next()[:3] == ("heard", "b", "b1")
        # It has heard others all the time.
        other.told.nothing_for(QUIET)


def test_what_happens_while_a_controller_is_stopped_it_learns_when_it_goes_on() -> None:
    with Controller("b") as other, listening(other) as (ours, told):
        other.peers({"a": ("a1", f"127.0.0.1:{ours.port}")})
        heard_first(other)
        other.signal(signal.SIGSTOP)
        assert told.next().what == "silent"
        ours.close()
        time.sleep(QUIET)
        other.signal(signal.SIGCONT)
        assert other.told.next()[:3] == ("silent", "a", "a1")


def test_a_controller_that_hangs_is_silent() -> None:
    with Controller("b", hung_seconds=1.0) as other, listening(other) as (_, told):
        told.nothing_for(QUIET)
        other.hang()
        assert told.next()[:3] == ("silent", "b", "b1")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_a_controller_that_ends_is_silent_at_once_and_leaves_nothing(number: signal.Signals) -> None:
    with Controller("b") as other, listening(other) as (_, told):
        other.signal(number)
        silent = told.next()
        assert silent[:3] == ("silent", "b", "b1")
        assert "nothing was heard" not in silent.why, "its end was seen"
        wait_ended(other.pulse_pid)


def test_signals_for_all_that_a_controller_has_started_are_for_itself() -> None:
    with Controller("b") as other, listening(other) as (_, told):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(other.pulse_pid, number)
        told.nothing_for(QUIET)
        assert not ended(other.pulse_pid)


def test_a_controller_without_heartbeats_does_not_go_on() -> None:
    with Controller("b") as other:
        os.kill(other.pulse_pid, signal.SIGKILL)
        assert other.wait() == FAILED


def test_closing_ends_the_process_and_nobody_is_told() -> None:
    failed: list[object] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        told = Collected()
        ours = Pulse("a", "a1", "127.0.0.1:0", told.silent, told.heard)
        ours.close()
        ours.tick()
        ours.peers({})
    finally:
        threading.excepthook = before
    wait_ended(ours.pid)
    assert failed == []


def test_a_taken_address_is_told_before_anything_starts() -> None:
    with Controller("b") as other, pytest.raises(ListenError, match="taken by another process"):
        Pulse("a", "a1", other.named["b"][1], lambda *_: None, lambda *_: None)


def test_a_process_that_does_not_listen_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended_by: list[object] = []
    told = threading.Event()

    def failed(args: threading.ExceptHookArgs) -> None:
        ended_by.append(args.exc_value)
        told.set()

    monkeypatch.setattr(threading, "excepthook", failed)
    ours = Pulse("a", "a1", "127.0.0.1:0", lambda *_: None, lambda *_: None)
    os.kill(ours.pid, signal.SIGSTOP)
    for _ in range(100_000):
        ours.tick()
        if told.wait(0.0):
            break
    assert told.wait(PATIENCE)
    assert "has ended with -9" in str(ended_by[0])
