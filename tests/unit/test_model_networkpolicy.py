# SPDX-License-Identifier: Apache-2.0
"""Declared NetworkPolicies: what is taken, what it means, what is refused and by which field's name."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model import InvalidObjectError, NetworkPolicy, parse, to_document
from sdn.model.networkpolicy import EGRESS, INGRESS, audited, staged

WEB = {"matchLabels": {"app": "web"}}


def document(annotations: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "web", "namespace": "shop"}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }


def policy(annotations: dict[str, Any] | None = None, **spec: Any) -> NetworkPolicy:
    value = parse(document(annotations, **spec))
    assert isinstance(value, NetworkPolicy)
    return value


def test_what_is_declared_is_kept_as_it_is() -> None:
    spec = {
        "podSelector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back", ""]},
                {"key": "example.com/env", "operator": "NotIn", "values": ["test"]},
                {"key": "ready", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {},
            {
                "from": [
                    {"podSelector": {}},
                    {"namespaceSelector": {"matchLabels": {"team": "a"}}},
                    {"podSelector": WEB, "namespaceSelector": {}},
                    {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25", "192.0.2.255/32"]}},
                ],
                "ports": [
                    {"port": 80},
                    {"protocol": "UDP", "port": "dns"},
                    {"protocol": "SCTP"},
                    {"protocol": "TCP", "port": 1, "endPort": 65535},
                    {"port": 7, "endPort": 7},
                    {},
                ],
            },
        ],
        "egress": [
            {
                "to": [{"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}}],
                "ports": [{"port": 443}],
            }
        ],
    }
    value = policy({"sdn/audit": "accept,deny", "sdn/staged": "true"}, **spec)
    assert to_document(value) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "annotations": {"sdn/audit": "accept,deny", "sdn/staged": "true"},
        },
        "spec": spec,
    }
    assert parse(to_document(value)) == value


def test_a_selector_means_what_its_parts_say_together() -> None:
    selector = policy(
        podSelector={
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "NotIn", "values": ["back"]},
                {"key": "env", "operator": "In", "values": ["a", "b"]},
                {"key": "tls", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    ).spec.pod_selector.selector()
    right = {"app": "web", "env": "b", "tls": ""}
    assert selector.matches(right)
    for wrong in ({"app": "db"}, {"tier": "back"}, {"env": "c"}, {"old": ""}):
        assert not selector.matches(right | wrong)
    assert not selector.matches({"app": "web", "env": "b"})


def test_what_kubectl_prints_can_be_applied() -> None:
    printed = document(podSelector=WEB)
    printed["metadata"] |= {"uid": "1", "generation": 3, "managedFields": []}
    printed["status"] = {"conditions": []}
    assert parse(printed) == policy(podSelector=WEB)


def test_null_is_as_if_the_field_were_not_there() -> None:
    assert policy(podSelector=None, ingress=None, egress=None, policyTypes=None) == policy()
    rule = {
        "from": [
            {
                "podSelector": {"matchLabels": None, "matchExpressions": None},
                "namespaceSelector": None,
                "ipBlock": None,
            }
        ],
        "ports": [{"protocol": None, "port": None, "endPort": None}],
    }
    assert policy(ingress=[rule]) == policy(ingress=[{"from": [{"podSelector": {}}], "ports": [{}]}])
    assert policy(ingress=[{"from": None, "ports": None}]) == policy(ingress=[{}])


@pytest.mark.parametrize("spec", [{}, {"spec": None}, {"spec": {}}])
def test_without_a_spec_it_selects_all_pods_and_lets_nothing_in(spec: dict[str, Any]) -> None:
    whole = document()
    del whole["spec"]
    value = parse({**whole, **spec})
    assert isinstance(value, NetworkPolicy)
    assert value.spec.pod_selector.selector().matches({})
    assert (value.spec.ingress, value.spec.isolates(INGRESS), value.spec.isolates(EGRESS)) == (
        (),
        True,
        False,
    )
    assert to_document(value)["spec"] == {"podSelector": {}}


def test_no_rule_is_not_the_same_as_a_rule_for_everything() -> None:
    assert policy(ingress=[]).spec.ingress == ()
    assert len(policy(ingress=[{}]).spec.ingress) == 1
    assert to_document(policy(ingress=[{}]))["spec"]["ingress"] == [{}]
    assert policy(ingress=[{"from": [], "ports": []}]) == policy(ingress=[{}])


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"egress": []}, True, False),
        ({"egress": [{}]}, True, True),
        ({"policyTypes": []}, True, False),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, True, False),
        ({"policyTypes": ["Egress", "Ingress"]}, True, True),
        ({"policyTypes": ["Ingress", "Ingress"]}, True, False),
    ],
)
def test_which_directions_it_isolates(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    value = policy(**spec).spec
    assert (value.isolates(INGRESS), value.isolates(EGRESS)) == (ingress, egress)


def test_of_a_range_whatever_stands_after_the_prefix_says_nothing() -> None:
    block = {"cidr": "10.1.2.3/8", "except": ["10.9.9.9/16"]}
    (rule,) = policy(ingress=[{"from": [{"ipBlock": block}]}]).spec.ingress
    assert rule.from_[0].ip_block is not None
    assert (rule.from_[0].ip_block.cidr, rule.from_[0].ip_block.except_) == ("10.0.0.0/8", ("10.9.0.0/16",))
    (rule,) = policy(ingress=[{"from": [{"ipBlock": {"cidr": "FD00:0::1/64"}}]}]).spec.ingress
    assert rule.from_[0].ip_block is not None
    assert rule.from_[0].ip_block.cidr == "fd00::/64"


@pytest.mark.parametrize(
    ("annotations", "verdicts", "is_staged"),
    [
        (None, set(), False),
        ({"sdn/audit": "accept"}, {"accept"}, False),
        ({"sdn/audit": "deny"}, {"deny"}, False),
        ({"sdn/audit": "deny, accept"}, {"accept", "deny"}, False),
        ({"sdn/staged": "true"}, set(), True),
        ({"sdn/staged": "false"}, set(), False),
        ({"example.com/sdn": "anything"}, set(), False),
    ],
)
def test_what_the_annotations_say(annotations: dict[str, Any], verdicts: set[str], is_staged: bool) -> None:
    metadata = policy(annotations).metadata
    assert (audited(metadata), staged(metadata)) == (verdicts, is_staged)


@pytest.mark.parametrize("text", ["", "Deny", "all", "accept,", "accept deny", "true", "accept;deny"])
def test_an_audit_annotation_holds_nothing_but_verdicts(text: str) -> None:
    refused(
        document({"sdn/audit": text}), 'metadata.annotations["sdn/audit"]', "must be accept, deny or both"
    )


@pytest.mark.parametrize("text", ["", "True", "yes", "1", "no", " true"])
def test_a_staged_annotation_is_true_or_false(text: str) -> None:
    refused(document({"sdn/staged": text}), 'metadata.annotations["sdn/staged"]', "must be true or false")


def test_an_annotation_that_yaml_made_a_boolean_is_to_be_written_in_quotes() -> None:
    refused(document({"sdn/staged": True}), 'metadata.annotations["sdn/staged"]', "write it in quotes")


def test_other_kinds_may_have_anything_in_these_annotations() -> None:
    annotations = {"sdn/audit": "x", "sdn/staged": "y"}
    metadata = {"name": "a", "annotations": annotations}
    assert (
        parse({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}).metadata.annotations == annotations
    )


def refused(wrong: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InvalidObjectError) as problem:
        parse(wrong)
    assert (problem.value.subject, problem.value.path) == ("NetworkPolicy shop/web", path)
    assert says in problem.value.what


def test_a_kind_of_another_group_is_refused() -> None:
    with pytest.raises(InvalidObjectError, match=r"use 'networking\.k8s\.io/v1'"):
        parse({**document(), "apiVersion": "extensions/v1beta1"})


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ({"podselector": {}}, "podselector", "is no field of a NetworkPolicy's spec"),
        ({"podSelector": []}, "podSelector", "must be a map, got a list"),
        ({"ingress": {}}, "ingress", "must be a list, got a map"),
        ({"ingress": [None]}, "ingress[0]", "must be a map, got null"),
        ({"ingress": [{}, {"to": []}]}, "ingress[1].to", "is no field of an ingress rule"),
        ({"ingress": [{"from": {}}]}, "ingress[0].from", "must be a list, got a map"),
        ({"egress": [7]}, "egress[0]", "must be a map, got a number"),
        ({"egress": [{"from": []}]}, "egress[0].from", "is no field of an egress rule"),
        ({"policyTypes": "Ingress"}, "policyTypes", "must be a list, got text"),
        ({"policyTypes": [None]}, "policyTypes[0]", "must be text, got null"),
        ({"policyTypes": ["Ingress", "egress"]}, "policyTypes[1]", "'egress' must be Ingress or Egress"),
        ({"policyTypes": ["Ingress", "Egress", "Ingress"]}, "policyTypes", "3 types; at most 2"),
    ],
)
def test_a_wrong_field_of_the_spec_is_refused(spec: dict[str, Any], path: str, says: str) -> None:
    refused(document(**spec), f"spec.{path}", says)


@pytest.mark.parametrize(
    ("selector", "path", "says"),
    [
        ({"matchlabels": {}}, ".matchlabels", "is no field of a label selector"),
        ({"matchLabels": []}, ".matchLabels", "must be a map, got a list"),
        ({"matchLabels": {"a": 1}}, '.matchLabels["a"]', "must be text, got a number: write it in quotes"),
        ({"matchLabels": {"a b": "c"}}, '.matchLabels["a b"]', "'a b' is no label key"),
        ({"matchLabels": {"X_/b": "c"}}, '.matchLabels["X_/b"]', "must be a DNS subdomain"),
        ({"matchLabels": {"a": "-b"}}, '.matchLabels["a"]', "'-b' is no label value"),
        ({"matchExpressions": {}}, ".matchExpressions", "must be a list, got a map"),
        ({"matchExpressions": ["a"]}, ".matchExpressions[0]", "must be a map, got text"),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "value": "b"}]},
            ".matchExpressions[0].value",
            "is no field of a member of matchExpressions",
        ),
        ({"matchExpressions": [{"operator": "Exists"}]}, ".matchExpressions[0].key", "must be given"),
        (
            {"matchExpressions": [{"key": "a/", "operator": "Exists"}]},
            ".matchExpressions[0].key",
            "'a/' is no label key",
        ),
        (
            {"matchExpressions": [{"key": "a"}]},
            ".matchExpressions[0].operator",
            "must be given: In or NotIn or Exists or DoesNotExist",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": ""}]},
            ".matchExpressions[0].operator",
            "'' must be In or",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "in"}]},
            ".matchExpressions[1].operator",
            "'in' must be In or NotIn or Exists or DoesNotExist",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            ".matchExpressions[0].values",
            "at least one must be given for operator In",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]},
            ".matchExpressions[0].values",
            "at least one must be given for operator NotIn",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            ".matchExpressions[0].values",
            "is not possible for operator Exists",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "DoesNotExist", "values": ["b"]}]},
            ".matchExpressions[0].values",
            "is not possible for operator DoesNotExist",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", 1]}]},
            ".matchExpressions[0].values[1]",
            "must be text, got a number",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c d"]}]},
            ".matchExpressions[0].values[1]",
            "'c d' is no label value",
        ),
    ],
)
def test_a_wrong_selector_is_refused_wherever_it_stands(selector: Any, path: str, says: str) -> None:
    refused(document(podSelector=selector), f"spec.podSelector{path}", says)
    peers = [{"podSelector": {}}, {"podSelector": selector}]
    refused(document(ingress=[{"from": peers}]), f"spec.ingress[0].from[1].podSelector{path}", says)
    refused(
        document(egress=[{"to": [{"namespaceSelector": selector}]}]),
        f"spec.egress[0].to[0].namespaceSelector{path}",
        says,
    )


@pytest.mark.parametrize(
    ("peer", "path", "says"),
    [
        ({}, "", "podSelector, namespaceSelector or ipBlock must be given"),
        ({"podSelector": None}, "", "podSelector, namespaceSelector or ipBlock must be given"),
        ("web", "", "must be a map, got text"),
        ({"nodeSelector": {}}, ".nodeSelector", "is no field of a peer"),
        ({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}, "", "ipBlock is not possible beside"),
        ({"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}, "", "ipBlock is not possible beside"),
        ({"ipBlock": "10.0.0.0/8"}, ".ipBlock", "must be a map, got text"),
        ({"ipBlock": {}}, ".ipBlock.cidr", "must be given"),
        ({"ipBlock": {"cidr": ""}}, ".ipBlock.cidr", "must be given"),
        ({"ipBlock": {"cidr": 10}}, ".ipBlock.cidr", "must be text, got a number"),
        (
            {"ipBlock": {"cidr": "10.0.0.0/8", "excepts": []}},
            ".ipBlock.excepts",
            "is no field of an ipBlock",
        ),
        (
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.0.0.0/9"}},
            ".ipBlock.except",
            "must be a list, got text",
        ),
    ],
)
def test_a_wrong_peer_is_refused_in_both_directions(peer: Any, path: str, says: str) -> None:
    refused(document(ingress=[{"from": [peer]}]), f"spec.ingress[0].from[0]{path}", says)
    refused(document(egress=[{}, {"to": [peer]}]), f"spec.egress[1].to[0]{path}", says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.0", "is no range in CIDR notation"),
        ("10.0.0.0/", "is no range in CIDR notation"),
        ("10.0.0.0/255.0.0.0", "is no range in CIDR notation"),
        ("10.0.0.0/08", "is no range in CIDR notation"),
        ("10.0.0.0/-1", "is no range in CIDR notation"),
        ("10.0.0.0/8/8", "is no range in CIDR notation"),
        (" 10.0.0.0/8", "is no IP address"),
        ("10.0.0.0/8 ", "is no range in CIDR notation"),
        ("10.0.0/8", "is no IP address"),
        ("010.0.0.0/8", "is no IP address"),
        ("web.example.com/8", "is no IP address"),
        ("10.0.0.0/33", "the prefix of an IPv4 range has at most 32 bits"),
        ("fd00::/129", "the prefix of an IPv6 range has at most 128 bits"),
        ("::ffff:10.0.0.0/104", "that stands for an IPv4 address"),
        ("fe80::%eth0/64", "with a zone"),
    ],
)
def test_what_is_no_range_is_refused(text: str, says: str) -> None:
    block = {"cidr": text}
    refused(document(ingress=[{"from": [{"ipBlock": block}]}]), "spec.ingress[0].from[0].ipBlock.cidr", says)
    whole = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", text]}
    refused(document(egress=[{"to": [{"ipBlock": whole}]}]), "spec.egress[0].to[0].ipBlock.except[1]", says)


@pytest.mark.parametrize(
    ("cidr", "exception"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.0.0.0/7"),
        ("10.0.0.0/8", "11.0.0.0/16"),
        ("10.0.0.0/8", "fd00::/16"),
        ("::/0", "10.0.0.0/8"),
        ("10.0.0.7/32", "10.0.0.7/32"),
    ],
)
def test_an_exception_lies_inside_its_block_and_is_smaller(cidr: str, exception: str) -> None:
    block = {"cidr": cidr, "except": [exception]}
    refused(
        document(ingress=[{"from": [{"ipBlock": block}]}]),
        "spec.ingress[0].from[0].ipBlock.except[0]",
        f"{exception!r} must be a part of {cidr}, and not all of it",
    )


@pytest.mark.parametrize(
    ("port", "path", "says"),
    [
        (80, "", "must be a map, got a number"),
        ({"prot": "TCP"}, ".prot", "is no field of a port"),
        ({"protocol": "tcp"}, ".protocol", "'tcp' must be TCP or UDP or SCTP"),
        ({"protocol": "ICMP"}, ".protocol", "'ICMP' must be"),
        ({"protocol": ""}, ".protocol", "'' must be"),
        ({"protocol": 6}, ".protocol", "must be text, got a number"),
        ({"port": 0}, ".port", "0 is no port number: 1 to 65535"),
        ({"port": 65536}, ".port", "65536 is no port number"),
        ({"port": -1}, ".port", "-1 is no port number"),
        ({"port": True}, ".port", "must be a whole number, got a boolean"),
        ({"port": 80.5}, ".port", "must be a whole number, got 80.5"),
        ({"port": [80]}, ".port", "must be a whole number, got a list"),
        ({"port": ""}, ".port", "'' must be lower-case letters"),
        ({"port": "80"}, ".port", "with at least one letter"),
        ({"port": "HTTP"}, ".port", "'HTTP' must be lower-case letters"),
        ({"port": "a--b"}, ".port", "single '-'"),
        ({"port": "-a"}, ".port", "first and last no '-'"),
        ({"port": "a" * 16}, ".port", "at most 15"),
        ({"endPort": 80}, ".endPort", "is not possible without port"),
        ({"port": "http", "endPort": 80}, ".endPort", "is not possible for a port that has a name, 'http'"),
        ({"port": 80, "endPort": 79}, ".endPort", "79 must not be less than port, 80"),
        ({"port": 80, "endPort": 0}, ".endPort", "0 is no port number"),
        ({"port": 80, "endPort": 65536}, ".endPort", "65536 is no port number"),
        ({"port": 80, "endPort": "http"}, ".endPort", "must be a whole number, got 'http'"),
    ],
)
def test_a_wrong_port_is_refused_in_both_directions(port: Any, path: str, says: str) -> None:
    refused(document(ingress=[{"ports": [{}, port]}]), f"spec.ingress[0].ports[1]{path}", says)
    refused(document(egress=[{"ports": [port]}]), f"spec.egress[0].ports[0]{path}", says)
