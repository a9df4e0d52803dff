# SPDX-License-Identifier: Apache-2.0
"""Entries of a real connection tracker are removed by what their two directions look like, and no others.

The same bytes are what ``ovs-ofctl ct-flush`` sends: a second encoder, written by others.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sdn.openflow import CodecError, CtTuple, FlowCommand, Icmp, ct_flush, flow_image, flow_mod
from sdn.pipeline.actions import Ct, Nat, Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.topology import Address
from sdn.simulator.packet import Packet, tcp, udp
from tests.switch.frames import frame
from tests.switch.ofproto_trace import Tracer
from tests.switch.ovs import Connection, PrivateSwitch, running_switch, wait_until

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("Service", "default", "dns")
SERVICE, SERVICE6 = "10.96.0.10", "fd00:10:96::a"
ENDPOINTS: Final = ("10.244.1.5", "10.244.2.7")
ENDPOINT6: Final = "fd00:10:244:1::5"
CLIENTS: Final = ("10.244.3.1", "10.244.3.2")
CLIENT6: Final = "fd00:10:244:3::1"
ZONE: Final = 1


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    """A switch that translates a Service to an endpoint by the client's port, and four connections each."""
    switch.clear()
    switch.appctl("dpctl/flush-conntrack")
    if "p1" not in switch.vsctl("list-ports", "br0"):
        switch.add_port("p1", 1)
        switch.add_port("p2", 2)
    with switch.connect() as connection:
        flows = [
            Flow(0, 2, match(eth_type=0x0800, ip_dst=SERVICE, ip_src=client), (_to(endpoint),), 1, OWNER, "")
            for client, endpoint in zip(CLIENTS, ENDPOINTS, strict=True)
        ]
        flows.append(Flow(0, 2, match(ipv6_dst=SERVICE6), (_to(ENDPOINT6),), 1, OWNER, ""))
        # A connection of another zone, not translated.
        flows.append(Flow(0, 1, match(eth_type=0x0800), (Ct(commit=True, zone=2),), 1, OWNER, ""))
        flows.append(Flow(1, 1, match(), (Output(2),), 1, OWNER, ""))
        for flow in flows:
            connection.transact(flow_mod(FlowCommand.ADD, *flow_image(flow)))
        for client in CLIENTS:
            for port in (1001, 1002):
                _send(switch, udp(ip_src=client, ip_dst=SERVICE, udp_src=port, udp_dst=53))
            _send(switch, tcp(ip_src=client, ip_dst=SERVICE, tcp_src=1001, tcp_dst=53, tcp_flags=2))
        _send(switch, udp(ipv6_src=CLIENT6, ipv6_dst=SERVICE6, udp_src=1001, udp_dst=53))
        _send(switch, udp(ip_src=CLIENTS[0], ip_dst=ENDPOINTS[0], udp_src=1003, udp_dst=5353))
        wait_until(lambda: len(entries(switch)) == 8, "all packets through the switch")
        yield connection


def _to(endpoint: str) -> Ct:
    address = Address.parse(endpoint)
    nat = Nat("dst", address.version == 6, address.value, port_min=5353)
    return Ct(commit=True, zone=ZONE, table=1, nat=nat)


def _send(switch: PrivateSwitch, packet: Packet) -> None:
    data = frame(packet.with_(eth_src=0x0A5800000001, eth_dst=0x0A5800000002))
    switch.appctl("netdev-dummy/receive", "p1", data.hex())


def entries(switch: PrivateSwitch) -> list[str]:
    """What the tracker knows, one line a connection: ``udp,orig=(src=...),reply=(...),zone=1``."""
    return switch.appctl("dpctl/dump-conntrack").splitlines()


def address(text: str) -> Address:
    return Address.parse(text)


def test_connections_to_an_endpoint_go_and_those_to_others_stay(
    switch: PrivateSwitch, connection: Connection
) -> None:
    gone = CtTuple(17, source=address(ENDPOINTS[0]), source_port=5353)
    connection.transact(ct_flush(1, ZONE, reply=gone))
    left = entries(switch)
    assert len(left) == 6
    assert [line[:3] for line in left if f"reply=(src={ENDPOINTS[0]}" in line and "zone=1" in line] == ["tcp"]
    assert sum(f"reply=(src={ENDPOINTS[1]}" in line for line in left) == 3
    # Also in the zone of translated sources.
    connection.transact(ct_flush(1, 2, reply=gone))
    assert len(entries(switch)) == 5


def test_everything_of_an_address_goes_whatever_the_protocol(
    switch: PrivateSwitch, connection: Connection
) -> None:
    connection.transact(ct_flush(1, ZONE, reply=CtTuple(source=address(ENDPOINTS[1]))))
    assert [line for line in entries(switch) if ENDPOINTS[1] in line] == []
    assert len(entries(switch)) == 5
    connection.transact(ct_flush(1, None, original=CtTuple(source=address(CLIENTS[0]))))
    assert [ENDPOINT6 in line for line in entries(switch)] == [True]


def test_ipv6_connections_go_by_their_endpoint(switch: PrivateSwitch, connection: Connection) -> None:
    connection.transact(ct_flush(1, ZONE, reply=CtTuple(17, source=address("fd00:10:244:1::6"))))
    assert len(entries(switch)) == 8
    connection.transact(ct_flush(1, ZONE, reply=CtTuple(17, source=address(ENDPOINT6), source_port=5353)))
    assert len(entries(switch)) == 7
    assert not any(ENDPOINT6 in line for line in entries(switch))


def test_one_connection_goes_by_all_that_it_is(switch: PrivateSwitch, connection: Connection) -> None:
    one = CtTuple(17, address(CLIENTS[0]), address(SERVICE), 1001, 53)
    connection.transact(ct_flush(1, ZONE, original=one))
    assert len(entries(switch)) == 7
    both = (
        CtTuple(17, destination=address(SERVICE)),
        CtTuple(17, source=address(ENDPOINTS[1]), destination_port=1002),
    )
    connection.transact(ct_flush(1, ZONE, *both))
    assert len(entries(switch)) == 6
    assert not any("1002" in line and ENDPOINTS[1] in line for line in entries(switch))


def test_a_zone_goes_as_a_whole(switch: PrivateSwitch, connection: Connection) -> None:
    connection.transact(ct_flush(1, ZONE))
    assert ["zone=2" in line for line in entries(switch)] == [True]


def test_what_cannot_be_said_is_refused() -> None:
    one, other = CtTuple(17, source=address(CLIENT6)), CtTuple(6, source=address(CLIENT6))
    for original, reply in ((one, other), (one, CtTuple(17, destination=address(SERVICE)))):
        with pytest.raises(CodecError, match="same protocol and the same family"):
            ct_flush(1, ZONE, original, reply)
    for wrong in (CtTuple(1), CtTuple(17, icmp=Icmp(8, 0, 1)), CtTuple(icmp=Icmp(8, 0, 1))):
        with pytest.raises(CodecError, match="ICMP, and no others"):
            ct_flush(1, ZONE, wrong)
    with pytest.raises(CodecError, match="Icmp"):
        ct_flush(1, ZONE, CtTuple(1, icmp=Icmp(256, 0, 1)))
    # What the switch does not survive.
    for deadly in (CtTuple(58, icmp=Icmp(128, 0, 1)), CtTuple(source=address(CLIENT6))):
        with pytest.raises(CodecError, match="ICMPv6"):
            ct_flush(1, ZONE, reply=deadly)
    with pytest.raises(CodecError, match="zone 65536"):
        ct_flush(1, 65536)


CASES: Final = [
    (("zone=5",), 5, None, None),
    (
        ("zone=1", "", f"ct_nw_src={ENDPOINTS[0]},ct_nw_proto=17,ct_tp_src=5353"),
        1,
        None,
        CtTuple(17, source=address(ENDPOINTS[0]), source_port=5353),
    ),
    (
        (
            f"ct_nw_src={CLIENTS[0]},ct_nw_dst={SERVICE},ct_nw_proto=6,ct_tp_src=1,ct_tp_dst=53",
            f"ct_nw_dst={CLIENTS[0]}",
        ),
        None,
        CtTuple(6, address(CLIENTS[0]), address(SERVICE), 1, 53),
        CtTuple(destination=address(CLIENTS[0])),
    ),
    (
        ("zone=65535", f"ct_ipv6_dst={SERVICE6},ct_nw_proto=132", f"ct_ipv6_src={ENDPOINT6}"),
        65535,
        CtTuple(132, destination=address(SERVICE6)),
        CtTuple(source=address(ENDPOINT6)),
    ),
    (
        (
            "zone=1",
            f"ct_nw_src={CLIENTS[0]},ct_nw_dst={SERVICE},ct_nw_proto=1,icmp_type=8,icmp_code=3,icmp_id=513",
        ),
        1,
        CtTuple(1, address(CLIENTS[0]), address(SERVICE), icmp=Icmp(8, 3, 513)),
        # ovs-ofctl says this of a reply that it was told nothing of.
        CtTuple(icmp=Icmp(0, 0, 0)),
    ),
]


@pytest.mark.parametrize(("words", "zone", "original", "reply"), CASES)
def test_the_message_is_the_one_that_ovs_ofctl_sends(
    tmp_path: Path, words: tuple[str, ...], zone: int | None, original: CtTuple | None, reply: CtTuple | None
) -> None:
    theirs = sent_by_ofctl(tmp_path / "switch", "ct-flush", *words)
    assert ct_flush(0, zone, original, reply)[8:].hex() == theirs[8:].hex()
    assert ct_flush(0, zone, original, reply)[:4] == theirs[:4]


def sent_by_ofctl(path: Path, command: str, *words: str) -> bytes:
    """The one message, after the greeting, that ``ovs-ofctl`` sends to what it takes for a switch."""
    sent: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(60)

    def serve() -> None:
        peer, _ = listener.accept()
        peer.settimeout(60)
        with peer, peer.makefile("rb") as stream:
            peer.sendall(struct.pack("!BBHI", 6, 0, 8, 0))
            while True:
                header = stream.read(8)
                if len(header) < 8:
                    return
                _, kind, length, xid = struct.unpack("!BBHI", header)
                message = header + stream.read(length - 8)
                if kind == 20:
                    peer.sendall(struct.pack("!BBHI", 6, 21, 8, xid))
                elif kind != 0:
                    sent.append(message)

    server = threading.Thread(target=serve)
    server.start()
    try:
        subprocess.run(
            ["ovs-ofctl", "-O", "OpenFlow15", command, f"unix:{path}", *words],
            check=True,
            timeout=60,
            capture_output=True,
        )
    finally:
        listener.close()
        server.join(timeout=60)
    (message,) = sent
    return message


def test_a_flush_of_most_of_the_tracker_leaves_some_and_repeated_ones_end(
    switch: PrivateSwitch, connection: Connection
) -> None:
    """Open vSwitch 3.1 removes entries while it walks over them, and the table that shrinks meanwhile makes it skip
    some. Where others remain that keep the table from shrinking, one flush takes all.
    """
    with Tracer(switch) as tracer:
        for number in range(4000):
            client = Address(4, address(CLIENTS[0]).value + (0x100 << number // 2000))
            packet = udp(
                eth_src=1,
                eth_dst=2,
                ip_src=client.value,
                ip_dst="10.0.0.9",
                udp_src=1000,
                udp_dst=10_000 + number % 2000,
            )
            tracer.command("netdev-dummy/receive", "p1", frame(packet).hex())

        def known() -> int:
            return int(tracer.command("dpctl/ct-get-nconns"))

        wait_until(lambda: known() == 8 + 4000, "all packets through the switch")
        counts = [known()]
        while counts[-1] > 8 and len(counts) < 40:
            connection.transact(ct_flush(1, 2, original=CtTuple(17, destination=address("10.0.0.9"))))
            counts.append(known())
        assert counts[-1] == 8
        # Each takes about half of what is left, or more; so flushing for the third time leaves an eighth.
        assert len(counts) > 2
        assert counts[3] - 8 < 4000 / 4
