# SPDX-License-Identifier: Apache-2.0
"""Which nodes a controller takes, and when; see tests/property/test_controller_assignment.py for all clusters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from controller.ha.assignment import MOVES_AT_ONCE, REBALANCE_SECONDS, preferred, wanted
from controller.records import OwnerRecord

NODES = [f"node-{number}" for number in range(30)]
A, B, C = "controller-a", "controller-b", "controller-c"
ALL = {A: "a1", B: "b1", C: "c1"}
LONG = REBALANCE_SECONDS


def owners(**nodes: tuple[str, str]) -> dict[str, OwnerRecord]:
    return {
        node.replace("_", "-"): OwnerRecord(controller=controller, incarnation=incarnation)
        for node, (controller, incarnation) in nodes.items()
    }


def all_of(controller: str) -> dict[str, OwnerRecord]:
    return {node: OwnerRecord(controller=controller, incarnation=ALL[controller]) for node in NODES}


def test_a_single_controller_takes_everything_at_once() -> None:
    assert wanted(A, NODES, {A: "a1"}, {}, 0.0) == sorted(NODES)


def test_what_nobody_owns_is_taken_at_once_by_one() -> None:
    takes = [wanted(name, NODES, ALL, {}, 0.0) for name in ALL]
    assert [len(takings) for takings in takes] == [10, 10, 10]
    assert sorted(node for takings in takes for node in takings) == sorted(NODES)


def test_what_a_dead_one_owned_is_taken_at_once() -> None:
    held = owners(node_1=(A, "a1"), node_2=(B, "b1"))
    assert wanted(A, ["node-1", "node-2"], {A: "a1"}, held, 0.0) == ["node-2"]


def test_what_a_former_incarnation_owned_is_owned_by_nobody() -> None:
    held = owners(node_1=(A, "a0"))
    assert wanted(A, ["node-1"], {A: "a1"}, held, 0.0) == ["node-1"]
    assert wanted(B, ["node-1"], {B: "b1"}, held, 0.0) == ["node-1"]


def test_who_is_drained_keeps_what_it_owns_until_others_take_it_and_takes_nothing() -> None:
    held = all_of(C)
    others = {A: "a1", B: "b1"}
    assert wanted(C, NODES, others, held, LONG) == []
    assert sorted(wanted(A, NODES, others, held, 0.0) + wanted(B, NODES, others, held, 0.0)) == sorted(NODES)


def test_live_owners_keep_what_they_own_until_the_members_have_been_the_same_for_a_while() -> None:
    held = all_of(A)
    assert wanted(B, NODES, ALL, held, LONG - 0.1) == []
    takes = wanted(B, NODES, ALL, held, LONG)
    assert len(takes) == min(10, MOVES_AT_ONCE)
    assert wanted(B, NODES, ALL, held, LONG, moves=3) == takes[:3]
    assert wanted(A, NODES, ALL, held, LONG) == []


def test_orphans_come_first_and_are_not_counted() -> None:
    held = all_of(A)
    for node in ("node-8", "node-9"):
        del held[node]
    takes = wanted(B, NODES, ALL, held, LONG, moves=1) + wanted(C, NODES, ALL, held, LONG, moves=1)
    assert {"node-8", "node-9"} < set(takes)
    assert len(takes) == 4


def test_one_node_more_than_others_is_no_reason_to_move() -> None:
    held = owners(node_1=(A, "a1"), node_2=(A, "a1"), node_3=(B, "b1"))
    for name in (A, B):
        assert wanted(name, ["node-1", "node-2", "node-3"], {A: "a1", B: "b1"}, held, LONG) == []


def test_without_members_nobody_should_own_anything() -> None:
    assert preferred(NODES, {}, {}) == {}
    assert wanted(A, NODES, {}, {}, LONG) == []


def test_it_does_not_depend_on_the_order_in_which_a_process_keeps_its_sets() -> None:
    program = (
        "from controller.ha.assignment import preferred\n"
        "from controller.records import OwnerRecord\n"
        "nodes = {f'node-{number}' for number in range(30)}\n"
        "owners = {node: OwnerRecord(controller='a', incarnation='a1') for node in nodes}\n"
        "print(sorted(preferred(nodes, {'a': 'a1', 'b': 'b1', 'c': 'c1'}, owners).items()))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in "1234"
    }
    assert len(found) == 1


def test_newer_controllers_come_for_what_older_ones_keep_a_few_at_a_time() -> None:
    held = all_of(A)
    newer = {B: "b1"}
    assert wanted(B, NODES, newer, held, LONG - 0.1, keepers=ALL) == [], "the members are new"
    taken = wanted(B, NODES, newer, held, LONG, keepers=ALL)
    assert len(taken) == MOVES_AT_ONCE
    for node in taken:
        held[node] = OwnerRecord(controller=B, incarnation="b1")
    assert wanted(B, NODES, newer, held, LONG, keepers=ALL), "and so on, whatever its share among all was"
    assert wanted(A, NODES, newer, held, LONG, keepers=ALL) == []
    assert wanted(C, NODES, newer, held, LONG, keepers=ALL) == []


def test_whose_pipeline_is_refused_takes_nothing_from_older_ones_that_live() -> None:
    held = all_of(A)
    held["node-3"] = OwnerRecord(controller=C, incarnation="c1")
    newer = {B: "b1"}
    keepers = {A: "a1", B: "b1"}
    assert wanted(B, NODES, newer, held, LONG, keepers=keepers, upgrading=False) == ["node-3"]
    assert wanted(B, NODES, ALL, held, LONG, upgrading=False) == wanted(B, NODES, ALL, held, LONG)


def test_what_an_older_controller_leaves_is_taken_at_once_by_newer_ones_alone() -> None:
    held = all_of(A)
    left = {B: "b1", C: "c1"}
    assert wanted(B, NODES, {B: "b1"}, held, 0.0, keepers=left) == sorted(NODES)
    assert wanted(C, NODES, {B: "b1"}, held, 0.0, keepers=left) == []


def test_when_the_newer_ones_are_gone_the_older_ones_take_all_back_at_once() -> None:
    held = all_of(B)
    older = {A: "a1", C: "c1"}
    takes = wanted(A, NODES, older, held, 0.0, keepers=older) + wanted(
        C, NODES, older, held, 0.0, keepers=older
    )
    assert sorted(takes) == sorted(NODES)
