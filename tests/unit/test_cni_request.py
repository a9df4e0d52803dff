# SPDX-License-Identifier: Apache-2.0
"""What a runtime hands over is parsed as the CNI specification says, and refused with its codes."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from agent.cni import arguments, request
from agent.cni.errors import CniError, Code
from agent.cni.request import Call


def config(**more: Any) -> bytes:
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "type": "sdn-cni", **more}).encode()


def call(verb: str = "ADD", stdin: bytes | None = None, **more: Any) -> Call:
    fields = {"container_id": "c1", "netns": "/run/netns/x", "ifname": "eth0", **more}
    return Call(verb, config=config() if stdin is None else stdin, **fields)


def refusal(wanted: Call) -> CniError:
    with pytest.raises(CniError) as caught:
        request.parse(wanted)
    return caught.value


def test_a_plain_add_is_understood() -> None:
    parsed = request.parse(call(args="K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop"))
    assert (parsed.verb, parsed.version, parsed.network) == ("ADD", "1.0.0", "pods")
    assert (parsed.arguments.pod_namespace, parsed.arguments.pod_name) == ("shop", "web")


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b"\xff\xfe"])
def test_what_is_not_json_is_a_decoding_failure(text: bytes) -> None:
    assert refusal(call(stdin=text)).code == Code.DECODING_FAILURE


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000])
def test_json_that_is_nested_too_deeply_is_a_decoding_failure(text: bytes) -> None:
    assert refusal(call(stdin=text)).code == Code.DECODING_FAILURE
    assert request.spoken_version(text) == "1.1.0"


@pytest.mark.parametrize(
    ("previous", "path"),
    [
        (7, "prevResult"),
        ({"interfaces": 7}, "prevResult.interfaces"),
        ({"interfaces": [7]}, "prevResult.interfaces"),
        ({"interfaces": [{"name": 7}]}, "prevResult.interfaces[0].name"),
        ({"interfaces": [{"mac": 7}]}, "prevResult.interfaces[0].mac"),
        ({"ips": {"address": "10.0.0.1/8"}}, "prevResult.ips"),
        ({"ips": [{"address": "here"}]}, "prevResult.ips[0].address"),
        ({"ips": [{}]}, "prevResult.ips[0].address"),
        ({"routes": "all"}, "prevResult.routes"),
        ({"dns": []}, "prevResult.dns"),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_malformed_earlier_result_is_refused_with_its_path(verb: str, previous: object, path: str) -> None:
    error = refusal(call(verb, config(prevResult=previous)))
    assert error.code == Code.INVALID_CONFIGURATION
    assert error.message.startswith(f"{path}:")


def test_json_that_is_no_object_is_a_decoding_failure() -> None:
    assert refusal(call(stdin=b"[1]")).code == Code.DECODING_FAILURE


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "2.0.0", "", 1, None])
def test_other_versions_are_incompatible(version: object) -> None:
    error = refusal(call(stdin=config(cniVersion=version)))
    assert error.code == Code.INCOMPATIBLE_VERSION
    assert "1.1.0" in error.details


def test_a_missing_version_means_0_1_0_and_is_incompatible() -> None:
    assert refusal(call(stdin=b'{"name": "a", "type": "b"}')).code == Code.INCOMPATIBLE_VERSION


@pytest.mark.parametrize(("verb", "version"), [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")])
def test_a_verb_that_a_version_lacks_is_incompatible(verb: str, version: str) -> None:
    error = refusal(call(verb, config(cniVersion=version, prevResult={})))
    assert error.code == Code.INCOMPATIBLE_VERSION
    assert verb in error.message


@pytest.mark.parametrize(
    ("field", "name"),
    [("container_id", "CNI_CONTAINERID"), ("netns", "CNI_NETNS"), ("ifname", "CNI_IFNAME")],
)
def test_a_missing_variable_is_named(field: str, name: str) -> None:
    missing: dict[str, Any] = {field: ""}
    error = refusal(call(**missing))
    assert error.code == Code.INVALID_ENVIRONMENT
    assert error.message.startswith(name)


@pytest.mark.parametrize(
    "name", ["a/b", "a:b", "eth%d", "a b", "a\0b", "..", ".", "x" * 16, "lo", "all", "default"]
)
def test_an_impossible_interface_name_is_refused(name: str) -> None:
    assert refusal(call(ifname=name)).code == Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize("identifier", ["-a", "a/b", "../x", "a b"])
def test_an_impossible_container_id_is_refused(identifier: str) -> None:
    assert refusal(call(container_id=identifier)).code == Code.INVALID_ENVIRONMENT


def test_an_unknown_command_is_refused() -> None:
    assert refusal(call("FLY")).code == Code.INVALID_ENVIRONMENT


def test_del_needs_no_namespace_and_minds_nothing_that_add_would() -> None:
    stdin = config(ipam={"type": "host-local"}, args={"cni": {"labels": 7}})
    parsed = request.parse(call("DEL", stdin, netns="", args="Nonsense"))
    assert parsed.container_id == "c1"


def test_an_unknown_field_is_named() -> None:
    error = refusal(call(stdin=config(ipam={"type": "host-local"})))
    assert error.code == Code.UNSUPPORTED_FIELD
    assert error.message.startswith("ipam")


@pytest.mark.parametrize("key", ["name", "type"])
def test_a_missing_required_field_is_named(key: str) -> None:
    document = json.loads(config())
    del document[key]
    error = refusal(call(stdin=json.dumps(document).encode()))
    assert error.code == Code.INVALID_CONFIGURATION
    assert error.message.startswith(key)


def test_check_needs_the_result_of_add() -> None:
    assert refusal(call("CHECK")).code == Code.INVALID_CONFIGURATION


# --- CNI_ARGS


def test_arguments_may_come_in_any_order() -> None:
    text = "K8S_POD_UID=u;K8S_POD_NAME=web;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop"
    pairs = text.split(";")
    expected = arguments.parse(text)
    assert expected == arguments.Arguments(pod_namespace="shop", pod_name="web", pod_uid="u")
    for turn in range(len(pairs)):
        assert arguments.parse(";".join(pairs[turn:] + pairs[:turn])) == expected


def test_an_unknown_argument_is_refused_by_name() -> None:
    with pytest.raises(CniError) as caught:
        arguments.parse("A=1;K8S_POD_NAME=web;B=2")
    assert caught.value.code == Code.INVALID_ENVIRONMENT
    assert "A, B" in caught.value.message


@pytest.mark.parametrize("word", ["1", "true", "TRUE", "t"])
def test_unknown_arguments_are_ignored_when_told_so_before_or_after_them(word: str) -> None:
    assert arguments.parse(f"A=1;IgnoreUnknown={word}") == arguments.Arguments()
    assert arguments.parse(f"IgnoreUnknown={word};A=1") == arguments.Arguments()


def test_a_value_may_hold_an_equals_sign() -> None:
    assert arguments.parse("K8S_POD_NAME=a=b").pod_name == "a=b"


@pytest.mark.parametrize("text", ["K8S_POD_NAME", "=x", "IgnoreUnknown=maybe"])
def test_malformed_arguments_are_refused(text: str) -> None:
    with pytest.raises(CniError):
        arguments.parse(text)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ("K8S_POD_NAMESPACE=kube_system", "K8S_POD_NAMESPACE"),
        ("K8S_POD_NAMESPACE=a.b", "K8S_POD_NAMESPACE"),
        (f"K8S_POD_NAMESPACE={'x' * 64}", "K8S_POD_NAMESPACE"),
        ("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=Web", "K8S_POD_NAME"),
        ("K8S_POD_NAME=a..b", "K8S_POD_NAME"),
        ("K8S_POD_NAME=web\n", "K8S_POD_NAME"),
        (f"K8S_POD_NAME={'x' * 254}", "K8S_POD_NAME"),
        ("K8S_POD_UID=u;K8S_POD_NAME=C_1", "K8S_POD_NAME"),
        ("K8S_POD_UID=u", "K8S_POD_NAME"),
    ],
)
def test_a_name_that_no_pod_has_is_refused_with_its_argument(args: str, name: str) -> None:
    error = refusal(call(container_id="C_1", args=args))
    assert error.code == Code.INVALID_ENVIRONMENT
    assert error.message.startswith(f"CNI_ARGS {name}: ")


@pytest.mark.parametrize(
    "args",
    [
        "",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=kube-apiserver-node-1.example.com;"
        "K8S_POD_INFRA_CONTAINER_ID=C_1;K8S_POD_UID=0b4e5ed4e1d4d9b9b4cf6e4cbeed4a4c",
        "K8S_POD_NAMESPACE=;K8S_POD_NAME=;K8S_POD_UID=",
        "K8S_POD_NAMESPACE=default;K8S_POD_NAME=C_1",
    ],
)
def test_names_of_pods_and_of_containers_that_are_none_are_taken(args: str) -> None:
    assert request.parse(call(container_id="C_1", args=args)).container_id == "C_1"


def test_a_container_id_of_any_runtime_is_taken_and_a_longer_one_refused() -> None:
    assert request.parse(call(container_id="x" * 255)).container_id == "x" * 255
    error = refusal(call(container_id="x" * 256))
    assert (error.code, error.message.partition(":")[0]) == (Code.INVALID_ENVIRONMENT, "CNI_CONTAINERID")


def test_del_minds_no_name() -> None:
    args = "K8S_POD_NAMESPACE=a.b;K8S_POD_NAME=Web"
    assert request.parse(call("DEL", container_id="x" * 256, args=args)).verb == "DEL"


# --- labels, capabilities


def test_labels_are_a_list_of_keys_and_values() -> None:
    given = [{"key": "app", "value": "web"}, {"key": "tier", "value": ""}]
    parsed = request.parse(call(stdin=config(args={"cni": {"labels": given}})))
    assert parsed.labels == {"app": "web", "tier": ""}


@pytest.mark.parametrize("labels", ["app", [{"key": "app"}], [{"key": 1, "value": "x"}], {"a": 1}])
def test_malformed_labels_are_refused_with_their_path(labels: object) -> None:
    error = refusal(call(stdin=config(args={"cni": {"labels": labels}})))
    assert error.code == Code.INVALID_CONFIGURATION
    assert error.message.startswith("args.cni.labels")


@pytest.mark.parametrize(
    "text",
    [
        r'[{"key": "app", "value": "\ud800"}]',
        r'[{"key": "\udc00", "value": "web"}]',
        r'{"app": "web\ud83d"}',
    ],
)
def test_labels_that_are_no_unicode_are_refused_with_their_path(text: str) -> None:
    stdin = config(args="ARGS").replace(b'"ARGS"', b'{"cni": {"labels": %s}}' % text.encode())
    error = refusal(call(stdin=stdin))
    assert error.code == Code.INVALID_CONFIGURATION
    assert error.message.startswith("args.cni.labels: ")
    assert error.encode("1.0.0").isascii()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("app", "two words"),
        ("app", "x" * 64),
        ("app", "-x"),
        ("face", "\U0001f600"),
        ("two words", "x"),
        ("x" * 64, "x"),
        ("Example.com/app", "x"),
        ("/app", "x"),
    ],
)
def test_labels_that_kubernetes_would_not_take_are_refused_with_their_path(key: str, value: str) -> None:
    for labels in ({"fine": "yes", key: value}, [{"key": key, "value": value}]):
        error = refusal(call(stdin=config(args={"cni": {"labels": labels}})))
        assert error.code == Code.INVALID_CONFIGURATION
        assert error.message.startswith(f'args.cni.labels["{key}"]: ')


def test_labels_of_kubernetes_are_taken() -> None:
    labels = {"app.kubernetes.io/name": "Web_1.0", "a": "", "pod-template-hash": "5d4f"}
    assert request.parse(call(stdin=config(args={"cni": {"labels": labels}}))).labels == labels


def test_dns_of_the_runtime_wins_over_that_of_the_configuration_also_with_capital_keys() -> None:
    stdin = config(
        dns={"nameservers": ["1.1.1.1"], "domain": "here"},
        runtimeConfig={"dns": {"Servers": ["10.96.0.10"], "Searches": ["svc"], "Options": ["ndots:5"]}},
    )
    dns = request.parse(call(stdin=stdin)).dns
    assert dns == request.Dns(("10.96.0.10",), "here", ("svc",), ("ndots:5",))


@pytest.mark.parametrize(
    ("more", "args"),
    [
        ({"runtimeConfig": {"ips": ["10.0.0.5/24", "fd00::5"]}}, ""),
        ({"args": {"cni": {"ips": ["10.0.0.5", "fd00::5"]}}}, ""),
        ({}, "IP=10.0.0.5,fd00::5"),
    ],
)
def test_addresses_can_be_asked_for(more: dict[str, Any], args: str) -> None:
    parsed = request.parse(call(stdin=config(**more), args=args))
    assert parsed.requested_ips == (ipaddress.ip_address("10.0.0.5"), ipaddress.ip_address("fd00::5"))


@pytest.mark.parametrize("ips", ["10.0.0.5", ["10.0.0.5", "10.0.0.6"], ["x"], [5], ["fd00::5%x"]])
def test_impossible_addresses_are_refused(ips: object) -> None:
    assert refusal(call(stdin=config(runtimeConfig={"ips": ips}))).code == Code.INVALID_CONFIGURATION


def test_a_mac_can_be_asked_for() -> None:
    assert request.parse(call(args="MAC=0A:58:00:00:00:07")).requested_mac == "0a:58:00:00:00:07"


@pytest.mark.parametrize("mac", ["0a:58", "01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"])
def test_an_impossible_mac_is_refused(mac: str) -> None:
    assert refusal(call(args=f"MAC={mac}")).code == Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize("mac", ["0a:58:00:00:00:01", "0A:58:00:00:00:02"])
def test_the_gateways_mac_is_not_to_be_had(mac: str) -> None:
    error = refusal(call(args=f"MAC={mac}"))
    assert error.code == Code.INVALID_ENVIRONMENT
    assert mac in error.message


# --- GC


def test_gc_takes_the_list_of_valid_attachments() -> None:
    stdin = config(
        cniVersion="1.1.0", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    )
    assert request.parse(Call("GC", config=stdin)).valid == {("c1", "eth0")}


@pytest.mark.parametrize("value", [[], None])
def test_gc_with_nothing_valid_is_an_empty_list(value: object) -> None:
    stdin = config(cniVersion="1.1.0", **{"cni.dev/valid-attachments": value})
    assert request.parse(Call("GC", config=stdin)).valid == frozenset()


def test_gc_without_the_list_is_refused_rather_than_taken_as_nothing_valid() -> None:
    assert refusal(Call("GC", config=config(cniVersion="1.1.0"))).code == Code.INVALID_CONFIGURATION


@pytest.mark.parametrize("value", [{}, ["c1"], [{"containerID": "c1"}]])
def test_a_malformed_list_of_valid_attachments_is_refused(value: object) -> None:
    stdin = config(cniVersion="1.1.0", **{"cni.dev/valid-attachments": value})
    assert refusal(Call("GC", config=stdin)).code == Code.INVALID_CONFIGURATION


@pytest.mark.parametrize(
    ("stdin", "version"),
    [(b'{"cniVersion": "0.4.0", "name": 1}', "0.4.0"), (b"{", "1.1.0"), (b"[]", "1.1.0")],
)
def test_errors_are_told_in_the_version_that_was_asked_for(stdin: bytes, version: str) -> None:
    assert request.spoken_version(stdin) == version
