# SPDX-License-Identifier: Apache-2.0
"""Cutting stale connections: the flushes that make a switch forget them, repeated until it has.

Open vSwitch's userspace tracker walks over its table while it removes entries, and the table shrinks under its
feet when more than half of it goes: then about half of what should go is passed over (seen with 3.1: of 2,000
entries to one endpoint one flush left 510, the next 252, then 126). Nothing tells how many are left. But a
flush reads the whole table, so its time tells how large that is: one that gets shorter each time has lost
entries, and is repeated; where the table is small, repeating costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from controller.connection import SwitchConnection
from controller.forgetting import Flush
from controller.stale import Gone, Stale
from sdn.openflow import CtTuple
from sdn.pipeline.registers import SERVICE_ZONE
from sdn.pipeline.service import Protocol

#: A flush that took no longer is repeated REPEATED times at once.
CHEAP = 0.002
REPEATED = 14
#: A table that goes down to less than this share was shrinking.
_SHRINKING = 0.75
_MOST_PASSES = 20

Clock = Callable[[], float]


def cut(
    connection: SwitchConnection,
    stale: Iterable[Stale],
    clock: Clock = time.monotonic,
    ask: Callable[[], None] = lambda: None,
) -> str:
    """Make the switch forget connections; returns when it has. What it answers should it refuse.

    ``ask`` is called before each flush; it raises when it must not be made. ConnectionClosedError, DeposedError.
    """
    wanted = list(flushes(stale))
    former = 0.0
    for count in range(_MOST_PASSES):
        ask()
        began = clock()
        error = connection.flush(wanted)
        took = clock() - began
        if error:
            return error
        if took <= CHEAP:
            ask()
            return connection.flush(wanted * REPEATED)
        if count and took > former * _SHRINKING:
            break
        former = took
    return ""


def flushes(stale: Iterable[Stale]) -> Iterator[Flush]:
    """The entries of the tracker that are meant.

    What comes back from the endpoint tells them in both zones: in SERVICE_ZONE the destination was translated,
    in SOURCE_ZONE the source. The address that a client had asked for is known in the first only. Elsewhere
    (a kernel's own zone) there is nothing of such connections, or it is as stale.
    """
    for each in stale:
        if isinstance(each, Gone):
            yield None, None, CtTuple(source=each.address)
            if each.both_ways:
                yield None, CtTuple(source=each.address), None
            continue
        endpoint, frontend = each
        reply = CtTuple(Protocol.UDP, source=endpoint.address, source_port=endpoint.port)
        if frontend is None:
            yield None, None, reply
        else:
            asked = CtTuple(Protocol.UDP, destination=frontend.address, destination_port=frontend.port)
            yield SERVICE_ZONE, asked, reply
