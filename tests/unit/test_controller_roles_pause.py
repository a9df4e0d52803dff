# SPDX-License-Identifier: Apache-2.0
"""The synchronizer of an owner that must not write for a while: its lease is lost, and nobody has taken the switch."""

from __future__ import annotations

import pytest

from controller.changes import NOT_OWNER, Change
from sdn.openflow import Role
from tests.unit.openflow_peer import (
    MASTER,
    wait_for,
)
from tests.unit.owned_switch import ADDRESS, TRACKED, Make, compiled, made_nodes, openflow

side = pytest.fixture(openflow)
make = pytest.fixture(made_nodes)


def test_in_a_pause_nothing_is_written_and_nothing_is_forgotten(make: Make) -> None:
    """Its lease is lost, and nobody has taken the switch: what was wanted meanwhile is written after it, without
    another comparison.
    """
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    node.synchronizer.pause(True)
    assert not node.connection.packets_wanted
    node.submit("pod", 2)
    node.synchronizer.flush([TRACKED])
    node.settle()
    wait_for(lambda: node.synchronizer.status.desired_flows == 2, "the change to be taken in")
    assert (switch.commits, switch.flushes, node.told) == (1, 0, [None])
    assert not node.synchronizer.status.synchronized
    node.synchronizer.pause(False)
    node.wait_synchronized()
    wait_for(lambda: switch.flushes, "the flush")
    assert node.told == [None, None]
    assert (switch.comparisons, switch.commits) == (1, 2)
    assert switch.roles.asked[:2] == [(MASTER, 5), (MASTER, 5)], "asked once more before it is written"
    assert node.connection.packets_wanted


def test_a_switch_that_comes_in_a_pause_is_asked_after_it(make: Make) -> None:
    node = make(5)
    node.synchronizer.pause(True)
    node.submit("node", 1)
    switch = node.connect()
    node.settle()
    assert (switch.roles.asked, switch.comparisons) == ([], 0)
    node.synchronizer.pause(False)
    node.wait_synchronized()
    assert (switch.roles.asked, switch.commits) == ([(MASTER, 5)], 1)


def test_who_was_replaced_in_a_pause_learns_it_from_the_switch_after_it(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    node.synchronizer.pause(True)
    switch.roles.generation = 6
    switch.roles.depose(switch.peer, tell=False)
    node.submit("pod", 2)
    node.settle()
    assert node.deposed == []
    node.synchronizer.pause(False)
    wait_for(lambda: node.deposed == [("node-1", 5)], "the owner to be deposed")
    node.wait_role(Role.SLAVE)
    assert switch.commits == 1
    assert node.told == [None, NOT_OWNER]


def test_who_gives_a_switch_up_in_a_pause_asks_for_the_other_role(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    node.synchronizer.pause(True)
    node.submit("pod", 2)
    node.synchronizer.disown(6)
    node.wait_role(Role.SLAVE)
    wait_for(lambda: node.told == [None, NOT_OWNER], "all who wait to be told")
    assert switch.commits == 1


def test_a_pause_in_the_midst_of_a_cut_deposes_nobody(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()

    def pause_once() -> bool:
        if switch.flushes == 1:
            node.synchronizer.pause(True)
        return True

    switch.after_flush = pause_once
    node.synchronizer.submit_all([Change("pod", compiled(3), node.told.append, gone=(ADDRESS,))])
    wait_for(lambda: node.synchronizer._inbox.held_up, "the pause")
    node.settle()
    before = switch.flushes
    assert (node.deposed, node.told) == ([], [None])
    node.synchronizer.pause(False)
    wait_for(lambda: node.told == [None, None], "the change to be in force")
    assert node.deposed == []
    assert switch.flushes > before


def test_after_a_pause_within_one_bundle_the_switch_is_asked_before_it_is_flushed(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    before = len(switch.roles.asked)

    def blink() -> None:
        if switch.commits == 1:
            node.synchronizer.pause(True)
            node.synchronizer.pause(False)

    switch.before_commit = blink
    node.synchronizer.submit_all([Change("pod", compiled(3), node.told.append, gone=(ADDRESS,))])
    wait_for(lambda: node.told == [None, None], "the change to be in force")
    assert node.deposed == []
    assert switch.roles.asked[before] == (MASTER, 5)
    assert switch.flushes


def test_flushes_that_a_pause_was_in_the_way_of_are_made_after_it(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    switch.before_commit = lambda: node.synchronizer.pause(True)
    with node.synchronizer._condition:  # Both are taken at once.
        node.submit("pod", 2)
        node.synchronizer.flush([TRACKED])
    wait_for(lambda: node.synchronizer._inbox.held_up, "the pause")
    node.settle()
    assert not switch.flushes
    switch.before_commit = lambda: None
    node.synchronizer.pause(False)
    wait_for(lambda: switch.flushes, "the flush")
    assert node.deposed == []
