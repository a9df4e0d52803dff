# SPDX-License-Identifier: Apache-2.0
"""Whom the peers of a NetworkPolicy mean: selectors alone and together, ranges, everybody."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model.address import Address
from sdn.policy.values import ICMP
from sdn.policy.verdict import PolicyCluster
from tests.unit.policy_world import (
    CLIENT,
    DB,
    ELSEWHERE,
    JOB,
    NODE_1,
    NODE_2,
    OUTSIDE,
    STRAY,
    UDP,
    WEB,
    allowed,
    labels,
    network_policy,
    with_policies,
)

ENDS = {"web": WEB, "job": JOB, "client": CLIENT, "stray": STRAY, "node-2": NODE_2, "outside": OUTSIDE}


def with_ingress(*peers: dict[str, Any]) -> PolicyCluster:
    return with_policies(network_policy(podSelector=labels(role="db"), ingress=[{"from": list(peers)}]))


def with_egress(*peers: dict[str, Any]) -> PolicyCluster:
    policy = network_policy(
        podSelector=labels(role="db"), egress=[{"to": list(peers)}], policyTypes=["Egress"]
    )
    return with_policies(policy)


def reaching(*peers: dict[str, Any], version: int = 4) -> set[str]:
    """Who may connect to the database, and, which must be the same, whom it may connect to."""
    ends = {name: end for name, end in ENDS.items() if version == 4 or not isinstance(end, Address)}
    into = {name for name, end in ends.items() if allowed(with_ingress(*peers), end, DB, version=version)}
    out = {name for name, end in ends.items() if allowed(with_egress(*peers), DB, end, version=version)}
    assert into == out
    return into


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_selector_alone_means_pods_of_the_policys_namespace(version: int) -> None:
    assert reaching({"podSelector": labels(role="web")}, version=version) == {"web"}


def test_an_empty_pod_selector_means_all_pods_of_the_policys_namespace() -> None:
    assert reaching({"podSelector": {}}) == {"web", "job"}


@pytest.mark.parametrize("version", [4, 6])
def test_a_namespace_selector_alone_means_all_pods_of_these_namespaces(version: int) -> None:
    assert reaching({"namespaceSelector": labels(project="mine")}, version=version) == {"client"}


def test_an_empty_namespace_selector_means_all_pods_and_nobody_else() -> None:
    assert reaching({"namespaceSelector": {}}) == {"web", "job", "client", "stray"}


def test_both_selectors_in_one_peer_must_hold() -> None:
    both = {"namespaceSelector": labels(project="mine"), "podSelector": labels(role="web")}
    neither = {"namespaceSelector": labels(project="mine"), "podSelector": labels(role="db")}
    assert reaching(both) == {"client"}
    assert reaching(neither) == set()


def test_selectors_in_two_peers_are_alternatives() -> None:
    peers = {"namespaceSelector": labels(project="mine")}, {"podSelector": labels(role="web")}
    assert reaching(*peers) == {"client", "web"}


def test_several_namespaces_are_targeted_by_an_expression() -> None:
    expression = {"key": "team", "operator": "In", "values": ["red", "blue"]}
    assert reaching({"namespaceSelector": {"matchExpressions": [expression]}}) == {"web", "job", "client"}


def test_a_namespace_is_targeted_by_its_name() -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "partner"}}
    assert reaching({"namespaceSelector": selector}) == {"client"}


def test_a_namespace_that_was_never_declared_has_its_name_for_a_label() -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "bare"}}
    assert reaching({"namespaceSelector": selector}) == {"stray"}


def test_a_namespace_cannot_take_another_ones_name_by_a_label() -> None:
    policy = network_policy(
        ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]}]
    )
    cluster = with_policies(policy, namespaces={"partner": {"kubernetes.io/metadata.name": "shop"}})
    assert not allowed(cluster, CLIENT, DB)
    assert allowed(cluster, WEB, DB)


def test_a_namespace_without_the_label_is_selected_by_notin() -> None:
    expression = {"key": "team", "operator": "NotIn", "values": ["blue"]}
    assert reaching({"namespaceSelector": {"matchExpressions": [expression]}}) == {"web", "job", "stray"}


def test_an_ip_block_means_whoever_has_such_an_address() -> None:
    assert reaching({"ipBlock": {"cidr": "192.0.2.0/24"}}) == {"outside"}
    assert reaching({"ipBlock": {"cidr": "10.244.2.0/24"}}) == {"job", "client", "stray"}
    assert reaching({"ipBlock": {"cidr": "172.30.0.12/32"}}) == {"node-2"}
    assert reaching({"ipBlock": {"cidr": "0.0.0.0/0"}}) == set(ENDS)


def test_an_ip_block_does_not_mean_its_exceptions() -> None:
    block = {"cidr": "10.244.0.0/16", "except": ["10.244.2.4/31", "10.244.1.0/24"]}
    assert reaching({"ipBlock": block}) == {"stray"}


def test_what_one_ip_block_excepts_another_peer_may_allow() -> None:
    block = {"cidr": "10.244.0.0/16", "except": ["10.244.2.0/24"]}
    assert reaching({"ipBlock": block}, {"podSelector": {}}) == {"web", "job"}


def test_the_first_and_last_address_of_a_block_are_in_it() -> None:
    cluster = with_ingress({"ipBlock": {"cidr": "192.0.2.8/30", "except": ["192.0.2.9/32"]}})
    inside = {n for n in range(6, 14) if allowed(cluster, Address.parse(f"192.0.2.{n}"), DB)}
    assert inside == {8, 10, 11}


def test_an_ip_block_is_of_one_version() -> None:
    everything = {"ipBlock": {"cidr": "::/0"}}
    assert reaching(everything) == set()
    assert reaching(everything, version=6) == {"web", "job", "client", "stray", "node-2"}
    assert reaching({"ipBlock": {"cidr": "0.0.0.0/0"}}, version=6) == set()


def test_an_ip_block_of_version_6_with_an_exception() -> None:
    block = {"cidr": "fd00:10:244::/48", "except": ["fd00:10:244:2::4/127"]}
    assert reaching({"ipBlock": block}, version=6) == {"web", "stray"}


def test_no_peers_mean_everybody() -> None:
    assert reaching() == set(ENDS)


def test_peers_and_ports_of_a_rule_must_both_match() -> None:
    peers, ports = [{"podSelector": labels(role="web")}], [{"port": 5432}]
    cluster = with_policies(network_policy(ingress=[{"from": peers, "ports": ports}]))
    assert allowed(cluster, WEB, DB, 5432)
    assert not allowed(cluster, WEB, DB, 80)
    assert not allowed(cluster, JOB, DB, 5432)


def test_the_three_kinds_of_peers_of_one_rule_as_the_documentation_shows_them() -> None:
    """Its first example: a database for clients of a network, of another namespace and of its own, and one way out."""
    policy = network_policy(
        podSelector=labels(role="db"),
        policyTypes=["Ingress", "Egress"],
        ingress=[
            {
                "from": [
                    {"ipBlock": {"cidr": "192.0.0.0/16", "except": ["192.0.3.0/24"]}},
                    {"namespaceSelector": labels(project="mine")},
                    {"podSelector": labels(role="web")},
                ],
                "ports": [{"protocol": "TCP", "port": 6379}],
            }
        ],
        egress=[
            {
                "to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}],
                "ports": [{"protocol": "TCP", "port": 5978}],
            }
        ],
    )
    cluster = with_policies(policy)
    for source in (OUTSIDE, CLIENT, WEB):
        assert allowed(cluster, source, DB, 6379)
        assert not allowed(cluster, source, DB, 6380)
        assert not allowed(cluster, source, DB, 6379, UDP)
    for other in (Address.parse("192.0.3.9"), JOB, STRAY, NODE_2):
        assert not allowed(cluster, other, DB, 6379)
    assert allowed(cluster, NODE_1, DB, 6380)
    assert allowed(cluster, DB, ELSEWHERE, 5978)
    assert not allowed(cluster, DB, ELSEWHERE, 5979)
    assert not allowed(cluster, DB, OUTSIDE, 5978)
    assert not allowed(cluster, DB, ELSEWHERE, protocol=ICMP)
    assert allowed(cluster, OUTSIDE, WEB)
