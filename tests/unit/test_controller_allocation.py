# SPDX-License-Identifier: Apache-2.0
"""What Services are given, and what they are refused."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.allocation.numbers import REST, Numbers
from controller.ledger import under
from controller.ranges import ExhaustedError
from controller.records import LB_ADDRESSES, SERVICE_NUMBERS
from sdn.model import InvalidObjectError, Service, parse
from tests.unit.controller_intent import Intent, intent, node_record, service

Test = Callable[[Intent], Awaitable[None]]


def run(path: Path, test: Test, **fields: Any) -> None:
    async def inside() -> None:
        async with intent(path, **fields) as running:
            await test(running)

    asyncio.run(inside())


async def refused(running: Intent, document: dict[str, Any]) -> str:
    """Apply what must be refused; gives why, once it is sure that nothing has changed by it."""
    before = [running.watchers.document(*key) for key in _services(running)], len(running.changes)
    revision = running.ledger.revision
    for dry_run in (True, False):
        with pytest.raises((InvalidObjectError, ExhaustedError)) as problem:
            await running.apply(document, dry_run)
    assert before == (
        [running.watchers.document(*key) for key in _services(running)],
        len(running.changes),
    )
    await running.ledger.list_all()
    assert running.ledger.revision == revision
    return str(problem.value)


def _services(running: Intent) -> list[tuple[str, str, str]]:
    return [("Service", *key) for key in running.cluster.names("Service")]


# ClusterIPs and families.


def test_a_service_gets_what_kubernetes_would_give_it(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        spec = await running.spec(service("web", selector={"app": "web"}))
        assert spec.pop("clusterIPs") == [spec["clusterIP"]]
        assert ipaddress.ip_address(spec.pop("clusterIP")) in ipaddress.ip_network("10.96.0.0/16")
        assert spec == {
            "type": "ClusterIP",
            "selector": {"app": "web"},
            "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
        }
        assert running.changes == [("Service", "default/web", False, True)]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("asks", "families"),
    [
        ({}, ["IPv4"]),
        ({"ipFamilies": ["IPv6"]}, ["IPv6"]),
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"]),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, ["IPv6", "IPv4"]),
        ({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}, ["IPv6", "IPv4"]),
        ({"clusterIP": "fd00:10:96::77"}, ["IPv6"]),
        ({"clusterIP": "None", "selector": {"a": "b"}}, ["IPv4"]),
        ({"clusterIP": "None"}, ["IPv4", "IPv6"]),
        ({"clusterIP": "None", "ipFamilyPolicy": "SingleStack"}, ["IPv4"]),
    ],
)
def test_families_are_those_asked_for_else_the_clusters_first(
    tmp_path: Path, asks: dict[str, Any], families: list[str]
) -> None:
    async def test(running: Intent) -> None:
        spec = await running.spec(service("web", **asks))
        assert spec["ipFamilies"] == families
        if asks.get("clusterIP") == "None":
            assert spec["clusterIPs"] == ["None"]
        else:
            assert [f"IPv{ipaddress.ip_address(one).version}" for one in spec["clusterIPs"]] == families

    run(tmp_path, test)


def test_in_a_cluster_of_one_family_services_that_prefer_two_have_one(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        spec = await running.spec(service("web", ipFamilyPolicy="PreferDualStack"))
        assert spec["ipFamilies"] == ["IPv6"]
        assert len(spec["clusterIPs"]) == 1
        # Endpoints of such a Service are declared, and may be of any family.
        spec = await running.spec(service("free", clusterIP="None"))
        assert spec["ipFamilies"] == ["IPv6", "IPv4"]

    run(tmp_path, test, service_ranges=("fd00:10:96::/112",), dns_addresses=("fd00:10:96::a",))


@pytest.mark.parametrize(
    ("asks", "says"),
    [
        ({"clusterIP": "10.97.0.1"}, "spec.clusterIP: 10.97.0.1 is not within service_ranges (10.96.0.0/16"),
        ({"clusterIP": "10.96.0.0"}, "spec.clusterIP: 10.96.0.0 is not within service_ranges"),
        ({"clusterIP": "10.96.255.255"}, "spec.clusterIP: 10.96.255.255 is not within service_ranges"),
        ({"clusterIP": "10.96.0.44"}, "spec.clusterIP: 10.96.0.44 belongs to Service shop/first"),
        ({"clusterIP": "10.96.0.10"}, "spec.clusterIP: 10.96.0.10 belongs to Service kube-system/kube-dns"),
        (
            {"clusterIP": "10.96.0.45", "ipFamilies": ["IPv6"]},
            "spec.clusterIP: '10.96.0.45' is no IPv6 address",
        ),
        (
            {
                "clusterIP": "10.96.0.45",
                "clusterIPs": ["10.96.0.45", "fd00:10:97::1"],
                "ipFamilyPolicy": "RequireDualStack",
            },
            "spec.clusterIPs[1]: fd00:10:97::1 is not within service_ranges",
        ),
        (
            {"ipFamilies": ["IPv4", "IPv6"]},
            "spec.ipFamilyPolicy: must be PreferDualStack or RequireDualStack for two ipFamilies",
        ),
    ],
)
def test_a_cluster_ip_that_cannot_be_had_is_refused(tmp_path: Path, asks: dict[str, Any], says: str) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("first", "shop", clusterIP="10.96.0.44"))
        assert says in await refused(running, service("web", **asks))

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("asks", "says"),
    [
        ({"ipFamilies": ["IPv6"]}, "Service default/web: spec.ipFamilies[0]: the cluster has no IPv6 range"),
        ({"ipFamilyPolicy": "RequireDualStack"}, "spec.ipFamilyPolicy: RequireDualStack is not possible"),
        ({"clusterIP": "fd00:10:96::5"}, "spec.clusterIP: fd00:10:96::5: the cluster has no IPv6 range"),
    ],
)
def test_a_family_that_the_cluster_lacks_is_refused(tmp_path: Path, asks: dict[str, Any], says: str) -> None:
    async def test(running: Intent) -> None:
        assert says in await refused(running, service("web", **asks))

    run(tmp_path, test, service_ranges=("10.96.0.0/16",), dns_addresses=("10.96.0.10",))


def test_an_exhausted_range_is_named(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        # /29: eight addresses, the first and the last are nobody's.
        given = {(await running.spec(service(f"s{number}")))["clusterIP"] for number in range(6)}
        assert len(given) == 6
        says = await refused(running, service("web"))
        assert says == (
            "Service default/web: spec.clusterIPs: no address is left in service_ranges (10.96.0.0/29)"
        )
        await running.delete("s3")
        assert (await running.spec(service("web")))["clusterIP"] in given

    run(tmp_path, test, service_ranges=("10.96.0.0/29",), serve_dns=False, dns_addresses=())


def test_an_address_that_was_given_back_is_not_given_to_the_next(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        first = (await running.spec(service("a")))["clusterIP"]
        await running.delete("a")
        assert (await running.spec(service("b")))["clusterIP"] != first
        assert (await running.spec(service("c", clusterIP=first)))["clusterIP"] == first

    run(tmp_path, test)


def test_low_addresses_and_ports_are_kept_for_those_who_ask(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        for number in range(20):
            spec = await running.spec(service(f"s{number}", type="NodePort"))
            assert int(ipaddress.ip_address(spec["clusterIP"])) & 0xFFFF > 256
            assert spec["ports"][0]["nodePort"] >= 30086

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"clusterIP": "10.96.0.4"}, {"clusterIP": "10.96.0.5"}, "spec.clusterIP: 10.96.0.5 cannot take the"),
        ({}, {"clusterIP": "None"}, "spec.clusterIP: None cannot take the place of 10.96."),
        ({"clusterIP": "None"}, {"clusterIP": "10.96.0.5"}, "spec.clusterIP: 10.96.0.5 cannot take the"),
        ({}, {"ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]: IPv6 cannot take the place of IPv4"),
    ],
)
def test_what_a_service_has_for_its_life_cannot_be_changed(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], says: str
) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("web", **before))
        assert says in await refused(running, service("web", **after))

    run(tmp_path, test)


def test_a_second_family_comes_and_goes_and_the_first_address_stays(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        first = (await running.spec(service("web")))["clusterIP"]
        dual = await running.spec(service("web", ipFamilyPolicy="RequireDualStack"))
        assert dual["clusterIPs"][0] == first
        assert dual["ipFamilies"] == ["IPv4", "IPv6"]
        second = dual["clusterIPs"][1]
        # Said less exactly it is the same.
        less = service("web", ipFamilyPolicy="RequireDualStack", clusterIP=first, ipFamilies=["IPv4"])
        assert (await running.apply(less)).outcome == "unchanged"
        single = await running.spec(service("web", ipFamilyPolicy="SingleStack"))
        assert (single["clusterIPs"], single["ipFamilies"]) == ([first], ["IPv4"])
        assert (await running.spec(service("other", clusterIP=second)))["clusterIP"] == second

    run(tmp_path, test)


def test_what_becomes_an_external_name_gives_all_back(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(
            service("web", type="NodePort", clusterIP="10.96.0.7", ports=[{"port": 80, "nodePort": 30001}])
        )
        spec = await running.spec(service("web", type="ExternalName", externalName="a.example", ports=[]))
        assert "clusterIP" not in spec
        assert "ipFamilies" not in spec
        other = service("other", type="NodePort", clusterIP="10.96.0.7")
        other["spec"]["ports"][0]["nodePort"] = 30001
        await running.apply(other)
        # And back: the address is another one's by now, so it gets a new one.
        assert (await running.spec(service("web")))["clusterIP"] != "10.96.0.7"

    run(tmp_path, test)


# Node ports.


def test_node_ports_are_given_and_kept(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30010}]
        first = (await running.spec(service("web", type="NodePort", ports=ports)))["ports"]
        assert first[1]["nodePort"] == 30010
        assert 30000 <= first[0]["nodePort"] <= 32767
        # By its name, whatever else about it changes.
        more = [{"name": "c", "port": 82}, {"name": "a", "port": 8080}]
        later = (await running.spec(service("web", type="NodePort", ports=more)))["ports"]
        assert later[1]["nodePort"] == first[0]["nodePort"]
        assert later[0]["nodePort"] not in (first[0]["nodePort"], 0)
        # 30010 is free again.
        taken = [{"port": 1, "nodePort": 30010}]
        await running.apply(service("other", type="NodePort", ports=taken))
        # Of a type that needs none, none is kept.
        spec = await running.spec(service("web", ports=more))
        assert all("nodePort" not in port for port in spec["ports"])

    run(tmp_path, test)


def test_a_node_port_can_go_from_one_port_of_a_service_to_another(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(
            service("web", type="NodePort", ports=[{"name": "a", "port": 80, "nodePort": 30010}])
        )
        swapped = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30010}]
        spec = await running.spec(service("web", type="NodePort", ports=swapped))
        assert spec["ports"][1]["nodePort"] == 30010
        assert spec["ports"][0]["nodePort"] not in (0, 30010)

    run(tmp_path, test)


def test_one_port_of_two_protocols_has_one_node_port(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        ports = [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53}]
        for name in ("a", "b"):
            spec = await running.spec(service(name, type="NodePort", ports=ports))
            assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]
            assert (await running.apply(service(name, type="NodePort", ports=ports))).outcome == "unchanged"

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ({"nodePort": 80}, "Service default/web: spec.ports[0].nodePort: 80 is not within 30000-32767"),
        ({"nodePort": 32768}, "Service default/web: spec.ports[0].nodePort: 32768 is not within 30000-32767"),
        (
            {"nodePort": 30080},
            "Service default/web: spec.ports[0].nodePort: 30080/TCP belongs to Service default/other",
        ),
        (
            {"nodePort": 30081},
            "Service default/web: spec.ports[0].nodePort: 30081/TCP belongs to Service default/health",
        ),
        (
            {"nodePort": 30082},
            "Service default/web: spec.ports[0].nodePort: 30082/TCP belongs to Service default/outside",
        ),
    ],
)
def test_a_node_port_that_cannot_be_had_is_refused(tmp_path: Path, port: dict[str, Any], says: str) -> None:
    async def test(running: Intent) -> None:
        running.cluster.put_node(node_record("node-1", "172.30.0.11"))
        await running.apply(service("other", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
        await running.apply(
            service("health", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30081)
        )
        outside = service("outside", externalIPs=["172.30.0.11"], ports=[{"port": 30082}])
        await running.apply(outside)
        assert await refused(running, service("web", type="NodePort", ports=[{"port": 80, **port}])) == says
        # Of another protocol it is another port.
        udp = [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]
        await running.apply(service("web", type="NodePort", ports=udp))

    run(tmp_path, test)


def test_node_ports_run_out_by_name(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("a", type="NodePort"))
        await running.apply(service("b", type="NodePort"))
        assert await refused(running, service("c", type="NodePort")) == (
            "Service default/c: spec.ports[0].nodePort: no port is left in 30000-30001"
        )

    run(tmp_path, test, node_ports=range(30000, 30002))


def test_a_load_balancer_may_go_without_node_ports(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        spec = await running.spec(service("web", type="LoadBalancer", allocateLoadBalancerNodePorts=False))
        assert "nodePort" not in spec["ports"][0]
        spec = await running.spec(service("web", type="LoadBalancer"))
        assert spec["ports"][0]["nodePort"]

    run(tmp_path, test)


def test_health_checks_have_a_port_of_their_own_as_long_as_they_are_needed(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        local = service("web", type="LoadBalancer", externalTrafficPolicy="Local")
        spec = await running.spec(local)
        port = spec["healthCheckNodePort"]
        assert port != spec["ports"][0]["nodePort"]
        assert (await running.apply(local)).outcome == "unchanged"
        other = {**local, "spec": {**local["spec"], "healthCheckNodePort": 30005}}
        assert f"spec.healthCheckNodePort: 30005 cannot take the place of {port}" in await refused(
            running, other
        )
        taken = service("other", type="NodePort", ports=[{"port": 80, "nodePort": port}])
        assert f"{port}/TCP belongs to Service default/web" in await refused(running, taken)
        assert "healthCheckNodePort" not in await running.spec(service("web", type="LoadBalancer"))
        await running.apply(taken)
        wrong = service("third", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=99)
        assert "spec.healthCheckNodePort: 99 is not within 30000-32767" in await refused(running, wrong)

    run(tmp_path, test)


# LoadBalancer addresses.


def test_a_load_balancer_gets_an_address_of_each_of_its_families(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("web", type="LoadBalancer", ipFamilyPolicy="RequireDualStack"))
        addresses = running.ingress("web")
        assert [ipaddress.ip_address(one).version for one in addresses] == [4, 6]
        assert tuple(map(str, running.allocation.load_balancer_addresses("default", "web"))) == tuple(
            addresses
        )
        status = running.get("Service", "default", "web")["status"]["loadBalancer"]["ingress"]
        assert {item["ipMode"] for item in status} == {"VIP"}
        # They stay, whatever else changes, until the type does.
        changed = service("web", type="LoadBalancer", ipFamilyPolicy="RequireDualStack", ports=[{"port": 81}])
        await running.apply(changed)
        assert running.ingress("web") == addresses
        await running.apply(service("web", type="LoadBalancer", ipFamilyPolicy="SingleStack"))
        assert running.ingress("web") == addresses[:1]
        await running.apply(service("web"))
        assert running.ingress("web") == []
        assert under(LB_ADDRESSES, (await running.ledger.list_all()).entries) == []

    run(tmp_path, test)


def test_an_asked_for_address_is_given(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("web", type="LoadBalancer", loadBalancerIP="192.0.2.5"))
        assert running.ingress("web") == ["192.0.2.5"]
        await running.apply(service("web", type="LoadBalancer", loadBalancerIP="192.0.2.6"))
        assert running.ingress("web") == ["192.0.2.6"]
        await running.apply(service("web", type="LoadBalancer"))
        assert running.ingress("web") == ["192.0.2.6"]
        await running.apply(service("other", type="LoadBalancer", loadBalancerIP="192.0.2.5"))

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            "192.0.3.1",
            "spec.loadBalancerIP: 192.0.3.1 is not within load_balancer_ranges (192.0.2.0/29, 2001:db8::/125)",
        ),
        ("192.0.2.5", "spec.loadBalancerIP: 192.0.2.5 belongs to Service default/other"),
        ("2001:db8::1", "spec.loadBalancerIP: 2001:db8::1 is an IPv6 address"),
        ("192.0.2.7", "spec.loadBalancerIP: 192.0.2.7 is an address of a Node"),
    ],
)
def test_a_load_balancer_address_that_cannot_be_had_is_refused(tmp_path: Path, asked: str, says: str) -> None:
    async def test(running: Intent) -> None:
        running.cluster.put_node(node_record("node-1", "192.0.2.7"))
        await running.apply(service("other", type="LoadBalancer", loadBalancerIP="192.0.2.5"))
        says_now = await refused(running, service("web", type="LoadBalancer", loadBalancerIP=asked))
        assert says_now.startswith(f"Service default/web: {says}")

    run(tmp_path, test)


def test_a_load_balancer_of_another_class_is_somebody_elses(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        other = service("web", type="LoadBalancer", loadBalancerClass="example.com/cloud")
        other["spec"]["loadBalancerIP"] = "203.0.113.1"
        spec = await running.spec(other)
        assert spec["ports"][0]["nodePort"]
        assert running.ingress("web") == []
        assert running.reasons("web") == []
        await running.apply(service("ours", type="LoadBalancer", loadBalancerClass="sdn/pool"))
        assert running.ingress("ours")

    run(tmp_path, test)


def test_who_gets_no_address_is_told_and_gets_the_next_that_is_free(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        for name in ("a", "b", "c", "d"):
            await running.apply(service(name, type="LoadBalancer"))
        assert sorted(running.ingress("a") + running.ingress("b")) == ["192.0.2.0", "192.0.2.1"]
        assert running.ingress("c") == running.ingress("d") == []
        assert running.get("Service", "default", "c")["spec"]["ports"][0]["nodePort"]
        assert running.reasons("c") == ["AllocationFailed"]
        (event,) = running.events.about("Service", "default", "c")
        assert event["message"] == "no address is left in load_balancer_ranges (192.0.2.0/31)"
        freed = running.ingress("a")
        running.changes.clear()
        await running.delete("a")
        assert running.ingress("c") == freed
        assert running.reasons("c") == ["AllocationFailed", "IPAllocated"]
        assert running.changes == [
            ("Service", "default/a", True, False),
            ("Service", "default/c", True, True),
        ]
        # By an update, too.
        await running.apply(service("b"))
        assert len(running.ingress("d")) == 1

    run(tmp_path, test, load_balancer_ranges=("192.0.2.0/31",))


def test_without_a_pool_a_load_balancer_says_so(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("web", type="LoadBalancer"))
        (event,) = running.events.about("Service", "default", "web")
        assert event["message"] == "no address can be given: load_balancer_ranges are not set"
        assert "(none is set)" in await refused(
            running, service("other", type="LoadBalancer", loadBalancerIP="192.0.2.1")
        )

    run(tmp_path, test, load_balancer_ranges=())


def test_a_pool_that_is_set_later_serves_those_who_wait(tmp_path: Path) -> None:
    async def before(running: Intent) -> None:
        await running.apply(service("web", type="LoadBalancer"))

    async def after(running: Intent) -> None:
        assert running.ingress("web") == ["192.0.2.0"]

    run(tmp_path, before, load_balancer_ranges=())
    run(tmp_path, after)


# Collisions.


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (
            {"externalIPs": ["198.51.100.1"]},
            {"externalIPs": ["198.51.100.2", "198.51.100.1"]},
            "spec.externalIPs[1]: 198.51.100.1:80/TCP belongs to Service default/first",
        ),
        (
            {"externalIPs": ["2001:db8:1::1"]},
            {"externalIPs": ["2001:DB8:1:0::1"]},
            "spec.externalIPs[0]: [2001:db8:1::1]:80/TCP belongs to Service default/first",
        ),
        (
            {"clusterIP": "10.96.0.5"},
            {"externalIPs": ["10.96.0.5"]},
            "spec.externalIPs[0]: 10.96.0.5:80/TCP belongs to Service default/first",
        ),
        (
            {"externalIPs": ["10.96.0.5"]},
            {"clusterIP": "10.96.0.5"},
            "spec.clusterIP: 10.96.0.5:80/TCP belongs to Service default/first",
        ),
        (
            {"type": "LoadBalancer", "loadBalancerIP": "192.0.2.4"},
            {"externalIPs": ["192.0.2.4"]},
            "spec.externalIPs[0]: 192.0.2.4:80/TCP belongs to Service default/first",
        ),
        (
            {"externalIPs": ["192.0.2.4"]},
            {"type": "LoadBalancer", "loadBalancerIP": "192.0.2.4"},
            "spec.loadBalancerIP: 192.0.2.4:80/TCP belongs to Service default/first",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]},
            {"externalIPs": ["172.30.0.11"], "ports": [{"port": 30007}]},
            "spec.externalIPs[0]: 172.30.0.11:30007/TCP belongs to Service default/first",
        ),
        (
            {"externalIPs": ["172.30.0.11"], "ports": [{"port": 30007}]},
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]},
            "spec.ports[0].nodePort: 30007/TCP belongs to Service default/first",
        ),
    ],
)
def test_two_services_cannot_be_reached_at_one_address_and_port(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], says: str
) -> None:
    async def test(running: Intent) -> None:
        running.cluster.put_node(node_record("node-1", "172.30.0.11"))
        await running.apply(service("first", **first))
        assert await refused(running, service("web", **second)) == f"Service default/web: {says}"
        # With another protocol they can.
        for port in second.setdefault("ports", [{"port": 80}]):
            port["protocol"] = "UDP"
        await running.apply(service("web", **second))
        await running.delete("first")
        for port in second["ports"]:
            port["protocol"] = "TCP"
        await running.apply(service("web", **second))

    run(tmp_path, test)


def test_an_own_address_may_be_external_too_and_leaves_alone(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        both = {"type": "LoadBalancer", "loadBalancerIP": "192.0.2.4"}
        await running.apply(service("web", **both, externalIPs=["192.0.2.4"]))
        await running.apply(service("web", **both))
        assert "belongs to Service default/web" in await refused(
            running, service("other", externalIPs=["192.0.2.4"])
        )

    run(tmp_path, test)


def test_nobody_is_given_an_address_that_is_external_for_another(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("outside", externalIPs=["192.0.2.0"], ports=[{"port": 9}]))
        await running.apply(service("web", type="LoadBalancer"))
        assert running.ingress("web") == ["192.0.2.1"]

    run(tmp_path, test)


# Numbers.


def test_numbers_are_unique_small_and_kept(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        for number in range(5):
            await running.apply(service(f"s{number}"))
        numbers = [running.allocation.number("default", f"s{number}") for number in range(5)]
        assert numbers == [2, 3, 4, 5, 6]  # 1 is the cluster's DNS.
        assert running.allocation.number("kube-system", "kube-dns") == 1
        await running.apply(service("s2", type="NodePort"))
        assert running.allocation.number("default", "s2") == 4
        await running.delete("s2")
        with pytest.raises(KeyError):
            running.allocation.number("default", "s2")
        # What still refers to it in a switch must not meet another Service: it rests for a while.
        await running.apply(service("next"))
        assert running.allocation.number("default", "next") == 7

    async def later(running: Intent) -> None:
        assert running.allocation.number("default", "s3") == 5
        await running.apply(service("last"))
        assert running.allocation.number("default", "last") == 4

    run(tmp_path, test)
    run(tmp_path, later)


# Start.


def test_everything_is_as_it_was_after_a_restart(tmp_path: Path) -> None:
    shown: dict[str, Any] = {}

    async def before(running: Intent) -> None:
        await running.apply(service("a", type="LoadBalancer", ipFamilyPolicy="RequireDualStack"))
        await running.apply(service("b", type="NodePort", externalIPs=["198.51.100.1"]))
        await running.apply(service("c", clusterIP="None"))
        await running.apply(service("d", type="ExternalName", externalName="a.example", ports=[]))
        local = service("e", type="LoadBalancer", externalTrafficPolicy="Local", sessionAffinity="ClientIP")
        await running.apply(local)
        shown.update({name: running.get("Service", "default", name) for name in "abcde"})

    async def after(running: Intent) -> None:
        revision = running.ledger.revision
        assert {name: running.get("Service", "default", name) for name in "abcde"} == shown
        for document in shown.values():
            assert (await running.apply(document)).outcome == "unchanged"
        assert running.ledger.revision == revision
        for path, asks in (
            ("clusterIP", {"clusterIP": shown["a"]["spec"]["clusterIP"]}),
            ("externalIPs", {"externalIPs": ["198.51.100.1"]}),
            ("loadBalancerIP", {"type": "LoadBalancer", "loadBalancerIP": running.ingress("a")[0]}),
            ("nodePort", {"type": "NodePort", "ports": [{"port": 1, **_node_port(shown["b"])}]}),
            ("nodePort", {"type": "NodePort", "ports": [{"port": 1, **_health_port(shown["e"])}]}),
        ):
            says = await refused(running, service("thief", **asks))
            assert path in says
            assert "belongs to Service default/" in says

    run(tmp_path, before)
    run(tmp_path, after)


def _node_port(document: dict[str, Any]) -> dict[str, int]:
    return {"nodePort": document["spec"]["ports"][0]["nodePort"]}


def _health_port(document: dict[str, Any]) -> dict[str, int]:
    return {"nodePort": document["spec"]["healthCheckNodePort"]}


def test_a_store_in_which_two_services_have_the_same_is_told_and_the_first_is_served(tmp_path: Path) -> None:
    first = service("a", type="NodePort", clusterIP="10.96.0.5", ports=[{"port": 80, "nodePort": 30005}])

    async def before(running: Intent) -> None:
        await running.apply(first)
        await running.apply(service("b"))
        await running.apply(service("c"))

    def damage() -> None:
        with sqlite3.connect(tmp_path / "store.db") as connection:
            value = json.dumps({**first, "metadata": {"name": "b", "namespace": "default"}}).encode()
            key = "/sdn/objects/Service/default/b"
            connection.execute("UPDATE entries SET value = ? WHERE key = ?", (value, key))
            key = f"{SERVICE_NUMBERS}default/c"
            connection.execute("UPDATE entries SET value = ? WHERE key = ?", (b'{"number": 2}', key))
            key = f"{LB_ADDRESSES}default/gone"
            connection.execute("INSERT INTO entries VALUES (?, ?, 1)", (key, b'{"addresses": ["192.0.2.1"]}'))

    async def after(running: Intent) -> None:
        assert running.allocation.conflict("default", "a") == ""
        assert "10.96.0.5 belongs to Service default/a" in running.allocation.conflict("default", "b")
        assert running.reasons("b") == ["AlreadyAllocated"]
        assert {running.allocation.number("default", name) for name in "ac"} == {2, 4}
        assert running.allocation.number("default", "b") == 3
        assert [entry.key for entry in under(LB_ADDRESSES, (await running.ledger.list_all()).entries)] == []
        # Deleting it takes nothing from the first; and what is changed is in force again.
        await running.delete("b")
        assert "10.96.0.5 belongs to Service default/a" in await refused(
            running, service("d", clusterIP="10.96.0.5")
        )

    async def instead(running: Intent) -> None:
        await running.delete("a")
        document = running.get("Service", "default", "b")
        assert (await running.apply(document)).outcome == "configured"
        assert running.allocation.conflict("default", "b") == ""
        assert "belongs to Service default/b" in await refused(running, service("d", clusterIP="10.96.0.5"))

    run(tmp_path, before)
    damage()
    run(tmp_path, after)
    run(tmp_path, before)
    damage()
    run(tmp_path, instead)


def test_what_has_an_address_outside_of_a_range_that_was_changed_keeps_it(tmp_path: Path) -> None:
    async def before(running: Intent) -> None:
        await running.apply(service("web", type="LoadBalancer"))

    async def after(running: Intent) -> None:
        assert running.ingress("web") == ["192.0.2.0"]
        assert running.allocation.conflict("default", "web") == ""
        assert set(running.reasons("web")) == {
            "ClusterIPOutOfRange",
            "LoadBalancerIPOutOfRange",
            "PortOutOfRange",
        }
        assert (await running.apply(service("web", type="LoadBalancer"))).outcome == "unchanged"

    run(tmp_path, before)
    run(
        tmp_path,
        after,
        service_ranges=("10.97.0.0/16",),
        dns_addresses=("10.97.0.10",),
        load_balancer_ranges=("198.51.100.0/24",),
        node_ports=range(20000, 20100),
    )


def test_a_service_keeps_a_family_that_the_cluster_has_no_longer(tmp_path: Path) -> None:
    dual = service("web", ipFamilyPolicy="RequireDualStack")

    async def before(running: Intent) -> None:
        await running.apply(dual)

    async def after(running: Intent) -> None:
        assert (await running.apply(dual)).outcome == "unchanged"
        more = await running.spec(service("web", ipFamilyPolicy="RequireDualStack", ports=[{"port": 81}]))
        assert len(more["clusterIPs"]) == 2
        assert "RequireDualStack is not possible" in await refused(
            running, service("other", ipFamilyPolicy="RequireDualStack")
        )

    run(tmp_path, before)
    run(tmp_path, after, service_ranges=("10.96.0.0/16",), dns_addresses=("10.96.0.10",))


def test_a_number_is_given_again_when_many_others_have_become_free() -> None:
    numbers = Numbers(first=2)
    for number in range(2, 500):
        assert numbers.choose() == number
        numbers.take(number)
    for number in range(10, 10 + REST):
        numbers.give_back(number)
        numbers.give_back(number)
    assert numbers.choose() == 500
    numbers.give_back(400)
    assert numbers.choose() == 10
    numbers.take(10)
    assert numbers.choose() == 500
    assert 10 in numbers
    assert 11 not in numbers


# The cluster's DNS.


def test_the_clusters_dns_is_a_service_that_nobody_declares(tmp_path: Path) -> None:
    async def served(running: Intent) -> None:
        document = running.get("Service", "kube-system", "kube-dns")
        assert document["spec"]["clusterIPs"] == ["10.96.0.10", "fd00:10:96::a"]
        assert document["spec"]["internalTrafficPolicy"] == "Local"
        assert [port["port"] for port in document["spec"]["ports"]] == [53, 53]
        assert (await running.ledger.list_all()).entries == ()
        assert (await running.apply(document)).outcome == "unchanged"

    async def declared(running: Intent) -> None:
        assert ("kube-system", "kube-dns") not in running.cluster.names("Service")
        spec = await running.spec(service("kube-dns", "kube-system", clusterIP="10.96.0.10"))
        assert spec["clusterIP"] == "10.96.0.10"

    async def shadowed(running: Intent) -> None:
        document = running.get("Service", "kube-system", "kube-dns")
        assert document["metadata"]["labels"] == {"k8s-app": "kube-dns"}
        assert running.reasons("kube-dns", "kube-system") == ["Shadowed"]

    run(tmp_path, served)
    run(tmp_path, declared, serve_dns=False)
    run(tmp_path, shadowed)


def test_ten_thousand_services_cost_each_the_same(tmp_path: Path) -> None:
    """Not how long it takes, but that the last thousand are no slower than the first by more than noise."""
    seconds: list[float] = []

    async def test(running: Intent) -> None:
        for start in range(0, 10_000, 1000):
            began = time.process_time()
            for number in range(start, start + 1000):
                document = service(f"s{number}", ipFamilyPolicy="RequireDualStack")
                value = parse(document)
                assert isinstance(value, Service)
                plan = running.allocation.plan(value, running.cluster.node_addresses)
                running.allocation.commit(plan)
            seconds.append(time.process_time() - began)
        assert len(running.allocation.services()) == 10_001

    run(tmp_path, test)
    assert seconds[-1] < 5 * seconds[0] + 1
