# SPDX-License-Identifier: Apache-2.0
"""Addresses of load balancers and external ones: given, refused, and who else has them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from controller.ledger import under
from controller.records import LB_ADDRESSES
from tests.unit.allocating import refused, run
from tests.unit.controller_intent import Intent, node_record, service


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
