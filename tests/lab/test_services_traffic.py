# SPDX-License-Identifier: Apache-2.0
"""What becomes of packets to a Service: hairpin, ports, spread, fragments, errors that come back."""

import math
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.lab import service_objects as objects
from tests.lab.service_lab import EACH, FAMILIES, TRANSPORTS, ServiceLab, serving
from tests.lab.service_sockets import Answer
from tests.lab.traffic import transfer

AT_ONCE = 1.5
"""Seconds (not a limit of the network): long before a client would try again or give up."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("traffic") as found:
        found.declare(
            objects.service("web", objects.both(80, 8080), {"app": "web"}),
            objects.service("one", objects.both(80, 8080), {"name": "web-1"}),
            objects.service("other", objects.both(80, 8080), {"name": "web-2"}),
            objects.service("nobody", objects.both(80, 8080), {"app": "nobody"}, type="NodePort"),
            objects.service("closed", objects.both(80, 9999), {"name": "web-1"}),
            objects.service("closed-elsewhere", objects.both(80, 9999), {"name": "web-2"}),
        )
        yield found


@pytest.mark.parametrize(*EACH)
def test_a_pod_reaches_itself_through_its_service(cluster: ServiceLab, family: str, transport: str) -> None:
    answers = cluster.ask("web-1", cluster.cluster_ip("one", family), transport=transport, count=10)
    assert [(answer.outcome, answer.name) for answer in answers] == [("answered", "web-1")] * 10
    # It must not see itself as the client, or its answer would never leave it.
    assert cluster.lab.pod("web-1").addresses[FAMILIES.index(family)] not in {a.source for a in answers}


@pytest.mark.parametrize(*EACH)
def test_a_pod_reaches_all_endpoints_itself_among_them(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    names = cluster.answerers("web-1", cluster.cluster_ip("web", family), transport=transport, count=60)
    assert set(names) == {"web-1", "web-2", "web-3"}


@pytest.mark.parametrize("client", ["client-1", "client-2", "node-1", "node-3"])
@pytest.mark.parametrize(*EACH)
def test_every_connection_is_answered_whoever_asks(
    cluster: ServiceLab, client: str, family: str, transport: str
) -> None:
    address = cluster.cluster_ip("web", family)
    assert set(cluster.answerers(client, address, transport=transport, count=60)) == {
        "web-1",
        "web-2",
        "web-3",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_lead_where_each_says_and_names_mean_each_pods_own_number(
    cluster: ServiceLab, family: str
) -> None:
    numbers = {"web-1": 8080, "web-2": 8081}
    told = []
    for name, number in numbers.items():
        document = cluster.told(name)
        document["spec"]["containers"][0]["ports"] = [
            {"name": "http", "containerPort": number, "protocol": "TCP"}
        ]
        document["metadata"]["labels"] = {**document["metadata"]["labels"], "named": "yes"}
        told.append(document)
    ports = [objects.port(80, "http", name="http"), objects.port(81, 8081, name="plain"), objects.port(8080)]
    cluster.declare(*told)
    try:
        with cluster.service("named", ports, {"named": "yes"}) as name:
            address = cluster.cluster_ip(name, family)
            found = objects.slices(cluster.lab, name)
            numbers_of = {
                (endpoint["targetRef"]["name"], port["name"], int(port["port"]))
                for piece in found
                if piece["addressType"] == family
                for endpoint in piece["endpoints"]
                for port in piece["ports"]
            }
            assert {("web-1", "http", 8080), ("web-2", "http", 8081)} <= numbers_of
            for port in (80, 81, 8080):
                assert set(cluster.answerers("client-1", address, port, count=24)) == {"web-1", "web-2"}
            # Not a port of the Service.
            assert cluster.ask("client-1", address, 82, attempts=1)[0].outcome != "answered"
    finally:
        cluster.ready("web-1")
        cluster.ready("web-2")


@pytest.mark.parametrize(("endpoints", "count"), [(3, 600), (10, 1500)])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connections_are_spread_evenly(
    cluster: ServiceLab, endpoints: int, count: int, transport: str
) -> None:
    names = [f"web-{number}" for number in (1, 2, 3)]
    for number in range(4, endpoints + 1):
        if f"web-{number}" not in [pod.name for pod in cluster.lab.pods()]:
            cluster.add(f"web-{number}", f"node-{number % 3 + 1}", {"app": "more"})
        names.append(f"web-{number}")
    documents = []
    for name in names:
        document = cluster.told(name)
        document["metadata"]["labels"] = {**document["metadata"]["labels"], "spread": str(endpoints)}
        documents.append(document)
    cluster.declare(*documents)
    with cluster.service("spread", objects.both(80, 8080), {"spread": str(endpoints)}) as name:
        found: Counter[str] = Counter()
        for family in FAMILIES:
            address = cluster.cluster_ip(name, family)
            found += cluster.answerers("client-1", address, transport=transport, count=count)
    assert set(found) == set(names)
    # Were the choice a fair draw, each count would be within five standard deviations of its mean practically always.
    # The switch draws one of 2^n slots, at least four for each endpoint (sdn/pipeline/features/services.py), so that an
    # endpoint may have a slot more than its share, which is one in four.
    total = sum(found.values())
    mean = total / endpoints
    bound = mean / 4 + 5 * math.sqrt(total * (1 / endpoints) * (1 - 1 / endpoints))
    print(
        f"\n{transport}, {endpoints} endpoints, {total} connections: {dict(found)}, {mean:.0f} ± {bound:.0f}"
    )
    assert all(abs(value - mean) <= bound for value in found.values()), found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_spread_is_even_after_endpoints_went_and_came(cluster: ServiceLab, family: str) -> None:
    """Open vSwitch before 3.5.1 chooses only the bucket that was inserted last (openvswitch/ovs-issues#357)."""
    with cluster.service("changing", objects.both(80, 8080), {"app": "web"}) as name:
        address = cluster.cluster_ip(name, family)

        def counts(transport: str) -> Counter[str]:
            return cluster.answerers("client-1", address, transport=transport, count=300)

        cluster.ready("web-2", False)
        for transport in TRANSPORTS:
            found = counts(transport)
            assert set(found) == {"web-1", "web-3"}
            assert min(found.values()) > 150 - 5 * math.sqrt(300 / 4), found
        cluster.ready("web-2")
        for transport in TRANSPORTS:
            found = counts(transport)
            assert set(found) == {"web-1", "web-2", "web-3"}
            assert min(found.values()) > 100 - 5 * math.sqrt(300 * 2 / 9), found


@pytest.mark.parametrize("size", [1472, 4000, 20000])
@pytest.mark.parametrize("service", ["one", "other"])
@pytest.mark.parametrize("client", ["client-1", "node-1", "web-1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_first_datagram_in_fragments_arrives_and_so_does_the_answer(
    cluster: ServiceLab, family: str, client: str, service: str, size: int
) -> None:
    """To an endpoint on the client's node, one on another node, and the client itself."""
    address = cluster.cluster_ip(service, family)
    answers = cluster.ask(client, address, transport="udp", count=3, size=size, attempts=1)
    assert [answer.outcome for answer in answers] == ["answered"] * 3


@pytest.mark.parametrize("client", ["client-1", "node-1", "outside", "web-2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_transfer_arrives_whole(cluster: ServiceLab, family: str, client: str) -> None:
    """To an endpoint on another node; by the node's port from outside; to the client itself."""
    pod = cluster.lab.pod("web-2")
    with cluster.service("bulk", [objects.port(80, 8090)], {"name": "web-2"}, type="NodePort") as name:
        through = cluster.cluster_ip(name, family), 80
        if client == "outside":
            node = cluster.lab.spec.node("node-1")
            through = node.ipv4 if family == "IPv4" else node.ipv6, objects.node_port(cluster.lab, name)
            cluster.wait_for("outside", *through, outcome="refused")
        address = pod.addresses[FAMILIES.index(family)]
        transfer(cluster.lab.netns(client), pod.netns, address, 8 << 20, 8090, through)


def test_datagrams_are_spread_over_hundreds_of_endpoints(cluster: ServiceLab) -> None:
    """More than the slots by which Open vSwitch spreads a group's connections (256)."""
    ports = range(10000, 10100)
    pods = [cluster.lab.pod(f"web-{number}") for number in (1, 2, 3)]
    for pod in pods:
        for port in ports:
            cluster.servers.everywhere(pod.netns, f"{pod.name}:{port}", pod.addresses[:1], [port])
    endpoints = [{"addresses": [pod.addresses[0]], "nodeName": pod.node} for pod in pods]
    slices = [
        objects.endpoint_slice(
            *("many", "IPv4", endpoints),
            [{"name": f"{t}-80", "protocol": t.upper(), "port": port} for t in TRANSPORTS],
            f"many-{port}",
        )
        for port in ports
    ]
    objects.apply(cluster.lab, *slices)
    try:
        with cluster.service("many", objects.both(80), None) as name:
            for transport in TRANSPORTS:
                found = cluster.answerers("client-1", cluster.cluster_ip(name), 80, transport, 900)
                print(
                    f"\n{transport}: {len(found)} of 300 endpoints got 900 connections, at most {max(found.values())}"
                )
                # A fair draw leaves out 300 * (1 - 1/300)^900, that is 15 of them.
                assert len(found) > 250
                assert max(found.values()) < 20
    finally:
        objects.delete(cluster.lab, "EndpointSlice", *(one["metadata"]["name"] for one in slices))


def refused_at_once(answers: list[Answer]) -> bool:
    return all(answer.outcome == "refused" and answer.seconds < AT_ONCE for answer in answers)


@pytest.mark.parametrize("client", ["client-1", "client-3", "node-1", "node-2"])
@pytest.mark.parametrize(*EACH)
def test_without_endpoints_a_connection_is_refused_at_once(
    cluster: ServiceLab, family: str, transport: str, client: str
) -> None:
    answers = cluster.ask(client, cluster.cluster_ip("nobody", family), transport=transport, count=3)
    assert refused_at_once(answers), answers


@pytest.mark.parametrize("client", ["outside", "node-1", "node-3", "client-1", "client-2"])
@pytest.mark.parametrize(*EACH)
def test_without_endpoints_a_node_port_refuses_at_once(
    cluster: ServiceLab, family: str, transport: str, client: str
) -> None:
    node = cluster.lab.spec.node("node-1")
    address = node.ipv4 if family == "IPv4" else node.ipv6
    port = objects.node_port(cluster.lab, "nobody", transport)
    answers = cluster.ask(client, address, port, transport, count=3)
    assert refused_at_once(answers), answers


@pytest.mark.parametrize("service", ["closed", "closed-elsewhere"])
@pytest.mark.parametrize("client", ["client-1", "node-1", "web-1"])
@pytest.mark.parametrize(*EACH)
def test_an_endpoints_refusal_comes_back_from_the_services_address(
    cluster: ServiceLab, family: str, transport: str, client: str, service: str
) -> None:
    """A reset, or an ICMP error about a translated datagram: a connected UDP socket hears of it only when the packet
    that the error quotes is its own, to the address that it was sent to (RFC 792, RFC 4443, RFC 5508 section 4).
    """
    answers = cluster.ask(client, cluster.cluster_ip(service, family), transport=transport, count=3)
    assert refused_at_once(answers), answers
