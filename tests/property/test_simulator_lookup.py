# SPDX-License-Identifier: Apache-2.0
"""The indexed tables find what reading every flow would find, however flows come and go."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.pipeline.actions import Conjunction
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.lookup import AmbiguousFlowsError, FlowTables
from sdn.simulator.packet import Packet, packet

_VALUES = st.integers(0, 3)
_FIELDS = ("in_port", "reg0", "reg1", "eth_src")
_OWNER = Owner("Test", "", "lookup")


@st.composite
def _flows(draw: st.DrawFn) -> Flow:
    values: dict[str, int | str] = {}
    for name in draw(st.lists(st.sampled_from(_FIELDS), unique=True)):
        value = draw(_VALUES)
        mask = draw(st.sampled_from([0xFFFFFFFF, 3, 1, 2]))
        values[name] = value if mask == 0xFFFFFFFF or name == "in_port" else f"{value & mask}/{mask}"
    return Flow(draw(st.integers(0, 1)), draw(st.integers(0, 5)), match(**values), (), 0, _OWNER, "random")


_CLAUSES = st.builds(Conjunction, st.integers(1, 3), st.integers(1, 2), st.just(2))


@st.composite
def _conjunctive_flows(draw: st.DrawFn) -> Flow:
    """A flow of few bits, so that many meet one packet; most of them are conjunctive."""
    values: dict[str, int | str] = {}
    for name in draw(st.lists(st.sampled_from(_FIELDS), unique=True, max_size=1)):
        values[name] = draw(st.integers(0, 1))
    actions: tuple[Conjunction, ...] = ()
    kind = draw(st.sampled_from(["clauses", "clauses", "number", "plain"]))
    if kind == "clauses":
        actions = tuple(draw(st.lists(_CLAUSES, min_size=1, max_size=3)))
    elif kind == "number":
        values["conj_id"] = draw(st.integers(1, 3))
    return Flow(0, draw(st.sampled_from([2, 1, 3, 0])), match(**values), actions, 0, _OWNER, "random")


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
                    tables.find(table, seen.values)
            else:
                assert tables.find(table, seen.values)[0] == (winners[0] if winners else None)


def _winner(flows: list[Flow]) -> Flow | None:
    """The one of the highest priority. Raises LookupError when there are two."""
    best = max((flow.priority for flow in flows), default=0)
    winners = [flow for flow in flows if flow.priority == best]
    if len(winners) > 1:
        raise LookupError
    return winners[0] if winners else None


def _complete(actions: list[Conjunction], number: int) -> bool:
    return {action.clause for action in actions if action.id == number} == {1, 2}


def _by_reading(flows: list[Flow], seen: Packet) -> Flow | None:
    """What takes the packet, by ovs-fields(7): priority after priority, each flow of the table read."""
    taking = [flow for flow in flows if _takes(flow, seen)]
    for priority in range(5, -1, -1):
        here = [flow for flow in taking if flow.priority == priority]
        plain = [flow for flow in here if not flow.actions]
        if plain:
            return _winner(plain)
        actions = [action for flow in here for action in flow.actions if isinstance(action, Conjunction)]
        for number in (1, 2, 3) if len(here) > 1 else ():
            if not _complete(actions, number):
                continue
            again = [flow for flow in flows if _takes(flow, seen.with_(conj_id=number))]
            # Of flows with one match the second lookup looks at the highest only.
            highest = [
                flow
                for flow in again
                if flow.priority == max(other.priority for other in again if other.match == flow.match)
            ]
            found = _winner([flow for flow in highest if not flow.actions])
            if found is not None:
                return found
    return None


@settings(max_examples=300)
@given(
    flows=st.lists(_conjunctive_flows(), min_size=8, max_size=20),
    removals=st.integers(0, 5),
    seed=st.integers(0, 1000),
    values=st.lists(st.tuples(*[st.integers(0, 1)] * len(_FIELDS)), min_size=1, max_size=10),
)
def test_lookup_of_conjunctive_flows_is_the_same_as_reading_all_flows(
    flows: list[Flow], removals: int, seed: int, values: list[tuple[int, ...]]
) -> None:
    tables = FlowTables(flows)
    held = {flow.key: flow for flow in flows}
    for key in random.Random(seed).sample(sorted(held, key=str), min(removals, len(held))):
        assert tables.remove(key) == held.pop(key)
    for one in values:
        seen = packet(**dict(zip(_FIELDS, one, strict=True)))
        try:
            expected = _by_reading(list(held.values()), seen)
        except LookupError:
            with pytest.raises(AmbiguousFlowsError):
                tables.find(0, seen.values)
        else:
            assert tables.find(0, seen.values)[0] == expected
