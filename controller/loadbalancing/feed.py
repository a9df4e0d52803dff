# SPDX-License-Identifier: Apache-2.0
"""The agents' view of Services: what WatchServices tells a node, and what still waits to be told.

A feed holds names, not messages: a Service that changes ten times before the agent reads is told once, as it
is then. So what waits is bounded by the number of Services, and an agent that reads too slowly for that is
sent away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from controller.loadbalancing.index import ServiceKey
from controller.watchers import TooSlowError
from sdn.v1 import controller_pb2

#: Services that may wait to be told to one agent, beside those that it is told of at first.
BACKLOG = 20_000


class ServiceFeed:
    """One agent's. Owned by the asyncio thread."""

    def __init__(
        self,
        keys: Iterable[ServiceKey],
        state: Callable[[ServiceKey], controller_pb2.ServiceState | None],
        backlog: int = BACKLOG,
    ) -> None:
        """``keys`` are the Services that exist; ``state`` gives one as it is at the time."""
        self._state = state
        self._first = list(dict.fromkeys(keys))
        self._first.reverse()
        self._backlog = backlog
        self._waiting: dict[ServiceKey, None] = {}
        self._something = asyncio.Event()
        self._too_slow = False
        self._synced = False
        #: What was told last, as a hash: what did not change for this node is not told again.
        self._told: dict[ServiceKey, int] = {}

    def changed(self, key: ServiceKey) -> None:
        """A Service may be another than before, or gone."""
        if key not in self._waiting and len(self._waiting) >= self._backlog:
            self._too_slow = True
        else:
            self._waiting[key] = None
        self._something.set()

    async def next(self) -> controller_pb2.ServiceUpdate:
        """What is to be told next. TooSlowError."""
        while True:
            if self._too_slow:
                raise TooSlowError(f"more than {self._backlog} Services wait to be read: ask again")
            update = self._take()
            if update is not None:
                return update
            self._something.clear()
            await self._something.wait()

    def _take(self) -> controller_pb2.ServiceUpdate | None:
        while self._first:
            update = self._update(self._first.pop())
            if update is not None:
                return update
        if not self._synced:
            self._synced = True
            return controller_pb2.ServiceUpdate(synced=controller_pb2.Synced())
        while self._waiting:
            key = next(iter(self._waiting))
            del self._waiting[key]
            update = self._update(key)
            if update is not None:
                return update
        return None

    def _update(self, key: ServiceKey) -> controller_pb2.ServiceUpdate | None:
        state = self._state(key)
        if state is None:
            if self._told.pop(key, None) is None:
                return None
            return controller_pb2.ServiceUpdate(
                removed=controller_pb2.ServiceName(namespace=key[0], name=key[1])
            )
        mark = hash(state.SerializeToString(deterministic=True))
        if self._told.get(key) == mark:
            return None
        self._told[key] = mark
        return controller_pb2.ServiceUpdate(service=state)
