# SPDX-License-Identifier: Apache-2.0
"""Pods that may only reach names: denied before they ask, allowed with the first packet after the answer."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from sdn.lab import namespaces
from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import patience, wait_until
from tests.lab import labs
from tests.lab import policy_documents as documents
from tests.lab import service_objects as objects
from tests.lab.service_clients import Conversation, ask
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Listener, Request, family_of

pytestmark = pytest.mark.alone

NAMESPACE = "shut"
DNS = "10.96.0.10"
PORT = 80
FAMILIES = ("IPv4", "IPv6")
#: Seconds (stretched) in which nothing may be heard of what is denied.
SILENCE = 0.5
_ETH_P_ALL = 0x0003
POLICY = documents.cluster_policy(
    "names",
    "Admin",
    {"namespaces": {"matchLabels": {documents.NAMESPACE_NAME: NAMESPACE}}},
    egress=[{"action": "Accept", "to": [{"domainNames": ["*.Names.example.", "alias.example.org"]}]}],
)


class Outside:
    """The machine `outside`: its name server, and what it answers."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._numbers = 16
        #: Lower case, with the final dot.
        self.records: dict[tuple[str, str], list[str]] = {}
        self.aliases: dict[str, str] = {}
        self._end = threading.Event()
        machine = lab.spec.outside
        with namespaces.entered(machine.netns):
            self._channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._channel.bind((machine.ipv4, 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._channel.close()

    def addresses(self) -> dict[str, str]:
        """New ones of the machine, on which it serves: one a family."""
        self._numbers += 1
        made = {"IPv4": f"198.51.100.{self._numbers}", "IPv6": f"2001:db8::{self._numbers:x}"}
        self._lab.run("outside", "ip", "address", "add", f"{made['IPv4']}/32", "dev", "lo")
        self._lab.run("outside", "ip", "address", "add", f"{made['IPv6']}/128", "dev", "lo", "nodad")
        return made

    def name(self, name: str) -> dict[str, str]:
        """A name with new addresses."""
        made = self.addresses()
        for family, kind in (("IPv4", "A"), ("IPv6", "AAAA")):
            self.records[f"{name}.", kind] = [made[family]]
        return made

    def _serve(self) -> None:
        self._channel.settimeout(0.2)
        while not self._end.is_set():
            try:
                question, sender = self._channel.recvfrom(4096)
            except TimeoutError:
                continue
            self._channel.sendto(self._answer(dns.message.from_wire(question)).to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        asked = query.question[0]
        name, kind = asked.name.to_text().lower(), dns.rdatatype.to_text(asked.rdtype)
        known = {owner for owner, _ in self.records} | set(self.aliases)
        if name not in known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if name in self.aliases:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", self.aliases[name]))
            name = self.aliases[name]
        if data := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *data))
        return answer


class Syns:
    """Counts the SYNs that a pod sends to an address, for the time of a `with` block."""

    def __init__(self, pod: PodRecord, address: str) -> None:
        self._version = 6 if ":" in address else 4
        self._packed = socket.inet_pton(family_of(address), address)
        with namespaces.entered(pod.netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.bind(("eth0", _ETH_P_ALL))
        self._socket.setblocking(False)

    def count(self) -> int:
        """Since the last time."""
        found = 0
        while True:
            try:
                packet, where = self._socket.recvfrom(65535)
            except BlockingIOError:
                return found
            if where[2] == socket.PACKET_OUTGOING and self._is_syn(packet):
                found += 1

    def _is_syn(self, packet: bytes) -> bool:
        if not packet or packet[0] >> 4 != self._version:
            return False
        start, protocol, destination = (20, 9, 16) if self._version == 4 else (40, 6, 24)
        size = len(self._packed)
        if packet[protocol] != socket.IPPROTO_TCP or packet[destination : destination + size] != self._packed:
            return False
        if self._version == 4:
            start = (packet[0] & 0xF) * 4
        return packet[start + 13] & 0x12 == 0x02

    def __enter__(self) -> Syns:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Names:
    """The lab with its pods."""

    def __init__(self, lab: Lab, outside: Outside, servers: Servers) -> None:
        self.lab = lab
        self.outside = outside
        netns = lab.spec.outside.netns
        servers.listen(*(Listener(netns, "outside", "tcp", address, PORT) for address in ("0.0.0.0", "::")))
        documents.declare(
            lab,
            [
                documents.network_policy("deny", NAMESPACE, policyTypes=["Egress"]),
                POLICY,
            ],
        )
        self.pods = {
            name: lab.pod_add(name, NAMESPACE, node)
            for name, node in (("one", "node-1"), ("other", "node-1"), ("far", "node-2"))
        }

    def ask(self, pod: str, name: str, family: str = "IPv4", seconds: float = 10) -> list[str]:
        """What the cluster's DNS answers to a pod, within `seconds` (stretched)."""
        kind = "A" if family == "IPv4" else "AAAA"
        query = dns.message.make_query(name, kind, use_edns=0)
        with namespaces.entered(self.pods[pod].netns):
            answer = dns.query.udp(query, DNS, timeout=patience(seconds))
        wanted = dns.rdatatype.from_text(kind)
        return [str(item) for found in answer.answer if found.rdtype == wanted for item in found]

    def reaches(self, pod: str, address: str) -> bool:
        """Whether a connection is answered."""
        request = Request(self.pods[pod].netns, "tcp", address, PORT, timeout=SILENCE, attempts=1)
        (answer,) = ask(request)
        assert answer.outcome in ("answered", "silence"), answer
        return answer.outcome == "answered"

    def connect(self, pod: str, address: str) -> tuple[int, float]:
        """Connect; how many SYNs that took, and how many seconds."""
        with namespaces.entered(self.pods[pod].netns):
            channel = socket.socket(family_of(address), socket.SOCK_STREAM)
        with channel, Syns(self.pods[pod], address) as syns:
            channel.settimeout(patience(20))
            began = time.monotonic()
            channel.connect((address, PORT))
            return syns.count(), time.monotonic() - began


@contextmanager
def running() -> Iterator[Names]:
    with labs.running("domains", nodes=2) as lab, Servers() as servers:
        outside = Outside(lab)
        try:
            yield Names(lab, outside, servers)
        finally:
            outside.close()


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    with running() as found:
        # Answers are watched for from when an agent was told so, which nobody confirms.
        found.outside.name("ready.names.example")

        def watched(pod: str) -> bool:
            try:
                return found.reaches(pod, found.ask(pod, "ready.names.example", seconds=1)[0])
            except dns.exception.Timeout:  # the server has just begun
                return False

        for pod in ("one", "far"):
            wait_until(partial(watched, pod), "the node's DNS to watch for names", 20)
        yield found


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_is_closed_until_its_name_was_asked_for_and_open_to_the_next_packet(
    names: Names, family: str
) -> None:
    name = f"first-{family.lower()}.names.example"
    address = names.outside.name(name)[family]
    other = names.outside.addresses()[family]
    assert not names.reaches("one", address)
    assert names.ask("one", name, family) == [address]
    syns, seconds = names.connect("one", address)
    print(f"connected after {seconds * 1000:.1f} ms")
    assert syns == 1
    assert not names.reaches("one", other)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_first_packet_is_lost_of_many_names(names: Names, family: str) -> None:
    """Half of them were tried in vain right before, so that the switch remembers a refusal."""
    lost, times = [], []
    for number in range(30):
        name = f"many-{number}-{family.lower()}.names.example"
        address = names.outside.name(name)[family]
        if number % 2:
            with namespaces.entered(names.pods["one"].netns):
                channel = socket.socket(family_of(address), socket.SOCK_STREAM)
            with channel:
                channel.setblocking(False)
                channel.connect_ex((address, PORT))
                time.sleep(0.05)
        began = time.monotonic()
        assert names.ask("one", name, family) == [address]
        asked = time.monotonic() - began
        syns, seconds = names.connect("one", address)
        times.append((asked, seconds))
        if syns != 1:
            lost.append((name, syns))
    held, connected = sorted(one for one, _ in times), sorted(one for _, one in times)
    print(f"answers after {_spread(held)}, connected after {_spread(connected)}")
    assert not lost


def _spread(seconds: list[float]) -> str:
    return f"{seconds[len(seconds) // 2] * 1000:.1f} ms (at most {seconds[-1] * 1000:.1f})"


def test_a_program_reaches_a_name_through_the_c_librarys_resolver(names: Names) -> None:
    name = "program.names.example"
    made = names.outside.name(name)
    code = f"import socket; print(socket.create_connection(({name!r}, {PORT}), 20).getpeername()[0])"
    with Syns(names.pods["far"], made["IPv4"]) as syns4, Syns(names.pods["far"], made["IPv6"]) as syns6:
        shown = names.lab.run("shut/far", sys.executable, "-c", code)
        assert shown.stdout.strip() in made.values(), shown
        assert syns4.count() + syns6.count() == 1


def test_other_names_open_nothing(names: Names) -> None:
    made = names.outside.name("www.example.net")
    assert names.ask("one", "www.example.net") == [made["IPv4"]]
    names.outside.name("names.example")
    apex = names.outside.records["names.example.", "A"]
    assert names.ask("one", "names.example") == apex
    for address in (made["IPv4"], *apex):
        assert not names.reaches("one", address)


def test_an_alias_opens_what_it_leads_to(names: Names) -> None:
    address = names.outside.name("far-away.example.net")["IPv4"]
    names.outside.aliases["alias.example.org."] = "far-away.example.net."
    assert names.ask("one", "far-away.example.net") == [address]
    assert not names.reaches("one", address)
    assert names.ask("one", "ALIAS.example.org") == [address]
    assert names.connect("one", address)[0] == 1


def test_what_one_pod_was_answered_is_open_to_others_of_the_policy_on_all_nodes(names: Names) -> None:
    address = names.outside.name("shared.names.example")["IPv4"]
    assert names.ask("one", "shared.names.example") == [address]
    assert names.reaches("other", address)
    wait_until(lambda: names.reaches("far", address), "the other node's switch to follow", 10)


def test_a_controller_that_starts_again_cuts_nothing_and_closes_nothing(names: Names) -> None:
    made = names.outside.name("stays.names.example")
    for family in FAMILIES:
        assert names.ask("one", "stays.names.example", family) == [made[family]]
    talks = [Conversation(Request(names.pods["one"].netns, "tcp", made[family], PORT)) for family in FAMILIES]
    for talk in talks:
        talk.ask()
    old = names.lab.kill("controller-1")
    names.lab.wait_restarted("controller-1", old)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for talk in talks:
            talk.ask()
        for family in FAMILIES:
            assert names.connect("one", made[family])[0] == 1
        time.sleep(0.2)
    names.lab.wait_ready()
    objects.settle(names.lab)
    for talk in talks:
        talk.ask()
        talk.close()
    for pod in names.pods:
        assert names.reaches(pod, made["IPv4"])


def test_without_a_controller_answers_come_at_once_and_open_when_it_is_back(names: Names) -> None:
    address = names.outside.name("late.names.example")["IPv4"]
    names.lab.stop("controller-1")
    try:
        wait_until(lambda: _quick(names, "late.names.example"), "answers that are not held", 20)
        assert not names.reaches("one", address)
    finally:
        names.lab.start("controller-1")
    # The pod does not ask again: the node's DNS server tells what it could not tell.
    wait_until(lambda: names.reaches("one", address), "the address to be open", 30)
    names.lab.wait_ready()


def _quick(names: Names, name: str) -> bool:
    began = time.monotonic()
    assert names.ask("one", name)
    return time.monotonic() - began < 0.5


def test_an_agent_that_starts_again_watches_again(names: Names) -> None:
    old = names.lab.kill("node-1/agent")
    names.lab.wait_restarted("node-1/agent", old)
    names.lab.wait_ready()
    numbers = iter(range(100))

    def watched() -> bool:
        # A new name each time: one that was asked for too early is open only when it is asked for again.
        name = f"again-{next(numbers)}.names.example"
        address = names.outside.name(name)["IPv4"]
        try:
            assert names.ask("one", name, seconds=1) == [address]
        except dns.exception.Timeout:  # the question went to the server that has just ended
            return False
        return names.reaches("one", address)

    wait_until(watched, "the new agent's DNS server to watch", 20)


def test_without_the_policy_the_name_opens_nothing(names: Names) -> None:
    address = names.outside.name("gone.names.example")["IPv4"]
    assert names.ask("one", "gone.names.example") == [address]
    assert names.connect("one", address)[0] == 1
    documents.delete(names.lab, [POLICY])
    try:
        objects.settle(names.lab)
        assert not names.reaches("one", address)
        assert names.ask("one", "gone.names.example") == [address]
        assert not names.reaches("one", address)
    finally:
        documents.declare(names.lab, [POLICY])


# What counts above must be able to tell.


def test_syns_are_told_apart() -> None:
    syn = Syns.__new__(Syns)
    syn._version, syn._packed = 4, socket.inet_aton("192.0.2.1")
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, bytes(4), syn._packed)
    for flags, wanted in ((0x02, True), (0x12, False), (0x10, False), (0xC2, True)):
        assert syn._is_syn(header + bytes(13) + bytes((flags,)) + bytes(6)) is wanted
