# SPDX-License-Identifier: Apache-2.0
"""Who waits for another owner of a node is woken, and asking for nodes that are none costs nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.services_engine import register
from tests.unit.several_engines import several


def test_each_wakes_those_who_wait_for_it_and_names_of_no_node_share_one(tmp_path: Path) -> None:
    async def alone() -> None:
        async with several(tmp_path, "a") as (only,):
            ownership = only.ownership
            await register(only, 1)
            await ownership.settle("node-1")
            mine, others = ownership.change_of("node-1"), {ownership.change_of(f"x{n}") for n in range(100)}
            assert len(others) == 1
            await register(only, 2)
            await ownership.settle("node-2")
            assert ownership.owns("node-2")
            assert others.pop().is_set()
            assert not mine.is_set()

    asyncio.run(alone())
