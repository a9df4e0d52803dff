# SPDX-License-Identifier: Apache-2.0
"""The DNS server as its agent keeps it: a real process, asked over real sockets."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import msgspec
import pytest

from agent.dns import predecessor
from agent.dns.child import DnsServer
from agent.dns.config import DnsConfig, from_assignment, upstream
from agent.dns.upstreams import Upstreams, nameservers
from agent.nodesetup.facts import Assignment
from agent.services.table import Changes, Endpoint, Port, Service
from tests.ports import unused_port
from tests.unit.dns_upstream import Upstream, example, serving

WEB = Service(
    namespace="default",
    name="web",
    cluster_ips=(ipaddress.ip_address("10.96.0.5"),),
    ports=(Port("http", "TCP", 80),),
)
DB = Service(
    namespace="shop",
    name="db",
    ports=(Port("sql", "TCP", 5432),),
    endpoints=tuple(
        Endpoint(ipaddress.ip_address(f"10.244.1.{n}"), f"db-{n}", {"sql": 5432}) for n in range(1, 101)
    ),
)
FAR = Service(namespace="shop", name="far", type="ExternalName", external_name="www.example.com")
PATIENCE = 60.0


class Served:
    """A DNS server, and questions to it."""

    def __init__(self, *upstreams: str, folder: Path | None = None, port: int = 0) -> None:
        self.config = DnsConfig(
            listen=("127.0.0.1", "::1"),
            domain="cluster.local",
            ranges=("10.96.0.0/16", "10.244.0.0/16"),
            nameservers=("10.96.0.10",),
            upstreams=upstreams,
            port=port or unused_port(),
        )
        self.server = DnsServer(folder)
        self.server.assign(self.config)
        self.server.start()
        self.until(self.up)

    def up(self) -> bool:
        """Whether it answers on all addresses, over both protocols."""
        query = dns.message.make_query("dns-version.cluster.local", "TXT")
        try:
            for where in self.config.listen:
                dns.query.udp(query, where, timeout=0.2, port=self.config.port)
                dns.query.tcp(query, where, timeout=0.2, port=self.config.port)
        except (OSError, EOFError, dns.exception.Timeout):
            return False
        return True

    def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, where: str = "127.0.0.1"
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
        send = dns.query.tcp if tcp else dns.query.udp
        return send(query, where, timeout=PATIENCE, port=self.config.port)

    def data(self, name: str, kind: str = "A", *, tcp: bool = False, where: str = "127.0.0.1") -> list[str]:
        return [str(item) for found in self.ask(name, kind, tcp=tcp, where=where).answer for item in found]

    def code(self, name: str, kind: str = "A") -> int:
        return int(self.ask(name, kind).rcode())

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self.server._process is not None
        return self.server._process.pid


@contextmanager
def served(*upstreams: str) -> Iterator[Served]:
    made = Served(*upstreams)
    try:
        yield made
    finally:
        made.server.close()


@pytest.fixture(scope="module")
def outside() -> Iterator[Upstream]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def dns_server(outside: Upstream) -> Iterator[Served]:
    with served(f"127.0.0.1:{outside.port}") as made:
        made.server.take(Changes((WEB, DB, FAR)))
        made.server.complete()
        made.until(lambda: made.code("nobody.default.svc.cluster.local") == dns.rcode.NXDOMAIN)
        yield made


@pytest.mark.parametrize("where", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("tcp", [False, True])
def test_names_are_answered_over_both_protocols_and_families(
    dns_server: Served, where: str, tcp: bool
) -> None:
    assert dns_server.data("web.default.svc.cluster.local", tcp=tcp, where=where) == ["10.96.0.5"]


def test_a_long_answer_is_cut_over_udp_and_whole_over_tcp(dns_server: Served) -> None:
    assert dns_server.ask("db.shop.svc.cluster.local").flags & dns.flags.TC
    assert len(dns_server.data("db.shop.svc.cluster.local", tcp=True)) == 100


def test_several_questions_may_come_on_one_connection_also_in_parts(dns_server: Served) -> None:
    query = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()
    framed = len(query).to_bytes(2, "big") + query
    with socket.create_connection(("127.0.0.1", dns_server.config.port), timeout=30) as connection:
        stream = connection.makefile("rb")
        for part in (framed + framed[:7], framed[7:]):
            connection.sendall(part)
        for _ in range(2):
            size = int.from_bytes(stream.read(2), "big")
            assert dns.message.from_wire(stream.read(size)).answer
        connection.sendall(b"\0\3abc")
        assert stream.read() == b""


def test_nobody_is_kept_out_by_connections_that_ask_nothing(dns_server: Served) -> None:
    query = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()
    framed = len(query).to_bytes(2, "big") + query
    with ExitStack() as opened:

        def connect() -> socket.socket:
            where = ("127.0.0.1", dns_server.config.port)
            return opened.enter_context(socket.create_connection(where, timeout=PATIENCE))

        def answered(connection: socket.socket) -> bool:
            connection.sendall(framed)
            return bool(connection.recv(4096))

        busy = connect()
        for _ in range(300):
            connect()
            assert answered(busy)
        assert answered(connect())


def test_services_that_change_and_go_are_followed(dns_server: Served) -> None:
    new = Service(namespace="default", name="new", cluster_ips=(ipaddress.ip_address("10.96.0.6"),))
    dns_server.server.take(Changes((new,)))
    dns_server.until(lambda: dns_server.data("new.default.svc.cluster.local") == ["10.96.0.6"])
    dns_server.server.take(Changes((), (new.key,)))
    dns_server.until(lambda: dns_server.code("new.default.svc.cluster.local") == dns.rcode.NXDOMAIN)


def test_other_names_are_asked_of_the_upstream_server(dns_server: Served, outside: Upstream) -> None:
    assert dns_server.data("WWW.example.com") == ["192.0.2.80"]
    assert dns_server.data("www.example.com", tcp=True) == ["192.0.2.80"]
    assert [tcp for query, tcp in outside.queries][-2:] == [False, True]
    assert dns_server.code("nobody.example.com") == dns.rcode.NXDOMAIN
    assert dns_server.ask("big.example.com", "TXT").flags & dns.flags.TC
    assert len(dns_server.data("big.example.com", "TXT", tcp=True)) == 20


def test_an_external_name_is_answered_with_the_addresses_there(dns_server: Served) -> None:
    assert dns_server.data("far.shop.svc.cluster.local") == ["www.example.com.", "192.0.2.80"]
    assert dns_server.data("far.shop.svc.cluster.local", "AAAA") == ["www.example.com.", "2001:db8::80"]


def test_garbage_does_not_disturb(dns_server: Served) -> None:
    pid = dns_server.pid
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for size in range(200):
            channel.sendto(os.urandom(size), ("127.0.0.1", dns_server.config.port))
    assert dns_server.data("web.default.svc.cluster.local") == ["10.96.0.5"]
    assert dns_server.pid == pid


def test_a_process_that_is_killed_is_replaced_and_told_everything(dns_server: Served) -> None:
    before = dns_server.pid
    os.kill(before, signal.SIGKILL)
    dns_server.until(lambda: dns_server.server._process is not None and dns_server.pid != before)
    dns_server.until(dns_server.up)
    assert dns_server.pid != before
    dns_server.until(lambda: dns_server.code("nobody.default.svc.cluster.local") == dns.rcode.NXDOMAIN)
    assert dns_server.data("web.default.svc.cluster.local") == ["10.96.0.5"]


def test_nothing_is_denied_before_all_services_are_known_and_nothing_served_when_not_assigned() -> None:
    with served() as made:
        made.server.take(Changes((WEB,)))
        made.until(lambda: made.data("web.default.svc.cluster.local") == ["10.96.0.5"])
        assert made.code("other.default.svc.cluster.local") == dns.rcode.SERVFAIL
        process = made.server._process
        assert process is not None
        made.server.assign(None)
        made.until(lambda: process.poll() is not None)


def test_the_process_of_an_agent_that_ended_serves_until_the_next_agents_does(tmp_path: Path) -> None:
    old = Served(folder=tmp_path)
    old.server.take(Changes((WEB,), (), True))
    old.until((tmp_path / "dns.json").exists)
    process = old.server._process
    assert process is not None
    old.server.close()
    new = None
    try:
        for _ in range(20):
            assert old.data("web.default.svc.cluster.local") == ["10.96.0.5"]
        new = Served(folder=tmp_path, port=old.config.port)
        assert process.poll() is None
        # Whoever of the two answers: never "no".
        while process.poll() is None:
            assert old.code("web.default.svc.cluster.local") in (dns.rcode.NOERROR, dns.rcode.SERVFAIL)
            new.server.take(Changes((WEB,), (), True))
        assert new.data("web.default.svc.cluster.local") == ["10.96.0.5"]
    finally:
        process.kill()
        if new is not None:
            new.server.close()
            assert new.server._process is not None
            new.server._process.kill()


def test_a_process_that_cannot_be_noted_is_looked_after_all_the_same(tmp_path: Path) -> None:
    made = Served(folder=tmp_path / "gone")
    try:
        made.server.take(Changes((WEB,), (), True))
        made.until(lambda: made.code("nobody.default.svc.cluster.local") == dns.rcode.NXDOMAIN)
        before = made.pid
        os.kill(before, signal.SIGKILL)
        made.until(lambda: made.server._process is not None and made.pid != before)
        made.until(made.up)
    finally:
        process = made.server._process
        made.server.close()
        assert process is not None
        process.kill()
        process.wait()


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("agent.dns.child.sys.executable", "/nowhere/python")
        server = DnsServer()
        server.assign(DnsConfig(listen=("127.0.0.1",), domain="cluster.local", port=unused_port()))
        server.start()
        time.sleep(0.3)
        assert server._process is None
    try:
        deadline = time.monotonic() + PATIENCE
        while server._process is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        server.close()


def test_only_the_process_that_was_meant_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "dns.json"
    assert predecessor.succeed(file, os.getpid()) is None
    me = file.read_bytes()
    assert predecessor.succeed(file, os.getpid()) is None
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            # Somebody else has the pid by now.
            file.write_bytes(msgspec.json.encode(predecessor.Process(other.pid, 1)))
            assert predecessor.succeed(file, os.getpid()) is None
            assert other.poll() is None
            file.write_bytes(b"{")
            assert predecessor.succeed(file, other.pid) is None
            assert predecessor.succeed(file, os.getpid()) == other.pid
            assert other.wait(PATIENCE) == -signal.SIGTERM
        finally:
            other.kill()
    assert file.read_bytes() == me


def test_a_server_that_is_silent_or_refuses_is_passed_over() -> None:
    def refusing(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.REFUSED)
        return [response.to_wire()]

    with serving(lambda query, tcp: []) as silent, serving(refusing) as refuses, serving() as knows:
        servers = [f"127.0.0.1:{one.port}" for one in (silent, refuses, knows)]
        with served("127.0.0.1:1", *servers) as made:
            assert made.data("www.example.com") == ["192.0.2.80"]
            # Who knew is asked first from then on.
            before = len(silent.queries)
            assert made.data("www.example.com") == ["192.0.2.80"]
            assert len(silent.queries) == before
        with served(servers[1]) as made:
            assert made.code("www.example.com") == dns.rcode.REFUSED
        with served("127.0.0.1:1") as made:
            assert made.code("www.example.com") == dns.rcode.SERVFAIL


def test_answers_to_something_else_are_not_taken() -> None:
    def lying(query: dns.message.Message, tcp: bool) -> list[bytes]:
        other = dns.message.make_query("evil.example.com", "A", id=query.id)
        wrong = bytearray(dns.message.make_response(query).to_wire())
        wrong[0] ^= 1
        return [dns.message.make_response(other).to_wire(), bytes(wrong), b"", *example(query, tcp)]

    with serving(lying) as liar, served(f"127.0.0.1:{liar.port}") as made:
        assert made.data("www.example.com") == ["192.0.2.80"]


def test_many_questions_at_once_are_all_answered(dns_server: Served) -> None:
    query = dns.message.make_query("www.example.com", "A")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(PATIENCE)
        channel.connect(("127.0.0.1", dns_server.config.port))
        for number in range(200):
            query.id = number
            channel.send(query.to_wire())
        found = {dns.message.from_wire(channel.recv(4096)).id for _ in range(200)}
    assert found == set(range(200))


# --- what it is told


def test_an_assignment_says_what_is_served() -> None:
    assignment = Assignment(
        pod_ranges=["fd00:10:244:1::/64", "10.244.1.0/24"],
        cluster_ranges=["10.244.0.0/16"],
        openflow_targets=[],
        service_ranges=["10.96.0.0/16"],
        cluster_domain="cluster.local",
        dns_addresses=["10.96.0.10"],
        serve_dns=True,
    )
    config = from_assignment(assignment, ("192.0.2.1",))
    assert config is not None
    assert config.listen == ("10.244.1.1", "fd00:10:244:1::1")
    assert config.ranges == ("10.244.0.0/16", "10.96.0.0/16")
    assert (config.nameservers, config.upstreams, config.port) == (("10.96.0.10",), ("192.0.2.1",), 53)
    assert from_assignment(None) is None
    assert from_assignment(Assignment(["10.244.1.0/24"], [], [])) is None


def test_upstream_servers_are_written_with_and_without_a_port() -> None:
    assert upstream("192.0.2.1") == ("192.0.2.1", 53)
    assert upstream("192.0.2.1:5353") == ("192.0.2.1", 5353)
    assert upstream("2001:db8::1") == ("2001:db8::1", 53)
    assert upstream("[2001:db8::1]:5353") == ("2001:db8::1", 5353)
    for wrong in ("", "dns.example.com", "192.0.2.1:0", "192.0.2.1:x", "[2001:db8::1", "[::1]x"):
        with pytest.raises(ValueError, match="is n"):
            upstream(wrong)


def test_the_nodes_own_servers_are_asked_but_never_ourselves(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    text = "# x\nnameserver 10.96.0.10\nnameserver\nnameserver bad\nsearch a\nnameserver 192.0.2.1\n"
    file.write_text(text, encoding="ascii")
    now = [0.0]
    found = Upstreams((), ("10.96.0.10",), file, lambda: now[0])
    assert found.servers() == (("192.0.2.1", 53),)
    file.write_text("nameserver 192.0.2.2\n", encoding="ascii")
    now[0] += 10
    assert found.servers() == (("192.0.2.2", 53),)
    file.unlink()
    now[0] += 10
    assert found.servers() == (("192.0.2.2", 53),)
    assert Upstreams(("192.0.2.7",), (), file).servers() == (("192.0.2.7", 53),)
    assert Upstreams(("10.96.0.10",), ("10.96.0.10",), file).servers() == ()
    assert nameservers("nameserver fe80::1%eth0\n") == [("fe80::1%eth0", 53)]
