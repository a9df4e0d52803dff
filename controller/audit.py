# SPDX-License-Identifier: Apache-2.0
"""Packets that a switch hands to its controller because a policy that logs said something of them.

Pods decide how many such packets there are, and write them. So a token bucket a switch bounds what they cost, as for
rejected ones (:mod:`controller.rejects`), and what comes beyond is counted: the next sighting says how many there
were. The receiving thread reads the few headers and hands the sighting on; which policy it was is found out where the
policies are (:mod:`controller.verdicts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller import datagram
from controller.tokenbucket import Clock, TokenBucket
from sdn import logs
from sdn.model.address import Address
from sdn.openflow import CodecError, decode_packet_in
from sdn.pipeline.registers import RULE_REGISTER

log = logs.get("controller.audit")

#: Verdicts a second that a switch may report for long, and at once.
RATE: Final = 100.0
BURST: Final = 200.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet that a policy's flow reported: which switch and flow, and what the packet's headers say, as they are
    after Services were translated. Later fragments and protocols without ports have ports 0.

    at          nanoseconds since 1970
    rule        number of the rule's conjunction; 0: no rule, the pod is isolated
    suppressed  sightings of this switch since the one before that were not handed on
    """

    datapath_id: int
    at: int
    rule: int
    table: int
    cookie: int
    protocol: int
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    suppressed: int


class Audit:
    """Reads one switch's reports. Owned by the connection's receiving thread."""

    def __init__(
        self,
        datapath_id: int,
        hand_on: Callable[[Sighting], bool],
        clock: Clock = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """``hand_on`` takes a sighting if there is room for it, and says whether it did; it never waits.
        ``now`` is the time of day in nanoseconds.
        """
        self._log = log.bind(datapath_id=f"{datapath_id:016x}")
        self._datapath_id = datapath_id
        self._hand_on = hand_on
        self._now = now
        self._bucket = TokenBucket(RATE, BURST, clock)
        self._suppressed = 0

    def packet_in(self, message: bytes) -> None:
        """A packet-in of a policy's flow has come. Never raises, never waits."""
        sighting = self._read(message) if self._bucket.take() else None
        if sighting is not None and self._hand_on(sighting):
            self._suppressed = 0
        else:
            self._suppressed += 1

    def _read(self, message: bytes) -> Sighting | None:
        try:
            seen = decode_packet_in(message)
        except CodecError as problem:
            self._log.debug("packet-in is malformed", error=str(problem))
            return None
        packet = datagram.of_frame(seen.data)
        if packet is None:
            self._log.debug("packet-in of no datagram", table=seen.table, cookie=f"{seen.cookie:#x}")
            return None
        # A register that is 0 is not told.
        rule = seen.fields.get(RULE_REGISTER.name)
        source_port, destination_port = packet.ports
        return Sighting(
            datapath_id=self._datapath_id,
            at=self._now(),
            rule=0 if rule is None else rule[0],
            table=seen.table,
            cookie=seen.cookie,
            protocol=packet.protocol,
            source=Address(packet.version, int.from_bytes(packet.source, "big")),
            source_port=source_port,
            destination=Address(packet.version, int.from_bytes(packet.destination, "big")),
            destination_port=destination_port,
            suppressed=self._suppressed,
        )
