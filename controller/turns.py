# SPDX-License-Identifier: Apache-2.0
"""Long work in the asyncio thread, in short turns: agents and switches are answered in between."""

from __future__ import annotations

import asyncio

#: Seconds of work in one turn.
TURN_SECONDS = 0.005


class Turns:
    """Make one where the work begins, and await :meth:`pause` after each step of it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + TURN_SECONDS

    async def pause(self) -> None:
        """Let others have the loop, if this turn has lasted long enough."""
        if self._loop.time() > self._end:
            await asyncio.sleep(0)
            self._end = self._loop.time() + TURN_SECONDS
