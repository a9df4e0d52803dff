# SPDX-License-Identifier: Apache-2.0
"""Conjunctive matches: the corners in which the simulator follows Open vSwitch's code, and not its manual."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sdn.openflow import FlowCommand, flow_image, flow_mod
from sdn.pipeline.actions import Action, Conjunction, Goto, Output, Resubmit
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import tcp
from sdn.simulator.switch import SimulatedSwitch
from tests.switch.ofproto_trace import Tracer
from tests.switch.ovs import PrivateSwitch
from tests.switch.simulated import Both, both_switches

OWNER = Owner("Test", "", "conjunction")
TCP = tcp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2", tcp_src=1000, tcp_dst=80)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with both_switches() as pair:
        yield pair
        assert pair.refused == 0


def flow(*actions: Action, table: int = 0, priority: int = 100, **matching: int | str) -> Flow:
    return Flow(table, priority, match(**matching), actions, 1, OWNER, "corner")


def part(number: int, clause: int, clauses: int = 2) -> Conjunction:
    return Conjunction(number, clause, clauses)


FROM = flow(part(7, 1), ip_src="10.0.0.1")
TO = flow(part(7, 2), tcp_dst=80, eth_type=0x800)
SAID = flow(Output(2), conj_id=7)
LOWER = (
    replace(FROM, priority=50, actions=(part(8, 1),)),
    replace(TO, priority=50, actions=(part(8, 2),)),
    flow(Output(3), conj_id=8),
)
EVERYTHING = flow(Output(4), priority=0)
BELOW = replace(FROM, priority=40, actions=(Output(3),))
BOTH_CLAUSES = flow(part(7, 1), part(7, 2), in_port=1)
OTHER = flow(part(9, 1), nw_proto=6, eth_type=0x800)


def wide(clauses: int, count: int) -> list[Flow]:
    """Flows that all meet the packet and all say the first clause."""
    return [flow(part(7, 1, clauses), metadata=f"0/{1 << bit:#x}") for bit in range(count)]


CORNERS: dict[str, tuple[list[Flow], tuple[int, ...]]] = {
    "satisfied": ([FROM, TO, SAID], (2,)),
    "one clause only": ([FROM, SAID], ()),
    "clauses of two priorities": ([FROM, replace(TO, priority=99), SAID], ()),
    "a plain flow of the same priority": ([FROM, TO, SAID, flow(Output(3), in_port=1)], (3,)),
    "the number's flow of a lower priority than a plain one": (
        [FROM, TO, replace(SAID, priority=1), flow(Output(3), priority=2)],
        (3,),
    ),
    "no flow of that number": ([FROM, TO], ()),
    "no flow of that number, another conjunction below": ([FROM, TO, *LOWER], (3,)),
    "no flow of that number, but one for everything": ([FROM, TO, *LOWER, EVERYTHING], (4,)),
    "not satisfied, a plain flow of the same match below": ([FROM, SAID, BELOW, EVERYTHING], (3,)),
    "no flow of that number, a plain flow of the same match below": ([FROM, TO, BELOW, EVERYTHING], (4,)),
    "no flow of that number, nothing else": ([FROM, TO, BELOW], (3,)),
    "both clauses in one flow": ([BOTH_CLAUSES, SAID], ()),
    "both clauses in one flow beside another": ([BOTH_CLAUSES, SAID, OTHER], (2,)),
    "number 0": ([replace(FROM, actions=(part(0, 1),)), replace(TO, actions=(part(0, 2),)), EVERYTHING], (4,)),
    "64 clauses by 64 flows of the first": ([*wide(64, 64), SAID], (2,)),
    "64 clauses by 63 flows": ([*wide(64, 63), SAID], ()),
    "63 clauses by 64 flows of the first": ([*wide(63, 64), SAID], ()),
    "the number is not seen in the next table": (
        [FROM, TO, flow(Goto(1), conj_id=7), flow(Output(2), table=1, conj_id=7), flow(Output(3), table=1, priority=1)],
        (3,),
    ),
    "the number is not seen after a resubmit, and the flow goes on": (
        [FROM, TO, flow(Resubmit(1), Output(2), conj_id=7), flow(Output(3), table=1, conj_id=0)],
        (3, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_is_the_same_in_both(both: Both, corner: str) -> None:
    flows, ports = CORNERS[corner]
    both.load([replace(each, cookie=number) for number, each in enumerate(flows, 1)])
    assert both.compare(TCP).ports == ports


def test_of_several_that_are_satisfied_a_real_switch_takes_any() -> None:
    """The simulator takes the lowest number: no flows of ours may leave it to the switch what becomes of a packet."""
    with PrivateSwitch() as switch:
        for port in (1, 2, 3):
            switch.add_port(f"p{port}", port)
        with switch.connect() as connection, Tracer(switch) as tracer:
            for first, second in (((7, 8), (7, 8)), ((8, 7), (8, 7)), ((7, 8), (8, 7))):
                flows = [
                    flow(*[part(number, 1) for number in first], ip_src="10.0.0.1"),
                    flow(*[part(number, 2) for number in second], ip_dst="10.0.0.2"),
                    flow(Output(2), conj_id=7),
                    flow(Output(3), conj_id=8),
                ]
                connection.transact(b"".join(flow_mod(FlowCommand.ADD, *flow_image(each)) for each in flows))
                (seen,) = tracer.trace(TCP).passes
                assert [each.port for each in seen.sent] in ([2], [3])
                assert SimulatedSwitch(flows).run(TCP).ports == (2,)
