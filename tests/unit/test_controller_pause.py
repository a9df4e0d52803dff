# SPDX-License-Identifier: Apache-2.0
"""A controller whose lease is lost, and regained, or not: what it owns it keeps for a while, without writing it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controller import confirmations
from controller.cluster import key_of
from controller.engine import Engine
from controller.ha import ownership
from controller.ledger import under
from controller.records import ATTACHMENTS, OwnerRecord, decode_attachment, encode, owner_key
from controller.store import Put, Store, StoreError, open_store
from tests.switch.controller_process import attachment
from tests.unit.services_engine import register
from tests.unit.several_engines import member, one_of_several, until

#: Seconds; longer than anything is waited for.
LONG = 3600.0

Scenario = Callable[[Engine, Store, list[str]], Awaitable[None]]


def run(folder: Path, scenario: Scenario) -> None:
    """With an engine that owns a node, its store, and what becomes of the node's session and synchronizer."""

    async def whole() -> None:
        store = open_store(f"sqlite://{folder}/store.db")
        async with one_of_several(store, member("a")) as engine:
            await register(engine, 1)
            await until(lambda: engine.ownership.owns("node-1"), "the node to be owned")
            said: list[str] = []
            engine.end_session = lambda node: said.append(f"session of {node} ended")
            pause = engine.programs.pause
            engine.ownership.on_pause = lambda paused: (
                said.append("paused" if paused else "goes on"),  # type: ignore[func-returns-value]
                pause(paused),
            )[1]
            await scenario(engine, store, said)
        store.close()

    asyncio.run(whole())


def test_what_nobody_has_taken_meanwhile_is_owned_as_before(tmp_path: Path) -> None:
    async def scenario(engine: Engine, _store: Store, said: list[str]) -> None:
        before = engine.ownership.generation_of("node-1")
        engine.ownership.lease(False)
        assert engine.ownership.owns("node-1")
        await asyncio.sleep(0.3)
        engine.ownership.lease(True)
        assert engine.ownership.generation_of("node-1") == before
        assert said == ["paused", "goes on"]

    run(tmp_path, scenario)


def test_what_another_has_taken_meanwhile_is_lost_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "PAUSE_SECONDS", LONG)

    async def scenario(engine: Engine, store: Store, said: list[str]) -> None:
        engine.ownership.lease(False)
        store.write([Put(owner_key("node-1"), encode(OwnerRecord(controller="b", incarnation="b/1")))])
        await until(lambda: not engine.ownership.owns("node-1"), "the node to be lost")
        assert said == ["paused", "session of node-1 ended"]

    run(tmp_path, scenario)


def test_what_its_switch_says_is_anothers_is_lost_also_where_the_store_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "PAUSE_SECONDS", LONG)

    async def scenario(engine: Engine, _store: Store, said: list[str]) -> None:
        generation = engine.ownership.generation_of("node-1")
        assert generation is not None
        engine.ownership.lease(False)
        engine.ownership.deposed("node-1", generation, generation + 1)
        await until(lambda: not engine.ownership.owns("node-1"), "the node to be lost")
        assert said == ["paused", "session of node-1 ended"]
        engine.ownership.lease(True)
        await until(
            lambda: (engine.ownership.generation_of("node-1") or 0) > generation + 1,
            "it to be taken again, since the store says that nobody has",
        )

    run(tmp_path, scenario)


def test_a_pause_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "PAUSE_SECONDS", 0.2)

    async def scenario(engine: Engine, _store: Store, said: list[str]) -> None:
        engine.ownership.lease(False)
        await until(lambda: not engine.ownership.owns("node-1"), "the node to be given up")
        assert said == ["paused", "session of node-1 ended"]
        engine.ownership.lease(True)
        assert engine.ownership.owns("node-1")

    run(tmp_path, scenario)


def test_what_was_confirmed_while_the_store_was_away_is_stored_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other controllers are to know it, whether the node has changed hands or not."""
    monkeypatch.setattr(confirmations, "AGAIN_SECONDS", 0.1)

    async def scenario(engine: Engine, _store: Store, said: list[str]) -> None:
        node = await register(engine, 1)
        await engine.attachments.attach("node-1", attachment(node, 1), lambda _why: None)
        (record,) = engine.cluster.attachments.values()

        def unwritable(*_: object) -> int:
            raise StoreError("the store has no majority")

        with monkeypatch.context() as away:
            away.setattr(engine.ledger._store, "write", unwritable)
            engine.attachments.confirmations.confirmed(record)
            await asyncio.sleep(0.3)
            engine.ownership.lease(False)
            engine.ownership.lease(True)
        pending = engine.attachments.confirmations.pending
        assert pending(key_of(record))
        await until(lambda: not pending(key_of(record)), "the confirmation to be stored")
        entries = under(ATTACHMENTS, (await engine.ledger.list_all()).entries)
        assert [still_pending for _, still_pending in map(decode_attachment, entries)] == [False]
        assert said == ["paused", "goes on"]

    run(tmp_path, scenario)
