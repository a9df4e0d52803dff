# SPDX-License-Identifier: Apache-2.0
"""What follows from a change: of policies, of labels, of pods. Each time all connections are tried again."""

import pytest

from tests.lab.policies.cluster import LABELS, NAMESPACES, NODES, PolicyLab
from tests.lab.policies.objects import (
    ALL,
    Document,
    cluster_policy,
    deny,
    hosts,
    in_namespaces,
    in_pods,
    labels,
    namespace,
    namespaces,
    network_policy,
    pods,
    port,
)


def let_in(*peers: Document, name: str = "in") -> Document:
    """For x/a."""
    return network_policy(name, podSelector=labels(pod="a"), ingress=[{"from": list(peers)}])


# Policies.


def test_a_policy_is_added_changed_and_removed(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods(labels(pod="b"))))
    cluster.check(allowed=["x/b > x/a"], denied=["x/c > x/a", "y/a > x/a"])
    cluster.declare(let_in(namespaces(labels(ns="y"))))
    cluster.check(allowed=["y/a > x/a"], denied=["x/b > x/a", "x/c > x/a"])
    cluster.declare(network_policy("in", podSelector=labels(pod="b"), policyTypes=["Egress"]))
    cluster.check(allowed=["x/c > x/a", "z/a > x/b"], denied=["x/b > x/a", "x/b > y/a"])
    cluster.forget(let_in())
    cluster.check(allowed=["* > *"])


def test_of_policies_that_say_the_same_one_may_go(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods(labels(pod="b"))), let_in(pods(labels(pod="b")), name="again"))
    cluster.check(allowed=["x/b > x/a"], denied=["x/c > x/a"])
    cluster.forget(let_in())
    cluster.check(allowed=["x/b > x/a"], denied=["x/c > x/a"])
    cluster.forget(let_in(name="again"))
    cluster.check(allowed=["x/c > x/a"])


def test_a_cluster_policy_is_added_changed_and_removed(cluster: PolicyLab) -> None:
    def policy(tier: str, peer: str) -> Document:
        rules = [deny([in_namespaces(labels(ns=peer))])]
        return cluster_policy("one", tier, 5, in_pods(ALL, labels(pod="a")), ingress=rules)

    cluster.declare(network_policy("all", ingress=[{}]), policy("Admin", "y"))
    cluster.check(denied=["y/a > x/a", "y/b > z/a"], allowed=["z/b > x/a", "y/a > x/b"])
    cluster.declare(policy("Admin", "z"))
    cluster.check(denied=["z/a > x/a"], allowed=["y/a > x/a"])
    cluster.declare(policy("Baseline", "z"))
    cluster.check(denied=["z/b > y/a"], allowed=["z/a > x/a"])
    cluster.forget(policy("Baseline", "z"))
    cluster.check(allowed=["* > *"])


# Labels.


def test_labels_of_a_pod_make_it_a_peer_or_a_subject(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods(labels(role="client"))))
    cluster.check(denied=["x/b > x/a", "x/c > x/a"])
    cluster.relabel("x/b", LABELS["b"] | {"role": "client"})
    cluster.check(allowed=["x/b > x/a"], denied=["x/c > x/a"])
    cluster.relabel("x/b", LABELS["b"])
    cluster.check(denied=["x/b > x/a"])
    cluster.relabel("x/c", {"pod": "a"})
    cluster.check(denied=["y/a > x/a", "y/a > x/c"])
    cluster.relabel("x/a", {"pod": "none"})
    cluster.check(allowed=["y/a > x/a"], denied=["y/a > x/c"])


def test_a_pod_has_the_labels_that_its_runtime_told_until_it_is_declared(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods(labels(role="client"))))
    cluster.attach("x/told", "node-2", {"role": "client"})
    cluster.check(allowed=["x/told > x/a"], denied=["x/b > x/a"])
    cluster.relabel("x/told", {})
    cluster.check(denied=["x/told > x/a"])


def test_named_ports_of_a_pod_change(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("web", podSelector=labels(pod="a"), ingress=[{"ports": [port("web")]}]))
    cluster.check(allowed=["y/a > x/a tcp 80"], denied=["y/a > x/a tcp 81"])
    cluster.relabel("x/a", LABELS["a"], [("web", "TCP", 81)])
    cluster.check(allowed=["y/a > x/a tcp 81"], denied=["y/a > x/a tcp 80"])


def test_labels_of_a_namespace_change(cluster: PolicyLab) -> None:
    cluster.declare(
        let_in(namespaces(labels(team="red"))),
        cluster_policy(
            "admin",
            "Admin",
            1,
            in_namespaces(labels(team="red")),
            ingress=[deny([in_namespaces(labels(ns="x"))])],
        ),
    )
    cluster.check(allowed=["y/a > x/a", "x/a > z/a"], denied=["z/a > x/a", "x/a > y/a"])
    cluster.declare(namespace("z", NAMESPACES["z"] | {"team": "red"}), namespace("y", {"ns": "y"}))
    cluster.check(allowed=["z/a > x/a", "x/a > y/a"], denied=["y/a > x/a", "x/a > z/a"])


def test_a_namespace_that_is_not_declared_any_more_has_its_name_alone(cluster: PolicyLab) -> None:
    named = {"matchLabels": {"kubernetes.io/metadata.name": "z"}}
    cluster.declare(let_in(namespaces(labels(ns="y")), namespaces(named)))
    cluster.check(allowed=["y/a > x/a", "z/a > x/a"])
    cluster.forget(namespace("y", {}), namespace("z", {}))
    cluster.check(allowed=["z/a > x/a"], denied=["y/a > x/a"])


# Pods.


def test_a_pod_is_made_anew_under_other_addresses(cluster: PolicyLab) -> None:
    before = dict(cluster.places["x/b"].addresses)
    cluster.declare(
        let_in(pods(labels(pod="b"))),
        network_policy("b", podSelector=labels(pod="b"), ingress=[{"from": hosts(before.values())}]),
    )
    cluster.check(allowed=["x/b > x/a", "x/b > x/b"], denied=["x/c > x/a", "y/a > x/b"])
    cluster.detach("x/b")
    # Whoever has the old addresses now has none of its rights.
    cluster.check(denied=["x/c > x/a"])
    cluster.add_usual_pod("x/b")
    assert not set(before.values()) & set(cluster.places["x/b"].addresses.values())
    cluster.check(allowed=["x/b > x/a"], denied=["y/a > x/b", "x/c > x/b"])


@pytest.mark.parametrize("node", NODES)
def test_a_pod_that_comes_later_is_isolated_from_its_first_packet_on(cluster: PolicyLab, node: str) -> None:
    cluster.declare(network_policy("deny", policyTypes=["Ingress", "Egress"]))
    cluster.settle()
    cluster.add_pod("x/late", node, {"pod": "late"})
    ways = [way for way in cluster.ways() if "x/late" in (way.source, way.destination)]
    other = next(name for name in NODES if name != node)
    cluster.check(
        denied=["y/a > x/late", "x/late > z/a", f"{other} > x/late", "x/late > outside"],
        allowed=[f"{node} > x/late", "x/late > x/late"],
        ways=ways,
        at_once=True,
    )


def test_a_pod_that_comes_later_is_a_peer_and_a_subject(cluster: PolicyLab) -> None:
    cluster.declare(
        let_in(pods(labels(role="late")), namespaces({"matchLabels": {"kubernetes.io/metadata.name": "w"}})),
        network_policy("late", podSelector=labels(role="late"), ingress=[{"from": [pods(labels(pod="a"))]}]),
        network_policy("w", "w", egress=[{"to": [namespaces(labels(ns="x"))]}], policyTypes=["Egress"]),
    )
    cluster.check(denied=["x/b > x/a"])
    cluster.add_pod("x/late", "node-2", {"role": "late"})
    # Of a namespace that nobody declared.
    cluster.add_pod("w/late", "node-3", {"role": "late"})
    cluster.check(
        allowed=["x/late > x/a", "w/late > x/a", "x/a > x/late", "w/late > x/b"],
        denied=["x/b > x/late", "w/late > y/a", "w/late > x/late", "x/b > x/a"],
    )
    cluster.detach("x/late")
    cluster.detach("w/late")
    cluster.check(denied=["x/b > x/a"])


# Daemons.


def test_policies_are_in_force_while_the_controller_is_away_and_after_it_is_back(cluster: PolicyLab) -> None:
    cluster.declare(
        let_in(namespaces(labels(ns="y"))),
        network_policy("out", egress=[{"to": [pods(ALL)]}], policyTypes=["Egress"]),
    )
    cluster.check(allowed=["y/a > x/a", "x/a > x/b"], denied=["x/b > x/a", "x/b > y/a"])
    cluster.lab.stop("controller-1")
    try:
        cluster.check(allowed=["y/a > x/a", "x/a > x/b"], denied=["x/b > x/a", "x/b > y/a"], at_once=True)
    finally:
        cluster.lab.start("controller-1")
    cluster.lab.wait_ready()
    cluster.check(allowed=["y/a > x/a", "x/a > x/b"], denied=["x/b > x/a", "x/b > y/a"])
    cluster.declare(let_in(namespaces(labels(ns="z"))))
    cluster.check(allowed=["z/a > x/a"], denied=["y/a > x/a"])
