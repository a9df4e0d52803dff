# SPDX-License-Identifier: Apache-2.0
"""How a declaration is taken in: stored whole or not at all, told once, gone when it is deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.errors import NotFoundError, PreconditionError
from controller.records import LB_ADDRESSES, OBJECTS, SEQUENCE, SERVICE_NUMBERS
from controller.store import Delete, Operation, Put, StoreError
from controller.watchers import Selection
from sdn.model import EndpointSlice, InvalidObjectError, parse
from tests.unit.allocating import run
from tests.unit.controller_intent import Intent, service


def endpoint_slice(name: str, of: str, *addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "", "protocol": "TCP", "port": 8080}],
    }


def pod(name: str, **parts: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, **parts}


async def stored(running: Intent) -> list[str]:
    entries = (await running.ledger.list_all()).entries
    return [entry.key for entry in entries if entry.key != SEQUENCE]


def test_a_service_is_stored_in_one_write_and_deleted_in_one(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        before = running.ledger.revision
        await running.apply(service("web", type="LoadBalancer"))
        assert running.ledger.revision == before + 1
        assert await stored(running) == [
            f"{LB_ADDRESSES}default/web",
            f"{OBJECTS}Service/default/web",
            f"{SERVICE_NUMBERS}default/web",
        ]
        await running.delete("web")
        assert running.ledger.revision == before + 2
        assert await stored(running) == []
        assert running.changes == [
            ("Service", "default/web", False, True),
            ("Service", "default/web", True, False),
        ]

    run(tmp_path, test)


def test_a_dry_run_says_what_would_be_and_does_nothing(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        outcome, value = await running.apply(service("web", type="LoadBalancer"), dry_run=True)
        assert outcome == "created"
        assert value.spec.cluster_ip.startswith("10.96.")  # type: ignore[union-attr]
        assert await stored(running) == []
        assert running.changes == []
        assert running.events.names() == []
        await running.apply(service("web", type="LoadBalancer"))
        outcome, _ = await running.apply(service("web"), dry_run=True)
        assert outcome == "configured"
        assert running.ingress("web")

    run(tmp_path, test)


def test_an_object_that_is_too_large_for_a_store_is_refused_by_its_name(tmp_path: Path) -> None:
    """Whichever store there is: etcd would refuse it, as something to try again."""

    async def test(running: Intent) -> None:
        def policy(size: int) -> dict[str, Any]:
            values = [f"{number:063}" for number in range(size // 66)]
            return {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "many", "namespace": "default"},
                "spec": {
                    "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": values}]}
                },
            }

        await running.apply(policy(1_000_000))
        for dry_run in (True, False):
            with pytest.raises(
                InvalidObjectError, match=r"^NetworkPolicy default/many: takes 1,0.* more than the 1,048,576"
            ):
                await running.apply(policy(1_050_000), dry_run=dry_run)
        entries = (await running.ledger.list_all()).entries
        assert [len(entry.value) // 1_000_000 for entry in entries if entry.key.startswith(OBJECTS)] == [1]

    run(tmp_path, test)


def test_what_does_not_change_is_neither_stored_nor_told(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        for document in (
            service("web", type="LoadBalancer"),
            endpoint_slice("web-1", "web", "10.244.1.5"),
            pod("one", status={"conditions": [{"type": "Ready", "status": "False"}]}),
        ):
            assert (await running.apply(document)).outcome == "created"
            revision, changes = running.ledger.revision, len(running.changes)
            assert (await running.apply(document)).outcome == "unchanged"
            metadata = document["metadata"]
            shown = running.get(document["kind"], metadata["namespace"], metadata["name"])
            assert (await running.apply(shown)).outcome == "unchanged"
            assert (running.ledger.revision, len(running.changes)) == (revision, changes)

    run(tmp_path, test)


def test_a_store_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("web", clusterIP="10.96.0.5"))
        shown = running.get("Service", "default", "web")

        async def fail(_operations: list[Operation], **_: object) -> None:
            raise StoreError("the disk is full")

        write = running.ledger.write
        running.ledger.write = fail  # type: ignore[assignment,method-assign]
        with pytest.raises(StoreError):
            await running.apply(service("web", type="NodePort", clusterIP="10.96.0.5"))
        with pytest.raises(StoreError):
            await running.apply(service("other", clusterIP="10.96.0.6"))
        with pytest.raises(StoreError):
            await running.delete("web")
        running.ledger.write = write  # type: ignore[method-assign]
        assert running.get("Service", "default", "web") == shown
        assert len(running.changes) == 1
        await running.apply(service("third", clusterIP="10.96.0.6"))
        assert running.allocation.number("default", "third") == 3

    run(tmp_path, test)


def test_a_waiting_load_balancer_whose_address_cannot_be_stored_goes_on_waiting(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("a", type="LoadBalancer"))
        await running.apply(service("b", type="LoadBalancer"))
        write = running.ledger.write

        async def fail(operations: list[Operation], **more: Any) -> None:
            if any(isinstance(one, Put) and one.key.startswith(LB_ADDRESSES) for one in operations):
                raise StoreError("the disk is full")
            assert all(isinstance(one, Delete) for one in operations)
            await write(operations, **more)

        running.ledger.write = fail  # type: ignore[assignment,method-assign]
        await running.delete("a")
        running.ledger.write = write  # type: ignore[method-assign]
        assert running.ingress("b") == []
        assert running.events.about("Service", "default", "b")[-1]["message"] == "the disk is full"
        await running.declarations.fill_waiting()
        assert running.ingress("b") == ["192.0.2.1"]

    run(tmp_path, test, load_balancer_ranges=("192.0.2.1/32",))


def test_the_clusters_dns_cannot_be_declared_otherwise_nor_deleted(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        says = "Service kube-system/kube-dns: the agents serve it; set the setting dns to false to declare it"
        with pytest.raises(PreconditionError, match=says):
            await running.apply(service("kube-dns", "kube-system"))
        with pytest.raises(PreconditionError, match=says):
            await running.delete("kube-dns", "kube-system")
        with pytest.raises(NotFoundError, match="Service kube-system/other does not exist"):
            await running.delete("other", "kube-system")

    run(tmp_path, test)


def test_deleting_a_service_leaves_the_slices_that_were_declared_for_it(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("web"))
        await running.apply(endpoint_slice("web-1", "web", "10.244.1.5"))
        await running.delete("web")
        (endpoint,) = running.get("EndpointSlice", "default", "web-1")["endpoints"]
        assert endpoint["addresses"] == ["10.244.1.5"]
        await running.declarations.remove("EndpointSlice", "default", "web-1")
        assert running.changes[-1] == ("EndpointSlice", "default/web-1", True, False)

    run(tmp_path, test)


def test_a_slice_that_is_only_derived_cannot_be_deleted(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        derived = parse(endpoint_slice("web-a", "web", "10.244.1.5"))
        assert isinstance(derived, EndpointSlice)
        running.watchers.derived_slices = lambda _namespace, _service: [derived]
        with pytest.raises(PreconditionError, match="default/web-a exists, but was not declared here"):
            await running.declarations.remove("EndpointSlice", "default", "web-a")
        with pytest.raises(NotFoundError):
            await running.declarations.remove("EndpointSlice", "default", "web-b")

    run(tmp_path, test)


def test_who_waits_for_an_address_is_told_again_after_a_start(tmp_path: Path) -> None:
    async def before(running: Intent) -> None:
        await running.apply(service("a", type="LoadBalancer"))
        await running.apply(service("b", type="LoadBalancer"))

    async def after(running: Intent) -> None:
        told = [event["involvedObject"]["name"] for event in _events(running)]
        assert told == ["b"]

    run(tmp_path, before, load_balancer_ranges=())
    run(tmp_path, after, load_balancer_ranges=("192.0.2.1/32",), serve_dns=False)


def _events(running: Intent) -> list[dict[str, Any]]:
    return [one for one in running.watchers.select(Selection("Event")) if one["reason"] == "AllocationFailed"]


def test_many_declarations_at_a_time_collide_nowhere(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        documents = [service(f"s{number}", type="LoadBalancer") for number in range(200)]
        await asyncio.gather(*(running.apply(document) for document in documents))
        specs = [running.get("Service", "default", f"s{number}")["spec"] for number in range(200)]
        assert len({spec["clusterIP"] for spec in specs}) == 200
        assert len({spec["ports"][0]["nodePort"] for spec in specs}) == 200
        assert sorted(
            address for number in range(200) for address in running.ingress(f"s{number}")
        ) == sorted(f"192.0.2.{number}" for number in range(8))

    run(tmp_path, test)


def network_policy(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": labels}, "ingress": [{"ports": [{"port": "http"}]}]},
    }


def cluster_policy(name: str, priority: int) -> dict[str, Any]:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": priority, "subject": {"namespaces": {}}},
    }


def test_policies_are_shown_as_they_were_declared_also_after_a_start(tmp_path: Path) -> None:
    declared = (network_policy("web", app="web"), cluster_policy("top", 7))

    async def shown(running: Intent) -> None:
        assert running.get("NetworkPolicy", "shop", "web") == declared[0]
        assert running.get("ClusterNetworkPolicy", "", "top") == declared[1]
        assert list(running.watchers.select(Selection("NetworkPolicy", "default"))) == []
        assert running.watchers.document("ClusterNetworkPolicy", "", "web") is None
        assert running.get("Namespace", "", "shop")

    async def declare(running: Intent) -> None:
        for document in declared:
            assert (await running.apply(document)).outcome == "created"
            assert (await running.apply(document)).outcome == "unchanged"
        await shown(running)

    run(tmp_path, declare)
    run(tmp_path, shown)


def test_policies_are_watched_until_they_are_deleted(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        watchers = [
            running.watchers.watch(Selection(kind)) for kind in ("NetworkPolicy", "ClusterNetworkPolicy")
        ]
        assert [list(running.watchers.listing(watcher)) for watcher in watchers] == [[], []]
        await running.apply(network_policy("web"))
        await running.apply(network_policy("web", app="web"))
        await running.declarations.remove("NetworkPolicy", "shop", "web")
        await running.apply(cluster_policy("top", 7))
        await running.apply(cluster_policy("top", 8))
        await running.declarations.remove("ClusterNetworkPolicy", "", "top")
        for watcher, version in zip(
            watchers, ("networking.k8s.io/v1", "policy.networking.k8s.io/v1alpha2"), strict=True
        ):
            told = [await asyncio.wait_for(watcher.next(), 60) for _ in range(3)]
            assert [kind for kind, _ in told] == ["added", "modified", "deleted"]
            assert {document["apiVersion"] for _, document in told} == {version}
        assert running.watchers.document("Namespace", "", "shop") is None
        with pytest.raises(NotFoundError, match="NetworkPolicy shop/web does not exist"):
            await running.declarations.remove("NetworkPolicy", "shop", "web")

    run(tmp_path, test)
