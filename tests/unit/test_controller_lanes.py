# SPDX-License-Identifier: Apache-2.0
"""How many threads compute at a time, and who is next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from controller.lanes import Lane, Pace, aside
from tests.unit.openflow_peer import wait_for


class Threads:
    """Threads that end with the test, and what they have done."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.done: list[str] = []

    def start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def threads() -> Iterator[Threads]:
    started = Threads()
    yield started
    started.join()


@contextmanager
def opened(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def waiting(lane: Lane) -> int:
    return len(lane._new) + len(lane._back)


def test_no_more_are_inside_than_there_are_places(threads: Threads) -> None:
    lane, inside, most, lock = Lane(2), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lane:
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    for _ in range(8):
        threads.start(work)
    threads.join()
    assert 1 <= most <= 2
    assert lane._free == 2


def test_who_waits_for_a_switch_holds_up_nobody(threads: Threads) -> None:
    lane, answered = Lane(1), threading.Event()

    def slow() -> None:
        with lane, aside():
            threads.done.append("asked")
            answered.wait(60)
            threads.done.append("answered")

    with opened(answered):
        threads.start(slow)
        wait_for(lambda: threads.done, "the slow one to wait")
        with lane:
            assert threads.done == ["asked"]


def test_who_comes_back_goes_before_those_who_have_not_begun(threads: Threads) -> None:
    lane, answered = Lane(1), threading.Event()

    def begun() -> None:
        with lane:
            with aside():
                threads.done.append("asked")
                answered.wait(60)
            threads.done.append("begun")

    def new() -> None:
        with lane:
            threads.done.append("new")

    with opened(answered):
        threads.start(begun)
        wait_for(lambda: threads.done, "the first to wait")
        with lane:
            threads.start(new)
            wait_for(lambda: waiting(lane) == 1, "the second to wait for its place")
            answered.set()
            wait_for(lambda: waiting(lane) == 2, "the first to come back")
    threads.join()
    assert threads.done == ["asked", "begun", "new"]


def in_line(lane: Lane, threads: Threads, names: str, hurried: set[str]) -> None:
    """Have threads wait for a place, one behind the other; those in ``hurried`` are in a hurry."""

    def work(name: str) -> None:
        with lane.hurrying(lambda: name in hurried):
            threads.done.append(name)

    for name in names:
        before = waiting(lane)
        threads.start(lambda name=name: work(name))  # type: ignore[misc]
        wait_for(lambda before=before: waiting(lane) == before + 1, f"{name} to wait")  # type: ignore[misc]


def test_who_is_in_a_hurry_goes_first_also_when_that_came_later(threads: Threads) -> None:
    lane, hurried = Lane(1), set[str]()
    with lane:
        in_line(lane, threads, "abc", hurried)
        hurried.add("c")
    threads.join()
    assert threads.done == ["c", "a", "b"]


def test_those_in_a_hurry_shut_nobody_out(threads: Threads) -> None:
    lane = Lane(1)
    with lane:
        in_line(lane, threads, "abcdef", {"c", "d", "e", "f"})
    threads.join()
    assert threads.done == ["c", "a", "d", "b", "e", "f"]


def test_who_is_in_a_hurry_does_not_wait_for_the_pace(threads: Threads) -> None:
    pace, lane, released = Pace(1, 60), Lane(1), threading.Event()

    def slow() -> None:
        with pace.kept():
            threads.done.append("slow")
            released.wait(60)

    def hurried() -> None:
        with lane.hurrying(lambda: True), pace.kept():
            threads.done.append("hurried")

    with opened(released):
        threads.start(slow)
        wait_for(lambda: threads.done == ["slow"], "the first one to be inside")
        threads.start(hurried)
        wait_for(lambda: threads.done == ["slow", "hurried"], "the second one to go ahead")


def test_a_place_is_free_again_whatever_goes_wrong() -> None:
    lane = Lane(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="defect"), lane, aside():
            raise ValueError("defect")
    with lane:
        pass
    assert lane._free == 1


def test_outside_of_any_lane_there_is_nothing_to_leave() -> None:
    with aside():
        pass


def test_a_pace_is_kept_by_those_who_are_quick(threads: Threads) -> None:
    pace, inside, most, lock = Pace(2, 60), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with pace.kept():
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    for _ in range(6):
        threads.start(work)
    threads.join()
    assert (inside, most <= 2) == (0, True)


def test_whoever_is_stuck_holds_up_nobody_for_long(threads: Threads) -> None:
    pace, lane, released = Pace(1, 0.05), Lane(1), threading.Event()

    def stuck() -> None:
        with pace.kept():
            threads.done.append("stuck")
            released.wait(60)

    def other() -> None:
        with lane, pace.kept():
            threads.done.append("other")

    with opened(released):
        threads.start(stuck)
        wait_for(lambda: threads.done == ["stuck"], "the first one to be inside")
        threads.start(other)
        wait_for(lambda: threads.done == ["stuck", "other"], "the second one to go ahead")


def test_whoever_waits_for_the_pace_leaves_the_lane_to_others(threads: Threads) -> None:
    pace, lane, released = Pace(1, 60), Lane(1), threading.Event()

    def slow() -> None:
        with pace.kept():
            threads.done.append("slow")
            released.wait(60)

    def next_one() -> None:
        with lane, pace.kept():
            threads.done.append("next")

    def computing() -> None:
        with lane:
            threads.done.append("computed")

    with opened(released):
        threads.start(slow)
        wait_for(lambda: threads.done == ["slow"], "the first one to be inside")
        threads.start(next_one)
        threads.start(computing)
        wait_for(lambda: threads.done == ["slow", "computed"], "the lane to be free")
    threads.join()
    assert threads.done[-1] == "next"
