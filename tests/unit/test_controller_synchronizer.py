# SPDX-License-Identifier: Apache-2.0
"""The synchronizer against a switch that misbehaves as no real one can be made to."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from controller import osken, synchronizer
from controller.synchronizer import Synchronizer
from sdn.openflow import canonical_key, flow_image
from sdn.openflow.bundle import BundleControl
from sdn.openflow.wire import (
    OFPMP_DESC,
    OFPMP_FLOW_DESC,
    OFPT_BARRIER_REPLY,
    OFPT_BARRIER_REQUEST,
    OFPT_BUNDLE_CONTROL,
    OFPT_ERROR,
    OFPT_MULTIPART_REPLY,
    OFPT_MULTIPART_REQUEST,
)
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.unit.openflow_peer import OpenFlowSide, Peer, message, openflow_side, wait_for

FLOW = Flow(0, 5, match(in_port=1), (), 7, Owner("Node", "", "n"), "a test")
BUNDLE_FAILED = 17


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenFlowSide]:
    monkeypatch.setattr(synchronizer, "FIRST_PAUSE", 0.1)
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


class ScriptedSwitch:
    """Answers as a switch with no entries; ``on_close`` may answer a bundle's close request instead."""

    def __init__(self, peer: Peer, on_close: Callable[[int], bytes | None], flows: bytes = b"") -> None:
        self.comparisons = 0
        self.commits = 0
        self._peer = peer
        self._on_close = on_close
        self._flows = flows
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                kind, xid, body = self._peer.receive()
                if answer := self._answer(kind, xid, body):
                    self._peer.send(answer)
        except OSError:
            return

    def _answer(self, kind: int, xid: int, body: bytes) -> bytes | None:
        if kind == OFPT_MULTIPART_REQUEST:
            if body[:2] == struct.pack("!H", OFPMP_DESC):
                return message(OFPT_MULTIPART_REPLY, body[:2] + bytes(6) + bytes(1056), xid)
            is_flows = body[:2] == struct.pack("!H", OFPMP_FLOW_DESC)
            self.comparisons += is_flows
            return message(
                OFPT_MULTIPART_REPLY, body[:2] + bytes(6) + (self._flows if is_flows else b""), xid
            )
        if kind == OFPT_BARRIER_REQUEST:
            return message(OFPT_BARRIER_REPLY, xid=xid)
        if kind == OFPT_BUNDLE_CONTROL:
            bundle_id, request, flags = struct.unpack("!IHH", body[:8])
            if request == BundleControl.CLOSE_REQUEST and (other := self._on_close(xid)):
                return other
            self.commits += request == BundleControl.COMMIT_REQUEST
            return message(OFPT_BUNDLE_CONTROL, struct.pack("!IHH", bundle_id, request + 1, flags), xid)
        return None


@pytest.fixture
def node() -> Iterator[Synchronizer]:
    running = Synchronizer("node-1")
    yield running
    running.stop(close=True)


def test_a_refusal_that_names_no_entry_is_compared_and_tried_again(
    side: OpenFlowSide, node: Synchronizer
) -> None:
    refusals = 3

    def refuse(xid: int) -> bytes | None:
        nonlocal refusals
        refusals -= 1
        return message(OFPT_ERROR, struct.pack("!HH", BUNDLE_FAILED, 14), xid) if refusals >= 0 else None

    switch = ScriptedSwitch(side.switch(1), refuse)
    done: list[str | None] = []
    node.submit("node", lambda: [FLOW], done.append)
    node.connected(side.recorder.came[0])
    wait_for(lambda: done, "the part to be in force")
    assert done == [None]
    assert switch.comparisons == 4
    assert switch.commits == 1
    assert "BUNDLE_FAILED/TIMEOUT" in node.status.last_error
    wait_for(lambda: node.status.synchronized, "the switch to be synchronized")


def test_a_switch_that_answers_nonsense_is_let_go(side: OpenFlowSide, node: Synchronizer) -> None:
    ScriptedSwitch(side.switch(1), lambda _: None, flows=bytes(40))
    node.submit("node", lambda: [FLOW])
    node.connected(side.recorder.came[0])
    wait_for(lambda: side.recorder.went, "the connection to be closed")
    wait_for(lambda: not node.status.connected, "the status to say so")
    assert "flow description" in node.status.last_error
    # The next connection starts afresh.
    ScriptedSwitch(side.switch(1), lambda _: None)
    node.connected(side.recorder.came[1])
    wait_for(lambda: node.status.synchronized, "the switch to be synchronized")
    assert node.status.installed_flows == 1


def test_a_connection_lost_in_a_bundle_is_no_refusal(side: OpenFlowSide, node: Synchronizer) -> None:
    first = side.switch(1)

    def vanish(_: int) -> bytes | None:
        first.socket.shutdown(2)
        return None

    ScriptedSwitch(first, vanish)
    done: list[str | None] = []
    node.submit("node", lambda: [FLOW], done.append)
    node.connected(side.recorder.came[0])
    wait_for(lambda: side.recorder.went, "the connection to end")
    wait_for(lambda: not node.status.connected, "the status to say so")
    assert done == []
    ScriptedSwitch(side.switch(1), lambda _: None)
    node.connected(side.recorder.came[1])
    wait_for(lambda: done, "the part to be in force")
    assert done == [None]


def test_a_defect_that_one_part_has_found_is_told_and_holds_up_nobody(
    side: OpenFlowSide, node: Synchronizer
) -> None:
    def broken() -> list[Flow]:
        raise KeyError("no such thing")

    said: list[str | None] = []
    node.submit("broken", broken, said.append)
    node.submit("node", lambda: [FLOW])
    ScriptedSwitch(side.switch(1), lambda _: None)
    node.connected(side.recorder.came[0])
    wait_for(lambda: node.status.installed_flows == 1, "the other part to be in force")
    assert said == ["KeyError: 'no such thing'"]


def test_a_flow_listed_with_its_fields_in_another_order_is_ours(
    side: OpenFlowSide, node: Synchronizer
) -> None:
    """Another version of Open vSwitch may order them otherwise; the flow must not be added and then
    removed.
    """
    ours = Flow(0, 5, match(in_port=1, reg0=2), (), 7, Owner("Node", "", "n"), "a test")
    key, body = flow_image(ours)
    # Behind table, priority and the match's header: 8 bytes of in_port, then the register.
    swapped = key[:8] + key[16:] + key[8:16]
    assert canonical_key(swapped) == key
    description = _description(swapped, body)
    switch = ScriptedSwitch(side.switch(1), lambda _: None, flows=description)
    node.submit("node", lambda: [ours])
    node.connected(side.recorder.came[0])
    wait_for(lambda: node.status.synchronized, "the switch to be synchronized")
    assert switch.commits == 0
    assert node.status.repaired == 0


def _description(key: bytes, body: bytes) -> bytes:
    """One flow description (OpenFlow 1.5, section 7.3.5.2) with empty statistics."""
    entry = key[:4] + body[:16] + key[4:] + struct.pack("!HH4x", 0, 4) + body[16:]
    return struct.pack("!H2x", len(entry) + 4) + entry
