# SPDX-License-Identifier: Apache-2.0
"""What people ask of a running controller about Services: objects, events, flows, groups, all of one Service."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2

from sdn.v1 import controller_pb2, inspection_pb2, inspection_pb2_grpc, types_pb2
from tests.switch.controller_process import (
    PATIENCE,
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    node_info,
)
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until

switch = pytest.fixture(scope="module")(running_switch)

Outcome = inspection_pb2.ApplyResponse
Event = inspection_pb2.WatchEvent


@pytest.fixture(scope="module")
def controller() -> Iterator[ControllerProcess]:
    with ControllerProcess(load_balancer_ranges="192.0.2.0/30", repair_at_once="false") as running:
        yield running


@pytest.fixture(scope="module")
def agent(controller: ControllerProcess, switch: PrivateSwitch) -> Iterator[AgentStream]:
    labels = {"topology.kubernetes.io/zone": "a"}
    with AgentStream(controller, node_info(1, labels=labels)) as stream:
        connect_switch(switch, controller, stream.node.datapath_id)
        assert stream.answer(stream.full_state()) is None
        yield stream


@pytest.fixture
def pods(agent: AgentStream) -> Iterator[list[types_pb2.Attachment]]:
    """Three pods of the Service shop/web."""
    labels = {"app": "web"}
    made = [attachment(agent.node, n, pod_namespace="shop", labels=labels) for n in (1, 2, 3)]
    for item in made:
        assert agent.answer(agent.attach(item)) is None
    yield made
    assert agent.answer(agent.full_state()) is None


@pytest.fixture
def inspection(controller: ControllerProcess) -> Iterator[inspection_pb2_grpc.InspectionStub]:
    stub = controller.inspection()
    yield stub
    for document in controller.get("Service"):
        metadata = document["metadata"]
        if metadata["namespace"] != "kube-system":
            request = inspection_pb2.DeleteRequest(
                kind="Service", namespace=metadata["namespace"], name=metadata["name"]
            )
            stub.Delete(request, timeout=PATIENCE)


def service(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def apply(
    stub: inspection_pb2_grpc.InspectionStub, document: dict[str, Any], dry_run: bool = False
) -> dict[str, Any]:
    """Apply; gives the object that was answered."""
    struct = json_format.ParseDict(document, struct_pb2.Struct())
    answer = stub.Apply(inspection_pb2.ApplyRequest(object=struct, dry_run=dry_run), timeout=PATIENCE)
    return json_format.MessageToDict(answer.object)


def refusal(stub: inspection_pb2_grpc.InspectionStub, document: dict[str, Any]) -> str:
    with pytest.raises(grpc.RpcError) as error:
        apply(stub, document)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(error.value.details())


def describe(
    stub: inspection_pb2_grpc.InspectionStub, name: str, namespace: str = "shop", node: str = ""
) -> inspection_pb2.DescribeServiceResponse:
    request = inspection_pb2.DescribeServiceRequest(namespace=namespace, name=name, node=node)
    return stub.DescribeService(request, timeout=PATIENCE)


def list_groups(
    stub: inspection_pb2_grpc.InspectionStub, node: str, owner: str = ""
) -> list[inspection_pb2.GroupEntry]:
    request = inspection_pb2.ListGroupsRequest(node=node, owner=owner)
    return [group for answer in stub.ListGroups(request, timeout=PATIENCE) for group in answer.groups]


def test_a_service_is_answered_with_all_that_it_was_given(
    controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    document = service("web", type="LoadBalancer")
    tried = apply(inspection, document, dry_run=True)
    assert tried["spec"]["clusterIP"].startswith("10.96.")
    assert [item["metadata"]["name"] for item in controller.get("Service")] == ["kube-dns"]
    made = apply(inspection, document)
    assert made == controller.get("Service", namespace="shop", name="web")[0]
    assert made["status"]["loadBalancer"]["ingress"][0]["ip"].startswith("192.0.2.")
    assert 30000 <= made["spec"]["ports"][0]["nodePort"] <= 32767
    assert apply(inspection, document) == made


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
            "Service shop/bad: spec.ports[0].nodePort: 80 is not within 30000-32767",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
            "Service shop/bad: spec.ports[0].nodePort: 30080/TCP belongs to Service shop/good",
        ),
        (
            {"clusterIP": "10.97.0.1"},
            "Service shop/bad: spec.clusterIP: 10.97.0.1 is not within service_ranges",
        ),
        (
            {"type": "LoadBalancer", "loadBalancerIP": "192.0.3.1"},
            "Service shop/bad: spec.loadBalancerIP: 192.0.3.1 is not within load_balancer_ranges",
        ),
        (
            {"clusterIP": "fd00:10:96::5", "ipFamilies": ["IPv4"]},
            "Service shop/bad: spec.clusterIP: 'fd00:10:96::5' is no IPv4 address",
        ),
        (
            {"externalIPs": ["198.51.100.1"]},
            "Service shop/bad: spec.externalIPs[0]: 198.51.100.1:80/TCP belongs to Service shop/good",
        ),
        (
            {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
            "Service shop/bad: spec.ports[1].port: TCP port 80 is spec.ports[0]'s, too",
        ),
    ],
)
def test_a_bad_service_is_refused_with_its_field_and_what_runs_is_untouched(
    agent: AgentStream,
    controller: ControllerProcess,
    switch: PrivateSwitch,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
    spec: dict[str, Any],
    says: str,
) -> None:
    ports = [{"port": 80, "nodePort": 30080, "targetPort": 8080}]
    good = apply(inspection, service("good", type="NodePort", externalIPs=["198.51.100.1"], ports=ports))
    controller.wait_synchronized("node-1")
    wait_until(lambda: len(controller.flows("node-1", owner="Service/shop/good")) > 3, "the Service's flows")
    before = sorted(switch.dump_flows()), controller.get("Service")
    assert says in refusal(inspection, service("bad", **spec))
    controller.wait_synchronized("node-1")
    assert (sorted(switch.dump_flows()), controller.get("Service")) == before
    assert good in controller.get("Service")


def test_slices_are_derived_and_events_are_told(
    agent: AgentStream,
    controller: ControllerProcess,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, service("web"))
    request = {"namespace": "shop", "label_selector": "kubernetes.io/service-name=web"}

    def endpoints() -> list[str]:
        slices = controller.get("EndpointSlice", **request)
        return sorted(address for one in slices for each in one["endpoints"] for address in each["addresses"])

    wait_until(lambda: len(endpoints()) == 3, "three endpoints")
    assert endpoints() == sorted(item.addresses[0] for item in pods)
    watch = controller.inspection().Watch(inspection_pb2.WatchRequest(kind="EndpointSlice", **request))
    try:
        assert next(watch).type == Event.TYPE_ADDED
        assert next(watch).type == Event.TYPE_BOOKMARK
        assert agent.answer(agent.detach(pods[0])) is None
        changed = next(watch)
        assert changed.type == Event.TYPE_MODIFIED
        assert len(json_format.MessageToDict(changed.object)["endpoints"]) == 2
    finally:
        watch.cancel()
    # The pool has four addresses.
    for number in range(5):
        apply(inspection, service(f"lb-{number}", type="LoadBalancer"))
    events = controller.get("Event", namespace="shop")
    assert [event["involvedObject"]["name"] for event in events if event["reason"] == "AllocationFailed"] == [
        "lb-4"
    ]
    with pytest.raises(grpc.RpcError) as error:
        inspection.Delete(
            inspection_pb2.DeleteRequest(kind="Event", namespace="shop", name=events[0]["metadata"]["name"])
        )
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_flows_and_groups_of_a_service_are_listed_by_their_owner(
    agent: AgentStream,
    switch: PrivateSwitch,
    controller: ControllerProcess,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, service("web"))
    apply(inspection, service("other", ports=[{"port": 81}]))

    def groups() -> list[inspection_pb2.GroupEntry]:
        return list_groups(inspection, "node-1", "Service/shop/web")

    wait_until(lambda: [group.bucket_count for group in groups()] == [3], "a group of three buckets")
    (group,) = groups()
    assert (group.type, group.owner) == ("select", "Service/shop/web")
    assert group.buckets.count("bucket_id:") == 3
    assert group.why
    everything = list_groups(inspection, "node-1")
    assert {one.owner for one in everything} >= {"Service/shop/web", "Service/shop/other"}
    assert [one.group_id for one in everything if one.owner == "Service/shop/web"] == [group.group_id]
    mine = controller.flows("node-1", owner="Service/shop/web")
    assert {flow.owner for flow in mine} == {"Service/shop/web"}
    assert {flow.table for flow in mine} >= {"load_balancing", "endpoint"}
    assert all(flow.why for flow in mine)
    known = [flow for flow in controller.flows("node-1") if flow.owner == "Service/shop/web"]
    assert sorted(flow.match for flow in known) == sorted(flow.match for flow in mine)
    one_table = controller.flows("node-1", owner="Service/shop/web", table="endpoint")
    assert {flow.table for flow in one_table} == {"endpoint"}
    assert len(one_table) == 3
    # What is nobody's is listed, without an owner.
    switch.ofctl("add-group", "group_id=77,type=all,bucket=actions=drop")
    (foreign,) = [one for one in list_groups(inspection, "node-1") if one.group_id == 77]
    assert (foreign.owner, foreign.type) == ("", "all")
    switch.ofctl("del-groups", "group_id=77")
    assert controller.flows("node-1", owner="Service/shop/none") == []
    assert list_groups(inspection, "node-1", "Pod/shop/web") == []


def test_what_the_switch_learned_for_session_affinity_is_its_services(
    agent: AgentStream,
    switch: PrivateSwitch,
    controller: ControllerProcess,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, service("web", sessionAffinity="ClientIP"))
    owner = "Service/shop/web"

    def endpoints() -> list[inspection_pb2.FlowEntry]:
        flows = controller.flows("node-1", owner=owner, table="endpoint")
        return [flow for flow in flows if "learn(" in flow.actions]

    wait_until(lambda: len(endpoints()) == 3, "three endpoints")
    group = list_groups(inspection, "node-1", owner)[0].group_id
    before = len(controller.flows("node-1", owner=owner))
    learn = re.search(r"learn\(table=(\d+),.*?cookie=(0x[0-9a-f]+)", endpoints()[0].actions)
    assert learn is not None
    table, cookie = learn.groups()
    # As the switch makes it at a client's first connection.
    learned = f"table={table},cookie={cookie},priority=100,ip,reg5={group},nw_src=10.244.0.77"
    switch.ofctl("add-flow", f"{learned},idle_timeout=600,actions=load:1->NXM_NX_REG3[]")
    mine = controller.flows("node-1", owner=owner)
    (found,) = [flow for flow in mine if flow.table == "session_affinity" and "10.244.0.77" in flow.match]
    assert (found.owner, found.feature) == (owner, "session_affinity")
    assert found.why.startswith("learned: ")
    assert len(mine) == before + 1
    (same,) = [flow for flow in controller.flows("node-1") if "10.244.0.77" in flow.match]
    assert same.owner == owner
    assert found.match in {flow.match for flow in describe(inspection, "web", node="node-1").nodes[0].flows}


@pytest.mark.parametrize(
    ("node", "owner", "code"),
    [
        ("node-99", "", grpc.StatusCode.NOT_FOUND),
        ("node-31", "", grpc.StatusCode.UNAVAILABLE),
        ("node-1", "web", grpc.StatusCode.INVALID_ARGUMENT),
        ("node-1", "a/b/c/d", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_groups_and_flows_of_what_is_not_there_are_refused(
    agent: AgentStream,
    controller: ControllerProcess,
    inspection: inspection_pb2_grpc.InspectionStub,
    node: str,
    owner: str,
    code: grpc.StatusCode,
) -> None:
    with AgentStream(controller, node_info(31)):
        with pytest.raises(grpc.RpcError) as error:
            list_groups(inspection, node, owner)
        assert error.value.code() is code
        with pytest.raises(grpc.RpcError) as error:
            controller.flows(node, owner=owner)
        assert error.value.code() is code


def destination(address: str, port: int) -> controller_pb2.Destination:
    return controller_pb2.Destination(address=address, port=port, protocol="TCP")


def test_a_service_is_described_with_all_that_is_behind_it(
    agent: AgentStream,
    controller: ControllerProcess,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    made = apply(inspection, service("web", type="LoadBalancer"))
    not_ready = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pods[2].pod_name, "namespace": "shop", "labels": {"app": "web"}},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    }
    apply(inspection, not_ready)
    spec = made["spec"]
    pod_1, pod_2 = (destination(item.addresses[0], 8080) for item in pods[:2])
    agent.connections = [
        (pod_1, destination(spec["clusterIP"], 80), 5),
        (pod_2, destination(made["status"]["loadBalancer"]["ingress"][0]["ip"], 80), 7),
        (pod_2, destination("172.30.0.1", int(spec["ports"][0]["nodePort"])), 1),
        # Of another Service with the same endpoint.
        (pod_1, destination("10.96.77.77", 80), 100),
    ]
    wait_until(
        lambda: (
            [group.bucket_count for group in list_groups(inspection, "node-1", "Service/shop/web")] == [2]
        ),
        "two ready endpoints",
    )
    told = describe(inspection, "web")
    assert (
        json_format.MessageToDict(told.service) == controller.get("Service", namespace="shop", name="web")[0]
    )
    assert [
        (one.address, one.port, one.protocol, one.target, one.ready, one.connections)
        for one in sorted(told.endpoints, key=lambda one: one.address)
    ] == [
        (item.addresses[0], 8080, "TCP", f"Pod/shop/{item.pod_name}", ready, connections)
        for item, ready, connections in zip(pods, (True, True, False), (5, 8, 0), strict=True)
    ]
    assert {(one.node, one.zone) for one in told.endpoints} == {("node-1", "a")}
    (node,) = [one for one in told.nodes if one.node == "node-1"]
    assert (node.error, node.connections) == ("", 13)
    assert {flow.owner for flow in node.flows} == {"Service/shop/web"}
    assert [group.bucket_count for group in node.groups] == [2]
    assert "AnnouncerElected" in [json_format.MessageToDict(event)["reason"] for event in told.events]
    inspection.Delete(inspection_pb2.DeleteRequest(kind="Pod", namespace="shop", name=pods[2].pod_name))


def test_a_node_that_does_not_answer_is_told_and_the_others_are_shown(
    agent: AgentStream,
    controller: ControllerProcess,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, service("web"))
    with AgentStream(controller, node_info(32)) as silent:
        silent.connections = None
        agent.connections = []
        told = {one.node: one for one in describe(inspection, "web").nodes}
        assert told["node-1"].error == ""
        assert told["node-1"].flows
        assert told["node-32"].error == (
            "the switch of Node node-32 is not connected; the agent of Node node-32 did not answer within 10 s"
        )
        (only,) = describe(inspection, "web", node="node-1").nodes
        assert only.node == "node-1"
    told = {one.node: one for one in describe(inspection, "web").nodes}
    assert told["node-32"].error == (
        "the switch of Node node-32 is not connected; the agent of Node node-32 is not connected"
    )


def test_a_service_without_addresses_is_described_too(
    agent: AgentStream,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, service("headless", clusterIP="None"))
    wait_until(lambda: len(describe(inspection, "headless").endpoints) == 3, "three endpoints")
    (node,) = describe(inspection, "headless", node="node-1").nodes
    assert not node.flows
    assert not node.groups
    apply(inspection, service("alias", type="ExternalName", externalName="a.example", ports=[]))
    assert not describe(inspection, "alias").endpoints
    dns = describe(inspection, "kube-dns", namespace="kube-system", node="node-1")
    assert {(one.address, one.port) for one in dns.endpoints if one.node == "node-1"} == {
        ("10.244.0.1", 53),
        ("fd00:10:244::1", 53),
    }


def test_what_is_not_there_cannot_be_described(
    agent: AgentStream, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    apply(inspection, service("web"))
    for name, node, says in (
        ("none", "", "Service shop/none does not exist"),
        ("web", "node-99", "Node node-99 is not registered"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            describe(inspection, name, node=node)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert error.value.details() == says
    with pytest.raises(grpc.RpcError) as error:
        describe(inspection, "")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_many_ask_at_once_and_objects_go_on_being_applied(
    agent: AgentStream,
    controller: ControllerProcess,
    pods: list[types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, service("web"))
    answers: list[int] = []

    def ask() -> None:
        stub = controller.inspection()
        answers.extend(len(describe(stub, "web", node="node-1").nodes) for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for number in range(20):
        apply(inspection, service(f"s-{number}"))
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [1] * 60


def test_services_are_there_after_a_restart_with_all_that_they_were_given() -> None:
    with ControllerProcess(load_balancer_ranges="192.0.2.0/30") as short:
        stub = short.inspection()
        for number in range(6):
            apply(stub, service(f"lb-{number}", type="LoadBalancer", externalTrafficPolicy="Local"))
        before = short.get("Service")
        short.kill()
        short.start()
        assert short.get("Service") == before
        stub = short.inspection()
        for document in before:
            assert apply(stub, document) == document
