# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests of agents when their switch is taken over while they wait: nothing was refused."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from controller.cluster import key_of
from controller.engine import Engine
from controller.loadbalancing import absence
from controller.records import ATTACHMENTS, OwnerRecord, encode, member_key, owner_key
from controller.store import Put, StoreError, open_store
from tests.switch.controller_process import attachment
from tests.unit.services_engine import register, running_engine
from tests.unit.several_engines import member, one_of_several, until


async def compiled(engine: Engine, node: str) -> None:
    """Wait until the node's synchronizer has taken in all that was submitted, and the loop what it has said."""
    synchronizer = engine.programs.synchronizer(node)
    assert synchronizer is not None
    taken = threading.Event()
    # The second one is compiled after those who waited for the first were told.
    for seen in (threading.Event(), taken):
        synchronizer.submit("taken in", lambda seen=seen: seen.set() or [])  # type: ignore[misc,func-returns-value]
        assert await asyncio.to_thread(seen.wait, 30)
    for _ in range(3):
        await asyncio.sleep(0)


async def owned(engine: Engine) -> int:
    """Wait until the first node's switch is this controller's; gives the generation."""
    await until(lambda: engine.ownership.owns("node-1"), "the node to be owned")
    generation = engine.ownership.generation_of("node-1")
    assert generation is not None
    return generation


def test_an_attachment_that_waits_is_neither_refused_nor_taken_back_when_the_switch_is_lost(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_engine(tmp_path) as engine:
            node = await register(engine, 1)
            answers: list[tuple[str, str | None]] = []
            first, second = attachment(node, 1), attachment(node, 2)
            await engine.attachments.attach("node-1", first, lambda why: answers.append(("attach", why)))
            await engine.attachments.full_state(
                "node-1", [first, second], lambda why: answers.append(("full state", why))
            )
            await compiled(engine, "node-1")
            before = dict(engine.cluster.attachments)
            assert len(before) == 2
            engine.programs.disown("node-1")
            await compiled(engine, "node-1")
            await engine.attachments.detach(
                "node-1",
                second.container_id,
                second.interface_name,
                lambda why: answers.append(("detach", why)),
            )
            await compiled(engine, "node-1")
            await asyncio.wait(engine.attachments._tasks or {asyncio.ensure_future(asyncio.sleep(0))})
            assert answers == [], "whoever owns the switch answers"
            kept = {
                key: record for key, record in before.items() if record.container_id == first.container_id
            }
            assert engine.cluster.attachments == kept
            entries = (await engine.ledger.list_all()).entries
            assert len([entry for entry in entries if entry.key.startswith(ATTACHMENTS)]) == 1
            # The owner's answer, when it is this one again, is of what is in force then.
            engine.programs.own("node-1")
            synchronizer = engine.programs.synchronizer("node-1")
            assert synchronizer is not None
            assert synchronizer.generation is not None

    asyncio.run(scenario())


def test_a_switch_is_taken_once_more_also_when_others_write_first(tmp_path: Path) -> None:
    """The write that takes it says that this controller's own record is as it was, which is written just then."""

    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        me = member("a")
        async with one_of_several(store, me) as engine:
            node = await register(engine, 1)
            before = await owned(engine)
            async with engine.ledger.lock:  # Nothing of others is taken in meanwhile.
                store.write([Put(member_key("a"), encode(me))])
                engine.ownership.deposed("node-1", before, 5000)
                await asyncio.sleep(2)
            await until(
                lambda: (engine.ownership.generation_of("node-1") or 0) > 5000,
                "a generation above what was seen",
            )
            revision = engine.ownership.revision_of("node-1")
            assert revision is not None
            assert revision < 5000
            # What is written for the node is still fenced by the record's revision.
            await engine.attachments.attach("node-1", attachment(node, 1), lambda _why: None)
        store.close()

    asyncio.run(scenario())


def test_a_switch_that_deposed_its_owner_is_taken_again_also_after_a_lease_that_was_lost(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        async with one_of_several(store, member("a")) as engine:
            await register(engine, 1)
            ownership = engine.ownership
            before = await owned(engine)
            ownership.deposed("node-1", before, 5000)
            ownership.lease(False)
            await asyncio.sleep(1.5)
            ownership.lease(True)
            await until(
                lambda: (ownership.generation_of("node-1") or 0) > 5000, "a generation above what was seen"
            )
        store.close()

    asyncio.run(scenario())


def test_generations_grow_also_over_an_owner_that_knows_no_base(tmp_path: Path) -> None:
    """A controller of a former build takes a switch, and its record says nothing of a base."""

    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        async with one_of_several(store, member("a")) as engine:
            await register(engine, 1)
            ownership = engine.ownership
            before = await owned(engine)
            ownership.deposed("node-1", before, 5000)
            await until(
                lambda: (ownership.generation_of("node-1") or 0) > 5000, "a generation above what was seen"
            )
            highest = ownership.generation_of("node-1") or 0
            former = OwnerRecord(controller="former", incarnation="former/1")
            store.write([Put(owner_key("node-1"), encode(former))])
            # It is not there, so this one takes it, by what the store says and above all that was.
            await until(
                lambda: (ownership.generation_of("node-1") or 0) > highest, "the node to be owned again"
            )
            # Once above, the base stays.
            base = ownership.owners()["node-1"].record.base
            ownership.deposed("node-1", ownership.generation_of("node-1") or 0, 0)
            highest = ownership.generation_of("node-1") or 0
            await until(
                lambda: (ownership.generation_of("node-1") or 0) > highest, "the node to be taken once more"
            )
            assert ownership.owners()["node-1"].record.base == base
        store.close()

    asyncio.run(scenario())


def test_what_a_switch_refused_is_no_longer_so_when_another_owner_has_it_confirmed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_engine(tmp_path) as engine:
            node = await register(engine, 1)
            await engine.attachments.attach("node-1", attachment(node, 1), lambda _why: None)
            (record,) = engine.cluster.attachments.values()
            confirmations = engine.attachments.confirmations
            confirmations.refused(record, "no room")
            assert confirmations.refusal(key_of(record)) == "no room"
            confirmations.stored(record, pending=True)
            assert confirmations.refusal(key_of(record)) == "no room"
            confirmations.stored(record, pending=False)
            assert confirmations.refusal(key_of(record)) is None

    asyncio.run(scenario())


def test_absent_nodes_are_stored_when_the_store_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absence, "AGAIN_SECONDS", 0.1)

    async def scenario() -> None:
        async with running_engine(tmp_path) as engine:
            await register(engine, 1)

            def stored() -> bool:
                return "node-1" in engine.absences._stored

            def unwritable(*_: object) -> int:
                raise StoreError("the store has no majority")

            engine.states.candidates.connected("node-1", True)
            await until(lambda: not stored(), "it to be there")
            with monkeypatch.context() as away:
                away.setattr(engine.ledger._store, "write", unwritable)
                engine.ledger._in_doubt = True  # as after a write of which nobody knows whether it was made
                engine.states.candidates.remove("node-1")
                await asyncio.sleep(0.5)
                assert not stored()
            await until(stored, "the absence to be stored")

    asyncio.run(scenario())
