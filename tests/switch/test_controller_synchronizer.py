# SPDX-License-Identifier: Apache-2.0
"""What the one writer of a switch does to it: repairs by difference, never clears, survives everything."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from sdn.pipeline.tables import BRIDGING
from sdn.v1 import types_pb2
from tests.switch.controller_process import (
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    node_info,
    running_controller,
)
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until

controller = pytest.fixture(running_controller)
switch = pytest.fixture(running_switch)


@pytest.fixture
def agent(controller: ControllerProcess, switch: PrivateSwitch) -> Iterator[AgentStream]:
    with AgentStream(controller, node_info(1)) as stream:
        connect_switch(switch, controller, stream.node.datapath_id)
        assert stream.answer(stream.full_state()) is None
        yield stream


def attach_pods(stream: AgentStream, *numbers: int) -> list[types_pb2.Attachment]:
    pods = [attachment(stream.node, number) for number in numbers]
    sequences = [stream.attach(pod) for pod in pods]
    assert [stream.answer(sequence) for sequence in sequences] == [None] * len(pods)
    return pods


def came_back(controller: ControllerProcess, former: str) -> bool:
    """Whether the switch is synchronized on another connection than the one from ``former``."""
    status = controller.switch("node-1")
    return status.synchronized and status.address != former


def packets(switch: PrivateSwitch) -> dict[str, int]:
    """Packet counters by flow."""
    counters = {}
    for line in switch.ofctl("dump-flows").splitlines():
        if found := re.search(r"table=(\d+), n_packets=(\d+), .*?(priority=\S+ .*|actions=.*)$", line):
            counters[f"{found[1]} {found[3]}"] = int(found[2])
    return counters


def send_arp(switch: PrivateSwitch, pod: types_pb2.Attachment) -> None:
    """An ARP request of a pod for its gateway, into its port."""
    mac = pod.mac.replace(":", "")
    own = "".join(f"{int(part):02x}" for part in pod.addresses[0].split("."))
    gateway = own[:-2] + "01"
    arp = f"0001080006040001{mac}{own}000000000000{gateway}"
    switch.appctl("netdev-dummy/receive", f"p{pod.ofport}", f"ffffffffffff{mac}0806{arp}{'0' * 36}")


def test_a_restarted_controller_repairs_the_difference_and_touches_nothing_else(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    pods = attach_pods(agent, 1, 2, 3)
    switch.add_port("p17", 17)
    for _ in range(5):
        send_arp(switch, pods[0])
    wait_until(lambda: sum(packets(switch).values()) >= 15, "the packets to be counted")
    counted = {flow: count for flow, count in packets(switch).items() if count}
    assert counted
    right = sorted(switch.dump_flows())

    controller.kill()
    agent.close()
    # One flow is gone, one is changed, one flow and one group are nobody's.
    bridging = f"table={BRIDGING.number},priority=100"
    switch.ofctl("del-flows", "--strict", f"{bridging},ip,dl_dst={pods[1].mac},nw_dst=10.244.0.4")
    switch.ofctl(
        "mod-flows", "--strict", f"{bridging},ip,dl_dst={pods[2].mac},nw_dst=10.244.0.5,actions=drop"
    )
    switch.ofctl("add-group", "group_id=7,type=select,bucket=output:1")
    switch.ofctl("add-flow", "table=3,priority=7,vlan_vid=0x1064/0x1fff,actions=group:7")
    assert sorted(switch.dump_flows()) != right

    controller.start()
    controller.wait_synchronized("node-1")
    assert sorted(switch.dump_flows()) == right
    assert "group_id=7" not in switch.ofctl("dump-groups")
    after = packets(switch)
    assert {flow: after[flow] for flow in counted} == counted, "untouched flows keep their counters"
    assert controller.switch("node-1").repaired == 2
    foreign = controller.log("entry of nobody is removed")
    assert any("table=3" in line["entry"] and "group:7" in line["entry"] for line in foreign)
    assert controller.log("entries of nobody are removed")[0]["count"] == 2
    (compared,) = controller.log("switch compared")
    assert compared["differing"] == 4


def test_drift_found_on_reconnect_is_repaired_and_counted(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    attach_pods(agent, 1)
    right = sorted(switch.dump_flows())
    controller.kill()
    controller.settings["repair_at_once"] = "false"
    controller.start()
    controller.wait_synchronized("node-1")
    switch.ofctl("del-flows", "--strict", "table=0,priority=100,in_port=17")
    switch.ofctl("add-flow", "table=0,priority=3,in_port=5000,actions=drop")
    before = controller.switch("node-1").address
    switch.appctl("bridge/reconnect", switch.bridge)
    wait_until(lambda: came_back(controller, before), "the switch to come back")
    assert sorted(switch.dump_flows()) == right
    assert controller.switch("node-1").repaired == 2
    assert controller.log("entries differed")[0]["missing"] == 1


def test_without_an_agent_a_restarted_controller_programs_what_is_stored(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    attach_pods(agent, *range(20))
    right = sorted(switch.dump_flows())
    controller.kill()
    agent.close()
    switch.clear()
    controller.start()
    controller.wait_synchronized("node-1")
    assert sorted(switch.dump_flows()) == right
    programmed = [pod["status"]["phase"] for pod in controller.get("Pod")]
    assert programmed == ["Running"] * 20


def test_killed_while_flows_are_written_everything_converges(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    """Three times a controller dies in the middle of pods being made; what was confirmed is always there."""
    confirmed: list[types_pb2.Attachment] = []
    stream, number = agent, 0
    for _ in range(3):
        target = controller
        killer = threading.Timer(0.08, target.kill)
        killer.start()
        batch = [attachment(stream.node, number + offset) for offset in range(60)]
        number += 60
        sequences = [stream.attach(pod) for pod in batch]
        for pod, sequence in zip(batch, sequences, strict=True):
            try:
                assert stream.answer(sequence) is None
            except AssertionError:
                break
            confirmed.append(pod)
        killer.join()
        stream.close()
        flows = "\n".join(switch.dump_flows())
        for pod in confirmed:
            assert f"in_port={pod.ofport} " in flows, "confirmed, so in the switch"
        controller.start()
        controller.wait_synchronized("node-1")
        stored = {pod["metadata"]["name"] for pod in controller.get("Pod")}
        assert {pod.pod_name for pod in confirmed} <= stored
        stream = AgentStream(controller, node_info(1))
        # The agent says what exists on its node: what was confirmed, and the last batch as far as it got.
        assert stream.answer(stream.full_state(*confirmed)) is None
        assert {pod["metadata"]["name"] for pod in controller.get("Pod")} == {
            pod.pod_name for pod in confirmed
        }
    status = controller.switch("node-1")
    assert status.installed_flows == status.desired_flows == len(switch.dump_flows())
    stream.close()


def test_what_the_switch_refuses_is_rejected_and_holds_up_nobody(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    attach_pods(agent, 1)
    in_table = sum(flow.startswith("cookie") and "table=2," in flow for flow in switch.dump_flows())
    switch.vsctl(
        *("--", "--id=@t", "create", "Flow_Table", f"flow_limit={in_table}", "overflow_policy=refuse"),
        *("--", "set", "bridge", switch.bridge, "flow_tables:2=@t"),
    )
    before = sorted(switch.dump_flows())
    refused = attachment(agent.node, 2)
    reason = agent.answer(agent.attach(refused))
    assert reason is not None
    assert "the switch refused" in reason
    assert "FLOW_MOD_FAILED/TABLE_FULL" in reason
    assert "table=2" in reason
    assert sorted(switch.dump_flows()) == before, "an atomic bundle leaves nothing behind"
    assert [pod["metadata"]["name"] for pod in controller.get("Pod")] == ["node-1-web-1"]
    assert "TABLE_FULL" in controller.switch("node-1").last_error
    assert controller.log("bundle refused")
    controller.wait_synchronized("node-1")
    # In a bundle with others only the one that is refused is left out.
    ipv6_only = attachment(agent.node, 3, addresses=["fd00:10:244::99"])
    sequences = [agent.attach(refused), agent.attach(ipv6_only)]
    answers = [agent.answer(sequence) for sequence in sequences]
    assert answers[0] is not None
    assert answers[1] is None
    switch.vsctl("clear", "bridge", switch.bridge, "flow_tables")
    assert agent.answer(agent.attach(refused)) is None


def test_an_unknown_switch_is_closed_with_its_id_in_the_log(
    controller: ControllerProcess, switch: PrivateSwitch
) -> None:
    switch.ofctl("add-flow", "priority=9,actions=drop")
    connect_switch(switch, controller, 0xDEADBEEF)
    wait_until(lambda: controller.log("unknown switch refused") != [], "the refusal to be logged")
    (line,) = controller.log("unknown switch refused")
    assert line["datapath_id"] == "00000000deadbeef"
    # set-controller empties the table; whatever comes after stays, since nobody programs this switch.
    switch.ofctl("add-flow", "priority=9,actions=drop")
    time.sleep(2)
    assert len(switch.dump_flows()) == 1


def test_the_newest_connection_of_a_switch_wins(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    attach_pods(agent, 1)
    first = controller.switch("node-1").address
    with PrivateSwitch() as other:
        connect_switch(other, controller, agent.node.datapath_id)
        wait_until(lambda: controller.log("second connection of a switch") != [], "the second connection")
        assert controller.log("second connection of a switch")[0]["former"] == first
        other.vsctl("del-controller", other.bridge)
        wait_until(lambda: came_back(controller, first), "the switch to come back")
        assert agent.answer(agent.attach(attachment(agent.node, 2))) is None


def test_a_stuck_switch_delays_no_other(controller: ControllerProcess, agent: AgentStream) -> None:
    with PrivateSwitch() as stuck, AgentStream(controller, node_info(2)) as second:
        connect_switch(stuck, controller, second.node.datapath_id)
        assert second.answer(second.full_state()) is None
        os.kill(stuck.vswitchd_pid, signal.SIGSTOP)
        try:
            waiting = [second.attach(attachment(second.node, number)) for number in range(50)]
            attach_pods(agent, *range(20))
            assert not any(map(second.answered, waiting))
        finally:
            os.kill(stuck.vswitchd_pid, signal.SIGCONT)
        assert [second.answer(sequence) for sequence in waiting] == [None] * 50


def test_the_end_of_the_controller_touches_no_flow(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    attach_pods(agent, 1, 2)
    right = sorted(switch.dump_flows())
    began = time.monotonic()
    assert controller.terminate() == 0
    print(f"SIGTERM to exit: {time.monotonic() - began:.2f} s")
    assert sorted(switch.dump_flows()) == right
    error = agent.wait_ended()
    assert error is not None
    assert "stopping" in (error.details() or "")


def test_a_node_that_changes_its_switch_is_programmed_there(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    attach_pods(agent, 1)
    right = sorted(switch.dump_flows())
    agent.close()
    with AgentStream(controller, node_info(1, datapath_id=0xABC)) as stream:
        assert list(stream.node.pod_ranges) == list(agent.node.pod_ranges)
        wait_until(lambda: not controller.switch("node-1").connected, "the old switch to be let go")
        switch.clear()
        connect_switch(switch, controller, 0xABC)
        controller.wait_synchronized("node-1")
        assert sorted(switch.dump_flows()) == right


def test_a_change_touches_only_what_it_concerns(
    controller: ControllerProcess, switch: PrivateSwitch, agent: AgentStream
) -> None:
    """A pod is one bundle of its own flows on its own switch; a node is a bundle of its flows on every other
    one.
    """
    with PrivateSwitch() as other, AgentStream(controller, node_info(2)) as second:
        connect_switch(other, controller, second.node.datapath_id)
        assert second.answer(second.full_state()) is None
        controller.wait_synchronized("node-1")
        before = len(controller.log("bundle committed"))
        attach_pods(agent, 1)
        (bundle,) = controller.log("bundle committed")[before:]
        assert bundle["node"] == "node-1"
        assert bundle["entries"] == len(controller.flows("node-1", owner="Pod/default/node-1-web-1"))
        with AgentStream(controller, node_info(3)):
            for name in ("node-1", "node-2"):
                wait_until(
                    lambda name=name: controller.flows(name, owner="Node/node-3") != [],
                    "the way to the new node",
                )
        later = {line["node"]: line["entries"] for line in controller.log("bundle committed")[before + 1 :]}
        peers = len(controller.flows("node-1", owner="Node/node-3"))
        assert later == {"node-1": peers, "node-2": peers}
