# SPDX-License-Identifier: Apache-2.0
"""Names: what pods are told of Services, by the cluster's DNS and by the C library's resolver."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import grpc
import pytest

from sdn.lab import namespaces
from sdn.lab.waiting import patience, wait_until
from tests.lab import service_objects as objects
from tests.lab.service_lab import FAMILIES, TRANSPORTS, ServiceLab, serving

ADDRESSES = {"IPv4": "10.96.0.10", "IPv6": "fd00:10:96::a"}
WEB = "web.default.svc.cluster.local"
CLIENTS = ("client-1", "client-2", "client-3")
FAR = "far.example.org"
FAR_ADDRESS = "203.0.113.7"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("dns") as found:
        found.declare(
            objects.service(
                "web",
                [objects.port(80, 8080, name="http"), objects.port(53, 8080, "UDP", name="dns")],
                {"app": "web"},
            ),
            objects.service("each", [objects.port(80, name="http")], {"app": "web"}, clusterIP="None"),
            objects.service("alias", [], None, type="ExternalName", externalName=WEB, ipFamilyPolicy=None),
        )
        yield found


def ask(
    cluster: ServiceLab, client: str, name: str, kind: str = "A", *, server: str = "", transport: str = "udp"
) -> dns.message.Message:
    """What the cluster's DNS answers to a pod."""
    where = server or ADDRESSES["IPv4"]
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    query = dns.message.make_query(name, kind, use_edns=0)
    with namespaces.entered(cluster.lab.netns(client)):
        if transport == "udp":
            return dns.query.udp(query, where, timeout=patience(5))
        with socket.socket(family, socket.SOCK_STREAM) as channel:
            channel.settimeout(patience(5))
            channel.connect((where, 53))
            channel.setblocking(False)
            return dns.query.tcp(query, where, timeout=patience(5), sock=channel)


def data(answer: dns.message.Message, kind: str) -> set[str]:
    """The answer's records of a type."""
    wanted = dns.rdatatype.from_text(kind)
    return {record.to_text() for found in answer.answer if found.rdtype == wanted for record in found}


def known(cluster: ServiceLab, client: str, name: str, kind: str = "A") -> set[str]:
    """The records that there are, after a moment in which the node's server learns of what is new."""
    found: set[str] = set()

    def there() -> bool:
        found.clear()
        try:
            answer = ask(cluster, client, name, kind)
        except dns.exception.Timeout:  # the server was just started again
            return False
        found.update(data(answer, kind))
        return bool(found)

    wait_until(there, f"{name} {kind}", 10, every=0.2)
    return found


@pytest.mark.parametrize("client", [*CLIENTS, "node-1", "node-3"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_clusters_dns_answers_at_its_address(
    cluster: ServiceLab, family: str, transport: str, client: str
) -> None:
    known(cluster, client, WEB)
    for kind, own in (("A", "IPv4"), ("AAAA", "IPv6")):
        answer = ask(cluster, client, WEB, kind, server=ADDRESSES[family], transport=transport)
        assert data(answer, kind) == {cluster.cluster_ip("web", own)}


def test_its_service_is_shown(cluster: ServiceLab) -> None:
    service = objects.get(cluster.lab, "Service", "kube-dns", "kube-system")
    assert service["spec"]["clusterIPs"] == list(ADDRESSES.values())
    assert {(port["name"], port["protocol"], int(port["port"])) for port in service["spec"]["ports"]} == {
        ("dns", "UDP", 53),
        ("dns-tcp", "TCP", 53),
    }
    with pytest.raises(grpc.RpcError, match="kube-dns"):
        objects.apply(cluster.lab, {**service, "metadata": {"name": "kube-dns", "namespace": "kube-system"}})


@pytest.mark.parametrize("client", CLIENTS)
def test_pods_resolve_short_names_by_themselves(cluster: ServiceLab, client: str) -> None:
    known(cluster, client, WEB)
    for name in ("web", "web.default", "web.default.svc", WEB, "alias"):
        shown = cluster.lab.run(client, "getent", "ahosts", name)
        found = {line.split()[0] for line in shown.stdout.splitlines()}
        assert found == {cluster.cluster_ip("web", family) for family in FAMILIES}, f"{name}: {shown}"
    assert cluster.lab.run(client, "getent", "hosts", "nothing").returncode == 2


def test_ports_are_found_by_name(cluster: ServiceLab) -> None:
    for name, number in (("_http._tcp", 80), ("_dns._udp", 53)):
        found = known(cluster, "client-1", f"{name}.{WEB}", "SRV")
        # Priority and weight, which come before, are the server's to choose.
        assert [text.split()[2:] for text in found] == [[str(number), f"{WEB}."]]
    assert ask(cluster, "client-1", f"_http._udp.{WEB}", "SRV").rcode() == dns.rcode.NXDOMAIN


def test_addresses_are_found_back(cluster: ServiceLab) -> None:
    for family in FAMILIES:
        name = dns.reversename.from_address(cluster.cluster_ip("web", family)).to_text()
        assert known(cluster, "client-1", name, "PTR") == {f"{WEB}."}


def test_a_headless_service_is_its_ready_pods(cluster: ServiceLab) -> None:
    name = "each.default.svc.cluster.local"

    def addresses(index: int, *pods: str) -> set[str]:
        return {cluster.lab.pod(pod).addresses[index] for pod in pods}

    known(cluster, "client-1", name)
    assert data(ask(cluster, "client-1", name, "A"), "A") == addresses(0, "web-1", "web-2", "web-3")
    assert data(ask(cluster, "client-1", name, "AAAA"), "AAAA") == addresses(1, "web-1", "web-2", "web-3")
    targets = known(cluster, "client-1", f"_http._tcp.{name}", "SRV")
    named = {text.split()[3] for text in targets}
    found = set().union(*(data(ask(cluster, "client-1", target, "A"), "A") for target in named))
    assert found == addresses(0, "web-1", "web-2", "web-3")
    cluster.ready("web-2", False)
    try:
        wait_until(
            lambda: data(ask(cluster, "client-1", name), "A") == addresses(0, "web-1", "web-3"),
            "a pod that is not ready to lose its record",
            10,
            every=0.2,
        )
    finally:
        cluster.ready("web-2")


def test_a_pod_with_hostname_and_subdomain_has_a_name_of_its_own(cluster: ServiceLab) -> None:
    document = cluster.told("web-3")
    document["spec"] |= {"hostname": "third", "subdomain": "each"}
    cluster.declare(document)
    try:
        name = "third.each.default.svc.cluster.local"
        assert known(cluster, "client-1", name) == {cluster.lab.pod("web-3").addresses[0]}
        reverse = dns.reversename.from_address(cluster.lab.pod("web-3").addresses[0]).to_text()
        assert f"{name}." in known(cluster, "client-1", reverse, "PTR")
    finally:
        cluster.ready("web-3")


def test_names_come_and_go_with_their_services(cluster: ServiceLab) -> None:
    name = "brief.default.svc.cluster.local"
    assert ask(cluster, "client-2", name).rcode() == dns.rcode.NXDOMAIN
    with cluster.service("brief", [objects.port(80, 8080)], {"app": "web"}):
        assert known(cluster, "client-2", name) == {cluster.cluster_ip("brief")}
    wait_until(
        lambda: ask(cluster, "client-2", name).rcode() == dns.rcode.NXDOMAIN,
        "the name of a deleted Service to be forgotten",
        10,
        every=0.2,
    )


@contextmanager
def name_server(cluster: ServiceLab) -> Iterator[None]:
    """A DNS server on the machine `outside`, that knows one name."""
    outside = cluster.lab.spec.outside
    with namespaces.entered(outside.netns):
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        channel.bind((outside.ipv4, 53))
    end = threading.Event()

    def serve() -> None:
        channel.settimeout(0.2)
        while not end.is_set():
            try:
                question, sender = channel.recvfrom(4096)
            except TimeoutError:
                continue
            query = dns.message.from_wire(question)
            answer = dns.message.make_response(query)
            asked = query.question[0]
            if asked.name.to_text() != f"{FAR}.":
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif asked.rdtype == dns.rdatatype.A:
                answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", FAR_ADDRESS))
            channel.sendto(answer.to_wire(), sender)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        channel.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_other_names_are_asked_for_elsewhere(cluster: ServiceLab, client: str) -> None:
    """The nodes of a lab ask the machine `outside`."""
    with name_server(cluster):
        assert data(ask(cluster, client, FAR), "A") == {FAR_ADDRESS}
        assert FAR_ADDRESS in cluster.lab.run(client, "getent", "ahostsv4", FAR).stdout
        assert ask(cluster, client, "no.example.org").rcode() == dns.rcode.NXDOMAIN


def test_names_are_answered_without_a_controller_and_again_when_the_agent_was_killed(
    cluster: ServiceLab,
) -> None:
    known(cluster, "client-1", WEB)
    address = cluster.cluster_ip("web")
    cluster.lab.stop("controller-1")
    try:
        assert data(ask(cluster, "client-1", WEB), "A") == {address}
    finally:
        cluster.lab.start("controller-1")
    cluster.lab.wait_ready()
    old = cluster.lab.kill("node-1/agent")
    cluster.lab.wait_restarted("node-1/agent", old)
    cluster.lab.wait_ready()
    assert known(cluster, "client-1", WEB) == {address}
