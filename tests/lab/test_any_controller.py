# SPDX-License-Identifier: Apache-2.0
"""Of three controllers any may be asked: of nodes whose switch another one owns, too, it says what the owner knows."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from sdn.lab import faults, partitions
from sdn.lab.lab import Lab
from sdn.lab.waiting import wait_until
from sdn.v1 import inspection_pb2, inspection_pb2_grpc, types_pb2
from tests.lab import accounts, labs, service_objects, traffic

CONTROLLERS = ("controller-1", "controller-2", "controller-3")
NODES = ("node-1", "node-2")
DENIED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "nobody", "namespace": "default", "annotations": {"sdn/audit": "deny"}},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running("any", nodes=2, controllers=3, store="etcd") as found:
        for number, node in enumerate(NODES, 1):
            found.pod_add(f"web-{number}", "default", node=node)
        yield found


def conditions(document: Mapping[str, Any]) -> dict[str, bool]:
    return {one["type"]: one["status"] == "True" for one in document["status"]["conditions"]}


def nodes(lab: Lab, controller: str) -> dict[str, dict[str, bool]]:
    """The conditions of each node, as a controller shows them."""
    found = accounts.objects(lab, "Node", controller)
    return {document["metadata"]["name"]: conditions(document) for document in found}


def wait_all_well(lab: Lab) -> None:
    well = dict.fromkeys(("Registered", "AgentConnected", "SwitchConnected", "SwitchSynchronized"), True)

    shown: dict[str, dict[str, dict[str, bool]]] = {}

    def all_well() -> bool:
        shown.clear()
        shown.update({name: nodes(lab, name) for name in lab.serving()})
        return all(found == dict.fromkeys(NODES, well) for found in shown.values())

    wait_until(all_well, "every controller to show that all nodes are well", 120, because=lambda: f"{shown}")


class Shown(threading.Thread):
    """What a controller tells of nodes, as it comes."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(daemon=True)
        self._call = inspection_pb2_grpc.InspectionStub(channel).Watch(
            inspection_pb2.WatchRequest(kind="Node"), timeout=120
        )
        self.nodes: dict[str, dict[str, bool]] = {}
        self.start()

    def run(self) -> None:
        try:
            for event in self._call:
                if event.HasField("object"):
                    document = json_format.MessageToDict(event.object)
                    self.nodes[document["metadata"]["name"]] = conditions(document)
        except grpc.RpcError:
            return  # cancelled

    def close(self) -> None:
        self._call.cancel()
        self.join()


def test_every_controller_shows_all_nodes_as_their_owners_do_and_tells_when_that_changes(lab: Lab) -> None:
    wait_all_well(lab)
    with ExitStack() as stack:
        watches = []
        for name in CONTROLLERS:
            watches.append(Shown(stack.enter_context(grpc.insecure_channel(lab.server_of(name)))))
            stack.callback(watches[-1].close)

        def told(connected: bool) -> bool:
            return all(
                shown.nodes.get("node-1", {}).get("AgentConnected") == connected
                and shown.nodes.get("node-2", {}).get("AgentConnected") is True
                for shown in watches
            )

        wait_until(lambda: told(True), "every controller to tell of all nodes", 30)
        lab.stop("node-1/agent")
        try:
            wait_until(lambda: told(False), "every controller to tell that the agent is gone", 30)
        finally:
            lab.start("node-1/agent")
        wait_until(lambda: told(True), "every controller to tell that the agent is back", 30)


def test_a_node_whose_agent_is_connected_is_deleted_by_no_controller(lab: Lab) -> None:
    wait_all_well(lab)
    for name in CONTROLLERS:
        with grpc.insecure_channel(lab.server_of(name)) as channel, pytest.raises(grpc.RpcError) as error:
            inspection_pb2_grpc.InspectionStub(channel).Delete(
                inspection_pb2.DeleteRequest(kind="Node", name="node-1"), timeout=10
            )
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "its agent is connected" in error.value.details()


class Verdicts(threading.Thread):
    """The pods that packets were denied to, as a controller tells it."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(daemon=True)
        self._call = inspection_pb2_grpc.InspectionStub(channel).WatchVerdicts(
            inspection_pb2.WatchVerdictsRequest(follow=True), timeout=120
        )
        self.records: list[types_pb2.VerdictRecord] = []
        self.start()

    def run(self) -> None:
        try:
            for record in self._call:
                self.records.append(record)
        except grpc.RpcError:
            return

    def close(self) -> None:
        self._call.cancel()
        self.join()


def remembered(lab: Lab, controller: str) -> list[bytes]:
    with grpc.insecure_channel(lab.server_of(controller)) as channel:
        records = inspection_pb2_grpc.InspectionStub(channel).WatchVerdicts(
            inspection_pb2.WatchVerdictsRequest(), timeout=30
        )
        return [record.SerializeToString(deterministic=True) for record in records]


def test_every_controller_tells_of_the_verdicts_on_all_switches_once_and_in_order(lab: Lab) -> None:
    service_objects.apply(lab, DENIED)
    pods = [lab.pod("web-1"), lab.pod("web-2")]
    with ExitStack() as stack:
        streams = []
        for name in CONTROLLERS:
            streams.append(Verdicts(stack.enter_context(grpc.insecure_channel(lab.server_of(name)))))
            stack.callback(streams[-1].close)

        def denied_to(name: str) -> bool:
            source, target = pods if name == "default/web-2" else pods[::-1]
            lab.run(source.name, "ping", "-c", "1", "-W", "1", target.addresses[0])
            return all(any(record.destination_pod == name for record in stream.records) for stream in streams)

        for pod in pods:
            name = f"default/{pod.name}"
            wait_until(functools.partial(denied_to, name), f"all to tell of what was denied to {name}", 60)
        told = [remembered(lab, name) for name in CONTROLLERS]
        assert told[0] == told[1] == told[2]
        assert len(set(told[0])) == len(told[0])
        times = [types_pb2.VerdictRecord.FromString(one).time.ToNanoseconds() for one in told[0]]
        assert times == sorted(times)
        for stream in streams:
            seen = [record.SerializeToString(deterministic=True) for record in stream.records]
            assert len(set(seen)) == len(seen), "each once"
    service_objects.delete(lab, "NetworkPolicy", "nobody")


def test_every_controller_counts_the_connections_on_all_nodes(lab: Lab) -> None:
    wait_all_well(lab)
    server, client = lab.pod("web-1"), lab.pod("web-2")
    service_objects.apply(
        lab,
        service_objects.service(
            "counted", [service_objects.port(80, 7777, "UDP", "one")], ipFamilyPolicy="SingleStack"
        ),
        service_objects.endpoint_slice(
            "counted",
            "IPv4",
            [{"addresses": [server.addresses[0]], "nodeName": server.node, "conditions": {"ready": True}}],
            [{"name": "one", "port": 7777, "protocol": "UDP"}],
        ),
    )
    service_objects.settle(lab)
    target = service_objects.cluster_ip(lab, "counted"), 80
    with (
        traffic.udp(client.netns, traffic.family_of(target[0])) as sender,
        traffic.udp(server.netns, traffic.family_of(server.addresses[0])) as receiver,
    ):
        sender.sendto(b"one", target)
        del receiver

        def counts() -> list[int]:
            found = []
            for name in CONTROLLERS:
                with grpc.insecure_channel(lab.server_of(name)) as channel:
                    answer = inspection_pb2_grpc.InspectionStub(channel).DescribeService(
                        inspection_pb2.DescribeServiceRequest(namespace="default", name="counted"), timeout=30
                    )
                assert [node.error for node in answer.nodes] == ["", ""]
                found.append(sum(node.connections for node in answer.nodes))
            return found

        wait_until(lambda: counts() == [1, 1, 1], "every controller to count the connection", 30)
    service_objects.delete(lab, "Service", "counted")


def test_controllers_that_were_cut_from_each_other_know_of_each_others_nodes_again(lab: Lab) -> None:
    wait_all_well(lab)
    with partitions.apart(lab, CONTROLLERS[0], *CONTROLLERS[1:]):
        time.sleep(8)  # Longer than what is sent, and not answered, keeps a connection.
    wait_all_well(lab)


def test_nodes_of_an_owner_that_dies_are_shown_by_whoever_owns_them_next(lab: Lab) -> None:
    wait_all_well(lab)
    victim = lab.switches()["node-1"].owner
    faults.kill_for_good(lab, victim)
    try:
        wait_all_well(lab)
        assert lab.switches()["node-1"].owner != victim
    finally:
        lab.start(victim)
    wait_until(lambda: set(lab.serving()) == set(CONTROLLERS), "the controller to serve again", 60)
    wait_all_well(lab)
