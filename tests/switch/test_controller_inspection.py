# SPDX-License-Identifier: Apache-2.0
"""What people ask of a running controller: objects, watches, switches, flows, versions."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from sdn.version import VERSION
from tests.switch.controller_process import (
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    lenient_controller,
    node_info,
)
from tests.switch.ovs import PrivateSwitch, running_switch

controller = pytest.fixture(scope="module")(lenient_controller)
switch = pytest.fixture(scope="module")(running_switch)

Outcome = inspection_pb2.ApplyResponse
Event = inspection_pb2.WatchEvent


@pytest.fixture(scope="module")
def agent(controller: ControllerProcess, switch: PrivateSwitch) -> Iterator[AgentStream]:
    with AgentStream(controller, node_info(1, labels={"zone": "a", "rack": "1"})) as stream:
        connect_switch(switch, controller, stream.node.datapath_id)
        assert stream.answer(stream.full_state()) is None
        yield stream


@pytest.fixture
def inspection(controller: ControllerProcess) -> inspection_pb2_grpc.InspectionStub:
    return controller.inspection()


def struct(document: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(document, struct_pb2.Struct())


def pod(name: str, **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", **parts.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **parts}


def apply(stub: inspection_pb2_grpc.InspectionStub, document: dict[str, Any], dry_run: bool = False) -> int:
    return stub.Apply(inspection_pb2.ApplyRequest(object=struct(document), dry_run=dry_run)).outcome


def delete(stub: inspection_pb2_grpc.InspectionStub, kind: str, name: str, namespace: str = "") -> None:
    stub.Delete(inspection_pb2.DeleteRequest(kind=kind, namespace=namespace, name=name))


class Watching:
    """A watch that runs beside the test."""

    def __init__(self, controller: ControllerProcess, **request: str) -> None:
        self.events: queue.Queue[tuple[int, str]] = queue.Queue()
        self._call = controller.inspection().Watch(inspection_pb2.WatchRequest(**request))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._call:
                name = event.object["metadata"]["name"] if event.HasField("object") else ""
                self.events.put((event.type, name))
        except grpc.RpcError:
            return

    def next(self) -> tuple[int, str]:
        return self.events.get(timeout=60)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._thread.join(60)


def test_objects_are_applied_read_back_and_deleted(
    controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    document = pod(
        "web",
        metadata={"labels": {"app": "web"}},
        spec={"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
    )
    assert apply(inspection, document, dry_run=True) == Outcome.OUTCOME_CREATED
    assert controller.get("Pod", namespace="shop") == []
    assert apply(inspection, document) == Outcome.OUTCOME_CREATED
    assert apply(inspection, document) == Outcome.OUTCOME_UNCHANGED
    (found,) = controller.get("Pod", namespace="shop", name="web")
    assert found["spec"]["containers"] == document["spec"]["containers"]
    assert found["status"]["phase"] == "Pending"
    # What get printed can be applied again, and is what was applied.
    assert apply(inspection, found) == Outcome.OUTCOME_UNCHANGED
    document["metadata"]["labels"] = {"app": "db"}
    assert apply(inspection, document) == Outcome.OUTCOME_CONFIGURED
    assert controller.get("Pod", label_selector="app=web") == []
    assert len(controller.get("Pod", label_selector="app in (db),tier!=x")) == 1
    delete(inspection, "Pod", "web", "shop")
    with pytest.raises(grpc.RpcError) as error:
        delete(inspection, "Pod", "web", "shop")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error.value.details() == "Pod shop/web does not exist"


def test_a_declared_pods_labels_win_and_its_status_is_what_is(
    agent: AgentStream, controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    plugged = attachment(agent.node, 1, pod_namespace="shop", pod_name="cart", labels={"from": "cni"})
    assert agent.answer(agent.attach(plugged)) is None
    (found,) = controller.get("Pod", namespace="shop", name="cart")
    assert found["metadata"]["labels"] == {"from": "cni"}
    assert apply(inspection, pod("cart", metadata={"labels": {"app": "cart"}})) == Outcome.OUTCOME_CREATED
    (found,) = controller.get("Pod", namespace="shop", name="cart")
    assert found["metadata"]["labels"] == {"app": "cart"}
    assert found["metadata"]["uid"] == "node-1-pod-1"
    assert found["spec"]["nodeName"] == "node-1"
    status = found["status"]
    assert status["phase"] == "Running"
    assert status["podIP"] == "10.244.0.3"
    assert [item["ip"] for item in status["podIPs"]] == ["10.244.0.3", "fd00:10:244::3"]
    assert status["hostIP"] == "172.30.0.1"
    assert status["attachments"][0]["ofport"] == 17
    # The declaration goes, the attachment stays; and what is only attached cannot be deleted here.
    delete(inspection, "Pod", "cart", "shop")
    assert controller.get("Pod", namespace="shop", name="cart")[0]["metadata"]["labels"] == {"from": "cni"}
    with pytest.raises(grpc.RpcError) as error:
        delete(inspection, "Pod", "cart", "shop")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert agent.answer(agent.full_state()) is None
    assert controller.get("Pod", namespace="shop") == []


def test_a_node_shows_its_registration_and_its_declared_labels(
    agent: AgentStream, controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    declared = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"zone": "b"}}}
    assert apply(inspection, declared) == Outcome.OUTCOME_CREATED
    controller.wait_synchronized("node-1")
    (node,) = controller.get("Node", name="node-1")
    assert node["metadata"]["labels"] == {"zone": "b", "rack": "1"}
    assert node["spec"]["podCIDRs"] == ["10.244.0.0/24", "fd00:10:244::/64"]
    assert [a["address"] for a in node["status"]["addresses"]] == ["172.30.0.1", "fd00:30::1"]
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions == dict.fromkeys(
        ("Registered", "AgentConnected", "SwitchConnected", "SwitchSynchronized"), "True"
    )
    # Ranges that it does not have cannot be declared any more.
    with pytest.raises(grpc.RpcError) as error:
        apply(inspection, {**declared, "spec": {"podCIDRs": ["10.244.9.0/24"]}})
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "Node node-1: spec.podCIDRs" in error.value.details()


def test_declared_ranges_are_kept_for_their_node(
    controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    spec = {"podCIDRs": ["10.244.1.0/24"]}
    apply(inspection, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-20"}, "spec": spec})
    with AgentStream(controller, node_info(21)) as other:
        assert "10.244.1.0/24" not in other.node.pod_ranges
    with AgentStream(controller, node_info(20)) as meant:
        assert meant.node.pod_ranges[0] == "10.244.1.0/24"


def test_namespaces_are_those_declared_and_those_in_use(
    agent: AgentStream, controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    declared = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "empty", "labels": {"team": "x"}},
    }
    apply(inspection, declared)
    used = attachment(agent.node, 2, pod_namespace="used")
    assert agent.answer(agent.attach(used)) is None
    found = {namespace["metadata"]["name"]: namespace for namespace in controller.get("Namespace")}
    assert {"default", "empty", "used"} <= found.keys()
    assert found["empty"]["metadata"]["labels"] == {"team": "x", "kubernetes.io/metadata.name": "empty"}
    assert agent.answer(agent.full_state()) is None
    assert "used" not in {namespace["metadata"]["name"] for namespace in controller.get("Namespace")}


def test_what_was_applied_is_there_after_a_restart() -> None:
    with ControllerProcess() as short:
        apply(short.inspection(), pod("web", metadata={"labels": {"app": "web"}}))
        before = short.get("Pod")
        short.kill()
        short.start()
        assert short.get("Pod") == before


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "kind: must be one of"),
        ({"kind": "Secret", "apiVersion": "v1"}, "kind: 'Secret' is not known here"),
        ({"kind": "Event", "apiVersion": "v1"}, "kind: 'Event' is not known here"),
        (pod("web", metadata={"labels": {"a b": "c"}}), 'Pod shop/web: metadata.labels["a b"]'),
        (pod("web", metadata={"labels": {"a": 1}}), 'Pod shop/web: metadata.labels["a"]: must be text'),
        (pod("Web"), "Pod shop/Web: metadata.name"),
    ],
)
def test_a_wrong_object_is_refused_with_its_path(
    inspection: inspection_pb2_grpc.InspectionStub, document: dict[str, Any], says: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        apply(inspection, document)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.value.details()


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"kind": "pods"}, grpc.StatusCode.INVALID_ARGUMENT, "kind: 'pods' is not known here"),
        ({"kind": "Pod", "label_selector": "a in b"}, grpc.StatusCode.INVALID_ARGUMENT, "label_selector"),
        (
            {"kind": "Node", "namespace": "x"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "a Node belongs to no namespace",
        ),
        ({"kind": "Pod", "name": "none"}, grpc.StatusCode.NOT_FOUND, "Pod default/none does not exist"),
    ],
)
def test_a_wrong_question_is_refused(
    inspection: inspection_pb2_grpc.InspectionStub, fields: dict[str, str], code: grpc.StatusCode, says: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        inspection.Get(inspection_pb2.GetRequest(**fields))
    assert error.value.code() is code
    assert says in error.value.details()
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        with pytest.raises(grpc.RpcError) as error:
            list(inspection.Watch(inspection_pb2.WatchRequest(**fields), timeout=60))
        assert error.value.code() is code


def test_a_watch_tells_what_is_then_a_bookmark_then_what_changes(
    agent: AgentStream, controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    apply(inspection, pod("a", metadata={"labels": {"app": "web"}}))
    apply(inspection, pod("b", metadata={"labels": {"app": "db"}}))
    with (
        Watching(controller, kind="Pod", namespace="shop") as everything,
        Watching(controller, kind="Pod", label_selector="app=web") as web,
        Watching(controller, kind="Pod", namespace="shop", name="c") as one,
    ):
        assert [everything.next() for _ in range(3)] == [
            (Event.TYPE_ADDED, "a"),
            (Event.TYPE_ADDED, "b"),
            (Event.TYPE_BOOKMARK, ""),
        ]
        assert [web.next() for _ in range(2)] == [(Event.TYPE_ADDED, "a"), (Event.TYPE_BOOKMARK, "")]
        assert one.next() == (Event.TYPE_BOOKMARK, "")
        # Into the selection by its labels, and out of it.
        apply(inspection, pod("b", metadata={"labels": {"app": "web"}}))
        assert everything.next() == (Event.TYPE_MODIFIED, "b")
        assert web.next() == (Event.TYPE_ADDED, "b")
        apply(inspection, pod("a"))
        assert everything.next() == (Event.TYPE_MODIFIED, "a")
        assert web.next() == (Event.TYPE_DELETED, "a")
        delete(inspection, "Pod", "a", "shop")
        assert everything.next() == (Event.TYPE_DELETED, "a")
        delete(inspection, "Pod", "b", "shop")
        assert everything.next() == (Event.TYPE_DELETED, "b")
        assert web.next() == (Event.TYPE_DELETED, "b")
        # An attachment is a change of its pod: stored, then programmed; and its end is one, too.
        plugged = attachment(agent.node, 3, pod_namespace="shop", pod_name="c")
        assert agent.answer(agent.attach(plugged)) is None
        assert one.next() == (Event.TYPE_ADDED, "c")
        assert one.next() == (Event.TYPE_MODIFIED, "c")
        assert agent.answer(agent.detach(plugged)) is None
        assert one.next() == (Event.TYPE_DELETED, "c")


def test_a_watch_of_nodes_sees_their_agents_and_switches(controller: ControllerProcess) -> None:
    with Watching(controller, kind="Node", name="node-30") as watch:
        assert watch.next() == (Event.TYPE_BOOKMARK, "")
        with AgentStream(controller, node_info(30)):
            assert watch.next() == (Event.TYPE_ADDED, "node-30")
            assert watch.next() == (Event.TYPE_MODIFIED, "node-30")
        assert watch.next() == (Event.TYPE_MODIFIED, "node-30")


def test_flows_are_listed_with_table_owner_and_counters(
    agent: AgentStream, switch: PrivateSwitch, controller: ControllerProcess
) -> None:
    pods = [attachment(agent.node, number) for number in (4, 5)]
    for item in pods:
        assert agent.answer(agent.attach(item)) is None
    switch.ofctl("add-flow", "table=0,priority=1,in_port=77,actions=drop")
    flows = controller.flows("node-1")
    assert len(flows) == len(switch.dump_flows())
    mine = controller.flows("node-1", owner="Pod/default/node-1-web-4")
    assert mine
    assert {flow.owner for flow in mine} == {"Pod/default/node-1-web-4"}
    assert all(flow.why and flow.feature and flow.duration_seconds >= 0 for flow in mine)
    assert {flow.table for flow in controller.flows("node-1", table="delivery")} == {"delivery"}
    (foreign,) = [flow for flow in flows if not flow.owner]
    assert (foreign.match, foreign.actions, foreign.why) == ("in_port=77", "drop", "")
    printed = {line.partition("priority=")[2].partition(" actions=")[2] for line in switch.dump_flows()}
    assert {flow.actions for flow in flows} <= printed | {"drop"}
    switch.ofctl("del-flows", "table=0,in_port=77")
    assert agent.answer(agent.full_state()) is None


def test_flows_of_what_is_not_there_are_refused(
    agent: AgentStream, controller: ControllerProcess, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    with AgentStream(controller, node_info(31)):
        for node, table, code in (
            ("node-99", "", grpc.StatusCode.NOT_FOUND),
            ("node-1", "no-such-table", grpc.StatusCode.INVALID_ARGUMENT),
            ("node-31", "", grpc.StatusCode.UNAVAILABLE),
        ):
            with pytest.raises(grpc.RpcError) as error:
                list(inspection.ListFlows(inspection_pb2.ListFlowsRequest(node=node, table=table)))
            assert error.value.code() is code
            assert (table or node) in error.value.details()


def test_switches_are_listed_as_they_stand(agent: AgentStream, controller: ControllerProcess) -> None:
    controller.wait_synchronized("node-1")
    status = controller.switch("node-1")
    assert status.connected
    assert status.address.startswith("127.0.0.1:")
    assert status.datapath_id == agent.node.datapath_id
    assert status.desired_flows == status.installed_flows > 0
    assert status.connected_since.seconds > 0
    assert status.synchronized_at.seconds >= status.connected_since.seconds
    assert status.last_error == ""


def test_health_reflection_version_and_log_level(controller: ControllerProcess) -> None:
    channel = controller.channel()
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "sdn.v1.Controller", "sdn.v1.Inspection"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"sdn.v1.Controller", "sdn.v1.Inspection", "sdn.v1.Daemon", "grpc.health.v1.Health"} <= set(
        services
    )
    daemon = inspection_pb2_grpc.DaemonStub(channel)
    version = daemon.GetVersion(inspection_pb2.GetVersionRequest())
    assert (version.name, version.version) == ("sdn-controller", VERSION)
    assert daemon.SetLogLevel(inspection_pb2.SetLogLevelRequest(level="info")).previous == "debug"
    assert daemon.SetLogLevel(inspection_pb2.SetLogLevelRequest(level="debug")).previous == "info"
    with pytest.raises(grpc.RpcError) as error:
        daemon.SetLogLevel(inspection_pb2.SetLogLevelRequest(level="loud"))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "debug, info, warning" in error.value.details()


def test_the_unix_socket_serves_the_same(controller: ControllerProcess) -> None:
    path = controller.folder / "controller.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = inspection_pb2_grpc.InspectionStub(channel)
        assert stub.Get(inspection_pb2.GetRequest(kind="Namespace")).objects


def test_a_watcher_that_does_not_read_holds_up_nobody() -> None:
    with ControllerProcess() as busy:
        stub = busy.inspection()
        slow = stub.Watch(inspection_pb2.WatchRequest(kind="Pod"))
        labels = {f"key-{number}": "v" * 60 for number in range(60)}
        for round_ in range(3):
            for number in range(300):
                document = pod(f"p-{number}", metadata={"labels": {**labels, "round": str(round_)}})
                apply(stub, document)
        assert len(busy.get("Pod")) == 300
        slow.cancel()
