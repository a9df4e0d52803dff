# SPDX-License-Identifier: Apache-2.0
"""Whatever the endpoints: what a node uses is what the documentation says, said here a second time, slowly."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.model import ObjectMeta, Service, defaulted, parse
from sdn.pipeline.service import Endpoint, Protocol, ServicePort
from sdn.pipeline.topology import Address
from sdn.services.endpoints import PodView, ServiceEndpoint, endpoint_of, from_slice, slices_of
from sdn.services.selection import NodeView, local_ready, service_ports

PORTS = [
    {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080},
    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353, "nodePort": 30053},
    {"name": "dns-tcp", "port": 53, "nodePort": 30053},
]
NUMBERS = [("http", Protocol.TCP), ("dns", Protocol.UDP), ("dns-tcp", Protocol.TCP), ("dns", Protocol.TCP)]
NODES = ["node-1", "node-2", "node-3"]
ZONES = ["a", "b"]
ADDRESSES = [Address(4, 0x0A000001 + n) for n in range(6)] + [Address(6, (0xFD << 120) + n) for n in range(4)]
NODE_ADDRESS = Address.parse("172.30.0.11")


@st.composite
def services(draw: st.DrawFn) -> Service:
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    spec: dict[str, Any] = {
        "type": kind,
        "ports": [{**port, "nodePort": port["nodePort"] if kind != "ClusterIP" else 0} for port in PORTS],
        "selector": {"app": "web"},
        "internalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        "publishNotReadyAddresses": draw(st.booleans()),
        "trafficDistribution": draw(
            st.sampled_from([None, "PreferClose", "PreferSameZone", "PreferSameNode"])
        ),
    }
    clusterips = draw(
        st.sampled_from([["10.96.0.1"], ["fd00:10:96::1"], ["10.96.0.1", "fd00:10:96::1"], ["None"]])
    )
    if clusterips != ["None"] or kind == "ClusterIP":
        spec |= {"clusterIP": clusterips[0], "clusterIPs": clusterips}
    spec["externalIPs"] = draw(st.sampled_from([[], ["192.0.2.9"], ["172.30.0.11", "2001:db8::9"]]))
    if kind != "ClusterIP" or spec["externalIPs"]:
        spec["externalTrafficPolicy"] = draw(st.sampled_from(["Cluster", "Local"]))
    if kind == "LoadBalancer":
        ranges = ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.1/32", "192.0.2.0/24", "fd00::/8", "fd00::/9"]
        spec["loadBalancerSourceRanges"] = draw(st.lists(st.sampled_from(ranges), unique=True))
    value = parse({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    assert isinstance(value, Service)
    return defaulted(value)


def some_of(values: Sequence[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=2).map(tuple)


every_port = st.sampled_from([8080, 5353]).map(lambda n: tuple((*port, n) for port in NUMBERS))
some_ports = st.lists(
    st.sampled_from(NUMBERS).flatmap(lambda port: st.sampled_from([8080, 5353]).map(lambda n: (*port, n))),
    unique_by=lambda port: port[:2],
    max_size=4,
).map(tuple)


def endpoint(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[ServiceEndpoint]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "address": st.sampled_from(ADDRESSES),
        "ports": every_port | some_ports,
        "node": st.sampled_from(NODES) | st.just(""),
        "zone": st.sampled_from(ZONES) | st.just(""),
        "ready": st.booleans(),
        "serving": st.booleans(),
        "terminating": st.booleans(),
        "hint_zones": some_of(ZONES),
        "hint_nodes": some_of(NODES),
        "pod": st.booleans(),
    }
    return st.builds(ServiceEndpoint, **(fields | fixed))


NO_HINT = {"hint_zones": st.just(()), "hint_nodes": st.just(())}
PLACED = {"node": st.sampled_from(NODES), "zone": st.sampled_from(ZONES)}
SURE_HINT = {"hint_zones": st.sampled_from([("a",), ("b",), ("a", "b")])}
#: What decides is what all of them have in common, so lists of like ones come up as often as mixed ones.
endpoint_lists = st.sampled_from(
    [
        endpoint(),
        endpoint(**NO_HINT),
        endpoint(**NO_HINT, **PLACED),
        endpoint(**NO_HINT, **PLACED, ready=st.just(True)),
        endpoint(**SURE_HINT),
        endpoint(**SURE_HINT, hint_nodes=st.sampled_from(NODES).map(lambda name: (name,))),
        endpoint(ready=st.just(False)),
    ]
).flatmap(lambda member: st.lists(member, max_size=8, unique_by=lambda one: one.address))
nodes = st.builds(
    NodeView,
    name=st.sampled_from([*NODES, "node-4"]),
    zone=st.sampled_from([*ZONES, "c", ""]),
    addresses=st.sampled_from([(), (NODE_ADDRESS,)]),
)
BALANCERS = [Address.parse("198.51.100.1"), Address.parse("2001:db8::1")]


def number_of(service: Service, port: ServicePort, endpoint: ServiceEndpoint) -> int | None:
    """Where the endpoint has this port; None: nowhere."""
    name = service.spec.ports[(port.group_base >> 2) & 511].name
    if endpoint.address.version != port.version:
        return None
    return next((n for of, protocol, n in endpoint.ports if (of, protocol) == (name, port.protocol)), None)


def reference(service: Service, having: list[ServiceEndpoint], node: NodeView, hinted: bool) -> Any:
    """The sets Cluster and Local, of endpoints that have the port."""
    ready = [e for e in having if e.ready or service.spec.publish_not_ready_addresses]
    fallback = [e for e in having if e.serving and e.terminating]
    wish = "" if hinted else service.spec.traffic_distribution
    zones = {e.address: e.hint_zones or ((e.zone,) if wish and e.zone else ()) for e in ready}
    same = wish == "PreferSameNode"
    places = {e.address: e.hint_nodes or ((e.node,) if same and e.node else ()) for e in ready}
    if ready and all(places.values()) and any(node.name in names for names in places.values()):
        cluster = [e for e in ready if node.name in places[e.address]]
    elif ready and all(zones.values()) and any(node.zone in names for names in zones.values()):
        cluster = [e for e in ready if node.zone in zones[e.address]]
    else:
        cluster = ready or fallback
    local = [e for e in ready if e.node == node.name] or [e for e in fallback if e.node == node.name]
    return cluster, local, [e for e in having if e in ready or e in fallback]


@settings(max_examples=300)
@given(services(), endpoint_lists, nodes)
def test_a_node_uses_what_the_documentation_says(
    service: Service, endpoints: list[ServiceEndpoint], node: NodeView
) -> None:
    hinted = any(e.hint_zones or e.hint_nodes for e in endpoints)
    found = service_ports(service, 7, BALANCERS, endpoints, node)
    assert len(found) == len(service.spec.ports) * len(service.spec.addresses)
    for port in found:
        numbers = {e.address: n for e in endpoints if (n := number_of(service, port, e)) is not None}
        having = [e for e in endpoints if e.address in numbers]
        cluster, local, usable = reference(service, having, node, hinted)

        def wanted(some: list[ServiceEndpoint], numbers: dict[Address, int] = numbers) -> set[Endpoint]:
            return {Endpoint(e.address, numbers[e.address], e.pod) for e in some}

        external = any(front.external for front in port.frontends)
        uses_cluster = external or not port.internal_local
        uses_local = port.internal_local or (port.external_local and external)
        assert set(port.endpoints) == (wanted(cluster) if uses_cluster else set())
        assert set(port.local_endpoints) == (wanted(local) if uses_local else set())
        assert port.elsewhere == (uses_local and any(e.node != node.name for e in usable))


@given(
    services(),
    st.lists(endpoint(address=st.sampled_from(ADDRESSES[:2])), max_size=8),
    nodes,
    st.randoms(use_true_random=False),
)
def test_the_order_of_what_comes_in_does_not_matter(
    service: Service, endpoints: list[ServiceEndpoint], node: NodeView, random: Any
) -> None:
    # Some are listed twice, under other conditions: still there is one answer.
    shuffled, balancers = list(endpoints), list(BALANCERS)
    random.shuffle(shuffled)
    random.shuffle(balancers)
    assert service_ports(service, 7, BALANCERS, endpoints, node) == service_ports(
        service, 7, balancers, shuffled, node
    )


@given(services(), endpoint_lists, nodes)
def test_what_is_handed_over_is_in_order_and_without_doubles(
    service: Service, endpoints: list[ServiceEndpoint], node: NodeView
) -> None:
    bases = [port.group_base for port in service_ports(service, 7, BALANCERS, endpoints, node)]
    assert bases == sorted(set(bases))
    assert all(base % 2 == 0 for base in bases)
    for port in service_ports(service, 7, BALANCERS, endpoints, node):
        for members in (port.endpoints, port.local_endpoints):
            keys = [(one.address.value, one.port) for one in members]
            assert keys == sorted(set(keys))
            assert all(one.address.version == port.version for one in members)
        places = [(front.address, front.port) for front in port.frontends]
        assert len(places) == len(set(places))
        assert all(front.address is None or front.address.version == port.version for front in port.frontends)


@given(services(), nodes)
def test_source_ranges_admit_the_same_addresses_and_do_not_overlap(service: Service, node: NodeView) -> None:
    declared = [ipaddress.ip_network(text) for text in service.spec.load_balancer_source_ranges]
    for port in service_ports(service, 7, BALANCERS, [], node):
        for front in port.frontends:
            if front.address not in BALANCERS:
                continue
            assert front.restricted == bool(declared)
            ranges = [ipaddress.ip_network(str(one)) for one in front.source_ranges]
            assert not any(a.overlaps(b) for n, a in enumerate(ranges) for b in ranges[:n])
            for text in (
                "10.0.0.1",
                "10.1.2.3",
                "11.0.0.1",
                "192.0.2.255",
                "fd00::1",
                "fd80::1",
                "2001:db8::5",
            ):
                client = ipaddress.ip_address(text)
                if client.version == port.version:
                    assert any(client in one for one in ranges) == any(client in one for one in declared)


pods = st.builds(
    PodView,
    namespace=st.sampled_from(["default", "other"]),
    name=st.sampled_from(["p", "q"]),
    node=st.sampled_from(NODES),
    zone=st.sampled_from(ZONES),
    addresses=st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple),
    labels=st.sampled_from([{"app": "web"}, {"app": "db"}, {}]),
    ready=st.booleans(),
    terminating=st.booleans(),
    named_ports=st.sampled_from([(), (("http", "TCP", 8080),), (("http", "UDP", 1),)]),
    host_network=st.booleans(),
)


@given(services(), st.lists(pods, max_size=5), nodes)
def test_only_pods_that_are_selected_and_may_serve_are_used(
    service: Service, views: list[PodView], node: NodeView
) -> None:
    found = [one for view in views for one in endpoint_of(service, view)]
    for port in service_ports(service, 7, [], found, node):
        for used in (*port.endpoints, *port.local_endpoints):
            assert any(
                used.address in view.addresses
                and view.labels.get("app") == "web"
                and view.namespace == "default"
                and (view.ready or service.spec.publish_not_ready_addresses)
                and (used in port.endpoints or view.node == node.name)
                for view in views
            )
    assert local_ready(service, found, node) <= len(
        {one.target for one in found if one.node == node.name and one.ready}
    )


@given(services(), endpoint_lists)
def test_slices_say_all_that_is_known_of_the_endpoints(
    service: Service, endpoints: list[ServiceEndpoint]
) -> None:
    kinds = {one.address: one.pod for one in endpoints}
    slices = slices_of(service, endpoints)
    shown = [
        one
        for part in slices
        for one in from_slice(
            msgspec.structs.replace(part, metadata=ObjectMeta(name="declared")),
            lambda address: kinds[address],
        )
    ]
    assert sorted(map(repr, shown)) == sorted(map(repr, endpoints))
    assert len({part.metadata.name for part in slices}) == len(slices)
