# SPDX-License-Identifier: Apache-2.0
"""A controller with a newer pipeline that is not heard, and is back: who has its switches, and how often they move."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.engine import Engine
from controller.ha import assignment, damping, ownership
from controller.ha.assignment import MOVES_AT_ONCE
from controller.store import open_store
from tests.unit.services_engine import register
from tests.unit.several_engines import member, one_of_several, until

#: More than are moved in one go.
NODES = 2 * MOVES_AT_ONCE + 1
OLDER, NEWER = "a", "b"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules, with shorter times."""
    monkeypatch.setattr(damping, "FIRST_AWAY_SECONDS", 0.1)
    for module in (assignment, ownership):
        monkeypatch.setattr(module, "REBALANCE_SECONDS", 1.0)


@asynccontextmanager
async def rollout(folder: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """An older and a newer controller; all switches are the newer one's."""
    store = open_store(f"sqlite://{folder}/store.db")
    try:
        async with (
            one_of_several(store, member(OLDER)) as older,
            one_of_several(store, member(NEWER, pipeline=2)) as newer,
        ):
            await until(lambda: older.ownership.members.takers() == {NEWER: "b/1"}, "the newer one is there")
            for number in range(NODES):
                await register(newer, number + 1)
            await until(lambda: owned(older) == {NEWER: NODES}, "all switches are the newer one's")
            yield older, newer
    finally:
        store.close()


def owned(engine: Engine) -> Counter[str]:
    """How many switches each controller owns, as a controller knows."""
    return Counter(owner.controller for owner in engine.ownership.owners().values())


def writes(engine: Engine) -> Counter[tuple[str, int]]:
    """From now on how many switches were taken by each write: by whom, and its revision."""
    taken: Counter[tuple[str, int]] = Counter()
    tell = engine.ownership.on_owner

    def told(node: str) -> None:
        if (owner := engine.ownership.owners().get(node)) is not None:
            taken[owner.controller, owner.revision] += 1
        tell(node)

    engine.ownership.on_owner = told
    return taken


def test_an_older_one_takes_what_it_had_though_its_lease_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rollout(tmp_path) as (older, newer):
            older.ownership.silent(NEWER, "b/1", "its peers_address is cut off")
            await until(lambda: owned(older) == {OLDER: NODES}, "the older one has taken all")
            assert NEWER in older.ownership.members.all()
            await until(lambda: not newer.ownership.owns("node-1"), "the newer one knows it")
            # And what is new meanwhile.
            await register(older, NODES + 1)
            owner = await older.ownership.settle(f"node-{NODES + 1}")
            assert owner is not None
            assert owner.controller == OLDER

    asyncio.run(scenario())


def test_one_that_rises_and_is_not_heard_again_moves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rollout(tmp_path) as (older, newer):
            older.ownership.silent(NEWER, "b/1", "its peers_address is cut off")
            await until(lambda: owned(older) == {OLDER: NODES}, "the older one has taken all")
            taken = writes(older)
            marks = set()
            for _ in range(200):
                mark = older.ownership.members.down(NEWER)
                marks.add(mark.at if mark is not None else "")
                await asyncio.sleep(0.01)
            assert len(marks - {""}) >= 3, "it was to rise, and be marked anew"
            assert taken == {}
            assert not newer.ownership.owns("node-1")

    asyncio.run(scenario())


def test_one_that_is_heard_again_takes_its_switches_back_a_few_at_a_time_after_quiet_seconds(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with rollout(tmp_path) as (older, newer):
            older.ownership.silent(NEWER, "b/1", "it was slow")
            await until(lambda: owned(older) == {OLDER: NODES}, "the older one has taken all")
            taken = writes(older)
            older.ownership.heard(NEWER, "b/1")
            await until(newer.ownership.members.standing, "the newer one is back")
            back_at = time.monotonic()
            await until(lambda: bool(taken), "it has taken some")
            # Half of the quiet second: that it is back may be seen late.
            assert time.monotonic() - back_at > 0.5
            await until(lambda: owned(older) == {NEWER: NODES}, "the newer one has all back")
            assert {name for name, _ in taken} == {NEWER}
            assert sum(taken.values()) == NODES
            assert max(taken.values()) <= MOVES_AT_ONCE

    asyncio.run(scenario())


def test_of_two_that_do_not_hear_each_other_each_keeps_away_longer_each_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rollout(tmp_path) as (older, newer):
            taken = writes(older)
            older.ownership.silent(NEWER, "b/1", "the way is cut")
            newer.ownership.silent(OLDER, "a/1", "the way is cut")
            await asyncio.sleep(3)
            # Twice 0.1 + 0.2 + 0.4 + 0.8 s make 3 s: all switches move eight times or so, not at each of 30 chances.
            assert 1 <= len(taken) <= 10

    asyncio.run(scenario())
