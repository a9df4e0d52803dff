# SPDX-License-Identifier: Apache-2.0
"""A controller that has missed what others wrote lists everything, and has the model that they have."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controller.applying import Applying
from controller.engine import Engine
from controller.follower import Follower
from controller.records import CorruptRecordError, object_key
from controller.store import Event
from tests.switch.controller_process import attachment
from tests.unit.services_engine import apply, confirm, register, service
from tests.unit.several_engines import gone, several, until
from tests.unit.test_controller_following import until_equal

POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"app": "web-1"}}, "policyTypes": ["Ingress"], "ingress": []},
}


def run(folder: Path, scenario: Callable[[Engine, Engine], Awaitable[None]]) -> None:
    """With two controllers, of which the first owns all switches."""

    async def both() -> None:
        async with several(folder, "a", "b") as (first, second):
            gone(first.ledger._store, "b")
            await until(lambda: set(first.ownership.members.all()) == {"a"}, "it to be alone")
            await scenario(first, second)

    asyncio.run(both())


async def deaf(engine: Engine) -> None:
    """It follows the store no more."""
    engine._follower.stop()
    await asyncio.to_thread(engine._follower._thread.join)


def lists_anew(engine: Engine) -> None:
    """It follows the store again, and what it has missed is not known any more."""
    store = engine.ledger._store
    store.compact(store.revision())
    engine._follower = Follower(store, engine.ledger, Applying(engine).apply)
    engine._follower.start()


class Changes:
    """Drawn at random, as agents and users make them at one controller."""

    def __init__(self, engine: Engine, rng: random.Random) -> None:
        self._engine = engine
        self._rng = rng
        self._zones = 0
        self._nodes = 0
        self._pods: list[tuple[str, str]] = []

    async def make(self, count: int) -> None:
        """So many, and whatever they need."""
        await self._node()
        kinds = (self._node, self._node_again, self._pod, self._pod, self._unplug)
        kinds = (*kinds, self._service, self._service, self._recreated, self._withdrawn, self._policy)
        for _ in range(count):
            await self._rng.choice(kinds)()

    async def _node(self) -> None:
        self._nodes += 1
        await register(self._engine, self._nodes)
        await self._engine.ownership.settle(f"node-{self._nodes}")

    async def _node_again(self) -> None:
        """A node is another one than before, and its record younger than its pods'."""
        self._zones += 1
        await register(self._engine, self._rng.randint(1, self._nodes), f"zone-{self._zones}")

    async def _pod(self) -> None:
        number = self._rng.randint(1, self._nodes)
        info = await register(self._engine, number)
        pod = attachment(info, len(self._pods) + 10, labels={"app": f"web-{self._rng.randint(0, 4)}"})
        self._pods.append((f"node-{number}", pod.container_id))
        await self._engine.attachments.attach(f"node-{number}", pod, lambda _refused: None)
        await confirm(self._engine)

    async def _unplug(self) -> None:
        if self._pods:
            node, container = self._rng.choice(self._pods)
            await self._engine.attachments.detach(node, container, "eth0", lambda _refused: None)

    async def _service(self) -> None:
        kind = self._rng.choice(["ClusterIP", "NodePort", "LoadBalancer"])
        await apply(self._engine, service(f"web-{self._rng.randint(0, 4)}", type=kind))

    async def _recreated(self) -> None:
        await apply(self._engine, service("anew"))
        await self._engine.declarations.remove("Service", "default", "anew")
        await apply(self._engine, service("anew"))

    async def _withdrawn(self) -> None:
        services = [one for one in self._engine.allocation.services() if one.metadata.namespace == "default"]
        if services:
            name = self._rng.choice(services).metadata.name
            await self._engine.declarations.remove("Service", "default", name)

    async def _policy(self) -> None:
        await apply(self._engine, POLICY)


@pytest.mark.parametrize("seed", range(6))
def test_who_has_missed_changes_and_lists_anew_has_all_of_them(tmp_path: Path, seed: int) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        changes = Changes(first, random.Random(seed))
        await changes.make(10)
        await until_equal(first, second)
        await deaf(second)
        await changes.make(30)
        lists_anew(second)
        await until_equal(first, second)

    run(tmp_path, scenario)


def test_a_service_made_meanwhile_keeps_its_number_and_addresses_from_others(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        await deaf(second)
        await apply(first, service("web", type="NodePort"))
        lists_anew(second)
        await until_equal(first, second)
        await apply(second, service("other", type="NodePort"))
        await until_equal(first, second)
        one, other = (first.allocation.number("default", name) for name in ("web", "other"))
        assert one != other
        assert not first.allocation.conflict("default", "other")

    run(tmp_path, scenario)


def test_what_could_not_be_taken_in_is_tried_again_when_everything_is_listed(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        store = second.ledger._store

        def refusing(event: Event) -> None:
            raise CorruptRecordError(event.key, "not yet")

        await deaf(second)
        second._follower = Follower(store, second.ledger, refusing)
        second._follower.start()
        await apply(first, service("web"))
        untaken = second._follower._untaken
        await until(lambda: object_key("Service", "default", "web") in untaken, "the Service to be refused")
        await deaf(second)
        store.compact(store.revision())
        follower = second._follower = Follower(store, second.ledger, Applying(second).apply)
        follower._untaken = untaken
        follower.start()
        await until_equal(first, second)
        assert not untaken
        # And it may be changed by who has it now.
        await apply(second, service("web", type="NodePort"))
        await until_equal(first, second)

    run(tmp_path, scenario)
