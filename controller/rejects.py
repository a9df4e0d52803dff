# SPDX-License-Identifier: Apache-2.0
"""Packets that a switch hands to its controller: connections to Services that nobody serves are rejected.

A client of a Service without endpoints gets a reset or an ICMP error at once, where OpenFlow by itself could
only be silent. The answer leaves by the port that the packet came in by, past all tables.

This is off the forwarding path, and must stay off the control path too, since pods decide how many such
packets there are. A token bucket a switch bounds what they cost: an answer takes some 10 us of the receiving
thread's time, so :data:`RATE` of them a second are a thousandth of it, and what comes beyond costs as
much as its reading. No thread and no queue is needed then, and nothing waits: an answer that the socket does
not take is dropped. A client repeats itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from controller.reject import reject
from controller.tokenbucket import Clock, TokenBucket
from sdn import logs
from sdn.openflow import OFPR_APPLY_ACTION, CodecError, decode_packet_in, packet_out
from sdn.pipeline.actions import Output
from sdn.pipeline.fields import OFPP_CONTROLLER
from sdn.pipeline.owner import Feature, feature_of
from sdn.pipeline.registers import TUNNEL_PORT
from sdn.pipeline.tables import LOAD_BALANCING

log = logs.get("controller.rejects")

#: Answers a second that a switch may cost for long, and at once.
RATE: Final = 100.0
BURST: Final = 200.0
#: What was dropped is logged once in this many seconds.
LOG_EVERY: Final = 60.0


class Rejects:
    """Answers one switch's packets. Owned by the connection's receiving thread."""

    def __init__(
        self, datapath_id: int, offer: Callable[[bytes], bool], clock: Clock = time.monotonic
    ) -> None:
        """``offer`` sends a message if that needs no waiting, and says whether it did."""
        self._log = log.bind(datapath_id=f"{datapath_id:016x}")
        self._offer = offer
        self._clock = clock
        self._bucket = TokenBucket(RATE, BURST, clock)
        self._dropped = 0
        self._logged_at: float | None = None

    def packet_in(self, message: bytes) -> None:
        """A packet-in has come: answer its packet if it asked for a Service. Never raises, never waits."""
        if not self._bucket.take():
            self._drop()
            return
        try:
            asked = decode_packet_in(message)
        except CodecError as problem:
            self._log.debug("packet-in is malformed", error=str(problem))
            return
        port = asked.in_port
        if (
            asked.reason != OFPR_APPLY_ACTION
            or asked.table != LOAD_BALANCING.number
            or feature_of(asked.cookie) is not Feature.SERVICES
            # Another node's switch serves its own clients; and an answer would need a tunnel's other end.
            or port is None
            or port == TUNNEL_PORT
        ):
            self._log.debug("packet-in of no Service", table=asked.table, cookie=f"{asked.cookie:#x}")
            return
        answer = reject(asked.data)
        if answer is None:
            return
        if not self._offer(packet_out(0, OFPP_CONTROLLER, (Output(port),), answer)):
            self._drop()

    def _drop(self) -> None:
        self._dropped += 1
        now = self._clock()
        if self._logged_at is None or now - self._logged_at >= LOG_EVERY:
            self._log.warning("packets to Services without endpoints stay unanswered", count=self._dropped)
            self._logged_at = now
            self._dropped = 0
