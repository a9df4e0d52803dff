# SPDX-License-Identifier: Apache-2.0
"""What the policy engine makes of policies: shared bodies, their numbers, isolation, guards, and what is logged.

Whatever the evaluator says of connections is held in tests/property; here is what only cells have.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import TypeVar

import pytest

from sdn.model.networkpolicy import AUDIT
from sdn.policy import bodies
from sdn.policy.cells import Cell, GuardCell, IsolationCell, PeerCell, RuleCell, SubjectCell
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import Action, Direction, PolicyRef, Tier
from sdn.policy.verdict import Policy
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    JOB,
    STRAY,
    WEB,
    cluster_policy,
    labels,
    network_policy,
    ref,
    rule,
)

C = TypeVar("C", bound=Cell)


def engine_with(*policies: Policy) -> PolicyEngine:
    """An engine that was told of the small cluster, and of policies, and tells of all its nodes."""
    engine = PolicyEngine()
    for node in CLUSTER.nodes:
        engine.subscribe(node.name)
    for name, wanted in CLUSTER.namespaces.items():
        engine.put_namespace(name, wanted)
    for node in CLUSTER.nodes:
        engine.put_node(node)
    for pod in CLUSTER.pods:
        engine.put_pod(pod)
    for policy in policies:
        engine.put_policy(policy)
    return engine


def of(engine: PolicyEngine, node: str, kind: type[C]) -> list[C]:
    """The cells of one kind of a node."""
    return [cell for cell in engine.cells(node).values() if isinstance(cell, kind)]


def audited(policy: Policy, words: str) -> Policy:
    """The policy with what it wants to be logged."""
    metadata = policy.metadata
    name, namespace = metadata.name, metadata.namespace
    annotations = {**metadata.annotations, AUDIT: words}
    changed = type(metadata)(name=name, namespace=namespace, annotations=annotations)
    return type(policy)(metadata=changed, spec=policy.spec)  # type: ignore[arg-type]


FROM_WEB = {"ingress": [{"from": [{"podSelector": labels(role="web")}]}]}
FROM_CLIENTS = {"ingress": [{"from": [{"namespaceSelector": labels(project="mine")}]}]}


# Bodies and their numbers.


def test_rules_that_say_the_same_share_a_number_and_the_first_policy_owns_it() -> None:
    engine = engine_with(*(network_policy(name, **FROM_WEB) for name in ("b", "a", "c")))
    (found,) = of(engine, "node-1", RuleCell)
    assert found.owner == PolicyRef("NetworkPolicy", "shop", "a")
    assert found.rule == "ingress[0]"
    engine.remove_policy(PolicyRef("NetworkPolicy", "shop", "a"))
    (after,) = of(engine, "node-1", RuleCell)
    assert after == dataclasses.replace(found, owner=PolicyRef("NetworkPolicy", "shop", "b"))


def test_two_equal_rules_of_one_policy_are_one_with_the_first_one_s_name() -> None:
    twice = [FROM_WEB["ingress"][0]] * 2
    (found,) = of(engine_with(network_policy(ingress=twice)), "node-1", RuleCell)
    assert found.rule == "ingress[0]"


@pytest.mark.parametrize(
    "other",
    [
        network_policy("other", namespace="bare", **FROM_CLIENTS),
        network_policy("other", podSelector=labels(role="db"), **FROM_CLIENTS),
        network_policy("other", ingress=[{}]),
        network_policy("other", ingress=[{**FROM_CLIENTS["ingress"][0], "ports": [{"port": 80}]}]),
        network_policy("other", staged=True, **FROM_CLIENTS),
        audited(network_policy("other", **FROM_CLIENTS), "accept"),
        network_policy("other", egress=[{"to": FROM_CLIENTS["ingress"][0]["from"]}], policyTypes=["Egress"]),
        cluster_policy(
            "other",
            subject={"namespaces": labels(**{"kubernetes.io/metadata.name": "shop"})},
            ingress=[rule("Accept", {"namespaces": labels(project="mine")})],
        ),
    ],
    ids=("namespace", "subject", "peers", "ports", "staged", "log", "direction", "tier"),
)
def test_rules_that_differ_in_anything_but_their_policy_have_numbers_of_their_own(other: Policy) -> None:
    engine = engine_with(network_policy(**FROM_CLIENTS), other)
    numbers = {cell.key.conjunction for node in CLUSTER.nodes for cell in of(engine, node.name, RuleCell)}
    assert len(numbers) == 2


def test_a_selector_of_a_namespace_by_its_name_is_that_namespace() -> None:
    by_name = {"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "shop"}), "podSelector": {}}
    engine = engine_with(
        network_policy("a", ingress=[{"from": [{"podSelector": {}}]}]),
        network_policy("b", ingress=[{"from": [by_name]}]),
    )
    assert len(of(engine, "node-1", RuleCell)) == 1


def test_a_number_follows_from_what_the_rule_says_not_from_what_was_told_before() -> None:
    alone = of(engine_with(network_policy(**FROM_WEB)), "node-1", RuleCell)
    others = [network_policy(f"other-{port}", ingress=[{"ports": [{"port": port}]}]) for port in range(1, 9)]
    found = of(engine_with(*others, network_policy(**FROM_WEB)), "node-1", RuleCell)
    assert alone[0].key in {cell.key for cell in found}
    # Whoever changes this number has every switch of every cluster written anew after an upgrade.
    assert alone[0].key.conjunction == 430_999_324


def test_a_rule_that_comes_back_has_its_number_again() -> None:
    policy = network_policy(**FROM_WEB)
    engine = engine_with(policy)
    before = of(engine, "node-1", RuleCell)
    for take in (False, True):
        engine.remove_policy(ref(policy))
        if take:
            engine.take()
        assert of(engine, "node-1", RuleCell) == []
        engine.put_policy(policy)
        assert of(engine, "node-1", RuleCell) == before


class _Constant:
    """A hash that gives the same for everything."""

    def __init__(self, value: int) -> None:
        self._value = value

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("value", "numbers"), [(7, {7, 8, 9}), (0xFFFF_FFFE, {0xFFFF_FFFE, 0xFFFF_FFFF, 1}), (0, {1, 2, 3})]
)
def test_rules_with_the_same_hash_get_the_next_numbers_and_never_zero(
    value: int, numbers: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "blake2b", lambda _text, digest_size: _Constant(value))
    policies = [network_policy(f"p-{port}", ingress=[{"ports": [{"port": port}]}]) for port in (1, 2, 3)]
    engine = engine_with(*policies)
    assert {cell.key.conjunction for cell in of(engine, "node-1", RuleCell)} == numbers
    engine.remove_policy(ref(policies[1]))
    (gone,) = numbers - {cell.key.conjunction for cell in of(engine, "node-1", RuleCell)}
    # Its end was not taken yet: the number still stands for it.
    engine.put_policy(network_policy("p-4", ingress=[{"ports": [{"port": 4}]}]))
    assert gone not in {cell.key.conjunction for cell in of(engine, "node-1", RuleCell)}
    engine.take()
    engine.put_policy(network_policy("p-5", ingress=[{"ports": [{"port": 5}]}]))
    assert gone in {cell.key.conjunction for cell in of(engine, "node-1", RuleCell)}


def test_a_rule_is_only_where_its_subject_has_pods() -> None:
    engine = engine_with(network_policy(podSelector=labels(role="db"), **FROM_CLIENTS))
    assert len(of(engine, "node-1", RuleCell)) == len(of(engine, "node-1", SubjectCell)) == 1
    assert engine.cells("node-2") == {}
    engine.put_pod(dataclasses.replace(JOB, labels={"role": "db"}))
    assert of(engine, "node-2", RuleCell) == of(engine, "node-1", RuleCell)
    assert of(engine, "node-2", PeerCell) == of(engine, "node-1", PeerCell)


def test_a_rule_that_can_be_for_nobody_has_no_cells() -> None:
    nobody = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.128.0.0/9"]}}
    engine = engine_with(network_policy(ingress=[{"from": [nobody]}]))
    assert {type(cell) for cell in engine.cells("node-1").values()} == {IsolationCell, GuardCell}


# Any order.


def test_objects_may_be_told_in_any_order() -> None:
    policies = (network_policy(**FROM_CLIENTS), cluster_policy(egress=[rule("Deny", {"nodes": {}})]))
    wanted = engine_with(*policies)
    steps = (
        lambda engine: [engine.put_policy(policy) for policy in policies],
        lambda engine: [engine.put_pod(pod) for pod in CLUSTER.pods],
        lambda engine: [engine.put_node(node) for node in CLUSTER.nodes],
        lambda engine: [engine.put_namespace(*each) for each in CLUSTER.namespaces.items()],
    )
    for order in itertools.permutations(steps):
        engine = PolicyEngine()
        for step in order:
            step(engine)
        for node in CLUSTER.nodes:
            assert engine.cells(node.name) == wanted.cells(node.name)
            assert list(engine.cells(node.name)) == list(wanted.cells(node.name))


def test_a_namespace_that_was_never_declared_has_the_label_with_its_name() -> None:
    by_name = labels(**{"kubernetes.io/metadata.name": "bare"})
    engine = engine_with(cluster_policy(subject={"namespaces": by_name}, ingress=[rule("Deny")]))
    assert engine.selected_pods(PolicyRef("ClusterNetworkPolicy", "", "policy")) == (STRAY,)
    engine.put_namespace("bare", {"kubernetes.io/metadata.name": "another"})
    assert engine.policies_of(STRAY.key) == (PolicyRef("ClusterNetworkPolicy", "", "policy"),)
    engine.remove_namespace("bare")
    assert engine.policies_of(STRAY.key) == (PolicyRef("ClusterNetworkPolicy", "", "policy"),)


# Isolation and guards.


def _isolations(engine: PolicyEngine, node: str, ofport: int) -> set[tuple[Direction, bool]]:
    cells = of(engine, node, IsolationCell)
    return {(cell.key.direction, cell.key.staged) for cell in cells if cell.key.ofport == ofport}


def test_a_pod_is_isolated_in_the_directions_of_the_policies_that_select_it() -> None:
    engine = engine_with(
        network_policy("in", podSelector=labels(role="db"), policyTypes=["Ingress"]),
        network_policy("out", podSelector=labels(role="web"), policyTypes=["Egress"]),
        network_policy("both", podSelector=labels(role="web"), policyTypes=["Egress"], staged=True),
    )
    assert _isolations(engine, "node-1", DB.ofport) == {(Direction.INGRESS, False)}
    assert _isolations(engine, "node-1", WEB.ofport) == {(Direction.EGRESS, False), (Direction.EGRESS, True)}
    assert _isolations(engine, "node-2", JOB.ofport) == set()


def test_isolation_tells_the_first_policy_and_how_many() -> None:
    engine = engine_with(
        network_policy("b"),
        network_policy("c", podSelector=labels(role="db")),
        network_policy("a", podSelector=labels(role="web")),
    )
    cells = {cell.key.ofport: cell for cell in of(engine, "node-1", IsolationCell)}
    assert (cells[DB.ofport].owner.name, cells[DB.ofport].policies) == ("b", 2)
    assert (cells[WEB.ofport].owner.name, cells[WEB.ofport].policies) == ("a", 2)


def test_pods_are_guarded_by_policies_in_force_that_say_something() -> None:
    engine = engine_with(
        network_policy("isolating", podSelector=labels(role="db")),
        network_policy("staged", podSelector=labels(role="web"), staged=True),
        cluster_policy("silent"),
    )
    guards = [*of(engine, "node-1", GuardCell), *of(engine, "node-2", GuardCell)]
    assert [(cell.key.ofport, cell.owner) for cell in guards] == [(DB.ofport, PolicyRef("Pod", "shop", "db"))]
    engine.put_policy(cluster_policy("saying", tier="Baseline", egress=[rule("Pass")]))
    assert len(of(engine, "node-2", GuardCell)) == 3


# What is logged.


def _logged(cells: Iterable[RuleCell | IsolationCell]) -> set[bool]:
    return {cell.log for cell in cells}


@pytest.mark.parametrize(
    ("words", "log"), [("", False), ("deny", False), ("accept", True), ("deny, accept", True)]
)
def test_rules_that_accept_are_logged_where_their_policy_says_so(words: str, log: bool) -> None:
    engine = engine_with(
        audited(network_policy(**FROM_WEB), words), audited(cluster_policy(ingress=[rule("Accept")]), words)
    )
    assert _logged(of(engine, "node-1", RuleCell)) == {log}


@pytest.mark.parametrize(("words", "log"), [("", False), ("accept", False), ("deny", True)])
def test_what_denies_is_logged_where_its_policy_says_so(words: str, log: bool) -> None:
    engine = engine_with(
        network_policy("quiet"),
        audited(network_policy("z"), words),
        audited(cluster_policy(ingress=[rule("Deny"), rule("Pass")]), words),
    )
    rules = {cell.action: cell.log for cell in of(engine, "node-1", RuleCell)}
    assert rules == {Action.DENY: log, Action.PASS: False}
    assert _logged(of(engine, "node-1", IsolationCell)) == {log}


def test_what_staged_policies_would_deny_is_always_logged() -> None:
    engine = engine_with(
        network_policy(staged=True, **FROM_WEB),
        cluster_policy(staged=True, ingress=[rule("Deny"), rule("Accept")]),
    )
    assert _logged(of(engine, "node-1", IsolationCell)) == {True}
    rules = {(cell.stage.tier, cell.action): cell.log for cell in of(engine, "node-1", RuleCell)}
    assert rules == {
        (Tier.NETWORK_POLICY, Action.ACCEPT): False,
        (Tier.ADMIN, Action.DENY): True,
        (Tier.ADMIN, Action.ACCEPT): False,
    }


# Attachments.


def test_two_attachments_of_a_pod_are_subjects_and_peers_each() -> None:
    second = dataclasses.replace(WEB, key="second", ofport=40, addresses=CLIENT.addresses)
    engine = engine_with(network_policy(**FROM_WEB))
    engine.remove_pod(CLIENT.key)
    engine.put_pod(second)
    assert {cell.key.ofport for cell in of(engine, "node-1", SubjectCell)} == {DB.ofport, WEB.ofport, 40}
    networks = {str(cell.key.network) for cell in of(engine, "node-1", PeerCell)}
    assert networks == {"10.244.1.5/32", "10.244.2.5/32", "fd00:10:244:1::5/128", "fd00:10:244:2::5/128"}
    assert {cell.owner for cell in of(engine, "node-1", PeerCell)} == {PolicyRef("Pod", "shop", "web")}


def test_a_port_of_the_switch_is_the_pod_s_that_was_put_last_until_that_one_is_removed() -> None:
    engine = engine_with(network_policy("web", podSelector=labels(role="web")))
    late = dataclasses.replace(WEB, key="late", name="late", ofport=DB.ofport, addresses=CLIENT.addresses)
    assert _isolations(engine, "node-1", DB.ofport) == set()
    engine.put_pod(late)
    assert _isolations(engine, "node-1", DB.ofport) == {(Direction.INGRESS, False)}
    # The end of the one that had the port changes nothing for the other.
    engine.remove_pod(DB.key)
    assert _isolations(engine, "node-1", DB.ofport) == {(Direction.INGRESS, False)}
    engine.remove_pod("late")
    assert _isolations(engine, "node-1", DB.ofport) == set()
    assert engine.policies_of(DB.key) == ()


def test_a_pod_gets_its_port_back_when_the_one_that_was_given_it_goes_first() -> None:
    engine = engine_with(network_policy("db", podSelector=labels(role="db")))
    before = engine.cells("node-1")
    for key in ("late", "later"):
        engine.put_pod(dataclasses.replace(JOB, key=key, node="node-1", ofport=DB.ofport, addresses=()))
    assert _isolations(engine, "node-1", DB.ofport) == set()
    engine.remove_pod("late")
    engine.remove_pod("later")
    assert engine.cells("node-1") == before


def test_a_pod_whose_port_was_given_away_takes_it_when_it_is_put_again() -> None:
    engine = engine_with(network_policy("db", podSelector=labels(role="db")))
    late = dataclasses.replace(JOB, key="late", node="node-1", ofport=DB.ofport, addresses=())
    engine.put_pod(late)
    engine.put_pod(DB)
    assert _isolations(engine, "node-1", DB.ofport) == {(Direction.INGRESS, False)}
    engine.remove_pod(DB.key)
    assert _isolations(engine, "node-1", DB.ofport) == set()
    assert engine.policies_of(DB.key) == ()
    engine.remove_pod("late")
    assert engine.policies_of(DB.key) == ()
    assert of(engine, "node-1", IsolationCell) == []


def test_what_is_not_known_can_be_removed() -> None:
    engine = engine_with()
    engine.remove_pod("nobody")
    engine.remove_policy(PolicyRef("NetworkPolicy", "shop", "none"))
    engine.remove_namespace("none")
    engine.remove_node("none")
    engine.unsubscribe("none")
    engine.put_domain("none.example", frozenset())
    assert engine.cells("none") == {}
    assert engine.take().cells == {}
