# SPDX-License-Identifier: Apache-2.0
"""What is read of a packet: its addresses, its protocol, its ports where it has them; and never more than that."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, ipv4, ipv6, packet, sctp, tcp, udp, vlan

from controller.datagram import SCTP, TCP, UDP, of_frame

SOURCE = {4: "10.244.1.5", 6: "fd00:10:244:1::5"}
DESTINATION = {4: "10.244.2.7", 6: "fd00:10:244:2::7"}
TRANSPORT = {
    TCP: tcp.tcp(40000, 8080, bits=tcp.TCP_SYN),
    UDP: udp.udp(40000, 8080),
    SCTP: sctp.sctp(40000, 8080, chunks=[sctp.chunk_init(init_tag=1)]),
}


def frame(version: int, protocol: int, tags: int = 0, **header: int) -> bytes:
    built = packet.Packet()
    kind = 0x0800 if version == 4 else 0x86DD
    built.add_protocol(ethernet.ethernet(ethertype=0x8100 if tags else kind))
    for tag in range(tags):
        built.add_protocol(vlan.vlan(vid=tag + 1, ethertype=0x8100 if tag + 1 < tags else kind))
    if version == 4:
        built.add_protocol(ipv4.ipv4(src=SOURCE[4], dst=DESTINATION[4], proto=protocol, **header))
    else:
        built.add_protocol(ipv6.ipv6(src=SOURCE[6], dst=DESTINATION[6], nxt=protocol, **header))
    built.add_protocol(TRANSPORT[protocol])
    built.serialize()
    return bytes(built.data)


def with_extension(data: bytes, kind: int, extension: bytes) -> bytes:
    """An IPv6 frame with an extension header put in front of what it carries; its first byte becomes the next
    header.
    """
    next_header, length = data[20:21], int.from_bytes(data[18:20], "big") + len(extension)
    header = data[:18] + struct.pack("!HB", length, kind) + data[21:54]
    return header + next_header + extension[1:] + data[54:]


@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("protocol", TRANSPORT)
@pytest.mark.parametrize("version", [4, 6])
def test_addresses_protocol_and_ports(version: int, protocol: int, tags: int) -> None:
    seen = of_frame(frame(version, protocol, tags))
    assert seen is not None
    assert str(ipaddress.ip_address(seen.source)) == SOURCE[version]
    assert str(ipaddress.ip_address(seen.destination)) == DESTINATION[version]
    assert (seen.version, seen.protocol, seen.ports) == (version, protocol, (40000, 8080))
    assert (seen.more, seen.later, seen.cut) == (False, False, False)


@pytest.mark.parametrize("protocol", TRANSPORT)
def test_later_fragments_have_no_ports(protocol: int) -> None:
    first = of_frame(frame(4, protocol, flags=1))
    later = of_frame(frame(4, protocol, offset=100))
    assert first is not None
    assert later is not None
    assert (first.more, first.later, first.ports) == (True, False, (40000, 8080))
    assert (later.more, later.later, later.ports) == (False, True, (0, 0))
    of_ipv6 = frame(6, protocol)
    first = of_frame(with_extension(of_ipv6, 44, struct.pack("!BBHI", 0, 0, 1, 7)))
    later = of_frame(with_extension(of_ipv6, 44, struct.pack("!BBHI", 0, 0, 800, 7)))
    assert first is not None
    assert later is not None
    assert (first.protocol, first.more, first.ports) == (protocol, True, (40000, 8080))
    assert (later.protocol, later.later, later.ports) == (protocol, True, (0, 0))


def test_options_stand_before_the_ports() -> None:
    with_options = frame(6, TCP)
    for kind in (0, 43, 60):
        with_options = with_extension(with_options, kind, bytes((0, 1)) + bytes(14))
    seen = of_frame(with_options)
    assert seen is not None
    assert (seen.protocol, seen.ports) == (TCP, (40000, 8080))
    long = frame(4, TCP)
    long = long[:14] + b"\x46" + long[15:16] + (44).to_bytes(2, "big") + long[18:34] + bytes(4) + long[34:]
    seen = of_frame(long)
    assert seen is not None
    assert seen.ports == (40000, 8080)


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_the_switch_has_cut_says_what_is_left_of_it(version: int) -> None:
    # Without what pads it to Ethernet's least length.
    whole = frame(version, TCP)[: 14 + (40 if version == 4 else 60)]
    header = 34 if version == 4 else 54
    for kept in range(len(whole)):
        seen = of_frame(whole[:kept])
        if kept < header:
            assert seen is None
        else:
            assert seen is not None
            assert seen.cut
            assert seen.ports == ((40000, 8080) if kept >= header + 4 else (0, 0))


def test_other_protocols_have_no_ports() -> None:
    whole = frame(4, UDP)
    seen = of_frame(whole[:23] + b"\x2f" + whole[24:])
    assert seen is not None
    assert (seen.protocol, seen.ports) == (47, (0, 0))


@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8"]))
@example(b"\x60" + bytes(5) + b"\x00" + bytes(33), b"\x86\xdd")
def test_no_bytes_make_it_fail(data: bytes, kind: bytes) -> None:
    seen = of_frame(bytes(12) + kind + data)
    assert seen is None or len(seen.whole) <= len(data)
