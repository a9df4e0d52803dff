# SPDX-License-Identifier: Apache-2.0
"""What others change in a real switch is noticed, written again and told; what is right to differ is not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from sdn.pipeline.actions import Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.service import Protocol, group_base
from sdn.pipeline.tables import BRIDGING, SESSION_AFFINITY
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until
from tests.switch.service_node import ServiceNode, add_pod_ports, endpoint, send, service, service_node
from tests.switch.two_controllers import Controllers

pytestmark = pytest.mark.switch

PODS = 3
GROUP = group_base(1, 0, 4)


@pytest.fixture
def switch() -> Iterator[PrivateSwitch]:
    for running in running_switch():
        add_pod_ports(running, PODS)
        yield running


@pytest.fixture
def node(switch: PrivateSwitch) -> Iterator[ServiceNode]:
    with service_node(switch) as running:
        running.put_pods(PODS)
        running.connect()
        running.put(service(1, [endpoint(1), endpoint(2)], Protocol.TCP, affinity_seconds=600))
        assert running.synchronizer.repairs.count == 0
        yield running


def entries(switch: PrivateSwitch) -> list[str]:
    """All flows but those that the switch may learn, and all groups."""
    flows = [line for line in switch.dump_flows() if f" table={SESSION_AFFINITY.number}," not in line]
    return sorted(flows) + sorted(re.findall(r"group_id=.*", switch.ofctl("dump-groups")))


def told(node: ServiceNode) -> list[tuple[str, str]]:
    return [(repair.kind, repair.what) for repair in node.synchronizer.repairs.last()]


def damaged(node: ServiceNode, damage: Callable[[PrivateSwitch], object], count: int) -> float:
    """Let somebody damage the switch; how long it took until all was as before, seconds. ``count``: entries that were
    repaired by that.
    """
    right, before = entries(node.switch), node.synchronizer.repairs.count
    damage(node.switch)
    began = time.monotonic()
    wait_until(lambda: node.synchronizer.repairs.count >= before + count, f"{count} repairs, {told(node)}")
    wait_until(lambda: entries(node.switch) == right, "the switch to be repaired")
    seconds = time.monotonic() - began
    assert node.synchronizer.repairs.count == before + count
    wait_until(lambda: node.synchronizer.status.synchronized, "the switch to be synchronized")
    assert node.synchronizer.status.repaired == before + count
    return seconds


def test_a_flow_that_somebody_deletes_is_there_again(node: ServiceNode) -> None:
    lines = [line for line in node.switch.dump_flows() if f" table={BRIDGING.number}," in line]
    seconds = damaged(node, lambda switch: switch.ofctl("del-flows", f"table={BRIDGING.number}"), len(lines))
    print(f"{len(lines)} flows of a table after {seconds:.3f} s")
    assert {kind for kind, _ in told(node)} == {"missing"}
    assert all(
        "flow in table bridging of ('pod', " in what or "of ('node',)" in what for _, what in told(node)
    )


def test_a_flow_that_somebody_changes_or_adds_is_as_it_was(node: ServiceNode) -> None:
    damaged(
        node,
        lambda switch: switch.ofctl("add-flow", "table=3,priority=7,vlan_vid=0x1064/0x1fff,actions=drop"),
        1,
    )
    assert told(node)[-1][0] == "unknown"
    assert "of nobody" in told(node)[-1][1]
    port = re.search(r" (priority=\d+,in_port=\d+) actions", "\n".join(node.switch.dump_flows()))
    assert port is not None
    flow = f"table=0,{port[1]}"
    damaged(node, lambda switch: switch.ofctl("mod-flows", "--strict", f"{flow},actions=drop"), 1)
    assert told(node)[-1][0] == "changed"
    damaged(node, lambda switch: switch.ofctl("add-flow", f"{flow},cookie=5,idle_timeout=9,actions=drop"), 1)
    assert told(node)[-1][0] == "changed"
    assert "idle_timeout=9" in told(node)[-1][1]


def test_all_flows_and_groups_that_somebody_deletes_are_there_again(node: ServiceNode) -> None:
    flows = len(node.switch.dump_flows())
    seconds = damaged(node, lambda switch: switch.ofctl("del-flows"), flows)
    print(f"{flows} flows after {seconds:.3f} s")
    before = node.synchronizer.repairs.count
    right = entries(node.switch)
    node.switch.ofctl("del-groups")
    wait_until(
        lambda: entries(node.switch) == right, "the groups to be there again, and the flows that use them"
    )
    wait_until(lambda: node.synchronizer.status.synchronized, "the switch to be synchronized")
    assert node.synchronizer.repairs.count >= before + 2
    assert any(what.startswith("group of ('service', ") for _, what in told(node)), told(node)


def test_a_group_that_somebody_changes_or_adds_is_as_it_was(node: ServiceNode) -> None:
    damaged(node, lambda switch: switch.ofctl("add-group", "group_id=7,type=select,bucket=output:1"), 1)
    assert told(node)[-1][0] == "unknown"
    damaged(
        node,
        lambda switch: switch.ofctl(
            "mod-group", f"group_id={GROUP},type=select,bucket=bucket_id:9,actions=output:1"
        ),
        1,
    )
    assert told(node)[-1][0] == "changed"


def test_a_flow_in_the_table_of_learned_ones_is_somebodys(switch: PrivateSwitch, node: ServiceNode) -> None:
    send(switch, 0, "10.96.0.1", 80, 30000, Protocol.TCP)
    table = f"table={SESSION_AFFINITY.number}"
    wait_until(
        lambda: (
            "hard_timeout" in switch.ofctl("dump-flows", table)
            or "idle_timeout" in switch.ofctl("dump-flows", table)
        ),
        "a flow to be learned",
    )
    switch.ofctl("add-flow", f"{table},priority=7,ip,nw_src=10.0.0.1,actions=drop")
    wait_until(lambda: node.synchronizer.repairs.count == 1, "the flow to be found")
    wait_until(lambda: "nw_src=10.0.0.1 " not in switch.ofctl("dump-flows", table), "the flow to go")
    assert "timeout" in switch.ofctl("dump-flows", table), "what was learned stays"
    assert node.synchronizer.repairs.count == 1


def test_own_changes_learned_flows_and_audits_are_no_drift(
    switch: PrivateSwitch, node: ServiceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.drift.GROUPS_SECONDS", 0.05)
    monkeypatch.setattr("controller.drift.ALL_SECONDS", 0.1)
    monkeypatch.setattr("controller.drift.RARE", 0.0)
    connection = node.synchronizer.connection
    switch.appctl("bridge/reconnect", switch.bridge)
    wait_until(
        lambda: node.synchronizer.status.synchronized and node.synchronizer.connection is not connection,
        "the switch to come back",
    )
    drift = node.synchronizer._writer.drift
    audits: list[float] = []
    was_compared = drift.was_compared
    monkeypatch.setattr(drift, "was_compared", lambda cost: (audits.append(cost), was_compared(cost)))
    deadline = time.monotonic() + 5
    number = 0
    while time.monotonic() < deadline:
        number += 1
        endpoints = [endpoint(each) for each in range(3)][: 1 + number % 3]
        node.put(service(1, endpoints, Protocol.TCP, affinity_seconds=600))
        node.put(service(2, endpoints, affinity_seconds=600 * (number % 2)))
        send(switch, 0, "10.96.0.1", 80, 30000 + number, Protocol.TCP)
        send(switch, 0, "10.96.0.2", 80, 30000 + number)
        if number % 5 == 0:
            node.remove(service(2, []))
    assert number > 20
    assert len(audits) > 3, "it was audited meanwhile"
    assert told(node) == []
    assert node.synchronizer.repairs.count == 0


def test_what_an_audit_finds_is_repaired_where_nothing_is_told(
    node: ServiceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.connection.SwitchConnection.monitor", lambda _self: "not here")
    connection = node.synchronizer.connection
    node.switch.appctl("bridge/reconnect", node.switch.bridge)
    wait_until(
        lambda: node.synchronizer.status.synchronized and node.synchronizer.connection is not connection,
        "the switch to come back",
    )
    lines = [line for line in node.switch.dump_flows() if f" table={BRIDGING.number}," in line]
    seconds = damaged(node, lambda switch: switch.ofctl("del-flows", f"table={BRIDGING.number}"), len(lines))
    print(f"a table without being told after {seconds:.3f} s")
    right = entries(node.switch)
    node.switch.ofctl("del-groups")
    wait_until(lambda: entries(node.switch) == right, "the groups")


def flow(number: int) -> Flow:
    owner = Owner("Pod", "default", "web")
    return Flow(0, 100, match(in_port=number), (Output(1),), 5, owner, "test")


def test_what_another_owner_writes_is_no_drift(switch: PrivateSwitch) -> None:
    controllers = Controllers(switch, 5, None)
    first, second = controllers.members
    try:
        controllers.connect()
        for member in (first, second):
            member.submit("part", [flow(number) for number in range(1, 500)])
        first.wait_synchronized()
        for generation in range(6, 12):
            first.synchronizer.disown(generation)
            second.synchronizer.own(generation)
            assert second.put("other", [flow(number) for number in range(1000, 1100 + generation)]) is None
            first.submit("other", [flow(number) for number in range(1000, 1100 + generation)])
            first, second = second, first
        first.wait_synchronized()
        switch.ofctl("del-flows", "table=0,in_port=7")
        wait_until(lambda: first.synchronizer.repairs.count == 1, "the flow to be found")
        assert second.synchronizer.repairs.count == 0
        assert second.synchronizer.connection is not None
        assert not second.synchronizer.connection._monitored
    finally:
        controllers.close()
