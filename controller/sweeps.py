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
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress

from controller.errors import UnavailableError
from controller.forgetting import Flush
from controller.policies import Policies
from controller.programs import Programs
from controller.stale import SECOND_AFTER
from controller.sweeping import flush_of
from controller.turns import Turns
from sdn import logs
from sdn.model.address import Address, Range
from sdn.pipeline.registers import Mark
from sdn.v1 import controller_pb2

log = logs.get("controller.sweeps")

#: Seconds until an agent that could not be asked is asked again.
RETRY_AFTER = 5.0
#: Seconds that an agent may take to list its connections.
LIST_SECONDS = 60.0
#: Ranges that an agent is asked about at once; beyond that about everything.
MOST_RANGES = 2_000
_EVERYTHING = (Range(4, 0, 0), Range(6, 0, 0))

ListConnections = Callable[[str, Sequence[str], float], AsyncIterator[controller_pb2.TrackedConnection]]


class Sweeps:
    """See the module. Runs in the asyncio thread; :meth:`wanted` may be called from any."""

    def __init__(
        self, policies: Policies, programs: Programs, list_connections: Callable[[], ListConnections]
    ) -> None:
        self._policies = policies
        self._programs = programs
        self._list = list_connections
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, set[Range]] = defaultdict(set)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: Connections that were ended, for people.
        self.ended = 0

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
            task = self._loop.create_task(self._sweep(node))
            self._tasks[node] = task
            task.add_done_callback(lambda _task: self._tasks.pop(node, None))

    async def _sweep(self, node: str) -> None:
        again: set[Range] = set()
        # Where the client sends, its next packet marks the connection, which is better than to forget it: a datagram of
        # the other end would begin one of its own.
        await asyncio.sleep(SECOND_AFTER)
        while self._waiting[node] or again:
            first = self._waiting.pop(node, set())
            try:
                await self._once(node, first | again)
            except UnavailableError as problem:
                if node not in self._programs.nodes():
                    break
                log.debug("connections not listed", node=node, error=str(problem))
                self._waiting[node] |= first | again
                await asyncio.sleep(RETRY_AFTER)
                continue
            again = first
            if again or self._waiting[node]:
                await asyncio.sleep(SECOND_AFTER)
        self._waiting.pop(node, None)

    async def _once(self, node: str, ranges: Collection[Range]) -> None:
        asked = _EVERYTHING if len(ranges) > MOST_RANGES else sorted(ranges, key=str)
        denied: list[Flush] = []
        turns = Turns()
        async for connection in self._list()(node, [str(each) for each in asked], LIST_SECONDS):
            try:
                if not connection.mark & Mark.DENIED and not self._allowed(connection):
                    denied.append(flush_of(connection))
            except ValueError as problem:
                log.debug("no connection of any switch", node=node, error=str(problem))
            await turns.pause()
        if denied:
            self._programs.flush(node, denied)
            self.ended += len(denied)
            log.info("denied connections ended", node=node, connections=len(denied))

    def _allowed(self, connection: controller_pb2.TrackedConnection) -> bool:
        """Whether policies allow it: from who began it to where a Service led it."""
        return self._policies.engine.allows(
            Address.parse(connection.source),
            Address.parse(connection.reply_source),
            connection.protocol,
            connection.reply_source_port,
        )
