# SPDX-License-Identifier: Apache-2.0
"""Which registered nodes cannot announce, for all controllers alike, and for the next one.

Only a node's owner knows whether its agent and its switch are there. What it finds it stores: one key for each node
that cannot announce, when it goes and when it comes back. A node that is new has the key from its registration on. So
all controllers elect among the same nodes.

A controller that starts gives every node without a key time to connect, and elects as if all of them were there: so
nothing moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from controller.cluster import Cluster
from controller.ledger import DeposedError, Ledger, under, whole
from controller.loadbalancing.election import Candidates
from controller.records import ABSENT_NODES, absent_key
from controller.store import Delete, Entry, Operation, Put
from sdn import logs

log = logs.get("controller.loadbalancing")

#: Seconds until what could not be stored is tried again.
AGAIN_SECONDS = 5.0
#: Nodes of one write. Each of them must still be this controller's, which the write looks at, too.
_AT_ONCE = 50


class Absences:
    """Runs in the asyncio thread."""

    def __init__(
        self, ledger: Ledger, cluster: Cluster, candidates: Candidates, owns: Callable[[str], bool]
    ) -> None:
        self._ledger = ledger
        self._owns = owns
        self._cluster = cluster
        self._candidates = candidates
        self._loop = asyncio.get_running_loop()
        self._stored: set[str] = set()
        #: The one that begins to store what has changed until then; those that have begun.
        self._next: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def load(self, entries: Iterable[Entry]) -> set[str]:
        """The nodes that were absent when the last controller ended; ``entries`` are all that is stored."""
        self._stored = {entry.key.removeprefix(ABSENT_NODES) for entry in under(ABSENT_NODES, entries)}
        return self._stored & self._cluster.nodes.keys()

    def stored_by_others(self, node: str, absent: bool) -> None:
        """The node's owner has found that it is absent, or back."""
        if absent:
            self._stored.add(node)
        else:
            self._stored.discard(node)
        if self._owns(node) and absent == (node in self._candidates):
            # A former owner's word, later than this one's.
            self.changed()
        self.unowned(node)

    def registered(self, node: str) -> None:
        """The node is new; its key was stored with it."""
        self._stored.add(node)
        self._candidates.remove(node)

    def unowned(self, node: str) -> None:
        """Whether the node is a candidate is for its owner to say, who is another controller. One that is no more is
        none.
        """
        if not self._owns(node):
            there = node in self._cluster.nodes and node not in self._stored
            self._candidates.told(node, there)

    def changed(self) -> None:
        """The candidates are others than before."""
        if self._next is not None:
            return  # Of a thousand nodes that come at once each would look at all of them.
        self._next = task = self._loop.create_task(self._store())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._next is task:
            self._next = None  # It never came to look.
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.warning("absent nodes are not stored", error=logs.error_text(problem))
            self._loop.call_later(AGAIN_SECONDS, self.changed)

    async def stored(self) -> None:
        """Return when what has changed is stored."""
        await asyncio.gather(*self._tasks)

    @whole
    async def _store(self) -> None:
        async with self._ledger.lock:
            self._next = None
            mine = {node for node in self._cluster.nodes if self._owns(node)}
            absent = {node for node in mine if node not in self._candidates}
            # What was stored of nodes that are no more goes, too.
            back = {node for node in self._stored if node not in self._cluster.nodes or node in mine - absent}
            changed = sorted((absent - self._stored) | back)
            deposed: list[str] = []
            for start in range(0, len(changed), _AT_ONCE):
                some = changed[start : start + _AT_ONCE]
                try:
                    await self._write(some, back, mine)
                except DeposedError:
                    deposed += some
            for node in deposed:
                # One of those that were written with it is another controller's now, and this one has not heard of it.
                try:
                    await self._write([node], back, mine)
                except DeposedError:
                    self._loop.call_later(AGAIN_SECONDS, self.changed)

    async def _write(self, nodes: Sequence[str], back: set[str], mine: set[str]) -> None:
        operations: list[Operation] = [
            Delete(absent_key(node)) if node in back else Put(absent_key(node), b"{}") for node in nodes
        ]
        await self._ledger.write(operations, nodes=[node for node in nodes if node in mine])
        # Whatever becomes of the next ones.
        self._stored = (self._stored | set(nodes)) - back.intersection(nodes)
