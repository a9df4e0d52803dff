# SPDX-License-Identifier: Apache-2.0
"""Declared objects: what is taken, what is refused, and how the refusal reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.model import InvalidObjectError, Namespace, Node, Pod, parse, parse_selector, to_document

KNOWN = "Namespace, Node, Pod, Service, EndpointSlice, NetworkPolicy, ClusterNetworkPolicy"


def pod(**metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", **metadata}}


def test_a_pod_of_kubernetes_is_taken_whole() -> None:
    spec = {
        "nodeName": "node-1",
        "containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80}]}],
    }
    document = pod(namespace="shop", labels={"app": "web"}, annotations={"a.b/c": "anything \n at all"})
    value = parse({**document, "spec": spec, "status": {"phase": "Running"}})
    assert isinstance(value, Pod)
    assert (value.metadata.namespace, value.metadata.name, value.node_name) == ("shop", "web-1", "node-1")
    assert to_document(value) == {**document, "spec": spec}


def test_a_pod_without_a_namespace_is_in_default() -> None:
    assert parse(pod()).metadata.namespace == "default"


def test_nodes_and_namespaces_belong_to_no_namespace() -> None:
    node = parse({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n.example"}})
    assert isinstance(node, Node)
    assert node.metadata.namespace == ""
    assert isinstance(
        parse({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}), Namespace
    )


def test_a_node_fixes_its_ranges() -> None:
    spec = {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00::/64"]}
    node = parse({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec})
    assert isinstance(node, Node)
    assert node.pod_cidrs == ("10.0.1.0/24", "fd00::/64")


def node(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "an object must be a map, got null"),
        ([], "an object must be a map, got a list"),
        ({}, f"kind: must be one of {KNOWN}"),
        (
            {"kind": "Secret", "apiVersion": "v1"},
            f"kind: 'Secret' is not known here; known are {KNOWN}",
        ),
        (
            {"kind": "Pod", "apiVersion": "apps/v1"},
            "apiVersion: 'apps/v1' of kind Pod is not known here; use 'v1'",
        ),
        ({"kind": "Pod", "apiVersion": "v1"}, "Pod: metadata: must be a map, got null"),
        ({"kind": "Pod", "apiVersion": "v1", "metadata": {}}, "Pod: metadata.name: must be text, got null"),
        (pod(name=""), "Pod default/: metadata.name: must not be empty"),
        (pod(name=7), "Pod: metadata.name: must be text, got a number"),
        (pod(name="Web"), "Pod default/Web: metadata.name: 'Web' must be lower-case letters"),
        (pod(name="-a"), "Pod default/-a: metadata.name: '-a' must be"),
        (pod(name="a" * 254), "at most 253"),
        (pod(namespace="a.b"), "Pod a.b/web-1: metadata.namespace: 'a.b' must be"),
        (pod(lables={}), "Pod default/web-1: metadata.lables: is no field of an object's metadata"),
        ({**pod(), "specs": {}}, "Pod default/web-1: specs: is no field of a Pod"),
        ({**pod(), "spec": 3}, "Pod default/web-1: spec: must be a map, got a number"),
        (pod(labels={"a b": "c"}), """Pod default/web-1: metadata.labels["a b"]: 'a b' is no label key"""),
        (pod(labels={"a": "c d"}), """Pod default/web-1: metadata.labels["a"]: 'c d' is no label value"""),
        (pod(labels={"a": 1}), """metadata.labels["a"]: must be text, got a number: write it in quotes"""),
        (pod(labels={"A_/b": ""}), "the part before '/' of 'A_/b' must be a DNS subdomain"),
        (pod(labels=["a"]), "metadata.labels: must be a map, got a list"),
        (pod(labels={True: "a"}), "metadata.labels: keys must be text, got True"),
        (pod(annotations={"a": "x" * 300000}), "metadata.annotations: 300001 bytes; at most 262144"),
        ({**pod(), "spec": {"nodeName": "Node 1"}}, "Pod default/web-1: spec.nodeName: 'Node 1' must be"),
        (node(podCIDRs="10.0.0.0/24"), "Node n: spec.podCIDRs: must be a list, got text"),
        (node(podCIDRs=["10.0.0.1/24"]), "Node n: spec.podCIDRs[0]: '10.0.0.1/24' is no range"),
        (node(podCIDRs=["10.0.0.0/24", "10.0.1.0/24"]), "spec.podCIDRs[1]: a second IPv4 range"),
        (node(podCIDR="10.0.0.0/24", podCIDRs=["10.0.1.0/24"]), "spec.podCIDR: must be the first"),
        (
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "x"}},
            "Node n: metadata.namespace: a Node belongs to no namespace",
        ),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a.b"}},
            "Namespace a.b: metadata.name: 'a.b' must be",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_object_and_path(document: Any, says: str) -> None:
    with pytest.raises(InvalidObjectError) as refused:
        parse(document)
    assert says in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "apiVersion": st.just("v1") | json_values,
            "kind": st.sampled_from(["Pod", "Node", "Namespace"]) | json_values,
            "metadata": json_values
            | st.fixed_dictionaries(
                {"name": st.text("ab-.", min_size=1, max_size=5)},
                optional={"namespace": json_values, "labels": json_values, "annotations": json_values},
            ),
            "spec": json_values
            | st.fixed_dictionaries({}, optional={"podCIDRs": json_values, "podCIDR": json_values}),
        },
    )
)
def test_any_document_is_either_taken_or_refused_in_words(document: dict[str, Any]) -> None:
    try:
        value = parse(document)
    except InvalidObjectError as problem:
        assert str(problem)
    else:
        assert parse(to_document(value)) == value


LABELS = {"app": "web", "tier": "front", "example.com/rank": "1", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        (" app = web , tier = front ", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("missing=x", False),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (db,cache)", True),
        ("app notin (web)", False),
        ("missing notin (x)", True),
        ("missing in (x)", False),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("!app", False),
        ("example.com/rank=1,app in (web),!x", True),
        ("empty=", True),
        ("app=", False),
    ],
)
def test_a_selector_selects_as_kubernetes_does(selector: str, matches: bool) -> None:
    assert parse_selector(selector).matches(LABELS) is matches


@pytest.mark.parametrize(
    "selector",
    ["=", "a=b=c", "a in b", "a in (b", "a,,b", "a b", "-a", "a=-b", "in (a)", "a=b,", "a!", "(a)"],
)
def test_a_selector_that_is_none_is_refused(selector: str) -> None:
    with pytest.raises(InvalidObjectError, match="label_selector"):
        parse_selector(selector)
