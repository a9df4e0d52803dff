# SPDX-License-Identifier: Apache-2.0
"""Whatever changes in whatever order: what was told of changes adds up to what an engine says that was told the end.

And nothing is told that did not change, whatever is denied now that was allowed before has an end in a range that is
told as shrunk, and nothing is remembered of what is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from random import Random
from typing import Final
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from sdn.model.address import Address, Range
from sdn.policy import index, peers
from sdn.policy.changes import Changes
from sdn.policy.engine import PolicyEngine
from sdn.policy.evaluator import evaluate, policy_ref
from sdn.policy.selectors import Catalog, Filing
from sdn.policy.values import Direction, PolicyNode, PolicyPod, PolicyRef
from sdn.policy.verdict import Connection, Policy, PolicyCluster, connection_between
from tests.property import policy_clusters as clusters
from tests.property.policy_objects import DOMAINS, NAMESPACES, random_policy

NODES: Final = (1, 2, 3)
_SEEDS: Final = st.integers(0, 2**32 - 1)
#: Hypothesis makes short lists by itself; few changes seldom meet.
_CHANGES: Final = st.integers(1, 80).flatmap(lambda count: st.lists(_SEEDS, min_size=count, max_size=count))
#: Addresses of pods are few, so that they are given anew.
_SLOTS: Final = 4


class Told:
    """A cluster, an engine that is told of it change by change, and what the engine told: ``everywhere`` of all nodes
    from the beginning, else of those that are subscribed to on the way.
    """

    def __init__(self, everywhere: bool) -> None:
        self.namespaces: dict[str, dict[str, str]] = {}
        self.nodes: dict[str, PolicyNode] = {}
        self.pods: dict[str, PolicyPod] = {}
        self.policies: dict[PolicyRef, Policy] = {}
        self.domains: dict[str, frozenset[Address]] = {}
        self.engine = PolicyEngine()
        self.subscribed = {f"node-{number}" for number in NODES} if everywhere else set[str]()
        self.cells = {name: self.engine.subscribe(name) for name in sorted(self.subscribed)}

    def cluster(self) -> PolicyCluster:
        return PolicyCluster(
            dict(self.namespaces),
            tuple(self.nodes.values()),
            tuple(self.pods.values()),
            tuple(self.policies.values()),
            dict(self.domains),
        )

    def change(self, rng: Random) -> None:
        """One change of any kind; some change nothing."""
        kind = rng.choices(
            (self._pod, self._relabel, self._policy, self._namespace, self._node, self._domain),
            (5, 3, 4, 2, 1, 1),
        )[0]
        kind(rng)

    def _pod(self, rng: Random) -> None:
        """A pod begins, ends, moves, or has other addresses or ports."""
        key = f"attachment-{rng.randrange(6)}"
        if key in self.pods and rng.random() < 0.4:
            del self.pods[key]
            self.engine.remove_pod(key)
            return
        pod = clusters.random_pod(rng, 0, rng.choice(NODES), rng.randrange(_SLOTS), (4, 6), len(NAMESPACES))
        if key in self.pods and rng.random() < 0.4:
            # One thing of it alone.
            now = self.pods[key]
            pod = rng.choice(
                (
                    replace(now, named_ports=pod.named_ports),
                    replace(now, name=pod.name),
                    replace(now, namespace=pod.namespace),
                    replace(now, ofport=pod.ofport),
                    replace(now, addresses=pod.addresses),
                )
            )
        pod = replace(pod, key=key, name=rng.choice(("pod", key)))
        others = [one for one in self.pods.values() if one.key != key]
        if any(one.node == pod.node and one.ofport == pod.ofport for one in others):
            return
        if any(set(one.addresses) & set(pod.addresses) for one in others) and rng.random() < 0.9:
            return
        self.pods[key] = pod
        self.engine.put_pod(pod)

    def _relabel(self, rng: Random) -> None:
        if self.pods:
            key = rng.choice(sorted(self.pods))
            labels = clusters.random_pod(rng, 0, 1, 0, (4,), 1).labels
            self.pods[key] = replace(self.pods[key], labels=labels)
            self.engine.put_pod(self.pods[key])

    def _policy(self, rng: Random) -> None:
        if self.policies and rng.random() < 0.4:
            ref = rng.choice(sorted(self.policies))
            if rng.random() < 0.5:
                del self.policies[ref]
                self.engine.remove_policy(ref)
                return
            policy = self.policies[ref]
            other = random_policy(rng, ref.name)
            if other.KIND == policy.KIND:
                # Other annotations, or other rules.
                name = policy.metadata
                policy = type(policy)(
                    metadata=type(name)(
                        name=name.name, namespace=name.namespace, annotations=other.metadata.annotations
                    ),
                    spec=rng.choice((policy.spec, other.spec)),
                )
        else:
            # Few generators, so that policies are often equal.
            policy = random_policy(Random(rng.randrange(12)), f"policy-{rng.randrange(5)}")
        self.policies[policy_ref(policy)] = policy
        self.engine.put_policy(policy)

    def _namespace(self, rng: Random) -> None:
        name = rng.choice(NAMESPACES)
        labels = dict(clusters.random_namespaces(rng, len(NAMESPACES)).get(name, {}))
        if name in self.namespaces and rng.random() < 0.3:
            del self.namespaces[name]
            self.engine.remove_namespace(name)
        else:
            self.namespaces[name] = labels
            self.engine.put_namespace(name, labels)

    def _node(self, rng: Random) -> None:
        name = f"node-{rng.choice(NODES)}"
        if name in self.nodes and rng.random() < 0.3:
            del self.nodes[name]
            self.engine.remove_node(name)
            return
        other = clusters.node(rng.choice(NODES), rng.choice(clusters.FAMILIES))
        node = clusters.node(int(name[-1]), rng.choice(clusters.FAMILIES))
        self.nodes[name] = replace(node, labels=rng.choice((node.labels, other.labels)))
        self.engine.put_node(self.nodes[name])

    def _domain(self, rng: Random) -> None:
        name = rng.choice(DOMAINS)
        addresses = clusters.random_domains(rng).get(name, frozenset())
        self.domains.pop(name, None)
        if addresses:
            self.domains[name] = addresses
        self.engine.put_domain(name, addresses)

    def subscribe(self, rng: Random) -> None:
        """Begins or ends to hear of a node."""
        name = f"node-{rng.choice(NODES)}"
        if name in self.subscribed:
            self.engine.unsubscribe(name)
            self.subscribed.discard(name)
            del self.cells[name]
        else:
            self.cells[name] = self.engine.subscribe(name)
            self.subscribed.add(name)

    def take(self, exactly: bool) -> dict[str, frozenset[Range]]:
        """Adds up what the engine tells; ``exactly``: each change makes a difference."""
        return self.add(self.engine.take(), exactly)

    def add(self, changes: Changes, exactly: bool) -> dict[str, frozenset[Range]]:
        """Adds up something that the engine told."""
        assert changes.cells.keys() <= self.subscribed
        assert changes.shrunk.keys() <= self.subscribed
        assert list(changes.cells) == sorted(changes.cells)
        for node, cells in changes.cells.items():
            there = self.cells[node]
            for key, cell in cells.items():
                if exactly:
                    assert there.get(key) != cell, f"{node} was told again of {key}"
                if cell is None:
                    there.pop(key, None)
                else:
                    assert cell.key == key
                    there[key] = cell
        return changes.shrunk

    def fresh(self, rng: Random) -> PolicyEngine:
        """An engine that is told the end alone, in another order."""
        engine = PolicyEngine()
        tell = [
            *((engine.put_namespace, each) for each in self.namespaces.items()),
            *((engine.put_node, (each,)) for each in self.nodes.values()),
            *((engine.put_pod, (each,)) for each in self.pods.values()),
            *((engine.put_policy, (each,)) for each in self.policies.values()),
            *((engine.put_domain, each) for each in self.domains.items()),
        ]
        rng.shuffle(tell)
        for method, arguments in tell:
            method(*arguments)
        return engine


def check_cells(told: Told, rng: Random) -> None:
    """What was told adds up to what an engine says that never knew anything else, and so does what this one says."""
    fresh = told.fresh(rng)
    for node in told.subscribed:
        assert told.cells[node] == fresh.cells(node)
        assert told.engine.cells(node) == fresh.cells(node)


def check_connections(told: Told, rng: Random) -> None:
    """What the engine says of connections is what the evaluator says, whatever it was asked before."""
    cluster = told.cluster()
    ends = _addresses(cluster)
    for _ in range(20):
        asked = random_question(rng, ends)
        expected = evaluate(cluster, connection_between(cluster, *asked)).allowed
        assert told.engine.allows(*asked) == expected, asked


@contextmanager
def ways(many: bool) -> Iterator[None]:
    """With ``many``, the ways are gone that are shorter where there are many labels and many rules."""
    with ExitStack() as stack:
        if many:
            stack.enter_context(mock.patch.object(index, "_MANY", 0))
            stack.enter_context(mock.patch.object(peers, "_RULES_A_NODE", 0))
        yield


@given(_CHANGES, st.booleans(), st.booleans())
def test_changes_add_up_to_what_an_engine_says_that_was_told_the_end(
    seeds: Sequence[int], everywhere: bool, many: bool
) -> None:
    with ways(many):
        _add_up(seeds, everywhere)


def _add_up(seeds: Sequence[int], everywhere: bool) -> None:
    told = Told(everywhere)
    exactly = True
    for seed in seeds:
        rng = Random(seed)
        told.change(rng)
        if not everywhere and rng.random() < 0.15:
            # What was found before a subscription began is told with what came after.
            told.subscribe(rng)
            exactly = False
        if rng.random() < 0.4:
            told.take(exactly)
            exactly = True
            check_cells(told, rng)
        if rng.random() < 0.2:
            check_connections(told, rng)
    told.take(exactly)
    check_cells(told, Random(0))
    check_connections(told, Random(0))


@given(_CHANGES)
def test_what_is_undone_before_it_is_taken_is_not_told(seeds: Sequence[int]) -> None:
    told = Told(everywhere=True)
    for seed in seeds[: len(seeds) // 2]:
        told.change(Random(seed))
    told.take(exactly=True)
    before = told.cluster()
    for seed in seeds[len(seeds) // 2 :]:
        told.change(Random(seed))
    for key in told.pods:
        told.engine.remove_pod(key)
    for ref in told.policies:
        told.engine.remove_policy(ref)
    for name in NAMESPACES:
        told.engine.remove_namespace(name)
    for name in told.nodes:
        told.engine.remove_node(name)
    for name in DOMAINS:
        told.engine.put_domain(name, before.domains.get(name, frozenset()))
    for policy in before.policies:
        told.engine.put_policy(policy)
    for name, labels in before.namespaces.items():
        told.engine.put_namespace(name, labels)
    for pod in before.pods:
        told.engine.put_pod(pod)
    for node in before.nodes:
        told.engine.put_node(node)
    assert told.engine.take().cells == {}


# Connections that ended.


def _addresses(*all_of_them: PolicyCluster) -> dict[int, list[Address]]:
    """All that mean something, by version. Of one that two pods have it is not said whose connections are meant."""
    found: dict[int, set[Address]] = {4: set(), 6: set()}
    for cluster in all_of_them:
        for pod in cluster.pods:
            for address in pod.addresses:
                found[address.version].add(address)
        for node in cluster.nodes:
            for address in (*node.addresses, *node.gateways):
                found[address.version].add(address)
        for addresses in cluster.domains.values():
            for address in addresses:
                found[address.version].add(address)
    for version, outside in clusters.OUTSIDE.items():
        found[version].update(map(Address.parse, outside))
    for cluster in all_of_them:
        times = Counter(address for pod in cluster.pods for address in pod.addresses)
        for address, count in times.items():
            if count > 1:
                found[address.version].discard(address)
    return {version: sorted(each, key=lambda one: one.value) for version, each in found.items()}


def random_question(rng: Random, ends: Mapping[int, Sequence[Address]]) -> tuple[Address, Address, int, int]:
    """From where to where, the protocol, and the port."""
    version = rng.choice((4, 6))
    protocol, port = rng.choice(((6, 80), (6, 8080), (17, 53), (6, 443), (132, 9090), (1, 0)))
    return rng.choice(ends[version]), rng.choice(ends[version]), protocol, port


def _node_of(connection: Connection, direction: Direction) -> str:
    pod = connection.source if direction is Direction.EGRESS else connection.destination
    assert isinstance(pod, PolicyPod)
    return pod.node


@given(_CHANGES, st.lists(_SEEDS, min_size=1, max_size=4), _SEEDS)
def test_whatever_is_denied_now_has_an_end_that_was_told_as_shrunk(
    before: Sequence[int], changes: Sequence[int], seed: int
) -> None:
    rng = Random(seed)
    told = Told(everywhere=True)
    for each in before:
        told.change(Random(each))
    told.take(exactly=True)
    was = told.cluster()
    for each in changes:
        told.change(Random(each))
    shrunk = told.take(exactly=True)
    now = told.cluster()
    ends = _addresses(was, now)
    for _ in range(60):
        asked = random_question(rng, ends)
        one, other = (evaluate(each, connection_between(each, *asked)) for each in (was, now))
        for earlier, later in ((one.egress, other.egress), (one.ingress, other.ingress)):
            if earlier.allowed and not later.allowed:
                there = shrunk.get(_node_of(other.connection, later.direction), frozenset())
                assert any(address in each for address in asked[:2] for each in there), (asked, one, other)


def _sizes(engine: PolicyEngine) -> dict[str, int]:
    """How much an engine remembers, of everything that grows."""
    found: dict[str, int] = {}
    for part in vars(engine).values():
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, Filing):
                value = value._filed
            elif isinstance(value, Catalog):
                value = value._by
            if isinstance(value, dict | set | list):
                found[f"{type(part).__name__}.{name}"] = len(value)
    return found


@given(_CHANGES, st.booleans())
def test_nothing_is_remembered_of_what_is_gone(seeds: Sequence[int], everywhere: bool) -> None:
    told = Told(everywhere)
    for seed in seeds:
        rng = Random(seed)
        told.change(rng)
        if rng.random() < 0.2:
            told.take(exactly=False)
    rng = Random(0)
    ends = [
        *((told.engine.remove_pod, key) for key in told.pods),
        *((told.engine.remove_policy, ref) for ref in told.policies),
        *((told.engine.remove_namespace, name) for name in told.namespaces),
        *((told.engine.remove_node, name) for name in told.nodes),
    ]
    rng.shuffle(ends)
    for end, what in ends:
        end(what)
    for name in DOMAINS:
        told.engine.put_domain(name, frozenset())
    told.take(exactly=False)
    for name in told.subscribed:
        told.engine.unsubscribe(name)
    told.take(exactly=False)
    left = {name: size for name, size in _sizes(told.engine).items() if size}
    # Bits of nodes are given anew.
    assert left.keys() <= {"Nodes._free"}
    assert sum(left.values()) <= len(NODES)
    assert not any(told.cells.values())
