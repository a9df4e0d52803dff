# SPDX-License-Identifier: Apache-2.0
"""Which node announces a Service's LoadBalancer addresses to its link: always one, and seldom another.

Each node has a score for each Service, a hash of both names, and the candidate with the highest announces
(rendezvous hashing): no message between nodes, an even spread, and when a node goes away only what it
announced moves. Every controller elects the same node among the same candidates.

A node is a candidate while its agent and its switch are connected, and for a short while after: a daemon that
is restarted moves no address. When the controller itself starts, all registered nodes get this while. Whether it is one
its owner finds out; the others have it from the store (:mod:`controller.loadbalancing.absence`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from controller.rendezvous import score

#: Seconds that a node stays a candidate when its agent or its switch has gone.
GRACE_SECONDS = 5.0


def elect(namespace: str, name: str, candidates: Iterable[str]) -> str:
    """The node that announces; empty when there is no candidate."""
    return max(candidates, key=lambda node: _rank(namespace, name, node), default="")


def beats(namespace: str, name: str, node: str, other: str) -> bool:
    """Whether a candidate announces rather than another one; ``other`` empty: than nobody."""
    return not other or _rank(namespace, name, node) > _rank(namespace, name, other)


def _rank(namespace: str, name: str, node: str) -> tuple[bytes, str]:
    return score(f"{namespace}/{name}", node), node


class Candidates:
    """The nodes that can announce. Owned by the asyncio thread."""

    def __init__(self, on_changed: Callable[[str], None], grace_seconds: float = GRACE_SECONDS) -> None:
        """``on_changed`` is told a node that has become a candidate, or is none any longer."""
        self._on_changed = on_changed
        self._grace = grace_seconds
        self._loop = asyncio.get_running_loop()
        self._nodes: set[str] = set()
        self._ending: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def expect(self, node: str) -> None:
        """The controller starts, and the node may be about to connect: for a while when it is this controller's,
        else until its owner says that it is not.
        """
        self._nodes.add(node)

    def connected(self, node: str, connected: bool) -> None:
        """Whether the node's agent and its switch are both connected, as of now."""
        if connected:
            timer = self._ending.pop(node, None)
            if timer is not None:
                timer.cancel()
            if node not in self._nodes:
                self._nodes.add(node)
                self._on_changed(node)
        elif node in self._nodes and node not in self._ending:
            self._ending[node] = self._loop.call_later(self._grace, self.remove, node)

    def told(self, node: str, candidate: bool) -> None:
        """Whether the node is a candidate, as another controller found who owns it."""
        if candidate:
            self.connected(node, True)
        else:
            self.remove(node)

    def remove(self, node: str) -> None:
        """The node is no candidate any longer."""
        timer = self._ending.pop(node, None)
        if timer is not None:
            timer.cancel()
        if node in self._nodes:
            self._nodes.discard(node)
            self._on_changed(node)
