# SPDX-License-Identifier: Apache-2.0
"""A newer controller comes for the switches of an older one, and for no more when one refuses its pipeline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from controller.ha import assignment, ownership
from controller.ha.assignment import MOVES_AT_ONCE
from controller.store import open_store
from controller.synchronizer import Synchronizer
from tests.unit.services_engine import register
from tests.unit.several_engines import member, one_of_several, until

SECONDS = 0.3
NODES = MOVES_AT_ONCE + 3


def test_whose_pipeline_a_switch_refuses_takes_no_more_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing: set[str] = set()
    refused = property(lambda self: self.generation is not None and self.node in refusing)
    monkeypatch.setattr(Synchronizer, "refused", refused)
    monkeypatch.setattr(assignment, "REBALANCE_SECONDS", SECONDS)
    monkeypatch.setattr(ownership, "REBALANCE_SECONDS", SECONDS)

    async def upgrade() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        async with one_of_several(store, member("old")) as old:
            for number in range(NODES):
                await register(old, number)
            await until(
                lambda: all(map(old.ownership.owns, old.programs.nodes())), "the older one to have all"
            )
            newer = msgspec.structs.replace(member("new"), pipeline=2)
            async with one_of_several(store, newer) as new:
                await until(
                    lambda: any(map(new.ownership.owns, new.programs.nodes())), "the newer one to come"
                )
                # A switch is read and written before it can refuse anything.
                await asyncio.sleep(0.3)
                refusing.add("node-0")
                await asyncio.sleep(2.5)
                assert sum(map(new.ownership.owns, new.programs.nodes())) == MOVES_AT_ONCE
                refusing.clear()
                await until(lambda: all(map(new.ownership.owns, new.programs.nodes())), "it to have all")
        store.close()

    asyncio.run(upgrade())
