# SPDX-License-Identifier: Apache-2.0
"""A packet that leaves the connection tracker without having been tracked goes nowhere."""

from __future__ import annotations

from sdn.pipeline.compiler import switch_flows
from sdn.pipeline.registers import ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.tables import BRIDGING, DELIVERY, EGRESS_ADMIN, LOAD_BALANCING, SOURCE_TRANSLATION
from sdn.simulator.conntrack import INVALID, NEW, Tracked
from sdn.simulator.packet import udp
from sdn.simulator.switch import SimulatedSwitch
from tests.unit.test_pipeline_presence import NODE, PEER, POD, POD_MAC

LATER_FRAGMENT = udp(
    in_port=TUNNEL_PORT,
    tun_src="172.30.0.12",
    eth_src=ROUTER_MAC,
    eth_dst=POD_MAC,
    ip_src="10.244.2.7",
    ip_dst="10.244.1.5",
    ip_frag=3,
)


def test_what_was_not_tracked_is_dropped_behind_the_tracker() -> None:
    switch = SimulatedSwitch(switch_flows(NODE, [POD], [PEER]))
    assert switch.run(LATER_FRAGMENT, conntrack=lambda _: Tracked(INVALID & ~0x20)).dropped
    assert not switch.run(LATER_FRAGMENT, conntrack=lambda _: Tracked(NEW)).dropped


def test_it_is_dropped_wherever_the_tracker_may_give_it_back() -> None:
    switch = SimulatedSwitch(switch_flows(NODE, [POD], [PEER]))
    for table in (LOAD_BALANCING, EGRESS_ADMIN, SOURCE_TRANSLATION, BRIDGING, DELIVERY):
        assert switch.run(LATER_FRAGMENT, table=table.number).dropped
        tracked = LATER_FRAGMENT.with_(ct_state=NEW)
        journey = switch.run(tracked, table=table.number)
        assert not journey.dropped, f"{table.name}: {journey}"
