# SPDX-License-Identifier: Apache-2.0
"""Corners that random flows seldom reach, in the simulator as in a real switch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdn.pipeline.actions import (
    Action,
    Bucket,
    Ct,
    GroupAction,
    Learn,
    LearnMatch,
    Nat,
    Output,
    OutputField,
    Resubmit,
    SetField,
    move,
    set_field,
)
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import Packet, arp, icmp, packet, tcp, udp
from tests.switch.simulated import Both, both_switches

OWNER = Owner("Test", "", "corner")
TCP = tcp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2", tcp_src=1000, tcp_dst=80)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with both_switches() as pair:
        yield pair
        assert pair.refused == 0


class _Flows:
    """Flows in the order of their making, each with a cookie of its own."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []

    def add(self, table: int, priority: int, *actions: Action, **matching: int | str) -> _Flows:
        number = len(self.flows) + 1
        self.flows.append(Flow(table, priority, match(**matching), actions, number, OWNER, "corner"))
        return self


def test_a_second_ct_forgets_what_the_first_one_found(both: Both) -> None:
    flows = (
        _Flows()
        .add(
            *(0, 1, Ct(zone=1, commit=True, table=1, execute=(set_field(ct_mark=5), set_field(ct_label=6)))),
            eth_type=0x800,
        )
        .add(1, 1, Resubmit(5), Ct(zone=2), Resubmit(5), Ct(zone=3, table=2), eth_type=0x800)
        .add(2, 1, Resubmit(5))
        .add(5, 3, Output(2), ct_mark=5, ct_state="+trk+est")
        .add(5, 2, Output(3), ct_state="+trk+inv")
        .add(5, 1, Output(4), ct_state="-trk")
    )
    both.load(flows.flows)
    # Zone 1 says established, zone 3 says invalid; between the two the packet is untracked.
    assert both.compare(TCP).ports == (2, 4, 3)


@pytest.mark.parametrize(("kind", "port"), [("src", 0), ("src", 8080), ("dst", 8080)])
def test_translation_is_seen_after_recirculation_only(both: Both, kind: str, port: int) -> None:
    nat = Nat(kind=kind, address_min=0x0A600001, port_min=port)
    flows = (
        _Flows().add(0, 1, Ct(commit=True, table=1, nat=nat), Output(2), eth_type=0x800).add(1, 1, Output(3))
    )
    both.load(flows.flows)
    untouched, translated = both.compare(TCP).outcomes
    assert untouched.packet == TCP
    assert translated.packet[f"ip_{kind}"] == 0x0A600001
    assert translated.packet[f"tcp_{kind}"] == (port or TCP[f"tcp_{kind}"])


def test_the_zone_of_a_register_is_the_one_that_is_tracked(both: Both) -> None:
    flows = (
        _Flows()
        .add(0, 1, set_field(reg3=0x50002), Ct(zone_field=(FIELDS["reg3"], 0), table=1), eth_type=0x800)
        .add(1, 1, Output(2), ct_zone=2, ct_state="+rpl+trk")
    )
    both.load(flows.flows)
    assert both.compare(TCP).ports == (2,)


def test_resubmit_with_ct_does_nothing_to_an_untracked_packet(both: Both) -> None:
    # In a bucket, since the switch takes it in a flow only after a match on +trk.
    bucket = Bucket(0, (Resubmit(1, with_ct=True),))
    flows = _Flows().add(0, 1, GroupAction(1), Output(2)).add(1, 1, Output(3))
    both.load(flows.flows, [Group(1, "indirect", (bucket,), OWNER, "corner")])
    assert both.compare(TCP).ports == (2,)


@pytest.mark.parametrize("fragment", [0, 1, 3])
def test_fragments_have_no_ports_for_matches_and_later_ones_none_for_actions(
    both: Both, fragment: int
) -> None:
    sent = udp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2", ip_frag=fragment)
    if fragment != 3:
        sent = sent.with_(udp_src=1000, udp_dst=53)
    flows = (
        _Flows()
        .add(0, 2, Output(2), eth_type=0x800, udp_dst=53)
        .add(0, 1, set_field(udp_src=7), Output(3), eth_type=0x800, nw_proto=17)
    )
    both.load(flows.flows)
    (outcome,) = both.compare(sent).outcomes
    assert (outcome.port, outcome.packet["udp_src"]) == {0: (2, 1000), 1: (3, 7), 3: (3, 0)}[fragment]


def test_icmp_of_a_fragment_has_no_type_for_matches(both: Both) -> None:
    both.load(_Flows().add(0, 2, Output(2), icmp_type=8).add(0, 1, Output(3)).flows)
    sent = icmp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2")
    assert both.compare(sent).ports == (2,)
    assert both.compare(sent.with_(ip_frag=1)).ports == (3,)


def test_only_a_message_of_code_zero_is_neighbour_discovery(both: Both) -> None:
    bucket = Bucket(0, (set_field(nd_target="fe80::9"), Output(2)))
    both.load(_Flows().add(0, 1, GroupAction(1)).flows, [Group(1, "indirect", (bucket,), OWNER, "corner")])
    for code, target in ((0, 0xFE80 << 112 | 9), (1, 0)):
        sent = packet(in_port=1, eth_type=0x86DD, nw_proto=58, nw_ttl=255, icmpv6_type=135, icmpv6_code=code)
        (outcome,) = both.compare(sent).outcomes
        assert outcome.packet["nd_target"] == target


@pytest.mark.parametrize(
    ("number", "ports"),
    [
        (2, (2,)),
        (1, ()),
        (0xFFF8, (1,)),
        (0xFFFE, (0xFFFFFFFE,)),
        (0xFFFD, (0xFFFFFFFD,)),
        (0xFFFF, ()),
        (0x10002, ()),
    ],
)
def test_output_by_register(both: Both, number: int, ports: tuple[int, ...]) -> None:
    register = FIELDS["reg5"]
    both.load(_Flows().add(0, 1, SetField(register, number), OutputField(register, 0, 32)).flows)
    assert both.compare(TCP).ports == ports


def test_an_answer_made_of_its_question(both: Both) -> None:
    reply = (
        move("arp_sha", "arp_tha"),
        move("arp_spa", "arp_tpa"),
        set_field(arp_sha="0a:58:00:00:00:01"),
        set_field(arp_op=2),
        Output(0xFFFFFFF8),
    )
    both.load(_Flows().add(0, 1, *reply, arp_op=1).flows)
    asked: Packet = arp(in_port=1, arp_sha="0a:58:0a:f4:01:05", arp_spa="10.244.1.5", arp_tpa="10.244.1.1")
    (outcome,) = both.compare(asked).outcomes
    assert (outcome.packet["arp_tha"], outcome.packet["arp_tpa"]) == (asked["arp_sha"], asked["arp_spa"])


def test_what_a_packet_teaches_counts_for_the_packets_after_it(both: Both) -> None:
    learn = Learn(
        *(1, 5, 99),
        match=(
            LearnMatch(FIELDS["eth_type"], 0x800),
            LearnMatch(FIELDS["ip_src"]),
            LearnMatch(FIELDS["reg2"], 7),
        ),
        load=(set_field(reg3=0x50), set_field(reg4="0x30000/0xff0000")),
    )
    flows = _Flows().add(0, 1, set_field(reg2=7), learn, Resubmit(1), Output(2), eth_type=0x800)
    both.load(flows.flows)
    journey = both.compare(TCP)
    (learned,) = journey.learned
    assert str(learned.match) == "eth_type=0x800,ip_src=10.0.0.1,reg2=0x7"
    # What the switch itself makes of a packet, which a trace does not do.
    both.receive(TCP)
    (real,) = [flow for flow in both.installed() if flow.cookie == 99]
    assert (real.table, real.priority, real.match, real.actions) == (1, 5, learned.match, learned.actions)
    # Both can say the same after it, so the trace of a packet after it is the same.
    both.load([*flows.flows, learned])
    (sent,) = both.compare(TCP).outcomes
    assert (sent.packet["reg3"], sent.packet["reg4"]) == (0x50, 0x30000)
    assert both.compare(TCP.with_(ip_src="10.0.0.9")).outcomes[0].packet["reg3"] == 0
