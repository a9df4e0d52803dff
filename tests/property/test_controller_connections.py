# SPDX-License-Identifier: Apache-2.0
"""Where there are many controllers each switch is connected to a few, and goes to one of these when its owner goes."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.ha.assignment import REBALANCE_SECONDS, holder, preferred, wanted
from controller.ha.connections import MOST_CONNECTED, candidates, connected
from controller.records import OwnerRecord

NODES = [f"node-{number}" for number in range(60)]
NAMES = [f"controller-{number}" for number in range(14)]

node_sets = st.sets(st.sampled_from(NODES), max_size=60)
any_names = st.frozensets(st.sampled_from(NAMES), min_size=1)
few_names = st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=MOST_CONNECTED)
many_names = st.frozensets(st.sampled_from(NAMES), min_size=MOST_CONNECTED + 1)
any_node = st.sampled_from(NODES)
any_owner = st.none() | st.sampled_from(NAMES)


def incarnations(names: set[str] | frozenset[str]) -> dict[str, str]:
    return {name: f"{name}/1" for name in names}


def owned(chosen: dict[str, str]) -> dict[str, OwnerRecord]:
    """The owners' records when everything is taken as chosen."""
    return {node: OwnerRecord(controller=name, incarnation=f"{name}/1") for node, name in chosen.items()}


@st.composite
def clusters(
    draw: st.DrawFn,
) -> tuple[set[str], frozenset[str], dict[str, str], dict[str, OwnerRecord]]:
    """Nodes, controllers that are there, those of them that take switches, and owners, strangers among them."""
    nodes, there = draw(node_sets), draw(many_names)
    takers = draw(st.sets(st.sampled_from(sorted(there)), min_size=1) | st.just(set(there)))
    owners = {
        node: OwnerRecord(controller=name, incarnation=f"{name}/{draw(st.sampled_from((1, 1, 1, 0)))}")
        for node, name in draw(st.dictionaries(any_node, st.sampled_from(NAMES))).items()
    }
    return nodes, there, incarnations(takers), owners


Cluster = tuple[set[str], frozenset[str], dict[str, str], dict[str, OwnerRecord]]


@given(any_node, few_names, any_owner)
def test_of_few_controllers_a_switch_is_connected_to_all_and_may_go_to_any(
    node: str, there: frozenset[str], owner: str | None
) -> None:
    assert connected(node, there, owner) == candidates(node, there) == there


@given(any_node, many_names, any_owner)
def test_of_many_a_switch_is_connected_to_a_bounded_number_its_owner_among_them(
    node: str, there: frozenset[str], owner: str | None
) -> None:
    near = connected(node, there, owner)
    assert len(near) == MOST_CONNECTED
    assert near <= there
    assert owner not in there or owner in near
    assert candidates(node, there) <= near


@given(any_node, st.frozensets(st.sampled_from(NAMES), min_size=MOST_CONNECTED + 2), any_owner, st.data())
def test_who_may_take_a_switch_when_a_controller_goes_is_connected_before(
    node: str, there: frozenset[str], owner: str | None, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(connected(node, there, owner))))
    if owner in (None, gone) or owner in candidates(node, there):
        assert candidates(node, there - {gone}) <= connected(node, there, owner)
    else:
        # Its owner, which is there, has the place of the one that comes up.
        assert len(candidates(node, there - {gone}) - connected(node, there, owner)) <= 1


@given(any_node, st.frozensets(st.sampled_from(NAMES), min_size=MOST_CONNECTED + 2), any_owner, st.data())
def test_a_controller_that_comes_or_goes_changes_one_connection_of_a_switch_at_most(
    node: str, there: frozenset[str], owner: str | None, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(there)))
    more, fewer = connected(node, there, owner), connected(node, there - {gone}, owner)
    assert len(more - fewer) == len(fewer - more) <= 1
    assert more - fewer <= {gone} or gone not in more


@given(clusters())
def test_each_node_goes_to_one_that_it_is_connected_to_where_one_of_these_takes_any(cluster: Cluster) -> None:
    nodes, there, takers, owners = cluster
    chosen = preferred(nodes, takers, owners, there)
    assert chosen.keys() == nodes
    for node, name in chosen.items():
        assert name in takers
        if holder(owners.get(node), takers) != name and takers.keys() & candidates(node, there):
            assert name in candidates(node, there)


@given(st.sets(st.sampled_from(NODES)), few_names, st.dictionaries(any_node, st.sampled_from(NAMES)))
def test_with_few_controllers_all_is_as_if_nobody_asked_for_connections(
    nodes: set[str], there: frozenset[str], owners: dict[str, str]
) -> None:
    members = incarnations(there)
    assert preferred(nodes, members, owned(owners), there) == preferred(nodes, members, owned(owners))


@given(clusters(), st.randoms(use_true_random=False))
def test_every_controller_finds_the_same(cluster: Cluster, draw: random.Random) -> None:
    nodes, there, takers, owners = cluster
    others = preferred(
        draw.sample(sorted(nodes), len(nodes)),
        dict(draw.sample(sorted(takers.items()), len(takers))),
        dict(draw.sample(sorted(owners.items()), len(owners))),
        draw.sample(sorted(there), len(there)),
    )
    assert others == preferred(nodes, takers, owners, there)


@settings(max_examples=50, deadline=None)
@given(clusters(), st.randoms(use_true_random=False))
def test_members_that_take_a_few_at_a_time_come_to_an_end_that_no_single_move_makes_more_even(
    cluster: Cluster, draw: random.Random
) -> None:
    nodes, there, takers, owners = cluster
    while True:
        takes = {
            name: wanted(name, nodes, takers, owners, REBALANCE_SECONDS, moves=2, there=there)
            for name in takers
        }
        ready = [name for name, takings in takes.items() if takings]
        if not ready:
            break
        # Several at once, none of which has seen yet what the others take.
        for name in draw.sample(ready, draw.randint(1, len(ready))):
            owners = owners | owned(dict.fromkeys(takes[name], name))
    held = {node: holder(owners.get(node), takers) for node in nodes}
    assert None not in held.values()
    load = Counter(held.values())
    for node, name in held.items():
        for near in takers.keys() & candidates(node, there):
            assert load[name] - load[near] <= 1
    assert preferred(nodes, takers, owners, there) == held


@settings(max_examples=30, deadline=None)
@given(st.integers(MOST_CONNECTED + 2, 12), st.data())
def test_many_nodes_are_spread_evenly_and_few_move_when_a_controller_comes_or_goes(
    number: int, data: st.DataObject
) -> None:
    names = [f"controller-{data.draw(st.integers(0, 999))}-{each}" for each in range(number)]
    nodes = [f"node-{each}" for each in range(300)]
    before = preferred(nodes, incarnations(set(names)), {}, names)
    assert _gap(before, names) <= 2
    gone, left = names[0], names[1:]
    after = preferred(nodes, incarnations(set(left)), owned(before), left)
    assert _gap(after, left) <= 2
    had = {node for node in nodes if before[node] == gone}
    moved = {node for node in nodes if after[node] != before[node]}
    assert had <= moved
    assert len(moved - had) <= 3
    back = preferred(nodes, incarnations(set(names)), owned(after), names)
    assert _gap(back, names) <= 2
    assert len({node for node in nodes if back[node] != after[node]}) <= len(nodes) // number + 3


def _gap(chosen: dict[str, str], names: list[str]) -> int:
    load = Counter(chosen.values())
    return max(load[name] for name in names) - min(load[name] for name in names)


def test_connections_are_spread_over_the_controllers() -> None:
    names = frozenset(f"controller-{number}" for number in range(10))
    nodes = [f"node-{number}" for number in range(1000)]
    load = Counter(name for node in nodes for name in connected(node, names, None))
    assert sum(load.values()) == len(nodes) * MOST_CONNECTED
    assert max(load.values()) < 1.2 * len(nodes) * MOST_CONNECTED / len(names)
