# SPDX-License-Identifier: Apache-2.0
"""Answers that policies want to know of: a real DNS server's process reports them, and holds them."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from agent.dns.child import DnsServer
from agent.dns.config import DnsConfig
from agent.dns.feed import Resolution
from agent.services.table import Changes
from tests.ports import unused_port
from tests.unit.dns_upstream import Upstream, serving
from tests.unit.test_dns_server import FAR, PATIENCE, WEB, Served

NAME = "www.example.com"
Done = Callable[[bool], None]


class Reports:
    """Takes reports as an agent does; ``at_once`` answers them."""

    def __init__(self) -> None:
        self.at_once: bool | None = None
        self.waiting: queue.SimpleQueue[tuple[Resolution, Done]] = queue.SimpleQueue()
        self.all: list[Resolution] = []

    def __call__(self, resolution: Resolution, done: Done) -> None:
        self.all.append(resolution)
        if self.at_once is None:
            self.waiting.put((resolution, done))
        else:
            done(self.at_once)

    def forget(self) -> None:
        """What came so far."""
        self.waiting = queue.SimpleQueue()
        self.all = []

    def next(self) -> tuple[Resolution, Done]:
        return self.waiting.get(timeout=PATIENCE)


class Observed(Served):
    """A DNS server whose reports are taken."""

    def __init__(self, *upstreams: str) -> None:
        self.reports = Reports()
        self.config = DnsConfig(
            listen=("127.0.0.1", "::1"), domain="cluster.local", upstreams=upstreams, port=unused_port()
        )
        self.server = DnsServer(None, self.reports)
        self.server.assign(self.config)
        self.server.take(Changes((WEB, FAR), (), True))
        self.server.start()
        self.until(self.up)

    def watch(self, *patterns: str) -> None:
        """Tell the process, and wait until it was told."""
        self.server.watch(patterns)
        # What comes through the pipe after it was taken in after it.
        self.server.take(Changes((), (WEB.key,)))
        self.until(lambda: self.data("web.default.svc.cluster.local") == [])
        self.server.take(Changes((WEB,)))
        self.until(lambda: self.data("web.default.svc.cluster.local") != [])


@contextmanager
def observed(*upstreams: Upstream) -> Iterator[Observed]:
    made = Observed(*(f"127.0.0.1:{one.port}" for one in upstreams))
    try:
        yield made
    finally:
        made.server.close()


@pytest.fixture(scope="module")
def outside() -> Iterator[Upstream]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def shared(outside: Upstream) -> Iterator[Observed]:
    with observed(outside) as made:
        yield made


@pytest.fixture
def seen(shared: Observed) -> Observed:
    """Watches example.com, and remembers nothing of it."""
    shared.reports.at_once = None
    shared.watch("*.Example.com.")
    shared.reports.forget()
    return shared


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(("kind", "address"), [("A", "192.0.2.80"), ("AAAA", "2001:db8::80")])
def test_an_answer_comes_when_its_addresses_are_in_force(
    seen: Observed, kind: str, address: str, tcp: bool
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(seen.data, "WWW.example.com", kind, tcp=tcp)
        resolution, done = seen.reports.next()
        assert (resolution.name, resolution.addresses, resolution.ttl) == (NAME, (address,), 60)
        assert not asking.done()
        done(True)
        assert asking.result(PATIENCE) == [address]
    assert seen.data(NAME, kind, tcp=not tcp) == [address]
    assert len(seen.reports.all) == 1


def test_it_comes_all_the_same_when_nobody_says_so(seen: Observed) -> None:
    began = time.monotonic()
    assert seen.data(NAME) == ["192.0.2.80"]
    # Held for about a second: less would lose packets that could have been saved.
    assert time.monotonic() - began > 0.8
    assert len(seen.reports.all) == 1


def test_what_is_not_in_force_is_reported_anew(seen: Observed) -> None:
    seen.reports.at_once = False
    for count in (1, 2):
        assert seen.data(NAME) == ["192.0.2.80"]
        assert len(seen.reports.all) == count


def test_other_answers_are_not_reported(seen: Observed) -> None:
    assert seen.data("web.default.svc.cluster.local") == ["10.96.0.5"]
    assert seen.data("nobody.example.com") == []
    assert len(seen.data("big.example.com", "TXT", tcp=True)) == 20
    seen.watch("*.example.org", "example.com", "web.default.svc.cluster.local", "far.shop.svc.cluster.local")
    assert seen.data(NAME) == ["192.0.2.80"]
    assert seen.data("web.default.svc.cluster.local") == ["10.96.0.5"]
    seen.watch()
    assert seen.data(NAME) == ["192.0.2.80"]
    assert seen.reports.all == []


def test_where_an_external_name_leads_is_reported(seen: Observed) -> None:
    seen.reports.at_once = True
    assert seen.data("far.shop.svc.cluster.local") == ["www.example.com.", "192.0.2.80"]
    assert [(one.name, one.addresses) for one in seen.reports.all] == [(NAME, ("192.0.2.80",))]


def test_a_new_process_knows_what_to_report(seen: Observed) -> None:
    seen.reports.at_once = True
    assert seen.data(NAME) == ["192.0.2.80"]
    before = seen.pid
    os.kill(before, signal.SIGKILL)
    seen.until(lambda: seen.server._process is not None and seen.pid != before)
    seen.until(seen.up)

    def reported() -> bool:
        assert seen.data(NAME) == ["192.0.2.80"]
        return len(seen.reports.all) > 1

    seen.until(reported)


def test_a_process_that_is_slow_to_be_answered_serves_others_meanwhile(seen: Observed) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(seen.data, NAME)
        _resolution, done = seen.reports.next()
        assert seen.data("web.default.svc.cluster.local") == ["10.96.0.5"]
        assert seen.data("nobody.example.com") == []
        done(True)
        assert asking.result(PATIENCE) == ["192.0.2.80"]


def test_answers_that_are_malformed_or_lead_in_circles_pass_as_they_are() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        name = query.question[0].name
        if str(name).startswith("circle"):
            for one, other in ((name, "b.example.com."), ("b.example.com.", str(name))):
                response.answer.append(dns.rrset.from_text(one, 60, "IN", "CNAME", other))
            return [response.to_wire()]
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
        return [response.to_wire()[:-3]]

    with serving(answering) as upstream, observed(upstream) as made:
        made.watch("*.example.com")
        assert len(made.data("circle.example.com")) == 2
        query = dns.message.make_query("cut.example.com", "A")
        with pytest.raises(dns.exception.FormError):
            dns.query.udp(query, "127.0.0.1", timeout=PATIENCE, port=made.config.port)
        assert made.reports.all == []
        assert made.data("web.default.svc.cluster.local") == ["10.96.0.5"]


def test_the_process_of_an_agent_that_is_gone_holds_nothing(outside: Upstream, tmp_path: Path) -> None:
    """The agent is a process of its own here, and ends by a kill."""
    port = unused_port()
    program = f"""
import sys
from pathlib import Path
from agent.dns.child import DnsServer
from agent.dns.config import DnsConfig
server = DnsServer(Path({str(tmp_path)!r}), lambda resolution, done: print("report", flush=True))
server.assign(DnsConfig(listen=("127.0.0.1",), domain="cluster.local", upstreams=("127.0.0.1:{outside.port}",),
                        port={port}))
server.watch(["*.example.com"])
server.start()
server.complete()
print("pid", flush=True)
sys.stdin.read()
"""
    made = Served.__new__(Served)
    made.config = DnsConfig(listen=("127.0.0.1",), domain="cluster.local", port=port)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        try:
            assert agent.stdout.readline() == "pid\n"
            made.until((tmp_path / "dns.json").exists)
            reported = threading.Thread(target=agent.stdout.readline)
            reported.start()

            def seen() -> bool:
                assert made.data(NAME) == ["192.0.2.80"]
                return not reported.is_alive()

            made.until(seen)
        finally:
            agent.kill()
    child = int((tmp_path / "dns.json").read_text(encoding="ascii").partition('"pid":')[2].partition(",")[0])
    try:
        assert made.data(NAME, "AAAA") == ["2001:db8::80"]
        began = time.monotonic()
        for _ in range(20):
            assert made.data(NAME, "AAAA") == ["2001:db8::80"]
        # Twenty held answers would take twenty seconds.
        assert time.monotonic() - began < 15
    finally:
        os.kill(child, signal.SIGKILL)
