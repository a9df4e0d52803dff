# SPDX-License-Identifier: Apache-2.0
"""Which pods are isolated, in which direction, and what isolation never touches: defaults, sums, nodes, echoes."""

import pytest

from tests.lab import service_objects
from tests.lab.policies.cluster import NODE_OF, NODES, PolicyLab
from tests.lab.policies.objects import (
    ALL,
    block,
    hosts,
    labels,
    namespaces,
    network_policy,
    pod,
    pods,
    pods_of,
    port,
    service,
)
from tests.lab.policies.probe import FAMILIES, TRANSPORTS, Way, matrix

BOTH = ["Ingress", "Egress"]


# Defaults.


def test_without_policies_everybody_reaches_everybody(cluster: PolicyLab) -> None:
    cluster.check(allowed=["* > *"])


def test_default_deny_ingress(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("deny", policyTypes=["Ingress"]))
    cluster.check(
        denied=["y/a > x/a", "x/b > x/a", "z/c > x/c udp"],
        allowed=["x/a > y/a", "x/a > z/c", "x/a > outside", "y/a > z/b"],
    )


def test_answers_reach_a_client_that_lets_nobody_in(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("deny", podSelector=labels(pod="a"), policyTypes=["Ingress"]))
    cluster.check(allowed=["x/a > x/b tcp", "x/a > y/b udp"], denied=["x/b > x/a tcp", "y/b > x/a udp"])


def test_default_deny_egress(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("deny", policyTypes=["Egress"]))
    cluster.check(
        denied=["x/a > y/a", "x/a > x/b", "x/c > z/b udp", "x/a > outside"],
        allowed=["y/a > x/a", "z/b > x/c", "y/a > outside"],
    )


def test_default_deny_both(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("deny", policyTypes=BOTH))
    cluster.check(denied=["x/a > x/b", "x/a > y/a", "y/a > x/a", "x/a > outside"], allowed=["y/a > z/a"])


def test_default_deny_of_every_namespace(cluster: PolicyLab) -> None:
    cluster.declare(*(network_policy("deny", space, policyTypes=BOTH) for space in "xyz"))
    cluster.check(denied=["x/a > y/a", "y/b > z/b", "z/a > z/b"], allowed=["x/a > x/a", "y/c > y/c"])


def test_allow_all_ingress_opens_what_is_denied_by_default(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("deny", policyTypes=["Ingress"]),
        network_policy("allow", ingress=[{}], policyTypes=["Ingress"]),
    )
    cluster.check(allowed=["* > *"])


def test_allow_all_egress_opens_what_is_denied_by_default(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("deny", policyTypes=["Egress"]),
        network_policy("allow", egress=[{}], policyTypes=["Egress"]),
    )
    cluster.check(allowed=["* > *"])


# policyTypes.


def test_without_policy_types_and_egress_rules_only_ingress_is_isolated(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("default"))
    cluster.check(denied=["y/a > x/a", "x/b > x/a"], allowed=["x/a > y/a", "x/a > outside"])


def test_without_policy_types_egress_rules_isolate_egress_too(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("default", egress=[{"to": [pods(labels(pod="b"))]}]))
    cluster.check(denied=["y/a > x/a", "x/a > y/a", "x/a > outside", "x/a > x/b"], allowed=["y/a > z/a"])


def test_policy_type_egress_alone_leaves_ingress_open(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("egress", egress=[{"to": [pods(labels(pod="b"))]}], policyTypes=["Egress"])
    )
    cluster.check(allowed=["y/a > x/a", "x/a > x/b"], denied=["x/a > x/c", "x/a > y/b"])


def test_rules_of_a_direction_that_is_no_policy_type_mean_nothing(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("ingress", egress=[{"to": [pods(labels(pod="b"))]}], policyTypes=["Ingress"])
    )
    cluster.check(allowed=["x/a > y/a", "x/a > outside"], denied=["y/a > x/a"])


# Rules and their sum.


def test_a_pod_selector_isolates_only_the_pods_that_it_selects(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("only-a", podSelector=labels(pod="a")))
    cluster.check(denied=["x/b > x/a", "y/a > x/a"], allowed=["x/a > x/b", "y/a > x/c", "x/b > y/a"])


def test_an_empty_from_means_everybody(cluster: PolicyLab) -> None:
    rule = {"from": [], "ports": [port(80)]}
    cluster.declare(network_policy("from", ingress=[rule]))
    cluster.check(
        allowed=["y/a > x/a tcp 80", "node-1 > x/b tcp 80"], denied=["y/a > x/a tcp 81", "y/a > x/a udp 80"]
    )


def test_an_empty_to_means_everybody(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("to", egress=[{"to": [], "ports": [port(80)]}], policyTypes=["Egress"]))
    cluster.check(
        allowed=["x/a > y/a tcp 80", "x/a > outside tcp 80"],
        denied=["x/a > y/a tcp 81", "x/a > outside udp 80"],
    )


def test_several_policies_allow_what_any_of_them_allows(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("from-a", ingress=[{"from": [pods(labels(pod="a"))], "ports": [port(80)]}]),
        network_policy(
            "from-y", ingress=[{"from": [namespaces(labels(ns="y"))], "ports": [port(81, "UDP")]}]
        ),
        network_policy("nobody", podSelector=labels(pod="b")),
    )
    cluster.check(
        allowed=["x/a > x/b tcp 80", "y/c > x/b udp 81", "y/a > x/c udp 81"],
        denied=["x/a > x/b tcp 81", "y/c > x/b tcp 80", "y/a > x/c tcp 81", "z/a > x/b"],
    )


def test_several_rules_allow_what_any_of_them_allows(cluster: PolicyLab) -> None:
    rules = [
        {"from": [pods(labels(pod="b"))], "ports": [port(80)]},
        {"from": [namespaces(labels(ns="z"))], "ports": [port(81)]},
    ]
    cluster.declare(network_policy("rules", podSelector=labels(pod="a"), ingress=rules))
    cluster.check(
        allowed=["x/b > x/a tcp 80", "z/c > x/a tcp 81"],
        denied=["x/b > x/a tcp 81", "z/c > x/a tcp 80", "y/b > x/a"],
    )


def test_egress_and_ingress_must_both_allow(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("out", "x", egress=[{"to": [namespaces(labels(ns="y"))]}], policyTypes=["Egress"]),
        network_policy("in", "y", ingress=[{"from": [pods_of(labels(ns="x"), labels(pod="a"))]}]),
    )
    cluster.check(
        allowed=["x/a > y/a", "x/a > y/b"],
        # Neither that which only its sender allows, nor that which only its receiver does.
        denied=["x/b > y/a", "x/a > z/a", "x/a > x/b", "z/a > y/a"],
    )


# What isolation never touches.


def test_a_pods_own_node_is_never_denied_and_other_nodes_are(cluster: PolicyLab) -> None:
    cluster.declare(*(network_policy("deny", space, policyTypes=BOTH) for space in "xyz"))
    allowed, denied = [], []
    for name, own in NODE_OF.items():
        allowed += [f"{own} > {name}", f"{name} > {own}", f"{name} > {name}"]
        for other in NODES:
            if other != own:
                denied += [f"{other} > {name}", f"{name} > {other}"]
    cluster.check(allowed=allowed, denied=denied)


def test_a_host_network_pod_counts_as_its_node(cluster: PolicyLab) -> None:
    cluster.declare(
        pod("x/host", {"pod": "host"}, hostNetwork=True, nodeName="node-2"),
        network_policy("in", podSelector=labels(pod="a"), ingress=[{"from": [pods(labels(pod="host"))]}]),
        network_policy("out", podSelector=labels(pod="a"), egress=[{"to": [pods(labels(pod="host"))]}]),
        # Nor is it a subject.
        network_policy("host", podSelector=labels(pod="host"), policyTypes=BOTH),
    )
    cluster.check(
        denied=["node-2 > x/a", "x/a > node-2"], allowed=["node-2 > x/b", "node-2 > y/b", "z/a > node-2"]
    )
    cluster.declare(
        network_policy(
            "node",
            podSelector=labels(pod="a"),
            ingress=[{"from": node_2(cluster)}],
            egress=[{"to": node_2(cluster)}],
        )
    )
    cluster.check(allowed=["node-2 > x/a", "x/a > node-2"], denied=["node-3 > x/a", "x/a > node-3"])


def node_2(cluster: PolicyLab) -> list[dict[str, object]]:
    return hosts(cluster.places["node-2"].addresses.values())


def test_a_pod_reaches_itself_also_through_its_service(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("deny", policyTypes=BOTH),
        service("x/itself", service_objects.both(8080, 80), {"pod": "a"}),
    )
    ways = [
        Way("x/a", "x/a", family, transport, 80, frontend)
        for family in FAMILIES
        for transport in TRANSPORTS
        for frontend in (None, (service_objects.cluster_ip(cluster.lab, "itself", family, "x"), 8080))
    ]
    cluster.check(allowed=["x/a > x/a"], ways=ways)


# Echoes: of no port, so of none that a rule names.


def echoes(cluster: PolicyLab) -> list[Way]:
    places = [cluster.places[name] for name in ("x/a", "x/b", "y/a", "z/c", "node-1", "node-2")]
    return list(matrix(places, places, transports=("icmp",)))


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_echoes_are_denied_by_default(cluster: PolicyLab, direction: str) -> None:
    cluster.declare(network_policy("deny", policyTypes=[direction.capitalize()]))
    denied = ["y/a > x/a", "node-2 > x/a"] if direction == "ingress" else ["x/a > y/a", "x/a > node-2"]
    cluster.check(denied=denied, allowed=["y/a > z/c", "x/a > x/a", "node-1 > x/a"], ways=echoes(cluster))


def test_a_rule_without_ports_allows_echoes_and_one_with_ports_does_not(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy(
            "echoes",
            ingress=[
                {"from": [pods(labels(pod="b"))]},
                {"from": [namespaces(labels(ns="y"))], "ports": [port(80), port(protocol="UDP")]},
                {"from": [block("0.0.0.0/0"), block("::/0")], "ports": [port(1, end=65535)]},
            ],
        )
    )
    cluster.check(allowed=["x/b > x/a"], denied=["y/a > x/a", "x/a > x/b", "z/c > x/a"], ways=echoes(cluster))
    cluster.declare(network_policy("all", ingress=[{}]))
    cluster.check(allowed=["* > *"], ways=echoes(cluster))


def test_the_empty_selector_selects_every_pod_of_the_namespace(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("all", podSelector=ALL, ingress=[{"from": [pods(ALL)]}]))
    cluster.check(
        allowed=["x/a > x/b", "x/c > x/a", "x/b > x/c"], denied=["y/a > x/a", "z/b > x/c", "node-1 > x/b"]
    )
