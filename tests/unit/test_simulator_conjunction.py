# SPDX-License-Identifier: Apache-2.0
"""Conjunctive matches in the simulator, one rule of Open vSwitch a test. tests/switch holds the same against a real
switch.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdn.pipeline.actions import Action, Conjunction, Goto, Output, set_field
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.journey import StepKind
from sdn.simulator.lookup import AmbiguousFlowsError, FlowTables
from sdn.simulator.packet import tcp
from sdn.simulator.switch import SimulatedSwitch

OWNER = Owner("NetworkPolicy", "shop", "web")
TCP = tcp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2", tcp_src=1000, tcp_dst=80)


def flow(*actions: Action, table: int = 0, priority: int = 100, **matching: int | str) -> Flow:
    return Flow(table, priority, match(**matching), actions, 1, OWNER, "a test")


def part(number: int, clause: int, clauses: int = 2) -> Conjunction:
    return Conjunction(number, clause, clauses)


FROM = flow(part(7, 1), ip_src="10.0.0.1")
TO = flow(part(7, 2), tcp_dst=80, eth_type=0x800)
SAID = flow(Output(2), conj_id=7)


def test_a_packet_that_satisfies_all_clauses_is_taken_by_the_flow_of_that_number() -> None:
    switch = SimulatedSwitch([FROM, TO, SAID])
    assert switch.run(TCP).ports == (2,)
    assert switch.run(TCP.with_(ip_src="10.0.0.9")).last.kind is StepKind.MISS
    assert switch.run(TCP.with_(tcp_dst=81)).last.kind is StepKind.MISS


def test_the_clauses_of_another_priority_or_table_do_not_count() -> None:
    assert SimulatedSwitch([FROM, replace(TO, priority=99), SAID]).run(TCP).dropped
    assert SimulatedSwitch([FROM, replace(TO, table=1), SAID]).run(TCP).dropped
    assert SimulatedSwitch([FROM, TO, replace(SAID, table=1)]).run(TCP).dropped


@pytest.mark.parametrize("priority", [1, 100, 200])
def test_the_flow_of_the_number_may_have_any_priority(priority: int) -> None:
    assert SimulatedSwitch([FROM, TO, replace(SAID, priority=priority)]).run(TCP).ports == (2,)


@pytest.mark.parametrize(("priority", "ports"), [(101, (3,)), (100, (3,)), (99, (2,))])
def test_a_plain_flow_wins_from_the_priority_of_the_clauses_up(priority: int, ports: tuple[int, ...]) -> None:
    plain = flow(Output(3), priority=priority, nw_proto=6, eth_type=0x800)
    assert SimulatedSwitch([FROM, TO, SAID, plain]).run(TCP).ports == ports


def test_the_second_lookup_goes_by_priority_like_the_first() -> None:
    better = flow(Output(3), priority=150, conj_id=7, ip_dst="10.0.0.2")
    assert SimulatedSwitch([FROM, TO, SAID, better]).run(TCP).ports == (3,)
    assert SimulatedSwitch([FROM, TO, SAID, better]).run(TCP.with_(ip_dst="10.0.0.3")).ports == (2,)


def test_without_a_flow_of_that_number_the_search_goes_on_below() -> None:
    lower = [
        replace(FROM, priority=50, actions=(part(8, 1),)),
        replace(TO, priority=50, actions=(part(8, 2),)),
    ]
    other = flow(Output(3), conj_id=8)
    assert SimulatedSwitch([FROM, TO, *lower, other]).run(TCP).ports == (3,)


def test_without_a_flow_of_that_number_any_plain_flow_ends_the_search() -> None:
    lower = [
        replace(FROM, priority=50, actions=(part(8, 1),)),
        replace(TO, priority=50, actions=(part(8, 2),)),
    ]
    other, everything = flow(Output(3), conj_id=8), flow(Output(4), priority=0)
    assert SimulatedSwitch([FROM, TO, *lower, other, everything]).run(TCP).ports == (4,)


def test_a_plain_flow_below_a_clause_of_the_same_match_is_found_by_the_first_lookup_only() -> None:
    below = replace(FROM, priority=50, actions=(Output(5),))
    # Nothing is satisfied: what stands below comes next.
    assert SimulatedSwitch([FROM, SAID, below]).run(TCP).ports == (5,)
    # The second lookup does not see it, so the flow of lower priority takes the packet.
    everything = flow(Output(4), priority=0)
    assert SimulatedSwitch([FROM, TO, below, everything]).run(TCP).ports == (4,)
    # It finds nothing, and the search goes on to it.
    assert SimulatedSwitch([FROM, TO, below]).run(TCP).ports == (5,)


def test_a_flow_may_stand_for_clauses_of_several_conjunctions() -> None:
    switch = SimulatedSwitch(
        [
            flow(part(7, 1), part(8, 1), ip_src="10.0.0.1"),
            flow(part(7, 2), eth_type=0x800, tcp_dst=80),
            flow(part(8, 2), eth_type=0x800, tcp_dst=81),
            SAID,
            flow(Output(3), conj_id=8),
        ]
    )
    assert switch.run(TCP).ports == (2,)
    assert switch.run(TCP.with_(tcp_dst=81)).ports == (3,)


def test_one_flow_that_stands_for_both_clauses_does_not_satisfy_them_alone() -> None:
    alone = flow(part(7, 1), part(7, 2), ip_src="10.0.0.1")
    assert SimulatedSwitch([alone, SAID]).run(TCP).dropped
    # Any other conjunctive flow that meets the packet is company enough.
    assert SimulatedSwitch([alone, SAID, replace(TO, actions=(part(9, 1),))]).run(TCP).ports == (2,)


def test_of_several_satisfied_the_lowest_number_with_a_flow_is_taken() -> None:
    flows = [
        flow(part(9, 1), part(7, 1), part(8, 1), ip_src="10.0.0.1"),
        flow(part(8, 2), part(9, 2), part(7, 2), ip_dst="10.0.0.2"),
    ]
    numbered = [flow(Output(number), conj_id=number) for number in (7, 8, 9)]
    assert SimulatedSwitch([*flows, *numbered]).run(TCP).ports == (7,)
    assert SimulatedSwitch([*flows, *numbered[1:]]).run(TCP).ports == (8,)


def test_overlapping_clauses_are_no_ambiguity_but_two_plain_flows_are() -> None:
    wide = flow(part(7, 1), ip_src="10.0.0.0/8")
    assert SimulatedSwitch([FROM, wide, TO, SAID]).run(TCP).ports == (2,)
    twin = flow(Output(3), conj_id=7, ip_src="10.0.0.1")
    with pytest.raises(AmbiguousFlowsError, match="conj_id=7"):
        SimulatedSwitch([FROM, TO, SAID, twin]).run(TCP)
    plain = [flow(Output(4), ip_src="10.0.0.0/8", priority=9), flow(Output(4), ip_dst="10.0.0.2", priority=9)]
    with pytest.raises(AmbiguousFlowsError, match="priority 9"):
        SimulatedSwitch([FROM, *plain]).run(TCP)
    # Where a better flow takes the packet, it does not matter.
    assert SimulatedSwitch([FROM, TO, SAID, *plain]).run(TCP).ports == (2,)


def test_sixty_four_flows_satisfy_a_conjunction_of_sixty_four_clauses_whichever_they_are() -> None:
    flows = [flow(part(7, 1, 64), metadata=f"0/{1 << bit:#x}") for bit in range(64)]
    assert SimulatedSwitch([*flows, SAID]).run(TCP).ports == (2,)
    assert SimulatedSwitch([*flows[1:], SAID]).run(TCP).dropped
    assert (
        SimulatedSwitch([replace(each, actions=(part(7, 1, 63),)) for each in flows] + [SAID])
        .run(TCP)
        .dropped
    )


def test_actions_do_not_see_the_number() -> None:
    switch = SimulatedSwitch(
        [FROM, TO, flow(set_field(reg0=1), Goto(1), conj_id=7), flow(Output(2), table=1)]
    )
    (outcome,) = switch.run(TCP).outcomes
    assert outcome.packet["conj_id"] == 0
    assert (
        SimulatedSwitch([FROM, TO, flow(Goto(1), conj_id=7), flow(Output(2), table=1, conj_id=7)])
        .run(TCP)
        .dropped
    )


def test_flows_that_come_and_go_take_their_clauses_along() -> None:
    tables = FlowTables([FROM, TO, SAID])
    assert tables.find(0, TCP.values)[0] == SAID
    assert tables.add(replace(TO, actions=(part(8, 2),))) == TO
    assert tables.find(0, TCP.values)[0] is None
    plain = replace(TO, actions=(Output(3),))
    tables.add(plain)
    assert tables.find(0, TCP.values)[0] == plain
    tables.add(TO)
    tables.remove(FROM.key)
    assert tables.find(0, TCP.values)[0] is None
    tables.remove(TO.key)
    assert tables.find(0, TCP.values)[0] is None
    tables.add(plain)
    assert tables.find(0, TCP.values)[0] == plain


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ((part(7, 1), Output(2)), "no other actions"),
        ((Output(2), part(7, 1)), "no other actions"),
        ((part(7, 1), Goto(3)), "no other actions"),
        ((part(7, 0),), "conjunction 7 has no clause 0 of 2"),
        ((part(7, 1), part(8, 3)), "conjunction 8 has no clause 3 of 2"),
        ((part(7, 1, 1),), "conjunction 7 has 1 clauses"),
        ((part(7, 1, 65),), "conjunction 7 has 65 clauses"),
    ],
)
def test_what_a_switch_refuses_is_refused_with_the_owner(actions: tuple[Action, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        SimulatedSwitch([flow(*actions)])
    assert str(refused.value).startswith("flow of NetworkPolicy/shop/web (a test): ")


def test_a_journey_names_the_flows_behind_each_clause() -> None:
    wide = flow(part(7, 1), ip_src="10.0.0.0/8")
    other = flow(part(8, 1), ip_dst="10.0.0.2")
    journey = SimulatedSwitch([TO, FROM, wide, other, SAID]).run(TCP)
    assert journey.flows == (SAID,)
    clauses = [step for step in journey.steps if step.kind is StepKind.CLAUSE]
    assert [(step.flow, step.action) for step in clauses] == [
        (FROM, part(7, 1)),
        (wide, part(7, 1)),
        (TO, part(7, 2)),
    ]
    assert str(journey).splitlines()[1:5] == [
        "table 0: clause 1 of 2 of conjunction 7: priority=100 eth_type=0x800,ip_src=10.0.0.1 "
        "[NetworkPolicy/shop/web: a test]",
        "table 0: clause 1 of 2 of conjunction 7: priority=100 eth_type=0x800,ip_src=10.0.0.0/8 "
        "[NetworkPolicy/shop/web: a test]",
        "table 0: clause 2 of 2 of conjunction 7: priority=100 eth_type=0x800,nw_proto=6,tcp_dst=80 "
        "[NetworkPolicy/shop/web: a test]",
        "table 0: priority=100 conj_id=7 [NetworkPolicy/shop/web: a test]",
    ]
