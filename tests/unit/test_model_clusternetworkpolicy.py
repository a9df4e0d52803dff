# SPDX-License-Identifier: Apache-2.0
"""Declared ClusterNetworkPolicies: what is taken, what it means, what is refused and by which field's name."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model import ClusterNetworkPolicy, InvalidObjectError, parse, to_document
from sdn.model.clusternetworkpolicy import MAX_ITEMS, DestinationPort, PortRange
from sdn.model.networkpolicy import audited, staged

ALL: dict[str, Any] = {"namespaces": {}}
WEB = {"matchLabels": {"app": "web"}}


def document(**fields: Any) -> dict[str, Any]:
    """Complete, but for what is None."""
    spec = {"tier": "Admin", "priority": 10, "subject": ALL, **fields}
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "top"},
        "spec": {name: value for name, value in spec.items() if value is not None},
    }


def policy(**fields: Any) -> ClusterNetworkPolicy:
    value = parse(document(**fields))
    assert isinstance(value, ClusterNetworkPolicy)
    return value


def ingress(**fields: Any) -> dict[str, Any]:
    return document(ingress=[{"action": "Deny", "from": [ALL], **fields}])


def egress(**fields: Any) -> dict[str, Any]:
    return document(egress=[{"action": "Accept", "to": [ALL], **fields}])


def refused(wrong: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InvalidObjectError) as problem:
        parse(wrong)
    assert (problem.value.subject, problem.value.path) == ("ClusterNetworkPolicy top", path)
    assert says in problem.value.what


def test_what_is_declared_is_kept_as_it_is() -> None:
    spec = {
        "tier": "Baseline",
        "priority": 1000,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": WEB}},
        "ingress": [
            {
                "name": "from the team",
                "action": "Pass",
                "from": [
                    {
                        "namespaces": {
                            "matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]
                        }
                    },
                    {"pods": {"namespaceSelector": {}, "podSelector": WEB}},
                ],
                "protocols": [
                    {"tcp": {"destinationPort": {"number": 80}}},
                    {"udp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}},
                    {"sctp": {"destinationPort": {"number": 65535}}},
                    {"destinationNamedPort": "http"},
                ],
            },
            {"action": "Deny", "from": [{"namespaces": {}}]},
        ],
        "egress": [
            {
                "action": "Accept",
                "to": [
                    {"nodes": {"matchExpressions": [{"key": "role", "operator": "Exists"}]}},
                    {"networks": ["10.0.0.0/8", "fd00::/8"]},
                    {"domainNames": ["kubernetes.io", "*.kubernetes.io", "Blog.kubernetes.io.", "_a.b_c.d"]},
                ],
                "protocols": [{"tcp": {"destinationPort": {"number": 443}}}],
            },
            {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]},
        ],
    }
    value = policy(**spec)
    assert to_document(value) == {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "top"},
        "spec": spec,
    }
    assert parse(to_document(value)) == value


def test_what_kubectl_prints_can_be_applied() -> None:
    printed = document()
    printed["metadata"] |= {"uid": "1", "resourceVersion": "7", "generation": 1}
    printed["status"] = {"conditions": []}
    assert parse(printed) == policy()


def test_it_needs_no_rule() -> None:
    assert (policy().spec.ingress, policy(egress=[]).spec.egress) == ((), ())
    assert to_document(policy())["spec"] == {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}}


def test_null_is_as_if_the_field_were_not_there() -> None:
    subject = {"namespaces": {"matchLabels": None}, "pods": None}
    assert parse(document(subject=subject) | {"status": None}) == policy()
    peer = {"namespaces": None, "pods": {"namespaceSelector": None, "podSelector": {}}, "networks": None}
    protocol = {
        "tcp": {"destinationPort": {"number": 80, "range": None}},
        "udp": None,
        "destinationNamedPort": None,
    }
    rule = {"name": None, "action": "Accept", "to": [peer], "protocols": [protocol]}
    plain = {
        "action": "Accept",
        "to": [{"pods": {"podSelector": {}}}],
        "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
    }
    assert policy(egress=[rule]) == policy(egress=[plain])
    assert parse(egress(protocols=None)) == parse(egress())


def test_a_selection_of_pods_without_namespaces_is_in_all_of_them() -> None:
    pods = policy(subject={"pods": {"podSelector": WEB}}).spec.subject.pods
    assert pods is not None
    assert pods.namespace_selector.selector().matches({})
    assert not pods.pod_selector.selector().matches({})


def test_ports_are_one_number_or_a_range() -> None:
    ports = [
        {"tcp": {"destinationPort": {"number": 1}}},
        {"tcp": {"destinationPort": {"range": {"start": 1, "end": 2}}}},
    ]
    (rule,) = policy(ingress=[{"action": "Accept", "from": [ALL], "protocols": ports}]).spec.ingress
    assert [item.tcp and item.tcp.destination_port for item in rule.protocols] == [
        DestinationPort(number=1),
        DestinationPort(range=PortRange(start=1, end=2)),
    ]


def test_of_a_range_whatever_stands_after_the_prefix_says_nothing() -> None:
    networks = ["10.0.0.1/24", "10.0.0.0/24", "FD00::1/8"]
    (rule,) = policy(egress=[{"action": "Deny", "to": [{"networks": networks}]}]).spec.egress
    assert rule.to[0].networks == ("10.0.0.0/24", "fd00::/8")


def test_annotations_say_what_is_logged_and_that_it_is_only_looked_at() -> None:
    given = document()
    given["metadata"]["annotations"] = {"sdn/audit": "deny", "sdn/staged": "true"}
    metadata = parse(given).metadata
    assert (audited(metadata), staged(metadata)) == ({"deny"}, True)


@pytest.mark.parametrize(("name", "text"), [("sdn/audit", "drop"), ("sdn/staged", "maybe")])
def test_annotations_that_say_nothing_are_refused(name: str, text: str) -> None:
    wrong = document()
    wrong["metadata"]["annotations"] = {name: text}
    refused(wrong, f'metadata.annotations["{name}"]', f"{text!r} must be")


def test_it_belongs_to_no_namespace() -> None:
    wrong = document()
    wrong["metadata"]["namespace"] = "shop"
    refused(wrong, "metadata.namespace", "a ClusterNetworkPolicy belongs to no namespace")


def test_another_version_of_the_api_is_refused() -> None:
    with pytest.raises(InvalidObjectError, match=r"use 'policy\.networking\.k8s\.io/v1alpha2'"):
        parse({**document(), "apiVersion": "policy.networking.k8s.io/v1alpha1"})


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"rules": []}, "rules", "is no field of a ClusterNetworkPolicy's spec"),
        ({"tier": None}, "tier", "must be given: Admin or Baseline"),
        ({"tier": ""}, "tier", "'' must be Admin or Baseline"),
        ({"tier": "admin"}, "tier", "'admin' must be Admin or Baseline"),
        ({"tier": 1}, "tier", "must be text, got a number"),
        ({"priority": None}, "priority", "must be given: 0 to 1000"),
        ({"priority": -1}, "priority", "-1 must be 0 to 1000"),
        ({"priority": 1001}, "priority", "1001 must be 0 to 1000"),
        ({"priority": "10"}, "priority", "must be a whole number, got '10'"),
        ({"priority": True}, "priority", "must be a whole number, got a boolean"),
        ({"subject": None}, "subject", "must be given, with namespaces or pods"),
        ({"subject": []}, "subject", "must be a map, got a list"),
        ({"subject": {}}, "subject", "exactly one of namespaces, pods must be given"),
        ({"subject": {"nodes": {}}}, "subject.nodes", "is no field of a subject"),
        (
            {"subject": {"namespaces": {}, "pods": {"podSelector": {}}}},
            "subject",
            "exactly one of namespaces, pods must be given, not namespaces and pods",
        ),
        ({"subject": {"pods": {}}}, "subject.pods.podSelector", "must be given"),
        ({"subject": {"pods": {"podSelector": None}}}, "subject.pods.podSelector", "must be given"),
        (
            {"subject": {"pods": {"podSelector": {}, "names": []}}},
            "subject.pods.names",
            "is no field of a selection of pods",
        ),
        (
            {"subject": {"namespaces": {"matchLabels": {"a": True}}}},
            'subject.namespaces.matchLabels["a"]',
            "write it in quotes",
        ),
        (
            {"subject": {"pods": {"podSelector": {}, "namespaceSelector": {"matchLabels": {"-": ""}}}}},
            'subject.pods.namespaceSelector.matchLabels["-"]',
            "is no label key",
        ),
        ({"ingress": {}}, "ingress", "must be a list, got a map"),
        ({"ingress": [None]}, "ingress[0]", "must be a map, got null"),
        (
            {"ingress": [{"action": "Deny", "from": [ALL]}] * (MAX_ITEMS + 1)},
            "ingress",
            "26 members; at most 25",
        ),
        (
            {"egress": [{"action": "Deny", "to": [ALL]}] * (MAX_ITEMS + 1)},
            "egress",
            "26 members; at most 25",
        ),
    ],
)
def test_a_wrong_field_of_the_spec_is_refused(fields: dict[str, Any], path: str, says: str) -> None:
    refused(document(**fields), f"spec.{path}", says)


@pytest.mark.parametrize("spec", [{}, {"spec": None}])
def test_a_policy_without_a_spec_is_refused(spec: dict[str, Any]) -> None:
    wrong = document()
    del wrong["spec"]
    refused(wrong | spec, "spec", "must be given")


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"ports": []}, "ports", "is no field of an {0} rule"),
        ({"action": None}, "action", "must be given: Accept or Deny or Pass"),
        ({"action": ""}, "action", "'' must be Accept or Deny or Pass"),
        ({"action": "Allow"}, "action", "'Allow' must be Accept or Deny or Pass"),
        ({"name": 7}, "name", "must be text, got a number"),
        ({"name": "é" * 101}, "name", "101 characters; at most 100"),
        ({"protocols": {}}, "protocols", "must be a list, got a map"),
        ({"protocols": []}, "protocols", "at least one must be given"),
        (
            {"protocols": [{"destinationNamedPort": "a"}] * (MAX_ITEMS + 1)},
            "protocols",
            "26 members; at most 25",
        ),
    ],
)
def test_a_wrong_field_of_a_rule_is_refused_in_both_directions(
    fields: dict[str, Any], path: str, says: str
) -> None:
    refused(ingress(**fields), f"spec.ingress[0].{path}", says.format("ingress"))
    refused(egress(**fields), f"spec.egress[0].{path}", says.format("egress"))


def test_a_name_may_have_a_hundred_characters() -> None:
    assert parse(ingress(name="é" * 100))


@pytest.mark.parametrize(
    ("peers", "path", "says"),
    [
        (None, "", "at least one must be given"),
        ([], "", "at least one must be given"),
        ({}, "", "must be a list, got a map"),
        ([ALL] * (MAX_ITEMS + 1), "", "26 members; at most 25"),
        ([ALL, None], "[1]", "must be a map, got null"),
        ([{}], "[0]", "exactly one of namespaces, pods"),
        ([{"namespaces": None}], "[0]", "exactly one of namespaces, pods"),
        ([{"namespaces": {}, "pods": {"podSelector": {}}}], "[0]", "not namespaces and pods"),
        ([{"namespace": {}}], "[0].namespace", "is no field of an {0} peer"),
        ([{"namespaces": []}], "[0].namespaces", "must be a map, got a list"),
        ([{"pods": {"namespaceSelector": {}}}], "[0].pods.podSelector", "must be given"),
        (
            [{"namespaces": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}],
            "[0].namespaces.matchExpressions[0].operator",
            "'Gt' must be In or NotIn or Exists or DoesNotExist",
        ),
    ],
)
def test_a_wrong_peer_is_refused_in_both_directions(peers: Any, path: str, says: str) -> None:
    refused(ingress(**{"from": peers}), f"spec.ingress[0].from{path}", says.format("ingress"))
    refused(egress(to=peers), f"spec.egress[0].to{path}", says.format("egress"))


@pytest.mark.parametrize(
    "peer", [{"nodes": {}}, {"networks": ["10.0.0.0/8"]}, {"domainNames": ["example.com"]}]
)
def test_some_peers_are_for_egress_only(peer: dict[str, Any]) -> None:
    assert parse(egress(to=[peer]))
    (name,) = peer
    refused(ingress(**{"from": [peer]}), f"spec.ingress[0].from[0].{name}", "is no field of an ingress peer")


@pytest.mark.parametrize("field", ["networks", "domainNames"])
@pytest.mark.parametrize(
    ("members", "path", "says"),
    [
        ([], "", "at least one must be given"),
        ("10.0.0.0/8", "", "must be a list, got text"),
        ([7], "[0]", "must be text, got a number"),
        (["x"] * (MAX_ITEMS + 1), "", "26 members; at most 25"),
    ],
)
def test_a_wrong_list_in_a_peer_is_refused(field: str, members: Any, path: str, says: str) -> None:
    refused(egress(to=[ALL, {field: members}]), f"spec.egress[0].to[1].{field}{path}", says)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (["10.0.0.0/8", "10.0.0.0"], "is no range in CIDR notation"),
        (["10.0.0.0/8", "::ffff:10.0.0.0/104"], "that stands for an IPv4 address"),
        (["10.0.0.0/8", "10.0.0.0/8"], "'10.0.0.0/8' is given twice"),
    ],
)
def test_networks_are_ranges_and_none_is_there_twice(members: list[str], says: str) -> None:
    refused(egress(to=[{"networks": members}]), "spec.egress[0].to[0].networks[1]", says)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "localhost",
            "*.com",
            "*",
            "a.*.com",
            "*a.example.com",
            "a..com",
            ".a.com",
            "a.com..",
            "a b.com",
        ),
        *("-a.com", "a-.com", "a_.com", "[a.com", "a.com\n", "ä.com", f"{'a' * 64}.com", "a." * 127 + "aa"),
    ],
)
def test_what_no_domain_is_called_is_refused(name: str) -> None:
    names = ["example.com", name]
    refused(egress(to=[{"domainNames": names}]), "spec.egress[0].to[0].domainNames[1]", "must be labels of")


def test_a_domain_is_named_once() -> None:
    names = ["example.com", "example.org", "example.com"]
    refused(egress(to=[{"domainNames": names}]), "spec.egress[0].to[0].domainNames[2]", "is given twice")


def test_a_domains_name_may_be_as_long_as_dns_has_them() -> None:
    names = [f"*.{'a' * 63}.com", "a." * 126 + "a", "a." * 126 + "a."]
    assert parse(egress(to=[{"domainNames": names}]))


@pytest.mark.parametrize("action", ["Deny", "Pass"])
def test_domains_are_for_accept_only(action: str) -> None:
    wrong = egress(action=action, to=[ALL, {"domainNames": ["example.com"]}])
    refused(wrong, "spec.egress[0].to[1].domainNames", "is only for action Accept")


@pytest.mark.parametrize(
    "peer", [{"nodes": {}}, {"networks": ["10.0.0.0/8"]}, {"domainNames": ["example.com"]}]
)
def test_only_pods_have_named_ports(peer: dict[str, Any]) -> None:
    protocols = [{"tcp": {"destinationPort": {"number": 80}}}, {"destinationNamedPort": "http"}]
    assert parse(egress(protocols=protocols))
    assert parse(egress(to=[peer], protocols=protocols[:1]))
    refused(
        egress(to=[ALL, peer], protocols=protocols),
        "spec.egress[0].protocols[1].destinationNamedPort",
        "is not possible in a rule to nodes, networks or domainNames",
    )


@pytest.mark.parametrize(
    ("protocol", "path", "says"),
    [
        ("tcp", "", "must be a map, got text"),
        ({}, "", "exactly one of tcp, udp, sctp, destinationNamedPort must be given"),
        ({"TCP": {}}, ".TCP", "is no field of a protocol"),
        (
            {"tcp": {"destinationPort": {"number": 1}}, "destinationNamedPort": "a"},
            "",
            "must be given, not tcp and destinationNamedPort",
        ),
        ({"tcp": 80}, ".tcp", "must be a map, got a number"),
        ({"tcp": {}}, ".tcp.destinationPort", "must be given; all ports are the range from 1 to 65535"),
        ({"udp": {"destinationPort": None}}, ".udp.destinationPort", "must be given"),
        ({"udp": {"sourcePort": {}}}, ".udp.sourcePort", "is no field of udp ports"),
        ({"sctp": {"destinationPort": 80}}, ".sctp.destinationPort", "must be a map, got a number"),
        (
            {"sctp": {"destinationPort": {}}},
            ".sctp.destinationPort",
            "exactly one of number, range must be given",
        ),
        (
            {"tcp": {"destinationPort": {"number": 1, "range": {"start": 1, "end": 2}}}},
            ".tcp.destinationPort",
            "not number and range",
        ),
        (
            {"tcp": {"destinationPort": {"port": 1}}},
            ".tcp.destinationPort.port",
            "is no field of a destinationPort",
        ),
        ({"tcp": {"destinationPort": {"number": 0}}}, ".tcp.destinationPort.number", "0 is no port number"),
        (
            {"tcp": {"destinationPort": {"number": 65536}}},
            ".tcp.destinationPort.number",
            "65536 is no port number",
        ),
        (
            {"tcp": {"destinationPort": {"number": "http"}}},
            ".tcp.destinationPort.number",
            "must be a whole number, got 'http'",
        ),
        ({"tcp": {"destinationPort": {"range": []}}}, ".tcp.destinationPort.range", "must be a map"),
        (
            {"tcp": {"destinationPort": {"range": {"end": 2}}}},
            ".tcp.destinationPort.range.start",
            "must be given",
        ),
        (
            {"tcp": {"destinationPort": {"range": {"start": 2}}}},
            ".tcp.destinationPort.range.end",
            "must be given",
        ),
        (
            {"tcp": {"destinationPort": {"range": {"start": 0, "end": 2}}}},
            ".tcp.destinationPort.range.start",
            "0 is no port number",
        ),
        (
            {"tcp": {"destinationPort": {"range": {"start": 1, "end": 65536}}}},
            ".tcp.destinationPort.range.end",
            "65536 is no port number",
        ),
        (
            {"tcp": {"destinationPort": {"range": {"start": 80, "end": 80}}}},
            ".tcp.destinationPort.range.end",
            "80 must be greater than start, 80",
        ),
        (
            {"tcp": {"destinationPort": {"range": {"start": 1, "end": 2, "step": 1}}}},
            ".tcp.destinationPort.range.step",
            "is no field of a range of ports",
        ),
        ({"destinationNamedPort": 80}, ".destinationNamedPort", "must be text, got a number"),
        ({"destinationNamedPort": ""}, ".destinationNamedPort", "'' must be lower-case letters"),
        ({"destinationNamedPort": "80"}, ".destinationNamedPort", "with at least one letter"),
    ],
)
def test_a_wrong_protocol_is_refused_in_both_directions(protocol: Any, path: str, says: str) -> None:
    named = {"destinationNamedPort": "http"}
    refused(ingress(protocols=[named, protocol]), f"spec.ingress[0].protocols[1]{path}", says)
    refused(egress(protocols=[protocol]), f"spec.egress[0].protocols[0]{path}", says)
