# SPDX-License-Identifier: Apache-2.0
"""Leases of the embedded store: kept in memory, since only one process can have the file.

Which keys a lease holds is written in the file: whoever opens it next removes them. Here is only the time.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from controller.store.contract import LeaseGoneError, StoreError

#: Pause before keys are removed again that could not be (a full disk).
RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class SqliteLeases:
    """``remove`` takes the keys of an ended lease out of the store; it may raise StoreError, and is called
    again then."""

    def __init__(self, remove: Callable[[int], None]) -> None:
        self._remove = remove
        self._changed = threading.Condition()
        #: Of each lease: for how long it is granted, and when it ends by the monotonic clock.
        self._granted: dict[int, tuple[float, float]] = {}
        #: Ended, with keys that may still be there.
        self._ended: list[int] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    def grant(self, seconds: float) -> int:
        if seconds <= 0:
            raise ValueError(f"a lease lasts longer than {seconds} seconds")
        # Unlike a number that counts, never that of a lease that somebody remembers from before.
        lease = secrets.randbits(62) + 1
        with self._changed:
            self._granted[lease] = (seconds, time.monotonic() + seconds)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="store leases", daemon=True)
                self._thread.start()
            self._changed.notify()
        return lease

    def renew(self, lease: int) -> float:
        with self._changed:
            self._check(lease)
            seconds, _ = self._granted[lease]
            self._granted[lease] = (seconds, time.monotonic() + seconds)
        return seconds

    def check(self, lease: int) -> None:
        """LeaseGoneError when this lease has ended."""
        with self._changed:
            self._check(lease)

    def _check(self, lease: int) -> None:
        if lease not in self._granted or self._granted[lease][1] <= time.monotonic():
            raise LeaseGoneError(lease)

    def revoke(self, lease: int) -> None:
        with self._changed:
            self._granted.pop(lease, None)
        try:
            self._remove(lease)
        except StoreError:
            with self._changed:
                self._ended.append(lease)
                self._changed.notify()
            raise

    def _run(self) -> None:
        while (lease := self._next_ended()) is not None:
            try:
                self._remove(lease)
            except StoreError as problem:
                with self._changed:
                    if self._closed:
                        return
                    _log.error("keys of a lease that has ended stay for now: %s", problem)
                    self._ended.append(lease)
                    self._changed.wait(RETRY_SECONDS)

    def _next_ended(self) -> int | None:
        """Wait until a lease ends; None when the store is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for lease in [lease for lease, (_, end) in self._granted.items() if end <= now]:
                    del self._granted[lease]
                    self._ended.append(lease)
                if self._ended:
                    return self._ended.pop(0)
                ends = [end for _, end in self._granted.values()]
                self._changed.wait(min(ends) - now if ends else None)
        return None

    def close(self) -> None:
        """End the thread; leases end with the process, and their keys when the file is opened again."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
