# SPDX-License-Identifier: Apache-2.0
"""A watch on the embedded store: a queue that the store feeds in the order of its revisions."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from controller.store.contract import Event, StoreError

#: Events that a watch may lag behind before it is given up.
WATCH_BACKLOG = 100_000


class SqliteWatch:
    """Fed by its store, under the store's lock; ``forget`` is told when it is closed."""

    def __init__(self, prefix: str, forget: Callable[[SqliteWatch], None]) -> None:
        self._prefix = prefix
        self._forget = forget
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lost = False
        self._ended = False

    def feed(self, events: Sequence[Event]) -> None:
        """Take in the changes that concern this watch; never blocks."""
        for event in events:
            if event.key.startswith(self._prefix) and not self._lost:
                if self._events.qsize() >= WATCH_BACKLOG:
                    self._lost = True
                    self._events.put(None)
                else:
                    self._events.put(event)

    def next(self, timeout: float | None = None) -> Event | None:
        if self._ended and self._events.empty():
            return None
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is None and self._lost:
            raise StoreError(
                f"watch of {self._prefix}: its reader fell {WATCH_BACKLOG} changes behind; list again"
            )
        return event

    def end(self) -> None:
        """The store was closed: nothing more will come."""
        self._ended = True
        self._events.put(None)

    def close(self) -> None:
        self._forget(self)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
