# SPDX-License-Identifier: Apache-2.0
"""Few threads read all connections, each wherever something has arrived.

A thread for each connection would do the same until hundreds have something to say at once. Then each of them waits for
the interpreter, and every one that waits asks for it again after each ``sys.getswitchinterval``: with a thousand
switches that alone takes all processors, and what is waited for never gets done. Here no more than :data:`READERS`
threads wait for it, however many switches there are.

What is read is handled in the thread that reads, so that a handler may wait for nothing. Nobody has more than one
portion read before all others that have something were heard: one that floods slows others down, but does not shut
them out.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

#: More than one, so that a message which takes long to handle holds up only some.
READERS: Final = 3


class Source(Protocol):
    """What is read."""

    def fileno(self) -> int:
        """Of a non-blocking socket; the same for as long as it is read."""

    def arrived(self) -> bool | None:
        """Read a portion and handle it. None: nothing had arrived after all; False: this was the end."""

    def writable(self) -> None:
        """It takes more now."""


class Reading:
    """A source that is read; see :meth:`Reader.read`."""

    def __init__(self, source: Source, idle_seconds: float, on_idle: Callable[[], None]) -> None:
        self.source = source
        self.idle_seconds = idle_seconds
        self.on_idle = on_idle
        #: When something arrived last, or its absence was told, on the monotonic clock.
        self.last = time.monotonic()
        self.problem: Exception | None = None
        #: Nothing is read any more; and this was told.
        self.over = False
        self.ended = threading.Event()

    @property
    def idle_at(self) -> float:
        """When it is to be told that nothing arrived, if nothing does."""
        return self.last + self.idle_seconds


class Readers:
    """Those who read; each source is one's until its end."""

    def __init__(self, count: int = READERS) -> None:
        self._readers = [Reader(number) for number in range(count)]
        self._turn = itertools.count()

    def next(self) -> Reader:
        """For a new source; each has its turn."""
        return self._readers[next(self._turn) % len(self._readers)]


class Reader:
    """Has a thread while there is something to read."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._tasks: deque[Callable[[], None]] = deque()
        self._readings: dict[int, Reading] = {}
        #: When each reading may be idle, at the earliest.
        self._idle: list[tuple[float, int, Reading]] = []
        self._count = itertools.count()
        #: What is over, and was not told yet.
        self._over: list[Reading] = []
        self._lock = threading.Lock()
        #: How much is read, or will be as soon as the thread has heard of it.
        self._work = 0

    def read(self, source: Source, idle_seconds: float, on_idle: Callable[[], None]) -> None:
        """Have it read until it ends, and wait for that.

        ``on_idle`` is called, in the thread that reads, whenever nothing at all arrived for ``idle_seconds``. Raises
        what handling it or ``on_idle`` raised, which ends the reading; OSError, RuntimeError: it cannot be read.
        """
        reading = Reading(source, idle_seconds, on_idle)
        with self._lock:
            if not self._work:
                threading.Thread(target=self._run, name=f"reader {self._number}", daemon=True).start()
            self._work += 1
            self._soon(lambda: self._begin(reading))
        reading.ended.wait()
        if reading.problem is not None:
            raise reading.problem

    def when_writable(self, source: Source) -> None:
        """Call its ``writable`` once it takes more; nothing, if it is not read any more. Of one that is not read
        yet it is called when that begins. From any thread.
        """
        with self._lock:
            if self._work:
                self._soon(lambda: self._watch(source))

    def _soon(self, task: Callable[[], None]) -> None:
        self._tasks.append(task)
        os.eventfd_write(self._wake, 1)

    # In the thread.

    def _run(self) -> None:
        ended = False
        while not ended:
            for found, events in self._epoll.poll(self._until_idle()):
                if found == self._wake:
                    os.eventfd_read(self._wake)
                    while self._tasks:
                        self._tasks.popleft()()
                elif (reading := self._readings.get(found)) is not None:
                    self._attend(reading, found, events)
            self._tell_idle()
            ended = self._let_go()

    def _let_go(self) -> bool:
        """Those that have ended are told; whether nothing is left to do."""
        over, self._over = self._over, []
        with self._lock:
            self._work -= len(over)
            ended = not self._work
            if ended:
                self._idle.clear()
        for reading in over:
            reading.ended.set()
        return ended

    def _begin(self, reading: Reading) -> None:
        number = reading.source.fileno()
        try:
            # Something may have been put aside already: the first time that it takes more comes at once.
            self._epoll.register(number, select.EPOLLIN | select.EPOLLOUT)
        except (OSError, ValueError) as problem:  # the system watches no more descriptors, or it is closed
            reading.problem = problem
            reading.over = True
            self._over.append(reading)
            return
        self._readings[number] = reading
        self._push_idle(reading)
        # A layer above the socket may have taken in what came with something else.
        self._attend(reading, number, select.EPOLLIN)

    def _watch(self, source: Source) -> None:
        reading = self._readings.get(source.fileno())
        if reading is not None and reading.source is source:
            self._epoll.modify(source.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _attend(self, reading: Reading, number: int, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._epoll.modify(number, select.EPOLLIN)
                reading.source.writable()
            if events & ~select.EPOLLOUT:
                arrived = reading.source.arrived()
                if arrived:
                    reading.last = time.monotonic()
                elif arrived is False:
                    self._end(reading, number)
        except Exception as problem:  # noqa: BLE001 - raised where the connection is served
            reading.problem = problem
            self._end(reading, number)

    def _end(self, reading: Reading, number: int) -> None:
        del self._readings[number]
        self._epoll.unregister(number)
        self._over.append(reading)
        reading.over = True

    def _push_idle(self, reading: Reading) -> None:
        heapq.heappush(self._idle, (reading.idle_at, next(self._count), reading))

    def _until_idle(self) -> float | None:
        return max(0.0, self._idle[0][0] - time.monotonic()) if self._idle else None

    def _tell_idle(self) -> None:
        now = time.monotonic()
        while self._idle and self._idle[0][0] <= now:
            _, _, reading = heapq.heappop(self._idle)
            if reading.over:
                continue
            if reading.idle_at <= now:
                reading.last = now
                try:
                    reading.on_idle()
                except Exception as problem:  # noqa: BLE001 - raised where the connection is served
                    reading.problem = problem
                    self._end(reading, reading.source.fileno())
                    continue
            self._push_idle(reading)
