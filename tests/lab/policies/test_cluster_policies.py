# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicies: the tiers Admin and Baseline around NetworkPolicies; priorities, subjects, peers, ports."""

import pytest

from tests.lab.policies.cluster import NODE_OF, NODES, OUTSIDE, PolicyLab
from tests.lab.policies.objects import (
    ALL,
    Document,
    accept,
    cidrs,
    cluster_policy,
    deny,
    expression,
    in_namespaces,
    in_pods,
    labels,
    namespaces,
    network_policy,
    node,
    number,
    pass_on,
    port,
    range_of,
)

EVERY_POD = in_namespaces(ALL)
OF_X = in_namespaces(labels(ns="x"))
OF_Y = in_namespaces(labels(ns="y"))
OF_Z = in_namespaces(labels(ns="z"))
NETWORKS = {"networks": ["0.0.0.0/0", "::/0"]}


def admin(name: str, priority: int = 100, subject: Document = OF_X, **rules: object) -> Document:
    return cluster_policy(name, "Admin", priority, subject, **rules)


def baseline(name: str, priority: int = 100, subject: Document = OF_X, **rules: object) -> Document:
    return cluster_policy(name, "Baseline", priority, subject, **rules)


# Tiers.


def test_what_an_administrator_denies_no_network_policy_allows(cluster: PolicyLab) -> None:
    cluster.declare(admin("deny-y", ingress=[deny([OF_Y])]), network_policy("allow", ingress=[{}]))
    cluster.check(denied=["y/a > x/a", "y/c > x/b"], allowed=["z/a > x/a", "x/a > y/a", "x/b > x/a"])


def test_what_an_administrator_accepts_no_network_policy_denies(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("accept-y", ingress=[accept([OF_Y])]),
        network_policy("deny", policyTypes=["Ingress"]),
        baseline("deny", ingress=[deny([EVERY_POD])]),
    )
    cluster.check(allowed=["y/a > x/a"], denied=["z/a > x/a", "x/b > x/a", "node-2 > x/a"])


def test_the_other_end_may_still_deny_what_an_administrator_accepts(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("accept-y", ingress=[accept([OF_Y])]), network_policy("deny", "y", policyTypes=["Egress"])
    )
    cluster.check(denied=["y/a > x/a"], allowed=["z/a > x/a", "x/a > y/a"])


def test_what_is_passed_on_the_network_policies_decide(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("pass-y", priority=1, ingress=[pass_on([OF_Y])]),
        admin("deny-all", priority=2, ingress=[deny([EVERY_POD])]),
        network_policy("in", ingress=[{"from": [namespaces(labels(ns="y"))], "ports": [port(80)]}]),
    )
    cluster.check(allowed=["y/a > x/a tcp 80"], denied=["y/a > x/a tcp 81", "z/a > x/a", "x/b > x/a"])


def test_what_is_passed_on_and_nothing_isolates_the_baseline_decides(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("pass", ingress=[pass_on([EVERY_POD])]),
        baseline("deny-y", ingress=[deny([OF_Y])]),
        network_policy("a", podSelector=labels(pod="a"), ingress=[{}]),
    )
    cluster.check(denied=["y/a > x/b"], allowed=["z/a > x/b", "y/a > x/a", "z/a > x/a"])


def test_the_baseline_is_overridden_by_network_policies(cluster: PolicyLab) -> None:
    cluster.declare(
        baseline("deny", subject=EVERY_POD, ingress=[deny([EVERY_POD])]),
        network_policy("in", ingress=[{"from": [namespaces(labels(ns="y"))]}]),
    )
    cluster.check(
        allowed=["y/a > x/a", "y/b > x/c", "x/a > x/a", "node-2 > y/c"],
        denied=["z/a > x/a", "x/a > y/a", "y/a > z/a"],
    )


def test_a_baseline_that_accepts_opens_nothing_that_is_isolated(cluster: PolicyLab) -> None:
    cluster.declare(
        baseline("accept-y", priority=1, ingress=[accept([OF_Y])]),
        baseline("deny", priority=2, ingress=[deny([EVERY_POD])]),
        network_policy("deny", podSelector=labels(pod="a"), policyTypes=["Ingress"]),
    )
    cluster.check(denied=["y/a > x/a", "z/a > x/b"], allowed=["y/a > x/b"])


def test_a_baseline_that_passes_on_decides_nothing(cluster: PolicyLab) -> None:
    cluster.declare(
        baseline("pass-y", priority=1, ingress=[pass_on([OF_Y])]),
        baseline("deny", priority=2, ingress=[deny([EVERY_POD])]),
    )
    cluster.check(allowed=["y/a > x/a"], denied=["z/a > x/a", "x/b > x/a"])


# Precedence.


def test_the_lower_priority_number_decides(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("accept", priority=10, ingress=[accept([OF_Y])]),
        admin("deny", priority=20, ingress=[deny([OF_Y, OF_Z])]),
    )
    cluster.check(allowed=["y/a > x/a", "x/b > x/a"], denied=["z/a > x/a"])
    cluster.declare(admin("accept", priority=30, ingress=[accept([OF_Y])]))
    cluster.check(denied=["y/a > x/a", "z/a > x/a"])


def test_the_first_and_the_last_priority(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("admin-last", priority=1000, ingress=[deny([EVERY_POD])]),
        admin("admin-first", priority=0, ingress=[accept([OF_Y])]),
        baseline("baseline-last", priority=1000, subject=OF_Z, ingress=[deny([EVERY_POD])]),
        baseline("baseline-first", priority=0, subject=OF_Z, ingress=[accept([OF_Y])]),
    )
    cluster.check(allowed=["y/a > x/a", "y/a > z/a"], denied=["z/a > x/a", "x/a > z/a"])


def test_of_one_policy_the_first_rule_decides(cluster: PolicyLab) -> None:
    rules = [
        accept([in_pods(labels(ns="y"), labels(pod="a"))]),
        deny([OF_Y]),
        accept([OF_Y, OF_Z], number("tcp", 80)),
        deny([OF_Z]),
    ]
    cluster.declare(admin("rules", ingress=rules))
    cluster.check(
        allowed=["y/a > x/a", "z/b > x/a tcp 80", "x/b > x/a"],
        denied=["y/b > x/a", "z/b > x/a tcp 81", "z/b > x/a udp"],
    )


def test_each_direction_has_its_own_rules(cluster: PolicyLab) -> None:
    cluster.declare(
        admin(
            "both",
            ingress=[deny([OF_Y]), accept([EVERY_POD])],
            egress=[deny([OF_Z], egress=True), accept([EVERY_POD], egress=True)],
        )
    )
    cluster.check(allowed=["x/a > y/a", "z/a > x/a"], denied=["y/a > x/a", "x/a > z/a"])


# Subjects and peers.


def test_subject_and_peers_are_pods_of_namespaces(cluster: PolicyLab) -> None:
    subject = in_pods(expression("ns", "In", "x", "y"), labels(pod="a"))
    cluster.declare(admin("pods", subject=subject, ingress=[deny([in_pods(ALL, labels(pod="b"))])]))
    cluster.check(
        denied=["x/b > x/a", "z/b > y/a", "y/b > x/a"], allowed=["x/b > z/a", "x/c > x/a", "x/b > y/c"]
    )


def test_pods_as_peers_of_egress(cluster: PolicyLab) -> None:
    cluster.declare(
        admin("pods", egress=[deny([in_pods(labels(ns="y"), expression("tier", "Exists"))], egress=True)])
    )
    cluster.check(denied=["x/a > y/a", "x/c > y/b"], allowed=["x/a > y/c", "x/a > z/a", "y/a > x/a"])


def test_namespaces_as_peers_of_egress(cluster: PolicyLab) -> None:
    rules = [
        accept([in_namespaces(labels(team="red"))], egress=True),
        deny([EVERY_POD], egress=True),
    ]
    cluster.declare(admin("namespaces", egress=rules))
    # Who is no pod is in no namespace.
    cluster.check(allowed=["x/a > y/a", "x/a > outside", "x/a > node-2"], denied=["x/a > x/b", "x/a > z/a"])


def test_nodes_as_peers_are_selected_by_labels(cluster: PolicyLab) -> None:
    cluster.declare(
        node("node-1", {"zone": "one"}),
        node("node-2", {"zone": "two"}),
        admin("nodes", egress=[deny([{"nodes": labels(zone="two")}], egress=True)]),
    )
    cluster.check(
        denied=["x/a > node-2", "x/c > node-2"],
        allowed=["x/a > node-1", "x/a > node-3", "x/a > outside", "x/a > x/b"],
    )
    cluster.declare(node("node-3", {"zone": "two"}))
    cluster.check(denied=["x/a > node-2", "x/a > node-3"], allowed=["x/c > node-1"])


def test_an_administrator_can_keep_pods_from_all_nodes_but_not_nodes_from_pods(cluster: PolicyLab) -> None:
    cluster.declare(
        admin(
            "nodes",
            subject=EVERY_POD,
            egress=[deny([{"nodes": ALL}], egress=True)],
            ingress=[deny([EVERY_POD])],
        )
    )
    cluster.check(
        denied=[f"{name} > {node}" for name in NODE_OF for node in NODES],
        allowed=[
            way
            for name, own in NODE_OF.items()
            for way in (f"{own} > {name}", f"{name} > {name}", f"{name} > outside")
        ],
    )


def test_what_an_administrator_denies_of_nodes_a_baseline_does_not_for_the_own_node(
    cluster: PolicyLab,
) -> None:
    cluster.declare(baseline("nodes", egress=[deny([{"nodes": ALL}], egress=True)]))
    cluster.check(
        denied=["x/a > node-2", "x/b > node-1"], allowed=["x/a > node-1", "x/b > node-2", "x/a > outside"]
    )


def test_networks_as_peers_take_pods_nodes_and_others(cluster: PolicyLab) -> None:
    own = [*cluster.places[OUTSIDE].addresses.values(), *cluster.places["y/b"].addresses.values()]
    rules = [accept([{"networks": cidrs(own)}], egress=True), deny([NETWORKS], egress=True)]
    cluster.declare(admin("networks", egress=rules))
    cluster.check(
        allowed=["x/a > outside", "x/a > y/b", "x/a > x/a", "y/a > x/a"],
        denied=["x/a > y/a", "x/a > x/b", "x/a > node-1", "x/a > node-2"],
    )


def test_networks_of_one_family_say_nothing_of_the_other(cluster: PolicyLab) -> None:
    cluster.declare(admin("networks", egress=[deny([{"networks": ["0.0.0.0/0"]}], egress=True)]))
    cluster.check(
        denied=["x/a > y/a IPv4", "x/a > outside IPv4"], allowed=["x/a > y/a IPv6", "x/a > outside IPv6"]
    )


# Protocols.


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_port_by_its_number(cluster: PolicyLab, transport: str) -> None:
    other = "udp" if transport == "tcp" else "tcp"
    cluster.declare(admin("ports", ingress=[deny([OF_Y], number(transport, 81))]))
    cluster.check(
        denied=[f"y/a > x/a {transport} 81"],
        allowed=[f"y/a > x/a {transport} 80", f"y/a > x/a {other}", "z/a > x/a"],
    )


def test_ranges_of_ports_and_several_protocols(cluster: PolicyLab) -> None:
    protocols = [range_of("tcp", 70, 80), range_of("udp", 81, 65535)]
    cluster.declare(admin("ports", ingress=[deny([OF_Y], *protocols)]))
    cluster.check(
        denied=["y/a > x/a tcp 80", "y/a > x/a udp 81"], allowed=["y/a > x/a tcp 81", "y/a > x/a udp 80"]
    )


def test_a_name_means_each_pods_own_ports_of_all_protocols(cluster: PolicyLab) -> None:
    cluster.declare(admin("ports", ingress=[deny([OF_Y], {"destinationNamedPort": "web"})]))
    cluster.check(
        denied=["y/a > x/a tcp 80", "y/a > x/a udp 81", "y/a > x/b tcp 81"],
        allowed=["y/a > x/a tcp 81", "y/a > x/a udp 80", "y/a > x/b udp", "y/a > x/c"],
    )


def test_a_name_in_egress_is_that_of_the_pod_that_is_spoken_to(cluster: PolicyLab) -> None:
    rules = [accept([OF_Y], {"destinationNamedPort": "web"}, egress=True), deny([EVERY_POD], egress=True)]
    cluster.declare(admin("ports", egress=rules))
    cluster.check(
        allowed=["x/a > y/a tcp 80", "x/a > y/a udp 81", "x/a > y/b tcp 81"],
        denied=["x/a > y/a tcp 81", "x/a > y/b tcp 80", "x/a > y/c", "x/a > z/a"],
    )


def test_ports_in_egress_to_networks(cluster: PolicyLab) -> None:
    cluster.declare(admin("ports", egress=[deny([NETWORKS], number("tcp", 80), egress=True)]))
    cluster.check(
        denied=["x/a > outside tcp 80", "x/a > y/a tcp 80", "x/a > node-1 tcp 80"],
        allowed=["x/a > outside tcp 81", "x/a > y/a udp 80"],
    )
