# SPDX-License-Identifier: Apache-2.0
"""What is answered to a packet that nobody serves, read and checked by another implementation: os-ken's."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, icmp, icmpv6, ipv4, ipv6, packet, packet_utils, sctp, tcp, udp

from controller.reject import reject

CLIENT_MAC, SWITCH_MAC = "0a:58:0a:f4:01:05", "0a:58:00:00:00:01"
CLIENT4, SERVICE4 = "10.244.1.5", "10.96.0.10"
CLIENT6, SERVICE6 = "fd00:10:244:1::5", "fd00:10:96::a"
FIN, SYN, RST, ACK = 1, 2, 4, 16


def frame(version: int, protocol: int, *inner: Any, **changes: Any) -> bytes:
    """A client's frame; ``changes`` are to its IP header."""
    built = packet.Packet()
    kind = 0x0800 if version == 4 else 0x86DD
    built.add_protocol(ethernet.ethernet(SWITCH_MAC, CLIENT_MAC, kind))
    if version == 4:
        built.add_protocol(ipv4.ipv4(**{"src": CLIENT4, "dst": SERVICE4, "proto": protocol, **changes}))
    else:
        built.add_protocol(ipv6.ipv6(**{"src": CLIENT6, "dst": SERVICE6, "nxt": protocol, **changes}))
    for each in inner:
        built.add_protocol(each)
    built.serialize()
    return bytes(built.data)


def read(answer: bytes | None, version: int) -> tuple[Any, bytes]:
    """The answer parsed, and what its IP header carries; its addresses, sizes and IP checksum are checked."""
    assert answer is not None
    parsed = packet.Packet(answer)
    outer = parsed.get_protocol(ethernet.ethernet)
    assert (outer.dst, outer.src) == (CLIENT_MAC, SWITCH_MAC)
    if version == 4:
        assert packet_utils.checksum(answer[14:34]) == 0
        header = parsed.get_protocol(ipv4.ipv4)
        assert (header.src, header.dst) == (SERVICE4, CLIENT4)
        assert header.total_length == len(answer) - 14
        return parsed, answer[34:]
    header = parsed.get_protocol(ipv6.ipv6)
    assert (header.src, header.dst) == (SERVICE6, CLIENT6)
    assert header.payload_length == len(answer) - 54
    return parsed, answer[54:]


def checksum_holds(version: int, protocol: int, payload: bytes) -> bool:
    """Whether the checksum in a payload with a pseudo header is right."""
    if version == 4:
        pseudo = bytes(map(int, f"{SERVICE4}.{CLIENT4}".split("."))) + struct.pack(
            "!BBH", 0, protocol, len(payload)
        )
    else:
        text = packet_utils.addrconv.ipv6.text_to_bin
        pseudo = text(SERVICE6) + text(CLIENT6) + struct.pack("!II", len(payload), protocol)
    return bool(packet_utils.checksum(pseudo + payload) == 0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_syn_is_reset_at_once(version: int) -> None:
    asked = frame(version, 6, tcp.tcp(40000, 80, seq=0xFFFFFFFF, bits=SYN))
    parsed, payload = read(reject(asked), version)
    reset = parsed.get_protocol(tcp.tcp)
    assert (reset.src_port, reset.dst_port) == (80, 40000)
    assert (reset.seq, reset.ack, reset.bits) == (0, 0, RST | ACK), "a SYN counts one, modulo 2**32"
    assert checksum_holds(version, 6, payload)


@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_that_acknowledges_is_reset_with_the_number_that_it_expects(version: int) -> None:
    asked = frame(version, 6, tcp.tcp(40000, 80, seq=7, ack=1234, bits=ACK), b"data")
    parsed, payload = read(reject(asked), version)
    reset = parsed.get_protocol(tcp.tcp)
    assert (reset.seq, reset.ack, reset.bits) == (1234, 0, RST)
    assert checksum_holds(version, 6, payload)


def test_data_and_fin_count_in_what_a_reset_acknowledges() -> None:
    asked = frame(4, 6, tcp.tcp(40000, 80, seq=100, bits=FIN), b"data")
    parsed, _ = read(reject(asked), 4)
    assert parsed.get_protocol(tcp.tcp).ack == 105


@pytest.mark.parametrize("size", [20, 3000])
def test_a_datagram_is_unreachable_with_as_much_of_it_as_may_be_quoted(size: int) -> None:
    asked = frame(4, 17, udp.udp(40000, 53), bytes(size))
    parsed, payload = read(reject(asked), 4)
    error = parsed.get_protocol(icmp.icmp)
    assert (error.type, error.code) == (3, 3)
    assert packet_utils.checksum(payload) == 0
    assert payload[8:] == asked[14:][: 576 - 28]
    asked = frame(6, 17, udp.udp(40000, 53), bytes(size))
    parsed, payload = read(reject(asked), 6)
    error = parsed.get_protocol(icmpv6.icmpv6)
    assert (error.type_, error.code) == (1, 4)
    assert checksum_holds(6, 58, payload)
    assert payload[8:] == asked[14:][: 1280 - 48]


@pytest.mark.parametrize("version", [4, 6])
def test_an_association_is_aborted(version: int) -> None:
    init = sctp.chunk_init(init_tag=0xABCD, a_rwnd=1, os=1, mis=1, i_tsn=1)
    parsed, payload = read(reject(frame(version, 132, sctp.sctp(5000, 80, vtag=0, chunks=[init]))), version)
    answer = parsed.get_protocol(sctp.sctp)
    assert (answer.src_port, answer.dst_port, answer.vtag) == (80, 5000, 0xABCD)
    assert isinstance(answer.chunks[0], sctp.chunk_abort)
    assert answer.chunks[0].tflag == 0
    assert answer.csum == sctp_checksum(payload)
    data = sctp.chunk_data(begin=1, end=1, payload_data=b"data")
    parsed, payload = read(reject(frame(version, 132, sctp.sctp(5000, 80, vtag=77, chunks=[data]))), version)
    answer = parsed.get_protocol(sctp.sctp)
    assert (answer.vtag, answer.chunks[0].tflag) == (77, 1)
    assert answer.csum == sctp_checksum(payload)


def sctp_checksum(data: bytes) -> int:
    """Bit by bit, as RFC 9260, appendix A defines it (os-ken's own is wrong under Python 3)."""
    crc = 0xFFFFFFFF
    for byte in data[:8] + bytes(4) + data[12:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return int.from_bytes((crc ^ 0xFFFFFFFF).to_bytes(4, "little"), "big")


def test_ports_are_found_behind_ipv6_options() -> None:
    options = ipv6.dst_opts(nxt=17, data=[ipv6.option(1, 4, bytes(4))])
    asked = frame(6, 60, udp.udp(1, 2), b"x", ext_hdrs=[options])
    parsed, _ = read(reject(asked), 6)
    assert parsed.get_protocol(icmpv6.icmpv6).type_ == 1


UDP = udp.udp(40000, 53)
INIT_ABORT = sctp.sctp(1, 2, chunks=[sctp.chunk_abort()])
NEVER = {
    "a reset": frame(4, 6, tcp.tcp(1, 2, bits=RST)),
    "a reset that acknowledges": frame(6, 6, tcp.tcp(1, 2, bits=RST | ACK)),
    "an abort": frame(4, 132, INIT_ABORT),
    "an ICMP error": frame(4, 1, icmp.icmp(3, 3, data=icmp.dest_unreach(data=bytes(28)))),
    "an echo request": frame(4, 1, icmp.icmp(8, 0, data=icmp.echo())),
    "an ICMPv6 error": frame(6, 58, icmpv6.icmpv6(1, 4)),
    "to multicast": frame(4, 17, UDP, b"x", dst="224.0.0.251"),
    "to broadcast": frame(4, 17, UDP, b"x", dst="255.255.255.255"),
    "to IPv6 multicast": frame(6, 17, UDP, b"x", dst="ff02::fb"),
    "from multicast": frame(4, 17, UDP, b"x", src="224.0.0.1"),
    "from nowhere": frame(4, 17, UDP, b"x", src="0.0.0.0"),
    "from loopback": frame(4, 17, UDP, b"x", src="127.0.0.1"),
    "from the unspecified address": frame(6, 17, UDP, b"x", src="::"),
    "from IPv6 loopback": frame(6, 17, UDP, b"x", src="::1"),
    "a later fragment": frame(4, 17, UDP, b"x", offset=3),
    "a later IPv6 fragment": frame(6, 44, UDP, b"x", ext_hdrs=[ipv6.fragment(nxt=17, offset=3)]),
    "a broadcast frame": b"\xff" * 6 + frame(4, 17, UDP, b"x")[6:],
    "ARP": bytes(12) + b"\x08\x06" + bytes(46),
    "nothing": b"",
    "a datagram that says to be longer than it is": frame(4, 17, UDP, bytes(100))[:-2],
}


@pytest.mark.parametrize("what", NEVER)
def test_never_answered(what: str) -> None:
    assert reject(NEVER[what]) is None


ASKED = [
    frame(4, 6, tcp.tcp(40000, 80, bits=SYN)),
    frame(6, 6, tcp.tcp(40000, 80, bits=SYN)),
    frame(4, 17, UDP, b"xyz"),
    frame(6, 60, UDP, b"x", ext_hdrs=[ipv6.dst_opts(nxt=17, data=[ipv6.option(1, 4, bytes(4))])]),
    frame(4, 132, sctp.sctp(1, 2, chunks=[sctp.chunk_init(init_tag=1, a_rwnd=1, os=1, mis=1, i_tsn=1)])),
]


@given(
    st.binary(max_size=120), st.sampled_from([b"", bytes(12) + b"\x08\x00\x45", bytes(12) + b"\x86\xdd\x60"])
)
def test_no_bytes_make_it_fail(data: bytes, beginning: bytes) -> None:
    answer = reject(beginning + data)
    assert answer is None or reject(answer) is None, "an answer is never answered"


@given(
    st.sampled_from(ASKED),
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=4),
    st.data(),
)
def test_no_damage_to_a_packet_makes_it_fail(
    asked: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    damaged = bytearray(asked)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    cut = data.draw(st.integers(0, len(damaged)))
    for each in (bytes(damaged), bytes(damaged[:cut])):
        answer = reject(each)
        assert answer is None or reject(answer) is None, "an answer is never answered"


def test_all_that_is_asked_here_is_answered() -> None:
    assert all(reject(asked) is not None for asked in ASKED)
