# SPDX-License-Identifier: Apache-2.0
"""Sweeps: ends the tracked connections that policies deny since a change.

The flows deny what goes the way on which a connection began at once, and with the first such packet its answers, too.
What only answers (a stream that nobody acknowledges) is found here: the node's agent lists what its switch tracks for
the addresses that the change concerns, the engine is asked about each, and exactly the denied ones are flushed.

Connections that the flows have marked as denied stay: they are cut in both directions, and without them the next packet
of the other end would begin one of its own.

It is done twice, since a switch goes on for a moment by what its datapath has cached. An agent that cannot be asked is
asked again later; meanwhile the flows hold.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress

from controller.errors import UnavailableError
from controller.forgetting import Flush
from controller.policies import Policies
from controller.programs import Programs
from controller.stale import SECOND_AFTER
from controller.sweeping import flush_of
from controller.tracked import LIST_SECONDS, LISTS_AT_ONCE, ListConnections, asked
from controller.turns import Turns
from sdn import logs
from sdn.model.address import Address, Range
from sdn.pipeline.registers import Mark
from sdn.v1 import controller_pb2

log = logs.get("controller.sweeps")

#: Seconds until an agent that could not be asked is asked again.
RETRY_AFTER = 5.0


class Sweeps:
    """See the module. Runs in the asyncio thread; :meth:`wanted` may be called from any."""

    def __init__(self, policies: Policies, programs: Programs, list_connections: ListConnections) -> None:
        self._policies = policies
        self._programs = programs
        self._list = list_connections
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.Semaphore(LISTS_AT_ONCE)
        self._waiting: dict[str, set[Range]] = defaultdict(set)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def wanted(self, node: str, ranges: Collection[Range]) -> None:
        """Connections of these addresses may be denied now on a node's switch."""
        with suppress(RuntimeError):  # The loop has ended: nobody sweeps any more.
            self._loop.call_soon_threadsafe(self._wanted, node, frozenset(ranges))

    async def idle(self) -> None:
        """Return when nothing is left to be swept."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    def _wanted(self, node: str, ranges: frozenset[Range]) -> None:
        self._waiting[node] |= ranges
        if node not in self._tasks:
            self._begin(node)

    def _begin(self, node: str) -> None:
        task = self._tasks[node] = self._loop.create_task(self._sweep(node))
        task.add_done_callback(functools.partial(self._swept, node))

    def _swept(self, node: str, task: asyncio.Task[None]) -> None:
        del self._tasks[node]
        if task.cancelled():
            return
        if problem := task.exception():
            log.error("connections not swept", node=node, exc_info=problem)
            self._waiting.pop(node, None)
        elif self._waiting.get(node):
            # What came after the task had looked for the last time, and before this was called.
            self._begin(node)

    async def _sweep(self, node: str) -> None:
        again: set[Range] = set()
        told = False
        # Where the client sends, its next packet marks the connection, which is better than to forget it: a datagram of
        # the other end would begin one of its own.
        await asyncio.sleep(SECOND_AFTER)
        while self._waiting.get(node) or again:
            first = self._waiting.pop(node, set())
            try:
                await self._once(node, first | again)
            except UnavailableError as problem:
                if node not in self._programs.nodes():
                    return
                (log.debug if told else log.warning)("connections not listed", node=node, error=str(problem))
                told = True
                self._waiting[node] |= first | again
                await asyncio.sleep(RETRY_AFTER)
                continue
            again = first
            if again or self._waiting.get(node):
                await asyncio.sleep(SECOND_AFTER)

    async def _once(self, node: str, ranges: Collection[Range]) -> None:
        denied: list[Flush] = []
        turns = Turns()
        async with self._limit:
            async for connection in self._list(node, asked(ranges), LIST_SECONDS):
                try:
                    if not connection.mark & Mark.DENIED and not self._allowed(connection):
                        denied.append(flush_of(connection))
                except ValueError as problem:
                    log.debug("no connection of any switch", node=node, error=str(problem))
                await turns.pause()
        if denied:
            self._programs.flush(node, denied)
            log.info("denied connections ended", node=node, connections=len(denied))

    def _allowed(self, connection: controller_pb2.TrackedConnection) -> bool:
        """Whether policies allow it: from who began it to where a Service led it."""
        return self._policies.engine.allows(
            Address.parse(connection.source),
            Address.parse(connection.reply_source),
            connection.protocol,
            connection.reply_source_port,
        )
