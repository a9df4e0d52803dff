# SPDX-License-Identifier: Apache-2.0
"""Declared EndpointSlices: what is taken, what unknown conditions mean, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model import EndpointSlice, InvalidObjectError, parse, to_document


def document(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        **fields,
    }


def endpoint(**fields: Any) -> dict[str, Any]:
    return document(endpoints=[{"addresses": ["192.0.2.1"], **fields}])


def slice_of(**fields: Any) -> EndpointSlice:
    value = parse(document(**fields))
    assert isinstance(value, EndpointSlice)
    return value


def test_what_is_declared_is_kept_as_it_is() -> None:
    whole = document(
        addressType="IPv6",
        endpoints=[
            {
                "addresses": ["2001:db8::1"],
                "conditions": {"ready": False, "serving": True, "terminating": True},
                "hostname": "db-0",
                "nodeName": "node-1",
                "zone": "a",
                "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node-1"}]},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "db-0", "uid": "1"},
            }
        ],
        ports=[{"name": "db", "protocol": "TCP", "port": 5432, "appProtocol": "postgres"}],
    )
    value = parse(whole)
    assert isinstance(value, EndpointSlice)
    assert to_document(value) == whole
    assert value.service == "web"
    assert value.endpoints[0].hint_zones == ("a", "b")
    assert value.endpoints[0].hint_nodes == ("node-1",)


def test_a_slice_without_the_label_belongs_to_no_service() -> None:
    value = slice_of(metadata={"name": "web-1"})
    assert (value.service, value.managed_by) == ("", "")


def test_a_slice_may_be_empty() -> None:
    value = slice_of(endpoints=None, ports=None)
    assert (value.endpoints, value.ports) == ((), ())


def test_a_port_is_tcp_unless_it_says_otherwise() -> None:
    assert slice_of(ports=[{"port": 80}]).ports[0].protocol == "TCP"


def test_what_an_api_server_adds_is_left_out() -> None:
    added = endpoint(
        deprecatedTopology={"a": "b"},
        targetRef={"kind": "Pod", "name": "p", "apiVersion": "v1", "resourceVersion": "1", "fieldPath": "x"},
    )
    added["metadata"] |= {"generation": 3, "ownerReferences": []}
    value = parse(added)
    assert isinstance(value, EndpointSlice)
    assert "deprecatedTopology" not in to_document(value)["endpoints"][0]
    assert value.endpoints[0].target_ref is not None


def test_a_fully_qualified_name_is_an_address_of_its_type() -> None:
    value = slice_of(addressType="FQDN", endpoints=[{"addresses": ["db.example.com"]}])
    assert value.endpoints[0].addresses == ("db.example.com",)


@pytest.mark.parametrize(
    ("conditions", "ready", "serving", "terminating"),
    [
        (None, True, True, False),
        ({}, True, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, True, False),
        ({"ready": True}, True, True, False),
        ({"ready": False}, False, False, False),
        ({"ready": False, "serving": True}, False, True, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True, True),
        ({"ready": False, "serving": False, "terminating": True}, False, False, True),
        ({"ready": False, "terminating": True}, False, False, True),
    ],
)
def test_an_unknown_condition_means_what_the_api_says(
    conditions: dict[str, bool] | None, ready: bool, serving: bool, terminating: bool
) -> None:
    value = slice_of(endpoints=[{"addresses": ["192.0.2.1"], "conditions": conditions}]).endpoints[0]
    assert (value.ready, value.serving, value.terminating) == (ready, serving, terminating)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {**document(), "apiVersion": "v1"},
            "'v1' of kind EndpointSlice is not known here; use 'discovery.k8s.io/v1'",
        ),
        (document(spec={}), "EndpointSlice shop/web-1: spec: is no field of an EndpointSlice"),
        (document(metadata={"name": "A"}), "metadata.name: 'A' must be lower-case letters"),
        (document(addressType=None), "addressType: must be given: IPv4, IPv6 or FQDN"),
        (document(addressType="IP"), "addressType: 'IP' must be IPv4 or IPv6 or FQDN"),
        (document(endpoints={}), "endpoints: must be a list, got a map"),
        (document(endpoints=[None]), "endpoints[0]: must be a map, got null"),
        (
            document(endpoints=[{"addresses": ["192.0.2.1"]}] * 1001),
            "endpoints: 1001 endpoints; at most 1000",
        ),
        (document(endpoints=[{}]), "endpoints[0].addresses: at least one address must be given"),
        (endpoint(addresses=[]), "endpoints[0].addresses: at least one address must be given"),
        (endpoint(addresses=["192.0.2.1"] * 101), "endpoints[0].addresses: 101 addresses; at most 100"),
        (endpoint(addresses=[1]), "endpoints[0].addresses[0]: must be text, got a number"),
        (endpoint(addresses=["x"]), "endpoints[0].addresses[0]: 'x' is no IP address"),
        (
            endpoint(addresses=["2001:db8::1"]),
            "endpoints[0].addresses[0]: '2001:db8::1' is no IPv4 address, as addressType says",
        ),
        (
            document(addressType="IPv6"),
            "endpoints[0].addresses[0]: '192.0.2.1' is no IPv6 address, as addressType says",
        ),
        (
            document(addressType="FQDN", endpoints=[{"addresses": ["a_b"]}]),
            "endpoints[0].addresses[0]: 'a_b' must be lower-case letters",
        ),
        (endpoint(addresses=["127.0.0.1"]), "endpoints[0].addresses[0]: '127.0.0.1' is a loopback address"),
        (endpoint(addresses=["0.0.0.0"]), "endpoints[0].addresses[0]: '0.0.0.0' is the unspecified address"),
        (endpoint(addresses=["169.254.0.1"]), "endpoints[0].addresses[0]: '169.254.0.1' is a link-local"),
        (endpoint(addresses=["224.0.0.1"]), "endpoints[0].addresses[0]: '224.0.0.1' is a multicast address"),
        (endpoint(conditions={"ready": "yes"}), "endpoints[0].conditions.ready: must be true or false, got"),
        (endpoint(conditions={"redy": True}), "endpoints[0].conditions.redy: is no field of an endpoint's"),
        (endpoint(hostname="A"), "endpoints[0].hostname: 'A' must be"),
        (endpoint(nodeName="Node 1"), "endpoints[0].nodeName: 'Node 1' must be"),
        (endpoint(zone=1), "endpoints[0].zone: must be text, got a number"),
        (endpoint(topology={}), "endpoints[0].topology: is no field of an endpoint"),
        (endpoint(targetRef={"names": "a"}), "endpoints[0].targetRef.names: is no field of an endpoint's"),
        (
            endpoint(hints={"forZones": [{"name": "a"}, {"name": "a"}]}),
            "endpoints[0].hints.forZones[1].name: 'a' is given twice",
        ),
        (endpoint(hints={"forZones": [{}]}), "endpoints[0].hints.forZones[0].name: must be given"),
        (
            endpoint(hints={"forZones": [{"name": "-"}]}),
            "endpoints[0].hints.forZones[0].name: '-' is no label value",
        ),
        (
            endpoint(hints={"forZones": [{"name": f"z{n}"} for n in range(9)]}),
            "endpoints[0].hints.forZones: 9 hints; at most 8",
        ),
        (
            endpoint(hints={"forNodes": [{"name": "A"}]}),
            "endpoints[0].hints.forNodes[0].name: 'A' must be",
        ),
        (endpoint(hints={"forRacks": []}), "endpoints[0].hints.forRacks: is no field of an endpoint's hints"),
        (document(ports=[{"name": f"p{n}"} for n in range(101)]), "ports: 101 ports; at most 100"),
        (document(ports=[{"port": 0}]), "ports[0].port: 0 is no port number"),
        (document(ports=[{"port": "80"}]), "ports[0].port: must be a whole number, got '80'"),
        (document(ports=[{"protocol": "ICMP"}]), "ports[0].protocol: 'ICMP' must be TCP or UDP or SCTP"),
        (document(ports=[{"name": "A"}]), "ports[0].name: 'A' must be"),
        (document(ports=[{"appProtocol": "a b"}]), "ports[0].appProtocol: 'a b' is no label key"),
        (document(ports=[{"number": 1}]), "ports[0].number: is no field of an EndpointSlice's port"),
        (
            document(ports=[{"port": 80}, {"port": 81}]),
            "ports[1].name: '' is the name of another port, too",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_field(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObjectError) as refused:
        parse(wrong)
    assert says in str(refused.value)
