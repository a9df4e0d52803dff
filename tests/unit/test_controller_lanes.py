# SPDX-License-Identifier: Apache-2.0
"""How many threads compute at a time, and who is next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from controller.lanes import Lane, Pace, Waiter, aside
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
        with lane.entered(Waiter(lambda: name in hurried)):
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


def called_off_at(lane: Lane, threads: Threads, name: str, elsewhere: set[str]) -> Waiter:
    """Have a thread wait for a place, and tell whether it got one; whoever is in ``elsewhere`` is called off."""
    waiter = Waiter(called_off=lambda: name in elsewhere)

    def work() -> None:
        with lane.entered(waiter) as inside:
            threads.done.append(f"{name} {'inside' if inside else 'called off'}")

    threads.start(work)
    return waiter


def test_who_is_called_off_leaves_the_line_and_all_others_have_their_place(threads: Threads) -> None:
    lane, elsewhere = Lane(1), set[str]()
    with lane:
        waiters = []
        for number, name in enumerate("abc", 1):
            waiters.append(called_off_at(lane, threads, name, elsewhere))
            wait_for(lambda number=number: waiting(lane) == number, "it to stand in line")  # type: ignore[misc]
        elsewhere.add("b")
        for waiter in waiters:
            waiter.look_up()
        wait_for(lambda: threads.done == ["b called off"], "the second one to leave")
        assert waiting(lane) == 2
    threads.join()
    assert threads.done == ["b called off", "a inside", "c inside"]
    assert lane._free == 1


def test_who_is_called_off_already_does_not_stand_in_line(threads: Threads) -> None:
    lane = Lane(1)
    with lane:
        called_off_at(lane, threads, "a", {"a"})
        wait_for(lambda: threads.done == ["a called off"], "it to be told")
    called_off_at(lane, threads, "b", {"b"})
    threads.join()
    assert threads.done[-1] == "b inside", "a place that is free is taken"
    assert lane._free == 1


def test_whoever_looks_up_in_any_moment_is_lost_in_none(threads: Threads) -> None:
    lane, rounds, ended = Lane(1), 300, threading.Event()

    def work(waiter: Waiter, elsewhere: list[bool]) -> None:
        for _ in range(rounds):
            with lane.entered(waiter) as inside:
                elsewhere[0] = False
                time.sleep(0)  # the others run, and stand in line
            threads.done.append("inside" if inside else "called off")

    def calling(waiter: Waiter, elsewhere: list[bool]) -> None:
        while not ended.is_set():
            elsewhere[0] = True
            waiter.look_up()
            time.sleep(1e-4)

    with opened(ended):
        for _ in range(4):
            elsewhere = [False]
            waiter = Waiter(called_off=lambda elsewhere=elsewhere: elsewhere[0])  # type: ignore[misc]
            threads.start(lambda w=waiter, e=elsewhere: work(w, e))  # type: ignore[misc]
            threads.start(lambda w=waiter, e=elsewhere: calling(w, e))  # type: ignore[misc]
        wait_for(lambda: len(threads.done) == 4 * rounds, "all rounds to be over")
    threads.join()
    assert set(threads.done) == {"inside", "called off"}
    assert lane._free == 1
    assert not waiting(lane)


def test_who_is_in_a_hurry_does_not_wait_for_the_pace(threads: Threads) -> None:
    pace, lane, released = Pace(1, 60), Lane(1), threading.Event()

    def slow() -> None:
        with pace.kept():
            threads.done.append("slow")
            released.wait(60)

    def hurried() -> None:
        with lane.entered(Waiter(lambda: True)), pace.kept():
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
