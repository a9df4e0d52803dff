# SPDX-License-Identifier: Apache-2.0
"""Of many tracked connections between the same hosts exactly the named ones end: a real tracker, as its node's agent
reads it and as the controller flushes it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from agent.services.conntrackdump import parse
from agent.services.listing import Ranges, listed
from controller.forgetting import Flush, messages
from controller.sweeping import flush_of
from sdn.openflow import CtTuple
from sdn.pipeline.registers import Mark
from sdn.pipeline.topology import Address
from sdn.v1 import controller_pb2
from tests.switch.ovs import Connection, PrivateSwitch, running_switch, wait_until

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)

CLIENT: Final = {4: "10.244.1.5", 6: "fd00:10:244:1::5"}
SERVER: Final = {4: "10.244.2.7", 6: "fd00:10:244:2::7"}
SERVICE: Final = {4: "10.96.0.10", 6: "fd00:10:96::a"}
EVERYTHING: Final = Ranges(["0.0.0.0/0", "::/0"])

Tracked = controller_pb2.TrackedConnection


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    """A switch that tracks what comes, and translates what is for a Service to the server's port 8080."""
    switch.clear()
    switch.appctl("dpctl/flush-conntrack")
    if "p1" not in switch.vsctl("list-ports", "br0"):
        switch.add_port("p1", 1)
    for family, version in (("ip", 4), ("ipv6", 6)):
        switch.ofctl("add-flow", f"priority=1,{family},actions=ct(commit,zone=1)")
        # The same in a zone that is not looked at.
        switch.ofctl("add-flow", f"priority=2,{family},in_port=1,actions=ct(commit,zone=7),resubmit(,1)")
        switch.ofctl("add-flow", f"table=1,priority=1,{family},actions=ct(commit,zone=1)")
        field = "nw_dst" if version == 4 else "ipv6_dst"
        to = SERVER[version] if version == 4 else f"[{SERVER[version]}]"
        for protocol in ("tcp", "udp"):
            flow = f"{protocol if version == 4 else protocol + '6'},{field}={SERVICE[version]}"
            actions = f"ct(commit,zone=1,nat(dst={to}:8080))"
            switch.ofctl("add-flow", f"table=1,priority=2,{flow},actions={actions}")
    with switch.connect() as connection:
        yield connection


def send(switch: PrivateSwitch, version: int, destination: str, transport: str, protocol: int) -> None:
    """Let a packet in, in the words of ovs-dpctl(8)."""
    ethernet = "in_port(1),eth(src=0a:58:00:00:00:05,dst=0a:58:00:00:00:07)"
    addresses = f"src={CLIENT[version]},dst={destination},proto={protocol}"
    if version == 4:
        outer = f"eth_type(0x0800),ipv4({addresses},tos=0,ttl=64,frag=no)"
    else:
        outer = f"eth_type(0x86dd),ipv6({addresses},label=0,tclass=0,hlimit=64,frag=no)"
    switch.appctl("netdev-dummy/receive", "p1", f"{ethernet},{outer},{transport}")


def send_ip(switch: PrivateSwitch, version: int, protocol: int, body: bytes) -> None:
    """A datagram as bytes: the words have no place for the id of an echo."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    source, destination = (socket.inet_pton(family, each[version]) for each in (CLIENT, SERVER))
    pseudo = source + destination + struct.pack("!II", len(body), 58) if protocol == 58 else b""
    body = body[:2] + _checksum(pseudo + body) + body[4:]
    if version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
        header = header[:10] + _checksum(header + source + destination)
        kind = b"\x08\x00"
    else:
        header = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
        kind = b"\x86\xdd"
    frame = bytes.fromhex("0a58000000070a5800000005") + kind + header + source + destination + body
    switch.appctl("netdev-dummy/receive", "p1", frame.hex())


def _checksum(data: bytes) -> bytes:
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def zone(switch: PrivateSwitch, number: int) -> str:
    return switch.appctl("dpctl/dump-conntrack", f"zone={number}")


def tracked(switch: PrivateSwitch) -> list[Tracked]:
    return list(listed(zone(switch, 1), EVERYTHING))


def tcp(switch: PrivateSwitch, version: int, number: int) -> None:
    send(switch, version, SERVER[version], f"tcp(src={40000 + number},dst=8080),tcp_flags(syn)", 6)


def udp(switch: PrivateSwitch, version: int, number: int) -> None:
    send(switch, version, SERVER[version], f"udp(src={40000 + number},dst=8080)", 17)


def tcp_to_service(switch: PrivateSwitch, version: int, number: int) -> None:
    send(switch, version, SERVICE[version], f"tcp(src={40000 + number},dst=80),tcp_flags(syn)", 6)


def udp_to_service(switch: PrivateSwitch, version: int, number: int) -> None:
    send(switch, version, SERVICE[version], f"udp(src={40000 + number},dst=80)", 17)


def icmp(switch: PrivateSwitch, version: int, number: int) -> None:
    echo = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, 500 + number, 1)
    send_ip(switch, version, 1 if version == 4 else 58, echo)


def end(connection: Connection, *flushes: Flush) -> None:
    """What the controller's connection does."""
    sent = [message for flush in flushes for message in messages(flush)]
    connection.transact(b"".join(message(xid) for xid, message in enumerate(sent, 1)))


def known(switch: PrivateSwitch, count: int) -> list[Tracked]:
    """Wait until so many connections are tracked."""
    wait_until(lambda: len(tracked(switch)) == count, "the connections to be known")
    return tracked(switch)


def place(one: Tracked) -> tuple[int, int]:
    return one.source_port, one.icmp_id


@pytest.mark.parametrize(
    ("begin", "version"),
    [
        (begin, version)
        for begin in (tcp, udp, icmp, tcp_to_service, udp_to_service)
        for version in (4, 6)
        if (begin, version) != (icmp, 6)
    ],
)
def test_exactly_the_named_connections_end(
    switch: PrivateSwitch,
    connection: Connection,
    begin: Callable[[PrivateSwitch, int, int], None],
    version: int,
) -> None:
    for number in range(12):
        begin(switch, version, number)
    before = known(switch, 12)
    named = sorted(before, key=place)[3:8:2]
    end(connection, *map(flush_of, named))
    left = tracked(switch)
    assert [one for one in before if one not in left] == [one for one in before if one in named]
    # Of UDP they are marked.
    assert sum(one.mark == Mark.DENIED for one in left) == (3 if "udp" in begin.__name__ else 0)
    assert len(left) == (12 if "udp" in begin.__name__ else 9)
    # What another zone knows of them is another matter.
    assert len(list(parse(zone(switch, 7)))) == 12


@pytest.mark.parametrize(
    ("version", "protocol"), [(6, 58), (4, 58), (6, 1)], ids=["ICMPv6", "ICMPv6 over IPv4", "ICMP over IPv6"]
)
def test_what_the_switch_would_not_survive_is_marked_as_denied(
    switch: PrivateSwitch, connection: Connection, version: int, protocol: int
) -> None:
    for number in (1, 2, 3):
        send_ip(
            switch, version, protocol, struct.pack("!BBHHH", 8 if protocol == 1 else 128, 0, 0, number, 1)
        )
    udp(switch, version, 1)
    of_echo = (version, protocol) == (6, 58)
    before = known(switch, 4 if of_echo else 2)
    named = [one for one in before if one.protocol == protocol and (not of_echo or one.icmp_id == 2)]
    end(connection, *map(flush_of, named))
    for one in named:
        one.mark = Mark.DENIED
    assert sorted(map(str, tracked(switch))) == sorted(map(str, before))
    # Every answer has the mark then.
    assert len(named) == 1


def test_all_connections_of_an_address_go_beside_those_that_the_switch_would_not_survive(
    switch: PrivateSwitch, connection: Connection
) -> None:
    for version in (4, 6):
        for number in (1, 2, 3):
            tcp(switch, version, number)
            udp_to_service(switch, version, number)
            icmp(switch, version, number)
        send(switch, version, SERVER[version], "sctp(src=1000,dst=2000)", 132)
    known(switch, 20)
    end(connection, (1, None, CtTuple(source=Address.parse(SERVER[6]))))
    left = tracked(switch)
    assert sorted(one.protocol for one in left if ":" in one.source) == [58, 58, 58]
    assert len(left) == 13
    end(connection, (1, CtTuple(source=Address.parse(CLIENT[4])), None))
    assert [one.protocol for one in tracked(switch)] == [58, 58, 58]


def test_a_translated_connection_goes_and_those_straight_to_its_endpoint_stay(
    switch: PrivateSwitch, connection: Connection
) -> None:
    for number in range(4):
        tcp(switch, 4, number)
        tcp_to_service(switch, 4, 100 + number)
        udp_to_service(switch, 4, 100 + number)
    (one,) = [each for each in known(switch, 12) if each.protocol == 6 and each.source_port == 40101]
    assert (one.destination, one.destination_port) == (SERVICE[4], 80)
    assert (one.reply_source, one.reply_source_port) == (SERVER[4], 8080)
    end(connection, flush_of(one))
    assert one not in tracked(switch)
    assert len(tracked(switch)) == 11


def test_what_has_no_ports_ends_by_its_hosts_and_protocol(
    switch: PrivateSwitch, connection: Connection
) -> None:
    """The userspace tracker has one entry for all associations of SCTP between two hosts."""
    send(switch, 4, SERVER[4], "sctp(src=1000,dst=2000)", 132)
    send(switch, 6, SERVER[6], "sctp(src=1000,dst=2000)", 132)
    udp(switch, 4, 1)
    (one,) = [each for each in known(switch, 3) if each.protocol == 132 and ":" not in each.source]
    assert (one.source_port, one.destination_port) == (0, 0)
    end(connection, flush_of(one))
    assert sorted(each.protocol for each in tracked(switch)) == [17, 132]


def test_one_that_is_gone_already_is_no_error(switch: PrivateSwitch, connection: Connection) -> None:
    tcp(switch, 4, 1)
    (one,) = known(switch, 1)
    end(connection, flush_of(one), flush_of(one))
    end(connection, flush_of(one))
    assert tracked(switch) == []


@pytest.mark.parametrize(
    "wrong",
    [
        Tracked(protocol=6, source="10.0.0.1", destination="fd00::1", source_port=1, destination_port=2),
        Tracked(protocol=6, source="10.0.0.1", destination="10.0.0.2", source_port=70000),
        Tracked(protocol=1, source="10.0.0.1", destination="10.0.0.2", icmp_type=256),
        Tracked(protocol=300, source="10.0.0.1", destination="10.0.0.2"),
        Tracked(protocol=6, source="nowhere", destination="10.0.0.2"),
    ],
)
def test_what_can_be_no_connection_is_refused(wrong: Tracked) -> None:
    with pytest.raises(ValueError, match=r"no connection|does not appear"):
        flush_of(wrong)
