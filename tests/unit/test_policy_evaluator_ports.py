# SPDX-License-Identifier: Apache-2.0
"""Which traffic the ports of a NetworkPolicy mean: protocols, numbers, ranges, names, and ICMP, which has none."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model.address import Address
from sdn.policy.values import ICMP, PolicyPod, Protocol
from sdn.policy.verdict import PolicyCluster
from tests.unit.policy_world import (
    CLIENT,
    DB,
    GRE,
    JOB,
    NODE_2,
    OUTSIDE,
    SCTP,
    TCP,
    UDP,
    WEB,
    allowed,
    labels,
    network_policy,
    with_policies,
)

WITHOUT_PORTS = (ICMP, GRE)


def into(*ports: dict[str, Any]) -> PolicyCluster:
    """All pods of ``shop`` may be reached at these ports."""
    return with_policies(network_policy(ingress=[{"ports": list(ports)}]))


def out(*ports: dict[str, Any], to: list[dict[str, Any]] | None = None) -> PolicyCluster:
    """All pods of ``shop`` may reach others at these ports."""
    rule = {"ports": list(ports), "to": to or []}
    return with_policies(network_policy(egress=[rule], policyTypes=["Egress"]))


def open_ports(cluster: PolicyCluster, protocol: int, *numbers: int) -> set[int]:
    """Of these ports, those at which the client reaches the database."""
    return {number for number in numbers if allowed(cluster, CLIENT, DB, number, protocol)}


def test_a_number_means_this_port_of_tcp() -> None:
    cluster = into({"port": 80})
    assert open_ports(cluster, TCP, 79, 80, 81) == {80}
    assert open_ports(cluster, UDP, 80) == open_ports(cluster, SCTP, 80) == set()


@pytest.mark.parametrize("protocol", list(Protocol))
def test_every_protocol_that_has_ports(protocol: Protocol) -> None:
    cluster = into({"port": 80, "protocol": protocol.name})
    for other in Protocol:
        assert open_ports(cluster, other, 79, 80, 81) == ({80} if other is protocol else set())


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_protocol_alone_means_all_its_ports(protocol: Protocol) -> None:
    cluster = into({"protocol": protocol.name})
    for other in Protocol:
        assert open_ports(cluster, other, 1, 80, 65535) == ({1, 80, 65535} if other is protocol else set())


def test_an_empty_entry_means_all_ports_of_tcp() -> None:
    cluster = into({})
    assert open_ports(cluster, TCP, 1, 65535) == {1, 65535}
    assert open_ports(cluster, UDP, 1, 65535) == set()


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, *WITHOUT_PORTS])
def test_no_ports_mean_all_traffic(protocol: int) -> None:
    assert allowed(into(), CLIENT, DB, protocol=protocol)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", WITHOUT_PORTS)
def test_what_has_no_ports_is_not_allowed_by_a_rule_with_ports(protocol: int, version: int) -> None:
    cluster = into(*({"protocol": each.name} for each in Protocol))
    assert not allowed(cluster, CLIENT, DB, protocol=protocol, version=version)


@pytest.mark.parametrize("version", [4, 6])
def test_icmp_goes_by_peers(version: int) -> None:
    rules = [{"from": [{"podSelector": labels(role="web")}]}]
    cluster = with_policies(network_policy(ingress=rules))
    assert allowed(cluster, WEB, DB, protocol=ICMP, version=version)
    assert not allowed(cluster, JOB, DB, protocol=ICMP, version=version)


def test_a_range_means_its_first_and_last_port_and_what_is_between() -> None:
    cluster = into({"port": 32000, "endPort": 32768})
    tried = (31999, 32000, 32001, 32767, 32768, 32769)
    assert open_ports(cluster, TCP, *tried) == {32000, 32001, 32767, 32768}
    assert open_ports(cluster, UDP, *tried) == set()


def test_a_range_of_one_port() -> None:
    assert open_ports(into({"port": 80, "endPort": 80}), TCP, 79, 80, 81) == {80}


def test_a_range_of_another_protocol_on_the_way_out() -> None:
    cluster = out({"protocol": "SCTP", "port": 100, "endPort": 200})
    assert allowed(cluster, DB, OUTSIDE, 150, SCTP)
    assert not allowed(cluster, DB, OUTSIDE, 201, SCTP)
    assert not allowed(cluster, DB, OUTSIDE, 150, TCP)


def test_several_ports_are_alternatives() -> None:
    cluster = into({"port": 80}, {"port": 8000, "endPort": 8002}, {"port": 53, "protocol": "UDP"})
    assert open_ports(cluster, TCP, 53, 80, 8001) == {80, 8001}
    assert open_ports(cluster, UDP, 53, 80, 8001) == {53}


# Named ports.


def named(cluster: PolicyCluster, source: PolicyPod | Address, pod: PolicyPod, protocol: int) -> set[int]:
    numbers = (80, 8080, 9000)
    return {number for number in numbers if allowed(cluster, source, pod, number, protocol)}


def test_a_name_means_the_number_that_each_selected_pod_gives_it() -> None:
    cluster = into({"port": "http"})
    assert named(cluster, CLIENT, WEB, TCP) == {8080}
    assert named(cluster, CLIENT, JOB, TCP) == {9000}
    assert named(cluster, OUTSIDE, JOB, TCP) == {9000}


def test_a_name_that_a_pod_does_not_have_means_nothing() -> None:
    assert named(into({"port": "http"}), CLIENT, DB, TCP) == set()


def test_a_name_means_a_port_of_the_same_protocol_only() -> None:
    policy = network_policy(namespace="partner", ingress=[{"ports": [{"port": "http"}]}])
    assert named(with_policies(policy), DB, CLIENT, TCP) == set()
    assert named(with_policies(policy), DB, CLIENT, UDP) == set()
    policy = network_policy(namespace="partner", ingress=[{"ports": [{"port": "http", "protocol": "UDP"}]}])
    assert named(with_policies(policy), DB, CLIENT, UDP) == {8080}
    assert named(with_policies(policy), DB, CLIENT, TCP) == set()


def test_on_the_way_out_a_name_is_that_of_the_pod_at_the_other_end() -> None:
    cluster = out({"port": "http"}, to=[{"podSelector": {}}])
    assert named(cluster, DB, WEB, TCP) == {8080}
    assert named(cluster, DB, JOB, TCP) == {9000}
    assert named(cluster, WEB, DB, TCP) == set()


def test_the_names_of_the_pod_that_connects_do_not_matter() -> None:
    assert named(out({"port": "sql"}, to=[{"podSelector": {}}]), DB, WEB, TCP) == set()
    assert not allowed(out({"port": "sql"}, to=[{"podSelector": {}}]), DB, WEB, 5432)


def test_without_peers_a_name_is_that_of_any_pod_and_of_nothing_else() -> None:
    cluster = out({"port": "http"}, {"port": "http", "protocol": "UDP"})
    assert named(cluster, DB, WEB, TCP) == {8080}
    assert named(cluster, DB, CLIENT, UDP) == {8080}
    for destination in (OUTSIDE, NODE_2):
        for number in (80, 8080, 9000):
            assert not allowed(cluster, DB, destination, number)


def test_a_name_with_an_ip_block_is_that_of_pods_in_the_block() -> None:
    cluster = out({"port": "http"}, to=[{"ipBlock": {"cidr": "10.244.1.0/24"}}])
    assert named(cluster, DB, WEB, TCP) == {8080}
    assert named(cluster, DB, JOB, TCP) == set()


@pytest.mark.parametrize("version", [4, 6])
def test_a_name_and_a_number_beside_each_other(version: int) -> None:
    cluster = into({"port": "sql"}, {"port": "stats", "protocol": "UDP"}, {"port": 22})
    assert allowed(cluster, CLIENT, DB, 5432, version=version)
    assert allowed(cluster, CLIENT, DB, 8125, UDP, version=version)
    assert allowed(cluster, CLIENT, DB, 22, version=version)
    assert not allowed(cluster, CLIENT, DB, 8125, TCP, version=version)
