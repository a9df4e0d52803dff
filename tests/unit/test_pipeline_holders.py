# SPDX-License-Identifier: Apache-2.0
"""A pod is not given the tracked connections of who had its address before."""

from __future__ import annotations

import pytest

from sdn.pipeline.compiler import switch_flows
from sdn.pipeline.fields import CT_LABEL
from sdn.pipeline.registers import ANSWERER_OFFSET, OPENER_OFFSET, ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.topology import Address, PodPort
from sdn.simulator.conntrack import ESTABLISHED, NEW, REPLY, Request, Tracked
from sdn.simulator.packet import Packet, udp
from sdn.simulator.switch import SimulatedSwitch
from tests.unit.test_pipeline_presence import NODE, PEER, POD, POD_MAC

FORMER = 77
NEIGHBOUR_MAC = 0x0A580AF40106
NEIGHBOUR = PodPort(
    "default", "near", "c2", "eth0", 17, NEIGHBOUR_MAC, Address.parse("10.244.1.6").value, None
)
ERROR = 0x04


def far_to_pod() -> Packet:
    return udp(
        in_port=TUNNEL_PORT,
        tun_src="172.30.0.12",
        eth_src=ROUTER_MAC,
        eth_dst=POD_MAC,
        ip_src="10.244.2.7",
        ip_dst="10.244.1.5",
    )


def pod_to(address: str, mac: int = 0x0A5800000001) -> Packet:
    return udp(in_port=POD.ofport, eth_src=POD_MAC, eth_dst=mac, ip_src="10.244.1.5", ip_dst=address)


class Switch:
    """With a tracker that knows of one connection, and remembers what it is told of it."""

    def __init__(self, state: int, opener: int = 0, answerer: int = 0) -> None:
        self.label = opener << OPENER_OFFSET | answerer << ANSWERER_OFFSET
        self._state = state
        self._switch = SimulatedSwitch(switch_flows(NODE, [POD, NEIGHBOUR], [PEER]))
        self.commits: list[Request] = []

    def _track(self, request: Request) -> Tracked:
        if request.action.commit:
            self.commits.append(request)
        return Tracked(self._state, label=self.label)

    def passes(self, packet: Packet) -> bool:
        return not self._switch.run(packet, conntrack=self._track).dropped

    def remembered(self) -> tuple[int, int]:
        """Opener and answerer, as the last commit says."""
        values = dict.fromkeys((OPENER_OFFSET, ANSWERER_OFFSET), 0)
        for move in self.commits[-1].action.execute:
            assert move.destination is CT_LABEL  # type: ignore[union-attr]
            source = self.commits[-1].packet[move.source.name]  # type: ignore[union-attr]
            values[move.destination_offset] = source & 0xFFFF  # type: ignore[union-attr]
        return values[OPENER_OFFSET], values[ANSWERER_OFFSET]


@pytest.mark.parametrize("state", [REPLY, REPLY | ERROR])
@pytest.mark.parametrize(("opener", "passes"), [(0, True), (1, True), (POD.ofport, True), (FORMER, False)])
def test_answers_reach_who_opened_the_connection(state: int, opener: int, passes: bool) -> None:
    assert Switch(state, opener=opener).passes(far_to_pod()) is passes


@pytest.mark.parametrize("state", [REPLY, REPLY | ERROR])
@pytest.mark.parametrize(("answerer", "passes"), [(0, True), (POD.ofport, True), (FORMER, False)])
def test_answers_come_from_whom_the_connection_was_opened_to(state: int, answerer: int, passes: bool) -> None:
    assert Switch(state, answerer=answerer).passes(pod_to("10.244.2.7")) is passes


@pytest.mark.parametrize("opener", [NEIGHBOUR.ofport, FORMER])
@pytest.mark.parametrize("answerer", [POD.ofport, FORMER])
def test_between_pods_of_one_node_both_ends_count(opener: int, answerer: int) -> None:
    passes = (opener, answerer) == (NEIGHBOUR.ofport, POD.ofport)
    switch = Switch(REPLY, opener, answerer)
    assert switch.passes(pod_to("10.244.1.6", NEIGHBOUR_MAC)) is passes


def test_a_first_packet_says_whose_the_connection_is() -> None:
    near, far, arriving = Switch(NEW), Switch(NEW), Switch(NEW)
    assert near.passes(pod_to("10.244.1.6", NEIGHBOUR_MAC))
    assert near.remembered() == (POD.ofport, NEIGHBOUR.ofport)
    assert far.passes(pod_to("10.244.2.7"))
    assert far.remembered() == (POD.ofport, 0)
    assert arriving.passes(far_to_pod())
    assert arriving.remembered() == (TUNNEL_PORT, POD.ofport)


def test_what_a_pod_sends_over_its_predecessors_connection_makes_it_its_own() -> None:
    for state in (NEW, ESTABLISHED):
        opened, met = Switch(state, opener=FORMER), Switch(state, opener=TUNNEL_PORT, answerer=FORMER)
        assert opened.passes(pod_to("10.244.1.6", NEIGHBOUR_MAC))
        assert opened.remembered() == (POD.ofport, NEIGHBOUR.ofport)
        assert met.passes(far_to_pod())
        assert met.remembered() == (TUNNEL_PORT, POD.ofport)


def test_of_the_pods_own_connection_nothing_is_said_again() -> None:
    switch = Switch(ESTABLISHED, POD.ofport, NEIGHBOUR.ofport)
    assert switch.passes(pod_to("10.244.1.6", NEIGHBOUR_MAC))
    assert not switch.commits
