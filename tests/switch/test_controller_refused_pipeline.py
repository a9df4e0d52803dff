# SPDX-License-Identifier: Apache-2.0
"""A switch that does not take the node's own part keeps what it forwards by, and nobody is told that all is well."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from controller.desired import NODE_PART
from sdn.pipeline.compiler import node_flows
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.version import PIPELINE_VERSION, version_flow
from tests.switch.controller_process import (
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    node_info,
    running_controller,
)
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until
from tests.switch.service_node import NODE, ServiceNode, Waiter, endpoint, service, service_node
from tests.switch.test_controller_roles import FROM_CLIENT, UDP

PODS = 2
OWNER = Owner("Node", "", NODE.name)
#: No flow of any pipeline is in this table.
UNUSED = 250

controller = pytest.fixture(running_controller)
switch = pytest.fixture(running_switch)


def allow_flows(switch: PrivateSwitch, table: int, limit: int) -> None:
    """The switch refuses more flows than these in a table."""
    switch.vsctl(
        *("--", "--id=@t", "create", "Flow_Table", f"flow_limit={limit}", "overflow_policy=refuse"),
        *("--", "set", "bridge", switch.bridge, f"flow_tables:{table}=@t"),
    )


def allow_all_flows(switch: PrivateSwitch) -> None:
    switch.vsctl("clear", "bridge", switch.bridge, "flow_tables")


def next_pipeline() -> tuple[Flow, ...]:
    """The node's own flows of a later build: some are gone, and one is in a table that was not used."""
    new = Flow(UNUSED, 5, match(), (), 7, OWNER, "a test")
    return version_flow(OWNER, PIPELINE_VERSION + 1), *node_flows(NODE)[1:-3], new


@pytest.fixture
def written(switch: PrivateSwitch) -> list[str]:
    """The flows that a controller with today's pipeline has left in the switch, which refuses the next one."""
    with service_node(switch) as node:
        node.put_pods(PODS)
        node.connect()
        node.put(service(1, [endpoint(1)]))
    allow_flows(switch, UNUSED, 0)
    return sorted(switch.dump_flows())


@pytest.fixture
def upgraded(switch: PrivateSwitch, written: list[str]) -> Iterator[ServiceNode]:
    """A controller with the next pipeline, which the switch has refused."""
    with service_node(switch) as node:
        node.put_pods(PODS)
        node.synchronizer.submit(NODE_PART, next_pipeline)
        node.let_in()
        wait_until(lambda: "TABLE_FULL" in node.synchronizer.status.last_error, "the refusal")
        yield node


def test_a_refused_pipeline_leaves_all_that_was_in_force(
    switch: PrivateSwitch, written: list[str], upgraded: ServiceNode
) -> None:
    waiters = [upgraded.put_later(service(number, [endpoint(1)])) for number in (1, 2)]
    # It is tried again after a second, and refused again.
    time.sleep(2.5)
    assert sorted(switch.dump_flows()) == written
    assert not any(waiter.said for waiter in waiters), "nothing of what is new is in force"
    status = upgraded.synchronizer.status
    assert not status.synchronized
    assert upgraded.synchronizer.refused
    assert status.pipeline == PIPELINE_VERSION
    assert status.installed_flows < status.desired_flows
    assert f"table={UNUSED}" in status.last_error


def test_a_refused_pipeline_is_tried_again(
    switch: PrivateSwitch, written: list[str], upgraded: ServiceNode
) -> None:
    waiter = upgraded.put_later(service(2, [endpoint(1)]))
    allow_all_flows(switch)
    assert waiter() is None
    wait_until(lambda: upgraded.synchronizer.status.synchronized, "the switch to be synchronized")
    assert upgraded.synchronizer.status.pipeline == PIPELINE_VERSION + 1
    assert not upgraded.synchronizer.refused
    assert sorted(switch.dump_flows()) != written


def test_another_version_of_the_pipeline_is_tried_at_once(
    switch: PrivateSwitch, written: list[str], upgraded: ServiceNode
) -> None:
    waiter = Waiter()
    upgraded.put_later(service(1, [endpoint(1)]))
    upgraded.synchronizer.submit(NODE_PART, lambda: node_flows(NODE), waiter.done)
    assert waiter() is None
    assert sorted(switch.dump_flows()) == written


def test_changes_do_not_try_a_refused_pipeline_again(upgraded: ServiceNode) -> None:
    """Each attempt is all that the switch must hold."""
    attempts = 0
    commit = upgraded.synchronizer._writer.holdings.write

    def counted(*arguments: object) -> None:
        nonlocal attempts
        attempts += 1
        commit(*arguments)  # type: ignore[arg-type]

    upgraded.synchronizer._writer.holdings.write = counted  # type: ignore[method-assign, assignment]
    for number in range(20):
        upgraded.put_later(service(1 + number % 2, [endpoint(number % 2)]))
        time.sleep(0.1)
    assert attempts <= 2, "after a second, and two more"


def test_an_agent_is_told_nothing_while_its_switch_refuses_the_pipeline(
    controller: ControllerProcess, switch: PrivateSwitch
) -> None:
    """What the agent takes for confirmed it keeps for a switch that starts anew."""
    allow_flows(switch, 0, 0)
    with AgentStream(controller, node_info(1)) as agent:
        connect_switch(switch, controller, agent.node.datapath_id)
        wait_until(lambda: "TABLE_FULL" in controller.switch("node-1").last_error, "the refusal")
        pod = attachment(agent.node, 1)
        sequences = [agent.full_state(), agent.attach(pod)]
        time.sleep(2)
        assert not any(map(agent.answered, sequences))
        assert switch.dump_flows() == []
        (line, *_) = controller.log("the node's own entries are refused: the switch stays as it is")
        assert line["node"] == "node-1"
        assert "TABLE_FULL" in line["error"]
        assert not controller.switch("node-1").synchronized
        allow_all_flows(switch)
        assert [agent.answer(sequence) for sequence in sequences] == [None, None]
        controller.wait_synchronized("node-1")


def test_connections_are_flushed_when_the_pipeline_is_taken(
    switch: PrivateSwitch, upgraded: ServiceNode
) -> None:
    """What is denied now begins anew by the pipeline that the switch still has."""
    switch.add_port("p99", 99)
    switch.ofctl("add-flow", "priority=65535,in_port=99,ip,actions=ct(commit,zone=1)")
    switch.appctl("netdev-dummy/receive", "p99", UDP.replace("in_port(1)", "in_port(99)"))
    assert "10.0.0.1" in switch.appctl("dpctl/dump-conntrack")
    upgraded.synchronizer.flush([FROM_CLIENT])
    time.sleep(1)
    assert "10.0.0.1" in switch.appctl("dpctl/dump-conntrack")
    allow_all_flows(switch)
    wait_until(lambda: "10.0.0.1" not in switch.appctl("dpctl/dump-conntrack"), "the flush")
