# SPDX-License-Identifier: Apache-2.0
"""What cannot be a Service is refused with the field's path, nothing of it is kept, and what runs is untouched."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.lab import service_objects as objects
from tests.lab.service_lab import EACH, ServiceLab, serving

TAKEN_PORT = 30080
TAKEN_ADDRESS = "10.96.7.7"
TAKEN_BALANCER = "172.30.0.230"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("badinput") as found:
        found.declare(
            objects.service(
                "taken",
                [objects.port(80, 8080, nodePort=TAKEN_PORT), objects.port(80, 8080, "UDP")],
                {"app": "web"},
                type="LoadBalancer",
                clusterIP=TAKEN_ADDRESS,
                loadBalancerIP=TAKEN_BALANCER,
                ipFamilyPolicy="PreferDualStack",
                externalIPs=["192.0.2.7"],
            )
        )
        yield found


@pytest.fixture
def undisturbed(cluster: ServiceLab) -> Iterator[ServiceLab]:
    """A connection that a test holds goes on, and every switch has the flows that it had."""

    def flows() -> dict[str, list[str]]:
        return {
            node.name: sorted(
                line
                for line in cluster.lab.run(
                    node.name, "ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", "br-int"
                ).stdout.splitlines()
                if "actions=" in line
            )
            for node in cluster.lab.spec.node_machines
        }

    before = flows()
    services = objects.names(cluster.lab, "Service")
    with cluster.converse("client-1", TAKEN_ADDRESS) as connection:
        home = connection.ask()["name"]
        yield cluster
        assert connection.ask()["name"] == home
    assert objects.names(cluster.lab, "Service") == services
    assert flows() == before


def spec(**fields: Any) -> objects.Document:
    return objects.service("wrong", objects.both(80, 8080), {"app": "web"}, **fields)


def ports(*given: dict[str, Any], **fields: Any) -> objects.Document:
    return objects.service("wrong", list(given), {"app": "web"}, **fields)


WRONG: dict[str, tuple[objects.Document, str]] = {
    "port collision": (ports(objects.port(80, name="a"), objects.port(80, name="b")), "spec.ports[1]"),
    "two names alike": (ports(objects.port(80, name="a"), objects.port(81, name="a")), "spec.ports[1].name"),
    "nameless ports": (ports({"port": 80}, {"port": 81}), "spec.ports[0].name"),
    "no ports": (ports(), "spec.ports"),
    "port 0": (ports(objects.port(0)), "spec.ports[0].port"),
    "port too high": (ports(objects.port(65536)), "spec.ports[0].port"),
    "protocol": (ports({"port": 80, "protocol": "ICMP"}), "spec.ports[0].protocol"),
    "target port": (ports(objects.port(80, "No Port")), "spec.ports[0].targetPort"),
    "unknown field": (spec(loadBalancerColour="red"), "spec.loadBalancerColour"),
    "type": (spec(type="Everything"), "spec.type"),
    "node port taken": (
        ports(objects.port(80, nodePort=TAKEN_PORT), type="NodePort"),
        "spec.ports[0].nodePort",
    ),
    "node port out of range": (
        ports(objects.port(80, nodePort=29999), type="NodePort"),
        "spec.ports[0].nodePort",
    ),
    "node port twice": (
        ports(objects.port(80, nodePort=30100), objects.port(81, nodePort=30100), type="NodePort"),
        "spec.ports[1].nodePort",
    ),
    "node port without type": (ports(objects.port(80, nodePort=30100)), "spec.ports[0].nodePort"),
    "cluster address taken": (
        spec(clusterIP=TAKEN_ADDRESS, ipFamilyPolicy="PreferDualStack"),
        "spec.clusterIP",
    ),
    "cluster address outside of the range": (
        spec(clusterIP="10.97.0.1", ipFamilyPolicy="PreferDualStack"),
        "spec.clusterIP",
    ),
    "cluster address of the DNS": (
        spec(clusterIP="10.96.0.10", ipFamilyPolicy="PreferDualStack"),
        "spec.clusterIP",
    ),
    "load balancer address taken": (
        spec(type="LoadBalancer", loadBalancerIP=TAKEN_BALANCER),
        "spec.loadBalancerIP",
    ),
    "load balancer address outside of the pool": (
        spec(type="LoadBalancer", loadBalancerIP="172.30.0.99"),
        "spec.loadBalancerIP",
    ),
    "family of the address": (
        spec(clusterIP="10.96.9.9", ipFamilies=["IPv6"], ipFamilyPolicy="SingleStack"),
        "spec.clusterIP",
    ),
    "families do not match addresses": (
        spec(clusterIPs=["10.96.9.9", "fd00:10:96::99"], ipFamilies=["IPv6", "IPv4"]),
        "spec.clusterIP",
    ),
    "two families alike": (spec(ipFamilies=["IPv4", "IPv4"]), "spec.ipFamilies"),
    "one family, two addresses": (
        spec(clusterIPs=["10.96.9.9", "fd00:10:96::99"], ipFamilyPolicy="SingleStack"),
        "spec.",
    ),
    "external policy without outside": (spec(externalTrafficPolicy="Local"), "spec.externalTrafficPolicy"),
    "external address": (spec(externalIPs=["127.0.0.1"]), "spec.externalIPs[0]"),
    "external address and port taken": (spec(externalIPs=["192.0.2.7"]), "spec.externalIPs[0]"),
    "source range": (
        spec(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.1/33"]),
        "spec.loadBalancerSourceRanges[0]",
    ),
    "affinity time-out": (
        spec(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 86401}}),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
    ),
    "ExternalName without a name": (
        objects.service("wrong", [], None, type="ExternalName", ipFamilyPolicy=None),
        "spec.externalName",
    ),
    "distribution": (spec(trafficDistribution="Anywhere"), "spec.trafficDistribution"),
    "health check port without need": (spec(healthCheckNodePort=30999), "spec.healthCheckNodePort"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_service_is_refused_by_field(undisturbed: ServiceLab, what: str) -> None:
    document, field = WRONG[what]
    with pytest.raises(grpc.RpcError) as refused:
        objects.apply(undisturbed.lab, document)
    details = str(refused.value.details())
    assert field in details
    assert "Service default/wrong" in details
    assert "\n" not in details


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clusterIP": "10.96.8.8"}, "spec.clusterIP"),
        ({"ports": [objects.port(80, 8080, nodePort=29999)]}, "spec.ports[0].nodePort"),
        ({"loadBalancerIP": "172.30.0.99"}, "spec.loadBalancerIP"),
        ({"ipFamilies": ["IPv6", "IPv4"]}, "spec.ipFamilies"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_change_is_refused_and_the_service_stays_as_it_was(
    undisturbed: ServiceLab, change: dict[str, Any], field: str
) -> None:
    before = objects.get(undisturbed.lab, "Service", "taken")
    document = objects.service(
        "taken",
        [objects.port(80, 8080, nodePort=TAKEN_PORT), objects.port(80, 8080, "UDP")],
        {"app": "web"},
        type="LoadBalancer",
        clusterIP=TAKEN_ADDRESS,
        loadBalancerIP=TAKEN_BALANCER,
    )
    document["spec"].update(change)
    with pytest.raises(grpc.RpcError) as refused:
        objects.apply(undisturbed.lab, document)
    assert field in str(refused.value.details())
    assert objects.get(undisturbed.lab, "Service", "taken") == before


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (objects.endpoint_slice("s", "IPv4", [{"addresses": ["fd00::1"]}], []), "endpoints[0].addresses[0]"),
        (
            objects.endpoint_slice("s", "IPv4", [{"addresses": ["127.0.0.1"]}], []),
            "endpoints[0].addresses[0]",
        ),
        (objects.endpoint_slice("s", "IPv4", [{"addresses": []}], []), "endpoints[0].addresses"),
        (objects.endpoint_slice("s", "IPv5", [], []), "addressType"),
        (objects.endpoint_slice("s", "IPv4", [], [{"name": "a", "port": 70000}]), "ports[0].port"),
    ],
    ids=["family", "loopback", "no address", "address type", "port"],
)
def test_a_wrong_slice_is_refused_by_field(
    undisturbed: ServiceLab, document: objects.Document, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        objects.apply(undisturbed.lab, document)
    assert field in str(refused.value.details())


@pytest.mark.parametrize(*EACH)
def test_what_was_given_before_serves_after_all_that(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    address = cluster.cluster_ip("taken", family)
    found = cluster.answerers("client-1", address, transport=transport)
    assert set(found) == {"web-1", "web-2", "web-3"}


def test_what_a_deleted_service_had_can_be_had_again(cluster: ServiceLab) -> None:
    for _ in range(2):
        with cluster.service(
            *("again", [objects.port(80, 8080, nodePort=30200)], {"app": "web"}),
            type="LoadBalancer",
            clusterIP="10.96.3.3",
            loadBalancerIP="172.30.0.231",
            ipFamilyPolicy="PreferDualStack",
        ) as name:
            assert len(cluster.answerers("client-1", "10.96.3.3")) == 3
            assert objects.load_balancer_ip(cluster.lab, name) == "172.30.0.231"
