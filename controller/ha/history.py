# SPDX-License-Identifier: Apache-2.0
"""How much of the store's history is kept: what changed in the last minutes, and not too many changes.

A watch that was broken off goes on where it was within seconds. What is older only takes room, however few changes it
was: they may be large, and etcd refuses every write when its room is used up.
"""

from __future__ import annotations

from collections import deque

from controller.store import Store

#: Seconds between two times at which the history is shortened, and how many of them something is kept.
SHORTEN_SECONDS = 60.0
KEPT_TIMES = 5
#: Revisions that are kept at most.
KEPT_REVISIONS = 10_000


class History:
    """Of the store. Not for several threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._past: deque[int] = deque(maxlen=KEPT_TIMES)

    def shorten(self) -> None:
        """To be called every :data:`SHORTEN_SECONDS`. Blocks. StoreError."""
        now = self._store.revision()
        long_ago = self._past[0] if len(self._past) == KEPT_TIMES else 0
        self._past.append(now)
        if (forget := max(long_ago, now - KEPT_REVISIONS)) > 0:
            self._store.compact(forget)
