# SPDX-License-Identifier: Apache-2.0
"""Whom the selectors of a NetworkPolicy take: pods, namespaces, both together and both apart; all expressions."""

from tests.lab.policies.cluster import PolicyLab
from tests.lab.policies.objects import (
    ALL,
    Document,
    expression,
    labels,
    namespaces,
    network_policy,
    pods,
    pods_of,
)

NAME = "kubernetes.io/metadata.name"


def let_in(*peers: Document) -> Document:
    """For x/a: these, and nobody else."""
    return network_policy("in", podSelector=labels(pod="a"), ingress=[{"from": list(peers)}])


def let_out(*peers: Document) -> Document:
    """From x/a: to these, and nobody else."""
    return network_policy(
        "out", podSelector=labels(pod="a"), egress=[{"to": list(peers)}], policyTypes=["Egress"]
    )


def test_a_pod_selector_means_pods_of_the_own_namespace(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods(labels(pod="b"))))
    cluster.check(allowed=["x/b > x/a"], denied=["y/b > x/a", "x/c > x/a", "node-2 > x/a"])


def test_a_namespace_selector_means_all_pods_of_a_namespace(cluster: PolicyLab) -> None:
    cluster.declare(let_in(namespaces(labels(ns="y"))))
    cluster.check(allowed=["y/a > x/a", "y/b > x/a", "y/c > x/a"], denied=["x/b > x/a", "z/a > x/a"])


def test_a_namespace_selector_takes_the_own_namespace_only_if_it_says_so(cluster: PolicyLab) -> None:
    cluster.declare(let_in(namespaces(labels(ns="x"))))
    cluster.check(allowed=["x/b > x/a", "x/c > x/a"], denied=["y/a > x/a"])


def test_a_namespace_is_selected_by_its_name(cluster: PolicyLab) -> None:
    cluster.declare(let_in(namespaces({"matchLabels": {NAME: "z"}})))
    cluster.check(allowed=["z/a > x/a", "z/b > x/a"], denied=["x/b > x/a", "y/b > x/a"])


def test_both_selectors_in_one_peer_must_both_match(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods_of(labels(ns="y"), labels(pod="b"))))
    cluster.check(allowed=["y/b > x/a"], denied=["y/a > x/a", "x/b > x/a", "z/b > x/a"])


def test_of_both_selectors_in_two_peers_either_may_match(cluster: PolicyLab) -> None:
    cluster.declare(let_in(namespaces(labels(ns="y")), pods(labels(pod="b"))))
    cluster.check(allowed=["y/a > x/a", "y/b > x/a", "x/b > x/a"], denied=["x/c > x/a", "z/b > x/a"])


def test_empty_selectors_of_namespaces_mean_all_pods_and_nobody_else(cluster: PolicyLab) -> None:
    cluster.declare(let_in(namespaces(ALL)))
    cluster.check(allowed=["y/a > x/a", "x/c > x/a", "z/b > x/a"], denied=["node-2 > x/a", "node-3 > x/a"])


def test_an_empty_pod_selector_beside_a_namespace_selector_means_all_its_pods(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods_of(labels(ns="z"), ALL)))
    cluster.check(allowed=["z/a > x/a", "z/c > x/a"], denied=["x/b > x/a", "y/a > x/a"])


def test_egress_selects_pods_of_the_own_namespace(cluster: PolicyLab) -> None:
    cluster.declare(let_out(pods(labels(pod="b"))))
    cluster.check(
        allowed=["x/a > x/b", "x/b > y/a"], denied=["x/a > y/b", "x/a > x/c", "x/a > outside", "x/a > node-2"]
    )


def test_egress_selects_namespaces(cluster: PolicyLab) -> None:
    cluster.declare(let_out(namespaces(labels(ns="y"))))
    cluster.check(allowed=["x/a > y/a", "x/a > y/c"], denied=["x/a > x/b", "x/a > z/a", "x/a > outside"])


def test_egress_selects_pods_of_namespaces(cluster: PolicyLab) -> None:
    cluster.declare(let_out(pods_of(labels(ns="y"), labels(pod="b")), pods(labels(pod="c"))))
    cluster.check(allowed=["x/a > y/b", "x/a > x/c"], denied=["x/a > y/c", "x/a > z/c", "x/a > x/b"])


def test_several_labels_must_all_match(cluster: PolicyLab) -> None:
    cluster.declare(let_in(pods(labels(pod="b", tier="back")), pods(labels(pod="c", tier="back"))))
    cluster.check(allowed=["x/b > x/a"], denied=["x/c > x/a"])


def test_an_expression_beside_a_label_must_match_too(cluster: PolicyLab) -> None:
    cluster.declare(let_in(namespaces(labels(ns="x") | expression("team", "NotIn", "blue"))))
    cluster.check(denied=["x/b > x/a", "y/b > x/a", "z/b > x/a"])


#: Of each pod who is let in, and which pods (or namespaces) that are.
POD_EXPRESSIONS = {
    "x/a": (expression("pod", "In", "b", "c"), "bc"),
    "x/b": (expression("pod", "NotIn", "a", "b"), "c"),
    # What has no such label is not in, either.
    "x/c": (expression("tier", "NotIn", "front"), "bc"),
    "z/a": (expression("tier", "Exists"), "ab"),
    "z/b": (expression("tier", "DoesNotExist"), "c"),
}
NAMESPACE_EXPRESSIONS = {
    "x/a": (expression("ns", "In", "y", "z"), "yz"),
    "x/c": (expression("ns", "NotIn", "x", "y"), "z"),
    "y/a": (expression("team", "NotIn", "blue"), "yz"),
    "y/c": (expression("team", "Exists"), "xy"),
    "z/a": (expression("team", "DoesNotExist"), "z"),
}


def for_one(name: str, peer: Document) -> Document:
    """For the pod: this peer, and nobody else."""
    space, _, short = name.partition("/")
    return network_policy(short, space, podSelector=labels(pod=short), ingress=[{"from": [peer]}])


def test_pods_are_selected_by_expressions(cluster: PolicyLab) -> None:
    for name, (selector, _) in POD_EXPRESSIONS.items():
        cluster.declare(for_one(name, pods_of(labels(ns="y"), selector)))
    cluster.check(
        allowed=[f"y/{one} > {name}" for name, (_, taken) in POD_EXPRESSIONS.items() for one in taken],
        denied=[
            f"y/{one} > {name}"
            for name, (_, taken) in POD_EXPRESSIONS.items()
            for one in "abc"
            if one not in taken
        ],
    )


def test_namespaces_are_selected_by_expressions(cluster: PolicyLab) -> None:
    for name, (selector, _) in NAMESPACE_EXPRESSIONS.items():
        cluster.declare(for_one(name, namespaces(selector)))
    cluster.check(
        allowed=[f"{one}/b > {name}" for name, (_, taken) in NAMESPACE_EXPRESSIONS.items() for one in taken],
        denied=[
            f"{one}/b > {name}"
            for name, (_, taken) in NAMESPACE_EXPRESSIONS.items()
            for one in "xyz"
            if one not in taken
        ],
    )


def test_the_subject_is_selected_by_expressions(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("subject", podSelector=expression("pod", "NotIn", "a")))
    cluster.check(allowed=["y/a > x/a"], denied=["y/a > x/b", "x/a > x/c"])
