# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicies: tiers, priorities, Pass and subjects; each rule of the API by its own case."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.policy.values import Action, Tier
from sdn.policy.verdict import Reason, RuleRef
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    NODE_1,
    NODE_2,
    STRAY,
    WEB,
    allowed,
    cluster_policy,
    labels,
    network_policy,
    ref,
    rule,
    verdict,
    with_policies,
)

ISOLATED = network_policy("isolated", policyTypes=["Ingress", "Egress"])
OPEN = network_policy("open", ingress=[{}], egress=[{}])
EVERYWHERE = {"networks": ["0.0.0.0/0", "::/0"]}


def both_ways(action: str, *peers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"ingress": [rule(action, *peers, **more)], "egress": [rule(action, *peers, **more)]}


# Tiers.


def test_admin_deny_is_final() -> None:
    cluster = with_policies(OPEN, cluster_policy(ingress=[rule("Deny")]))
    assert not allowed(cluster, CLIENT, DB)


def test_admin_accept_is_final() -> None:
    cluster = with_policies(
        ISOLATED,
        cluster_policy("accept", ingress=[rule("Accept")]),
        cluster_policy("deny", "Baseline", ingress=[rule("Deny")]),
    )
    assert allowed(cluster, CLIENT, DB)


def test_admin_accept_on_the_way_out_leaves_the_way_in_to_the_other_end() -> None:
    cluster = with_policies(ISOLATED, cluster_policy(egress=[rule("Accept")]))
    assert allowed(cluster, DB, CLIENT)
    assert not allowed(cluster, DB, WEB)


def test_network_policies_override_baseline_both_ways() -> None:
    accept = cluster_policy("baseline", "Baseline", ingress=[rule("Accept")])
    deny = cluster_policy("baseline", "Baseline", ingress=[rule("Deny")])
    assert not allowed(with_policies(accept, ISOLATED), CLIENT, DB)
    assert allowed(with_policies(deny, OPEN), CLIENT, DB)


def test_baseline_decides_for_pods_that_no_network_policy_isolates() -> None:
    deny = cluster_policy("baseline", "Baseline", ingress=[rule("Deny")])
    cluster = with_policies(deny, network_policy(podSelector=labels(role="db"), ingress=[{}]))
    assert allowed(cluster, CLIENT, DB)
    assert not allowed(cluster, CLIENT, WEB)


def test_a_network_policy_of_the_other_direction_leaves_it_to_baseline() -> None:
    deny = cluster_policy("baseline", "Baseline", egress=[rule("Deny")])
    cluster = with_policies(deny, network_policy(ingress=[{}], policyTypes=["Ingress"]))
    assert not allowed(cluster, DB, CLIENT)


def test_what_nothing_decides_is_allowed() -> None:
    unmatched = cluster_policy(ingress=[rule("Deny", {"namespaces": labels(project="mine")})])
    decision = verdict(with_policies(unmatched), STRAY, DB).ingress
    assert decision.allowed
    assert decision.reason is Reason.UNMATCHED


def test_what_is_said_of_other_pods_is_no_policy_of_this_one() -> None:
    of_others = cluster_policy(subject={"namespaces": labels(project="mine")}, ingress=[rule("Deny")])
    decision = verdict(with_policies(of_others), STRAY, DB).ingress
    assert decision.allowed
    assert decision.reason is Reason.UNSELECTED


# Pass.


def test_pass_leaves_it_to_network_policies() -> None:
    first = cluster_policy("pass", priority=1, ingress=[rule("Pass")])
    then = cluster_policy("deny", priority=2, ingress=[rule("Deny")])
    assert not allowed(with_policies(then, OPEN), CLIENT, DB)
    assert allowed(with_policies(first, then, OPEN), CLIENT, DB)
    assert not allowed(with_policies(first, then, ISOLATED), CLIENT, DB)


def test_pass_skips_later_rules_of_the_same_policy() -> None:
    rules = [rule("Pass", {"namespaces": labels(project="mine")}), rule("Deny")]
    cluster = with_policies(cluster_policy(ingress=rules))
    assert allowed(cluster, CLIENT, DB)
    assert not allowed(cluster, STRAY, DB)


def test_pass_leaves_it_to_baseline_where_nothing_isolates() -> None:
    passes = cluster_policy("pass", ingress=[rule("Pass")])
    denies = cluster_policy("deny", "Baseline", ingress=[rule("Deny")])
    decision = verdict(with_policies(passes, denies), CLIENT, DB).ingress
    assert not decision.allowed
    assert decision.rule == RuleRef(Tier.BASELINE, ref(denies), "ingress[0]", Action.DENY)
    assert decision.passed == RuleRef(Tier.ADMIN, ref(passes), "ingress[0]", Action.PASS)


def test_pass_in_baseline_skips_the_rest_of_baseline() -> None:
    first = cluster_policy("pass", "Baseline", priority=1, ingress=[rule("Pass")])
    then = cluster_policy("deny", "Baseline", priority=2, ingress=[rule("Deny")])
    assert allowed(with_policies(first, then), CLIENT, DB)
    assert not allowed(with_policies(then), CLIENT, DB)


# Order.


def test_the_lower_priority_is_asked_first() -> None:
    accept, deny = [rule("Accept")], [rule("Deny")]
    for one, other, verdict_ in ((accept, deny, True), (deny, accept, False)):
        policies = (
            cluster_policy("z", priority=0, ingress=one),
            cluster_policy("a", priority=1, ingress=other),
        )
        assert allowed(with_policies(*policies), CLIENT, DB) is verdict_
        assert allowed(with_policies(*reversed(policies)), CLIENT, DB) is verdict_


def test_priorities_are_compared_in_one_tier_only() -> None:
    admin = cluster_policy("admin", "Admin", priority=1000, ingress=[rule("Accept")])
    baseline = cluster_policy("baseline", "Baseline", priority=0, ingress=[rule("Deny")])
    assert allowed(with_policies(admin, baseline), CLIENT, DB)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_rules_of_a_policy_are_asked_in_their_order(index: int) -> None:
    peers = ({"namespaces": labels(project="mine")}, {"namespaces": {}})
    for first, then in (("Accept", "Deny"), ("Deny", "Accept"), ("Pass", "Deny"), ("Deny", "Pass")):
        nobody = rule("Deny", {"namespaces": labels(no="body")})
        rules = [nobody] * index + [rule(first, peers[0]), rule(then, peers[1])]
        cluster = with_policies(cluster_policy(ingress=rules))
        assert allowed(cluster, CLIENT, DB) is (first != "Deny")
        assert allowed(cluster, STRAY, DB) is (then != "Deny")


def test_of_policies_with_one_priority_the_rule_with_the_lower_index_decides() -> None:
    other = rule("Accept", {"namespaces": labels(no="body")})
    early = cluster_policy("z", ingress=[rule("Accept")])
    late = cluster_policy("a", ingress=[other, rule("Deny")])
    assert allowed(with_policies(early, late), CLIENT, DB)


def test_of_policies_with_one_priority_and_index_deny_decides_at_even_indexes() -> None:
    policies = [cluster_policy(name, ingress=[rule(name)]) for name in ("Accept", "Pass", "Deny")]
    decision = verdict(with_policies(*policies, ISOLATED), CLIENT, DB).ingress
    assert decision.rule == RuleRef(Tier.ADMIN, ref(policies[2]), "ingress[0]", Action.DENY)


def test_of_equal_rules_the_one_of_the_first_policy_by_name_is_named() -> None:
    policies = [cluster_policy(name, ingress=[rule("Deny", name="no")]) for name in ("b", "a")]
    decision = verdict(with_policies(*policies), CLIENT, DB).ingress
    assert decision.rule == RuleRef(Tier.ADMIN, ref(policies[1]), "ingress[0] (no)", Action.DENY)


# Subjects.


def test_a_subject_of_namespaces_means_all_their_pods() -> None:
    cluster = with_policies(
        cluster_policy(subject={"namespaces": labels(team="red")}, ingress=[rule("Deny")])
    )
    assert [pod.name for pod in CLUSTER.pods if not allowed(cluster, CLIENT, pod)] == ["db", "web", "job"]


def test_a_subject_of_pods_means_those_that_both_selectors_take() -> None:
    subject = {"pods": {"namespaceSelector": labels(team="red"), "podSelector": labels(role="db")}}
    cluster = with_policies(cluster_policy(subject=subject, ingress=[rule("Deny")]))
    assert [pod.name for pod in CLUSTER.pods if not allowed(cluster, CLIENT, pod)] == ["db"]


def test_a_subject_takes_namespaces_that_were_never_declared_by_their_name() -> None:
    subject = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "bare"}}}
    cluster = with_policies(cluster_policy(subject=subject, ingress=[rule("Deny")]))
    assert [pod.name for pod in CLUSTER.pods if not allowed(cluster, CLIENT, pod)] == ["stray"]


def test_a_policy_without_rules_of_a_direction_does_not_affect_it() -> None:
    cluster = with_policies(cluster_policy(egress=[rule("Deny")]))
    decision = verdict(cluster, NODE_2, DB).ingress
    assert decision.allowed
    assert decision.reason is Reason.UNSELECTED


# The own node.


def test_a_pods_own_node_reaches_it_past_the_admin_tier() -> None:
    """No rule for ingress can name a node; NetworkPolicies beside it must not come to other results either."""
    cluster = with_policies(ISOLATED, cluster_policy(**both_ways("Deny", {"namespaces": {}})))
    assert allowed(cluster, NODE_1, DB)
    assert not allowed(cluster, NODE_2, DB)


def test_the_admin_tier_can_keep_a_pod_from_its_own_node() -> None:
    cluster = with_policies(cluster_policy(egress=[rule("Deny", {"nodes": {}})]))
    assert not allowed(cluster, DB, NODE_1)
    assert allowed(cluster, DB, NODE_1.gateways[0])
    everything = with_policies(cluster_policy(egress=[rule("Deny", EVERYWHERE)]))
    assert not allowed(everything, DB, NODE_1.gateways[0])
    assert not allowed(everything, DB, NODE_1.gateways[1], version=6)


def test_baseline_cannot_keep_a_pod_from_its_own_node() -> None:
    cluster = with_policies(cluster_policy("deny", "Baseline", egress=[rule("Deny", EVERYWHERE)]))
    assert allowed(cluster, DB, NODE_1)
    assert not allowed(cluster, DB, NODE_2)


def test_pass_leaves_the_own_node_reachable() -> None:
    passes = cluster_policy("pass", egress=[rule("Pass", {"nodes": {}})])
    decision = verdict(with_policies(passes, ISOLATED), DB, NODE_1).egress
    assert decision.allowed
    assert decision.reason is Reason.OWN_NODE
    assert decision.passed == RuleRef(Tier.ADMIN, ref(passes), "egress[0]", Action.PASS)


def test_a_pod_reaches_itself_past_the_admin_tier() -> None:
    cluster = with_policies(cluster_policy(**both_ways("Deny", {"namespaces": {}})))
    assert allowed(cluster, DB, DB)
