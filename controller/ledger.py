# SPDX-License-Identifier: Apache-2.0
"""The one way into the store for the engine's parts: one change at a time, written in a thread of its own.

A change is checked against the model, written, and made in the model, while :attr:`Ledger.lock` is held.
Nothing waits for a switch while holding it. A change that has begun is finished, also when the call that
asked for it is cancelled (gRPC cancels a call whose client goes away): otherwise store and model could part.
Methods that make a change are marked :func:`whole` for this.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from controller.store import Operation, Snapshot, Store
from controller.store.contract import MAX_OPERATIONS

T = TypeVar("T")
P = ParamSpec("P")


class _HasLedger(Protocol):
    _ledger: Ledger


S = TypeVar("S", bound=_HasLedger)


def whole(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """A method that is finished once begun, whoever stops waiting for it."""

    @functools.wraps(method)
    async def run(self: S, /, *arguments: P.args, **named: P.kwargs) -> T:
        return await self._ledger.finish(method(self, *arguments, **named))

    return run


class Ledger:
    """Make it inside the running event loop."""

    def __init__(self, store: Store) -> None:
        self.lock = asyncio.Lock()
        #: Revision of the store after the last write.
        self.revision = 0
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "store")
        self._running: set[asyncio.Task[Any]] = set()

    async def finish(self, change: Coroutine[Any, Any, T]) -> T:
        """Await a change; it goes on when the waiting is cancelled."""
        task = self._loop.create_task(change)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Marks it as seen: whoever still waits gets it, nobody else needs it.
            task.exception()

    async def list_prefix(self, prefix: str) -> Snapshot:
        """All entries under a prefix. StoreError."""
        snapshot = await self._call(self._store.list_prefix, prefix)
        self.revision = snapshot.revision
        return snapshot

    async def write(self, operations: Sequence[Operation]) -> None:
        """Write in as few transactions as the store allows, in the order given. StoreError."""
        for start in range(0, len(operations), MAX_OPERATIONS):
            self.revision = await self._call(self._store.write, operations[start : start + MAX_OPERATIONS])

    async def _call(self, call: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._thread, functools.partial(call, *arguments))

    def stop(self) -> None:
        """Let the last write end."""
        self._thread.shutdown(wait=True)
