# SPDX-License-Identifier: Apache-2.0
"""Verdicts as people read them, and the connections that they are about."""

from __future__ import annotations

import pytest

from sdn.model.address import Address
from sdn.policy.values import ICMP, ICMPV6, Direction
from sdn.policy.verdict import Connection, connection_between, protocol_text, rule_text
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    GRE,
    NODE_1,
    OUTSIDE,
    SCTP,
    TCP,
    UDP,
    WEB,
    cluster_policy,
    connection,
    network_policy,
    rule,
    verdict,
    with_policies,
)


def test_ends_are_the_pods_that_have_the_addresses() -> None:
    made = connection_between(CLUSTER, CLIENT.addresses[1], DB.addresses[1], UDP, 53)
    assert made == Connection(CLIENT, DB, CLIENT.addresses[1], DB.addresses[1], UDP, 53)
    assert made.version == 6


def test_an_address_that_no_pod_has_stands_for_itself() -> None:
    made = connection_between(CLUSTER, NODE_1.gateways[0], OUTSIDE, ICMP)
    assert made == Connection(NODE_1.gateways[0], OUTSIDE, NODE_1.gateways[0], OUTSIDE, ICMP, 0)
    assert made.version == 4


def test_both_addresses_must_be_of_one_version() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.9 and fd00:10:244:1::4 are not of one version"):
        connection_between(CLUSTER, OUTSIDE, DB.addresses[1], TCP, 80)


def test_an_end_must_have_its_address() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.9 is not an address of shop/db"):
        Connection(CLIENT, DB, CLIENT.addresses[0], OUTSIDE, TCP, 80)
    with pytest.raises(ValueError, match=r"192\.0\.2\.9 is not an address of 192\.0\.2\.10"):
        Connection(Address.parse("192.0.2.10"), DB, OUTSIDE, DB.addresses[0], TCP, 80)


def test_a_connection_reads_like_one() -> None:
    assert str(connection(CLUSTER, CLIENT, DB, 5432)) == "partner/client to shop/db TCP 5432"
    assert str(connection(CLUSTER, OUTSIDE, DB, protocol=ICMP)) == "192.0.2.9 to shop/db ICMP"


@pytest.mark.parametrize(
    ("protocol", "text"),
    [(TCP, "TCP"), (UDP, "UDP"), (SCTP, "SCTP"), (ICMP, "ICMP"), (ICMPV6, "ICMPv6"), (GRE, "protocol 47")],
)
def test_protocols_have_names(protocol: int, text: str) -> None:
    assert protocol_text(protocol) == text


def test_rules_are_named_by_direction_and_index_and_their_own_name() -> None:
    assert rule_text(Direction.INGRESS, 0) == "ingress[0]"
    assert rule_text(Direction.EGRESS, 24, "dns") == "egress[24] (dns)"


def test_without_policies_it_says_so_for_both_ends() -> None:
    assert verdict(CLUSTER, CLIENT, DB).describe() == (
        "Pod partner/client may open the connection: no policy selects it for egress. "
        "Pod shop/db lets the connection in: no policy selects it for ingress."
    )


def test_an_end_that_is_no_pod_has_no_sentence() -> None:
    policy = network_policy(ingress=[{}, {"ports": [{"port": 80}]}])
    assert verdict(with_policies(policy), OUTSIDE, DB).describe() == (
        "Pod shop/db lets the connection in: ingress[0] of NetworkPolicy/shop/policy (tier NetworkPolicy) accepts it."
    )
    assert verdict(CLUSTER, DB, OUTSIDE).describe() == (
        "Pod shop/db may open the connection: no policy selects it for egress."
    )


def test_who_isolates_a_pod_is_told() -> None:
    one = network_policy("one", policyTypes=["Egress"])
    other = network_policy("other", policyTypes=["Egress"])
    assert verdict(with_policies(one), DB, OUTSIDE).describe() == (
        "Pod shop/db may not open the connection: "
        "NetworkPolicy/shop/one isolates it for egress and no rule allows it."
    )
    assert verdict(with_policies(one, other), DB, OUTSIDE).describe() == (
        "Pod shop/db may not open the connection: "
        "NetworkPolicy/shop/one, NetworkPolicy/shop/other isolate it for egress and no rule allows it."
    )


def test_a_rule_that_denies_is_told_with_its_tier_and_name() -> None:
    policy = cluster_policy("fence", ingress=[rule("Deny", name="no guests")])
    assert (
        verdict(with_policies(policy), CLIENT, DB)
        .describe()
        .endswith(
            " Pod shop/db does not let the connection in: "
            "ingress[0] (no guests) of ClusterNetworkPolicy/fence (tier Admin) denies it."
        )
    )


def test_a_rule_that_passed_it_on_before_is_told() -> None:
    passing = cluster_policy("passing", ingress=[rule("Pass")])
    denying = cluster_policy("denying", "Baseline", ingress=[rule("Deny")])
    assert (
        verdict(with_policies(passing, denying), CLIENT, DB)
        .describe()
        .endswith(
            "ingress[0] of ClusterNetworkPolicy/denying (tier Baseline) denies it, "
            "after ingress[0] of ClusterNetworkPolicy/passing passed it on."
        )
    )


def test_policies_that_select_a_pod_and_say_nothing_are_not_passed_over() -> None:
    policy = cluster_policy("fence", ingress=[rule("Deny", {"namespaces": {"matchLabels": {"no": "body"}}})])
    assert verdict(with_policies(policy), OUTSIDE, DB).describe() == (
        "Pod shop/db lets the connection in: no rule for ingress decides it, and nothing isolates the pod."
    )


def test_the_own_node_is_told() -> None:
    cluster = with_policies(network_policy(policyTypes=["Ingress", "Egress"]))
    assert verdict(cluster, NODE_1, DB).describe() == (
        "Pod shop/db lets the connection in: the other end is its own node."
    )


def test_a_pod_that_reaches_itself_is_told() -> None:
    assert verdict(CLUSTER, WEB, WEB).describe() == "Pod shop/web always reaches itself."


def test_ends_that_are_no_pods_are_told() -> None:
    assert verdict(CLUSTER, NODE_1, OUTSIDE).describe() == (
        "No pod is at either end, so policies do not apply."
    )
