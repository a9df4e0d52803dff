# SPDX-License-Identifier: Apache-2.0
"""Attachments that are reported while others are being stored are stored together: a write to the store takes as long
for fifty of them as for one, and there is one write at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from controller.ledger import asked_at
from controller.store import StoreError
from controller.store.contract import MAX_OPERATIONS
from sdn.v1 import types_pb2

#: Attachments that are stored in one write, each with the condition that its node is still owned.
AT_ONCE = MAX_OPERATIONS // 2 - 5

#: Called in the asyncio thread: None, it is in force; else why it is not, and never will be.
Answer = Callable[[str | None], None]
Live = Callable[[], bool]


@dataclass(slots=True)
class Asked:
    """An attachment that waits to be stored."""

    node: str
    attachment: types_pb2.Attachment
    answer: Answer
    #: Whether the stream that asks is still the node's.
    live: Live
    stored: asyncio.Future[None]
    #: When, on the monotonic clock.
    asked_at: float = field(default_factory=time.monotonic)

    def succeed(self) -> None:
        """It is stored, and was handed to its switch."""
        if not self.stored.done():
            self.stored.set_result(None)

    def fail(self, problem: Exception) -> None:
        """It is not stored."""
        if not self.stored.done():
            self.stored.set_exception(problem)


class Together:
    """Make it inside the running event loop. ``attach`` stores several; StoreError: none of them."""

    def __init__(self, attach: Callable[[Sequence[Asked]], Awaitable[None]]) -> None:
        self._attach = attach
        self._loop = asyncio.get_running_loop()
        self._asked: list[Asked] = []
        self._storing: asyncio.Task[None] | None = None

    async def store(self, asked: Asked) -> None:
        """Returns when it is stored, else raises what is wrong with it. It is stored whoever stops waiting."""
        self._asked.append(asked)
        if self._storing is None:
            self._storing = self._loop.create_task(self._store())
        await asked.stored

    async def _store(self) -> None:
        try:
            while self._asked:
                batch, self._asked = self._asked[:AT_ONCE], self._asked[AT_ONCE:]
                asked_at(batch[0].asked_at)
                try:
                    await self._attach(batch)
                except StoreError:
                    # For one of them, perhaps: the others are not to suffer.
                    for asked in batch:
                        await self._alone(asked)
                except Exception as problem:  # noqa: BLE001 - theirs who asked
                    for asked in batch:
                        asked.fail(problem)
        finally:
            self._storing = None

    async def _alone(self, asked: Asked) -> None:
        try:
            await self._attach([asked])
        except Exception as problem:  # noqa: BLE001 - his who asked
            asked.fail(problem)
