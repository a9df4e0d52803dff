# SPDX-License-Identifier: Apache-2.0
"""Many switches to be compared at one time, as after another controller's end: who is whose, and who is first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from controller import osken, synchronizer
from controller.lanes import Lane
from controller.synchronizer import ALONE, Synchronizer
from sdn.openflow import Role
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.unit.openflow_peer import MASTER, OpenFlowSide, openflow_side, wait_for
from tests.unit.scripted_switch import ScriptedSwitch

FLOW = Flow(0, 5, match(in_port=1), (), 7, Owner("Node", "", "n"), "a test")


@pytest.fixture
def side() -> Iterator[OpenFlowSide]:
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


class Crowd:
    """Switches that come while there is no place to compare them."""

    def __init__(self, side: OpenFlowSide, lane: Lane, stack: ExitStack) -> None:
        self._side, self._lane, self._stack = side, lane, stack
        self.taken_in: list[str] = []
        self.begun: list[str] = []
        self.nodes: dict[str, Synchronizer] = {}

    def come(self, name: str, owned: int | None = ALONE) -> None:
        """A switch of this name comes, with something to write that nobody waits for."""
        number = len(self.nodes) + 1
        node = self.nodes[name] = Synchronizer(name, owned=owned)
        self._stack.callback(node.stop, close=True)
        waited = len(self._lane._new)
        ScriptedSwitch(self._side.switch(number))
        node.connected(self._side.recorder.came[-1])
        wait_for(lambda: len(self._lane._new) > waited, f"{name} to wait for its place")
        node.submit("node", lambda: self._take_in(name))

    def add(self, name: str) -> None:
        """A pod is to begin there."""
        self.nodes[name].submit("pod", list, lambda _refused: self.begun.append(name))

    def _take_in(self, name: str) -> list[Flow]:
        self.taken_in.append(name)
        return [FLOW]


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Lane:
    only = Lane(1)
    monkeypatch.setattr(synchronizer, "LARGE", only)
    return only


@pytest.fixture
def standing_by(monkeypatch: pytest.MonkeyPatch) -> Lane:
    only = Lane(1)
    monkeypatch.setattr(synchronizer, "STAND_BY", only)
    return only


def test_a_switch_on_which_a_pod_begins_is_brought_up_before_the_others(
    side: OpenFlowSide, lane: Lane
) -> None:
    with ExitStack() as stack:
        crowd = Crowd(side, lane, stack)
        with lane:
            for name in ("first", "second", "third", "last"):
                crowd.come(name)
            crowd.add("last")
        wait_for(lambda: len(crowd.taken_in) == 4, "all to be taken in")
        assert crowd.taken_in[0] == "last"
        wait_for(lambda: crowd.begun == ["last"], "the pod to begin")


def test_each_has_its_new_master_before_any_is_compared(side: OpenFlowSide, lane: Lane) -> None:
    with ExitStack() as stack:
        crowd = Crowd(side, lane, stack)
        with lane:
            for name in ("first", "second"):
                crowd.come(name)
                assert crowd.nodes[name].status.role is Role.MASTER
                assert not crowd.nodes[name].status.synchronized
        for name in ("first", "second"):
            wait_for(lambda name=name: crowd.nodes[name].status.synchronized, "it to be synchronized")  # type: ignore[misc]


def test_who_waits_to_stand_by_is_a_master_at_once_when_the_switch_is_its(
    side: OpenFlowSide, standing_by: Lane
) -> None:
    with ExitStack() as stack:
        crowd = Crowd(side, standing_by, stack)
        with standing_by:
            for name in ("first", "second", "third"):
                crowd.come(name, owned=None)
            crowd.nodes["second"].own(7)
            wait_for(
                lambda: crowd.nodes["second"].status.role is Role.MASTER, "the second to have its master"
            )
            assert crowd.nodes["first"].status.role is None
        roles = [Role.SLAVE, Role.MASTER, Role.SLAVE]
        wait_for(lambda: [node.status.role for node in crowd.nodes.values()] == roles, "all to have theirs")


def test_who_waits_to_be_compared_has_its_master_at_once_on_another_connection(
    side: OpenFlowSide, lane: Lane
) -> None:
    with ExitStack() as stack:
        crowd = Crowd(side, lane, stack)
        with lane:
            crowd.come("first")
            another = ScriptedSwitch(side.switch(2))
            crowd.nodes["first"].connected(side.recorder.came[-1])
            wait_for(lambda: another.roles.asked, "it to be asked for its role")
            assert another.roles.role(another.peer) == MASTER


def test_whose_switch_becomes_its_own_in_the_last_moment_does_not_stand_in_line_to_stand_by(
    side: OpenFlowSide, standing_by: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found something to do while another controller owned the switch, and owns it before it asks for a place."""
    wait = Synchronizer._wait

    def owned_then(self: Synchronizer) -> None:
        wait(self)
        if self.connection is not None and self.generation is None:
            self.own(7)

    monkeypatch.setattr(Synchronizer, "_wait", owned_then)
    with ExitStack() as stack, standing_by:
        node = Synchronizer("first", owned=None)
        stack.callback(node.stop, close=True)
        ScriptedSwitch(side.switch(1))
        node.connected(side.recorder.came[-1])
        wait_for(lambda: node.status.synchronized, "it to be synchronized")
