# SPDX-License-Identifier: Apache-2.0
"""What people ask of a running controller about policies: descriptions with counters of real packets, and checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from os_ken.lib.packet import ethernet, ipv4, ipv6, packet, udp

from sdn.pipeline.registers import GATEWAY_MAC
from sdn.v1 import inspection_pb2, inspection_pb2_grpc, types_pb2
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

POLICY_KINDS = ("NetworkPolicy", "ClusterNetworkPolicy")
WEB, CLIENT, STRANGER = 1, 2, 3
NAMES = {WEB: "web", CLIENT: "client", STRANGER: "stranger"}
FROM_CLIENTS = {
    "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
    "ports": [{"protocol": "UDP", "port": 80}],
}
ALL = {"namespaces": {}}


@pytest.fixture(scope="module")
def controller() -> Iterator[ControllerProcess]:
    with ControllerProcess() as running:
        yield running


@pytest.fixture(scope="module")
def agent(controller: ControllerProcess, switch: PrivateSwitch) -> Iterator[AgentStream]:
    for number in NAMES:
        switch.add_port(f"p{number}", 16 + number)
    with AgentStream(controller, node_info(1)) as stream:
        connect_switch(switch, controller, stream.node.datapath_id)
        assert stream.answer(stream.full_state()) is None
        yield stream


@pytest.fixture(scope="module")
def pods(agent: AgentStream) -> dict[int, types_pb2.Attachment]:
    """Pods of the namespace shop, labelled with their names."""
    made = {
        number: attachment(agent.node, number, pod_namespace="shop", pod_name=name, labels={"app": name})
        for number, name in NAMES.items()
    }
    for item in made.values():
        assert agent.answer(agent.attach(item)) is None
    return made


@pytest.fixture
def inspection(controller: ControllerProcess) -> Iterator[inspection_pb2_grpc.InspectionStub]:
    stub = controller.inspection()
    yield stub
    for kind in POLICY_KINDS:
        for document in controller.get(kind):
            metadata = document["metadata"]
            request = inspection_pb2.DeleteRequest(
                kind=kind, namespace=metadata.get("namespace", ""), name=metadata["name"]
            )
            stub.Delete(request, timeout=PATIENCE)


def network_policy(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy for the pod web."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations or {}},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, **spec},
    }


def cluster_policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": 5, "subject": ALL, **spec},
    }


def apply(
    stub: inspection_pb2_grpc.InspectionStub, controller: ControllerProcess, *documents: dict[str, Any]
) -> None:
    """Declare them, and wait until the switch holds what they mean."""
    for document in documents:
        struct = json_format.ParseDict(document, struct_pb2.Struct())
        stub.Apply(inspection_pb2.ApplyRequest(object=struct), timeout=PATIENCE)
    controller.wait_synchronized("node-1")


def describe(
    stub: inspection_pb2_grpc.InspectionStub, name: str, kind: str = "NetworkPolicy", node: str = ""
) -> inspection_pb2.DescribePolicyResponse:
    namespace = "shop" if kind == "NetworkPolicy" else ""
    request = inspection_pb2.DescribePolicyRequest(kind=kind, namespace=namespace, name=name, node=node)
    return stub.DescribePolicy(request, timeout=PATIENCE)


def send(
    switch: PrivateSwitch,
    pods: dict[int, types_pb2.Attachment],
    source: int,
    destination: int,
    ports: tuple[int, int],
    version: int = 4,
) -> None:
    """A datagram from a pod's port of the switch to another pod; ``ports``: from which, to which."""
    sender, receiver = pods[source], pods[destination]
    addresses = [item.addresses[version == 6] for item in (sender, receiver)]
    gateway = ":".join(f"{GATEWAY_MAC >> shift & 255:02x}" for shift in range(40, -8, -8))
    built = packet.Packet()
    if version == 4:
        built.add_protocol(ethernet.ethernet(gateway, sender.mac, 0x0800))
        built.add_protocol(ipv4.ipv4(src=addresses[0], dst=addresses[1], proto=17))
    else:
        built.add_protocol(ethernet.ethernet(gateway, sender.mac, 0x86DD))
        built.add_protocol(ipv6.ipv6(src=addresses[0], dst=addresses[1], nxt=17))
    built.add_protocol(udp.udp(*ports))
    built.add_protocol(b"hello")
    built.serialize()
    switch.appctl("netdev-dummy/receive", f"p{source}", bytes(built.data).hex())


def counts(count: inspection_pb2.PolicyCount) -> tuple[int, int]:
    return count.connections, count.packets


def test_what_a_rule_allows_and_what_isolation_denies_is_counted(
    switch: PrivateSwitch,
    controller: ControllerProcess,
    pods: dict[int, types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, controller, network_policy("web", ingress=[FROM_CLIENTS]))
    for version in (4, 6):
        # Two connections, of which one is answered and goes on.
        send(switch, pods, CLIENT, WEB, (30000, 80), version)
        send(switch, pods, CLIENT, WEB, (30001, 80), version)
        send(switch, pods, WEB, CLIENT, (80, 30000), version)
        send(switch, pods, CLIENT, WEB, (30000, 80), version)
        send(switch, pods, CLIENT, WEB, (30000, 80), version)
        # To another port, and from somebody else.
        send(switch, pods, CLIENT, WEB, (30002, 81), version)
        send(switch, pods, STRANGER, WEB, (30000, 80), version)
        send(switch, pods, STRANGER, WEB, (30001, 80), version)

    def counted() -> bool:
        told = describe(inspection, "web")
        return counts(told.rules[0].count) == (4, 8) and counts(told.isolation[0].denied) == (6, 6)

    wait_until(counted, "eight packets of four connections, and six that are denied")
    told = describe(inspection, "web")
    assert told.rules[0].count.bytes >= 8 * 47
    assert (told.isolation[0].direction, told.isolation[0].shared_total) == ("ingress", 0)
    assert (told.pods[0].name, told.pods[0].isolating_ingress, told.pods[0].isolating_egress) == ("web", 1, 0)
    assert [pod.name for pod in told.rules[0].pods] == ["client"]
    (node,) = told.nodes
    assert (node.node, node.error, node.pods) == ("node-1", "", 1)
    assert len(node.flows) == node.flow_total
    assert [flow.owner for flow in node.flows[:6]] == ["NetworkPolicy/shop/web"] * 6
    assert [flow.why for flow in node.flows[:2]] == ["ingress[0]: accept"] * 2
    assert {flow.owner for flow in node.flows[6:]} == {"Pod/shop/web", "Pod/shop/client"}
    assert {flow.table for flow in node.flows} == {"ingress_policy"}
    listed = {(flow.match, flow.actions) for flow in controller.flows("node-1", table="ingress_policy")}
    assert {(flow.match, flow.actions) for flow in node.flows} <= listed


def test_rules_that_say_the_same_and_policies_that_isolate_together_share_counters(
    switch: PrivateSwitch,
    controller: ControllerProcess,
    pods: dict[int, types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(
        inspection,
        controller,
        network_policy("a", ingress=[FROM_CLIENTS]),
        network_policy("b", ingress=[FROM_CLIENTS]),
        network_policy("c"),
    )
    send(switch, pods, CLIENT, WEB, (31000, 80))
    send(switch, pods, STRANGER, WEB, (31000, 80))
    for name, other in (("a", "b"), ("b", "a")):
        wait_until(
            lambda name=name: counts(describe(inspection, name).rules[0].count) == (1, 1),  # type: ignore[misc]
            f"one packet that {name} allows",
        )
        told = describe(inspection, name)
        (rule,) = told.rules
        assert (rule.shared_total, list(rule.shared_with)) == (1, [f"NetworkPolicy/shop/{other}"])
    for name in ("a", "b", "c"):
        told = describe(inspection, name)
        assert counts(told.isolation[0].denied) == (1, 1)
        assert told.isolation[0].shared_total == 2
        assert told.pods[0].isolating_ingress == 3
    assert not describe(inspection, "c").rules


def test_a_staged_policy_counts_what_it_would_say(
    switch: PrivateSwitch,
    controller: ControllerProcess,
    pods: dict[int, types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, controller, network_policy("later", {"sdn/staged": "true"}, ingress=[FROM_CLIENTS]))
    send(switch, pods, CLIENT, WEB, (32000, 80))
    send(switch, pods, STRANGER, WEB, (32000, 80))
    send(switch, pods, STRANGER, WEB, (32001, 80))

    def counted() -> bool:
        told = describe(inspection, "later")
        return counts(told.rules[0].count) == (1, 1) and counts(told.isolation[0].denied) == (2, 2)

    wait_until(counted, "what would be allowed, and what would be denied")
    told = describe(inspection, "later")
    assert (told.staged, told.pods[0].isolating_ingress) == (True, 0)


def test_rules_of_the_cluster_are_counted_by_their_action(
    switch: PrivateSwitch,
    controller: ControllerProcess,
    pods: dict[int, types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    stranger = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "stranger"}}}}
    apply(
        inspection,
        controller,
        cluster_policy(
            "strangers",
            ingress=[
                {"name": "away", "action": "Deny", "from": [stranger]},
                {"action": "Pass", "from": [ALL]},
            ],
        ),
    )
    send(switch, pods, STRANGER, WEB, (33000, 80))
    send(switch, pods, CLIENT, WEB, (33000, 80))

    def counted() -> bool:
        rules = describe(inspection, "strangers", "ClusterNetworkPolicy").rules
        return [counts(rule.count) for rule in rules] == [(1, 1), (1, 1)]

    wait_until(counted, "one that is denied and one that is passed on")
    told = describe(inspection, "strangers", "ClusterNetworkPolicy", node="node-1")
    assert [(rule.rule, rule.action) for rule in told.rules] == [
        ("ingress[0] (away)", "deny"),
        ("ingress[1]", "pass"),
    ]
    assert (told.tier, told.pod_total, list(told.isolation)) == ("Admin", 3, [])


def test_a_node_whose_switch_is_away_is_told_and_the_others_are_counted(
    controller: ControllerProcess,
    agent: AgentStream,
    pods: dict[int, types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, controller, network_policy("web", ingress=[FROM_CLIENTS]))
    with AgentStream(controller, node_info(31)) as away:
        item = attachment(away.node, 1, pod_namespace="shop", pod_name="web-2", labels={"app": "web"})
        away.attach(item)
        wait_until(lambda: describe(inspection, "web").pod_total == 2, "the second pod")
        told = {one.node: one for one in describe(inspection, "web").nodes}
        assert told["node-31"].error == "the switch of Node node-31 is not connected"
        assert (told["node-1"].error, told["node-1"].flow_total > 0) == ("", True)
        (only,) = describe(inspection, "web", node="node-1").nodes
        assert only.node == "node-1"
        away.full_state()
        wait_until(lambda: describe(inspection, "web").pod_total == 1, "the second pod to be gone")


def test_what_is_not_there_is_refused(
    agent: AgentStream, inspection: inspection_pb2_grpc.InspectionStub
) -> None:
    for kind, name, code in (
        ("NetworkPolicy", "none", grpc.StatusCode.NOT_FOUND),
        ("ClusterNetworkPolicy", "none", grpc.StatusCode.NOT_FOUND),
        ("Service", "none", grpc.StatusCode.INVALID_ARGUMENT),
        ("NetworkPolicy", "", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            describe(inspection, name, kind)
        assert error.value.code() is code
    for source, code in (
        ("nobody", grpc.StatusCode.NOT_FOUND),
        ("a/b/c", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            request = inspection_pb2.CheckPolicyRequest(source=source, destination="10.0.0.1", port=1)
            inspection.CheckPolicy(request, timeout=PATIENCE)
        assert error.value.code() is code


def test_a_check_says_what_the_switch_does(
    controller: ControllerProcess,
    pods: dict[int, types_pb2.Attachment],
    inspection: inspection_pb2_grpc.InspectionStub,
) -> None:
    apply(inspection, controller, network_policy("web", ingress=[FROM_CLIENTS]))
    for source, port, allowed in (("client", 80, True), ("client", 81, False), ("stranger", 80, False)):
        request = inspection_pb2.CheckPolicyRequest(
            source=source, destination="web", namespace="shop", protocol="udp", port=port
        )
        answer = inspection.CheckPolicy(request, timeout=PATIENCE)
        assert [(one.family, one.allowed) for one in answer.verdicts] == [
            ("IPv4", allowed),
            ("IPv6", allowed),
        ]
