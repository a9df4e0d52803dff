# SPDX-License-Identifier: Apache-2.0
"""Those who wait for parts to be in force in one switch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from controller.changes import Done
from controller.desired import Part

#: How many may wait for a switch that is away before only the last one of each part still does.
MOST_WAITING: Final = 4096


class Waiting:
    """Owned by the synchronizer's thread."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Part, Done]] = []
        self._most = MOST_WAITING

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, part: Part, waiting: Iterable[Done]) -> None:
        """They wait for this part."""
        self._waiting += ((part, done) for done in waiting)

    def take(self) -> Iterator[tuple[Part, Done]]:
        """All of them, in the order in which they came; nobody waits any more."""
        waiting, self._waiting, self._most = self._waiting, [], MOST_WAITING
        return iter(waiting)

    def thin(self) -> None:
        """The switch is away, maybe for days. Of very many only the last one of each part waits on: requests of agents
        have long been given up, and of changes of policies only the last matters, since connections are looked at
        anyway when the switch is back.
        """
        if len(self._waiting) > self._most:
            self._waiting = [*dict(self._waiting).items()]
            self._most = max(MOST_WAITING, 2 * len(self._waiting))
