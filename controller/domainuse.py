# SPDX-License-Identifier: Apache-2.0
"""To which addresses there are connections, as the agents of all nodes list what their switches track."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from controller.errors import UnavailableError
from controller.tracked import LIST_SECONDS, LISTS_AT_ONCE, ListConnections, asked
from controller.turns import Turns
from sdn import logs
from sdn.model.address import Address, Range

log = logs.get("controller.domainuse")


class Use(NamedTuple):
    """Those that connections go to, and whether all agents could be asked."""

    addresses: frozenset[Address]
    all_asked: bool


async def use_of(addresses: Collection[Address], nodes: Collection[str], listed: ListConnections) -> Use:
    """Which of these addresses connections of these nodes' switches go to: where one was meant to go, and where a
    Service led it.
    """
    wanted = frozenset(addresses)
    ranges = asked([Range.of(address) for address in wanted])
    found: set[Address] = set()
    limit = asyncio.Semaphore(LISTS_AT_ONCE)

    async def ask(node: str) -> bool:
        async with limit:
            turns = Turns()
            try:
                async for connection in listed(node, ranges, LIST_SECONDS):
                    ends = {Address.parse(connection.destination), Address.parse(connection.reply_source)}
                    found.update(ends & wanted)
                    await turns.pause()
            except (UnavailableError, ValueError) as problem:
                log.debug("connections not listed", node=node, error=str(problem))
                return False
            return True

    answers = await asyncio.gather(*map(ask, nodes))
    return Use(frozenset(found), all(answers))
