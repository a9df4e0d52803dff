# SPDX-License-Identifier: Apache-2.0
"""Packets as values and as text."""

from __future__ import annotations

import pytest

from sdn.pipeline.fields import FIELDS
from sdn.simulator.packet import arp, icmpv6, nd_solicit, packet, tcp
from sdn.simulator.text import format_packet, parse


def test_constructors_fill_in_what_every_such_packet_has() -> None:
    assert tcp(ipv6_src="fd00::1")["eth_type"] == 0x86DD
    assert tcp(ip_src="10.0.0.1")["nw_ttl"] == 64
    assert icmpv6()["icmpv6_type"] == 128
    assert arp(arp_tpa="10.0.0.1")["eth_dst"] == 0xFFFFFFFFFFFF
    solicitation = nd_solicit(nd_target="fd00:10:244:1::1:5", nd_sll="0a:58:00:00:00:05")
    assert FIELDS["ipv6_dst"].format(solicitation["ipv6_dst"]) == "ff02::1:ff01:5"
    assert FIELDS["eth_dst"].format(solicitation["eth_dst"]) == "33:33:ff:01:00:05"
    assert (solicitation["nd_options_type"], solicitation["nw_ttl"]) == (1, 255)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tcp_port": 1}, "unknown field 'tcp_port'"),
        ({"ip_src": "10.0.0.0/8"}, "ip_src: a packet has one value"),
        ({"arp_op": 1, "ip_src": 1}, "cannot occur together"),
        ({"eth_type": 0x800, "tcp_dst": 70000}, "tcp_dst"),
    ],
)
def test_an_impossible_packet_is_refused_with_the_field(values: dict[str, int | str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        packet(**values)


def test_a_packet_is_a_value() -> None:
    one = tcp(ip_src="10.0.0.1", tcp_dst=80)
    assert one == tcp(ip_src="10.0.0.1", tcp_dst="80")
    assert hash(one) == hash(tcp(ip_src="10.0.0.1", tcp_dst=80))
    other = one.with_(tcp_dst=81)
    assert one["tcp_dst"] == 80
    assert one.differences(other) == {FIELDS["tcp_dst"]: (80, 81)}
    with pytest.raises(AttributeError):
        one.values = ()


def test_what_arrives_at_the_next_switch_has_no_registers() -> None:
    sent = tcp(in_port=16, ip_src="10.0.0.1").with_(reg0=1, ct_mark=2, tun_dst="172.30.0.12", tun_id=5)
    plain = sent.arriving(3)
    assert (plain["in_port"], plain["reg0"], plain["ct_mark"], plain["tun_dst"]) == (3, 0, 0, 0)
    tunnelled = sent.arriving(2, tunnel_source="172.30.0.11")
    assert FIELDS["tun_src"].format(tunnelled["tun_src"]) == "172.30.0.11"
    assert tunnelled["tun_id"] == 5


def test_text_takes_the_names_of_the_registry_and_of_ovs_ofctl() -> None:
    ours = parse("in_port=1,tcp,ip_src=10.0.0.1,tcp_dst=80,ip_dscp=10,eth_dst=0a:58:00:00:00:01")
    theirs = parse("tcp,in_port=1,nw_src=10.0.0.1,tp_dst=80,nw_tos=40,dl_dst=0a:58:00:00:00:01,nw_frag=no")
    assert ours == theirs
    assert parse("icmp6,icmp_type=135,nd_target=fe80::1") == parse("icmp6,icmpv6_type=135,nd_target=fe80::1")
    assert parse("in_port=eth7,arp", {"eth7": 7})["in_port"] == 7
    assert parse("in_port=LOCAL,tcp,tcp_flags=syn|ack,ct_state=trk|est")["tcp_flags"] == 0x12
    assert parse("dl_type=0x0800,nw_proto=6,tp_dst=80") == parse("tcp,tp_dst=80")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("in_port=1,http", "'http' is neither"),
        ("in_port=1,colour=red", "unknown field 'colour'"),
        ("in_port=nobody,tcp", "no port named 'nobody'"),
        ("arp,tp_dst=80", "tp_dst needs tcp, udp or sctp"),
        ("tcp,nw_src=10.0.0.300", "ip_src"),
        ("tcp,nw_src=1.1.1.1,nw_src=1.1.1.2", "nw_src is given twice"),
        ("tcp,nw_src=1.1.1.1,ip_src=1.1.1.2", "ip_src is given twice"),
        ("tcp,ct_state=trk|old", "unknown flag 'old'"),
        ("dl_type=ip", "dl_type: 'ip' is not a number"),
    ],
)
def test_wrong_text_is_refused_with_the_part_that_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)


def test_text_is_read_back_as_written() -> None:
    for one in (
        tcp(in_port=16, ip_src="10.0.0.1", tcp_dst=80, ip_frag=1, ct_state="+trk+new", reg3=5),
        nd_solicit(in_port=0xFFFFFFFE, nd_target="fe80::1", nd_sll=5),
        packet(in_port=3, eth_type=0x88CC),
        packet(in_port=3, eth_type=0x0800, nw_proto=89),
    ):
        assert parse(format_packet(one)) == one
