# SPDX-License-Identifier: Apache-2.0
"""What the policy engine tells of changes: to whom, how much, in which order, and which connections may have ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sdn.model.address import Range
from sdn.policy.cells import GuardCell, IsolationCell, PeerCell, PeerKey, RuleCell, SubjectCell
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import PolicyPod, PolicyRef
from sdn.policy.verdict import Policy
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    JOB,
    NODE_1,
    OUTSIDE,
    STRAY,
    WEB,
    cluster_policy,
    labels,
    network_policy,
    ref,
    rule,
)
from tests.unit.test_policy_engine import FROM_CLIENTS, FROM_WEB, engine_with


def quiet(*policies: Policy) -> PolicyEngine:
    """An engine of which everything was taken."""
    engine = engine_with(*policies)
    engine.take()
    return engine


def kinds(engine: PolicyEngine) -> dict[str, list[type]]:
    """The kinds of cells that are told, by node."""
    return {node: [type(cell) for cell in cells.values()] for node, cells in engine.take().cells.items()}


# What is told.


def test_the_first_time_everything_is_told() -> None:
    engine = engine_with(network_policy(**FROM_WEB))
    told = engine.take().cells
    assert told == {node.name: engine.cells(node.name) for node in CLUSTER.nodes}
    assert engine.take() == ({}, {})


def test_a_peer_that_comes_is_told_where_the_rule_is_and_nowhere_else() -> None:
    engine = quiet(network_policy(podSelector=labels(role="db"), **FROM_CLIENTS))
    engine.put_pod(dataclasses.replace(STRAY, namespace="partner", addresses=STRAY.addresses[:1]))
    told = engine.take().cells
    assert list(told) == ["node-1"]
    ((key, cell),) = told["node-1"].items()
    assert isinstance(key, PeerKey)
    assert isinstance(cell, PeerCell)
    assert (str(key.network), cell.owner) == ("10.244.2.6/32", PolicyRef("Pod", "partner", "stray"))
    engine.remove_pod(STRAY.key)
    assert engine.take().cells == {"node-1": {key: None}}


def test_a_subject_that_comes_to_a_new_node_brings_the_rule_with_it() -> None:
    engine = quiet(network_policy(podSelector=labels(role="db"), **FROM_CLIENTS))
    engine.put_pod(dataclasses.replace(JOB, labels={"role": "db"}))
    assert kinds(engine) == {"node-2": [RuleCell, PeerCell, PeerCell, SubjectCell, IsolationCell, GuardCell]}


def test_a_policy_that_says_what_another_one_says_changes_no_rule() -> None:
    engine = quiet(network_policy("a", **FROM_WEB))
    engine.put_policy(network_policy("b", **FROM_WEB))
    # Pods are isolated by two policies now.
    assert {kind for told in kinds(engine).values() for kind in told} <= {IsolationCell}


def test_the_same_told_again_changes_nothing() -> None:
    policy = network_policy(**FROM_WEB)
    engine = quiet(policy)
    for pod in CLUSTER.pods:
        engine.put_pod(dataclasses.replace(pod, labels=dict(pod.labels)))
    for node in CLUSTER.nodes:
        engine.put_node(node)
    for name, wanted in CLUSTER.namespaces.items():
        engine.put_namespace(name, dict(wanted))
    engine.put_policy(policy)
    assert engine.take() == ({}, {})


def test_what_goes_and_comes_back_is_not_told() -> None:
    policy = network_policy(**FROM_WEB)
    engine = quiet(policy)
    engine.remove_pod(WEB.key)
    engine.remove_policy(ref(policy))
    engine.remove_namespace("shop")
    engine.put_policy(policy)
    engine.put_namespace("shop", CLUSTER.namespaces["shop"])
    engine.put_pod(WEB)
    assert engine.take().cells == {}


def test_a_pod_s_other_addresses_are_told_with_all_its_cells() -> None:
    engine = quiet(network_policy(podSelector=labels(role="db"), ingress=[{}]))
    engine.put_pod(dataclasses.replace(DB, addresses=DB.addresses[:1]))
    assert kinds(engine) == {"node-1": [SubjectCell, IsolationCell, GuardCell]}


def test_nodes_are_told_by_name_and_cells_in_one_order() -> None:
    policies = [network_policy(**FROM_WEB), cluster_policy(ingress=[rule("Deny"), rule("Accept")])]
    told = [engine_with(*policies).take().cells for _ in range(2)]
    assert list(told[0]) == ["node-1", "node-2"]
    for node in told[0]:
        assert list(told[0][node].items()) == list(told[1][node].items())


# Subscriptions.


def lazy(*policies: Policy) -> PolicyEngine:
    """An engine with no subscription yet."""
    engine = PolicyEngine()
    for node in CLUSTER.nodes:
        engine.put_node(node)
    for pod in CLUSTER.pods:
        engine.put_pod(pod)
    for policy in policies:
        engine.put_policy(policy)
    return engine


def test_nodes_that_are_not_subscribed_to_are_not_told_of() -> None:
    engine = lazy(network_policy(**FROM_WEB))
    assert engine.take() == ({}, {})
    assert engine.subscribe("node-1") == engine.cells("node-1") != {}
    engine.remove_policy(PolicyRef("NetworkPolicy", "shop", "policy"))
    assert list(engine.take().cells) == ["node-1"]
    engine.unsubscribe("node-1")
    engine.put_policy(network_policy(**FROM_WEB))
    assert engine.take() == ({}, {})


def test_a_subscription_in_between_loses_no_change() -> None:
    engine = lazy(network_policy(**FROM_WEB))
    engine.subscribe("node-1")
    engine.remove_pod(WEB.key)
    second = engine.subscribe("node-2")
    engine.put_pod(dataclasses.replace(WEB, addresses=(OUTSIDE,)))
    told = engine.take().cells
    for node, cells in second.items():
        assert cells is not None, node
    assert {str(key.network) for key in told["node-1"] if isinstance(key, PeerKey)} == {
        "10.244.1.5/32",
        "fd00:10:244:1::5/128",
        f"{OUTSIDE}/32",
    }
    assert {str(key.network) for key in told["node-2"] if isinstance(key, PeerKey)} == {f"{OUTSIDE}/32"}


def test_a_node_can_be_subscribed_to_before_it_is_known() -> None:
    engine = lazy(network_policy(**FROM_WEB))
    assert engine.subscribe("node-3") == {}
    engine.put_pod(dataclasses.replace(JOB, key="job-3", node="node-3"))
    assert list(engine.take().cells) == ["node-3"]


def test_the_bit_of_a_node_that_is_gone_serves_another_one() -> None:
    engine = lazy(network_policy(**FROM_WEB))
    engine.subscribe("node-1")
    for round_ in range(3):
        name = f"new-{round_}"
        engine.put_pod(dataclasses.replace(JOB, key=name, node=name))
        engine.take()
        engine.remove_pod(name)
        engine.take()
    assert engine.subscribe("node-2") == engine.cells("node-2") != {}
    assert len(engine._nodes.by_index) == 2
    assert len(engine._nodes._free) <= 1


# Connections that may have ended.


def hosts(pod: PolicyPod) -> set[Range]:
    return set(map(Range.of, pod.addresses))


Change = Callable[[PolicyEngine], Any]


@pytest.mark.parametrize(
    ("policies", "change", "shrunk"),
    [
        # A peer goes.
        (
            [network_policy(podSelector=labels(role="db"), **FROM_WEB)],
            lambda engine: engine.remove_pod(WEB.key),
            {"node-1": hosts(WEB)},
        ),
        (
            [network_policy(podSelector=labels(role="db"), **FROM_WEB)],
            lambda engine: engine.put_pod(dataclasses.replace(WEB, labels={})),
            {"node-1": hosts(WEB)},
        ),
        (
            [network_policy(podSelector=labels(role="db"), **FROM_CLIENTS)],
            lambda engine: engine.put_namespace("partner", {}),
            {"node-1": hosts(CLIENT)},
        ),
        # A peer comes to a rule that denies; to one that accepts: nothing.
        (
            [
                cluster_policy(
                    subject={"namespaces": labels(team="red")},
                    ingress=[rule("Deny", {"namespaces": labels(new="yes")})],
                )
            ],
            lambda engine: engine.put_namespace("bare", {"new": "yes"}),
            {"node-1": hosts(STRAY), "node-2": hosts(STRAY)},
        ),
        (
            [
                cluster_policy(
                    subject={"namespaces": labels(team="red")},
                    ingress=[rule("Accept", {"namespaces": labels(new="yes")})],
                )
            ],
            lambda engine: engine.put_namespace("bare", {"new": "yes"}),
            {},
        ),
        # A pod gets isolated, or no rule accepts for it any more.
        (
            [],
            lambda engine: engine.put_policy(network_policy(podSelector=labels(role="db"))),
            {"node-1": hosts(DB)},
        ),
        (
            [network_policy(podSelector=labels(role="db"), **FROM_WEB)],
            lambda engine: engine.put_policy(network_policy(podSelector=labels(role="db"))),
            {"node-1": hosts(DB)},
        ),
        (
            [network_policy(podSelector=labels(role="db"), ingress=[{"ports": [{"port": "sql"}]}])],
            lambda engine: engine.put_pod(dataclasses.replace(DB, named_ports=())),
            {"node-1": hosts(DB)},
        ),
        # A pod is isolated no more: the tier below may deny.
        (
            [network_policy(podSelector=labels(role="db"))],
            lambda engine: engine.remove_policy(PolicyRef("NetworkPolicy", "shop", "policy")),
            {"node-1": hosts(DB)},
        ),
        # More is allowed.
        (
            [network_policy(podSelector=labels(role="db"))],
            lambda engine: engine.put_policy(
                network_policy("more", podSelector=labels(role="db"), ingress=[{}])
            ),
            {},
        ),
        (
            [cluster_policy(ingress=[rule("Deny")])],
            lambda engine: engine.remove_policy(PolicyRef("ClusterNetworkPolicy", "", "policy")),
            {},
        ),
        # What is passed on may be denied below, and what is not any more, too.
        (
            [],
            lambda engine: engine.put_policy(
                cluster_policy(subject={"namespaces": labels(project="mine")}, ingress=[rule("Pass")])
            ),
            {"node-2": hosts(CLIENT)},
        ),
        # Staged policies deny nothing.
        ([], lambda engine: engine.put_policy(network_policy(staged=True)), {}),
        ([network_policy(staged=True, **FROM_WEB)], lambda engine: engine.remove_pod(WEB.key), {}),
        # A pod may always be reached from its own node: an address that is the node's no more.
        (
            [],
            lambda engine: engine.put_node(dataclasses.replace(NODE_1, gateways=())),
            {"node-1": set(map(Range.of, NODE_1.gateways))},
        ),
        (
            [],
            lambda engine: engine.remove_node("node-1"),
            {"node-1": set(map(Range.of, (*NODE_1.addresses, *NODE_1.gateways)))},
        ),
        # An address that was the pod's own, which it always reached, may be another one's now.
        (
            [network_policy(podSelector=labels(role="db"), policyTypes=["Egress"])],
            lambda engine: engine.put_pod(dataclasses.replace(DB, addresses=DB.addresses[:1])),
            {"node-1": hosts(DB)},
        ),
        # The DNS says something else.
        (
            [
                cluster_policy(
                    subject={"namespaces": labels(project="mine")},
                    egress=[rule("Accept", {"domainNames": ["a.example"]})],
                )
            ],
            lambda engine: engine.put_domain("a.example", frozenset()),
            {"node-2": {Range.of(OUTSIDE)}},
        ),
    ],
)
def test_ranges_are_told_whose_connections_may_be_denied_now(
    policies: list[Policy], change: Change, shrunk: dict[str, set[Range]]
) -> None:
    engine = engine_with(*policies)
    engine.put_domain("a.example", frozenset((OUTSIDE,)))
    engine.take()
    change(engine)
    assert engine.take().shrunk == shrunk


def test_a_pod_that_nothing_is_said_of_shrinks_nothing_by_coming_and_going() -> None:
    engine = quiet(network_policy(podSelector=labels(role="db")))
    engine.remove_pod(JOB.key)
    engine.put_pod(dataclasses.replace(JOB, node="node-1", ofport=30))
    assert engine.take() == ({}, {})
