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

from tests.property.simulator_strategies import Case, cases
from tests.switch.simulated import Both, both_switches

COMPARISONS = int(os.environ.get("SDN_PROPERTY_CASES", "800"))
PACKETS_EACH = 8


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with both_switches() as pair:
        yield pair
        print(f"compared {pair.compared} packets, {pair.refused} random flows and groups were refused")


@settings(
    max_examples=max(1, COMPARISONS // PACKETS_EACH),
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(case=cases(PACKETS_EACH))
def test_random_flows_do_the_same_in_the_simulator_and_in_a_real_switch(both: Both, case: Case) -> None:
    both.load(case.flows, case.groups)
    for packet in case.packets:
        both.compare(packet)
