# SPDX-License-Identifier: Apache-2.0
"""What policies report of packets is read in measure, whatever pods write; what is too much is counted."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.audit import BURST, RATE, Audit, Sighting
from sdn.model.address import Address
from sdn.openflow import packet_in_cookie
from sdn.openflow.oxm import encode_match
from sdn.openflow.wire import OFPT_PACKET_IN
from sdn.pipeline.match import match
from sdn.pipeline.owner import Feature, Owner, cookie, feature_of
from sdn.pipeline.registers import RULE_REGISTER, STAGED_REGISTER
from sdn.pipeline.service import Protocol
from sdn.pipeline.tables import INGRESS_POLICY
from tests.switch.service_node import frame
from tests.unit.openflow_peer import message

COOKIE = cookie(Feature.POLICY, Owner("NetworkPolicy", "shop", "web"))
SYN = frame(0, "10.244.2.7", 80, 30000, Protocol.TCP)


def packet_in(data: bytes = SYN, **registers: int) -> bytes:
    """OpenFlow 1.5, section 7.4.1, with registers as Open vSwitch tells them: those that are not 0."""
    told = {name: value for name, value in registers.items() if value}
    head = struct.pack("!IHBBQ", 0xFFFFFFFF, len(data), 1, INGRESS_POLICY.number, COOKIE)
    body = head + encode_match(match(in_port=16, **told))
    return message(OFPT_PACKET_IN, body + bytes(2) + data)


class Seen:
    """Takes what is handed on, as long as ``room`` says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.room = True
        self.sightings: list[Sighting] = []
        self.audit = Audit(7, self.hand_on, lambda: self.now, lambda: 1_000_000_000)

    def hand_on(self, sighting: Sighting) -> bool:
        if self.room:
            self.sightings.append(sighting)
        return self.room


@pytest.mark.parametrize("rule", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("staged", [0, 3])
def test_a_sighting_says_flow_rule_and_headers(rule: int, staged: int) -> None:
    seen = Seen()
    seen.audit.packet_in(packet_in(**{RULE_REGISTER.name: rule, STAGED_REGISTER.name: staged}))
    assert seen.sightings == [
        Sighting(
            datapath_id=7,
            at=1_000_000_000,
            rule=rule,
            table=INGRESS_POLICY.number,
            cookie=COOKIE,
            protocol=6,
            source=Address.parse("10.244.1.2"),
            source_port=30000,
            destination=Address.parse("10.244.2.7"),
            destination_port=80,
            suppressed=0,
        )
    ]


def test_a_burst_and_then_a_rate_and_the_rest_is_counted() -> None:
    seen = Seen()
    for _ in range(1000):
        seen.audit.packet_in(packet_in())
    assert len(seen.sightings) == BURST
    seen.now += 1.0
    for _ in range(1000):
        seen.audit.packet_in(packet_in())
    assert len(seen.sightings) == BURST + RATE
    counts = [sighting.suppressed for sighting in seen.sightings]
    assert {number: count for number, count in enumerate(counts) if count} == {BURST: 1000 - BURST}
    seen.now += 10.0
    seen.audit.packet_in(packet_in())
    assert seen.sightings[-1].suppressed == 1000 - RATE


def test_what_nobody_takes_is_counted() -> None:
    seen = Seen()
    seen.room = False
    for _ in range(5):
        seen.audit.packet_in(packet_in())
    seen.room = True
    seen.audit.packet_in(packet_in())
    seen.audit.packet_in(packet_in())
    assert [sighting.suppressed for sighting in seen.sightings] == [5, 0]


@pytest.mark.parametrize(
    "wrong", [packet_in(b""), packet_in(bytes(60)), packet_in(SYN[:30]), packet_in()[:30], b""]
)
def test_what_cannot_be_read_is_counted(wrong: bytes) -> None:
    seen = Seen()
    seen.audit.packet_in(wrong)
    seen.audit.packet_in(packet_in())
    assert [sighting.suppressed for sighting in seen.sightings] == [1]


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_make_it_fail(data: bytes, of_a_packet: bool) -> None:
    seen = Seen()
    seen.audit.packet_in(packet_in(SYN[:14] + data) if of_a_packet else message(OFPT_PACKET_IN, data))
    assert len(seen.sightings) <= 1


@given(st.binary(max_size=40))
def test_whose_packet_it_is_stands_in_its_cookie(data: bytes) -> None:
    assert feature_of(packet_in_cookie(packet_in())) is Feature.POLICY
    assert packet_in_cookie(packet_in()) == COOKIE
    cut = message(OFPT_PACKET_IN, data)
    assert packet_in_cookie(cut) == (int.from_bytes(data[8:16], "big") if len(data) >= 16 else 0)
