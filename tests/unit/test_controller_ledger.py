# SPDX-License-Identifier: Apache-2.0
"""The way into the store: what becomes of changes that wait while the store does not answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from controller.ledger import Ledger, whole
from controller.store import Operation, Put, StoreError
from controller.store.sqlite import SqliteStore
from controller.together import Asked, Together
from sdn.v1 import types_pb2

WAIT = 0.2


class Away(SqliteStore):
    """A store that takes its time to say that it is away, while it is."""

    away = True
    asked = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.back = threading.Event()

    def write(self, operations: Sequence[Operation]) -> int:
        if not self.away:
            return super().write(operations)
        self.asked += 1
        self.back.wait(2 * WAIT)
        raise StoreError("nobody answers")


class Changes:
    """As the engine's parts make them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @whole
    async def change(self, number: int) -> int:
        async with self._ledger.lock:
            return await self._ledger.write([Put(f"/sdn/{number}", b"1")])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    monkeypatch.setattr("controller.ledger.WAIT_SECONDS", WAIT)
    opened = Away(tmp_path / "store.db")
    yield opened
    opened.close()


def test_what_waits_for_a_store_that_is_away_is_told_when_the_first_one_is(store: Away) -> None:
    async def scenario() -> None:
        ledger = Ledger(store)
        changes = Changes(ledger)
        told = await asyncio.gather(*map(changes.change, range(20)), return_exceptions=True)
        assert [type(problem) for problem in told] == [StoreError] * 20
        assert str(told[0]) == "nobody answers"
        assert {str(problem) for problem in told[1:]} == {
            "not done, since the store has just failed: nobody answers"
        }
        assert store.asked == 1
        store.away = False
        # It is asked again by what comes now, and by what waited longer than that is fresh.
        assert await changes.change(20) > 0
        ledger.stop()

    asyncio.run(scenario())
    assert [entry.key for entry in store.list_prefix("/sdn/").entries] == ["/sdn/20"]


def test_pods_that_were_to_be_stored_together_are_told_likewise(store: Away) -> None:
    """Alone each of them is tried again, which takes no time of its own."""

    async def scenario() -> None:
        ledger = Ledger(store)
        changes = Changes(ledger)

        async def attach(batch: Sequence[Asked]) -> None:
            await changes.change(len(batch))

        together = Together(attach)
        loop = asyncio.get_running_loop()
        asked = [
            Asked("node-1", types_pb2.Attachment(), lambda _why: None, lambda: True, loop.create_future())
            for _ in range(20)
        ]
        told = await asyncio.gather(*map(together.store, asked), return_exceptions=True)
        assert [type(problem) for problem in told] == [StoreError] * 20
        assert store.asked == 1
        ledger.stop()

    asyncio.run(scenario())


def test_what_waits_for_a_store_that_is_only_slow_is_done(store: Away) -> None:
    async def scenario() -> None:
        ledger = Ledger(store)
        store.away = False
        changes = Changes(ledger)
        async with ledger.lock:
            waiting = asyncio.gather(*map(changes.change, range(20)))
            await asyncio.sleep(2 * WAIT)
        assert len(await waiting) == 20
        ledger.stop()

    asyncio.run(scenario())


def test_questions_without_the_lock_are_told_likewise(store: Away) -> None:
    async def scenario() -> None:
        ledger = Ledger(store)
        questions = [ledger.confirm(f"/sdn/{number}") for number in range(20)]
        told = await asyncio.gather(*questions, return_exceptions=True)
        assert [type(problem) for problem in told] == [StoreError] * 20
        assert store.asked == 1
        ledger.stop()

    asyncio.run(scenario())


def test_an_end_sends_nothing_that_still_waits(store: Away) -> None:
    async def scenario() -> None:
        ledger = Ledger(store)
        waiting = [asyncio.ensure_future(ledger.confirm(f"/sdn/{number}")) for number in range(20)]
        while not store.asked:
            await asyncio.sleep(0.01)
        ledger.stop()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert store.asked == 1
        assert sum(task.cancelled() for task in waiting) == 19

    asyncio.run(scenario())
