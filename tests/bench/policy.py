# SPDX-License-Identifier: Apache-2.0
"""The policy engine with very large clusters: how long it takes them in, and what a single change costs then.

Four clusters, each in a process of its own, all on 1,000 nodes:

1. 25,000 namespaces with 4 pods each, a policy that denies all, and two that each let two of the pods reach each other:
   100,000 pods, 75,000 policies;
2. one namespace with 10,000 pods and 10,000 equal policies that each let all of them reach each other;
3. 100 namespaces with 1,000 pods each, a policy that denies all, and 100 that each let ten pods reach each other:
   100,000 pods, 10,100 policies;
4. 1,000 namespaces of 100 companies with 100 pods each, and 10,000 ClusterNetworkPolicies, each for ten pods of one
   namespace and about the like pods in the namespaces of its company: 100,000 pods.

*taken in*: from parsed objects to what every answer follows from. *all cells*: then the cells of all nodes, one node
after the other. *memory*: growth of the process by what was taken in, and while all cells were made. Then single
changes, with what the engine tells of them, all nodes being subscribed to. There is no peer in the table: a Go
controller of another network was measured at 8.9 s and 0.94 GB for (1) and at 0.4 s for (2), without cells,
which its agents compute.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from controller.collector import set_survivors_aside
from sdn.model import clusternetworkpolicy as cnp
from sdn.model.address import Address
from sdn.model.meta import ObjectMeta
from sdn.model.networkpolicy import (
    EGRESS,
    INGRESS,
    NetworkPolicy,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicySpec,
)
from sdn.model.selector import LabelSelectorSpec
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import PolicyNode, PolicyPod, PolicyRef
from sdn.policy.verdict import Policy
from tests.bench import frame
from tests.bench.frame import Figure, Report

NODES: Final = 1_000
QUICK_NODES: Final = 10
CHANGES: Final = 200
QUICK_CHANGES: Final = 5
CONNECTIONS: Final = 5_000
#: By which a quick run is smaller.
QUICK: Final = 100
_FIRST_POD: Final = 10 << 24


@dataclass(frozen=True)
class Objects:
    """A cluster, parsed."""

    namespaces: list[tuple[str, dict[str, str]]]
    policies: list[Policy]
    pods: list[PolicyPod]
    nodes: list[PolicyNode]


@dataclass(frozen=True)
class Measured:
    """What one cluster cost: seconds, MB, and of each kind of change the milliseconds of each."""

    objects: float
    taken_in: float
    cells: float
    cell_count: int
    memory: float
    memory_with_cells: float
    changes: dict[str, tuple[float, ...]]
    told: dict[str, float]
    subscribed: float
    verdicts: tuple[float, ...]


class Clusters:
    """The clusters, in the sizes of a run."""

    def __init__(self, quick: bool) -> None:
        self.scale = QUICK if quick else 1
        self.nodes = QUICK_NODES if quick else NODES
        self._pods = 0

    def pod(self, namespace: str, labels: dict[str, str]) -> PolicyPod:
        """One more pod, on the next node."""
        number = self._pods
        self._pods += 1
        return PolicyPod(
            key=f"{number:012x}/eth0",
            namespace=namespace,
            name=f"pod-{number}",
            node=f"node-{number % self.nodes}",
            labels=labels,
            addresses=(Address(4, _FIRST_POD + number),),
            ofport=16 + number // self.nodes,
        )

    def objects(
        self, namespaces: list[tuple[str, dict[str, str]]], policies: list[Policy], pods: list[PolicyPod]
    ) -> Objects:
        nodes = [
            PolicyNode(f"node-{number}", {"zone": f"zone-{number % 3}"}, (Address(4, (172 << 24) + number),))
            for number in range(self.nodes)
        ]
        return Objects(namespaces, policies, pods, nodes)

    def small_namespaces(self) -> Objects:
        names = [f"ns-{number}" for number in range(25_000 // self.scale)]
        policies: list[Policy] = []
        pods = []
        for name in names:
            policies.append(_isolating(name, "default-deny-all", {}))
            for each in ("1", "2"):
                labels = {f"app-{each}": f"scale-{each}"}
                policies.append(_isolating(name, f"np-{each}", labels, labels))
                pods += [self.pod(name, labels) for _ in range(2)]
        return self.objects([(name, {"app": name}) for name in names], policies, pods)

    def one_namespace(self) -> Objects:
        labels = {"app-1": "scale-1"}
        count = 10_000 // self.scale
        policies: list[Policy] = [
            _isolating("ns-0", f"np-{number}", labels, labels) for number in range(count)
        ]
        return self.objects(
            [("ns-0", {"app": "ns-0"})], policies, [self.pod("ns-0", labels) for _ in range(count)]
        )

    def large_namespaces(self) -> Objects:
        names = [f"ns-{number}" for number in range(max(2, 100 // self.scale))]
        policies: list[Policy] = []
        pods = []
        for name in names:
            policies.append(_isolating(name, "default-deny-all", {}))
            for each in range(100):
                labels = {f"app-{each}": f"scale-{each}"}
                policies.append(_isolating(name, f"np-{each}", labels, labels))
                pods += [self.pod(name, labels) for _ in range(10)]
        return self.objects([(name, {"app": name}) for name in names], policies, pods)

    def companies(self) -> Objects:
        names = [f"ns-{number}" for number in range(1_000 // self.scale)]
        companies = max(2, 100 // self.scale)
        namespaces = [
            (name, {"company": f"company-{number % companies}"}) for number, name in enumerate(names)
        ]
        policies: list[Policy] = []
        pods = []
        for name, labels in namespaces:
            for each in range(10):
                app = {"app": f"scale-{each}"}
                policies.append(_cluster_policy(f"{name}-{each}", name, app, labels))
                pods += [self.pod(name, app) for _ in range(10)]
        return self.objects(namespaces, policies, pods)


def _isolating(
    namespace: str, name: str, selected: dict[str, str], peers: dict[str, str] | None = None
) -> NetworkPolicy:
    """Isolates pods in both directions, and lets the peers in."""
    rules: tuple[NetworkPolicyIngressRule, ...] = ()
    if peers is not None:
        peer = NetworkPolicyPeer(pod_selector=LabelSelectorSpec(match_labels=peers))
        rules = (NetworkPolicyIngressRule(from_=(peer,)),)
    spec = NetworkPolicySpec(
        pod_selector=LabelSelectorSpec(match_labels=selected), ingress=rules, policy_types=(INGRESS, EGRESS)
    )
    return NetworkPolicy(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


def _cluster_policy(
    name: str, namespace: str, app: dict[str, str], company: dict[str, str]
) -> cnp.ClusterNetworkPolicy:
    """Lets pods of the company's namespaces reach those of one namespace, by the same label."""
    pods = LabelSelectorSpec(match_labels=app)
    own = LabelSelectorSpec(match_labels={"kubernetes.io/metadata.name": namespace})
    peers = cnp.NamespacedPods(namespace_selector=LabelSelectorSpec(match_labels=company), pod_selector=pods)
    rule = cnp.ClusterNetworkPolicyIngressRule(
        action=cnp.ACCEPT, from_=(cnp.ClusterNetworkPolicyPeer(pods=peers),)
    )
    spec = cnp.ClusterNetworkPolicySpec(
        tier=cnp.ADMIN,
        priority=100,
        subject=cnp.Subject(pods=cnp.NamespacedPods(namespace_selector=own, pod_selector=pods)),
        ingress=(rule,),
    )
    return cnp.ClusterNetworkPolicy(metadata=ObjectMeta(name=name), spec=spec)


SCENARIOS: Final[dict[str, Callable[[Clusters], Objects]]] = {
    "1 small namespaces": Clusters.small_namespaces,
    "2 one namespace": Clusters.one_namespace,
    "3 large namespaces": Clusters.large_namespaces,
    "4 companies": Clusters.companies,
}


def run(quick: bool) -> Report:
    figures: list[Figure] = []
    notes: list[str] = []
    for name in SCENARIOS:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            measured = process.apply(measure, (name, quick))
        figures += [
            Figure(f"{name}: taken in", "s", (measured.taken_in,)),
            Figure(f"{name}: all cells", "s", (measured.cells,)),
            Figure(f"{name}: memory", "MB", (measured.memory,)),
            Figure(f"{name}: memory, while all cells are made", "MB", (measured.memory_with_cells,)),
            *(Figure(f"{name}: {kind}", "ms", times) for kind, times in measured.changes.items()),
            Figure(f"{name}: verdict", "µs", measured.verdicts),
        ]
        told = ", ".join(f"{kind} {count:.0f}" for kind, count in measured.told.items())
        notes.append(
            f"{name}: {measured.cell_count:,} cells; parsed objects {measured.objects:.0f} MB;"
            f" all nodes subscribed to in {measured.subscribed:.1f} s; cells told of a change: {told}"
        )
    return Report("policy", "the policy engine", "", tuple(figures), tuple(notes))


def measure(name: str, quick: bool) -> Measured:
    """Everything of one cluster, in this process."""
    set_survivors_aside()
    before = _resident_megabytes()
    clusters = Clusters(quick)
    objects = SCENARIOS[name](clusters)
    gc.collect()
    objects_memory = _resident_megabytes() - before
    before += objects_memory
    engine = PolicyEngine()
    began = time.perf_counter()
    _take_in(engine, objects)
    taken_in = time.perf_counter() - began
    memory = _resident_megabytes() - before

    count = 0
    most = memory
    began = time.perf_counter()
    for node in objects.nodes:
        count += len(engine.cells(node.name))
    cells = time.perf_counter() - began
    most = max(most, _resident_megabytes() - before)

    began = time.perf_counter()
    for node in objects.nodes:
        engine.subscribe(node.name)
    subscribed = time.perf_counter() - began
    gc.collect()
    gc.freeze()
    changes: dict[str, tuple[float, ...]] = {}
    told: dict[str, float] = {}
    rng = random.Random(1)
    for kind, prepared in (
        ("pod added", _pods_added(engine, clusters, objects, rng)),
        ("label changed", _labels_changed(engine, objects, rng)),
        ("policy added", _policies_added(engine, name, objects, rng)),
        ("namespace's label changed", _namespaces_changed(engine, objects, rng)),
    ):
        times, counts = [], []
        for change, undo in (next(prepared) for _ in range(QUICK_CHANGES if quick else CHANGES)):
            began = time.perf_counter()
            change()
            cells_told = engine.take().cells
            times.append((time.perf_counter() - began) * 1e3)
            counts.append(sum(map(len, cells_told.values())))
            undo()
            engine.take()
        changes[kind] = tuple(times)
        told[kind] = sum(counts) / len(counts)
    return Measured(
        *(objects_memory, taken_in, cells, count, memory, most, changes, told, subscribed),
        _verdicts(engine, objects, rng, quick),
    )


def _take_in(engine: PolicyEngine, objects: Objects) -> None:
    for node in objects.nodes:
        engine.put_node(node)
    for name, labels in objects.namespaces:
        engine.put_namespace(name, labels)
    for pod in objects.pods:
        engine.put_pod(pod)
    for policy in objects.policies:
        engine.put_policy(policy)
    engine.take()


Change = tuple[Callable[[], None], Callable[[], None]]


def _pods_added(
    engine: PolicyEngine, clusters: Clusters, objects: Objects, rng: random.Random
) -> Iterator[Change]:
    """A pod like one that is there."""
    while True:
        like = rng.choice(objects.pods)
        pod = clusters.pod(like.namespace, like.labels)
        yield lambda pod=pod: engine.put_pod(pod), lambda pod=pod: engine.remove_pod(pod.key)


def _labels_changed(engine: PolicyEngine, objects: Objects, rng: random.Random) -> Iterator[Change]:
    """A pod gets the labels of another one of its namespace, or others where all have the same."""
    by_namespace: dict[str, list[PolicyPod]] = {}
    for pod in objects.pods:
        by_namespace.setdefault(pod.namespace, []).append(pod)
    while True:
        pod = rng.choice(objects.pods)
        others = [one.labels for one in by_namespace[pod.namespace] if one.labels != pod.labels]
        labels = rng.choice(others) if others else {"app-2": "scale-2"}
        other = replace(pod, labels=labels)
        yield lambda pod=other: engine.put_pod(pod), lambda pod=pod: engine.put_pod(pod)


def _policies_added(
    engine: PolicyEngine, name: str, objects: Objects, rng: random.Random
) -> Iterator[Change]:
    """One like those that are there, for pods like one and from pods like another one. Its name is the last one."""
    for number in range(sys.maxsize):
        pod, other = rng.choice(objects.pods), rng.choice(objects.pods)
        policy: Policy
        if name.startswith("4"):
            company = rng.choice(objects.namespaces)[1]
            policy = _cluster_policy(f"zz-{number}", pod.namespace, dict(pod.labels), company)
        else:
            policy = _isolating(pod.namespace, f"zz-{number}", dict(pod.labels), dict(other.labels))
        ref = PolicyRef(policy.KIND, policy.metadata.namespace, policy.metadata.name)
        yield lambda policy=policy: engine.put_policy(policy), lambda ref=ref: engine.remove_policy(ref)


def _namespaces_changed(engine: PolicyEngine, objects: Objects, rng: random.Random) -> Iterator[Change]:
    """A namespace gets the labels of another one."""
    while True:
        (name, labels), (_, others) = rng.choice(objects.namespaces), rng.choice(objects.namespaces)

        def put(labels: dict[str, str], name: str = name) -> None:
            engine.put_namespace(name, labels)

        yield lambda put=put, others=others: put(others), lambda put=put, labels=labels: put(labels)


def _verdicts(engine: PolicyEngine, objects: Objects, rng: random.Random, quick: bool) -> tuple[float, ...]:
    """Microseconds of each of many verdicts one after the other, as in a sweep."""
    times = []
    for _ in range(CONNECTIONS // (QUICK if quick else 1)):
        (source,), (destination,) = rng.choice(objects.pods).addresses, rng.choice(objects.pods).addresses
        began = time.perf_counter()
        engine.allows(source, destination, 6, 80)
        times.append((time.perf_counter() - began) * 1e6)
    return tuple(times)


def _resident_megabytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
