# SPDX-License-Identifier: Apache-2.0
"""Listings on their way to clients: whole and in order, or given up with all that was kept for them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from controller.errors import BusyError
from controller.services.portions import AT_ONCE, WAITING, Listings
from controller.watchers import TooSlowError

LONG = 60.0


class Read:
    """What a listing reads: numbers, from 0 on; knows whether it is over."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.over = threading.Event()
        self.given = 0
        self._count = count
        self._error = error

    def __call__(self) -> Generator[int, None, None]:
        try:
            for number in range(self._count):
                self.given = number + 1
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.over.set()


@asynccontextmanager
async def listings(**seconds: float) -> AsyncIterator[Listings]:
    with ThreadPoolExecutor(8) as threads:
        yield Listings(threads, **{"turn_seconds": LONG, "stall_seconds": LONG, **seconds})


async def over(read: Read) -> None:
    assert await asyncio.to_thread(read.over.wait, LONG)


async def begun(made: Listings) -> list[AsyncGenerator[int, None]]:
    """As many listings as there may be, each begun and not read further."""
    found = [made.list(lambda: Read(1000)) for _ in range(AT_ONCE)]
    for listing in found:
        await anext(listing)
    return found


def test_all_portions_come_in_order_and_an_error_behind_them() -> None:
    async def run() -> None:
        async with listings() as made:
            assert [number async for number in made.list(lambda: Read(100))] == list(range(100))
            assert [number async for number in made.list(lambda: Read(0))] == []
            got = []
            with pytest.raises(OSError, match="gone"):
                async for number in made.list(lambda: Read(3, OSError("gone"))):
                    got.append(number)
            assert got == [0, 1, 2]

    asyncio.run(run())


def test_a_client_that_does_not_read_is_given_up_before_it_ever_reads_again() -> None:
    async def run() -> None:
        async with listings(stall_seconds=0.2) as made:
            read = Read(1000)
            listing = made.list(lambda: read)
            assert await anext(listing) == 0
            await over(read)
            assert read.given <= 1 + WAITING
            # Its turn is over, and what waited for it is gone, too.
            for other in await begun(made):
                await other.aclose()
            with pytest.raises(TooSlowError, match="list again"):
                await anext(listing)

    asyncio.run(run())


def test_a_client_that_reads_too_slowly_to_come_to_an_end_is_given_up() -> None:
    async def run() -> None:
        async with listings(listing_seconds=0.3) as made:
            with pytest.raises(TooSlowError, match="list again"):
                async for _ in made.list(lambda: Read(1000)):
                    await asyncio.sleep(0.02)

    asyncio.run(run())


def test_what_was_read_goes_with_a_listing_that_has_failed_or_was_given_up() -> None:
    class Large:
        pass

    kept: list[weakref.ref[Large]] = []

    def reading(fails: bool) -> Generator[int, None, None]:
        large = Large()
        kept.append(weakref.ref(large))
        yield 0
        if fails:
            raise OSError("gone")
        yield from range(1, 1000)
        del large

    async def run() -> None:
        async with listings(stall_seconds=0.2) as made:
            held = [made.list(lambda fails=fails: lambda: reading(fails)) for fails in (False, True)]  # type: ignore[misc]
            for listing in held:
                assert await anext(listing) == 0
            deadline = asyncio.get_running_loop().time() + LONG
            while any(large() is not None for large in kept):
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
            for listing in held:
                await listing.aclose()

    asyncio.run(run())


def test_more_than_a_few_at_a_time_are_refused_when_they_have_waited() -> None:
    async def run() -> None:
        async with listings(turn_seconds=0.2) as made:
            held = await begun(made)
            with pytest.raises(BusyError, match="try again later"):
                await anext(made.list(lambda: Read(1)))
            for listing in held:
                await listing.aclose()

    asyncio.run(run())


def test_whoever_waits_for_a_turn_keeps_nothing_and_has_it_when_another_one_ends() -> None:
    prepared = threading.Event()

    def prepare() -> Read:
        prepared.set()
        return Read(1)

    async def run() -> None:
        async with listings() as made:
            held = await begun(made)
            waiting = asyncio.ensure_future(anext(made.list(prepare)))
            await asyncio.sleep(0.05)
            assert not prepared.is_set()
            await held[0].aclose()
            assert await waiting == 0
            for listing in held[1:]:
                await listing.aclose()

    asyncio.run(run())


def test_a_client_that_leaves_ends_the_reading() -> None:
    async def run() -> None:
        async with listings() as made:
            read = Read(1000)
            listing = made.list(lambda: read)
            assert await anext(listing) == 0
            await listing.aclose()
            await over(read)
            assert read.given <= 2 + WAITING

    asyncio.run(run())


def test_what_cannot_be_prepared_takes_no_turn() -> None:
    def unprepared() -> Read:
        raise ValueError("no such owner")

    async def run() -> None:
        async with listings(turn_seconds=0.2) as made:
            for _ in range(AT_ONCE + 1):
                with pytest.raises(ValueError, match="no such owner"):
                    await anext(made.list(unprepared))

    asyncio.run(run())
