# SPDX-License-Identifier: Apache-2.0
"""What Services are given, and what they are refused: ClusterIPs and families, numbers, the cluster's DNS."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from typing import Any

import pytest

from sdn.model import Service, parse
from tests.unit.allocating import refused, run
from tests.unit.controller_intent import Intent, service


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
