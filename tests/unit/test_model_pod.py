# SPDX-License-Identifier: Apache-2.0
"""Declared Pods: what Services need to know of them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from sdn.model import InvalidObjectError, Pod, parse, to_document


def document(spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec or {}, **fields}


def pod(spec: dict[str, Any] | None = None, **fields: Any) -> Pod:
    value = parse(document(spec, **fields))
    assert isinstance(value, Pod)
    return value


def conditions(*members: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": list(members)}


def test_a_pod_of_which_nothing_is_said_is_ready_and_has_its_own_network() -> None:
    value = pod()
    assert (value.ready, value.terminating, value.host_network) == (True, False, False)
    assert (value.hostname, value.subdomain, value.named_ports) == ("", "", ())


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_its_owner_says_whether_it_is_ready(status: str, ready: bool) -> None:
    value = pod(
        status=conditions({"type": "Initialized", "status": "False"}, {"type": "Ready", "status": status})
    )
    assert value.ready is ready
    assert parse(to_document(value)) == value


def test_of_a_status_only_readiness_is_kept() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    value = pod(status={"phase": "Running", "podIP": "10.0.0.1", **conditions(ready)})
    assert to_document(value)["status"] == conditions({"type": "Ready", "status": "True"})
    assert "status" not in to_document(pod(status={"phase": "Running"}))


def test_a_pod_with_a_time_of_deletion_is_terminating() -> None:
    value = pod(metadata={"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert value.terminating
    assert to_document(value)["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    assert parse(to_document(value)) == value


def test_a_time_that_yaml_has_read_is_taken() -> None:
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    value = pod(metadata={"name": "p", "deletionTimestamp": moment})
    assert value.metadata.deletion_timestamp == "2026-01-01T00:00:00+00:00"


def test_a_node_that_is_being_deleted_is_declared_as_ever() -> None:
    value = parse(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        }
    )
    assert value.metadata.deletion_timestamp == ""


def test_named_ports_are_those_of_containers_and_sidecars_the_first_of_a_name_counts() -> None:
    value = pod(
        {
            "hostNetwork": True,
            "hostname": "web-0",
            "subdomain": "web",
            "containers": [
                {"name": "a", "ports": [{"containerPort": 1}, {"name": "http", "containerPort": 8080}]},
                {"name": "b", "ports": [{"name": "http", "containerPort": 8081}]},
                {"name": "c", "ports": [{"name": "http", "containerPort": 8082, "protocol": "UDP"}]},
            ],
            "initContainers": [
                {"name": "d", "ports": [{"name": "early", "containerPort": 1}]},
                {"name": "e", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]},
            ],
        }
    )
    assert value.named_ports == (("http", "TCP", 8080), ("http", "UDP", 8082), ("side", "TCP", 2))
    assert (value.host_network, value.hostname, value.subdomain) == (True, "web-0", "web")


def ports(*members: Any) -> dict[str, Any]:
    return document({"containers": [{"name": "a"}, {"name": "b", "ports": list(members)}]})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (document({"hostNetwork": "true"}), "spec.hostNetwork: must be true or false, got 'true'"),
        (document({"hostname": "a.b"}), "spec.hostname: 'a.b' must be"),
        (document({"subdomain": "A"}), "spec.subdomain: 'A' must be"),
        (document({"containers": {}}), "spec.containers: must be a list, got a map"),
        (document({"containers": [None]}), "spec.containers[0]: must be a map, got null"),
        (document({"initContainers": ["a"]}), "spec.initContainers[0]: must be a map, got text"),
        (ports({}), "spec.containers[1].ports[0].containerPort: must be given"),
        (ports({"containerPort": 0}), "spec.containers[1].ports[0].containerPort: 0 is no port number"),
        (ports({"containerPort": "80"}), "spec.containers[1].ports[0].containerPort: must be a whole number"),
        (
            ports({"containerPort": 80, "protocol": "HTTP"}),
            "spec.containers[1].ports[0].protocol: 'HTTP' must be TCP or UDP or SCTP",
        ),
        (
            ports({"containerPort": 80, "name": "http_1"}),
            "spec.containers[1].ports[0].name: 'http_1' must be",
        ),
        (
            ports({"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}),
            "spec.containers[1].ports[1].name: 'a' is the name of another port, too",
        ),
        (document(status=[]), "status: must be a map, got a list"),
        (
            document(status=conditions({"type": "Ready", "status": True})),
            'status.conditions[0].status: must be "True", "False" or "Unknown", got a boolean',
        ),
        (
            document(status=conditions({"type": "Ready", "status": "yes"})),
            """status.conditions[0].status: must be "True", "False" or "Unknown", got 'yes'""",
        ),
        (
            document(metadata={"name": "p", "deletionTimestamp": "now"}),
            "metadata.deletionTimestamp: 'now' is no time as in RFC 3339",
        ),
        (
            document(metadata={"name": "p", "deletionTimestamp": 7}),
            "metadata.deletionTimestamp: must be text, got a number",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_field(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObjectError) as refused:
        parse(wrong)
    assert says in str(refused.value)
