# SPDX-License-Identifier: Apache-2.0
"""How many threads compute at the same time, however many switches there are.

Threads share one interpreter: when hundreds have work at once (a policy for all pods, switches that all come back),
each of them, the asyncio loop, heartbeats and echoes too, would have its turn only after all others. So of the threads
that serve switches only a few compute at a time, and the others wait without asking for the interpreter.

Who waits for a switch steps aside meanwhile: a slow switch holds up nobody. Small work has a lane of its own: a pod on
one node does not wait for the comparison of all others. Where its own switch is to be compared first, that one is in a
*hurry*, and is compared before those for which nobody waits.
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


def _no_hurry() -> bool:
    return False


@dataclass(eq=False, slots=True)
class _Waiting:
    #: Whether it is in a hurry by now; asked while it waits, so that it must be quick.
    hurry: Callable[[], bool]
    gate: threading.Lock = field(default_factory=threading.Lock)


class Lane:
    """So many threads at a time are inside of ``with lane``, and not aside. Who comes back from aside goes before those
    who have not begun: what is begun is ended. Who is in a hurry goes before both, but at most every second time.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._back: deque[_Waiting] = deque()
        self._new: deque[_Waiting] = deque()
        self._hurried = False

    @contextmanager
    def hurrying(self, hurry: Callable[[], bool]) -> Iterator[None]:
        """As ``with lane``, for one that may be in a hurry, or become so while it waits."""
        _current.hurry = hurry
        try:
            with self:
                yield
        finally:
            _current.hurry = _no_hurry

    def __enter__(self) -> None:
        self._take_place(self._new)
        _current.lane = self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.lane = None
        self._give_place()

    def _take_place(self, queue: deque[_Waiting]) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            waiting = _Waiting(_hurry())
            waiting.gate.acquire()
            queue.append(waiting)
        # Opened by whoever leaves, whose place it is then.
        waiting.gate.acquire()

    def _give_place(self) -> None:
        with self._lock:
            if (following := self._next()) is not None:
                following.gate.release()
            else:
                self._free += 1

    def _next(self) -> _Waiting | None:
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
            self._take_place(self._back)


def _hurry() -> Callable[[], bool]:
    hurry: Callable[[], bool] = getattr(_current, "hurry", _no_hurry)
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
#: For asking switches for a role before they are compared. It waits for no comparison, nor for audits, which are
#: small work as long as nothing else is to be done.
ROLES: Final = Lane(2)
#: Switches that are read back: each answer of tens of thousands of entries has a thread that takes it in.
READING: Final = Pace(8, 0.5)
