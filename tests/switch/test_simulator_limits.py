# SPDX-License-Identifier: Apache-2.0
"""Loops end in the simulator where they end in a real switch, and nothing leaves either."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdn.pipeline.actions import Action, Bucket, GroupAction, Output, Resubmit
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import tcp
from tests.switch.simulated import Both, both_switches

OWNER = Owner("Test", "", "limits")
PACKET = tcp(in_port=1, ip_src="10.0.0.1", ip_dst="10.0.0.2", tcp_dst=80)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with both_switches() as pair:
        yield pair


def _flow(table: int, *actions: Action) -> Flow:
    return Flow(table, 1, match(), actions, table + 1, OWNER, "loop")


@pytest.mark.parametrize("depth", [1, 63, 64, 65])
def test_tables_that_lead_back_end_at_the_same_depth(both: Both, depth: int) -> None:
    """The first table goes far forward, which is no level; each table leads back by one, which is."""
    back = [_flow(number, Output(3), Resubmit(number - 1)) for number in range(2, depth + 2)]
    both.load([_flow(0, Resubmit(depth + 1)), _flow(1, Output(2)), *back])
    assert both.compare(PACKET).dropped is (depth > 64)


def test_a_resubmit_to_the_same_table_never_ends_by_itself(both: Both) -> None:
    both.load([_flow(0, Output(2), Resubmit(0))])
    assert both.compare(PACKET).dropped


@pytest.mark.parametrize("doublings", [10, 11, 12])
def test_resubmits_are_counted(both: Both, doublings: int) -> None:
    """Tables that each visit the next one twice: 2, 4, 8, ... lookups, 4094 in all after eleven tables."""
    flows = [_flow(number, Resubmit(number + 1), Resubmit(number + 1)) for number in range(doublings)]
    both.load([*flows, _flow(doublings)])
    assert bool(both.compare(PACKET).error) is (doublings == 12)


def test_a_group_that_leads_to_itself_ends(both: Both) -> None:
    bucket = Bucket(0, (Resubmit(0),))
    both.load([_flow(0, Output(2), GroupAction(1))], [Group(1, "indirect", (bucket,), OWNER, "loop")])
    assert both.compare(PACKET).error
