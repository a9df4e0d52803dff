# SPDX-License-Identifier: Apache-2.0
"""Two controllers and one real switch: one writes, the other can take over at any moment, and whoever was replaced can
change nothing, whatever it believes.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from controller.changes import NOT_OWNER
from controller.cutting import REPEATED
from sdn.openflow import CtTuple, Role
from sdn.pipeline.actions import Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.topology import Address
from tests.switch.controller_process import (
    AgentStream,
    attachment,
    connect_switch,
    node_info,
    running_controller,
)
from tests.switch.ovs import PrivateSwitch, leave_alone, running_switch, wait_until
from tests.switch.two_controllers import Controllers, Member

pytestmark = pytest.mark.switch

switch = pytest.fixture(running_switch)
unwatched = pytest.fixture(leave_alone)
OWNER: Final = Owner("Pod", "default", "web")
UDP: Final = (
    "in_port(1),eth(src=0a:58:00:00:00:01,dst=0a:58:00:00:00:02),eth_type(0x0800),"
    "ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)"
)
FROM_CLIENT: Final = (None, CtTuple(source=Address.parse("10.0.0.1")), None)

Two = Callable[[int | None, int | None], tuple[Member, Member]]


@pytest.fixture
def two(switch: PrivateSwitch) -> Iterator[Two]:
    running: list[Controllers] = []

    def made(first: int | None, second: int | None) -> tuple[Member, Member]:
        controllers = Controllers(switch, first, second)
        running.append(controllers)
        controllers.connect()
        return controllers.members[0], controllers.members[1]

    yield made
    for controllers in running:
        controllers.close()


def flow(priority: int, cookie: int = 5) -> Flow:
    return Flow(0, priority, match(in_port=1), (Output(2),), cookie, OWNER, "test")


def held(switch: PrivateSwitch) -> dict[int, int]:
    """By priority the cookie of each flow."""
    found = (re.match(r"cookie=(0x[0-9a-f]+|0), (?:priority=(\d+))?", line) for line in switch.dump_flows())
    return {int(one[2]): int(one[1], 16) for one in found if one is not None}


def test_a_controller_that_does_not_own_the_switch_leaves_it_alone(switch: PrivateSwitch, two: Two) -> None:
    owner, other = two(5, None)
    assert owner.put("node", [flow(1)]) is None
    assert other.put("node", [flow(2)]) == NOT_OWNER
    assert held(switch) == {1: 5}
    status = other.synchronizer.status
    assert (status.owner, status.linked, status.connected, status.synchronized) == (False, True, False, False)
    assert (status.role, status.desired_flows) == (Role.SLAVE, 1)


def test_what_a_deposed_controller_writes_is_refused_by_the_switch_itself(
    switch: PrivateSwitch, two: Two
) -> None:
    owner, other = two(5, None)
    assert owner.put("node", [flow(1)]) is None
    assert other.put("node", [flow(1)]) == NOT_OWNER
    owner.unaware()
    other.synchronizer.own(6)
    other.wait_synchronized()
    assert owner.synchronizer.status.synchronized, "it believes that the switch is its own"
    assert owner.put("more", [flow(2)]) == NOT_OWNER
    assert held(switch) == {1: 5}
    assert owner.deposed == [5]
    wait_until(lambda: owner.synchronizer.status.role is Role.SLAVE, "the deposed one to become a slave")
    status = owner.synchronizer.status
    assert "BAD_REQUEST/IS_SLAVE" in status.last_error
    assert (status.owner, status.connected, status.synchronized) == (False, False, False)
    assert status.desired_flows == 2, "nothing was set aside"
    # Nor does its generation come back.
    owner.synchronizer.own(5)
    assert owner.put("again", [flow(3)]) == NOT_OWNER
    assert other.put("more", [flow(4)]) is None
    assert held(switch) == {1: 5, 4: 5}
    assert other.deposed == []


def test_a_deposed_controller_is_told_by_the_switch(switch: PrivateSwitch, two: Two) -> None:
    owner, other = two(5, None)
    owner.put("node", [flow(1)])
    other.put("node", [flow(1)])
    other.synchronizer.own(6)
    wait_until(lambda: owner.deposed == [5], "the former owner to be deposed")
    assert owner.put("more", [flow(2)]) == NOT_OWNER
    other.wait_synchronized()
    assert held(switch) == {1: 5}


def test_a_takeover_writes_the_difference_and_keeps_the_rest(switch: PrivateSwitch, two: Two) -> None:
    switch.add_port("p1", 1)
    owner, other = two(5, None)
    # Of what the owner has written one flow is too many, and one is missing when it ends.
    too_many = Flow(0, 9, match(in_port=7), (Output(2),), 5, OWNER, "test")
    owner.put("node", [flow(1), flow(2), too_many])
    other.put("node", [flow(1), flow(2)])
    other.put("more", [flow(3)])
    for _ in range(3):
        switch.appctl("netdev-dummy/receive", "p1", UDP)
    switch.appctl("revalidator/wait")
    owner.synchronizer.stop(close=True)
    other.synchronizer.own(6)
    other.wait_synchronized()
    assert held(switch) == {1: 5, 2: 5, 3: 5}
    status = other.synchronizer.status
    assert (status.installed_flows, status.desired_flows) == (3, 3)
    (kept,) = (line for line in switch.ofctl("dump-flows").splitlines() if "priority=2," in line)
    assert "n_packets=3" in kept


def test_handed_to_and_fro_under_change_nothing_of_a_former_owner_comes_through(
    switch: PrivateSwitch, two: Two
) -> None:
    """Each owner writes all the time with a mark of its own; each takeover comes in the middle of that."""
    pair = two(None, None)
    for generation in range(1, 25):
        now, former = pair[generation % 2], pair[(generation + 1) % 2]
        if former.synchronizer.connection is not None and generation % 3 == 0:
            former.unaware()
        now.synchronizer.own(generation)
        answers = [now.submit("node", [flow(1 + turn % 7, generation)]) for turn in range(20)]
        late = [former.submit("node", [flow(8, 1000 + generation)]) for _ in range(3)]
        assert {answer() for answer in answers} == {None}
        # The former one may have been the master when it wrote; then its flow was removed by the takeover.
        assert {answer() for answer in late} <= {None, NOT_OWNER}
        now.wait_synchronized()
        assert held(switch) == {1 + 19 % 7: generation}


def test_a_flush_of_one_that_is_deposed_and_does_not_know_is_not_sent(
    unwatched: None, switch: PrivateSwitch, two: Two
) -> None:
    """The switch would take it."""
    switch.add_port("p1", 1)
    owner, other = two(5, None)
    owner.put("node", [flow(1)])
    switch.ofctl("add-flow", "priority=99,ip,actions=ct(commit,zone=1)")
    switch.appctl("netdev-dummy/receive", "p1", UDP)
    tracked = switch.appctl("dpctl/dump-conntrack")
    assert "10.0.0.1" in tracked
    owner.unaware()
    other.synchronizer.own(6)
    other.wait_synchronized()
    owner.synchronizer.flush([FROM_CLIENT] * REPEATED)
    wait_until(lambda: owner.deposed == [5], "the former owner to be deposed")
    assert "10.0.0.1" in switch.appctl("dpctl/dump-conntrack")
    other.synchronizer.flush([FROM_CLIENT])
    wait_until(lambda: "10.0.0.1" not in switch.appctl("dpctl/dump-conntrack"), "the owner's flush")


def test_after_a_restart_of_the_switch_its_last_owner_is_the_owner(switch: PrivateSwitch, two: Two) -> None:
    """The switch has forgotten all generations, and the former owner believes in its own: it may be the first to
    connect again, but not the last to be believed.
    """
    former, owner = two(5, None)
    former.put("node", [flow(1, 0xA)])
    owner.put("node", [flow(1, 0xB)])
    former.unaware()
    owner.synchronizer.own(6)
    owner.wait_synchronized()
    assert held(switch) == {1: 0xB}
    switch.restart_vswitchd()
    wait_until(lambda: former.deposed == [5], "the former owner to be deposed")
    wait_until(lambda: former.synchronizer.status.role is Role.SLAVE, "the former owner to become a slave")
    owner.wait_synchronized()
    assert owner.put("more", [flow(2, 0xB)]) is None
    assert held(switch) == {1: 0xB, 2: 0xB}
    assert owner.deposed == []


def test_a_controller_whose_store_began_anew_goes_above_all_that_the_switch_has_seen(
    switch: PrivateSwitch, two: Two
) -> None:
    former, _ = two(1_000_000, None)
    former.put("node", [flow(1, 0xA)])
    for controller in running_controller():
        with AgentStream(controller, node_info(1)) as agent:
            connect_switch(switch, controller, agent.node.datapath_id)
            agent.full_state(attachment(agent.node, 1))
            agent.wait_ended()  # What was not answered is to be said again.
        with AgentStream(controller, node_info(1)) as agent:
            assert agent.answer(agent.full_state(attachment(agent.node, 1))) is None
            generation = controller.switch("node-1").generation
            assert generation > 1_000_000
            assert not any("priority=1,in_port=1" in line for line in switch.dump_flows()), "the former one's"
            # What it has taken so it keeps, and goes on from there.
            controller.kill()
            controller.start()
        with AgentStream(controller, node_info(1)) as agent:
            assert agent.answer(agent.full_state()) is None
        assert controller.switch("node-1").generation > generation
        assert not controller.log("deposed by the switch")


def test_how_long_a_takeover_of_five_thousand_flows_takes(switch: PrivateSwitch, two: Two) -> None:
    pair = two(1, None)
    flows = [
        Flow(number % 20, 100, match(in_port=number, reg1=number), (Output(2),), number, OWNER, "test")
        for number in range(1, 5001)
    ]
    assert pair[0].put("node", flows) is None
    assert pair[1].put("node", flows) == NOT_OWNER
    seconds = []
    for generation in range(2, 12):
        now = pair[(generation + 1) % 2]
        began = time.perf_counter()
        now.synchronizer.own(generation)
        while not now.synchronizer.status.synchronized:
            time.sleep(0.0005)
        seconds.append(time.perf_counter() - began)
        status = now.synchronizer.status
        assert (status.generation, status.installed_flows, status.repaired) == (generation, 5000, 0)
    print(
        f"\ntakeover, 5,000 flows, nothing to write: median {statistics.median(seconds) * 1000:.0f} ms, "
        f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} ms"
    )
