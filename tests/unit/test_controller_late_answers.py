# SPDX-License-Identifier: Apache-2.0
"""Controllers whose store answers late, refuses, or tells in the meantime what others wrote: each keeps its part."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.engine import Engine
from controller.follower import Follower
from controller.ha import ownership
from controller.ledger import Ledger
from controller.records import MEMBERS, OWNERS, DownRecord, OwnerRecord, down_key, encode, member_key
from controller.store import Check, Delete, Event, Operation, Put, Store, StoreError, open_store
from tests.unit.services_engine import register
from tests.unit.several_engines import PATIENCE, gone, member, several, until

MARK = DownRecord(incarnation="a/1", by="b", at="2026-01-01T00:00:00.000Z")
AGAIN = DownRecord(incarnation="a/1", by="b", at="2026-01-01T00:00:01.000Z")


class LateStore:
    """A store whose answer to the first write of a key comes only when it is released; what was written is there at
    once.
    """

    def __init__(self, engine: Engine, key: str) -> None:
        self.real: Store = engine.ledger._store
        self._key = key
        self.written = threading.Event()
        self._released = threading.Event()
        engine.ledger._store = self

    def write(self, operations: Sequence[Operation]) -> int:
        revision = self.real.write(operations)
        first = not self.written.is_set()
        if first and any(not isinstance(one, Check) and one.key == self._key for one in operations):
            self.written.set()
            assert self._released.wait(PATIENCE)
        return revision

    def release(self) -> None:
        self._released.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def run(folder: Path, scenario: Callable[[Engine, Engine], Awaitable[None]]) -> None:
    async def both() -> None:
        async with several(folder, "a", "b") as (first, second):
            await until(lambda: first.ownership.members.standing(), "the first to stand")
            await scenario(first, second)

    asyncio.run(both())


def marked(store: Store) -> bool:
    """Whether the store says that the first one is down."""
    return store.get(down_key("a")) is not None


def test_who_is_marked_anew_while_it_rises_knows_it_and_rises_again(tmp_path: Path) -> None:
    async def scenario(first: Engine, _second: Engine) -> None:
        late = LateStore(first, down_key("a"))
        late.real.write([Put(down_key("a"), encode(MARK))])
        await until(late.written.is_set, "it to rise")
        revision = late.real.write([Put(down_key("a"), encode(AGAIN))])
        await until(lambda: first.ledger.known().get(down_key("a")) == revision, "the new mark to be told")
        late.release()
        await until(lambda: not marked(late.real), "it to rise again")
        assert len(first.ownership._marks._damping.marked_at) == 2
        await until(lambda: first.ownership.members.own_mark() is None, "it to know that")

    run(tmp_path, scenario)


def test_who_marks_another_one_late_does_not_take_it_for_gone_when_it_has_risen(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        late = LateStore(second, down_key("a"))
        second.ownership.silent("a", "a/1", "a test")
        await until(late.written.is_set, "it to be marked")
        await until(lambda: not marked(late.real), "it to rise")
        last = late.real.write([Put(member_key("c"), encode(member("c")))])
        await until(lambda: second.ledger.known().get(member_key("c")) == last, "the other one to be told")
        second.ownership.heard("a", "a/1")
        late.release()
        await asyncio.sleep(0.2)
        assert second.ownership.members.own_mark() is None
        assert second.ownership.members.down("a") is None

    run(tmp_path, scenario)


def test_a_write_that_fails_is_not_another_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(first: Engine, _second: Engine) -> None:
        store = first.ledger._store
        write = first.ledger.write
        failed: list[Sequence[Operation]] = []

        async def fails(operations: Sequence[Operation], **named: Any) -> int:
            if len(failed) < 3 and any(isinstance(one, Delete) for one in operations):
                failed.append(operations)
                raise StoreError("away")
            return await write(operations, **named)

        monkeypatch.setattr(first.ledger, "write", fails)
        store.write([Put(down_key("a"), encode(MARK))])
        await until(lambda: first.ownership.members.own_mark() is not None, "the mark to be told")
        await until(lambda: not marked(store), "it to rise")
        assert len(failed) == 3
        assert len(first.ownership._marks._damping.marked_at) == 1

    run(tmp_path, scenario)


def test_a_mark_of_this_start_is_sat_out_also_while_the_own_record_is_away(tmp_path: Path) -> None:
    async def scenario(first: Engine, _second: Engine) -> None:
        store = first.ledger._store
        gone(store, "a")
        await until(lambda: not first.ownership.members.standing(), "its record to be gone")
        store.write([Put(down_key("a"), encode(MARK))])
        await until(lambda: first.ownership._marks._damping.marked_at != (), "it to know that it is marked")
        assert marked(store)
        await until(lambda: not marked(store), "it to rise")

    run(tmp_path, scenario)


def test_a_mark_of_a_former_start_is_taken_away_at_once(tmp_path: Path) -> None:
    async def scenario(first: Engine, _second: Engine) -> None:
        store = first.ledger._store
        store.write([Put(down_key("a"), encode(DownRecord(incarnation="a/0", by="b", at=MARK.at)))])
        await until(lambda: not marked(store), "it to be taken away")
        assert first.ownership._marks._damping.marked_at == ()

    run(tmp_path, scenario)


def test_who_comes_back_is_not_marked_for_a_silence_before(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        store = second.ledger._store
        second.ownership.silent("a", "a/1", "a test")
        await until(lambda: marked(store), "it to be marked")
        gone(store, "a")
        await until(lambda: "a" not in second.ownership.members.all(), "its record to be gone")
        store.write([Delete(down_key("a"))])
        store.write([Put(member_key("a"), encode(member("a")))])
        await until(lambda: "a" in second.ownership.members.all(), "its record to be back")
        await asyncio.sleep(0.2)
        assert not marked(store)
        second.ownership.silent("a", "a/1", "a test")
        await until(lambda: marked(store), "it to be marked when it is silent now")

    run(tmp_path, scenario)


def test_who_loses_its_record_while_it_takes_goes_on_when_it_has_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_AT_ONCE", 1)

    async def alone() -> None:
        async with several(tmp_path, "a") as (only,):
            store = only.ledger._store
            late = LateStore(only, f"{OWNERS}node-1")
            for number in (1, 2, 3):
                await register(only, number)
            await until(late.written.is_set, "it to take the first")
            gone(store, "a")
            await until(lambda: not only.ownership.members.standing(), "its record to be gone")
            late.release()
            await asyncio.sleep(0.2)
            store.write([Put(member_key("a"), encode(member("a")))])
            nodes = [f"node-{number}" for number in (1, 2, 3)]
            await until(lambda: all(map(only.ownership.owns, nodes)), "it to own all")

    asyncio.run(alone())


def test_what_others_write_while_everything_is_loaded_is_not_missed(tmp_path: Path) -> None:
    """A controller that loads may have to write itself: what it follows begins where it has listed."""

    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        told: list[str] = []

        def apply(event: Event) -> None:
            told.append(event.key)

        ledger = Ledger(store)
        follower = Follower(store, ledger, apply)
        try:
            await ledger.list_all()
            store.write([Put(f"{MEMBERS}other", encode(member("other")))])
            own = OwnerRecord(controller="a", incarnation="a/1")
            await ledger.write([Put(f"{OWNERS}node-1", encode(own))])
            follower.start()
            store.write([Put(f"{MEMBERS}last", encode(member("last")))])
            await until(lambda: f"{MEMBERS}last" in told, "the last change to be told")
            assert told == [f"{MEMBERS}other", f"{MEMBERS}last"]
        finally:
            follower.stop()
            ledger.stop()
            store.close()

    asyncio.run(scenario())


def test_who_lists_anew_and_finds_no_difference_is_not_behind(tmp_path: Path) -> None:
    """What came and went while changes were lost is no change, and no lag for ever."""

    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")

        def apply(event: Event) -> None:
            raise AssertionError(event)

        ledger = Ledger(store)
        follower = Follower(store, ledger, apply)
        try:
            await ledger.list_all()
            store.write([Put(f"{MEMBERS}other", encode(member("other")))])
            store.write([Delete(f"{MEMBERS}other")])
            store.compact(store.revision())
            follower.start()
            await until(lambda: ledger.followed_to == store.revision(), "it to have followed to the end")
        finally:
            follower.stop()
            ledger.stop()
            store.close()

    asyncio.run(scenario())
