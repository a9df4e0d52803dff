# SPDX-License-Identifier: Apache-2.0
"""The synchronizer as owner of a switch, as one of those who do not own it, and when another takes it over."""

from __future__ import annotations

import functools
import struct

import pytest

from controller import osken, writer
from controller.changes import NOT_OWNER, Change
from sdn.openflow import NO_GENERATION, Role, flow_image
from sdn.openflow.wire import OFPT_ERROR
from sdn.pipeline.flow import Flow
from tests.unit.openflow_peer import (
    MASTER,
    NOCHANGE,
    ROLE_STATUS,
    SLAVE,
    OpenFlowSide,
    Roles,
    message,
    wait_for,
)
from tests.unit.owned_switch import ADDRESS, TRACKED, Make, compiled, flow, made_nodes, openflow
from tests.unit.scripted_switch import description

side = pytest.fixture(openflow)
make = pytest.fixture(made_nodes)


def test_an_owner_asks_to_be_master_before_it_reads_or_writes(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    assert switch.roles.asked == [(MASTER, 5)]
    assert (switch.comparisons, switch.commits, node.told) == (1, 1, [None])
    status = node.synchronizer.status
    assert (status.owner, status.linked, status.connected) == (True, True, True)
    assert (status.role, status.generation) == (Role.MASTER, 5)


def test_one_that_does_not_own_the_switch_takes_changes_in_and_only_asks_to_be_slave(make: Make) -> None:
    node = make(None)
    switch = node.connect()
    node.submit("node", 1, 2)
    node.synchronizer.flush([TRACKED])
    node.synchronizer.submit_all([Change("pod", compiled(3), gone=(ADDRESS,))])
    node.wait_role(Role.SLAVE)
    node.settle()
    wait_for(lambda: node.synchronizer.status.desired_flows == 3, "the changes to be taken in")
    assert node.told == [NOT_OWNER]
    assert switch.roles.asked == [(NOCHANGE, 0), (SLAVE, 0)]
    assert (switch.comparisons, switch.commits, switch.flushes) == (0, 0, 0)
    status = node.synchronizer.status
    assert (status.owner, status.linked, status.connected, status.synchronized) == (False, True, False, False)
    assert status.installed_flows == 0
    assert not node.connection.packets_wanted

    node.synchronizer.own(9)
    node.wait_synchronized()
    assert switch.roles.asked[2] == (MASTER, 9)
    assert (switch.comparisons, switch.commits) == (1, 1)
    assert switch.flushes, "the owner before may not have come to it"
    assert node.synchronizer.status.installed_flows == 3
    assert node.synchronizer.status.repaired == 0
    assert node.connection.packets_wanted


def test_what_a_non_owner_cannot_compile_is_not_told_as_refused(make: Make) -> None:
    node = make(None)

    def broken() -> list[Flow]:
        raise KeyError("no such thing")

    node.synchronizer.submit("broken", broken, node.told.append)
    node.settle()
    assert node.told == [NOT_OWNER]


def test_deposed_in_the_middle_of_a_bundle_nothing_is_refused(make: Make) -> None:
    """Between open and close another controller has become the master; the switch refuses each message."""
    node = make(5)
    switch = node.connect()
    node.wait_synchronized()
    peer = switch.peer

    def depose(xid: int) -> bytes:
        switch.roles.generation = 6
        switch.roles.depose(peer, tell=False)
        refused = [message(OFPT_ERROR, Roles.IS_SLAVE, each) for each in (xid + 1, xid)]
        return b"".join(refused)

    switch.on_close = depose
    node.submit("node", 1, 2)
    wait_for(lambda: node.deposed, "the owner to be deposed")
    node.wait_role(Role.SLAVE)
    wait_for(lambda: node.told, "those who wait to be told")
    assert (node.told, node.deposed) == ([NOT_OWNER], [("node-1", 5)])
    assert switch.roles.asked == [(MASTER, 5), (NOCHANGE, 0), (SLAVE, 6)]
    assert switch.commits == 0
    status = node.synchronizer.status
    assert (status.owner, status.connected, status.synchronized) == (False, False, False)
    assert status.desired_flows == 2, "nothing was set aside"
    assert "deposed" in status.last_error
    assert "refused" not in status.last_error

    # Once its own generation is gone it is not believed any more; a higher one is.
    switch.on_close = lambda _: None
    node.synchronizer.own(5)
    node.submit("more", 3)
    wait_for(lambda: len(node.told) == 2, "the change to be answered")
    assert node.told == [NOT_OWNER, NOT_OWNER]
    node.synchronizer.own(7)
    node.wait_synchronized()
    assert (switch.commits, node.synchronizer.status.installed_flows) == (1, 3)
    node.submit("last", 4)
    wait_for(lambda: len(node.told) == 3, "the change to be in force")
    assert node.told[-1] is None
    assert len(node.deposed) == 1


def test_deposed_between_close_and_commit(make: Make) -> None:
    node = make(5)
    switch = node.connect()
    node.wait_synchronized()
    switch.before_commit = functools.partial(switch.roles.take_over, 6)
    node.submit("node", 1)
    wait_for(lambda: node.told, "those who wait to be told")
    assert (node.told, node.deposed, switch.commits) == ([NOT_OWNER], [("node-1", 5)], 0)


def test_a_master_that_is_told_that_another_has_taken_over_stops_by_itself(make: Make) -> None:
    node = make(5)
    switch = node.connect()
    node.wait_synchronized()
    switch.roles.take_over(6)
    wait_for(lambda: node.deposed, "the owner to be deposed")
    node.submit("node", 1)
    wait_for(lambda: node.told, "the change to be answered")
    assert (node.deposed, node.told, switch.commits) == ([("node-1", 5)], [NOT_OWNER], 0)
    assert not node.connection.packets_wanted


def test_what_the_switch_has_said_of_an_earlier_generation_deposes_nobody(
    side: OpenFlowSide, make: Make
) -> None:
    node = make(5)
    switch = node.connect()
    node.wait_synchronized()
    switch.peer.send(message(ROLE_STATUS, struct.pack("!IB3xQ", SLAVE, 0, 4)))
    switch.peer.send(message(ROLE_STATUS, struct.pack("!IB3xQ", MASTER, 0, 9)))
    switch.peer.send(message(ROLE_STATUS, b"short"))
    node.submit("node", 1)
    wait_for(lambda: node.told, "the change to be answered")
    assert (node.deposed, node.told) == ([], [None])


def test_a_generation_that_the_switch_finds_old_deposes_before_anything_is_read(make: Make) -> None:
    node = make(5)
    roles = Roles()
    roles.generation = 8
    node.submit("node", 1)
    switch = node.connect(roles=roles)
    node.wait_role(Role.SLAVE)
    wait_for(lambda: node.told, "those who wait to be told")
    assert (node.deposed, node.told) == ([("node-1", 5)], [NOT_OWNER])
    # A refused request leaves the role as it was, which may write: so it asks to be a slave.
    assert roles.asked == [(MASTER, 5), (NOCHANGE, 0), (NOCHANGE, 0), (SLAVE, 8)]
    assert node.seen == [8]
    assert (switch.comparisons, switch.commits) == (0, 0)
    assert node.synchronizer.status.generation == 8


def test_who_knows_of_a_higher_generation_lets_the_switch_know(make: Make) -> None:
    """A switch that was started again has forgotten all generations: an old owner must not be believed."""
    node = make(None)
    node.synchronizer.disown(known=12)
    switch = node.connect()
    node.wait_role(Role.SLAVE)
    assert switch.roles.asked == [(NOCHANGE, 0), (SLAVE, 12)]
    former = make(11)
    former.connect(roles=switch.roles)
    wait_for(lambda: former.deposed, "the former owner to be refused")
    node.synchronizer.own(11)
    node.settle()
    assert node.synchronizer.generation is None


def test_a_former_generation_of_a_switch_that_has_seen_none_is_none(make: Make) -> None:
    roles = Roles()
    node = make(None)
    node.connect(roles=roles)
    node.wait_role(Role.SLAVE)
    assert roles.generation == 0
    assert node.synchronizer.status.generation != NO_GENERATION


def test_a_master_in_between_is_no_reason_to_stay_what_one_is(make: Make) -> None:
    """Between the question which generation there is and the request another controller takes over."""

    class Racing(Roles):
        def answer(self, peer, xid, body):  # type: ignore[no-untyped-def]
            answer = super().answer(peer, xid, body)
            if len(self.asked) == 1:
                self.generation = 4
            return answer

    roles = Racing()
    roles.generation = 3
    node = make(None)
    node.connect(roles=roles)
    node.wait_role(Role.SLAVE)
    assert roles.asked == [(NOCHANGE, 0), (SLAVE, 3), (NOCHANGE, 0), (SLAVE, 4)]


def test_who_waits_for_a_switch_that_is_away_is_told_when_it_is_given_up(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    node.settle()
    assert node.told == []
    node.synchronizer.disown()
    wait_for(lambda: node.told, "those who wait to be told")
    assert (node.told, node.deposed) == ([NOT_OWNER], [])
    node.synchronizer.own(5)
    switch = node.connect()
    node.wait_synchronized()
    assert switch.commits == 1


def test_a_switch_that_is_owned_anew_is_compared_anew(make: Make) -> None:
    """Another may have owned it in between: nothing that was read of it before is believed."""
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    node.synchronizer.own(7)
    wait_for(lambda: switch.comparisons == 2, "the second comparison")
    node.wait_synchronized()
    assert switch.roles.asked == [(MASTER, 5), (MASTER, 7)]
    assert node.synchronizer.status.repaired == 0, "what another has written, or not, is no drift"


def test_no_flush_is_sent_by_one_that_is_deposed_and_does_not_know(make: Make) -> None:
    """A switch takes flushes from everybody, so it is asked before each."""
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    node.synchronizer.flush([TRACKED])
    wait_for(lambda: switch.flushes, "the flush")
    switch.roles.generation = 6
    switch.roles.depose(switch.peer, tell=False)
    before = switch.flushes
    node.synchronizer.flush([TRACKED])
    wait_for(lambda: node.deposed, "the owner to be deposed")
    node.wait_role(Role.SLAVE)
    assert switch.flushes == before


def test_stale_connections_are_not_cut_by_one_that_is_deposed_and_does_not_know(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    switch.roles.generation = 6
    switch.roles.depose(switch.peer, tell=False)
    node.synchronizer.submit("pod", None, node.told.append, (ADDRESS,))
    wait_for(lambda: node.deposed, "the owner to be deposed")
    wait_for(lambda: len(node.told) == 2, "those who wait to be told")
    assert node.told == [None, NOT_OWNER]
    assert switch.flushes == 0
    # It is done when the switch is ours again, should the other not have come to it.
    node.synchronizer.own(7)
    wait_for(lambda: switch.flushes, "the flush")


def test_stale_connections_are_not_cut_any_further_by_one_that_is_deposed_meanwhile(make: Make) -> None:
    """Flushes are repeated until all is forgotten, and the switch takes each."""
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()

    def deposed_at_the_first() -> bool:
        if switch.flushes == 1:
            switch.roles.generation = 6
            switch.roles.depose(switch.peer, tell=False)
        return True

    switch.after_flush = deposed_at_the_first
    node.synchronizer.submit("pod", None, node.told.append, (ADDRESS,))
    wait_for(lambda: node.deposed, "the owner to be deposed")
    wait_for(lambda: len(node.told) == 2, "those who wait to be told")
    node.wait_role(Role.SLAVE)
    assert switch.flushes == 1


@pytest.mark.parametrize("way", ["told by the switch", "told by the store"])
def test_a_flush_that_is_under_way_does_not_arrive_after_the_switch_was_given_up(
    make: Make, way: str
) -> None:
    """It may wait in the kernel for a network that is away just now."""
    osken.set_keepalive(3600.0, 3)  # not for its silence
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    switch.after_flush = lambda: False
    node.synchronizer.flush([TRACKED])
    wait_for(lambda: switch.flushes, "the flush")
    if way == "told by the switch":
        switch.roles.generation = 6
        switch.roles.depose(switch.peer)
    else:
        node.synchronizer.disown(6)
    wait_for(lambda: node.synchronizer.connection is None, "the connection to end")


def test_a_switch_that_is_given_up_with_no_flush_under_way_stays_connected(make: Make) -> None:
    node = make(5)
    node.submit("node", 1)
    switch = node.connect()
    node.wait_synchronized()
    node.synchronizer.flush([TRACKED])
    wait_for(lambda: switch.flushes, "the flush")
    node.wait_synchronized()
    node.synchronizer.disown(6)
    node.wait_role(Role.SLAVE)
    assert not node.connection.packets_wanted


def test_a_refused_part_is_what_it_was_for_the_next_owner(make: Make) -> None:
    node = make(5)
    switch = node.connect()
    node.wait_synchronized()

    def refuse(xid: int) -> bytes:
        # The first message behind the close request's number.
        return message(OFPT_ERROR, struct.pack("!HH", 5, 1), xid + 1) + message(
            OFPT_ERROR, struct.pack("!HH", 17, 13), xid
        )

    switch.on_close = refuse
    node.submit("node", 1)
    wait_for(lambda: node.told, "the refusal")
    assert "TABLE_FULL" in str(node.told[0])
    node.synchronizer.disown()
    node.wait_role(Role.SLAVE)
    switch.on_close = lambda _: None
    node.synchronizer.own(6)
    node.wait_synchronized()
    assert node.synchronizer.status.installed_flows == 1


def begun_pod(part: str) -> Change:
    return Change(part, compiled(2), fresh=(ADDRESS,))


@pytest.mark.parametrize("begun", [False, True])
def test_connections_of_a_pod_that_another_owner_has_let_begin_are_left_alone(
    make: Make, begun: bool
) -> None:
    """The former owner had to forget those of the address's former pod before the new one's flows were written."""
    node = make(None)
    node.synchronizer.submit("pod 1", None, None, (ADDRESS,))
    node.synchronizer.submit_all([begun_pod("pod 2")])
    node.settle()
    switch = node.connect(flows=description(*flow_image(flow(2))) if begun else b"")
    node.synchronizer.own(6)
    node.wait_synchronized()
    assert bool(switch.flushes) is not begun


def test_a_switch_that_has_just_come_back_is_not_synchronized_yet(make: Make) -> None:
    """What it holds is not known before it was read, whatever its former connection showed."""
    node = make(5)
    node.submit("node", 1)
    node.connect()
    node.wait_synchronized()
    with node.synchronizer._condition:  # The synchronizer's thread sees nothing of it.
        node.connect()
        assert not node.synchronizer.status.synchronized
    node.wait_synchronized()


def test_packets_reach_the_master_only(make: Make) -> None:
    node = make(None)
    node.connect()
    assert not node.connection.packets_wanted, "before the role is known"
    node.wait_role(Role.SLAVE)
    node.synchronizer.own(3)
    node.wait_synchronized()
    assert node.connection.packets_wanted
    node.synchronizer.disown()
    assert not node.connection.packets_wanted


def test_what_a_non_owner_remembers_does_not_grow_with_what_changes(make: Make) -> None:
    node = make(None)
    for number in range(300):
        node.submit("node", number + 1)
    node.settle()
    writer_of = node.synchronizer._writer
    assert node.told == [NOT_OWNER] * 300
    assert len(writer_of._waiting) == 0
    assert len(writer_of.holdings.dirty) == 0
    assert node.synchronizer.status.desired_flows <= 1


def test_a_switch_that_begins_empty_is_not_taken_for_one_that_is_quickly_compared(make: Make) -> None:
    """It is compared again when all others are that began with it, and holds everything by then."""
    node = make(5)
    flows = 500
    node.submit("node", *range(1, flows + 1))
    costs: list[float] = []
    node.synchronizer._writer.drift.was_compared = costs.append  # type: ignore[method-assign]
    node.connect()
    node.wait_synchronized()
    assert len(costs) == 1
    assert costs[0] >= flows * writer.COMPARE_SECONDS
