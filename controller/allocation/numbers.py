# SPDX-License-Identifier: Apache-2.0
"""Numbers of Services: unique, small, kept for a Service's life (see sdn/pipeline/service.py for what they number).

A number that becomes free is not given again at once: what still refers to it in a switch (a flow that session
affinity left behind, a group that is on its way out) must not meet another Service.
"""

from __future__ import annotations

import heapq
from collections import deque

from sdn.pipeline.service import MAX_SERVICES

#: So many others become free before a number is given again.
REST = 256


class Numbers:
    """Which numbers are taken."""

    def __init__(self, first: int = 1) -> None:
        self._first = first
        self._taken: set[int] = set()
        self._next = first
        self._free: list[int] = []
        self._resting: deque[int] = deque()

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    def choose(self) -> int | None:
        """The next number; None when all are taken."""
        while self._free and self._free[0] in self._taken:
            heapq.heappop(self._free)
        if self._free:
            return self._free[0]
        if self._next <= MAX_SERVICES:
            return self._next
        return next((number for number in self._resting if number not in self._taken), None)

    def take(self, number: int) -> None:
        """A number is in use from now on."""
        if number >= self._next:
            for skipped in range(self._next, number):
                heapq.heappush(self._free, skipped)
            self._next = number + 1
        self._taken.add(number)

    def give_back(self, number: int) -> None:
        """A number is in use no longer."""
        if number not in self._taken:
            return
        self._taken.remove(number)
        self._resting.append(number)
        if len(self._resting) > REST:
            heapq.heappush(self._free, self._resting.popleft())
