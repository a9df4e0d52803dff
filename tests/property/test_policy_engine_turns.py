# SPDX-License-Identifier: Apache-2.0
"""Changes that are told to some nodes at a time, in steps of any size, while others come: no node loses one, none is
told anything twice, and whoever waits for nothing knows all there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from sdn.model.address import Range
from sdn.policy import podchanges, portions
from sdn.policy.evaluator import evaluate
from sdn.policy.verdict import connection_between
from tests.property.test_policy_engine_changes import (
    _CHANGES,
    _SEEDS,
    NODES,
    Told,
    _addresses,
    _node_of,
    _sizes,
    check_cells,
    random_question,
    ways,
)

#: Nearly nothing, a node's, a few nodes', nearly always everything.
_STEPS = (0, 60, 300, 5000)


@contextmanager
def small(whole_nodes: bool) -> Iterator[None]:
    """Work stops after every item; with ``whole_nodes`` all pods of a node are looked at for any rule."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(portions, "_PORTION", 1))
        if whole_nodes:
            stack.enter_context(mock.patch.object(podchanges, "_FEW", 0))
        yield


class InTurns(Told):
    """Remembers whose connections may have been denied."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__(everywhere)
        self.shrunk: defaultdict[str, set[Range]] = defaultdict(set)

    def work(self, rng: Random) -> None:
        """Some of the work, or none."""
        engine, steps = self.engine, rng.choice(_STEPS)
        match rng.randrange(6):
            case 0 | 1:
                told = engine.take_new(steps)
            case 2 | 3:
                told = engine.take_waiting(steps)
            case 4:
                node = f"node-{rng.choice(NODES)}"
                told = engine.take_of(node)
                assert told.cells.keys() <= {node}
                assert not engine.waits(node)
            case _:
                return
        for name, ranges in self.add(told, exactly=True).items():
            self.shrunk[name] |= ranges

    def finish(self, rng: Random) -> None:
        """All that is left, as a controller does it: in steps until nobody waits."""
        told = self.engine.take_new(rng.choice(_STEPS))
        while True:
            for name, ranges in self.add(told, exactly=True).items():
                self.shrunk[name] |= ranges
            if not self.engine.waiting:
                break
            told = self.engine.take_waiting(rng.choice(_STEPS))
        assert not any(self.engine.waits(f"node-{number}") for number in NODES)

    def check_whoever_waits_for_nothing(self, rng: Random) -> None:
        fresh = self.fresh(rng)
        for node in self.subscribed:
            if not self.engine.waits(node):
                assert self.cells[node] == fresh.cells(node)


@given(_CHANGES, st.booleans(), st.booleans(), st.booleans())
def test_whatever_is_told_in_whatever_steps_adds_up(
    seeds: Sequence[int], everywhere: bool, many: bool, whole_nodes: bool
) -> None:
    with ways(many), small(whole_nodes):
        told = InTurns(everywhere)
        for seed in seeds:
            rng = Random(seed)
            told.change(rng)
            if not everywhere and rng.random() < 0.15:
                told.subscribe(rng)
            for _ in range(rng.randrange(3)):
                told.work(rng)
            if rng.random() < 0.3:
                told.check_whoever_waits_for_nothing(rng)
        told.finish(Random(0))
        check_cells(told, Random(0))


@given(_CHANGES, _CHANGES, st.booleans(), _SEEDS)
def test_whatever_is_denied_now_was_told_as_shrunk_on_the_way(
    before: Sequence[int], changes: Sequence[int], whole_nodes: bool, seed: int
) -> None:
    with small(whole_nodes):
        rng = Random(seed)
        told = InTurns(everywhere=True)
        for each in before:
            told.change(Random(each))
        told.take(exactly=True)
        was = told.cluster()
        for each in changes[:6]:
            told.change(Random(each))
            told.work(Random(each))
        told.finish(rng)
        now = told.cluster()
        ends = _addresses(was, now)
        for _ in range(40):
            asked = random_question(rng, ends)
            one, other = (evaluate(each, connection_between(each, *asked)) for each in (was, now))
            for earlier, later in ((one.egress, other.egress), (one.ingress, other.ingress)):
                if earlier.allowed and not later.allowed:
                    there = told.shrunk[_node_of(other.connection, later.direction)]
                    assert any(address in each for address in asked[:2] for each in there), asked


@given(_CHANGES, st.booleans())
def test_nothing_is_remembered_of_what_is_gone(seeds: Sequence[int], everywhere: bool) -> None:
    with small(whole_nodes=True):
        told = InTurns(everywhere)
        for seed in seeds:
            rng = Random(seed)
            told.change(rng)
            told.work(rng)
        for key in told.pods:
            told.engine.remove_pod(key)
        for ref in told.policies:
            told.engine.remove_policy(ref)
        for namespace in told.namespaces:
            told.engine.remove_namespace(namespace)
        for node in told.nodes:
            told.engine.remove_node(node)
        for name in told.domains:
            told.engine.put_domain(name, frozenset())
        told.finish(Random(0))
        assert not any(told.cells.values())
        for name in told.subscribed:
            told.engine.unsubscribe(name)
        told.engine.take()
        left = {name: size for name, size in _sizes(told.engine).items() if size}
        assert left.keys() <= {"Nodes._free"}
