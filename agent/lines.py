# SPDX-License-Identifier: Apache-2.0
"""In which line a request waits for its turn. Each of the agent's sockets has the three lines for itself.

An ADD waits for the switch and for a controller as long as it may, and nothing waits behind it but other ADDs. What
removes needs no controller, and a runtime may not ask for it twice. What only looks has a line of its own, since a
CHECK waits for a controller, too, when one is there that has not confirmed the pod yet.
"""

from __future__ import annotations

import enum

from agent.cni.errors import CniError, Code
from agent.cni.request import spoken_version


class Line(enum.Enum):
    """What the requests of a line do."""

    MAKING = "making"
    REMOVING = "removing"
    LOOKING = "looking"


_LINES = {"ADD": Line.MAKING, "DEL": Line.REMOVING, "GC": Line.REMOVING}


def line_of(verb: str) -> Line:
    """Where a verb waits; what is no verb is told so by the line of those that look."""
    return _LINES.get(verb, Line.LOOKING)


def no_room(verb: str, config: bytes) -> tuple[int, bytes]:
    """The answer to a request that cannot even wait: (CNI error code, what to print)."""
    refused = CniError(Code.TRY_AGAIN, f"{verb}: too many requests are waiting for this node's agent")
    return int(refused.code), refused.encode(spoken_version(config))
