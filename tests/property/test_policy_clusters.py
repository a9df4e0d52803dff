# SPDX-License-Identifier: Apache-2.0
"""The random clusters themselves: valid, repeatable, and of every kind that they promise."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sdn.model import parse, to_document
from sdn.policy.evaluator import evaluate, would_deny
from sdn.policy.values import ICMP, ICMPV6, Action, PolicyPod, Protocol, Tier
from sdn.policy.verdict import Reason
from tests.property.policy_clusters import (
    FAMILIES,
    PolicyCase,
    cluster_of,
    policy_clusters,
    random_cluster,
    random_connections,
)

SEEDS = st.integers(0, 2**32 - 1)


@given(case=policy_clusters(connections=0))
def test_policies_are_as_an_api_server_takes_them(case: PolicyCase) -> None:
    for policy in case.cluster.policies:
        assert parse(to_document(policy)) == policy


@given(case=policy_clusters(connections=0))
def test_nothing_is_there_twice(case: PolicyCase) -> None:
    pods = case.cluster.pods
    addresses = [address for pod in pods for address in pod.addresses]
    addresses += [one for node in case.cluster.nodes for one in (*node.addresses, *node.gateways)]
    assert len(set(addresses)) == len(addresses)
    assert len({pod.key for pod in pods}) == len(pods)
    assert len({(pod.node, pod.ofport) for pod in pods}) == len(pods)
    assert all(pod.ofport >= 16 and pod.addresses for pod in pods)
    assert {pod.node for pod in pods} <= {node.name for node in case.cluster.nodes}


@given(seed=SEEDS)
def test_equal_generators_give_equal_clusters_and_connections(seed: int) -> None:
    one, other = Random(seed), Random(seed)
    cluster, same = random_cluster(one), random_cluster(other)
    assert cluster == same
    assert random_connections(one, cluster, 5) == random_connections(other, same, 5)


@given(
    seed=SEEDS, pods=st.lists(SEEDS, min_size=1, max_size=5), policies=st.lists(SEEDS, min_size=1, max_size=5)
)
def test_one_more_pod_or_policy_leaves_the_others_as_they_are(
    seed: int, pods: list[int], policies: list[int]
) -> None:
    whole, less = cluster_of(seed, pods, policies), cluster_of(seed, pods[:-1], policies[:-1])
    assert whole.pods[:-1] == less.pods
    assert whole.policies[:-1] == less.policies
    assert (whole.nodes, whole.namespaces, whole.domains) == (less.nodes, less.namespaces, less.domains)


def test_everything_occurs_often() -> None:
    """What a generator hardly makes is hardly tested: of 12,000 connections a hundredth part is of each kind."""
    rng = Random(1)
    seen: Counter[object] = Counter()
    for _ in range(300):
        cluster = random_cluster(rng)
        seen[frozenset(one.version for one in cluster.nodes[0].addresses)] += 40
        for connection in random_connections(rng, cluster, 40):
            verdict = evaluate(cluster, connection)
            seen["allowed" if verdict.allowed else "denied"] += 1
            seen["would be denied"] += bool(would_deny(cluster, connection))
            seen["protocol", connection.protocol] += 1
            for decision in (verdict.egress, verdict.ingress):
                seen[decision.reason] += 1
                seen["passed"] += decision.passed is not None
                if decision.rule is not None:
                    seen[decision.rule.tier, decision.rule.action] += 1
            ends = (connection.source, connection.destination)
            seen[tuple(isinstance(end, PolicyPod) for end in ends)] += 1
    expected: list[object] = [*Reason, "allowed", "denied", "would be denied", "passed"]
    expected += [frozenset(versions) for versions in FAMILIES]
    expected += [("protocol", number) for number in (*Protocol, ICMP, ICMPV6)]
    expected += [
        (tier, action) for tier in (Tier.ADMIN, Tier.BASELINE) for action in (Action.ACCEPT, Action.DENY)
    ]
    expected += [(Tier.NETWORK_POLICY, Action.ACCEPT), (True, True), (True, False), (False, True)]
    assert {kind: seen[kind] for kind in expected if seen[kind] < 120} == {}
