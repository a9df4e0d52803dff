# SPDX-License-Identifier: Apache-2.0
"""Services at a real controller with real switches: from a declaration and pods to groups and flows, and back."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc
import pytest

from controller.services.convert import to_struct
from sdn.openflow import spreads_anew
from sdn.v1 import controller_pb2, controller_pb2_grpc, inspection_pb2, types_pb2
from tests.switch.controller_process import (
    PATIENCE,
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    node_info,
)
from tests.switch.ovs import PrivateSwitch, wait_until
from tests.unit.services_engine import endpoint_slice, service


class Node:
    """A node: its agent's session and its switch, both connected."""

    def __init__(self, controller: ControllerProcess, number: int) -> None:
        self.controller = controller
        self.number = number
        self.switch = PrivateSwitch()

    def __enter__(self) -> Self:
        self.switch.start()
        self.agent = AgentStream(self.controller, node_info(self.number))
        connect_switch(self.switch, self.controller, self.agent.node.datapath_id)
        assert self.agent.answer(self.agent.full_state()) is None
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.close()
        self.switch.stop()

    def pod(self, number: int, app: str = "web") -> types_pb2.Attachment:
        return attachment(self.agent.node, number, labels={"app": app})

    def attach(self, *pods: types_pb2.Attachment) -> None:
        for sequence in [self.agent.attach(pod) for pod in pods]:
            assert self.agent.answer(sequence) is None

    def detach(self, *pods: types_pb2.Attachment) -> None:
        for sequence in [self.agent.detach(pod) for pod in pods]:
            assert self.agent.answer(sequence) is None

    def destinations(self) -> set[str]:
        """Where the switch's endpoint flows lead: "10.244.0.2:8080"."""
        found = (re.search(r"nat\(dst=([^)]*)\)", flow) for flow in self.switch.dump_flows())
        return {one[1] for one in found if one}

    def buckets(self) -> int:
        """Of all groups."""
        return self.switch.ofctl("dump-groups").count("bucket=")

    def ages(self) -> dict[str, tuple[float, str]]:
        """Each flow with its age in seconds, and its packets."""
        ages = {}
        for line in self.switch.ofctl("dump-flows").splitlines():
            found = re.search(
                r"duration=([\d.]+)s, (table=\d+), n_packets=(\d+), n_bytes=\d+, (?:idle_age=\d+, )?(.*)",
                line,
            )
            if found:
                ages[f"{found[2]} {found[4]}"] = float(found[1]), found[3]
        return ages


class Messages:
    """The OpenFlow messages that a switch is sent, from its own log."""

    def __init__(self, switch: PrivateSwitch) -> None:
        self._log = switch.folder / "ovs-vswitchd.log"
        switch.appctl("vlog/disable-rate-limit", "vconn")
        switch.appctl("vlog/set", "vconn:file:dbg")
        self._from = self._log.stat().st_size

    def _entries(self) -> list[str]:
        with self._log.open() as log:
            log.seek(self._from)
            return re.split(r"\n(?=\d{4}-)", log.read())

    def flushes(self) -> int:
        """How often the switch was told to forget connections."""
        return sum("received: NXT_CT_FLUSH" in entry for entry in self._entries())

    def bundled(self) -> list[str]:
        """What the messages in bundles since the last call were: "GROUP_MOD INSERT_BUCKET", "FLOW_MOD ADD"."""
        entries = self._entries()
        self._from = self._log.stat().st_size
        kinds = []
        for entry in entries:
            if "received: OFPT_BUNDLE_ADD_MESSAGE" not in entry:
                continue
            kind, command = re.findall(r"OFPT_(FLOW_MOD|GROUP_MOD)[^\n]*?:\s+(\w+)", entry)[0]
            kinds.append(f"{kind} {command}")
        return kinds


class Told:
    """What an agent is told by WatchServices."""

    def __init__(self, controller: ControllerProcess, node: str) -> None:
        stub = controller_pb2_grpc.ControllerStub(controller.channel())
        self._call = stub.WatchServices(controller_pb2.WatchServicesRequest(node=node))
        self.services: dict[str, controller_pb2.ServiceState] = {}
        self.updates = 0
        self.synced = False
        self.error: grpc.RpcError | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for update in self._call:
                self.updates += 1
                match update.WhichOneof("update"):
                    case "service":
                        self.services[update.service.name] = update.service
                    case "removed":
                        self.services.pop(update.removed.name, None)
                    case "synced":
                        self.synced = True
        except grpc.RpcError as error:
            self.error = error

    def wait(self, condition: Callable[[dict[str, controller_pb2.ServiceState]], bool], what: str) -> None:
        wait_until(lambda: self.error is not None or condition(self.services), what)
        assert self.error is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._reader.join(PATIENCE)


@pytest.fixture
def controller() -> Iterator[ControllerProcess]:
    with ControllerProcess(dns="false", load_balancer_ranges="192.0.2.0/24") as process:
        yield process


@pytest.fixture
def node(controller: ControllerProcess) -> Iterator[Node]:
    with Node(controller, 1) as one:
        yield one


def apply(controller: ControllerProcess, document: dict[str, Any]) -> dict[str, Any]:
    """Gives the object as it is then."""
    request = inspection_pb2.ApplyRequest(object=to_struct(document))
    controller.inspection().Apply(request, timeout=PATIENCE)
    metadata = document["metadata"]
    (found,) = controller.get(document["kind"], name=metadata["name"], namespace=metadata["namespace"])
    return found


def delete(controller: ControllerProcess, kind: str, name: str) -> None:
    request = inspection_pb2.DeleteRequest(kind=kind, namespace="default", name=name)
    controller.inspection().Delete(request, timeout=PATIENCE)


def test_a_service_is_programmed_with_its_pods_and_goes_without_a_trace(
    controller: ControllerProcess, node: Node
) -> None:
    before = len(node.switch.dump_flows())
    first, second = node.pod(1), node.pod(2)
    node.attach(first)
    addresses = apply(controller, service("web", ipFamilyPolicy="PreferDualStack"))["spec"]["clusterIPs"]
    wait_until(lambda: node.destinations() == {"10.244.0.3:8080", "[fd00:10:244::3]:8080"}, "one endpoint")
    flows = "\n".join(node.switch.dump_flows())
    assert f"nw_dst={addresses[0]}" in flows
    assert f"ipv6_dst={addresses[1]}" in flows
    node.attach(second)
    wait_until(lambda: node.buckets() == 4, "a second endpoint in each family")
    assert len(node.destinations()) == 4
    delete(controller, "Service", "web")
    wait_until(lambda: node.buckets() == 0, "the groups to go")
    node.detach(first, second)
    assert len(node.switch.dump_flows()) == before


def software() -> str:
    """The version of Open vSwitch that is installed here."""
    told = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=True)
    return told.stdout.split("\n")[0].split()[-1]


# From 5 to 63 endpoints a group has a spare bucket, which would come with the fifth; beyond, it selects by hash.
@pytest.mark.parametrize(("endpoints", "by_hash"), [(4, False), (80, True)])
def test_an_endpoint_that_comes_or_goes_is_one_message_for_its_group_and_one_flow(
    controller: ControllerProcess, node: Node, endpoints: int, by_hash: bool
) -> None:
    singly = by_hash or spreads_anew(software())
    addresses = [f"198.51.100.{number}" for number in range(1, endpoints + 1)]
    apply(controller, service("web", ipFamilies=["IPv4"]))
    apply(controller, endpoint_slice("a", "web", *addresses[:-1]))
    wait_until(lambda: node.buckets() == endpoints - 1, "the group")
    messages = Messages(node.switch)
    apply(controller, endpoint_slice("a", "web", *addresses))
    wait_until(lambda: node.buckets() == endpoints, "one more endpoint")
    changed = "GROUP_MOD INSERT_BUCKET" if singly else "GROUP_MOD MOD"
    assert sorted(messages.bundled()) == ["FLOW_MOD ADD", changed]
    apply(controller, endpoint_slice("a", "web", *addresses[1:]))
    wait_until(lambda: node.buckets() == endpoints - 1, "one endpoint less")
    changed = "GROUP_MOD REMOVE_BUCKET" if singly else "GROUP_MOD MOD"
    assert sorted(messages.bundled()) == ["FLOW_MOD DEL_STRICT", changed]


def test_a_pod_is_in_force_before_it_is_an_endpoint_and_no_endpoint_before_it_goes(
    controller: ControllerProcess, node: Node
) -> None:
    apply(controller, service("web", ipFamilies=["IPv4"]))
    pods = [node.pod(number) for number in range(1, 4)]
    with Node(controller, 2) as other:
        node.attach(*pods)
        wait_until(lambda: node.buckets() == other.buckets() == 3, "the endpoints on both nodes")
        node.detach(pods[0])
        assert "10.244.0.3:8080" not in node.destinations(), "answered when it is out of its Services"
        wait_until(lambda: other.buckets() == 2, "the endpoint to go on the other node")


def test_a_restarted_controller_touches_nothing_of_a_service(
    controller: ControllerProcess, node: Node
) -> None:
    node.attach(node.pod(1), node.pod(2))
    apply(controller, service("web"))
    apply(controller, service("sticky", sessionAffinity="ClientIP", type="NodePort"))
    apply(controller, endpoint_slice("a", "sticky", "198.51.100.1", "198.51.100.2"))
    wait_until(lambda: node.buckets() == 4, "both Services")
    groups, ages = node.switch.ofctl("dump-groups"), node.ages()
    assert len(ages) == len(node.switch.dump_flows())
    controller.kill()
    controller.start()
    controller.wait_synchronized("node-1")
    with Told(controller, "node-1") as told:
        told.wait(lambda _: told.synced, "the Services to be told")
        assert set(told.services) == {"web", "sticky"}
    assert node.switch.ofctl("dump-groups").splitlines()[1:] == groups.splitlines()[1:]
    after = node.ages()
    assert after.keys() == ages.keys()
    for flow, (age, packets) in ages.items():
        assert after[flow][0] >= age, f"added again: {flow}"
        assert after[flow][1] >= packets
    (line,) = [line for line in controller.log("switch compared") if line["node"] == "node-1"]
    assert line["differing"] == 0


def test_a_node_that_comes_later_has_all_services_before_its_switch_is_let_in(
    controller: ControllerProcess, node: Node
) -> None:
    for number in range(50):
        apply(controller, service(f"s{number}", ipFamilies=["IPv4"]))
        apply(controller, endpoint_slice(f"s{number}", f"s{number}", "198.51.100.1"))
    wait_until(lambda: node.buckets() == 50, "the Services on the first node")
    with Node(controller, 2) as later:
        assert later.buckets() == 50, "its full state is answered when they are there"


def test_agents_are_told_of_services_and_of_their_changes(controller: ControllerProcess, node: Node) -> None:
    apply(controller, service("web", type="NodePort"))
    with Told(controller, "node-1") as told:
        told.wait(lambda _: told.synced, "the Services to be told")
        web = told.services["web"]
        assert web.type == "NodePort"
        assert len(web.cluster_ips) == 1
        (port,) = web.ports
        assert (port.protocol, port.port) == ("TCP", 80)
        assert 30000 <= port.node_port <= 32767
        assert web.local_endpoints == 0
        node.attach(node.pod(1))
        told.wait(lambda services: services["web"].local_endpoints == 1, "the local endpoint")
        assert not told.services["web"].endpoints, "endpoints are told of headless Services"
        apply(controller, service("pods", clusterIP="None", selector={"app": "web"}))
        told.wait(lambda services: "pods" in services, "the headless Service")
        (endpoint,) = told.services["pods"].endpoints
        assert (endpoint.address, dict(endpoint.ports)) == ("10.244.0.3", {"": 8080})
        apply(controller, service("elsewhere", type="ExternalName", externalName="example.org"))
        told.wait(lambda services: "elsewhere" in services, "the ExternalName")
        assert told.services["elsewhere"].external_name == "example.org"
        assert not told.services["elsewhere"].cluster_ips
        delete(controller, "Service", "web")
        told.wait(lambda services: "web" not in services, "the removal")


def test_what_is_the_same_for_a_node_is_not_told_again(controller: ControllerProcess, node: Node) -> None:
    apply(controller, service("web"))
    apply(controller, service("last"))
    with Told(controller, "node-1") as told:
        told.wait(lambda _: told.synced, "the Services to be told")
        before = told.updates
        apply(controller, endpoint_slice("a", "web", "198.51.100.1"))
        wait_until(lambda: node.buckets() == 1, "the endpoint in the switch")
        delete(controller, "Service", "last")
        told.wait(lambda services: "last" not in services, "the removal")
        assert told.updates == before + 1, "an endpoint elsewhere is nothing to the node's agent"


def test_services_of_an_unknown_node_are_refused(controller: ControllerProcess) -> None:
    with Told(controller, "nowhere") as told:
        wait_until(lambda: told.error is not None, "the refusal")
        assert told.error is not None
        assert told.error.code() is grpc.StatusCode.NOT_FOUND


def test_one_node_announces_and_another_one_when_it_goes(controller: ControllerProcess, node: Node) -> None:
    apply(controller, service("web", type="LoadBalancer"))
    with (
        Node(controller, 2) as other,
        Told(controller, "node-1") as first,
        Told(controller, "node-2") as second,
    ):
        both = (first, second)
        for told in both:
            told.wait(lambda _, told=told: told.synced, "the Services to be told")  # type: ignore[misc]

        def announcers() -> list[int]:
            return [n for n, told in enumerate(both) if told.services["web"].announce]

        assert list(first.services["web"].load_balancer_ips) == ["192.0.2.0"]
        wait_until(lambda: len(announcers()) == 1, "one node to announce")
        (chosen,) = announcers()
        nodes = (node, other)
        nodes[chosen].agent.close()
        wait_until(lambda: announcers() == [1 - chosen], "the other node to announce")
        events = [
            event["reason"] for event in controller.get("Event") if event["involvedObject"]["name"] == "web"
        ]
        assert "AnnouncerElected" in events


def test_with_external_traffic_policy_local_a_node_with_endpoints_announces(
    controller: ControllerProcess, node: Node
) -> None:
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    health = apply(controller, service("web", **spec))["spec"]["healthCheckNodePort"]
    with (
        Node(controller, 2) as other,
        Told(controller, "node-1") as first,
        Told(controller, "node-2") as second,
    ):
        first.wait(lambda _: first.synced, "the Services to be told")
        second.wait(lambda _: second.synced, "the Services to be told")
        assert first.services["web"].health_check_node_port == health
        assert first.services["web"].external_local
        assert not first.services["web"].announce
        assert not second.services["web"].announce
        for one, told in ((node, first), (other, second)):
            pod = one.pod(1)
            one.attach(pod)
            told.wait(lambda services: services["web"].announce, "the node with the endpoint to announce")
            one.detach(pod)
            told.wait(lambda services: not services["web"].announce, "nobody to announce")


def test_a_controller_that_ends_lets_go_of_those_who_watch(controller: ControllerProcess, node: Node) -> None:
    apply(controller, service("web"))
    with Told(controller, "node-1") as told:
        told.wait(lambda _: told.synced, "the Services to be told")
        assert controller.terminate() == 0
        wait_until(lambda: told.error is not None, "the watch to end")
        assert not [line for line in controller.log() if line["level"] == "error"]
    controller.start()
    with Told(controller, "node-1") as told:
        told.wait(lambda services: "web" in services, "the Services to be told again")


def test_a_pod_that_is_gone_is_forgotten_by_every_switch(controller: ControllerProcess, node: Node) -> None:
    apply(controller, service("web", ipFamilies=["IPv4"]))
    with Node(controller, 2) as other:
        pod = node.pod(1)
        node.attach(pod)
        wait_until(lambda: other.buckets() == 1, "the endpoint on the other node")
        sent = [Messages(one.switch) for one in (node, other)]
        node.detach(pod)
        for messages in sent:
            wait_until(lambda messages=messages: messages.flushes() > 0, "connections to it to be cut")  # type: ignore[misc]
