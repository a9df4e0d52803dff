# SPDX-License-Identifier: Apache-2.0
"""Agents and a real switch at a real controller: registration, attachments, answers, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from sdn.v1 import controller_pb2, controller_pb2_grpc, inspection_pb2, types_pb2
from tests.switch.controller_process import (
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    node_info,
    running_controller,
)
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until

controller = pytest.fixture(scope="module")(running_controller)
switch = pytest.fixture(scope="module")(running_switch)


@pytest.fixture(scope="module")
def agent(controller: ControllerProcess, switch: PrivateSwitch) -> Iterator[AgentStream]:
    """Node 1 with its switch, connected; the tests of this module leave no attachments behind."""
    with AgentStream(controller, node_info(1)) as stream:
        connect_switch(switch, controller, stream.node.datapath_id)
        assert stream.answer(stream.full_state()) is None
        yield stream


def refused(controller: ControllerProcess, info: types_pb2.NodeInfo) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        AgentStream(controller, info)
    return error.value


def test_a_node_is_welcomed_with_its_ranges(agent: AgentStream, controller: ControllerProcess) -> None:
    assert list(agent.welcome.cluster_ranges) == ["10.244.0.0/16", "fd00:10:244::/48"]
    assert list(agent.node.pod_ranges) == ["10.244.0.0/24", "fd00:10:244::/64"]
    assert list(agent.welcome.openflow_targets) == [f"tcp:127.0.0.1:{controller.openflow_port}"]
    assert agent.welcome.controller_name == "controller-1"


def test_a_node_is_told_what_the_cluster_has_for_services(agent: AgentStream) -> None:
    welcome = agent.welcome
    assert list(welcome.service_ranges) == ["10.96.0.0/16", "fd00:10:96::/112"]
    assert list(welcome.load_balancer_ranges) == []
    assert (welcome.node_port_first, welcome.node_port_last) == (30000, 32767)
    assert welcome.cluster_domain == "cluster.local"
    assert list(welcome.dns_addresses) == ["10.96.0.10", "fd00:10:96::a"]
    assert welcome.serve_dns


def test_a_node_keeps_its_ranges_and_each_node_gets_its_own(
    agent: AgentStream, controller: ControllerProcess
) -> None:
    with AgentStream(controller, node_info(2)) as second:
        first_ranges = list(second.node.pod_ranges)
    assert first_ranges == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    with AgentStream(controller, node_info(3)) as third, AgentStream(controller, node_info(2)) as again:
        assert list(third.node.pod_ranges) == ["10.244.2.0/24", "fd00:10:244:2::/64"]
        assert list(again.node.pod_ranges) == first_ranges
        wait_until(lambda: agent.peers == ["node-2", "node-3"], "the peers to be told")
        wait_until(lambda: again.peers == ["node-1", "node-3"], "the peers to be told")


def test_an_offered_range_is_kept(controller: ControllerProcess) -> None:
    offer = ["10.244.77.0/24", "fd00:10:244:77::/64"]
    with AgentStream(controller, node_info(4, pod_ranges=offer)) as stream:
        assert list(stream.node.pod_ranges) == offer


def test_a_pod_is_programmed_when_its_flows_are_in_the_switch(
    controller: ControllerProcess, agent: AgentStream, switch: PrivateSwitch
) -> None:
    pod = attachment(agent.node, 1)
    # Other nodes' flows may still be on their way.
    controller.wait_synchronized(agent.node.name)
    before = len(switch.dump_flows())
    assert agent.answer(agent.attach(pod)) is None
    flows = switch.dump_flows()
    assert any("in_port=17" in flow for flow in flows)
    assert len(flows) > before
    assert agent.answer(agent.attach(pod)) is None, "the same again is in force as well"
    assert switch.dump_flows() == flows
    assert agent.answer(agent.detach(pod)) is None
    assert len(switch.dump_flows()) == before
    assert agent.answer(agent.detach(pod)) is None, "what is gone may be detached again"


def test_an_attachment_that_changes_is_programmed_anew(agent: AgentStream, switch: PrivateSwitch) -> None:
    pod = attachment(agent.node, 2)
    assert agent.answer(agent.attach(pod)) is None
    assert agent.answer(agent.attach(attachment(agent.node, 2, ofport=99))) is None
    flows = "\n".join(switch.dump_flows())
    assert "in_port=99" in flows
    assert "in_port=18" not in flows
    assert agent.answer(agent.detach(pod)) is None


def test_full_state_leaves_exactly_what_it_lists(agent: AgentStream, controller: ControllerProcess) -> None:
    kept, gone, new = (attachment(agent.node, number) for number in (3, 4, 5))
    for pod in (kept, gone):
        assert agent.answer(agent.attach(pod)) is None
    assert agent.answer(agent.full_state(kept, new)) is None
    names = {pod["metadata"]["name"] for pod in controller.get("Pod")}
    assert names == {"node-1-web-3", "node-1-web-5"}
    # Addresses that have changed hands inside one full state are no duplicates.
    swapped = attachment(agent.node, 5, addresses=kept.addresses, mac=kept.mac, ofport=kept.ofport)
    other = attachment(agent.node, 3, addresses=new.addresses, mac=new.mac, ofport=new.ofport)
    assert agent.answer(agent.full_state(swapped, other)) is None
    assert agent.answer(agent.full_state()) is None
    assert controller.get("Pod") == []


def test_full_state_takes_what_is_right_and_names_what_is_wrong(
    agent: AgentStream, controller: ControllerProcess
) -> None:
    right, wrong = attachment(agent.node, 6), attachment(agent.node, 7, addresses=["10.244.9.9"])
    reason = agent.answer(agent.full_state(right, wrong))
    assert reason is not None
    assert "attachments[1].addresses: 10.244.9.9 is outside the node's ranges 10.244.0.0/24" in reason
    assert agent.wrong == {1: reason}
    assert [pod["metadata"]["name"] for pod in controller.get("Pod")] == ["node-1-web-6"]
    assert agent.answer(agent.full_state()) is None


def test_full_state_names_what_the_switch_refuses_until_it_takes_it(
    agent: AgentStream, controller: ControllerProcess, switch: PrivateSwitch
) -> None:
    pods = [attachment(agent.node, number) for number in (8, 9)]
    assert agent.answer(agent.full_state(pods[0])) is None
    # Of a table in which every pod has a flow of its own, the switch takes no more than it holds.
    controller.wait_synchronized(agent.node.name)
    held = sum("table=2," in flow for flow in switch.dump_flows())
    switch.vsctl(
        *("set", "bridge", switch.bridge, "flow_tables:2=@t"),
        *("--", "--id=@t", "create", "Flow_Table", f"flow_limit={held}", "overflow_policy=refuse"),
    )
    for _ in range(2):  # It is said as often as it is asked for.
        reason = agent.answer(agent.full_state(*pods))
        assert reason is not None
        assert "TABLE_FULL" in reason
        assert agent.wrong == {1: agent.wrong[1]}, "the first one is in force"
        assert "TABLE_FULL" in agent.wrong[1]
    switch.vsctl("clear", "bridge", switch.bridge, "flow_tables")
    wait_until(lambda: agent.answer(agent.full_state(*pods)) is None, "the switch to be asked again")
    assert agent.answer(agent.full_state()) is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"addresses": ["10.244.1.5"]}, "attachment.addresses: 10.244.1.5 is outside the node's ranges"),
        ({"addresses": ["10.244.0.1"]}, "attachment.addresses: 10.244.0.1 is reserved in the node's range"),
        ({"addresses": ["10.244.0.0"]}, "reserved"),
        ({"addresses": ["10.244.0.255"]}, "reserved"),
        ({"addresses": ["fd00:10:244::1"]}, "reserved"),
        ({"addresses": []}, "attachment.addresses: at least one address is needed"),
        ({"addresses": ["10.244.0.5", "10.244.0.6"]}, "attachment.addresses: two addresses of one family"),
        ({"addresses": ["10.244.0.5/24"]}, "attachment.addresses[0]: '10.244.0.5/24' is no IP address"),
        ({"addresses": ["224.0.0.1"]}, "no address that a host can have"),
        ({"mac": "0a:58:00"}, "attachment.mac: '0a:58:00' is no MAC address"),
        ({"mac": "01:00:5e:00:00:01"}, "attachment.mac: 01:00:5e:00:00:01 is no address of one interface"),
        ({"mac": "00:00:00:00:00:00"}, "attachment.mac"),
        ({"mac": "0a:58:00:00:00:01"}, "attachment.mac"),
        ({"ofport": 1}, "attachment.ofport: 1: must be 16 to 65278"),
        ({"ofport": 65279}, "attachment.ofport"),
        ({"container_id": ""}, "attachment.container_id: '' is no container id"),
        ({"container_id": "a/b"}, "attachment.container_id"),
        ({"interface_name": "a/b"}, "attachment.interface_name"),
        ({"interface_name": "x" * 16}, "attachment.interface_name"),
        ({"pod_namespace": "Shop"}, "attachment.pod_namespace: 'Shop' must be"),
        ({"pod_name": "Web 1"}, "attachment.pod_name: 'Web 1' must be"),
        ({"labels": {"a b": "c"}}, 'attachment.labels["a b"]'),
    ],
)
def test_a_wrong_attachment_is_rejected_with_its_field(
    agent: AgentStream, controller: ControllerProcess, fields: dict[str, object], says: str
) -> None:
    reason = agent.answer(agent.attach(attachment(agent.node, 8, **fields)))
    assert reason is not None
    assert says in reason
    assert controller.get("Pod") == []


@pytest.mark.parametrize("field", ["ofport", "mac", "addresses"])
def test_what_another_pod_has_is_rejected_with_its_holder(agent: AgentStream, field: str) -> None:
    first, second = attachment(agent.node, 10), attachment(agent.node, 11)
    assert agent.answer(agent.attach(first)) is None
    taken = attachment(agent.node, 11, **{field: getattr(first, field)})
    reason = agent.answer(agent.attach(taken))
    assert reason is not None
    assert reason.startswith(f"Pod default/node-1-web-11: attachment.{field}: ")
    assert (
        "belongs to attachment node-1-container-10/eth0 of pod default/node-1-web-10 on Node node-1" in reason
    )
    assert agent.answer(agent.attach(second)) is None
    assert agent.answer(agent.full_state()) is None


def test_a_mac_is_unique_in_the_cluster(agent: AgentStream, controller: ControllerProcess) -> None:
    mine = attachment(agent.node, 12)
    assert agent.answer(agent.attach(mine)) is None
    with AgentStream(controller, node_info(2)) as second:
        reason = second.answer(second.attach(attachment(second.node, 1, mac=mine.mac)))
    assert reason is not None
    assert "on Node node-1" in reason
    assert agent.answer(agent.full_state()) is None


def test_a_container_that_is_no_pod_is_taken(agent: AgentStream) -> None:
    bare = attachment(
        agent.node, 13, container_id="Some_Container.1", pod_name="Some_Container.1", pod_uid=""
    )
    assert agent.answer(agent.attach(bare)) is None
    assert agent.answer(agent.full_state()) is None


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"name": "Node 1"}, grpc.StatusCode.INVALID_ARGUMENT, "node.name"),
        ({"uid": ""}, grpc.StatusCode.INVALID_ARGUMENT, "node.uid"),
        ({"addresses": []}, grpc.StatusCode.INVALID_ARGUMENT, "node.addresses: at least one"),
        ({"addresses": ["10.244.0.9"]}, grpc.StatusCode.INVALID_ARGUMENT, "node.tunnel_address"),
        (
            {"addresses": ["10.244.0.9"], "tunnel_address": "10.244.0.9"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "10.244.0.9 lies in the cluster's range 10.244.0.0/16",
        ),
        (
            {"addresses": ["10.96.0.9"], "tunnel_address": "10.96.0.9"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "10.96.0.9 lies in the cluster's range 10.96.0.0/16, which is for Services",
        ),
        ({"tunnel_mac": "x"}, grpc.StatusCode.INVALID_ARGUMENT, "node.tunnel_mac"),
        ({"encapsulation": 0}, grpc.StatusCode.INVALID_ARGUMENT, "node.encapsulation: must be geneve"),
        ({"datapath": 9}, grpc.StatusCode.INVALID_ARGUMENT, "node.datapath: must be netdev, system"),
        ({"datapath_id": 0}, grpc.StatusCode.INVALID_ARGUMENT, "node.datapath_id"),
        ({"mtu": 100}, grpc.StatusCode.INVALID_ARGUMENT, "node.mtu: 100"),
        ({"pod_ranges": ["10.244.0.1/24"]}, grpc.StatusCode.INVALID_ARGUMENT, "node.pod_ranges[0]"),
        ({"labels": {"a": "b c"}}, grpc.StatusCode.INVALID_ARGUMENT, 'node.labels["a"]'),
        (
            {"datapath_id": node_info(1).datapath_id},
            grpc.StatusCode.ALREADY_EXISTS,
            "the switch of Node node-1",
        ),
        (
            {"addresses": ["172.30.0.1"], "tunnel_address": "172.30.0.1"},
            grpc.StatusCode.ALREADY_EXISTS,
            "node.addresses: 172.30.0.1 is an address of Node node-1",
        ),
        ({"name": "node-1"}, grpc.StatusCode.ALREADY_EXISTS, "another node is registered as node-1"),
    ],
)
def test_a_wrong_node_is_refused_with_its_field(
    agent: AgentStream,
    controller: ControllerProcess,
    fields: dict[str, object],
    code: grpc.StatusCode,
    says: str,
) -> None:
    error = refused(controller, node_info(50, **fields))
    assert error.code() is code
    assert says in error.details()
    assert "node-50" not in {node["metadata"]["name"] for node in controller.get("Node")}


def test_the_newest_stream_of_a_node_wins(controller: ControllerProcess) -> None:
    with AgentStream(controller, node_info(5)) as old, AgentStream(controller, node_info(5)) as new:
        error = old.wait_ended()
        assert error is not None
        assert error.code() is grpc.StatusCode.ABORTED
        assert "a newer stream of Node node-5" in error.details()
        assert not new.ended
        conditions = {
            c["type"]: c["status"] for c in controller.get("Node", name="node-5")[0]["status"]["conditions"]
        }
        assert conditions["AgentConnected"] == "True"


def test_agents_that_come_and_go_in_every_moment_do_no_harm(controller: ControllerProcess) -> None:
    """gRPC's calls are dangerous to touch once they have ended; a defect here ended the whole process."""
    for turn in range(60):
        streams = [AgentStream(controller, node_info(60 + number)) for number in range(3)]
        for stream in streams:
            stream.full_state(*[attachment(stream.node, number) for number in range(turn % 5)])
        for stream in streams:
            stream.close()
    with AgentStream(controller, node_info(60)) as stream:
        assert stream.node.name == "node-60"
        reason = stream.answer(stream.attach(attachment(stream.node, 1, mac="")))
        assert reason is not None


def test_anything_but_hello_first_is_refused(controller: ControllerProcess) -> None:
    stub = controller_pb2_grpc.ControllerStub(controller.channel())
    message = controller_pb2.AgentMessage(full_state=controller_pb2.FullState(sequence=1))
    for messages in ([message], [controller_pb2.AgentMessage()], []):
        with pytest.raises(grpc.RpcError) as error:
            list(stub.Session(iter(messages), timeout=60))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "hello" in error.value.details()


def test_a_second_hello_is_refused(controller: ControllerProcess) -> None:
    with AgentStream(controller, node_info(6)) as stream:
        stream.hello_again(node_info(6))
        error = stream.wait_ended()
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_attachment_waits_for_its_switch(controller: ControllerProcess) -> None:
    with AgentStream(controller, node_info(7)) as stream:
        pod = attachment(stream.node, 1)
        waiting = stream.attach(pod)
        wait_until(
            lambda: "node-7-web-1" in {pod["metadata"]["name"] for pod in controller.get("Pod")},
            "the attachment to be stored",
        )
        assert not stream.answered(waiting)
        assert controller.get("Pod", name="node-7-web-1")[0]["status"]["phase"] == "Pending"
        with PrivateSwitch() as late:
            connect_switch(late, controller, stream.node.datapath_id)
            assert stream.answer(waiting) is None
            assert any("in_port=17" in flow for flow in late.dump_flows())
            assert stream.answer(stream.full_state()) is None


def test_an_exhausted_cluster_range_is_named() -> None:
    with ControllerProcess(cluster_ranges="10.9.0.0/24") as small:
        with AgentStream(small, node_info(1)):
            error = refused(small, node_info(2))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "no /24 is left in the cluster's range 10.9.0.0/24" in error.details()


def test_a_node_is_forgotten_only_when_its_agent_is_gone(controller: ControllerProcess) -> None:
    request = inspection_pb2.DeleteRequest(kind="Node", name="node-8")
    with AgentStream(controller, node_info(8)) as stream:
        ranges = list(stream.node.pod_ranges)
        with pytest.raises(grpc.RpcError) as error:
            controller.inspection().Delete(request)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "Node node-8: its agent is connected" in error.value.details()
        # Another node under this name is refused until it is forgotten.
        assert refused(controller, node_info(8, uid="other")).code() is grpc.StatusCode.ALREADY_EXISTS

    def deleted() -> bool:
        try:
            controller.inspection().Delete(request)
        except grpc.RpcError:
            return False
        return True

    wait_until(deleted, "the node to be forgotten")
    with pytest.raises(grpc.RpcError) as error:
        controller.inspection().Delete(request)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    with AgentStream(controller, node_info(8, uid="other")) as stream:
        assert list(stream.node.pod_ranges) == ranges, "what it had is free again"
