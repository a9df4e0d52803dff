# SPDX-License-Identifier: Apache-2.0
"""Follows the store: what other controllers write is taken into this one's model, in order, nothing left out.

One watch of everything that is ours, read by a thread. It hands over what has come, and reads on when that is in the
model: so a model that is slow holds up the watch, and not the memory. A watch that has lost changes (compacted, too
slow, the store away for long) is followed by a list of everything, and the difference is taken in like changes. Not so
when the store itself is another one, wiped or restored: its revisions say nothing of what the model has. Then it is
over, for whoever has made this to end, and to be started anew with what is there.

This controller's own changes come back, too. They are in the model since they were written, which the ledger knows by
their revision.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from controller.ledger import Ledger
from controller.records import ROOT, CorruptRecordError, order_of
from controller.store import AnotherStoreError, Event, Snapshot, Store, StoreError, Watch
from controller.turns import Turns
from sdn import logs

log = logs.get("controller.follower")

T = TypeVar("T")

#: Seconds for which the thread waits for a change, before it looks whether it is over.
_LOOK_SECONDS = 0.5
#: Seconds between two attempts to list everything.
_RETRY_SECONDS = 0.5
_AT_ONCE = 500

#: Takes one change into the model. CorruptRecordError: it cannot be read.
Apply = Callable[[Event], None]


class Follower:
    """Make and start it inside the running event loop."""

    def __init__(self, store: Store, ledger: Ledger, apply: Apply) -> None:
        self._store = store
        self._ledger = ledger
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._after = 0
        #: Keys whose last change could not be taken in. When everything is listed they are tried again.
        self._untaken: set[str] = set()
        #: Told, in the loop, that the store is another one, and how that is known. Nothing is followed any more.
        self.on_another_store: Callable[[str], None] = lambda _why: None

    def start(self) -> None:
        """Follow from the revision on that was listed."""
        # Not from what was written since: others may have written before that.
        self._after = self._ledger.listed
        self._thread.start()

    def stop(self) -> None:
        """Follow no more. Does not wait for the thread, which may wait for the store."""
        self._stopping.set()

    # The thread.

    def _run(self) -> None:
        complete = True
        while not self._stopping.is_set():
            try:
                if not complete:
                    self._list_again()
                complete = False
                with self._store.watch(ROOT, self._after) as watch:
                    self._read(watch)
            except AnotherStoreError as problem:
                with suppress(RuntimeError):  # The loop has ended under us.
                    self._loop.call_soon_threadsafe(self.on_another_store, str(problem))
                return
            except StoreError as problem:
                if not self._stopping.is_set():
                    log.warning("changes of the store were lost; all is listed", error=str(problem))
                self._stopping.wait(_RETRY_SECONDS)
            except (CancelledError, RuntimeError):
                if self._stopping.is_set() or self._loop.is_closed():
                    return  # The loop has ended under us.
                raise

    def _read(self, watch: Watch) -> None:
        while not self._stopping.is_set():
            event = watch.next(_LOOK_SECONDS)
            if event is None:
                continue
            events = [event]
            while len(events) < _AT_ONCE and (following := watch.next(0)) is not None:
                events.append(following)
            self._hand_over(events)

    def _hand_over(self, events: Sequence[Event]) -> None:
        self._in_loop(self._follow(events))
        self._after = events[-1].revision

    def _list_again(self) -> None:
        known = self._ledger.revision
        snapshot = self._store.list_prefix(ROOT)
        if snapshot.revision < known:
            raise AnotherStoreError(
                f"the store is another one than before, wiped or restored from a backup: revision {snapshot.revision} "
                f"after {known}"
            )
        events = self._in_loop(self._differing(snapshot))
        for start in range(0, len(events), _AT_ONCE):
            self._in_loop(self._take(events[start : start + _AT_ONCE]))
        self._in_loop(self._reached(snapshot.revision))
        self._after = snapshot.revision

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """RuntimeError: the loop has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except RuntimeError:
            work.close()  # It never began.
            raise

    # The loop.

    async def _differing(self, snapshot: Snapshot) -> list[Event]:
        """What has changed between what the model has and what is stored now, in an order in which it can be taken in:
        a list does not say what was written first, and nothing may come before what it refers to.
        """
        turns = Turns()
        there = {entry.key for entry in snapshot.entries}
        known = self._ledger.known().keys() | self._untaken
        gone = [Event(key, None, snapshot.revision) for key in known if key not in there]
        changed = []
        for entry in snapshot.entries:
            if self._is_to_take(entry.key, entry.revision):
                changed.append(Event(entry.key, entry.value, entry.revision))
            await turns.pause()
        gone.sort(key=lambda event: order_of(event.key), reverse=True)
        changed.sort(key=lambda event: (order_of(event.key), event.revision))
        return [*gone, *changed]

    def _is_to_take(self, key: str, revision: int) -> bool:
        """Whether a change is new, or the one that could not be taken in."""
        return self._ledger.is_new(key, revision + 1 if key in self._untaken else revision)

    async def _reached(self, revision: int) -> None:
        """Everything that was listed is in the model, though nothing may have differed."""
        async with self._ledger.lock:
            self._ledger.followed(revision)

    async def _follow(self, events: Sequence[Event]) -> None:
        await self._take(events)
        self._ledger.followed(events[-1].revision)

    async def _take(self, events: Sequence[Event]) -> None:
        turns = Turns()
        async with self._ledger.lock:
            for event in events:
                if not self._is_to_take(event.key, event.revision):
                    continue
                self._untaken.discard(event.key)
                self._ledger.took(event.key, event.revision, there=event.value is not None)
                try:
                    self._apply(event)
                except CorruptRecordError as problem:
                    # A newer controller's, perhaps: whoever wrote it programs it, and this one lacks it.
                    log.error("a change cannot be read", key=event.key, error=str(problem))
                    self._untaken.add(event.key)
                except Exception as problem:  # one object's defect must not stop all others
                    log.exception("a change cannot be taken in", key=event.key, error=str(problem))
                    self._untaken.add(event.key)
                await turns.pause()
