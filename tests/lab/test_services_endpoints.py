# SPDX-License-Identifier: Apache-2.0
"""Which endpoints a Service has: readiness, termination, topology, policies, slices made by hand, none at all."""

from collections.abc import Iterator

import grpc
import pytest

from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import service_objects as objects
from tests.lab.service_lab import EACH, FAMILIES, MANY, TRANSPORTS, ServiceLab, serving
from tests.lab.service_sockets import Listener

ZONES = {"node-1": "a", "node-2": "a", "node-3": "b"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("endpoints") as found:
        found.declare(
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": node, "labels": {"topology.kubernetes.io/zone": zone}},
                }
                for node, zone in ZONES.items()
            )
        )
        yield found


@pytest.fixture(autouse=True)
def all_ready(cluster: ServiceLab) -> Iterator[None]:
    """What a test does to the pods' readiness is undone."""
    yield
    objects.apply(cluster.lab, *(cluster.told(f"web-{number}") for number in (1, 2, 3)))
    objects.settle(cluster.lab)


def answerers(cluster: ServiceLab, client: str, service: str, count: int = MANY) -> set[str]:
    """Who answers, in every family and transport alike."""
    found = []
    for family in FAMILIES:
        address = cluster.cluster_ip(service, family)
        found += [
            set(cluster.answerers(client, address, transport=transport, count=count))
            for transport in TRANSPORTS
        ]
    assert all(names == found[0] for names in found), found
    return found[0]


def outcomes(cluster: ServiceLab, client: str, address: str, transport: str = "tcp") -> set[str]:
    return {
        answer.outcome for answer in cluster.ask(client, address, transport=transport, count=4, attempts=1)
    }


def installed(cluster: ServiceLab, service: str) -> list[str]:
    """Flows and groups of a Service in any switch."""
    found: list[str] = []
    owner = f"Service/default/{service}"
    with grpc.insecure_channel(cluster.lab.server) as channel:
        stub = inspection_pb2_grpc.InspectionStub(channel)
        for node in cluster.lab.spec.node_machines:
            flows = stub.ListFlows(inspection_pb2.ListFlowsRequest(node=node.name, owner=owner), timeout=30)
            found += [f"{node.name} {flow.table} {flow.match}" for part in flows for flow in part.flows]
            groups = stub.ListGroups(
                inspection_pb2.ListGroupsRequest(node=node.name, owner=owner), timeout=30
            )
            found += [f"{node.name} group {group.group_id}" for part in groups for group in part.groups]
    return found


def test_a_service_is_in_every_switch_and_gone_with_it(cluster: ServiceLab) -> None:
    with cluster.service("usual", objects.both(80, 8080), {"app": "web"}):
        assert {line.split()[0] for line in installed(cluster, "usual")} == set(ZONES)
    assert installed(cluster, "usual") == []


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None"},
        {"type": "ExternalName", "externalName": "example.org", "ipFamilyPolicy": None},
    ],
    ids=["headless", "ExternalName"],
)
def test_a_service_that_is_only_a_name_has_no_flows(cluster: ServiceLab, spec: objects.Document) -> None:
    selector = {"app": "web"} if "clusterIP" in spec else None
    with cluster.service("name-only", objects.both(80, 8080), selector, **spec):
        assert objects.get(cluster.lab, "Service", "name-only")
        assert installed(cluster, "name-only") == []


def test_a_pod_that_is_not_ready_gets_no_new_connections_and_a_ready_one_does(cluster: ServiceLab) -> None:
    with cluster.service("web", objects.both(80, 8080), {"app": "web"}) as name:
        assert answerers(cluster, "client-1", name) == {"web-1", "web-2", "web-3"}
        cluster.ready("web-2", False)
        assert answerers(cluster, "client-1", name) == {"web-1", "web-3"}
        assert answerers(cluster, "node-2", name) == {"web-1", "web-3"}
        cluster.ready("web-2")
        assert answerers(cluster, "client-1", name) == {"web-1", "web-2", "web-3"}


def test_a_new_pod_is_an_endpoint_and_a_removed_one_is_not(cluster: ServiceLab) -> None:
    with cluster.service("web", objects.both(80, 8080), {"app": "web"}) as name:
        cluster.add("web-4", "node-2", {"app": "web"})
        try:
            objects.settle(cluster.lab)
            assert answerers(cluster, "client-1", name, 80) == {"web-1", "web-2", "web-3", "web-4"}
        finally:
            cluster.remove("web-4")
        objects.settle(cluster.lab)
        assert answerers(cluster, "client-1", name) == {"web-1", "web-2", "web-3"}


def test_addresses_are_published_before_they_are_ready_when_the_service_says_so(cluster: ServiceLab) -> None:
    cluster.ready("web-2", False)
    with cluster.service(
        "early", objects.both(80, 8080), {"app": "web"}, publishNotReadyAddresses=True
    ) as name:
        assert answerers(cluster, "client-1", name) == {"web-1", "web-2", "web-3"}


def test_pods_that_end_are_used_when_nothing_else_is_left(cluster: ServiceLab) -> None:
    with cluster.service("web", objects.both(80, 8080), {"app": "web"}) as name:
        cluster.ready("web-1", terminating=True)
        assert answerers(cluster, "client-1", name) == {"web-2", "web-3"}
        cluster.ready("web-2", terminating=True)
        # It ends and does not answer any more: not even as the last resort.
        cluster.ready("web-3", False, terminating=True)
        assert answerers(cluster, "client-1", name) == {"web-1", "web-2"}
        cluster.ready("web-3")
        assert answerers(cluster, "client-1", name) == {"web-3"}


@pytest.mark.parametrize("distribution", ["PreferClose", "PreferSameZone"])
def test_clients_stay_in_their_zone_while_it_has_endpoints(cluster: ServiceLab, distribution: str) -> None:
    with cluster.service(
        "close", objects.both(80, 8080), {"app": "web"}, trafficDistribution=distribution
    ) as name:
        assert answerers(cluster, "client-1", name) == {"web-1", "web-2"}
        assert answerers(cluster, "client-3", name) == {"web-3"}
        assert answerers(cluster, "node-3", name) == {"web-3"}
        cluster.ready("web-3", False)
        assert answerers(cluster, "client-3", name) == {"web-1", "web-2"}


def test_clients_stay_on_their_node_while_it_has_endpoints(cluster: ServiceLab) -> None:
    with cluster.service(
        "near", objects.both(80, 8080), {"app": "web"}, trafficDistribution="PreferSameNode"
    ) as name:
        for number in (1, 2, 3):
            assert answerers(cluster, f"client-{number}", name) == {f"web-{number}"}
        cluster.ready("web-1", False)
        # Then in their zone.
        assert answerers(cluster, "client-1", name) == {"web-2"}


def test_hints_of_a_slice_are_followed(cluster: ServiceLab) -> None:
    pods = [cluster.lab.pod(f"web-{number}") for number in (1, 2, 3)]
    # The other way round than their own zones.
    hints = ["b", "b", "a"]
    endpoints = [
        {
            "addresses": [pod.addresses[0]],
            "conditions": {"ready": True},
            "nodeName": pod.node,
            "zone": ZONES[pod.node],
            "hints": {"forZones": [{"name": hint}]},
        }
        for pod, hint in zip(pods, hints, strict=True)
    ]
    ports = [{"name": "tcp-80", "protocol": "TCP", "port": 8080}]
    objects.apply(cluster.lab, objects.endpoint_slice("hinted", "IPv4", endpoints, ports))
    try:
        with cluster.service(
            "hinted", [objects.port(80, 8080)], None, trafficDistribution="PreferClose"
        ) as name:
            address = cluster.cluster_ip(name)
            assert set(cluster.answerers("client-1", address, count=24)) == {"web-3"}
            assert set(cluster.answerers("client-3", address, count=24)) == {"web-1", "web-2"}
    finally:
        objects.delete(cluster.lab, "EndpointSlice", "hinted-ipv4")


def test_only_endpoints_of_the_clients_node_serve_under_the_internal_policy_local(
    cluster: ServiceLab,
) -> None:
    with cluster.service(
        "inside", objects.both(80, 8080), {"app": "web"}, internalTrafficPolicy="Local"
    ) as name:
        for number in (1, 2, 3):
            assert answerers(cluster, f"client-{number}", name) == {f"web-{number}"}
            assert answerers(cluster, f"node-{number}", name) == {f"web-{number}"}
        cluster.ready("web-1", False)
        for family in FAMILIES:
            assert outcomes(cluster, "client-1", cluster.cluster_ip(name, family)) == {"silence"}
        assert answerers(cluster, "client-2", name) == {"web-2"}


@pytest.mark.parametrize(*EACH)
def test_a_service_without_a_selector_leads_where_its_slices_say(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    """To a pod, to a machine outside of the cluster, and nowhere while there is no slice."""
    outside = cluster.lab.spec.outside
    beyond = outside.ipv4 if family == "IPv4" else outside.ipv6
    inside = cluster.lab.pod("web-2").addresses[FAMILIES.index(family)]
    ports = [{"name": f"{transport}-80", "protocol": transport.upper(), "port": 8080}]
    cluster.servers.listen(Listener(outside.netns, "beyond", transport, beyond, 8080))
    try:
        with cluster.service("manual", objects.both(80, 8080), None) as name:
            address = cluster.cluster_ip(name, family)
            assert outcomes(cluster, "client-1", address, transport) == {"refused"}
            for target, answerer in ((inside, "web-2"), (beyond, "beyond")):
                cluster.declare(
                    objects.endpoint_slice(
                        name, family, [{"addresses": [target], "conditions": {"ready": True}}], ports
                    )
                )
                for client in ("client-1", "client-2", "web-2", "node-1", "node-2"):
                    found = cluster.answerers(client, address, transport=transport, count=6)
                    assert set(found) == {answerer}, f"{client} to {target}"
    finally:
        objects.delete(cluster.lab, "EndpointSlice", f"manual-{family.lower()}")
        cluster.servers.close("beyond")


def test_slices_tell_what_there_is(cluster: ServiceLab) -> None:
    cluster.ready("web-2", False)
    cluster.ready("web-3", terminating=True)
    with cluster.service("told", objects.both(80, 8080), {"app": "web"}) as name:
        found = objects.slices(cluster.lab, name)
        assert {piece["addressType"] for piece in found} == {"IPv4", "IPv6"}
        for piece in found:
            index = FAMILIES.index(piece["addressType"])
            conditions = {one["targetRef"]["name"]: one["conditions"] for one in piece["endpoints"]}
            assert {pod: told["ready"] for pod, told in conditions.items()} == {
                "web-1": True,
                "web-2": False,
                "web-3": False,
            }
            assert conditions["web-3"]["serving"] is True
            assert conditions["web-3"]["terminating"] is True
            addresses = {one["targetRef"]["name"]: one["addresses"] for one in piece["endpoints"]}
            assert addresses["web-1"] == [cluster.lab.pod("web-1").addresses[index]]
            assert {(port["name"], port["protocol"], int(port["port"])) for port in piece["ports"]} == {
                ("tcp-80", "TCP", 8080),
                ("udp-80", "UDP", 8080),
            }
