# SPDX-License-Identifier: Apache-2.0
"""The simulator does with a packet what a real switch says it would do: held on random flows and random
packets.

Compared are, for each pass through the tables, every flow met in order, the final flow field by field, and
each packet that leaves: port, headers, tunnel destination and key. ``SDN_PROPERTY_CASES`` sets how many
packets are compared (default 800).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from sdn.pipeline.registers import GATEWAY_PORT, TUNNEL_PORT
from tests.property.simulator_clusters import POD_PORTS, ClusterCase, cluster_cases
from tests.property.simulator_conjunctions import conjunctive_cases
from tests.property.simulator_strategies import Case, cases
from tests.switch.simulated import Both, both_switches

COMPARISONS = int(os.environ.get("SDN_PROPERTY_CASES", "800"))
PACKETS_EACH = 8
CLUSTER_PACKETS_EACH = 12


@pytest.fixture(scope="module")
def random_ports() -> Iterator[Both]:
    with both_switches() as both:
        yield both
        print(f"compared {both.compared} packets, {both.refused} random flows and groups were refused")


@pytest.fixture(scope="module")
def conjunctive_ports() -> Iterator[Both]:
    with both_switches() as both:
        yield both
        print(f"compared {both.compared} packets, {both.satisfied} of them by way of a conjunction")


@pytest.fixture(scope="module")
def node_ports() -> Iterator[Both]:
    with both_switches((GATEWAY_PORT, *POD_PORTS), TUNNEL_PORT) as both:
        yield both
        print(f"compared {both.compared} packets through compiled flows")


@settings(
    max_examples=max(1, COMPARISONS // PACKETS_EACH),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=cases(PACKETS_EACH))
def test_random_flows_do_the_same_in_the_simulator_and_in_a_real_switch(
    random_ports: Both, case: Case
) -> None:
    random_ports.load(case.flows, case.groups)
    for packet in case.packets:
        random_ports.compare(packet)


@settings(
    max_examples=max(1, COMPARISONS // PACKETS_EACH),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=conjunctive_cases(PACKETS_EACH))
def test_random_conjunctions_do_the_same_in_the_simulator_and_in_a_real_switch(
    conjunctive_ports: Both, case: Case
) -> None:
    conjunctive_ports.load(case.flows, case.groups)
    for packet in case.packets:
        conjunctive_ports.compare(packet)


@settings(
    max_examples=max(1, COMPARISONS // CLUSTER_PACKETS_EACH),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=cluster_cases(CLUSTER_PACKETS_EACH))
def test_a_compiled_cluster_does_the_same_in_the_simulator_and_in_a_real_switch(
    node_ports: Both, case: ClusterCase
) -> None:
    node_ports.load(case.flows)
    assert node_ports.refused == 0
    node_ports.reach(*(str(peer.tunnel_address) for peer in case.peers))
    for packet in case.packets:
        node_ports.compare(packet)
