# SPDX-License-Identifier: Apache-2.0
"""Words to agents about changes that their switch has confirmed: few, and never too few."""

from __future__ import annotations

import asyncio

from controller import refreshes
from controller.refreshes import Refreshes


def test_many_changes_in_a_row_are_few_words_and_the_last_one_is_told() -> None:
    told: list[tuple[str, int]] = []
    changes = 0

    async def run() -> None:
        nonlocal changes
        words = Refreshes(lambda node: told.append((node, changes)))
        for _ in range(20):
            changes += 1
            words.wanted("node-1")
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * refreshes.PAUSE)

    asyncio.run(run())
    assert told[0] == ("node-1", 1)
    assert told[-1] == ("node-1", 20)
    assert len(told) < 10


def test_the_first_change_is_told_at_once_and_nodes_do_not_wait_for_each_other() -> None:
    told: list[str] = []

    async def run() -> None:
        words = Refreshes(told.append)
        for node in ("node-1", "node-2"):
            words.wanted(node)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert sorted(told) == ["node-1", "node-2"]
