# SPDX-License-Identifier: Apache-2.0
"""The synchronizer against a switch that misbehaves as no real one can be made to."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from controller import osken, writer
from controller.synchronizer import Synchronizer
from sdn.openflow import canonical_key, flow_image
from sdn.openflow.wire import OFPT_ERROR
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.unit.openflow_peer import OpenFlowSide, message, openflow_side, wait_for
from tests.unit.scripted_switch import ScriptedSwitch, description

FLOW = Flow(0, 5, match(in_port=1), (), 7, Owner("Node", "", "n"), "a test")
BUNDLE_FAILED = 17


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenFlowSide]:
    monkeypatch.setattr(writer, "FIRST_PAUSE", 0.1)
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


@pytest.fixture
def node() -> Iterator[Synchronizer]:
    running = Synchronizer("node-1")
    yield running
    running.stop(close=True)


@pytest.mark.parametrize("else_due", [False, True], ids=["alone", "with connections to cut"])
def test_a_refusal_that_names_no_entry_is_compared_and_tried_again(
    side: OpenFlowSide, node: Synchronizer, monkeypatch: pytest.MonkeyPatch, else_due: bool
) -> None:
    refusals = 3
    # What else is due comes when the bundle is taken: it must not make it come again and again.
    due = node._writer._stale.due
    monkeypatch.setattr(node._writer._stale, "due", lambda: 0.0 if else_due and refusals > 0 else due())

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


def test_whoever_was_told_that_changes_are_under_way_is_told_when_they_are_over(side: OpenFlowSide) -> None:
    told: list[bool] = []
    node = Synchronizer("node-1", on_status=lambda: told.append(node.status.synchronized))
    try:
        switch = ScriptedSwitch(side.switch(1))
        node.submit("node", lambda: [FLOW])
        node.connected(side.recorder.came[0])
        wait_for(lambda: told and told[-1], "the switch to be synchronized")
        asked: list[bool] = []
        switch.before_commit = lambda: asked.append(node.status.synchronized)
        told.clear()
        node.submit("node", list)
        wait_for(lambda: asked, "the change to be under way")
        assert asked == [False]
        wait_for(lambda: told, "the end of the change to be told")
        assert told == [True]
        # Nobody asked: nobody is told.
        switch.before_commit = lambda: None
        done: list[str | None] = []
        node.submit("node", lambda: [FLOW], done.append)
        wait_for(lambda: done, "the part to be in force")
        assert told == [True]
    finally:
        node.stop(close=True)


def test_a_switch_that_answers_nonsense_is_let_go(side: OpenFlowSide, node: Synchronizer) -> None:
    ScriptedSwitch(side.switch(1), flows=bytes(40))
    node.submit("node", lambda: [FLOW])
    node.connected(side.recorder.came[0])
    wait_for(lambda: side.recorder.went, "the connection to be closed")
    wait_for(lambda: not node.status.connected, "the status to say so")
    assert "flow description" in node.status.last_error
    # The next connection starts afresh.
    ScriptedSwitch(side.switch(1))
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
    ScriptedSwitch(side.switch(1))
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
    ScriptedSwitch(side.switch(1))
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
    switch = ScriptedSwitch(side.switch(1), flows=description(swapped, body))
    node.submit("node", lambda: [ours])
    node.connected(side.recorder.came[0])
    wait_for(lambda: node.status.synchronized, "the switch to be synchronized")
    assert switch.commits == 0
    assert node.status.repaired == 0
