# SPDX-License-Identifier: Apache-2.0
"""Nodes are spread evenly over the controllers, and no more of them move than must."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controller.ha.assignment import REBALANCE_SECONDS, holder, preferred, wanted
from controller.records import OwnerRecord

NODES = [f"node-{number}" for number in range(40)]
NAMES = [f"controller-{number}" for number in range(7)]

node_sets = st.sets(st.sampled_from(NODES), max_size=40)
name_sets = st.sets(st.sampled_from(NAMES), min_size=1)


def incarnations(names: set[str]) -> dict[str, str]:
    return {name: f"{name}/1" for name in names}


@st.composite
def clusters(draw: st.DrawFn) -> tuple[set[str], dict[str, str], dict[str, OwnerRecord]]:
    """Nodes, members, and owners: members, former incarnations of them, strangers, and none."""
    nodes = draw(node_sets)
    members = incarnations(draw(name_sets))
    owners = {}
    for node in draw(st.sets(st.sampled_from(NODES))):
        name = draw(st.sampled_from(NAMES))
        owners[node] = OwnerRecord(
            controller=name, incarnation=f"{name}/{draw(st.sampled_from((1, 1, 1, 0)))}"
        )
    return nodes, members, owners


def owned(chosen: dict[str, str], members: dict[str, str]) -> dict[str, OwnerRecord]:
    """The owners' records when everything is taken as chosen."""
    return {node: OwnerRecord(controller=name, incarnation=members[name]) for node, name in chosen.items()}


def moved(chosen: dict[str, str], owners: dict[str, OwnerRecord], members: dict[str, str]) -> int:
    """Nodes that go from one live member to another."""
    return sum(holder(owners.get(node), members) not in (None, name) for node, name in chosen.items())


@given(clusters())
def test_each_node_has_a_member_and_shares_differ_by_one_at_most(
    cluster: tuple[set[str], dict[str, str], dict[str, OwnerRecord]],
) -> None:
    nodes, members, owners = cluster
    chosen = preferred(nodes, members, owners)
    assert chosen.keys() == nodes
    shares = Counter(chosen.values())
    counts = [shares[name] for name in members]
    assert sum(counts) == len(nodes)
    assert max(counts) - min(counts) <= 1


@given(clusters())
def test_no_more_nodes_leave_a_live_owner_than_even_shares_need(
    cluster: tuple[set[str], dict[str, str], dict[str, OwnerRecord]],
) -> None:
    nodes, members, owners = cluster
    held = Counter(holder(owners.get(node), members) for node in nodes)
    share, more = divmod(len(nodes), len(members))
    # The least: as many members as may have one more are those that have the most.
    counts = sorted((held[name] for name in members), reverse=True)
    least = sum(max(0, count - share - (number < more)) for number, count in enumerate(counts))
    assert moved(preferred(nodes, members, owners), owners, members) == least


@given(clusters(), st.randoms(use_true_random=False))
def test_every_controller_finds_the_same(
    cluster: tuple[set[str], dict[str, str], dict[str, OwnerRecord]], draw: random.Random
) -> None:
    nodes, members, owners = cluster
    chosen = preferred(nodes, members, owners)

    def shuffled(mapping: dict[str, object]) -> dict[str, object]:
        return dict(draw.sample(sorted(mapping.items()), len(mapping)))

    others = preferred(
        draw.sample(sorted(nodes), len(nodes)),
        shuffled(dict(members)),  # type: ignore[arg-type]
        shuffled(dict(owners)),  # type: ignore[arg-type]
    )
    assert others == chosen


@given(clusters(), st.randoms(use_true_random=False))
def test_it_stays_the_same_while_it_is_carried_out(
    cluster: tuple[set[str], dict[str, str], dict[str, OwnerRecord]], draw: random.Random
) -> None:
    nodes, members, owners = cluster
    chosen = preferred(nodes, members, owners)
    done = dict(owners)
    full = owned(chosen, members)
    for node in draw.sample(sorted(nodes), len(nodes)):
        done[node] = full[node]
        assert preferred(nodes, members, done) == chosen


@given(node_sets, name_sets, st.data())
def test_when_a_member_goes_only_what_it_had_moves(
    nodes: set[str], names: set[str], data: st.DataObject
) -> None:
    members = incarnations(names)
    before = preferred(nodes, members, {})
    gone = data.draw(st.sampled_from(sorted(names)))
    left = {name: incarnation for name, incarnation in members.items() if name != gone}
    after = preferred(nodes, left, owned(before, members))
    if left:
        assert {node for node in nodes if after[node] != before[node]} == {
            node for node in nodes if before[node] == gone
        }
    else:
        assert after == {}


@given(node_sets, name_sets, st.data())
def test_when_a_member_comes_only_its_share_moves(
    nodes: set[str], names: set[str], data: st.DataObject
) -> None:
    members = incarnations(names)
    coming = data.draw(st.sampled_from(sorted(names)))
    former = {name: incarnation for name, incarnation in members.items() if name != coming}
    before = preferred(nodes, former, {})
    after = preferred(nodes, members, owned(before, former))
    if former:
        changed = {node for node in nodes if after[node] != before[node]}
        assert changed == {node for node in nodes if after[node] == coming}
        assert len(changed) == len(nodes) // len(members)


@given(clusters(), st.booleans())
def test_what_the_members_want_together_is_what_has_another_owner_than_it_should(
    cluster: tuple[set[str], dict[str, str], dict[str, OwnerRecord]], stable: bool
) -> None:
    nodes, members, owners = cluster
    chosen = preferred(nodes, members, owners)
    seconds = REBALANCE_SECONDS if stable else REBALANCE_SECONDS - 0.1
    takes = {name: wanted(name, nodes, members, owners, seconds, moves=100) for name in NAMES}
    assert all(chosen[node] == name for name, takings in takes.items() for node in takings)
    everything = sorted(node for takings in takes.values() for node in takings)
    holders = {node: holder(owners.get(node), members) for node in nodes}
    assert everything == sorted(
        node for node in nodes if (holders[node] is None or stable) and holders[node] != chosen[node]
    )


@given(clusters(), st.randoms(use_true_random=False))
def test_members_that_take_a_few_at_a_time_end_up_even_and_no_node_moves_twice(
    cluster: tuple[set[str], dict[str, str], dict[str, OwnerRecord]], draw: random.Random
) -> None:
    nodes, members, owners = cluster
    taken: Counter[str] = Counter()
    while True:
        takes = {name: wanted(name, nodes, members, owners, REBALANCE_SECONDS, moves=2) for name in members}
        ready = [name for name, takings in takes.items() if takings]
        if not ready:
            break
        name = draw.choice(ready)
        taken.update(takes[name])
        owners = owners | owned(dict.fromkeys(takes[name], name), members)
    assert max(taken.values(), default=0) <= 1
    shares = Counter(holder(owners.get(node), members) for node in nodes)
    assert max(shares[name] for name in members) - min(shares[name] for name in members) <= 1
