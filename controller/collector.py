# SPDX-License-Identifier: Apache-2.0
"""Python's collector of reference cycles looks at what is new, not again and again at a whole cluster.

A full collection looks at every object that has lived for a while, and no thread runs meanwhile: with 10,000 Services
that is half a second in which switches, agents and leases are not answered. Almost nothing in a model is part of a
cycle. So when many objects have survived a full collection they are set aside for good: they go when nothing refers to
them any more, as ever, and are looked at no more. What this can cost is the memory of those few that are part of a
cycle by then and go later; it is bounded, since they are set aside only when the model has grown.
"""

from __future__ import annotations

import gc
from typing import Final

#: Survivors that are set aside; to look at as many takes about 20 ms.
MANY: Final = 100_000

_OLDEST: Final = 2


def set_survivors_aside() -> None:
    """From now on, in this process."""
    if _collected not in gc.callbacks:
        gc.callbacks.append(_collected)


def _collected(phase: str, details: dict[str, int]) -> None:
    """Called by the collector before and after each collection."""
    if phase == "stop" and details["generation"] == _OLDEST and _survivors() >= MANY:
        gc.freeze()


def _survivors() -> int:
    """How many objects have survived a full collection.

    The list of them is made, counted and dropped without a step of the interpreter in between, so that no other thread
    sees it: in it is whatever tuple another thread is just making out of a generator, which then has one reference too
    many to grow ("SystemError: bad argument to internal function").
    """
    return next(map(len, map(gc.get_objects, (_OLDEST,))))
