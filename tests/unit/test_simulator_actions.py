# SPDX-License-Identifier: Apache-2.0
"""What each action means in the simulator, one behaviour a test. A real switch holds all of it in
tests/switch.
"""

from __future__ import annotations

import pytest

from sdn.pipeline.actions import (
    ACTIONS,
    CONTROLLER,
    IN_PORT,
    LOCAL,
    Action,
    Bucket,
    Conjunction,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Learn,
    LearnMatch,
    Move,
    Output,
    OutputField,
    Resubmit,
    SetField,
    move,
    set_field,
)
from sdn.pipeline.fields import FIELDS, OFPP_CONTROLLER, OFPP_LOCAL
from sdn.pipeline.flow import Flow, Group, GroupType
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import Mark
from sdn.simulator.conntrack import ESTABLISHED, INVALID, NEW, OriginalTuple, Request, Tracked, by_zone
from sdn.simulator.journey import StepKind
from sdn.simulator.lookup import AmbiguousFlowsError
from sdn.simulator.packet import arp, ipv4, nd_solicit, tcp, udp
from sdn.simulator.switch import SimulatedSwitch
from sdn.simulator.translation import HANDLERS, MAX_RECIRCULATIONS, UnsupportedPortError

OWNER = Owner("Pod", "default", "web")
TCP = tcp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2", tcp_src=1000, tcp_dst=80, nw_ttl=9)


def flow(*actions: Action, table: int = 0, priority: int = 100, **matching: int | str) -> Flow:
    return Flow(table, priority, match(**matching), actions, 1, OWNER, "a test")


def group(kind: GroupType, *buckets: Bucket) -> Group:
    return Group(1, kind, buckets, OWNER, "a test")


def test_every_action_of_the_flow_language_has_a_meaning() -> None:
    # No packet ever comes to a conjunction: it has its meaning in the lookup.
    assert set(HANDLERS) == set(ACTIONS) - {Conjunction}


def test_a_miss_drops_and_says_where() -> None:
    journey = SimulatedSwitch([flow(Goto(3))]).run(TCP)
    assert journey.dropped
    assert (journey.last.kind, journey.last.table) == (StepKind.MISS, 3)


def test_the_highest_priority_wins() -> None:
    switch = SimulatedSwitch(
        [flow(Output(2), priority=1), flow(Output(3), priority=2, tcp_dst=80, eth_type=0x800)]
    )
    assert switch.run(TCP).ports == (3,)
    assert switch.run(TCP.with_(tcp_dst=81)).ports == (2,)


def test_two_flows_of_one_priority_are_an_error_that_names_both() -> None:
    switch = SimulatedSwitch([flow(Output(2), ip_src="10.0.0.0/8"), flow(Output(3), ip_dst="10.0.0.2")])
    with pytest.raises(AmbiguousFlowsError, match=r"ip_src=10\.0\.0\.0/8.*ip_dst=10\.0\.0\.2|ip_dst.*ip_src"):
        switch.run(TCP)


def test_two_flows_of_one_priority_do_not_matter_where_a_better_one_takes_the_packet() -> None:
    # Those of another address let the lookup come to these two before the better one.
    switch = SimulatedSwitch(
        [
            *(flow(Output(2), priority=1, ip_src="10.0.0.1"), flow(priority=9, ip_src="10.0.0.9")),
            *(flow(Output(3), priority=1, ip_dst="10.0.0.2"), flow(priority=8, ip_dst="10.0.0.9")),
            flow(Output(4), priority=5, eth_type=0x800, tcp_dst=80),
        ]
    )
    assert switch.run(TCP).ports == (4,)
    with pytest.raises(AmbiguousFlowsError):
        switch.run(TCP.with_(tcp_dst=81))


def test_output_to_the_port_of_arrival_takes_the_literal_in_port() -> None:
    assert SimulatedSwitch([flow(Output(1))]).run(TCP).dropped
    assert SimulatedSwitch([flow(IN_PORT)]).run(TCP).ports == (1,)
    assert SimulatedSwitch([flow(LOCAL)]).run(TCP.with_(in_port=OFPP_LOCAL)).dropped


def test_output_by_register_knows_sixteen_bit_reserved_ports() -> None:
    switch = SimulatedSwitch([flow(OutputField(FIELDS["reg1"], 0, 32))])
    for value, ports in ((7, (7,)), (1, ()), (0xFFF8, (1,)), (0xFFFE, (OFPP_LOCAL,)), (0x10007, ())):
        assert switch.run(TCP.with_(reg1=value)).ports == ports


def test_a_port_that_is_not_simulated_is_refused() -> None:
    with pytest.raises(UnsupportedPortError, match="Pod/default/web"):
        SimulatedSwitch([flow(Output(0xFFFFFFFA))]).run(TCP)


def test_a_masked_set_leaves_the_other_bits() -> None:
    switch = SimulatedSwitch([flow(set_field(reg1="0x50/0xf0"), Output(2))])
    assert switch.run(TCP.with_(reg1=0xABC)).outcomes[0].packet["reg1"] == 0xA5C


def test_a_mask_may_be_a_flag_of_an_enumeration() -> None:
    mark = SetField(FIELDS["reg4"], Mark.NO_POD, Mark.NO_POD)
    (outcome,) = SimulatedSwitch([flow(mark, Output(2))]).run(TCP.with_(reg4=0x80000005)).outcomes
    assert outcome.packet["reg4"] == 0x8000000D


def test_a_field_that_the_packet_lacks_is_not_set() -> None:
    switch = SimulatedSwitch([flow(set_field(tcp_dst=5), set_field(ip_dst="1.1.1.1"), Output(2))])
    (outcome,) = switch.run(arp(in_port=1)).outcomes
    assert (outcome.packet["tcp_dst"], outcome.packet["ip_dst"]) == (0, 0)


def test_a_solicitation_made_an_advertisement_has_the_other_option() -> None:
    switch = SimulatedSwitch(
        [flow(set_field(icmpv6_type=136), set_field(nd_sll=5), set_field(nd_tll=6), Output(2))]
    )
    (outcome,) = switch.run(nd_solicit(in_port=1, nd_target="fe80::1", nd_sll=1)).outcomes
    assert (outcome.packet["nd_sll"], outcome.packet["nd_tll"]) == (1, 6)


def test_move_copies_the_bits_named() -> None:
    part = Move(FIELDS["reg1"], 4, FIELDS["reg2"], 8, 8)
    switch = SimulatedSwitch([flow(part, move("eth_src", "eth_dst"), Output(2))])
    sent = switch.run(TCP.with_(reg1=0xABC, reg2=0xFFFFFFFF, eth_src=7)).outcomes[0].packet
    assert (sent["reg2"], sent["eth_dst"]) == (0xFFFFABFF, 7)


def test_ttl_is_decremented_and_at_one_the_rest_of_the_list_is_not_done() -> None:
    switch = SimulatedSwitch(
        [flow(Resubmit(1), Output(3)), flow(DecTtl(), Output(2), Goto(2), table=1), flow(Output(4), table=2)]
    )
    assert [(out.port, out.packet["nw_ttl"]) for out in switch.run(TCP).outcomes] == [(2, 8), (4, 8), (3, 8)]
    for ttl in (0, 1):
        ended = switch.run(TCP.with_(nw_ttl=ttl)).outcomes
        assert [(out.port, out.reason) for out in ended] == [(OFPP_CONTROLLER, "invalid_ttl"), (3, "action")]


def test_what_a_resubmit_changes_stays_changed() -> None:
    switch = SimulatedSwitch(
        [
            flow(Resubmit(5), Output(2)),
            flow(set_field(reg0=1), Resubmit(4), table=5),
            flow(Output(3), table=4),
        ]
    )
    assert [(out.port, out.packet["reg0"]) for out in switch.run(TCP).outcomes] == [(3, 1), (2, 1)]


def test_an_endless_loop_drops_everything() -> None:
    journey = SimulatedSwitch([flow(Output(2), Resubmit(0))]).run(TCP)
    assert journey.dropped
    assert "64 nested" in journey.error


def test_too_many_resubmits_drop_everything() -> None:
    tables = [flow(Resubmit(n + 1), Resubmit(n + 1), table=n) for n in range(13)]
    journey = SimulatedSwitch([*tables, flow(Output(2), table=13)]).run(TCP)
    assert journey.dropped
    assert "4096 resubmits" in journey.error


def test_goto_goes_forward_and_comes_last() -> None:
    for wrong in (flow(Goto(0)), flow(Goto(1), table=2), flow(Goto(3), Output(2))):
        with pytest.raises(ValueError, match="must be last and lead to a later table"):
            SimulatedSwitch([wrong])


def test_every_bucket_of_an_all_group_starts_with_the_packet_as_it_came() -> None:
    buckets = Bucket(1, (set_field(eth_dst=5), Output(2))), Bucket(2, (Output(3),))
    switch = SimulatedSwitch([flow(GroupAction(1), Output(4))], [group("all", *buckets)])
    assert [(out.port, out.packet["eth_dst"]) for out in switch.run(TCP).outcomes] == [(2, 5), (3, 0), (4, 0)]


def test_a_bucket_is_an_action_set() -> None:
    buckets = (
        Bucket(1, (Output(2), set_field(nw_ttl=64), DecTtl(), Output(3))),
        Bucket(2, (set_field(eth_dst=5),)),
    )
    switch = SimulatedSwitch([flow(GroupAction(1))], [group("all", *buckets)])
    (outcome,) = switch.run(TCP).outcomes
    # Only the last output, and the TTL decremented before it is set.
    assert (outcome.port, outcome.packet["nw_ttl"]) == (3, 64)


def test_a_select_group_gives_every_alternative_or_the_chosen_one() -> None:
    buckets = [Bucket(n, (Output(n),), weight=1 if n != 4 else 0) for n in (2, 3, 4)]
    switch = SimulatedSwitch([flow(GroupAction(1), GroupAction(1))], [group("select", *buckets)])
    assert [journey.ports for journey in switch.runs(TCP)] == [(2, 2), (2, 3), (3, 2), (3, 3)]
    assert switch.run(TCP).ports == (2, 2)
    assert switch.run(TCP, choose=lambda group, packet, alive: alive[-1]).ports == (3, 3)


def test_fast_failover_takes_the_first_bucket_that_is_alive() -> None:
    buckets = [Bucket(n, (Output(n),), watch_port=n) for n in (2, 3)]
    failover = group("fast_failover", *buckets)
    for down, ports in (((), (2,)), ((2,), (3,)), ((2, 3), ())):
        assert SimulatedSwitch([flow(GroupAction(1))], [failover], down).run(TCP).ports == ports


def test_after_ct_a_tracked_copy_goes_on_and_the_packet_itself_is_untracked() -> None:
    switch = SimulatedSwitch(
        [
            flow(
                set_field(reg0=7),
                Ct(zone=3, table=1, commit=True, execute=(set_field(ct_mark="1/1"),)),
                Output(2),
            ),
            flow(Output(3), table=1, ct_state="+trk+est", ct_zone=3),
        ]
    )
    known = by_zone({3: Tracked(ESTABLISHED, mark=4)})
    direct, tracked = switch.run(TCP.with_(ct_mark=9), conntrack=known).outcomes
    assert (direct.port, direct.packet["ct_mark"], direct.packet["ct_state"]) == (2, 0, 0)
    assert (tracked.port, tracked.packet["reg0"], tracked.packet["ct_mark"]) == (3, 7, 5)
    assert switch.run(TCP).ports == (2,)


def test_translation_shows_in_the_tracked_copy() -> None:
    translated = Tracked(NEW, translation={"ip_dst": "10.244.1.5", "tcp_dst": 8080})
    switch = SimulatedSwitch([flow(Ct(table=1)), flow(Output(2), table=1, ip_dst="10.244.1.5")])
    (outcome,) = switch.run(TCP, conntrack=lambda request: translated).outcomes
    assert outcome.packet["tcp_dst"] == 8080


def test_the_zone_may_come_from_a_register() -> None:
    asked: list[int] = []

    def remember(request: Request) -> Tracked:
        asked.append(request.zone)
        return Tracked()

    SimulatedSwitch([flow(Ct(zone_field=(FIELDS["reg1"], 16)))]).run(
        TCP.with_(reg1=0x00050000), conntrack=remember
    )
    assert asked == [5]


def test_resubmit_with_ct_looks_up_the_original_tuple_and_sends_the_packet() -> None:
    switch = SimulatedSwitch(
        [
            flow(Resubmit(2, with_ct=True), Ct(table=1)),
            flow(Resubmit(2, with_ct=True), table=1),
            flow(Output(2), table=2, ip_dst="10.96.0.1", tcp_dst=443),
        ]
    )
    original = OriginalTuple(6, TCP["ip_src"], 0x0A600001, 1000, 443)
    (outcome,) = switch.run(TCP, conntrack=lambda request: Tracked(original=original)).outcomes
    assert (outcome.packet["ip_dst"], outcome.packet["tcp_dst"]) == (TCP["ip_dst"], 80)


def test_after_ct_the_packet_tells_where_its_connection_began() -> None:
    switch = SimulatedSwitch(
        [
            flow(Ct(table=1)),
            flow(Output(2), table=1, eth_type=0x800, ct_state="+trk-inv", ct_nw_proto=6, ct_tp_dst=80),
            flow(Output(3), table=1, priority=50, ct_state="+trk-inv", ct_nw_dst="10.96.0.1"),
        ]
    )
    assert switch.run(TCP).ports == (2,)
    # Another part of a datagram has no ports of its own.
    assert switch.run(TCP.with_(ip_frag=1)).ports == (2,)
    service = OriginalTuple(6, TCP["ip_src"], 0x0A600001, 1000, 443)
    journey = switch.run(TCP, conntrack=lambda request: Tracked(ESTABLISHED, original=service))
    assert journey.ports == (3,)
    assert journey.outcomes[0].packet["ct_tp_dst"] == 443
    assert switch.run(TCP, conntrack=lambda request: Tracked(INVALID)).finals[-1]["ct_nw_proto"] == 0


def test_the_original_direction_is_forgotten_after_ct_and_of_another_zone_it_is_another() -> None:
    translated = by_zone({1: Tracked(translation={"ip_dst": "10.244.1.5", "tcp_dst": 8080})})
    switch = SimulatedSwitch([flow(Ct(zone=1, table=1)), flow(Ct(zone=2, table=2), Output(2), table=1)])
    journey = switch.run(TCP, conntrack=translated)
    assert [final["ct_tp_dst"] for final in journey.finals] == [0, 0, 8080]
    assert journey.outcomes[0].packet["ct_nw_proto"] == 0


def test_a_learned_flow_is_told_and_counts_when_the_switch_has_learned_it() -> None:
    fields = (LearnMatch(FIELDS["eth_type"], 0x800), LearnMatch(FIELDS["ip_src"]))
    learn = Learn(2, 10, 77, fields, (set_field(reg3=9),), 60)
    switch = SimulatedSwitch([flow(learn, Resubmit(2), OutputField(FIELDS["reg3"], 0, 16))])
    journey = switch.run(TCP)
    (learned,) = journey.learned
    assert (learned.cookie, learned.table, learned.idle_timeout, learned.owner) == (77, 2, 60, OWNER)
    assert learned.match == match(eth_type=0x800, ip_src="10.0.0.1")
    assert journey.ports == (0,)
    assert switch.run(TCP).ports == (0,)
    switch.learn(journey)
    assert switch.run(TCP).ports == (9,)
    assert switch.run(TCP.with_(ip_src="10.0.0.9")).ports == (0,)
    assert "learns in table 2: eth_type=0x800,ip_src=10.0.0.1" in str(journey)


def test_a_loop_of_ct_ends() -> None:
    journey = SimulatedSwitch([flow(Output(2), Ct(table=0))]).run(TCP)
    assert len(journey.outcomes) == MAX_RECIRCULATIONS + 1
    assert "copies" in SimulatedSwitch([flow(*[Ct(table=0)] * 8)]).run(TCP).error


def test_matches_see_no_ports_in_fragments() -> None:
    switch = SimulatedSwitch([flow(Output(2), eth_type=0x800, udp_dst=53), flow(Output(3), priority=1)])
    whole = udp(in_port=1, ip_dst="10.0.0.2", udp_dst=53)
    assert switch.run(whole).ports == (2,)
    assert switch.run(whole.with_(ip_frag=1)).ports == (3,)


def test_to_the_controller_and_on() -> None:
    switch = SimulatedSwitch([flow(CONTROLLER, Output(2))])
    assert switch.run(ipv4(in_port=1)).ports == (OFPP_CONTROLLER, 2)


def test_a_journey_tells_its_way_line_by_line() -> None:
    switch = SimulatedSwitch(
        [flow(set_field(reg0=1), Goto(2)), flow(DecTtl(), Output(5), table=2, nw_ttl=9, eth_type=0x800)]
    )
    assert str(switch.run(TCP)).splitlines() == [
        "packet in_port=1,tcp,ip_src=10.0.0.1,ip_dst=10.0.0.2,nw_ttl=9,tcp_src=1000,tcp_dst=80",
        "table 0: priority=100 [Pod/default/web: a test]",
        "  reg0 0x0 → 0x1",
        "table 2: priority=100 eth_type=0x800,nw_ttl=9 [Pod/default/web: a test]",
        "  nw_ttl 9 → 8",
        "  out to port 5: in_port=1,tcp,ip_src=10.0.0.1,ip_dst=10.0.0.2,nw_ttl=8,tcp_src=1000,tcp_dst=80,reg0=0x1",
        "end: port 5",
    ]
