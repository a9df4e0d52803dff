# SPDX-License-Identifier: Apache-2.0
"""Two controllers see the same names: neither loses what the other's nodes, or its own, have seen."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from controller.follower import Follower
from controller.records import DOMAINS
from controller.store import Entry, Event, Operation
from tests.unit.domain_world import NAME, FullStore, World, policy
from tests.unit.several_engines import until

NAMES = (NAME, "a.example.com", "b.example.com")
ADDRESSES = tuple(f"192.0.2.{number}" for number in range(1, 7))


class SlowStore(FullStore):
    """Takes its time before it writes, and before it says so."""

    rng = random.Random(0)

    def write(self, operations: Sequence[Operation]) -> int:
        time.sleep(self.rng.choice((0.0, 0.0, 0.002, 0.01)))
        try:
            return super().write(operations)
        finally:
            time.sleep(self.rng.choice((0.0, 0.0, 0.002, 0.01)))


@asynccontextmanager
async def following(store: FullStore) -> AsyncIterator[World]:
    """One of several controllers on a store."""
    made = World(store, 1000.0, 2e9)
    made.cluster.put_object(policy("names", "*.example.com"))
    await made.domains.load((await made.ledger.list_all()).entries)

    def apply(event: Event) -> None:
        name = event.key.removeprefix(DOMAINS)
        if event.value is None:
            made.domains.removed(name)
        else:
            made.domains.stored(Entry(event.key, event.value, event.revision))

    follower = Follower(store, made.ledger, apply)
    follower.start()
    try:
        yield made
    finally:
        follower.stop()
        await asyncio.to_thread(follower._thread.join)
        made.domains.stop()
        made.ledger.stop()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_answered_is_in_force_and_in_the_end_both_have_what_is_stored(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)

    async def reporting(seen: World) -> None:
        for _ in range(25):
            name, addresses = rng.choice(NAMES), rng.sample(ADDRESSES, rng.randint(1, 2))
            refused = await seen.resolved(*addresses, name=name)
            assert refused is None
            assert seen.told[name] >= set(addresses), "the pod gets its answer now"
            await asyncio.sleep(rng.choice((0.0, 0.001, 0.004)))

    async def looking(both: Sequence[World]) -> None:
        """All that was not reported for a while ends, and may be reported at that moment."""
        for _ in range(10):
            await asyncio.sleep(0.02)
            for one in both:
                one.later(200)
            await rng.choice(both).domains.look()

    async def run() -> None:
        store = SlowStore(tmp_path / "store.db")
        store.rng = random.Random(seed)
        async with AsyncExitStack() as stack:
            stack.callback(store.close)
            both = [await stack.enter_async_context(following(store)) for _ in "ab"]
            await asyncio.gather(*map(reporting, both), looking(both))
            await until(
                lambda: all(one.ledger.followed_to >= store.revision() for one in both), "all to be followed"
            )
            stored = {name: set(times) for name, times in (await both[0].stored()).items()}
            assert [one.told for one in both] == [stored, stored]
            # Nothing counts for longer than what was reported, and half as long again for what may be seen unreported,
            # and a third of that for what the store says.
            for one in both:
                one.later(601)
            for one in both:
                await one.domains.look()
            await until(lambda: not any(one.told for one in both), "all to end")
            assert await both[0].stored() == {}

    asyncio.run(run())
