# SPDX-License-Identifier: Apache-2.0
"""How many threads compute at the same time, however many switches there are.

Threads share one interpreter: when hundreds have work at once (a policy for all pods, switches that all come back),
each of them, the asyncio loop, heartbeats and echoes too, would have its turn only after all others. So of the threads
that serve switches only a few compute at a time, and the others wait without asking for the interpreter.

Who waits for a switch steps aside meanwhile: a slow switch holds up nobody. Small work has a lane of its own: a pod on
one node does not wait for the comparison of all others. Where its own switch is to be compared first, that one is in a
*hurry*, and is compared before those for which nobody waits. And who has something to do first that must not wait, such
as to ask for a role, is *called off*: it stands in line again when that is done.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

_current = threading.local()


def _no() -> bool:
    return False


def _closed() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


@dataclass(eq=False, slots=True)
class Waiter:
    """Who waits for places, one at a time, and what may come up meanwhile. Both are asked in other threads while a lane
    is locked, so that they must be quick and lock nothing.
    """

    #: Whether it is in a hurry by now.
    hurry: Callable[[], bool] = _no
    #: Whether there is something to do before, that needs no place.
    called_off: Callable[[], bool] = _no
    #: Where it stands in line, before it has begun.
    _lane: Lane | None = None
    _placed: bool = False
    #: Opened by whoever gives it a place, or takes it out of the line.
    _gate: threading.Lock = field(default_factory=_closed)

    def look_up(self) -> None:
        """Whether it is called off may be otherwise now. From any thread, with nothing locked that a lane's users
        want.
        """
        lane = self._lane
        if lane is not None:
            lane._look_up(self)


class Lane:
    """So many threads at a time are inside of ``with lane``, and not aside. Who comes back from aside goes before those
    who have not begun: what is begun is ended. Who is in a hurry goes before both, but at most every second time.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._back: deque[Waiter] = deque()
        self._new: deque[Waiter] = deque()
        self._hurried = False

    @contextmanager
    def entered(self, waiter: Waiter) -> Iterator[bool]:
        """As ``with lane``, unless it is called off while it waits: then it is not inside, and False is given."""
        if not self._take_place(self._new, waiter):
            yield False
            return
        _current.lane, _current.hurry = self, waiter.hurry
        try:
            yield True
        finally:
            _current.lane, _current.hurry = None, _no
            self._give_place()

    def __enter__(self) -> None:
        self._take_place(self._new, Waiter())
        _current.lane = self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.lane = None
        self._give_place()

    def _take_place(self, line: deque[Waiter], waiter: Waiter) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            waiter._placed = False
            if line is self._new:
                # Before it is asked whether it is called off: one of the two sees what the other has done.
                waiter._lane = self
                if waiter.called_off():
                    waiter._lane = None
                    return False
            line.append(waiter)
        waiter._gate.acquire()
        return waiter._placed

    def _look_up(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter in self._new and waiter.called_off():
                self._new.remove(waiter)
                waiter._lane = None
                waiter._gate.release()

    def _give_place(self) -> None:
        with self._lock:
            if (following := self._next()) is not None:
                following._lane = None
                following._placed = True
                following._gate.release()
            else:
                self._free += 1

    def _next(self) -> Waiter | None:
        """Who is next, out of its queue."""
        if not self._hurried:
            for queue in (self._back, self._new):
                for number, waiting in enumerate(queue):
                    if waiting.hurry():
                        del queue[number]
                        self._hurried = True
                        return waiting
        self._hurried = False
        for queue in (self._back, self._new):
            if queue:
                return queue.popleft()
        return None

    @contextmanager
    def _left(self) -> Iterator[None]:
        self._give_place()
        try:
            yield
        finally:
            self._take_place(self._back, Waiter(_hurry()))


def _hurry() -> Callable[[], bool]:
    hurry: Callable[[], bool] = getattr(_current, "hurry", _no)
    return hurry


@contextmanager
def aside() -> Iterator[None]:
    """While this thread waits for something that is not computed here, another one may have its place."""
    lane: Lane | None = getattr(_current, "lane", None)
    if lane is None:
        yield
    else:
        with lane._left():
            yield


class Pace:
    """So many at a time, as long as each is quick: whoever had to wait for ``patience`` seconds goes ahead, so that
    some that are stuck hold up nobody for long; and at once whoever is in a hurry.
    """

    def __init__(self, places: int, patience: float) -> None:
        self._places = threading.Semaphore(places)
        self._patience = patience

    @contextmanager
    def kept(self) -> Iterator[None]:
        """For what is to be done in this pace."""
        placed = self._places.acquire(blocking=False)
        if not placed and not _hurry()():
            with aside():
                placed = self._places.acquire(timeout=self._patience)
        try:
            yield
        finally:
            if placed:
                self._places.release()


#: For few changes, for whatever takes long, and for what is to be known in case another controller goes away. Of Python
#: code one thread runs at a time: more places would make nothing faster, and whoever else has work waits some
#: milliseconds for each of them (``sys.getswitchinterval``). What is this controller's has more than what stands by.
SMALL: Final = Lane(2)
LARGE: Final = Lane(2)
STAND_BY: Final = Lane(1)
#: For asking switches for the role of their master before anything else is done. It waits for no comparison, nor for
#: audits, which are small work as long as nothing else is to be done.
ROLES: Final = Lane(2)
#: Switches that are read back: each answer of tens of thousands of entries has a thread that takes it in.
READING: Final = Pace(8, 0.5)
