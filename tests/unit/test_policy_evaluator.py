# SPDX-License-Identifier: Apache-2.0
"""Which pods are isolated and what that means: each rule of the Kubernetes documentation by its own case.

Peers, ports, ClusterNetworkPolicies and staged policies have files of their own beside this one.
"""

from __future__ import annotations

import dataclasses

import pytest

from sdn.policy.values import ICMP, Action, Direction, PolicyPod, PolicyRef, Tier
from sdn.policy.verdict import Reason, RuleRef
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    GRE,
    JOB,
    NODE_1,
    NODE_2,
    OUTSIDE,
    SCTP,
    STRAY,
    TCP,
    UDP,
    WEB,
    allowed,
    labels,
    network_policy,
    ref,
    verdict,
    with_policies,
)

VERSIONS = pytest.mark.parametrize("version", [4, 6])


# Default policies.


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP, GRE])
def test_without_policies_everything_is_allowed(version: int, protocol: int) -> None:
    ends = (DB, CLIENT, STRAY, NODE_1, NODE_2)
    for source in ends:
        for destination in ends:
            assert allowed(CLUSTER, source, destination, protocol=protocol, version=version)


@VERSIONS
def test_default_deny_ingress_lets_nothing_in_and_everything_out(version: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress"]))
    for pod in (DB, WEB, JOB):
        assert not allowed(cluster, CLIENT, pod, version=version)
        assert allowed(cluster, pod, CLIENT, version=version)
    assert not allowed(cluster, OUTSIDE, DB)
    assert not allowed(cluster, NODE_2, DB, version=version)
    assert not allowed(cluster, WEB, DB, protocol=ICMP, version=version)


@VERSIONS
def test_default_deny_egress_lets_nothing_out_and_everything_in(version: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Egress"]))
    for pod in (DB, WEB, JOB):
        assert not allowed(cluster, pod, CLIENT, version=version)
        assert allowed(cluster, CLIENT, pod, version=version)
    assert not allowed(cluster, DB, OUTSIDE)
    assert not allowed(cluster, DB, NODE_2, version=version)
    assert not allowed(cluster, DB, WEB, protocol=ICMP, version=version)


@VERSIONS
def test_default_deny_all_lets_nothing_in_or_out(version: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    assert not allowed(cluster, DB, CLIENT, version=version)
    assert not allowed(cluster, CLIENT, DB, version=version)
    assert not allowed(cluster, WEB, DB, protocol=GRE, version=version)


def test_a_policy_is_for_its_own_namespace_only() -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    assert allowed(cluster, CLIENT, STRAY)
    assert allowed(cluster, STRAY, OUTSIDE)


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP, GRE])
def test_an_empty_ingress_rule_allows_all_ingress_whatever_else_isolates(protocol: int) -> None:
    cluster = with_policies(
        network_policy("all", ingress=[{}], policyTypes=["Ingress"]),
        network_policy("none", policyTypes=["Ingress"]),
    )
    for source in (CLIENT, WEB, NODE_2, OUTSIDE):
        assert allowed(cluster, source, DB, protocol=protocol)


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP, GRE])
def test_an_empty_egress_rule_allows_all_egress_whatever_else_isolates(protocol: int) -> None:
    cluster = with_policies(
        network_policy("all", egress=[{}], policyTypes=["Egress"]),
        network_policy("none", policyTypes=["Egress"]),
    )
    for destination in (CLIENT, WEB, NODE_2, OUTSIDE):
        assert allowed(cluster, DB, destination, protocol=protocol)


# policyTypes.


def test_without_policy_types_a_policy_isolates_for_ingress() -> None:
    cluster = with_policies(network_policy())
    assert not allowed(cluster, CLIENT, DB)
    assert allowed(cluster, DB, CLIENT)


def test_without_policy_types_egress_rules_isolate_for_egress_too() -> None:
    cluster = with_policies(network_policy(egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]))
    assert allowed(cluster, DB, OUTSIDE)
    assert not allowed(cluster, DB, CLIENT)
    assert not allowed(cluster, CLIENT, DB)


def test_policy_types_egress_alone_does_not_isolate_for_ingress() -> None:
    cluster = with_policies(network_policy(egress=[{}], policyTypes=["Egress"]))
    assert allowed(cluster, CLIENT, DB)


def test_rules_of_a_direction_that_policy_types_leave_out_mean_nothing() -> None:
    only_ingress = network_policy("only-ingress", egress=[{}], policyTypes=["Ingress"])
    none = network_policy("none", policyTypes=["Egress"])
    assert allowed(with_policies(only_ingress), DB, CLIENT)
    assert not allowed(with_policies(only_ingress, none), DB, CLIENT)


def test_policy_types_without_rules_of_that_direction_deny_it() -> None:
    cluster = with_policies(network_policy(ingress=[{}], policyTypes=["Ingress", "Egress"]))
    assert allowed(cluster, CLIENT, DB)
    assert not allowed(cluster, DB, CLIENT)


# Which pods a policy is for.


def test_only_selected_pods_are_isolated() -> None:
    cluster = with_policies(network_policy(podSelector=labels(role="db")))
    assert not allowed(cluster, CLIENT, DB)
    assert allowed(cluster, CLIENT, WEB)
    assert allowed(cluster, CLIENT, JOB)


def test_labels_and_expressions_of_a_selector_must_all_hold() -> None:
    selector = {
        "matchLabels": {"role": "db"},
        "matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}],
    }
    gone = dataclasses.replace(WEB, labels={"role": "db", "gone": "yes"})
    cluster = with_policies(network_policy(podSelector=selector), pods=(DB, gone, CLIENT))
    assert not allowed(cluster, CLIENT, DB)
    assert allowed(cluster, CLIENT, gone)


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ["db", "cache"], {"db"}),
        ("NotIn", ["db", "cache"], {"web", "job"}),
        ("Exists", [], {"db", "web"}),
        ("DoesNotExist", [], {"job"}),
    ],
)
def test_every_operator_of_a_selector(operator: str, values: list[str], selected: set[str]) -> None:
    expression = {"key": "role", "operator": operator, "values": values}
    cluster = with_policies(network_policy(podSelector={"matchExpressions": [expression]}))
    isolated = {pod.name for pod in (DB, WEB, JOB) if not allowed(cluster, CLIENT, pod)}
    assert isolated == selected


# More than one policy, and both ends.


def test_policies_add_up_to_what_any_of_them_allows() -> None:
    cluster = with_policies(
        network_policy("web", ingress=[{"from": [{"podSelector": labels(role="web")}]}]),
        network_policy("outside", ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]),
    )
    assert allowed(cluster, WEB, DB)
    assert allowed(cluster, OUTSIDE, DB)
    assert not allowed(cluster, CLIENT, DB)


def test_rules_of_a_policy_add_up_too() -> None:
    rules = [{"ports": [{"port": 80}]}, {"from": [{"podSelector": {}}]}]
    cluster = with_policies(network_policy(ingress=rules))
    assert allowed(cluster, CLIENT, DB, 80)
    assert allowed(cluster, WEB, DB, 81)
    assert not allowed(cluster, CLIENT, DB, 81)


def test_both_ends_must_allow_a_connection() -> None:
    out = network_policy("out", podSelector=labels(role="web"), egress=[{"ports": [{"port": 80}]}])
    into = network_policy("into", podSelector=labels(role="db"), ingress=[{"ports": [{"port": 443}]}])
    assert not allowed(with_policies(out, into), WEB, DB, 80)
    assert not allowed(with_policies(out, into), WEB, DB, 443)
    assert allowed(with_policies(out), WEB, DB, 80)
    assert allowed(with_policies(into), WEB, DB, 443)


def test_allowing_a_connection_one_way_allows_none_the_other_way() -> None:
    cluster = with_policies(network_policy(podSelector=labels(role="db")))
    assert allowed(cluster, DB, CLIENT)
    assert not allowed(cluster, CLIENT, DB)


def test_the_order_of_policies_does_not_matter() -> None:
    policies = (
        network_policy("a", ingress=[{"ports": [{"port": 80}]}]),
        network_policy("b", policyTypes=["Ingress"]),
    )
    assert verdict(with_policies(*policies), CLIENT, DB) == verdict(
        with_policies(*reversed(policies)), CLIENT, DB
    )


# What is always allowed.


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, ICMP])
def test_a_pod_always_reaches_itself(version: int, protocol: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    answer = verdict(cluster, DB, DB, protocol=protocol, version=version)
    assert answer.allowed
    assert answer.egress.reason is answer.ingress.reason is Reason.ITSELF


def test_another_attachment_of_a_pod_is_not_itself() -> None:
    old = dataclasses.replace(DB, key="old", addresses=JOB.addresses, node="node-2")
    cluster = with_policies(network_policy(policyTypes=["Ingress"]), pods=(DB, old))
    assert not allowed(cluster, old, DB)


@VERSIONS
def test_a_pods_own_node_always_reaches_it(version: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    gateway = next(one for one in NODE_1.gateways if one.version == version)
    for source in (NODE_1, gateway):
        answer = verdict(cluster, source, DB, version=version)
        assert answer.allowed
        assert answer.ingress.reason is Reason.OWN_NODE


@VERSIONS
def test_a_pod_always_reaches_its_own_node_past_network_policies(version: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    gateway = next(one for one in NODE_1.gateways if one.version == version)
    for destination in (NODE_1, gateway):
        answer = verdict(cluster, DB, destination, version=version)
        assert answer.allowed
        assert answer.egress.reason is Reason.OWN_NODE


@VERSIONS
def test_other_nodes_are_treated_as_anybody(version: int) -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    gateway = next(one for one in NODE_2.gateways if one.version == version)
    for other in (NODE_2, gateway):
        assert not allowed(cluster, other, DB, version=version)
        assert not allowed(cluster, DB, other, version=version)


def test_a_pod_on_its_nodes_network_counts_as_the_node() -> None:
    """It is no attachment, so its address is the node's: no selector finds it, an ipBlock does."""
    selectors = network_policy(ingress=[{"from": [{"namespaceSelector": {}}]}])
    blocks = network_policy(ingress=[{"from": [{"ipBlock": {"cidr": "172.30.0.12/32"}}]}])
    assert not allowed(with_policies(selectors), NODE_2, DB)
    assert allowed(with_policies(blocks), NODE_2, DB)
    assert allowed(with_policies(selectors), NODE_1, DB)


def test_between_addresses_that_are_no_pods_no_policy_is_asked() -> None:
    answer = verdict(with_policies(network_policy(policyTypes=["Ingress", "Egress"])), OUTSIDE, NODE_1)
    assert answer.allowed
    assert not answer.egress.checked
    assert answer.egress.reason is answer.ingress.reason is Reason.NO_POD


# How a decision is told.


def test_the_first_policy_that_allows_is_named_with_its_first_such_rule() -> None:
    late = network_policy("b", ingress=[{}])
    early = network_policy("a", ingress=[{"ports": [{"port": 443}]}, {"ports": [{"port": 80}]}, {}])
    decision = verdict(with_policies(late, early), CLIENT, DB, 80).ingress
    assert decision.reason is Reason.RULE
    assert decision.rule == RuleRef(Tier.NETWORK_POLICY, ref(early), "ingress[1]", Action.ACCEPT)
    assert decision.policies == (ref(early), ref(late))


def test_all_policies_that_isolate_are_named_when_none_allows() -> None:
    policies = [network_policy(name, policyTypes=["Ingress"]) for name in ("b", "a")]
    decision = verdict(with_policies(*policies), CLIENT, DB).ingress
    assert (decision.direction, decision.allowed) == (Direction.INGRESS, False)
    assert decision.reason is Reason.ISOLATED
    assert decision.policies == tuple(PolicyRef("NetworkPolicy", "shop", name) for name in ("a", "b"))


def test_a_pod_that_no_policy_selects_is_told_as_such() -> None:
    decision = verdict(with_policies(network_policy(namespace="partner")), CLIENT, DB).ingress
    assert decision.allowed
    assert decision.reason is Reason.UNSELECTED


def test_a_pod_of_one_family_is_found_by_its_address() -> None:
    only_six: PolicyPod = dataclasses.replace(DB, addresses=DB.addresses[1:])
    cluster = with_policies(network_policy(policyTypes=["Ingress"]), pods=(only_six, CLIENT))
    assert not allowed(cluster, CLIENT, only_six, version=6)
    assert allowed(cluster, CLIENT, DB.addresses[0])
