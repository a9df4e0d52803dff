# SPDX-License-Identifier: Apache-2.0
"""What a switch hands over is answered in measure, and only what it concerns."""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import osken
from controller.rejects import BURST, LOG_EVERY, RATE, Rejects
from sdn import logs
from sdn.openflow.oxm import encode_match
from sdn.openflow.wire import OFPT_PACKET_IN, OFPT_PACKET_OUT
from sdn.pipeline.match import match
from sdn.pipeline.owner import Feature, Owner, cookie
from sdn.pipeline.registers import TUNNEL_PORT
from sdn.pipeline.service import Protocol
from sdn.pipeline.tables import BRIDGING, LOAD_BALANCING
from tests.switch.service_node import frame
from tests.unit.openflow_peer import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ROLE_STATUS,
    SLAVE,
    OpenFlowSide,
    message,
    openflow_side,
)

SYN = frame(0, "10.96.0.1", 80, 30000, Protocol.TCP)
COOKIE = cookie(Feature.SERVICES, Owner("Service", "default", "web"))


def packet_in(
    reason: int = 1,
    table: int = LOAD_BALANCING.number,
    owner: int = COOKIE,
    in_port: int | None = 16,
    data: bytes = SYN,
) -> bytes:
    """OpenFlow 1.5, section 7.4.1."""
    fields = match() if in_port is None else match(in_port=in_port)
    body = struct.pack("!IHBBQ", 0xFFFFFFFF, len(data), reason, table, owner) + encode_match(fields)
    return message(OFPT_PACKET_IN, body + bytes(2) + data)


class Answers:
    """Takes what is offered, as long as ``room`` says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[bytes] = []
        self.room = True
        self.rejects = Rejects(1, self.offer, lambda: self.now)

    def offer(self, data: bytes) -> bool:
        if self.room:
            self.sent.append(data)
        return self.room


def test_a_burst_and_then_a_rate() -> None:
    answers = Answers()
    for _ in range(1000):
        answers.rejects.packet_in(packet_in())
    assert len(answers.sent) == BURST
    answers.now += 1.0
    for _ in range(1000):
        answers.rejects.packet_in(packet_in())
    assert len(answers.sent) == BURST + RATE


def test_what_is_dropped_is_logged_now_and_then() -> None:
    lines = io.StringIO()
    handler = logging.getLogger("controller.rejects")
    stream = logging.StreamHandler(lines)
    stream.setFormatter(logs._JsonLines())
    handler.addHandler(stream)
    try:
        answers = Answers()
        answers.room = False
        for _ in range(10):
            answers.rejects.packet_in(packet_in())
        answers.now += LOG_EVERY
        answers.rejects.packet_in(packet_in())
    finally:
        handler.removeHandler(stream)
    assert [json.loads(line)["count"] for line in lines.getvalue().splitlines()] == [1, 10]


NOT_OURS = {
    "a table miss": packet_in(reason=0),
    "another table": packet_in(table=BRIDGING.number),
    "another feature": packet_in(owner=cookie(Feature.ROUTING, Owner("Node", "", "node-1"))),
    "by the tunnel": packet_in(in_port=TUNNEL_PORT),
    "by no port": packet_in(in_port=None),
    "of no packet": packet_in(data=b""),
    "cut short": packet_in()[:30],
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_not_answered(what: str) -> None:
    answers = Answers()
    answers.rejects.packet_in(NOT_OURS[what])
    assert answers.sent == []


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    Answers().rejects.packet_in(message(OFPT_PACKET_IN, data))


@pytest.fixture
def side() -> Iterator[OpenFlowSide]:
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


def test_behind_a_flood_an_echo_is_answered(side: OpenFlowSide) -> None:
    """A switch that floods and reads nothing meanwhile: what is put aside for it is bounded."""
    peer = side.switch(1)
    for _ in range(20):
        peer.send(packet_in() * 1000)
    peer.send(message(ECHO_REQUEST, b"alive", xid=77))
    kinds: list[int] = []
    while not kinds or kinds[-1] != ECHO_REPLY:
        kind, xid, body = peer.receive()
        kinds.append(kind)
    assert (xid, body) == (77, b"alive")
    assert set(kinds[:-1]) == {OFPT_PACKET_OUT}
    assert BURST <= len(kinds) - 1 < 20_000
    assert side.recorder.went == []


def test_packets_of_a_switch_that_has_another_master_are_not_answered(side: OpenFlowSide) -> None:
    """Until it has asked to be a slave every controller gets all packets, and the master answers them."""
    peer = side.switch(1)
    side.recorder.came[0].packets_wanted = False
    peer.send(packet_in() + message(ECHO_REQUEST, b"alive", xid=77))
    assert peer.receive()[0] == ECHO_REPLY
    side.recorder.came[0].packets_wanted = True
    peer.send(packet_in() + message(ECHO_REQUEST, b"alive", xid=78))
    assert [peer.receive()[0] for _ in range(2)] == [OFPT_PACKET_OUT, ECHO_REPLY]


def test_a_master_that_is_told_that_it_is_one_no_longer_answers_none_from_then_on(side: OpenFlowSide) -> None:
    peer = side.switch(1)
    deposed = message(ROLE_STATUS, struct.pack("!IB3xQ", SLAVE, 0, 9))
    peer.send(deposed + packet_in() + message(ECHO_REQUEST, b"alive", xid=77))
    assert peer.receive()[0] == ECHO_REPLY
