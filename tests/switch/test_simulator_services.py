# SPDX-License-Identifier: Apache-2.0
"""Services do in a real switch what they do in the simulator, which a reference holds in tests/property: every flow and
group is accepted, and every first packet takes the same way through the tables.

``ofproto/trace`` does not know where a tracked connection began, so packets arrive here with that already said; no
table looks at it before the connection tracker has spoken. And it ends where a group computes a hash of its own, so
groups here choose by Open vSwitch's other method: who is chosen is not compared, only that it is one who can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdn.pipeline.registers import GATEWAY_PORT, TUNNEL_PORT
from sdn.simulator.conntrack import NEW, own_tuple
from sdn.simulator.packet import Packet
from tests.property.simulator_services import ServiceCase, service_cases
from tests.switch.simulated import Both, both_switches

COMPARISONS = int(os.environ.get("SDN_PROPERTY_CASES", "800"))
PACKETS_EACH = 8


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with both_switches((GATEWAY_PORT, 16, 17, 18), TUNNEL_PORT) as pair:
        yield pair
        print(f"compared {pair.compared} first packets to Services")


def _told(packet: Packet) -> Packet:
    original = own_tuple(packet)
    family = "ct_nw" if packet["eth_type"] == 0x0800 else "ct_ipv6"
    return packet.with_(
        **{f"{family}_src": original.source, f"{family}_dst": original.destination},
        ct_state=NEW,
        ct_nw_proto=original.protocol,
        ct_tp_src=original.source_port,
        ct_tp_dst=original.destination_port,
    )


@settings(
    max_examples=max(1, COMPARISONS // PACKETS_EACH),
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=service_cases(), data=st.data())
def test_services_do_the_same_in_the_simulator_and_in_a_real_switch(
    both: Both, case: ServiceCase, data: st.DataObject
) -> None:
    both.load(
        case.flows, [replace(group, selection_method="hash", selection_fields=()) for group in case.groups]
    )
    assert both.refused == 0
    both.reach(*(str(peer.tunnel_address) for peer in case.peers))
    attempts = list(case.attempts())
    if not attempts:
        return
    for attempt in data.draw(
        st.lists(st.sampled_from(attempts), min_size=PACKETS_EACH, max_size=PACKETS_EACH)
    ):
        both.compare(_told(attempt.packet), states=(NEW, NEW, NEW))
