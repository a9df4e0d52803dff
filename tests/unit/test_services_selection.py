# SPDX-License-Identifier: Apache-2.0
"""Which endpoints a node uses, and for which addresses: each rule of Kubernetes by its own case."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from sdn.model import Service, defaulted, parse
from sdn.pipeline.owner import Owner
from sdn.pipeline.service import Endpoint, Frontend, Protocol, ServicePort, group_base
from sdn.pipeline.topology import Address, Range
from sdn.services.endpoints import ServiceEndpoint
from sdn.services.selection import NodeView, Selection, local_ready, service_ports

NODE = NodeView("node-1", "a", (Address.parse("172.30.0.11"), Address.parse("fd00:30::11")))
ELSEWHERE = NodeView("node-9", "z", (Address.parse("172.30.0.19"),))
HTTP = (("", Protocol.TCP, 8080),)


def service(**spec: Any) -> Service:
    value = parse(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "targetPort": 8080}], **spec},
        }
    )
    assert isinstance(value, Service)
    return defaulted(value)


def at(text: str, node: str = "node-2", zone: str = "", **fields: Any) -> ServiceEndpoint:
    fields.setdefault("ports", HTTP)
    return ServiceEndpoint(address=Address.parse(text), node=node, zone=zone, **fields)


def terminating(text: str, node: str = "node-2", **fields: Any) -> ServiceEndpoint:
    return at(text, node, ready=False, terminating=True, **fields)


def ports(
    of: Service, *endpoints: ServiceEndpoint, node: NodeView = NODE, ips: Sequence[str] = ()
) -> tuple[ServicePort, ...]:
    return service_ports(of, 7, [Address.parse(ip) for ip in ips], endpoints, node)


def port(
    of: Service, *endpoints: ServiceEndpoint, node: NodeView = NODE, ips: Sequence[str] = ()
) -> ServicePort:
    (only,) = ports(of, *endpoints, node=node, ips=ips)
    return only


def texts(endpoints: Sequence[Endpoint]) -> list[str]:
    return [str(one.address) for one in endpoints]


def test_a_cluster_ip_leads_to_every_ready_endpoint() -> None:
    one = port(service(), at("10.244.2.2"), at("10.244.1.1", "node-1", pod=False))
    assert one == ServicePort(
        owner=Owner("Service", "shop", "web"),
        group_base=group_base(7, 0, 4),
        version=4,
        protocol=Protocol.TCP,
        frontends=(Frontend(Address.parse("10.96.0.1"), 80, external=False),),
        endpoints=(
            Endpoint(Address.parse("10.244.1.1"), 8080, pod=False),
            Endpoint(Address.parse("10.244.2.2"), 8080, pod=True),
        ),
    )


@pytest.mark.parametrize(
    "of",
    [
        service(clusterIP="None"),
        service(clusterIP=None),
        service(clusterIP=None, type="ExternalName", externalName="a.b"),
    ],
    ids=["headless", "no-address-yet", "external-name"],
)
def test_a_service_without_an_address_has_nothing_on_a_switch(of: Service) -> None:
    assert ports(of, at("10.244.1.1")) == ()


def test_each_port_and_family_is_served_by_itself() -> None:
    of = service(
        clusterIP="10.96.0.1",
        clusterIPs=["10.96.0.1", "fd00::1"],
        ports=[{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}],
    )
    numbers = (("dns", Protocol.UDP, 5353), ("dns-tcp", Protocol.TCP, 5354))
    found = ports(of, at("10.244.1.1", ports=numbers), at("fd00::5", ports=numbers[:1]))
    assert [(one.protocol, one.version, one.group_base) for one in found] == [
        (Protocol.UDP, 4, group_base(7, 0, 4)),
        (Protocol.UDP, 6, group_base(7, 0, 6)),
        (Protocol.TCP, 4, group_base(7, 1, 4)),
        (Protocol.TCP, 6, group_base(7, 1, 6)),
    ]
    assert [[(str(e.address), e.port) for e in one.endpoints] for one in found] == [
        [("10.244.1.1", 5353)],
        [("fd00::5", 5353)],
        [("10.244.1.1", 5354)],
        [],
    ]


def test_a_port_is_found_by_name_and_protocol() -> None:
    of = service(ports=[{"name": "dns", "port": 53, "protocol": "UDP"}])
    assert port(of, at("10.244.1.1", ports=(("dns", Protocol.TCP, 53),))).endpoints == ()
    assert port(of, at("10.244.1.1", ports=(("other", Protocol.UDP, 53),))).endpoints == ()


def test_endpoints_may_have_other_numbers_for_one_port() -> None:
    one = port(service(), at("10.244.1.1"), at("10.244.1.2", ports=(("", Protocol.TCP, 9090),)))
    assert [(str(e.address), e.port) for e in one.endpoints] == [("10.244.1.1", 8080), ("10.244.1.2", 9090)]


# Readiness.


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        ([at("10.0.0.1", ready=False, serving=False)], []),
        ([at("10.0.0.1", ready=False)], []),
        ([at("10.0.0.1"), at("10.0.0.2", ready=False, serving=False)], ["10.0.0.1"]),
        ([at("10.0.0.1"), terminating("10.0.0.2")], ["10.0.0.1"]),
        ([terminating("10.0.0.1"), terminating("10.0.0.2")], ["10.0.0.1", "10.0.0.2"]),
        ([terminating("10.0.0.1"), terminating("10.0.0.2", serving=False)], ["10.0.0.1"]),
        ([terminating("10.0.0.1", serving=False)], []),
        ([terminating("10.0.0.1"), at("10.0.0.2", ready=False, serving=False)], ["10.0.0.1"]),
    ],
)
def test_terminating_endpoints_serve_only_when_none_is_ready(
    endpoints: list[ServiceEndpoint], used: list[str]
) -> None:
    assert texts(port(service(), *endpoints).endpoints) == used


def test_not_ready_addresses_are_published_on_request() -> None:
    of = service(publishNotReadyAddresses=True)
    one = port(of, at("10.0.0.1", ready=False, serving=False), terminating("10.0.0.2", serving=False))
    assert texts(one.endpoints) == ["10.0.0.1", "10.0.0.2"]


def test_an_endpoint_that_is_listed_twice_counts_once_and_by_its_better_side() -> None:
    for pair in (
        [terminating("10.0.0.1", ""), at("10.0.0.1")],
        [at("10.0.0.1"), terminating("10.0.0.1", "")],
    ):
        one = port(service(), *pair, terminating("10.0.0.2"))
        assert texts(one.endpoints) == ["10.0.0.1"]


# Policies.


def local() -> Service:
    ports = [{"port": 80, "nodePort": 30080}]
    return service(type="NodePort", externalTrafficPolicy="Local", ports=ports)


def test_under_external_local_both_sets_are_there() -> None:
    one = port(local(), at("10.0.0.1", "node-1"), at("10.0.0.2", "node-2"))
    assert (texts(one.endpoints), texts(one.local_endpoints)) == (["10.0.0.1", "10.0.0.2"], ["10.0.0.1"])
    assert (one.external_local, one.internal_local, one.elsewhere) == (True, False, True)


def test_under_internal_local_only_the_nodes_own_are_there() -> None:
    of = service(internalTrafficPolicy="Local")
    one = port(of, at("10.0.0.1", "node-1"), at("10.0.0.2", "node-2"))
    assert (texts(one.endpoints), texts(one.local_endpoints)) == ([], ["10.0.0.1"])
    assert (one.external_local, one.internal_local, one.elsewhere) == (False, True, True)


def test_internal_local_leaves_traffic_from_outside_to_all() -> None:
    of = service(type="NodePort", internalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30000}])
    one = port(of, at("10.0.0.2", "node-2"))
    assert (texts(one.endpoints), texts(one.local_endpoints), one.elsewhere) == (["10.0.0.2"], [], True)


def test_under_cluster_there_is_no_local_set() -> None:
    one = port(service(type="NodePort"), at("10.0.0.1", "node-1"), at("10.0.0.2", "node-2"))
    assert (one.local_endpoints, one.elsewhere, one.external_local) == ((), False, False)


@pytest.mark.parametrize(
    ("endpoints", "elsewhere"),
    [
        ([], False),
        ([at("10.0.0.1", "node-1")], False),
        ([at("10.0.0.1", "node-2")], True),
        ([at("10.0.0.1", "")], True),
        ([at("10.0.0.1", "node-2", ready=False, serving=False)], False),
        ([terminating("10.0.0.1", "node-2")], True),
    ],
)
def test_elsewhere_tells_dropped_from_rejected(endpoints: list[ServiceEndpoint], elsewhere: bool) -> None:
    assert port(service(internalTrafficPolicy="Local"), *endpoints).elsewhere is elsewhere
    assert port(service(), *endpoints).elsewhere is False


def test_the_nodes_own_fall_back_to_terminating_ones_by_themselves() -> None:
    endpoints = [terminating("10.0.0.1", "node-1"), at("10.0.0.2", "node-2")]
    one = port(local(), *endpoints)
    assert (texts(one.endpoints), texts(one.local_endpoints)) == (["10.0.0.2"], ["10.0.0.1"])
    endpoints.append(at("10.0.0.3", "node-1"))
    assert texts(port(local(), *endpoints).local_endpoints) == ["10.0.0.3"]


def test_an_endpoint_of_no_known_node_is_on_none() -> None:
    nowhere = NodeView("", "", ())
    assert port(local(), at("10.0.0.1", ""), node=nowhere).local_endpoints == ()


# Topology.


def hinted(text: str, *zones: str, nodes: tuple[str, ...] = (), **fields: Any) -> ServiceEndpoint:
    return at(text, hint_zones=zones, hint_nodes=nodes, **fields)


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        ([hinted("10.0.0.1", "a"), hinted("10.0.0.2", "b")], ["10.0.0.1"]),
        ([hinted("10.0.0.1", "a", "b"), hinted("10.0.0.2", "b", "a")], ["10.0.0.1", "10.0.0.2"]),
        # One endpoint without a hint: all hints are ignored.
        ([hinted("10.0.0.1", "a"), at("10.0.0.2")], ["10.0.0.1", "10.0.0.2"]),
        # Nothing for this node's zone.
        ([hinted("10.0.0.1", "b"), hinted("10.0.0.2", "c")], ["10.0.0.1", "10.0.0.2"]),
        # What is not ready has no say.
        ([hinted("10.0.0.1", "a"), at("10.0.0.2", ready=False, serving=False)], ["10.0.0.1"]),
        (
            [hinted("10.0.0.1", "a", ready=False), hinted("10.0.0.2", "b"), hinted("10.0.0.3", "c")],
            ["10.0.0.2", "10.0.0.3"],
        ),
        # Without a ready one, hints do not matter.
        (
            [
                hinted("10.0.0.1", "a", ready=False, terminating=True),
                hinted("10.0.0.2", "b", ready=False, terminating=True),
            ],
            ["10.0.0.1", "10.0.0.2"],
        ),
        # Hints for nodes come first, and fall back to those for zones.
        (
            [hinted("10.0.0.1", "a", nodes=("node-2",)), hinted("10.0.0.2", "a", nodes=("node-1",))],
            ["10.0.0.2"],
        ),
        (
            [hinted("10.0.0.1", "a", nodes=("node-2",)), hinted("10.0.0.2", "b", nodes=("node-3",))],
            ["10.0.0.1"],
        ),
        ([hinted("10.0.0.1", "b", nodes=("node-1",)), hinted("10.0.0.2", "a")], ["10.0.0.2"]),
        (
            [hinted("10.0.0.1", nodes=("node-2",)), hinted("10.0.0.2", nodes=("node-3",))],
            ["10.0.0.1", "10.0.0.2"],
        ),
    ],
)
def test_hints_narrow_what_a_node_uses(endpoints: list[ServiceEndpoint], used: list[str]) -> None:
    assert texts(port(service(), *endpoints).endpoints) == used


def test_a_node_of_no_known_zone_uses_all() -> None:
    one = port(service(), hinted("10.0.0.1", "a"), hinted("10.0.0.2", "b"), node=NodeView("n", "", ()))
    assert texts(one.endpoints) == ["10.0.0.1", "10.0.0.2"]


def test_hints_have_no_say_in_local_policies() -> None:
    one = port(local(), hinted("10.0.0.1", "b", node="node-1"), hinted("10.0.0.2", "a"))
    assert (texts(one.endpoints), texts(one.local_endpoints)) == (["10.0.0.2"], ["10.0.0.1"])


def test_hints_are_weighed_for_each_port_by_itself() -> None:
    of = service(ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    both, one_only = (("a", Protocol.TCP, 1), ("b", Protocol.TCP, 2)), (("b", Protocol.TCP, 2),)
    first, second = ports(
        of,
        hinted("10.0.0.1", "a", ports=both),
        hinted("10.0.0.2", "b", ports=both),
        at("10.0.0.3", ports=one_only),
    )
    assert texts(first.endpoints) == ["10.0.0.1"]
    assert texts(second.endpoints) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


SPREAD = (
    at("10.0.0.1", "node-1", "a"),
    at("10.0.0.2", "node-2", "a"),
    at("10.0.0.3", "node-3", "b"),
)


@pytest.mark.parametrize(
    ("distribution", "node", "used"),
    [
        (None, NODE, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("PreferClose", NODE, ["10.0.0.1", "10.0.0.2"]),
        ("PreferSameZone", NODE, ["10.0.0.1", "10.0.0.2"]),
        ("PreferSameZone", ELSEWHERE, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("PreferSameNode", NODE, ["10.0.0.1"]),
        ("PreferSameNode", NodeView("node-4", "a", ()), ["10.0.0.1", "10.0.0.2"]),
        ("PreferSameNode", ELSEWHERE, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ],
)
def test_traffic_distribution_prefers_what_is_near(
    distribution: str | None, node: NodeView, used: list[str]
) -> None:
    assert texts(port(service(trafficDistribution=distribution), *SPREAD, node=node).endpoints) == used


def test_an_endpoint_of_no_known_zone_ends_the_preference() -> None:
    one = port(service(trafficDistribution="PreferSameZone"), *SPREAD, at("10.0.0.4"))
    assert len(one.endpoints) == 4


def test_hints_in_slices_go_before_the_services_wish() -> None:
    one = port(
        service(trafficDistribution="PreferSameNode"), hinted("10.0.0.1", "b"), hinted("10.0.0.2", "a")
    )
    assert texts(one.endpoints) == ["10.0.0.2"]


# Frontends.


def fronts(one: ServicePort) -> list[tuple[str, int, bool, bool]]:
    return [
        (str(f.address) if f.address else "node", f.port, f.external, f.restricted) for f in one.frontends
    ]


def test_every_way_in_is_a_frontend() -> None:
    of = service(
        type="LoadBalancer",
        ports=[{"port": 80, "nodePort": 30080}],
        externalIPs=["192.0.2.9", "2001:db8::9"],
    )
    assert fronts(port(of, ips=["198.51.100.2", "198.51.100.1", "2001:db8::1"])) == [
        ("10.96.0.1", 80, False, False),
        ("198.51.100.1", 80, True, False),
        ("198.51.100.2", 80, True, False),
        ("192.0.2.9", 80, True, False),
        ("node", 30080, True, False),
    ]


def test_a_cluster_ip_service_has_no_node_port_and_no_load_balancer() -> None:
    assert fronts(port(service(), ips=["198.51.100.1"])) == [("10.96.0.1", 80, False, False)]


def test_an_external_ip_that_is_the_nodes_own_is_its_port_too_on_that_node_only() -> None:
    of = service(externalIPs=["172.30.0.11"])
    assert fronts(port(of)) == [
        ("10.96.0.1", 80, False, False),
        ("172.30.0.11", 80, True, False),
        ("node", 80, True, False),
    ]
    assert fronts(port(of, node=ELSEWHERE)) == [
        ("10.96.0.1", 80, False, False),
        ("172.30.0.11", 80, True, False),
    ]


def test_source_ranges_limit_load_balancer_addresses_only() -> None:
    of = service(
        type="LoadBalancer",
        ports=[{"port": 80, "nodePort": 30080}],
        externalIPs=["192.0.2.9"],
        loadBalancerSourceRanges=[" 10.1.0.0/16", "10.0.0.0/16", "10.0.7.0/24", "192.0.2.1/32", "fd00::/8"],
    )
    one = port(of, ips=["198.51.100.1"])
    assert [(f.source_ranges, f.restricted) for f in one.frontends] == [
        ((), False),
        ((Range.parse("10.0.0.0/15"), Range.parse("192.0.2.1/32")), True),
        ((), False),
        ((), False),
    ]


def test_ranges_of_the_other_family_leave_nobody() -> None:
    of = service(type="LoadBalancer", loadBalancerSourceRanges=["fd00::/8"])
    (front,) = [f for f in port(of, ips=["198.51.100.1"]).frontends if f.external]
    assert (front.source_ranges, front.restricted) == ((), True)


def test_affinity_is_passed_on() -> None:
    of = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 30}})
    assert port(of).affinity_seconds == 30


def test_a_number_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="service number 0"):
        service_ports(service(), 0, [], [], NODE)


# Health checks.


def test_a_health_check_counts_the_ready_endpoints_of_the_node() -> None:
    of = service(type="LoadBalancer", externalTrafficPolicy="Local")
    endpoints = [
        at("10.0.0.1", "node-1", target="Pod/shop/a"),
        at("fd00::1", "node-1", target="Pod/shop/a"),
        at("10.0.0.2", "node-1"),
        at("10.0.0.3", "node-1", ready=False),
        terminating("10.0.0.4", "node-1"),
        at("10.0.0.5", "node-2"),
        at("10.0.0.6", ""),
    ]
    assert local_ready(of, endpoints, NODE) == 2
    assert local_ready(of, endpoints, ELSEWHERE) == 0
    publishing = service(publishNotReadyAddresses=True)
    assert local_ready(publishing, endpoints, NODE) == 4


def test_nodes_that_see_the_same_get_equal_values() -> None:
    selection = Selection(service(type="NodePort"), 7, [], [at("10.0.0.2"), at("10.0.0.1", "node-1")])
    others = [dataclasses.replace(NODE, name=f"node-{n}") for n in range(3)]
    assert len({selection.ports(other) for other in others}) == 1
