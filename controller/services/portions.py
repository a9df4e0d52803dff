# SPDX-License-Identifier: Apache-2.0
"""What switches hold, on its way to who asked for it: portion by portion, and never more than a few listings at a time.

A listing has the flows that the switch must hold in memory, and as much of the switch's answer as nobody has taken
yet: many megabytes. So it does not wait for its client as long as that likes: a thread reads the switch, and hands on
portions as long as there is room; a client that takes none for a while, or is not done in time, is given up, and all
that was kept for it goes at once, whether it ever asks again or not.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Executor
from contextlib import closing
from typing import Final, Generic, TypeVar

from controller.errors import BusyError
from controller.watchers import TooSlowError
from sdn import logs

log = logs.get("controller.inspection")

T = TypeVar("T")

#: Listings that are under way at a time, and the seconds for which one more waits for its turn.
AT_ONCE: Final = 4
TURN_SECONDS: Final = 10.0
#: Portions that may wait for a client, seconds for which it may leave them, and seconds that it has for all of them.
WAITING: Final = 2
STALL_SECONDS: Final = 20.0
LISTING_SECONDS: Final = 300.0


class Listings:
    """Runs in the asyncio thread; what reads runs in ``threads``."""

    def __init__(
        self,
        threads: Executor,
        *,
        turn_seconds: float = TURN_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        listing_seconds: float = LISTING_SECONDS,
    ) -> None:
        self._threads = threads
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._turn_seconds = turn_seconds
        self._stall_seconds = stall_seconds
        self._listing_seconds = listing_seconds

    async def list(
        self, prepare: Callable[[], Callable[[], Generator[T, None, None]]]
    ) -> AsyncGenerator[T, None]:
        """The portions that come of a listing. ``prepare`` is called here when it is its turn; what it gives is called,
        read to its end and closed in a thread. BusyError, TooSlowError, and what ``prepare`` and the reading raise.
        """
        try:
            await asyncio.wait_for(self._turns.acquire(), self._turn_seconds)
        except TimeoutError:
            raise BusyError(
                f"{AT_ONCE} listings of flows and groups are under way, and none has ended for "
                f"{self._turn_seconds:g} s: try again later"
            ) from None
        handed: _Handed[T] = _Handed(self._stall_seconds, time.monotonic() + self._listing_seconds)
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._threads, handed.read, prepare())
        except BaseException:
            self._turns.release()
            raise
        reading.add_done_callback(lambda _: self._turns.release())
        reading.add_done_callback(handed.ended)
        try:
            while (portion := await handed.next()) is not None:
                yield portion
        finally:
            handed.leave()
        if not await reading:
            raise TooSlowError("the listing was not read in time: list again")


class _Handed(Generic[T]):
    """The portions of one listing, from the thread that reads to the client. Make it in the asyncio thread."""

    def __init__(self, stall_seconds: float, end: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._portions: asyncio.Queue[T | None] = asyncio.Queue()
        self._room = threading.Semaphore(WAITING)
        self._stall_seconds = stall_seconds
        self._end = end
        self._left = False
        self._taken = False

    def read(self, make: Callable[[], Generator[T, None, None]]) -> bool:
        """The thread. Whether the client took all that it wanted, in time."""
        with closing(make()) as portions:
            for portion in portions:
                seconds = min(self._stall_seconds, self._end - time.monotonic())
                if not self._room.acquire(timeout=max(0.0, seconds)):
                    return False
                if self._left:
                    return True
                try:
                    self._loop.call_soon_threadsafe(self._portions.put_nowait, portion)
                except RuntimeError:
                    return True  # The loop has ended: nobody listens any more.
        return True

    async def next(self) -> T | None:
        """The next portion; None: no more come."""
        if self._taken:
            self._room.release()
        portion = await self._portions.get()
        self._taken = portion is not None
        return portion

    def ended(self, reading: asyncio.Future[bool]) -> None:
        """The thread has ended; what it has handed over before has come."""
        # The client may hear of it late, or never: until then nothing is kept.
        if not reading.cancelled() and (problem := reading.exception()) is not None:
            traceback.clear_frames(problem.__traceback__)
            if self._left:
                log.debug("a listing that nobody waits for has failed", error=str(problem))
        elif not reading.cancelled() and not reading.result():
            while not self._portions.empty():
                self._portions.get_nowait()
        self._portions.put_nowait(None)

    def leave(self) -> None:
        """The client wants no more."""
        self._left = True
        self._room.release()
