# SPDX-License-Identifier: Apache-2.0
"""The one way into the store for the engine's parts: one change at a time, written in a thread of its own.

A change is checked against the model, written, and made in the model, while :attr:`Ledger.lock` is held. Nothing
waits for a switch while holding it. A change that has begun is finished, also when the call that asked for it is
cancelled (gRPC cancels a call whose client goes away): otherwise store and model could part. Methods that make a
change are marked :func:`whole` for this.

Several controllers write to one store. So every write is conditional: each key must still be as this controller's
model has it. Where it is not, nothing is written, the model takes in what others wrote, and the change is checked
again from its beginning. What must hold over many keys (nobody else has this address, this number, this range) is
made certain by one more key, which every change writes that gives something away (:data:`SEQUENCE`).

A store that does not answer takes its time to say so, and changes come one after the other. So what has waited for
:data:`WAIT_SECONDS` while others failed is not asked of the store any more, and fails at once: whoever asked is told.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from controller.records import OWNERS, ROOT, SEQUENCE, owner_key
from controller.store import (
    Check,
    CompactedError,
    ConflictError,
    Delete,
    LeaseGoneError,
    Operation,
    Put,
    Snapshot,
    Store,
    StoreError,
    UncertainError,
)
from controller.store.contract import ANY, MAX_OPERATIONS

T = TypeVar("T")
P = ParamSpec("P")

#: How often a change is begun again because others wrote what it was checked against.
ATTEMPTS = 10
#: Seconds after which a change gives up waiting for what others wrote.
SEEN_SECONDS = 5.0
#: Seconds that a change, or a question, waits behind others when the last one has failed, less than so long ago.
WAIT_SECONDS = 5.0
FRESH_SECONDS = 1.0

#: When what is done in this task was asked for, on the monotonic clock.
_asked_at: ContextVar[float] = ContextVar("asked_at")


def asked_at(moment: float) -> None:
    """What this task does from now on was asked for at that moment of the monotonic clock. Changes of which this is
    not said count from when they are begun.
    """
    _asked_at.set(moment)


class DeposedError(StoreError):
    """Another controller owns the node now. Nothing was written."""


class _HasLedger(Protocol):
    _ledger: Ledger


S = TypeVar("S", bound=_HasLedger)


def whole(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """A method that is finished once begun, whoever stops waiting for it; and begun again when others were first. So
    it may change the model only after its last write.
    """

    @functools.wraps(method)
    async def run(self: S, /, *arguments: P.args, **named: P.kwargs) -> T:
        ledger = self._ledger
        return await ledger.finish(ledger.until_done(lambda: method(self, *arguments, **named)))

    return run


class Ledger:
    """Make it inside the running event loop."""

    def __init__(self, store: Store) -> None:
        self.lock = asyncio.Lock()
        #: The last revision of the store that is in the model; and the one of which everything was listed.
        self.revision = self.listed = 0
        #: The revision of the record that says that this controller owns a node; None: it does not. Set by the engine.
        self.owned_at: Callable[[str], int | None] = lambda _node: None
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "store")
        #: What the store's last answer was, if it was that it cannot; and when it came, on the monotonic clock.
        self._failed: StoreError | None = None
        self._failed_at = 0.0
        self._running: set[asyncio.Task[Any]] = set()
        #: The revision at which the model has each key.
        self._known: dict[str, int] = {}
        #: The revision at which this controller removed a key, until all up to it has come back from the store: what
        #: was written to the key before is not to be made again.
        self._removed: dict[str, int] = {}
        self._taken = asyncio.Event()
        #: Up to which revision the store was followed; and whether a write may have happened that is not known of.
        self._followed = 0
        self._in_doubt = False

    # Changes.

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

    async def until_done(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await a change, made anew as long as others write before it. ConflictError when that does not end."""
        asked_at(_asked_at.get(time.monotonic()))
        for _ in range(ATTEMPTS - 1):
            if self._in_doubt:
                await self._be_certain()
            try:
                return await make()
            except ConflictError as conflict:
                await self.seen(conflict)
        return await make()

    async def list_all(self) -> Snapshot:
        """Everything that is stored, at one revision; the model is taken to have it. StoreError."""
        snapshot = await self._call(self._store.list_prefix, ROOT)
        self._known = {entry.key: entry.revision for entry in snapshot.entries}
        self.revision = self.listed = snapshot.revision
        return snapshot

    async def write(
        self,
        operations: Sequence[Operation],
        *,
        node: str = "",
        nodes: Iterable[str] = (),
        gives: bool = False,
    ) -> int:
        """Write in as few transactions as the store allows, in the order given; gives the revision of the last one.

        ``node``, ``nodes``: only if this controller still owns that node, or all of those. ``gives``: something is
        given that nobody else may have. ConflictError: others were first; DeposedError; StoreError. With more than one
        transaction (more than :data:`MAX_OPERATIONS`) the first ones may have been written all the same; they come back
        as others' changes.
        """
        fence = self._fence([node] if node else nodes)
        wanted = [self._conditional(operation) for operation in operations]
        if gives:
            fence.append(self._conditional(Put(SEQUENCE, b"")))
        each = MAX_OPERATIONS - len(fence)
        written: list[tuple[Operation, int]] = []
        for start in range(0, len(wanted), each):
            part = [*wanted[start : start + each], *fence]
            try:
                revision = await self._call(self._store.write, part)
            except UncertainError:
                self._in_doubt = True
                raise
            except ConflictError as conflict:
                if any(conflict.key == check.key for check in fence if isinstance(check, Check)):
                    owned = conflict.key.removeprefix(OWNERS)
                    raise DeposedError(f"another controller owns Node {owned} now") from None
                raise
            written += [(operation, revision) for operation in part]
            # Its condition is another one now.
            fence = [self._after(operation, revision) for operation in fence]
        for operation, revision in written:
            self._took(operation, revision)
        # Not the model's: that may have come to what others wrote since.
        return written[-1][1] if written else self.revision

    async def _be_certain(self) -> None:
        """Find out whether a write happened that nobody confirmed: with the next one that is decided, and it has come
        back before that one comes back. StoreError.
        """
        revision = await self._call(self._store.write, [Put(SEQUENCE, b"")])
        self._in_doubt = False
        await self.caught_up(revision, SEEN_SECONDS)

    async def confirm(self, key: str) -> None:
        """The store has a key, or has it not, as the model does. ConflictError, StoreError."""
        await self._call(self._store.write, [Check(key, self._known.get(key, 0))])

    def _fence(self, nodes: Iterable[str]) -> list[Operation]:
        fence: list[Operation] = []
        for node in nodes:
            revision = self.owned_at(node)
            if revision is None:
                raise DeposedError(f"this controller does not own Node {node}")
            fence.append(Check(owner_key(node), revision))
        return fence

    def _conditional(self, operation: Operation) -> Operation:
        if isinstance(operation, Check) or operation.expect != ANY:
            return operation
        known = self._known.get(operation.key, 0)
        # What is not known to be there need not go.
        return operation if isinstance(operation, Delete) and not known else replace(operation, expect=known)

    @staticmethod
    def _after(operation: Operation, revision: int) -> Operation:
        return operation if isinstance(operation, Check) else replace(operation, expect=revision)

    def _took(self, operation: Operation, revision: int) -> None:
        self.revision = max(self.revision, revision)
        if revision <= self._followed or not self.is_new(operation.key, revision):
            # Of a write that was confirmed late: it has come back already, and perhaps what others wrote after it. A
            # change that holds the lock is never late.
            return
        if isinstance(operation, Put):
            self._known[operation.key] = revision
        elif isinstance(operation, Delete):
            self._known.pop(operation.key, None)
            self._removed[operation.key] = revision

    # What others write.

    def is_new(self, key: str, revision: int) -> bool:
        """Whether a change of a key is not in the model yet."""
        return revision > max(self._known.get(key, 0), self._removed.get(key, 0))

    def took(self, key: str, revision: int, *, there: bool) -> None:
        """A change that another one made is about to be made in the model."""
        if there:
            self._known[key] = revision
        else:
            self._known.pop(key, None)
            self._removed[key] = revision

    def stands(self, key: str, revision: int) -> bool:
        """Whether a key is still as it was written at this revision, 0: removed. Whoever writes without the lock asks
        before he makes the change in the model: others may have written since, and the follower has told of it.
        """
        return self._known.get(key, 0) == revision

    def followed(self, revision: int) -> None:
        """Everything up to this revision of the store is in the model."""
        self.revision = max(self.revision, revision)
        self._followed = max(self._followed, revision)
        if self._removed:
            self._removed = {key: removed for key, removed in self._removed.items() if removed > revision}
        self._taken.set()
        self._taken = asyncio.Event()

    @property
    def followed_to(self) -> int:
        """Up to which revision of the store everything is in the model, as far as the store itself has told. A change
        of this controller's own counts when it has come back: so one that does not hear the store is found behind.
        """
        return max(self.listed, self._followed)

    async def caught_up(self, revision: int, seconds: float) -> bool:
        """Wait until everything up to this revision of the store is in the model, or for so long; whether it is."""
        deadline = self._loop.time() + seconds
        while self.followed_to < revision and (left := deadline - self._loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._taken.wait(), left)
        return self.followed_to >= revision

    async def inherited(self, node: str) -> None:
        """Wait until the model has all that the node's owners before this controller have written of it: nobody else
        writes it after that. StoreError: that takes too long.
        """
        # Not known where this controller is no longer the owner: then the write says so.
        while (revision := self.owned_at(node)) is not None and self.followed_to < revision:
            if not await self.caught_up(revision, SEEN_SECONDS):
                raise StoreError(
                    f"the store does not tell what was stored of Node {node} before it was taken"
                )

    def known(self) -> Mapping[str, int]:
        """The revision at which the model has each key."""
        return self._known

    async def seen(self, conflict: ConflictError) -> None:
        """Wait until the model has what was in the way, or for some seconds."""
        deadline = self._loop.time() + SEEN_SECONDS
        while self._known.get(conflict.key, 0) == conflict.expected:
            left = deadline - self._loop.time()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._taken.wait(), left)
            except TimeoutError:
                return

    async def call(self, call: Callable[..., T], *arguments: object) -> T:
        """Do something with the store itself, in the store's thread."""
        return await self._call(call, *arguments)

    async def _call(self, call: Callable[..., T], *arguments: object) -> T:
        since = _asked_at.get(time.monotonic())
        return await self._loop.run_in_executor(
            self._thread, self._answer, since, functools.partial(call, *arguments)
        )

    def _answer(self, since: float, call: Callable[[], T]) -> T:
        # The store's thread.
        now = time.monotonic()
        if self._failed is not None and now - self._failed_at < FRESH_SECONDS and now - since >= WAIT_SECONDS:
            # It was never sent, so there is no doubt.
            raise StoreError(f"not done, since the store has just failed: {self._failed}")
        try:
            answer = call()
        except (CompactedError, ConflictError, LeaseGoneError):
            self._failed = None
            raise
        except StoreError as problem:
            self._failed, self._failed_at = problem, time.monotonic()
            raise
        self._failed = None
        return answer

    def stop(self) -> None:
        """Let the write that has begun end. What still waits is never sent."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def under(prefix: str, entries: Iterable[Any]) -> list[Any]:
    """The entries of a snapshot whose keys begin with a prefix."""
    return [entry for entry in entries if entry.key.startswith(prefix)]
