# SPDX-License-Identifier: Apache-2.0
"""What a pod or an EndpointSlice is to a Service."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sdn.model import EndpointSlice, Service, defaulted, parse, to_document
from sdn.pipeline.service import Protocol
from sdn.pipeline.topology import Address
from sdn.services.endpoints import PodView, ServiceEndpoint, endpoint_of, from_slice, slices_of

V4, V6 = Address.parse("10.244.1.5"), Address.parse("fd00:10:244:1::5")
POD = PodView(
    namespace="shop",
    name="web-0",
    node="node-1",
    zone="a",
    addresses=(V4, V6),
    labels={"app": "web", "tier": "front"},
    named_ports=(("http", "TCP", 8080), ("http", "UDP", 8081)),
)


def service(namespace: str = "shop", name: str = "web", **spec: Any) -> Service:
    value = parse(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], "ipFamilies": ["IPv4"], **spec},
        }
    )
    assert isinstance(value, Service)
    return defaulted(value)


def view(**changes: Any) -> PodView:
    return dataclasses.replace(POD, **changes)


def test_a_selected_pod_is_an_endpoint() -> None:
    assert endpoint_of(service(), POD) == (
        ServiceEndpoint(
            address=V4,
            ports=(("", Protocol.TCP, 80),),
            node="node-1",
            zone="a",
            hostname="",
            ready=True,
            serving=True,
            terminating=False,
            target="Pod/shop/web-0",
            hint_zones=(),
            hint_nodes=(),
            pod=True,
        ),
    )


@pytest.mark.parametrize(
    "of",
    [
        service(selector={"app": "db"}),
        service(selector={"app": "web", "tier": "back"}),
        service(selector={"app": "web", "missing": "x"}),
        service(selector=None),
        service(selector={}),
        service(namespace="other"),
        service(type="ExternalName", externalName="a.b", ipFamilies=None),
        service(ipFamilies=["IPv6"], clusterIP="fd00::1"),
    ],
    ids=["label", "one-of-two", "missing-label", "none", "empty", "namespace", "external-name", "family"],
)
def test_a_pod_that_is_not_selected_or_has_no_address_is_none(of: Service) -> None:
    assert endpoint_of(of, view(addresses=(V4,))) == ()


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"ipFamilies": ["IPv6"]}, (V6,)),
        ({"ipFamilies": ["IPv6", "IPv4"]}, (V6, V4)),
        ({"ipFamilies": None, "clusterIP": "fd00::1"}, (V6,)),
        ({"ipFamilies": None, "clusterIP": "None"}, (V4, V6)),
    ],
)
def test_it_has_an_endpoint_in_each_family_of_the_service(
    spec: dict[str, Any], addresses: tuple[Address, ...]
) -> None:
    assert tuple(one.address for one in endpoint_of(service(**spec), POD)) == addresses


def test_named_target_ports_are_the_pods_own() -> None:
    of = service(
        ports=[
            {"name": "web", "port": 80, "targetPort": "http"},
            {"name": "quic", "port": 80, "protocol": "UDP", "targetPort": "http"},
            {"name": "admin", "port": 81, "targetPort": "admin"},
            {"name": "fixed", "port": 82, "targetPort": 9000},
            {"name": "same", "port": 83},
        ]
    )
    assert endpoint_of(of, POD)[0].ports == (
        ("web", Protocol.TCP, 8080),
        ("quic", Protocol.UDP, 8081),
        ("fixed", Protocol.TCP, 9000),
        ("same", Protocol.TCP, 83),
    )
    other = view(named_ports=(("http", "TCP", 1), ("admin", "TCP", 2)))
    assert endpoint_of(of, other)[0].ports[:2] == (("web", Protocol.TCP, 1), ("admin", Protocol.TCP, 2))


def test_a_headless_service_without_ports_has_endpoints_all_the_same() -> None:
    assert endpoint_of(service(clusterIP="None", ports=None), POD)[0].ports == ()


@pytest.mark.parametrize(
    ("publish", "pod_ready", "pod_terminating", "ready", "serving", "terminating"),
    [
        (False, True, False, True, True, False),
        (False, False, False, False, False, False),
        (False, True, True, False, True, True),
        (False, False, True, False, False, True),
        (True, True, False, True, True, False),
        (True, False, False, True, False, False),
        (True, True, True, True, True, True),
        (True, False, True, True, False, True),
    ],
)
def test_its_conditions_are_those_that_kubernetes_would_write(
    publish: bool, pod_ready: bool, pod_terminating: bool, ready: bool, serving: bool, terminating: bool
) -> None:
    pod = view(ready=pod_ready, terminating=pod_terminating)
    one = endpoint_of(service(publishNotReadyAddresses=publish), pod)[0]
    assert (one.ready, one.serving, one.terminating) == (ready, serving, terminating)


@pytest.mark.parametrize(
    ("hostname", "subdomain", "shown"),
    [("web-0", "web", "web-0"), ("web-0", "db", ""), ("web-0", "", ""), ("", "web", "")],
)
def test_it_has_a_name_of_its_own_in_the_domain_that_it_says(
    hostname: str, subdomain: str, shown: str
) -> None:
    assert endpoint_of(service(), view(hostname=hostname, subdomain=subdomain))[0].hostname == shown


def test_a_pod_on_its_nodes_network_is_no_pod_of_this_network() -> None:
    assert not endpoint_of(service(), view(host_network=True))[0].pod


def slice_of(**fields: Any) -> EndpointSlice:
    value = parse(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1",
                "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            **fields,
        }
    )
    assert isinstance(value, EndpointSlice)
    return value


def test_a_slice_gives_its_endpoints() -> None:
    one = slice_of(
        endpoints=[
            {
                "addresses": ["10.244.1.5", "10.244.1.6"],
                "conditions": {"ready": False, "terminating": True, "serving": True},
                "nodeName": "node-1",
                "zone": "a",
                "hostname": "db-0",
                "hints": {"forZones": [{"name": "b"}], "forNodes": [{"name": "node-2"}]},
                "targetRef": {"kind": "Pod", "name": "web-0"},
            },
            {"addresses": ["192.0.2.1"]},
        ],
        ports=[
            {"name": "http", "port": 8080},
            {"name": "dns", "protocol": "UDP", "port": 53},
            {"name": "any"},
        ],
    )
    ports = (("http", Protocol.TCP, 8080), ("dns", Protocol.UDP, 53))
    assert from_slice(one, lambda address: address == V4) == (
        ServiceEndpoint(
            address=V4,
            ports=ports,
            node="node-1",
            zone="a",
            hostname="db-0",
            ready=False,
            serving=True,
            terminating=True,
            target="Pod/shop/web-0",
            hint_zones=("b",),
            hint_nodes=("node-2",),
            pod=True,
        ),
        ServiceEndpoint(address=Address.parse("192.0.2.1"), ports=ports, pod=False),
    )


def test_a_slice_of_names_gives_none() -> None:
    one = slice_of(addressType="FQDN", endpoints=[{"addresses": ["db.example.com"]}])
    assert from_slice(one) == ()


def many(count: int, **changes: Any) -> list[ServiceEndpoint]:
    return [
        dataclasses.replace(
            endpoint_of(service(), view(name=f"web-{n}", addresses=(Address(4, 0x0AF40100 + n),)))[0],
            **changes,
        )
        for n in range(count)
    ]


def test_slices_hold_at_most_a_hundred_endpoints_and_all_of_them() -> None:
    slices = slices_of(service(), many(250))
    assert [len(one.endpoints) for one in slices] == [100, 100, 50]
    assert len({one.metadata.name for one in slices}) == 3
    assert {one.service for one in slices} == {"web"}
    assert [str(e.addresses[0]) for one in slices for e in one.endpoints] == [
        str(one.address) for one in many(250)
    ]


def test_slices_that_were_derived_give_nothing_when_they_are_applied_again() -> None:
    (derived,) = slices_of(service(), many(3))
    again = parse(to_document(derived))
    assert isinstance(again, EndpointSlice)
    assert from_slice(again, lambda _: True) == ()


def test_slices_can_be_read_as_declared_ones() -> None:
    members = [
        *many(2, hint_zones=("a",), hint_nodes=("node-1",)),
        *endpoint_of(service(ipFamilies=["IPv6"]), POD),
    ]
    slices = slices_of(service(clusterIP="None", ports=[{"port": 80, "appProtocol": "http"}]), members)
    assert [one.address_type for one in slices] == ["IPv4", "IPv6"]
    assert all(parse(to_document(one)) == one for one in slices)
    assert slices[0].ports[0].app_protocol == "http"
    assert slices[0].metadata.labels["service.kubernetes.io/headless"] == ""


def test_endpoints_with_other_numbers_for_a_name_are_in_other_slices() -> None:
    of = service(ports=[{"name": "http", "port": 80, "targetPort": "http"}])
    members = [
        *endpoint_of(of, POD),
        *endpoint_of(of, view(name="web-1", named_ports=(("http", "TCP", 1),))),
        *endpoint_of(of, view(name="web-2", named_ports=())),
    ]
    slices = slices_of(of, members)
    assert sorted(tuple(port.port for port in one.ports) for one in slices) == [(), (1,), (8080,)]


def test_a_slice_keeps_its_name_when_its_endpoints_change() -> None:
    before = slices_of(service(), many(3))
    after = slices_of(service(), reversed(many(50, ready=False)))
    assert [one.metadata.name for one in before] == [one.metadata.name for one in after]
