# SPDX-License-Identifier: Apache-2.0
"""While builds are mixed no switch waits that anybody may serve, and none goes to and fro."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controller.ha.assignment import MOVES_AT_ONCE, REBALANCE_SECONDS, holder, wanted
from controller.ha.members import Members
from controller.records import DownRecord, MemberRecord, OwnerRecord, encode, member_key
from controller.store import Entry

NODES = [f"node-{number}" for number in range(40)]
NAMES = [f"controller-{number}" for number in range(5)]

Owners = dict[str, OwnerRecord]


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Members, dict[str, int]]:
    """Controllers with up to three pipelines, of which some hand over and some are not heard; and by name the pipelines
    of the others.
    """
    members, staying = Members(None), {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        record = MemberRecord(
            name=name,
            incarnation=f"{name}/1",
            grpc_address="",
            openflow_target="",
            peers_address="",
            version="",
            pipeline=draw(st.integers(1, 3)),
            draining=draw(st.sampled_from((False, False, True))),
        )
        members.member_stored(name, Entry(member_key(name), encode(record), 1))
        silent = draw(st.sampled_from((False, False, True)))
        if silent:
            members.mark(name, DownRecord(incarnation=record.incarnation, by="", at=""))
        if not silent and not record.draining:
            staying[name] = record.pipeline
    return members, staying


def owner(name: str) -> OwnerRecord:
    return OwnerRecord(controller=name, incarnation=f"{name}/1")


owned = st.dictionaries(st.sampled_from(NODES), st.sampled_from(NAMES).map(owner))


def takings(members: Members, owners: Owners, stable_for: float, moves: int) -> dict[str, list[str]]:
    """What each controller that takes anything would take now."""
    takers, keepers = members.takers(), members.keepers()
    takes = {
        name: wanted(name, NODES, takers, owners, stable_for, moves, keepers=keepers)
        for name in members.all()
    }
    return {name: nodes for name, nodes in takes.items() if nodes}


@given(rollouts())
def test_those_take_that_have_the_highest_pipeline_of_all_who_are_heard_and_stay(
    rollout: tuple[Members, dict[str, int]],
) -> None:
    members, staying = rollout
    highest = max(staying.values(), default=0)
    assert members.takers().keys() == {name for name, pipeline in staying.items() if pipeline == highest}


@given(rollouts(), owned)
def test_what_nobody_has_who_is_heard_is_taken_at_once_by_one_if_there_is_any(
    rollout: tuple[Members, dict[str, int]], owners: Owners
) -> None:
    members, staying = rollout
    takes = Counter(node for nodes in takings(members, owners, 0.0, MOVES_AT_ONCE).values() for node in nodes)
    orphans = [node for node in NODES if holder(owners.get(node), members.keepers()) is None]
    assert takes == (Counter(orphans) if staying else Counter())


@given(rollouts(), owned, st.randoms(use_true_random=False))
def test_in_whatever_order_they_take_it_ends_and_no_switch_moves_twice(
    rollout: tuple[Members, dict[str, int]], owners: Owners, draw: random.Random
) -> None:
    members, staying = rollout
    moved: Counter[str] = Counter()
    while takes := takings(members, owners, REBALANCE_SECONDS, 2):
        name = draw.choice(sorted(takes))
        moved.update(takes[name])
        owners = owners | dict.fromkeys(takes[name], owner(name))
        assert max(moved.values()) == 1
    if staying:
        assert {owners[node].controller for node in NODES} <= members.takers().keys()
