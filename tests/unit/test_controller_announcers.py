# SPDX-License-Identifier: Apache-2.0
"""All controllers elect the same node to announce an address: they know the same nodes that can."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controller.engine import Engine
from controller.loadbalancing import absence
from controller.records import absent_key
from controller.store import Put, open_store
from tests.unit.services_engine import apply, register, service
from tests.unit.several_engines import gone, member, one_of_several, several, until

GRACE = 0.2
SERVICES = tuple(f"web-{number}" for number in range(5))


class Truth:
    """Which nodes are connected: to their owner, whoever that is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected: set[str] = set()

        def connection_changed(engine: Engine, node: str) -> None:
            if engine.ownership.owns(node):
                engine.states.candidates.connected(node, node in self.connected)

        monkeypatch.setattr(Engine, "connection_changed", connection_changed)

    def set(self, engines: Sequence[Engine], node: str, connected: bool) -> None:
        (self.connected.add if connected else self.connected.discard)(node)
        for engine in engines:
            engine.connection_changed(node)

    async def until_known(self, engines: Sequence[Engine]) -> None:
        def known() -> bool:
            return all(set(engine.states.candidates) == self.connected for engine in engines)

        try:
            await until(known, "the same candidates everywhere")
        except AssertionError:
            assert [set(engine.states.candidates) for engine in engines] == [self.connected] * len(engines)
            raise
        for name in SERVICES:
            elected = {engine.states.announcer(("default", name)) for engine in engines}
            assert len(elected) == 1
            assert elected <= self.connected or not self.connected


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_and_goes_all_controllers_elect_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    truth = Truth(monkeypatch)

    async def run() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        async with AsyncExitStack() as stack:
            stack.callback(store.close)
            engines: list[Engine] = []

            async def controller(name: str) -> None:
                engine = await stack.enter_async_context(one_of_several(store, member(name)))
                engine.states.candidates._grace = GRACE
                engines.append(engine)

            await controller("a")
            for name in SERVICES:
                await apply(engines[0], service(name, type="LoadBalancer"))
            nodes: list[str] = []
            for step in range(24):
                match rng.choice(("node", "node", "flip", "flip", "flip", "controller", "dies")):
                    case "node":
                        nodes.append(f"node-{len(nodes) + 1}")
                        await register(rng.choice(engines), len(nodes))
                    case "flip" if nodes:
                        node = rng.choice(nodes)
                        truth.set(engines, node, node not in truth.connected)
                    case "controller" if len(engines) < 3:
                        await controller(f"c-{step}")
                    case "dies" if len(engines) > 1:
                        dead = engines.pop(rng.randrange(len(engines)))
                        gone(store, dead.ownership.members.name)
                        dead.ownership.lease(False)
                await asyncio.sleep(rng.choice((0.0, 0.02, 0.3)))
                if step % 6 == 5:
                    await truth.until_known(engines)
            await truth.until_known(engines)

    asyncio.run(run())


def test_what_a_former_owner_says_late_is_contradicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = Truth(monkeypatch)

    async def run() -> None:
        async with several(tmp_path, "a", "b") as engines:
            for name in SERVICES:
                await apply(engines[0], service(name, type="LoadBalancer"))
            await register(engines[0], 1)
            await until(lambda: any(one.ownership.owns("node-1") for one in engines), "an owner")
            truth.set(engines, "node-1", True)
            await truth.until_known(engines)
            store = engines[0].ledger._store
            store.write([Put(absent_key("node-1"), b"{}")])
            await until(lambda: not store.list_prefix(absent_key("node-1")).entries, "it to be contradicted")
            await truth.until_known(engines)

    asyncio.run(run())


def test_a_node_that_is_registered_anew_is_owned_anew_and_announces_when_it_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = Truth(monkeypatch)

    async def run() -> None:
        async with several(tmp_path, "a", "b") as engines:
            for name in SERVICES:
                await apply(engines[0], service(name, type="LoadBalancer"))
            for forgetting in (*engines, None):
                await register(engines[0], 1)
                await engines[0].ownership.settle("node-1")
                await until(lambda: any(one.ownership.owns("node-1") for one in engines), "an owner")
                (owner,) = (one for one in engines if one.ownership.owns("node-1"))
                await owner.ledger.write([Put("/sdn/test", b"")], node="node-1")
                truth.set(engines, "node-1", True)
                await truth.until_known(engines)
                if forgetting is not None:
                    truth.connected.clear()
                    await forgetting.registrations.forget("node-1")
                    await until(lambda: not any(one.cluster.nodes for one in engines), "it to be forgotten")
                    assert not forgetting.ownership.owns("node-1")
                    await truth.until_known(engines)

    asyncio.run(run())


def test_a_node_that_another_controller_has_taken_keeps_no_other_one_from_being_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = Truth(monkeypatch)
    monkeypatch.setattr(absence, "AGAIN_SECONDS", 600.0)

    async def run() -> None:
        async with several(tmp_path, "a") as (engine,):
            for number in range(1, 5):
                await register(engine, number)
            nodes = [f"node-{number}" for number in range(1, 5)]
            await until(lambda: all(map(engine.ownership.owns, nodes)), "an owner")
            engine.states.candidates._grace = GRACE
            # It has not heard of it.
            revision_of = engine.ledger.owned_at
            engine.ledger.owned_at = lambda node: 1 if node == "node-2" else revision_of(node)
            for node in nodes:
                truth.set([engine], node, True)
            store = engine.ledger._store

            def absent() -> set[str]:
                return {entry.key for entry in store.list_prefix(absent_key("")).entries}

            await until(lambda: absent() == {absent_key("node-2")}, "all others to be told of")

    asyncio.run(run())
