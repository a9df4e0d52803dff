# SPDX-License-Identifier: Apache-2.0
"""Services as clients outside of the cluster and load balancers see them."""

import http.client
import ipaddress
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sdn.lab import namespaces
from sdn.lab.lab import Lab
from sdn.lab.waiting import patience, wait_until
from tests.lab import service_objects as objects
from tests.lab.service_lab import EACH, FAMILIES, ServiceLab, serving
from tests.lab.traffic import Tap

NODES = ("node-1", "node-2", "node-3")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("outside") as found:
        yield found


@pytest.fixture(autouse=True)
def all_ready(cluster: ServiceLab) -> Iterator[None]:
    yield
    objects.apply(cluster.lab, *(cluster.told(f"web-{number}") for number in (1, 2, 3)))
    objects.settle(cluster.lab)


def neighbours(lab: Lab) -> dict[str, str]:
    """MACs that `outside` knows, by address."""
    listed = json.loads(lab.run("outside", "ip", "-j", "neighbour").stdout)
    return {item["dst"]: item["lladdr"] for item in listed if "lladdr" in item}


def announcer(lab: Lab, address: str) -> str:
    """The node whose MAC `outside` knows for an address; "" when it knows none."""
    known = neighbours(lab)
    for node in lab.spec.node_machines:
        own = known.get(node.ipv6 if ":" in address else node.ipv4)
        if own and own == known.get(address):
            return node.name
    return ""


def claimed(frame: bytes) -> str:
    """The address that an ARP or ND frame says its sender has (RFC 826; RFC 4861, section 4.4); else ""."""
    if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
        return str(ipaddress.IPv4Address(frame[28:32]))
    if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136:
        return str(ipaddress.IPv6Address(frame[62:78]))
    return ""


def greet(lab: Lab) -> None:
    """`outside` learns the MACs of the nodes."""
    for node in lab.spec.node_machines:
        for address in (node.ipv4, node.ipv6):
            lab.run("outside", "ping", "-c1", "-W2", address)


@pytest.mark.parametrize(*EACH)
def test_a_load_balancers_address_leads_to_all_endpoints(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    with cluster.service("open", objects.both(80, 8080), {"app": "web"}, type="LoadBalancer") as name:
        address = objects.load_balancer_ip(cluster.lab, name, family)
        cluster.wait_for("outside", address, transport=transport)
        for client in ("outside", "client-1", "client-2", "node-1"):
            found = cluster.answerers(client, address, transport=transport)
            assert set(found) == {"web-1", "web-2", "web-3"}, client


@pytest.mark.parametrize(*EACH)
def test_only_source_ranges_may_use_a_load_balancer(cluster: ServiceLab, family: str, transport: str) -> None:
    outside = cluster.lab.spec.outside
    allowed = [f"{outside.ipv4}/32", f"{outside.ipv6}/128"]
    others = ["172.30.0.199/32", "fd00:30::ffff/128"]

    def declared(ranges: list[str]) -> objects.Document:
        return objects.service(
            "narrow",
            objects.both(80, 8080),
            {"app": "web"},
            type="LoadBalancer",
            loadBalancerSourceRanges=ranges,
        )

    cluster.declare(declared(allowed))
    try:
        address = objects.load_balancer_ip(cluster.lab, "narrow", family)
        cluster.wait_for("outside", address, transport=transport)
        assert len(cluster.answerers("outside", address, transport=transport)) == 3
        cluster.declare(declared(others))
        answers = cluster.ask("outside", address, transport=transport, count=4, attempts=1)
        assert {answer.outcome for answer in answers} == {"silence"}
        # The ranges are about the load balancer's address alone.
        assert (
            len(cluster.answerers("client-1", cluster.cluster_ip("narrow", family), transport=transport)) == 3
        )
        cluster.declare(declared(others + allowed))
        assert len(cluster.answerers("outside", address, transport=transport)) == 3
    finally:
        cluster.forget("narrow")


def health(lab: Lab, node: str, port: int, client: str = "outside") -> tuple[int, dict[str, Any]]:
    """What a load balancer's health check gets of a node: status and document."""
    with namespaces.entered(lab.netns(client)):
        connection = http.client.HTTPConnection(lab.spec.node(node).ipv4, port, timeout=patience(5))
        connection.connect()
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body.strip().startswith(b"{") else {}
    finally:
        connection.close()


def test_health_checks_tell_which_nodes_have_endpoints(cluster: ServiceLab) -> None:
    """As kube-proxy answers them: 200 with endpoints, 503 without, and how many there are."""
    cluster.ready("web-3", False)
    with cluster.service(
        *("checked", objects.both(80, 8080), {"app": "web"}),
        type="LoadBalancer",
        externalTrafficPolicy="Local",
    ) as name:
        port = int(objects.get(cluster.lab, "Service", name)["spec"]["healthCheckNodePort"])

        def seen() -> dict[str, tuple[int, int]]:
            found = {}
            for node in NODES:
                try:
                    status, document = health(cluster.lab, node, port)
                except OSError:
                    return {}
                assert document["service"] == {"namespace": "default", "name": name}
                found[node] = status, int(document["localEndpoints"])
            return found

        wanted = {"node-1": (200, 1), "node-2": (200, 1), "node-3": (503, 0)}
        wait_until(lambda: seen() == wanted, f"health checks to tell {wanted}", 10)
        cluster.ready("web-1", False)
        cluster.ready("web-3")
        wanted = {"node-1": (503, 0), "node-2": (200, 1), "node-3": (200, 1)}
        wait_until(lambda: seen() == wanted, f"health checks to tell {wanted}", 10)

    def refused() -> bool:
        try:
            health(cluster.lab, "node-1", port)
        except ConnectionRefusedError:
            return True
        except OSError as problem:
            print(f"a health check of a deleted Service: {problem!r}")
        return False

    wait_until(refused, "health checks of a deleted Service to be refused", 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_external_address_that_is_a_nodes_own_works_from_everywhere(
    cluster: ServiceLab, family: str
) -> None:
    node = cluster.lab.spec.node("node-2")
    address = node.ipv4 if family == "IPv4" else node.ipv6
    with cluster.service("own", objects.both(8088, 8080), {"app": "web"}, externalIPs=[address]):
        cluster.wait_for("outside", address, 8088)
        for client in ("outside", "client-1", "client-2", "node-2", "node-1"):
            found = cluster.answerers(client, address, 8088)
            assert set(found) == {"web-1", "web-2", "web-3"}, client
    for client in ("outside", "client-1"):
        wait_until(
            lambda client=client: cluster.ask(client, address, 8088, attempts=1)[0].outcome == "refused",  # type: ignore[misc]
            f"{client} to be refused",
            10,
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_one_node_answers_for_a_load_balancers_address_and_only_while_it_is_given(
    cluster: ServiceLab, family: str
) -> None:
    lab = cluster.lab
    greet(lab)
    with cluster.service("announced", objects.both(80, 8080), {"app": "web"}, type="LoadBalancer") as name:
        address = objects.load_balancer_ip(lab, name, family)
        cluster.wait_for("outside", address)
        assert announcer(lab, address) in NODES
        with Tap(lab.netns("outside")) as tap:
            for _ in range(3):
                lab.run("outside", "ip", "neighbour", "flush", "dev", "eth0")
                cluster.answerers("outside", address, count=2)
            claims = {frame[6:12] for frame in tap.arrived() if claimed(frame) == address}
        assert len(claims) == 1, claims

    def nobody() -> bool:
        lab.run("outside", "ip", "neighbour", "flush", "dev", "eth0")
        answer = cluster.ask("outside", address, attempts=1)[0]
        return answer.outcome in ("silence", "unreachable") and address not in neighbours(lab)

    wait_until(nobody, "nobody to answer for an address that is given back", 15)


def test_another_node_takes_the_address_when_its_announcer_dies(cluster: ServiceLab) -> None:
    lab = cluster.lab
    greet(lab)
    with cluster.service("moving", objects.both(80, 8080), {"app": "web"}, type="LoadBalancer") as name:
        addresses = [objects.load_balancer_ip(lab, name, family) for family in FAMILIES]
        for address in addresses:
            cluster.wait_for("outside", address)
        first = announcer(lab, addresses[0])
        assert announcer(lab, addresses[1]) == first
        # Nothing of the node answers any more. That its pod is not ready is told, as a node controller does.
        number = first.rpartition("-")[2]
        processes = [f"{first}/agent", f"{first}/ovs-vswitchd"]
        for process in processes:
            lab.stop(process)
        lab.run(first, "ip", "link", "set", "eth0", "down")
        died = time.monotonic()
        try:
            objects.apply(lab, cluster.told(f"web-{number}", False))

            def moved() -> bool:
                answers = [cluster.ask("outside", address, attempts=1)[0] for address in addresses]
                return all(answer.outcome == "answered" for answer in answers)

            wait_until(moved, "another node to take the addresses", 60, every=0.5)
            print(f"\nserved again {time.monotonic() - died:.1f} s after the announcing node died")
            assert announcer(lab, addresses[0]) not in ("", first)
            assert announcer(lab, addresses[1]) == announcer(lab, addresses[0])
        finally:
            lab.run(first, "ip", "link", "set", "eth0", "up")
            for process in reversed(processes):
                lab.start(process)
        lab.wait_ready()
