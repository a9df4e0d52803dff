# SPDX-License-Identifier: Apache-2.0
"""Packets to a controller and back, with a real switch: whole, with what the switch knew of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from os_ken.ofproto import ofproto_v1_5 as ofp
from os_ken.ofproto import ofproto_v1_5_parser as parser

from sdn.openflow import (
    OFPR_APPLY_ACTION,
    OFPR_INVALID_TTL,
    CodecError,
    FlowCommand,
    PacketIn,
    decode_packet_in,
    flow_image,
    flow_mod,
    packet_in_cookie,
    packet_out,
)
from sdn.openflow.wire import HEADER, OFPT_PACKET_IN
from sdn.pipeline.actions import CONTROLLER, IN_PORT, Action, Ct, DecTtl, Goto, Output, set_field
from sdn.pipeline.fields import OFPP_CONTROLLER
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import icmpv6, udp
from tests.property.osken_oracle import DATAPATH
from tests.switch.frames import captured, frame
from tests.switch.ovs import Connection, Message, PrivateSwitch, running_switch, wait_until

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("Service", "default", "web")
FRAME: Final = frame(
    udp(
        eth_src="0a:58:00:00:00:05",
        eth_dst="0a:58:00:00:00:01",
        ip_src="10.244.1.5",
        ip_dst="10.96.0.10",
        udp_src=1000,
        udp_dst=53,
    )
)
OFPT_SET_CONFIG: Final = 9


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    switch.clear()
    if "p1" not in switch.vsctl("list-ports", "br0"):
        switch.add_port("p1", 1)
        switch.add_port("p2", 2, tx_pcap=f"{switch.folder}/p2.pcap")
    with switch.connect() as connection:
        # A connection of this kind gets packets only after it has said how much of each.
        connection.transact(HEADER.pack(6, OFPT_SET_CONFIG, 12, 1) + struct.pack("!HH", 0, 0xFFFF))
        yield connection


def install(connection: Connection, *actions: Action, table: int = 0, what: Match | None = None) -> None:
    flow = Flow(table, 1, what or match(eth_type=0x0800), actions, 0x0800_0000_0000_0007, OWNER, "test")
    connection.transact(flow_mod(FlowCommand.ADD, *flow_image(flow)))


def whole(message: Message) -> bytes:
    return HEADER.pack(6, message.type, 8 + len(message.body), message.xid) + message.body


def received(switch: PrivateSwitch, connection: Connection, data: bytes = FRAME) -> PacketIn:
    # What the datapath has cached of flows before these.
    switch.appctl("revalidator/purge")
    switch.appctl("netdev-dummy/receive", "p1", data.hex())
    while (message := connection.receive()).type != OFPT_PACKET_IN:
        pass
    seen = decode_packet_in(whole(message))
    assert packet_in_cookie(whole(message)) == seen.cookie
    return seen


def test_a_packet_comes_whole_with_its_port_registers_and_flow(
    switch: PrivateSwitch, connection: Connection
) -> None:
    install(connection, set_field(reg2=7), set_field(reg4=0x80000001), CONTROLLER)
    long = FRAME.ljust(1514, b"\x55")
    seen = received(switch, connection, long)
    assert (seen.in_port, seen.reason, seen.table, seen.cookie) == (
        1,
        OFPR_APPLY_ACTION,
        0,
        0x0800_0000_0000_0007,
    )
    assert seen.data == long
    assert seen.length == len(long)
    assert (seen.fields.get("reg2"), seen.fields.get("reg4")) == ((7, None), (0x80000001, None))


@pytest.mark.parametrize("beside", [0, 5])
@pytest.mark.parametrize("value", [0, 1, 0x80000000, 0xFFFFFFFF])
def test_every_register_comes_as_it_is(
    switch: PrivateSwitch, connection: Connection, value: int, beside: int
) -> None:
    """The switch tells two of them as one number, with a mask where one of them is 0, and leaves out those that are."""
    install(connection, set_field(reg6=value), set_field(reg7=beside), set_field(reg15=value), CONTROLLER)
    seen = received(switch, connection)
    for name, told in (("reg6", value), ("reg7", beside), ("reg15", value)):
        assert seen.fields.get(name) == ((told, None) if told else None)


@pytest.mark.parametrize("kind", ["echo", "udp"])
def test_a_tracked_packet_of_ipv6_comes_with_registers_too(
    switch: PrivateSwitch, connection: Connection, kind: str
) -> None:
    """Of ICMPv6 the switch also tells fields that the packet does not have."""
    ends = {"ipv6_src": "fd00::1", "ipv6_dst": "fd00::2"}
    packet = icmpv6(icmpv6_type=128, **ends) if kind == "echo" else udp(udp_src=1, udp_dst=2, **ends)
    install(connection, Ct(zone=1, table=3), what=match(eth_type=0x86DD))
    install(connection, set_field(reg6=9), CONTROLLER, table=3, what=match(eth_type=0x86DD))
    seen = received(switch, connection, frame(packet))
    assert (seen.table, seen.fields.get("reg6"), seen.data) == (3, (9, None), frame(packet))


def test_a_tracked_packet_comes_with_its_connection(switch: PrivateSwitch, connection: Connection) -> None:
    install(connection, Ct(zone=1, table=3))
    install(connection, CONTROLLER, table=3)
    seen = received(switch, connection)
    assert seen.table == 3
    assert seen.fields.get("ct_state") == (0x21, 0xFF)
    assert seen.fields.get("ct_zone") == (1, None)
    assert seen.fields.get("ct_nw_dst") == (0x0A60000A, None)
    assert (seen.fields.get("ct_nw_proto"), seen.fields.get("ct_tp_dst")) == ((17, None), (53, None))


def test_a_packet_whose_ttl_ran_out_says_so_where_it_was_asked_for(
    switch: PrivateSwitch, connection: Connection
) -> None:
    # OFPT_SET_ASYNC with the property OFPACPT_PACKET_IN_MASTER: every reason (OpenFlow 1.5, section 7.3.10).
    connection.transact(HEADER.pack(6, 28, 16, 1) + struct.pack("!HHI", 1, 8, 0x3F))
    install(connection, DecTtl(), Output(2))
    last = frame(udp(ip_src="10.0.0.1", ip_dst="10.0.0.2", udp_src=1, udp_dst=2, nw_ttl=1))
    assert received(switch, connection, last).reason == OFPR_INVALID_TTL


def test_a_packet_goes_out_where_it_is_told(switch: PrivateSwitch, connection: Connection) -> None:
    capture = Path(f"{switch.folder}/p2.pcap")
    before = len(captured(capture))
    connection.transact(
        packet_out(1, OFPP_CONTROLLER, (set_field(eth_dst="0a:58:00:00:00:09"), Output(2)), FRAME)
    )
    wait_until(lambda: len(captured(capture)) > before, "the packet at its port")
    assert captured(capture)[-1] == b"\x0a\x58\0\0\0\x09" + FRAME[6:]
    # Back where it is said to come from.
    connection.transact(packet_out(1, 2, (Output(2),), FRAME))
    connection.transact(packet_out(1, 2, (IN_PORT,), FRAME[:-1] + b"!"))
    wait_until(lambda: len(captured(capture)) > before + 1, "the packet back at its port")
    assert [sent[-1:] for sent in captured(capture)[before:]] == [FRAME[-1:], b"!"]


def test_a_packet_out_is_what_os_ken_encodes() -> None:
    actions = [parser.OFPActionSetField(eth_dst="0a:58:00:00:00:09"), parser.OFPActionOutput(300, 0)]
    theirs = parser.OFPPacketOut(
        DATAPATH, ofp.OFP_NO_BUFFER, parser.OFPMatch(in_port=OFPP_CONTROLLER), actions, FRAME
    )
    theirs.set_xid(9)
    theirs.serialize()
    ours = packet_out(9, OFPP_CONTROLLER, (set_field(eth_dst="0a:58:00:00:00:09"), Output(300)), FRAME)
    assert ours.hex() == bytes(theirs.buf).hex()


def test_a_packet_out_that_cannot_be_is_refused() -> None:
    with pytest.raises(CodecError, match="does not fit"):
        packet_out(1, 1, (), bytes(65536))
    with pytest.raises(CodecError, match="goto_table"):
        packet_out(1, 1, (Goto(3),), b"")
