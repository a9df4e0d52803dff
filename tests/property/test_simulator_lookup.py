# SPDX-License-Identifier: Apache-2.0
"""The indexed tables find what reading every flow would find, however flows come and go."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.lookup import AmbiguousFlowsError, FlowTables
from sdn.simulator.packet import Packet, packet

_VALUES = st.integers(0, 3)
_FIELDS = ("in_port", "reg0", "reg1", "eth_src")


@st.composite
def _flows(draw: st.DrawFn) -> Flow:
    values: dict[str, int | str] = {}
    for name in draw(st.lists(st.sampled_from(_FIELDS), unique=True)):
        value = draw(_VALUES)
        mask = draw(st.sampled_from([0xFFFFFFFF, 3, 1, 2]))
        values[name] = value if mask == 0xFFFFFFFF or name == "in_port" else f"{value & mask}/{mask}"
    owner = Owner("Test", "", "lookup")
    return Flow(draw(st.integers(0, 1)), draw(st.integers(0, 5)), match(**values), (), 0, owner, "random")


def _takes(flow: Flow, seen: Packet) -> bool:
    return all(
        (seen[field] ^ value) & (field.all_ones if mask is None else mask) == 0
        for field, value, mask in flow.match
    )


@given(
    flows=st.lists(_flows(), max_size=25),
    removals=st.integers(0, 25),
    seed=st.integers(0, 1000),
    values=st.lists(st.tuples(_VALUES, _VALUES, _VALUES, _VALUES), min_size=1, max_size=10),
)
def test_lookup_is_the_same_as_reading_all_flows(
    flows: list[Flow], removals: int, seed: int, values: list[tuple[int, ...]]
) -> None:
    tables = FlowTables(flows)
    held = {flow.key: flow for flow in flows}
    for key in random.Random(seed).sample(sorted(held, key=str), min(removals, len(held))):
        assert tables.remove(key) == held.pop(key)
        with pytest.raises(KeyError):
            tables.remove(key)
    assert len(tables) == len(held)
    assert {flow.key for flow in tables} == set(held)
    for one in values:
        seen = packet(**dict(zip(_FIELDS, one, strict=True)))
        for table in (0, 1, 2):
            taking = [flow for flow in held.values() if flow.table == table and _takes(flow, seen)]
            best = max((flow.priority for flow in taking), default=0)
            winners = [flow for flow in taking if flow.priority == best]
            if len(winners) > 1:
                with pytest.raises(AmbiguousFlowsError):
                    tables.lookup(table, seen.values)
            else:
                assert tables.lookup(table, seen.values) == (winners[0] if winners else None)
