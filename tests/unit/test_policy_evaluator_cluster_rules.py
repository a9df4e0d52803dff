# SPDX-License-Identifier: Apache-2.0
"""Whom and what the rules of ClusterNetworkPolicies mean: peers, names of domains, protocols and ports."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model.address import Address
from sdn.policy.matching import domain_matches
from sdn.policy.values import ICMP, PolicyPod, Protocol
from sdn.policy.verdict import PolicyCluster
from tests.unit.policy_world import (
    CLIENT,
    DB,
    ELSEWHERE,
    GRE,
    JOB,
    NODE_2,
    OUTSIDE,
    SCTP,
    STRAY,
    TCP,
    UDP,
    WEB,
    allowed,
    cluster_policy,
    labels,
    rule,
    with_policies,
)

EVERYWHERE = {"networks": ["0.0.0.0/0", "::/0"]}
ENDS = {"web": WEB, "job": JOB, "client": CLIENT, "stray": STRAY, "node-2": NODE_2, "outside": OUTSIDE}


def denied_to(*peers: dict[str, Any], version: int = 4, **fields: Any) -> set[str]:
    """Whom the database may not reach when these are denied."""
    policy = cluster_policy(
        subject={"pods": {"namespaceSelector": {}, "podSelector": labels(role="db")}},
        egress=[rule("Deny", *peers)],
    )
    cluster = with_policies(policy, **fields)
    ends = {name: end for name, end in ENDS.items() if version == 4 or not isinstance(end, Address)}
    return {name for name, end in ends.items() if not allowed(cluster, DB, end, version=version)}


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_of_namespaces_means_all_their_pods_and_nobody_else(version: int) -> None:
    assert denied_to({"namespaces": {}}, version=version) == {"web", "job", "client", "stray"}
    assert denied_to({"namespaces": labels(project="mine")}, version=version) == {"client"}


def test_a_peer_of_pods_means_those_that_both_selectors_take() -> None:
    web = {"namespaceSelector": {}, "podSelector": labels(role="web")}
    assert denied_to({"pods": web}) == {"web", "client"}
    assert denied_to({"pods": {**web, "namespaceSelector": labels(team="red")}}) == {"web"}


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_of_nodes_means_addresses_of_selected_nodes(version: int) -> None:
    assert denied_to({"nodes": {}}, version=version) == {"node-2"}
    assert denied_to({"nodes": labels(zone="b")}, version=version) == {"node-2"}
    assert denied_to({"nodes": labels(zone="a")}, version=version) == set()


def test_a_peer_of_nodes_does_not_mean_their_gateways_nor_pods() -> None:
    cluster = with_policies(cluster_policy(egress=[rule("Deny", {"nodes": {}})]))
    assert not allowed(cluster, DB, NODE_2)
    assert allowed(cluster, DB, NODE_2.gateways[0])
    assert allowed(cluster, DB, JOB)


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP, GRE])
def test_a_peer_of_networks_means_whoever_has_such_an_address(protocol: int) -> None:
    cluster = with_policies(cluster_policy(egress=[rule("Deny", {"networks": ["0.0.0.0/0"]})]))
    for destination in (WEB, CLIENT, NODE_2, OUTSIDE):
        assert not allowed(cluster, DB, destination, protocol=protocol)
    assert allowed(cluster, DB, WEB, protocol=protocol, version=6)
    assert denied_to({"networks": ["192.0.2.0/24", "10.244.2.4/31"]}) == {"outside", "job", "client"}


def test_several_peers_are_alternatives() -> None:
    peers = {"nodes": {}}, {"networks": ["192.0.2.9/32"]}, {"namespaces": labels(project="mine")}
    assert denied_to(*peers) == {"node-2", "outside", "client"}


def test_pods_are_spared_by_a_rule_that_passes_them_before_the_networks() -> None:
    rules = [rule("Pass"), rule("Deny", EVERYWHERE)]
    cluster = with_policies(cluster_policy(egress=rules))
    assert allowed(cluster, DB, CLIENT)
    assert not allowed(cluster, DB, OUTSIDE)
    assert not allowed(cluster, DB, NODE_2)


@pytest.mark.parametrize("version", [4, 6])
def test_ingress_goes_by_the_source(version: int) -> None:
    cluster = with_policies(cluster_policy(ingress=[rule("Deny", {"namespaces": labels(project="mine")})]))
    assert not allowed(cluster, CLIENT, DB, version=version)
    assert allowed(cluster, DB, CLIENT, version=version)
    assert allowed(cluster, NODE_2, DB, version=version)


# Names of domains.


def names_allowed(*patterns: str, domains: dict[str, frozenset[Address]]) -> set[str]:
    """Of the two addresses outside, those that an allowlist of names lets the database reach."""
    rules = [rule("Accept", {"domainNames": list(patterns)}), rule("Deny", EVERYWHERE)]
    cluster = with_policies(cluster_policy(egress=rules), domains=domains)
    return {str(address) for address in (OUTSIDE, ELSEWHERE) if allowed(cluster, DB, address)}


def test_an_allowlist_of_domain_names_means_the_addresses_that_the_dns_gave() -> None:
    learned = {"www.kubernetes.io": frozenset((OUTSIDE,)), "example.com": frozenset((ELSEWHERE,))}
    assert names_allowed("www.kubernetes.io", domains=learned) == {"192.0.2.9"}
    assert names_allowed("*.kubernetes.io", "example.com", domains=learned) == {"192.0.2.9", "198.51.100.7"}
    assert names_allowed("kubernetes.io", domains=learned) == set()
    assert names_allowed("www.kubernetes.io", domains={}) == set()


def test_all_addresses_of_a_name_are_meant() -> None:
    learned = {"www.kubernetes.io": frozenset((OUTSIDE, ELSEWHERE))}
    assert names_allowed("www.kubernetes.io", domains=learned) == {"192.0.2.9", "198.51.100.7"}


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("kubernetes.io", "kubernetes.io", True),
        ("kubernetes.io", "www.kubernetes.io", False),
        ("kubernetes.io", "my-kubernetes.io", False),
        ("kubernetes.io", "wikipedia.org", False),
        ("blog.kubernetes.io", "blog.kubernetes.io", True),
        ("blog.kubernetes.io", "www.kubernetes.io", False),
        ("blog.kubernetes.io", "kubernetes.io", False),
        ("*.kubernetes.io", "www.kubernetes.io", True),
        ("*.kubernetes.io", "latest.blog.kubernetes.io", True),
        ("*.kubernetes.io", "kubernetes.io", False),
        ("*.kubernetes.io", "my-kubernetes.io", False),
        ("*.kubernetes.io", "wikipedia.org", False),
        ("Kubernetes.IO", "kubernetes.io", True),
        ("*.kubernetes.io", "WWW.Kubernetes.io", True),
        ("kubernetes.io.", "kubernetes.io", True),
        ("*.kubernetes.io", "www.kubernetes.io.", True),
    ],
)
def test_which_names_a_domain_name_matches(pattern: str, name: str, matches: bool) -> None:
    assert domain_matches(pattern, name) is matches


# Protocols.


def denied_ports(
    *protocols: dict[str, Any], pod: PolicyPod = DB, ports: tuple[int, ...] = (80, 443, 8080, 9000)
) -> set[tuple[str, int]]:
    """What nobody reaches a pod by, when these are denied."""
    cluster = with_policies(cluster_policy(ingress=[rule("Deny", protocols=list(protocols))]))
    return {
        (protocol.name, port)
        for protocol in Protocol
        for port in ports
        if not allowed(cluster, STRAY, pod, port, protocol)
    }


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_a_protocol_with_a_number(protocol: str) -> None:
    assert denied_ports({protocol: {"destinationPort": {"number": 443}}}) == {(protocol.upper(), 443)}


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_a_protocol_with_a_range(protocol: str) -> None:
    wanted = {protocol: {"destinationPort": {"range": {"start": 443, "end": 8080}}}}
    name = protocol.upper()
    assert denied_ports(wanted, ports=(442, 443, 444, 8079, 8080, 8081)) == {
        (name, port) for port in (443, 444, 8079, 8080)
    }


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_a_protocol_without_a_port_means_all_of_them(protocol: str) -> None:
    assert denied_ports({protocol: {}}, ports=(1, 65535)) == {
        (protocol.upper(), 1),
        (protocol.upper(), 65535),
    }


def test_several_protocols_are_alternatives() -> None:
    wanted = {"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"number": 443}}}
    assert denied_ports(*wanted) == {("TCP", 80), ("UDP", 443)}


@pytest.mark.parametrize("protocol", [ICMP, GRE])
def test_what_has_no_ports_matches_rules_without_protocols_only(protocol: int) -> None:
    every = [{"tcp": {}}, {"udp": {}}, {"sctp": {}}]
    assert allowed(
        with_policies(cluster_policy(ingress=[rule("Deny", protocols=every)])), STRAY, DB, protocol=protocol
    )
    assert not allowed(with_policies(cluster_policy(ingress=[rule("Deny")])), STRAY, DB, protocol=protocol)


def test_a_named_port_means_the_number_that_the_pod_gives_it_whatever_its_protocol() -> None:
    named = {"destinationNamedPort": "http"}
    assert denied_ports(named, pod=WEB) == {("TCP", 8080)}
    assert denied_ports(named, pod=JOB) == {("TCP", 9000)}
    assert denied_ports(named, pod=CLIENT) == {("UDP", 8080)}
    assert denied_ports(named, pod=DB) == set()


def test_a_named_port_on_the_way_out_is_that_of_the_pod_at_the_other_end() -> None:
    rules = [rule("Deny", protocols=[{"destinationNamedPort": "http"}])]
    cluster: PolicyCluster = with_policies(cluster_policy(egress=rules))
    assert not allowed(cluster, DB, WEB, 8080)
    assert allowed(cluster, DB, WEB, 9000)
    assert not allowed(cluster, DB, JOB, 9000)
    assert not allowed(cluster, DB, CLIENT, 8080, UDP)
    assert allowed(cluster, DB, CLIENT, 8080, TCP)
    assert allowed(cluster, WEB, DB, 8080)
    assert allowed(cluster, DB, OUTSIDE, 8080)
