# SPDX-License-Identifier: Apache-2.0
"""Services on the kernel datapath, SCTP among them: reached, by whom, and whose address the endpoint sees.

Every way is tried by one process in the guest, that serves and asks in all namespaces; each is judged by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pytest

from tests.kernel.cluster import SLOWNESS, TREE, Cluster, Place
from tests.kernel.image import Report
from tests.lab import service_objects as objects
from tests.lab.service_sockets import Answer, Listener, Request

pytestmark = [pytest.mark.kernel, pytest.mark.root, pytest.mark.lab, pytest.mark.slow]

SERVERS = {"web-1": "node-1", "db-1": "node-2"}
CLIENT = "web-2"
"""On node-1."""
FAMILIES = ("IPv4", "IPv6")
TRANSPORTS = ("tcp", "udp", "sctp")
PORT = 8080
SERVICES = {"near": "web-1", "far": "db-1", "all": None, "nobody": None}
"""Services and their one endpoint: on the clients' node, on the other one; then both pods, and none."""


@dataclass(frozen=True)
class Way:
    """One client speaks to one Service, by its own address or by the port that it has on node-1."""

    service: str
    client: str
    family: str
    transport: str
    node_port: bool = False
    size: int = 0

    def __str__(self) -> str:
        by = " at a node's port" if self.node_port else ""
        size = f", {self.size} bytes" if self.size else ""
        return f"{self.family} {self.transport}, {self.client} to {self.service}{by}{size}"


WAYS = [
    *(
        Way(service, client, family, transport)
        for family in FAMILIES
        for transport in TRANSPORTS
        for service in ("near", "far", "nobody")
        for client in (CLIENT, "node-1")
    ),
    *(Way("near", "web-1", family, transport) for family in FAMILIES for transport in TRANSPORTS),
    *(
        Way(service, client, family, transport, node_port=True)
        for family in FAMILIES
        for transport in TRANSPORTS
        for service in ("near", "far")
        for client in (CLIENT, "node-1", "node-2", "outside")
    ),
    *(
        Way(service, client, family, "udp", size=4000)
        for family in FAMILIES
        for service in ("near", "far")
        for client in (CLIENT, "node-1", "web-1")
    ),
]


def declared() -> list[objects.Document]:
    """The pods with labels, and the Services that select them."""
    ports = [objects.port(80, PORT, transport.upper()) for transport in TRANSPORTS]
    documents = [objects.pod(pod, node, {"name": pod, "app": "web"}) for pod, node in SERVERS.items()]
    for name, pod in SERVICES.items():
        selector = {"name": pod} if pod else {"app": "web" if name == "all" else "nobody"}
        documents.append(objects.service(name, ports, selector, type="NodePort"))
    return documents


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> dict[str, Place]:
    return cluster.places()


def of_family(place: Place, family: str) -> str:
    return place.ipv4 if family == "IPv4" else place.ipv6


def attempt(
    cluster: Cluster, places: dict[str, Place], requests: list[Request], report: Report
) -> list[Answer]:
    """Let the guest serve in the pods and ask; the answers in their order."""
    listeners = [
        Listener(places[pod].netns, pod, transport, of_family(places[pod], family), PORT)
        for pod in SERVERS
        for transport in TRANSPORTS
        for family in FAMILIES
    ]
    plan = {
        "listeners": [asdict(one) for one in listeners],
        "requests": [asdict(one) for one in requests],
        "window": 8,
    }
    done = cluster.guest.run(
        [sys.executable, "-S", "-m", "tests.lab.service_clients", "try"],
        cwd=TREE,
        env={"SDN_LAB_TIMEOUT_FACTOR": SLOWNESS, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=json.dumps(plan),
        timeout=600,
    ).check()
    report(f"{len(requests)} requests took {done.seconds:.0f} s")
    return [Answer(**fields) for fields in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def services(cluster: Cluster) -> Iterator[dict[str, objects.Document]]:
    cluster.apply(declared())
    listed = cluster.json("get", "services")
    yield {one["metadata"]["name"]: one for one in listed["items"]}
    cluster.delete(declared())


@pytest.fixture(scope="module")
def answers(
    cluster: Cluster, places: dict[str, Place], services: dict[str, objects.Document], report: Report
) -> dict[Way, Answer]:
    requests = []
    for way in WAYS:
        spec = services[way.service]["spec"]
        address = next(one for one in spec["clusterIPs"] if (":" in one) == (way.family == "IPv6"))
        port = 80
        if way.node_port:
            address = of_family(places["node-1"], way.family)
            port = next(
                int(one["nodePort"]) for one in spec["ports"] if one["protocol"] == way.transport.upper()
            )
        requests.append(Request(places[way.client].netns, way.transport, address, port, size=way.size))
    return dict(zip(WAYS, attempt(cluster, places, requests, report), strict=True))


def sources(places: dict[str, Place], way: Way) -> set[str]:
    """Whom the endpoint may see."""
    if way.client == SERVICES[way.service]:
        # Itself through its Service: anybody but itself, or its answer would never leave it.
        return set()
    if way.client == "outside" or (way.client == "node-2" and way.node_port):
        return {of_family(places["node-1"], way.family)}
    return {of_family(places[way.client], way.family)}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_services_are_reached_and_clients_seen_as_they_should(
    answers: dict[Way, Answer], places: dict[str, Place], way: Way
) -> None:
    answer = answers[way]
    if way.service == "nobody":
        assert answer.outcome == "refused", answer
        return
    assert (answer.outcome, answer.name) == ("answered", SERVICES[way.service]), answer
    allowed = sources(places, way)
    if allowed:
        assert answer.source in allowed
    else:
        assert answer.source != of_family(places[way.client], way.family)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connections_reach_all_endpoints(
    cluster: Cluster,
    places: dict[str, Place],
    services: dict[str, objects.Document],
    report: Report,
    transport: str,
) -> None:
    address = services["all"]["spec"]["clusterIPs"][0]
    requests = [Request(places[CLIENT].netns, transport, address, 80)] * 24
    answers = attempt(cluster, places, requests, report)
    assert {answer.outcome for answer in answers} == {"answered"}
    assert {answer.name for answer in answers} == set(SERVERS)
