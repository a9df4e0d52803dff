# SPDX-License-Identifier: Apache-2.0
"""Which controllers a node's switch is connected to: all of them, or a bounded number where there are more.

Rendezvous hashing ranks the controllers for each node. Its switch is connected to its owner, whoever that is, and to
the first ones of its ranks, so that the first ones but the last are connected whoever the owner is. Those are the
node's *candidates*: who takes its switch over is one of them, and need not wait for a connection.

All that have a lease are ranked, also those that are marked as down, hand over, or are of an older build: such a state
passes, and each change disturbs a switch. When a controller comes or goes, a switch changes one connection at most,
and only where that controller was, or now is, among the first ones.

The result depends on nothing but the names of the controllers, the node's and the owner's, all of which every
controller follows in the store.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import Final

from controller.rendezvous import score

#: Controllers that a switch is connected to at most. Each connection costs a controller memory and signs of life, and
#: the number that it takes is bounded (controller/listener.py).
MOST_CONNECTED: Final = 5
#: Nodes whose ranks are kept in mind, those of former sets of controllers among them.
_REMEMBERED: Final = 16_384


def bounded(there: frozenset[str]) -> bool:
    """Whether there are more controllers than a switch is connected to."""
    return len(there) > MOST_CONNECTED


def candidates(node: str, there: frozenset[str]) -> frozenset[str]:
    """Those that a node's switch is connected to whoever owns it."""
    return frozenset(_ranks(node, there)[:-1]) if bounded(there) else there


def connected(node: str, there: frozenset[str], owner: str | None) -> frozenset[str]:
    """Those that a node's switch is connected to, by name. ``owner`` need not be there."""
    if not bounded(there):
        return there
    ranks = _ranks(node, there)
    last = owner if owner is not None and owner in there and owner not in ranks else ranks[-1]
    return frozenset((*ranks[:-1], last))


@lru_cache(maxsize=_REMEMBERED)
def _ranks(node: str, there: frozenset[str]) -> tuple[str, ...]:
    """The first ones by score, as many as a switch is connected to."""
    return tuple(heapq.nlargest(MOST_CONNECTED, there, key=lambda name: (score(node, name), name)))
