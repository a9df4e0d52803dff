# SPDX-License-Identifier: Apache-2.0
"""Whatever is declared and deleted in whatever order: nothing is ever given twice, and nothing is lost."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.allocation.allocation import Allocation, Plan
from controller.ranges import ExhaustedError
from sdn.model import InvalidObjectError, Service, parse
from tests.unit.controller_intent import network, service

NAMES = [f"s{number}" for number in range(6)]
NODES = {ipaddress.ip_address("172.30.0.11")}
#: So small that everything runs out and collides.
CLUSTER = network(
    service_ranges=("10.96.0.0/29", "fd00:10:96::/125"),
    dns_addresses=("10.96.0.6", "fd00:10:96::6"),
    load_balancer_ranges=("192.0.2.0/31", "2001:db8::/127"),
    node_ports=range(30000, 30008),
)


def ports(node_ports: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    """One to three ports of different numbers or protocols, each with a name."""
    optional = {"nodePort": st.integers(29999, 30008)} if node_ports else {}
    port = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b", "c"]),
            "port": st.sampled_from([53, 80, 30001]),
            "protocol": st.sampled_from(["TCP", "UDP"]),
        },
        optional=optional,
    )
    return st.lists(port, min_size=1, max_size=3, unique_by=(_name, _number, _node_port))


def _name(port: dict[str, Any]) -> str:
    return str(port["name"])


def _number(port: dict[str, Any]) -> tuple[str, int]:
    return port["protocol"], port["port"]


def _node_port(port: dict[str, Any]) -> object:
    return port.get("nodePort", port["name"])


common: dict[str, st.SearchStrategy[Any]] = {
    "externalIPs": st.sampled_from([["172.30.0.11"], ["192.0.2.0"], ["10.96.0.1", "198.51.100.1"]]),
    "selector": st.just({"app": "web"}),
}
addresses = st.one_of(
    st.just({}),
    st.just({}),
    st.sampled_from([{"ipFamilies": ["IPv6"]}, {"ipFamilyPolicy": "RequireDualStack"}]),
    st.sampled_from([{"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"}]),
    st.sampled_from(["10.96.0.1", "10.96.0.2", "10.96.0.6", "fd00:10:96::2"]).map(
        lambda text: {"clusterIP": text}
    ),
)
policies: dict[str, st.SearchStrategy[Any]] = {"externalTrafficPolicy": st.sampled_from(["Local", "Cluster"])}
load_balancing = policies | {
    "loadBalancerIP": st.sampled_from(["192.0.2.1", "2001:db8::", "192.0.3.1"]),
    "loadBalancerClass": st.sampled_from(["sdn/pool", "other"]),
    "allocateLoadBalancerNodePorts": st.just(False),
}
kinds = st.one_of(
    st.fixed_dictionaries({"ports": ports(False)}, optional=common),
    st.fixed_dictionaries({"type": st.just("NodePort"), "ports": ports(True)}, optional=common | policies),
    st.fixed_dictionaries(
        {"type": st.just("LoadBalancer"), "ports": ports(True)}, optional=common | load_balancing
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("LoadBalancer"),
            "ports": ports(True),
            "externalTrafficPolicy": st.just("Local"),
            "healthCheckNodePort": st.integers(30000, 30003),
        }
    ),
)
specs = st.one_of(
    st.builds(lambda kind, where: {**kind, **where}, kinds, addresses),
    st.just({"type": "ExternalName", "externalName": "a.example", "ports": []}),
    st.just({"clusterIP": "None", "selector": {"app": "web"}}),
)
steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(specs, specs, specs, st.none())), min_size=5, max_size=40
)


def held(allocation: Allocation) -> Iterator[tuple[str, object]]:
    """Everything that must be one Service's alone, with the Service."""
    for item in allocation.services():
        spec, name = item.spec, item.metadata.name
        pool = allocation.load_balancer_addresses(item.metadata.namespace, name)
        yield name, allocation.number(item.metadata.namespace, name)
        fronts = {*spec.addresses, *map(str, pool), *spec.external_ips}
        for address in (*spec.addresses, *map(str, pool)):
            yield name, address
        for port in spec.ports:
            for address in fronts:
                yield name, (address, port.protocol, port.port)
            if port.node_port:
                yield name, ("node", port.protocol, port.node_port)
                if "172.30.0.11" not in fronts or port.port != port.node_port:
                    yield name, ("172.30.0.11", port.protocol, port.node_port)
        if spec.health_check_node_port:
            yield name, ("node", "TCP", spec.health_check_node_port)
            yield name, ("172.30.0.11", "TCP", spec.health_check_node_port)


def check(allocation: Allocation) -> None:
    owners: dict[object, str] = {}
    for name, what in held(allocation):
        assert owners.setdefault(what, name) == name, f"{what} belongs to {owners[what]} and {name}"
    for item in allocation.services():
        spec, name = item.spec, item.metadata.name
        if spec.type == "ExternalName":
            assert not spec.addresses
            continue
        assert spec.headless or len(spec.addresses) == len(spec.ip_families)
        for address, family in zip(spec.addresses, spec.ip_families, strict=False):
            assert f"IPv{ipaddress.ip_address(address).version}" == family
        assert all(port.node_port for port in spec.ports) or not spec.uses_node_ports
        assert bool(spec.health_check_node_port) == spec.needs_health_check_node_port
        wants = spec.type == "LoadBalancer" and spec.load_balancer_class != "other"
        given_any = bool(allocation.load_balancer_addresses("default", name))
        assert wants == (given_any or ("default", name) in allocation.waiting())


def state(allocation: Allocation) -> dict[str, Any]:
    return {
        item.metadata.name: (
            item,
            allocation.number(item.metadata.namespace, item.metadata.name),
            allocation.load_balancer_addresses(item.metadata.namespace, item.metadata.name),
        )
        for item in allocation.services()
    }


DNS = [{"name": "a", "port": 53, "protocol": "TCP"}]
#: An address of the pool is somebody's externalIP, who then wants one of the pool.
OWN_EXTERNAL = [
    ("s0", {"ports": DNS, "externalIPs": ["192.0.2.0"]}),
    ("s1", {"type": "LoadBalancer", "ports": DNS}),
    ("s0", {"type": "LoadBalancer", "ports": DNS}),
]


@given(steps)
@example(OWN_EXTERNAL)
@settings(max_examples=300, deadline=None)
def test_nothing_is_given_twice_and_a_restart_changes_nothing(sequence: list[tuple[str, Any]]) -> None:
    allocation = Allocation(CLUSTER)
    for name, spec in sequence:
        before = state(allocation)
        if spec is None:
            allocation.release("default", name)
            before.pop(name, None)
            assert state(allocation) == before
            continue
        try:
            value = parse(service(name, **spec))
            assert isinstance(value, Service)
            plan = allocation.plan(value, NODES)
        except (InvalidObjectError, ExhaustedError) as problem:
            assert str(problem).startswith(f"Service default/{name}: spec.")
            assert state(allocation) == before
            continue
        assert state(allocation) == before
        allocation.commit(plan)
        # The same declaration again, and what it became, change nothing; it can be stored and read.
        for again in (value, plan.service):
            repeated = allocation.plan(again, NODES)
            assert (repeated.service, repeated.operations) == (plan.service, ())
        check(allocation)
    restarted = Allocation(CLUSTER)
    stored = [item for item in allocation.services() if item.metadata.namespace == "default"]
    loaded = restarted.load(
        stored,
        {
            ("default", item.metadata.name): allocation.number("default", item.metadata.name)
            for item in stored
        },
        {
            ("default", item.metadata.name): tuple(
                map(str, allocation.load_balancer_addresses("default", item.metadata.name))
            )
            for item in stored
            if allocation.load_balancer_addresses("default", item.metadata.name)
        },
        NODES,
    )
    assert (loaded.operations, loaded.problems) == ([], [])
    assert state(restarted) == state(allocation)
    check(restarted)
    # Everything that was given can be given back: then the first one asked for anything gets it.
    for allocated in (allocation, restarted):
        for item in stored:
            allocated.release("default", item.metadata.name)
        assert state(allocated) == state(Allocation(CLUSTER))
        whole = service("all", type="LoadBalancer", ipFamilyPolicy="RequireDualStack")
        for number in range(2):
            metadata = {"name": f"all-{number}", "namespace": "default"}
            value = parse({**whole, "metadata": metadata})
            assert isinstance(value, Service)
            allocated.commit(allocated.plan(value, NODES))
        assert not allocated.waiting()


def test_an_address_that_is_no_external_one_any_more_is_for_who_waits() -> None:
    allocation = Allocation(CLUSTER)

    def plan(name: str, **spec: Any) -> Plan:
        value = parse(service(name, ports=DNS, **spec))
        assert isinstance(value, Service)
        return allocation.plan(value, NODES)

    allocation.commit(plan("s0", externalIPs=["192.0.2.0"]))
    allocation.commit(plan("s1", type="LoadBalancer"))
    allocation.commit(plan("s2", type="LoadBalancer"))
    assert allocation.waiting() == [("default", "s2")]
    assert allocation.commit(plan("s0"))
    assert plan("s2", type="LoadBalancer").given.load_balancer == ("192.0.2.0",)


def test_who_is_taken_an_external_address_by_another_counts_it_no_longer() -> None:
    """Of two that had it one after the other, who lists everything anew may hear of the later first."""
    allocation = Allocation(CLUSTER)
    number = 2
    external = {"ports": DNS, "externalIPs": ["192.0.2.0"]}
    for name, spec in (("s0", external), ("s1", external), ("s0", {"ports": DNS}), ("s1", {"ports": DNS})):
        value = parse(service(name, clusterIP=f"10.96.0.{int(name[1]) + 1}", **spec))
        assert isinstance(value, Service)
        assert allocation.taken_in(value, number + int(name[1]), None) is not None
    value = parse(service("s2", type="LoadBalancer", ports=DNS, loadBalancerIP="192.0.2.1"))
    assert isinstance(value, Service)
    allocation.commit(allocation.plan(value, NODES))
    value = parse(service("s3", type="LoadBalancer", ports=DNS))
    assert isinstance(value, Service)
    assert allocation.plan(value, NODES).given.load_balancer == ("192.0.2.0",)
