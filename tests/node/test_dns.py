# SPDX-License-Identifier: Apache-2.0
"""The agent serves the cluster's DNS on its node's gateway addresses, and pods are told of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from sdn.lab.namespaces import entered
from sdn.v1.controller_pb2 import EndpointState, ServicePortState, ServiceState
from tests.node.controller import Controller
from tests.node.node import ROOT, Node, Underlay, wait_until

pytestmark = pytest.mark.root

GATEWAYS = ("10.241.1.1", "fd00:10:241:1::1")
WEB = ServiceState(
    namespace="default",
    name="web",
    type="ClusterIP",
    cluster_ips=["10.97.0.5", "fd00:10:97::5"],
    ports=[ServicePortState(name="http", protocol="TCP", port=80)],
)
DB = ServiceState(
    namespace="default",
    name="db",
    type="ClusterIP",
    ports=[ServicePortState(name="sql", protocol="TCP", port=5432)],
    endpoints=[
        EndpointState(address=f"10.241.2.{n}", hostname=f"db-{n}", ports={"sql": 5432}) for n in range(1, 101)
    ],
)


@pytest.fixture(scope="module")
def upstream(underlay: Underlay) -> Iterator[str]:
    """A DNS server of the world outside."""
    address = "172.31.0.1"
    process = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            underlay.name,
            sys.executable,
            "-m",
            "tests.unit.dns_upstream",
            address,
            "53",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"serving\n"
        yield address
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def running(underlay: Underlay, controller: Controller, upstream: str) -> Iterator[Node]:
    controller.serve_dns = True
    controller.serve(WEB, DB)
    with Node(underlay, 1, [controller.target], dns_upstreams=upstream) as node:
        node.start_agent()
        node.wait_able()
        yield node
        node.kill("agent")
        for server in servers(node):
            os.kill(server, signal.SIGKILL)


def ask(
    node: Node,
    name: str,
    kind: str = "A",
    *,
    where: str = GATEWAYS[0],
    tcp: bool = False,
    within: float = 30.0,
) -> list[str]:
    """The data of the answer; what no resolver would take is an exception of dnspython's."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [where]
    resolver.timeout = resolver.lifetime = within
    with entered(node.netns):
        return [str(item) for item in resolver.resolve(name, kind, tcp=tcp)]


def answered(ask_it: Callable[[], object]) -> bool:
    try:
        ask_it()
    except (dns.exception.DNSException, OSError):
        return False
    return True


def wait_served(node: Node) -> None:
    """Wait until Services are known on all addresses."""

    def served() -> bool:
        name = "web.default.svc.cluster.local"
        return all(answered(lambda at=at: ask(node, name, where=at, within=0.2)) for at in GATEWAYS)

    wait_until(served, "the DNS server")


@pytest.mark.parametrize("where", GATEWAYS)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_services_have_names(node: Node, where: str, tcp: bool) -> None:
    wait_served(node)
    assert ask(node, "web.default.svc.cluster.local", where=where, tcp=tcp) == ["10.97.0.5"]
    assert ask(node, "web.default.svc.cluster.local", "AAAA", where=where, tcp=tcp) == ["fd00:10:97::5"]
    assert ask(node, "_http._tcp.web.default.svc.cluster.local", "SRV", where=where, tcp=tcp) == [
        "0 100 80 web.default.svc.cluster.local."
    ]
    assert ask(node, "5.0.97.10.in-addr.arpa", "PTR", where=where) == ["web.default.svc.cluster.local."]
    with pytest.raises(dns.resolver.NXDOMAIN):
        ask(node, "nobody.default.svc.cluster.local", where=where, tcp=tcp)
    with pytest.raises(dns.resolver.NoAnswer):
        ask(node, "web.default.svc.cluster.local", "TXT", where=where, tcp=tcp)


def test_a_resolver_gets_a_long_answer_over_tcp_by_itself(node: Node) -> None:
    wait_served(node)
    assert len(ask(node, "db.default.svc.cluster.local")) == 100
    assert ask(node, "db-7.db.default.svc.cluster.local") == ["10.241.2.7"]


@pytest.mark.parametrize("where", GATEWAYS)
def test_a_neighbour_of_the_node_that_knows_the_way_is_not_answered(
    node: Node, underlay: Underlay, where: str
) -> None:
    wait_served(node)
    via = node.ipv4 if "." in where else node.ipv6
    underlay.exec("ip", "route", "replace", where, "via", via)
    try:
        question = dns.message.make_query("web.default.svc.cluster.local", "A")
        with entered(underlay.name), pytest.raises(dns.exception.Timeout):
            dns.query.udp(question, where, timeout=2)
    finally:
        underlay.exec("ip", "route", "del", where)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_all_other_names_are_asked_of_the_upstream_server(node: Node, tcp: bool) -> None:
    wait_served(node)
    assert ask(node, "www.example.com", tcp=tcp) == ["192.0.2.80"]
    assert len(ask(node, "big.example.com", "TXT", tcp=tcp)) == 20
    with pytest.raises(dns.resolver.NXDOMAIN):
        ask(node, "nobody.example.com", tcp=tcp)


def test_a_service_that_changes_or_goes_is_followed(node: Node, controller: Controller) -> None:
    wait_served(node)
    new = ServiceState(namespace="default", name="new", type="ClusterIP", cluster_ips=["10.97.0.6"])
    controller.serve(new)
    wait_until(lambda: answered(lambda: ask(node, "new.default.svc.cluster.local")), "the new name")
    controller.withdraw("new")
    wait_until(lambda: not answered(lambda: ask(node, "new.default.svc.cluster.local")), "its end")


def test_garbage_is_dropped_or_refused_and_disturbs_nobody(node: Node) -> None:
    wait_served(node)
    with entered(node.netns):
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with channel:
        for size in range(0, 2000, 7):
            channel.sendto(os.urandom(size), (GATEWAYS[0], 53))
    with entered(node.netns):
        stream = socket.create_connection((GATEWAYS[0], 53), timeout=30)
    with stream:
        stream.sendall(b"\0\5hello")
        assert stream.recv(1) == b""
    assert ask(node, "web.default.svc.cluster.local") == ["10.97.0.5"]


def test_only_the_gateway_addresses_are_served(node: Node) -> None:
    wait_served(node)
    listening = node.exec("ss", "-Hlntu", "sport = :53").splitlines()
    addresses = {line.split()[4].rpartition(":")[0].strip("[]") for line in listening}
    assert addresses == set(GATEWAYS)
    assert len(listening) == 4


def test_the_server_has_no_rights(node: Node) -> None:
    wait_served(node)
    (server,) = servers(node)
    wait_until(lambda: "\nUid:\t65534" in Path(f"/proc/{server}/status").read_text(), "rights to be given up")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_name_is_missed_while_the_agent_is_started_again(node: Node, number: signal.Signals) -> None:
    wait_served(node)
    (before,) = servers(node)
    node.kill("agent", number)
    assert ask(node, "web.default.svc.cluster.local", within=1) == ["10.97.0.5"]
    node.start_agent(wait=False)

    def another() -> bool:
        assert ask(node, "web.default.svc.cluster.local", within=1) == ["10.97.0.5"]
        return servers(node) not in ([], [before]) and len(servers(node)) == 1

    wait_until(another, "the next agent's server to be the only one")
    assert before not in servers(node)
    node.wait_able()


def test_a_server_that_is_killed_comes_back_with_all_names(node: Node) -> None:
    wait_served(node)
    (before,) = servers(node)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: servers(node) not in ([], [before]), "another server")
    wait_served(node)
    wait_until(lambda: answered(lambda: ask(node, "web.default.svc.cluster.local")), "the names")
    assert node.running("agent")


def test_names_are_known_while_no_controller_is_there_also_after_a_restart(
    node: Node, controller: Controller
) -> None:
    wait_served(node)
    controller.stop()
    try:
        wait_until(lambda: not node.state().connected, "the agent to notice")
        node.kill("agent")
        node.start_agent()
        wait_served(node)
        assert ask(node, "web.default.svc.cluster.local") == ["10.97.0.5"]
        with pytest.raises(dns.resolver.NXDOMAIN):
            ask(node, "nobody.default.svc.cluster.local")
    finally:
        controller.start()
    node.wait_able()


def test_pods_are_told_where_and_how_to_resolve_names(node: Node) -> None:
    with node.pod("web", "shop") as pod:
        assert node.cni("ADD", pod)["dns"] == {
            "nameservers": ["10.97.0.10", "fd00:10:97::a"],
            "domain": "shop.svc.cluster.local",
            "search": ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            "options": ["ndots:5"],
        }
        told = {"nameservers": ["192.0.2.53"]}
        assert node.cni("ADD", pod, dns=told)["dns"] == told
        node.cni("DEL", pod)


def servers(node: Node) -> list[int]:
    """Processes of the DNS server on the node."""
    found = []
    inode = Path(f"/run/netns/{node.netns}").stat().st_ino
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and b"agent.dns" in (entry / "cmdline").read_bytes().split(b"\0")
                and (entry / "ns/net").stat().st_ino == inode
            ):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found
