# SPDX-License-Identifier: Apache-2.0
"""Tells agents that their switch has confirmed a change of policies, for datapaths that must be told to forget what
they have cached (agent/services/refreshing.py). Many changes in a row are one word, and the last is never left out.

Nobody answers such a word. It may be said while the agent has no session, or be lost with a session that ends. So a
node of which there was one is told again whenever its agent's session opens; one word too many costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Seconds between two words to one agent.
PAUSE: Final = 0.2


class Refreshes:
    """Runs in the asyncio thread; :meth:`wanted` may be called from any."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """``tell`` sends the word to the agent of a node, if it is connected."""
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._last: dict[str, float] = {}
        self._due: set[str] = set()

    def wanted(self, node: str) -> None:
        """A node's switch has confirmed a change."""
        with suppress(RuntimeError):  # The loop has ended: nobody is told any more.
            self._loop.call_soon_threadsafe(self._wanted, node)

    def opened(self, node: str) -> None:
        """A session of a node's agent has opened; in the asyncio thread."""
        if node in self._last:
            self._wanted(node)

    def _wanted(self, node: str) -> None:
        if node in self._due:
            return
        self._due.add(node)
        wait = self._last.get(node, -PAUSE) + PAUSE - self._loop.time()
        self._loop.call_later(max(0.0, wait), self._now, node)

    def _now(self, node: str) -> None:
        self._due.discard(node)
        self._last[node] = self._loop.time()
        self._tell(node)
