# SPDX-License-Identifier: Apache-2.0
"""Staged policies: they change no verdict, and it is told what they would deny."""

from __future__ import annotations

import pytest

from sdn.model.meta import ObjectMeta
from sdn.model.networkpolicy import AUDIT, STAGED, NetworkPolicy
from sdn.policy.evaluator import evaluate, would_deny
from sdn.policy.values import PolicyRef
from sdn.policy.verdict import Policy
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    NODE_1,
    OUTSIDE,
    WEB,
    allowed,
    cluster_policy,
    connection,
    labels,
    network_policy,
    ref,
    rule,
    with_policies,
)

#: Of each kind and tier, one that would deny what comes from the client.
DENYING: list[Policy] = [
    network_policy("staged", staged=True),
    cluster_policy("staged", "Admin", staged=True, ingress=[rule("Deny")]),
    cluster_policy("staged", "Baseline", staged=True, ingress=[rule("Deny")]),
]
EACH = pytest.mark.parametrize("policy", DENYING, ids=["network", "admin", "baseline"])


def staged_denials(*policies: Policy, source: object = CLIENT, destination: object = DB) -> list[str]:
    """The names of the staged policies that would deny a connection."""
    cluster = with_policies(*policies)
    return [one.name for one in would_deny(cluster, connection(cluster, source, destination))]  # type: ignore[arg-type]


@EACH
def test_a_staged_policy_denies_nothing(policy: Policy) -> None:
    assert allowed(with_policies(policy), CLIENT, DB)


@EACH
def test_it_is_told_what_a_staged_policy_would_deny(policy: Policy) -> None:
    cluster = with_policies(policy)
    assert would_deny(cluster, connection(cluster, CLIENT, DB)) == (ref(policy),)


@EACH
def test_with_staged_policies_the_verdict_is_as_if_they_were_in_force(policy: Policy) -> None:
    cluster = with_policies(policy)
    assert not evaluate(cluster, connection(cluster, CLIENT, DB), with_staged=True).allowed


def test_a_staged_policy_allows_nothing() -> None:
    isolating = network_policy("isolating")
    for policy in (
        network_policy("staged", staged=True, ingress=[{}]),
        cluster_policy("staged", staged=True, ingress=[rule("Accept")]),
    ):
        assert not allowed(with_policies(isolating, policy), CLIENT, DB)


def test_only_the_annotation_true_stages_a_policy() -> None:
    for value, isolates in (("true", False), ("false", True), ("", True)):
        metadata = ObjectMeta(name="policy", namespace="shop", annotations={STAGED: value, AUDIT: "deny"})
        assert allowed(with_policies(NetworkPolicy(metadata=metadata)), CLIENT, DB) is not isolates


def test_what_is_denied_already_no_staged_policy_would_deny() -> None:
    assert staged_denials(network_policy("isolating"), *DENYING) == []


def test_what_a_staged_policy_lets_pass_it_would_not_deny() -> None:
    policy = network_policy("staged", staged=True, ingress=[{"from": [{"podSelector": labels(role="web")}]}])
    assert staged_denials(policy) == ["staged"]
    assert staged_denials(policy, source=WEB) == []


def test_what_policies_in_force_allow_beside_a_staged_one_stays_allowed() -> None:
    """NetworkPolicies add up, staged ones with those in force."""
    opening = network_policy("opening", ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert staged_denials(opening, network_policy("staged", staged=True)) == []


def test_several_staged_policies_that_isolate_are_all_told() -> None:
    policies = [network_policy(name, staged=True) for name in ("b", "a")]
    assert staged_denials(*policies) == ["a", "b"]


def test_what_one_staged_policy_denies_another_may_allow() -> None:
    denying = network_policy("denying", staged=True)
    opening = network_policy("opening", staged=True, ingress=[{}])
    assert staged_denials(denying, opening) == []


def test_a_staged_pass_that_leaves_it_to_policies_in_force_is_told() -> None:
    accepting = cluster_policy("accepting", priority=2, ingress=[rule("Accept")])
    passing = cluster_policy("passing", priority=1, staged=True, ingress=[rule("Pass")])
    isolating = network_policy("isolating")
    assert staged_denials(accepting, isolating) == []
    assert staged_denials(accepting, passing, isolating) == ["passing"]


def test_a_staged_rule_after_the_one_that_decides_changes_nothing() -> None:
    accepting = cluster_policy("accepting", priority=1, ingress=[rule("Accept")])
    denying = cluster_policy("denying", priority=2, staged=True, ingress=[rule("Deny")])
    assert staged_denials(accepting, denying) == []
    assert staged_denials(denying) == ["denying"]


def test_the_staged_policies_of_both_ends_are_told() -> None:
    out = network_policy("out", "partner", staged=True, policyTypes=["Egress"])
    into = network_policy("into", "shop", staged=True, policyTypes=["Ingress"])
    assert staged_denials(out, into) == ["out", "into"]
    assert staged_denials(out, into, destination=OUTSIDE) == ["out"]
    assert staged_denials(out, into, source=OUTSIDE) == ["into"]


def test_what_is_always_allowed_no_staged_policy_would_deny() -> None:
    policies = (network_policy("staged", staged=True, policyTypes=["Ingress", "Egress"]), *DENYING)
    assert staged_denials(*policies, source=NODE_1) == []
    assert staged_denials(*policies, source=DB) == []
    assert staged_denials(*policies, source=DB, destination=NODE_1) == []


def test_without_policies_nothing_would_be_denied() -> None:
    assert would_deny(CLUSTER, connection(CLUSTER, CLIENT, DB)) == ()


def test_kinds_are_told_apart() -> None:
    network = network_policy("same", staged=True)
    admin = cluster_policy("same", staged=True, ingress=[rule("Deny")])
    cluster = with_policies(network, admin)
    assert would_deny(cluster, connection(cluster, CLIENT, DB)) == (
        PolicyRef("ClusterNetworkPolicy", "", "same"),
    )
