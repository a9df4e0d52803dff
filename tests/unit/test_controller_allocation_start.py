# SPDX-License-Identifier: Apache-2.0
"""What Services have is theirs after a restart, also where settings or the store are others by then."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from controller.allocation.numbers import REST, Numbers
from controller.ledger import under
from controller.records import LB_ADDRESSES, SERVICE_NUMBERS
from tests.unit.allocating import refused, run
from tests.unit.controller_intent import Intent, service

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
