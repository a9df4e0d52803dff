# SPDX-License-Identifier: Apache-2.0
"""Who waits for another owner of a node, or for another set of members."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

#: Instead of a node: those that are none.
NO_NODE: Final = ""


class News:
    """Make it inside the running event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        #: The same for those who wait for one node only.
        self._of_node: dict[str, asyncio.Event] = {}

    def next(self) -> Coroutine[Any, Any, object]:
        """Waits until something is told."""
        return self._next.wait()

    def of(self, node: str) -> asyncio.Event:
        """Is set when the node has another owner, or the members are others: of a thousand nodes that change hands one
        after the other, each wakes only those who wait for it. Who waits for :data:`NO_NODE` is woken by any.
        """
        return self._of_node.setdefault(node, asyncio.Event())

    def owner(self, node: str) -> None:
        """A node has another owner."""
        self._tell([node, NO_NODE])

    def members(self) -> None:
        """There are other members."""
        self._tell(list(self._of_node))

    def _tell(self, nodes: list[str]) -> None:
        self._next.set()
        self._next = asyncio.Event()
        for node in nodes:
            event = self._of_node.pop(node, None)
            if event is not None:
                event.set()
