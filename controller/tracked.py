# SPDX-License-Identifier: Apache-2.0
"""How agents are asked which connections their switches track: by whom, about how much, and how many at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final, TypeAlias

from sdn.model.address import Range
from sdn.v1 import controller_pb2

#: Node, ranges in CIDR notation, seconds that may pass until more comes; UnavailableError.
ListConnections: TypeAlias = Callable[
    [str, Sequence[str], float], AsyncIterator[controller_pb2.TrackedConnection]
]
#: Seconds that an agent may take to list its connections.
LIST_SECONDS: Final = 60.0
#: Agents that are asked at a time: each answer may be large, and is looked at in one thread.
LISTS_AT_ONCE: Final = 8
#: Ranges that an agent is asked about at once; beyond that about everything.
MOST_RANGES: Final = 2_000
_EVERYTHING: Final = ("0.0.0.0/0", "::/0")


def asked(ranges: Collection[Range]) -> list[str]:
    """What an agent is asked for, so that it tells of these."""
    return list(_EVERYTHING) if len(ranges) > MOST_RANGES else sorted(map(str, ranges))
