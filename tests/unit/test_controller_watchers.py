# SPDX-License-Identifier: Apache-2.0
"""What watchers are told, and that what waits for them is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from controller import watchers
from controller.watchers import (
    ALL_BACKLOGS_BYTES,
    BACKLOG,
    BACKLOG_BYTES,
    KEY_BYTES,
    Selection,
    TooSlowError,
    Watcher,
)
from sdn.model import EndpointSlice, parse, parse_selector, to_document
from tests.unit.controller_intent import intent, service


def test_a_watcher_that_falls_behind_is_told_so() -> None:
    async def watch() -> None:
        watcher = Watcher(Selection("Pod"))
        document = {"metadata": {"name": "web"}}
        for _ in range(BACKLOG):
            watcher.feed("default", "web", document)
        assert (await watcher.next())[0] == "added"
        watcher.feed("default", "web", document)
        assert (await watcher.next())[0] == "modified"
        watcher.feed("default", "web", document)
        watcher.feed("default", "web", document)
        with pytest.raises(TooSlowError, match="watch again"):
            await watcher.next()

    asyncio.run(watch())


@pytest.mark.parametrize("too_much", ["one that is too large", "too many at once"])
def test_a_watcher_that_waits_is_told_of_too_much(too_much: str) -> None:
    async def watch() -> None:
        watcher = Watcher(Selection("Pod"))
        waiting = asyncio.create_task(watcher.next())
        await asyncio.sleep(0)
        if too_much == "too many at once":
            for number in range(BACKLOG + 1):
                watcher.feed("default", str(number), {"metadata": {"name": str(number)}})
        else:
            watcher.feed("default", "web", {"metadata": {"name": "web"}}, BACKLOG_BYTES + 1)
        with pytest.raises(TooSlowError, match="watch again"):
            await asyncio.wait_for(waiting, 20)
        with pytest.raises(TooSlowError, match="watch again"):
            await watcher.next()

    asyncio.run(watch())


def test_memory_stays_bounded_when_many_watch_and_do_not_read(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path) as rig:
            watchers = rig.watchers
            selection = Selection("Service")
            # One reads, the others never do.
            reader = watchers.watch(selection)
            silent = [watchers.watch(selection) for _ in range(100)]
            for watcher in (reader, *silent):
                list(watchers.listing(watcher))
            text = "x" * 60_000
            most = told = 0
            for number in range(500):
                document = service("web")
                document["metadata"]["annotations"] = {"number": str(number), "text": text}
                await rig.apply(document)
                most = max(most, sum(watcher.held for watcher in (reader, *silent)))
                while reader.held:
                    await reader.next()
                    told += 1
            print(f"bytes held for 100 watchers that do not read: at most {most}")
            assert most <= ALL_BACKLOGS_BYTES
            assert all(watcher.held <= BACKLOG_BYTES for watcher in silent)
            assert told == 500
            for watcher in silent:
                with pytest.raises(TooSlowError, match="watch again"):
                    await watcher.next()
                assert watcher.held == 0

    asyncio.run(test())


def test_one_that_does_not_read_while_it_lists_is_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path) as rig:
            for name in ("web-1", "web-2"):
                await rig.apply(service(name))
            watcher = rig.watchers.watch(Selection("Service"))
            listing = rig.watchers.listing(watcher)
            next(listing)
            # As many different objects as would fit, each twice, and one more.
            for _ in range(2):
                for number in range(BACKLOG_BYTES // KEY_BYTES):
                    rig.watchers.changed("Service", "default", f"other-{number}")
            next(listing)
            assert 0 < watcher.held <= BACKLOG_BYTES
            for number in range(2):
                rig.watchers.changed("Service", "default", f"one-more-{number}")
            assert watcher.held == 0
            with pytest.raises(TooSlowError, match="watch again"):
                next(listing)
            with pytest.raises(TooSlowError, match="watch again"):
                await watcher.next()
            rig.watchers.changed("Service", "default", "another")
            assert watcher.held == 0

    asyncio.run(test())


def test_what_is_noted_for_those_that_list_counts_among_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "ALL_BACKLOGS_BYTES", 100 * KEY_BYTES)

    async def test() -> None:
        async with intent(tmp_path) as rig:
            for name in ("web-1", "web-2"):
                await rig.apply(service(name))
            listing = [rig.watchers.watch(Selection("Service")) for _ in range(10)]
            for watcher in listing:
                next(rig.watchers.listing(watcher))
            for number in range(1000):
                rig.watchers.changed("Service", "default", f"other-{number}")
                assert sum(watcher.held for watcher in listing) <= 100 * KEY_BYTES

    asyncio.run(test())


def test_what_changes_while_it_lists_is_told_behind_it_and_no_longer_counts(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path) as rig:
            for name in ("web-1", "web-2", "web-3"):
                await rig.apply(service(name))
            watcher = rig.watchers.watch(Selection("Service", "default"))
            listing = rig.watchers.listing(watcher)
            assert names([next(listing)]) == ["web-1"]
            for name in ("web-1", "web-3"):
                document = service(name)
                document["metadata"]["labels"] = {"new": "true"}
                await rig.apply(document)
            assert watcher.held == 2 * KEY_BYTES
            assert names(listing) == ["web-2", "web-3"]
            assert await events_of(watcher, 1) == [("modified", "web-1")]
            assert watcher.held == 0

    asyncio.run(test())


def test_an_object_that_leaves_the_selection_is_deleted_for_its_watcher_once() -> None:
    async def watch() -> None:
        watcher = Watcher(Selection("Pod", namespace="default"))
        assert watcher.selection.names("default", "web")
        assert not watcher.selection.names("other", "web")
        watcher.knows("default", "web")
        watcher.feed("default", "web", None)
        watcher.feed("default", "web", None)
        kind, document = await watcher.next()
        assert (kind, document["metadata"]) == ("deleted", {"name": "web", "namespace": "default"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watcher.next(), 0.05)

    asyncio.run(watch())


def derived(name: str, of: str, *addresses: str) -> EndpointSlice:
    value = parse(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": of}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in addresses],
        }
    )
    assert isinstance(value, EndpointSlice)
    return value


def names(documents: Iterable[dict[str, Any]]) -> list[str]:
    return [document["metadata"]["name"] for document in documents]


async def events_of(watcher: Watcher, count: int) -> list[tuple[str, str]]:
    told = [await asyncio.wait_for(watcher.next(), 60) for _ in range(count)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watcher.next(), 0.05)
    return [(kind, document["metadata"]["name"]) for kind, document in told]


def test_slices_are_shown_whether_declared_or_derived(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path) as running:
            slices = {"web": [derived("web-a", "web", "10.244.1.1")], "db": [derived("db-a", "db")]}
            running.watchers.derived_slices = lambda namespace, service: (
                [one for of, several in slices.items() for one in several if service in ("", of)]
                if namespace in ("", "shop")
                else []
            )
            await running.apply(to_document(derived("web-mine", "web", "192.0.2.9")))
            watcher = running.watchers.watch(Selection("EndpointSlice"))
            assert names(running.watchers.listing(watcher)) == ["web-mine", "web-a", "db-a"]
            labels = parse_selector("kubernetes.io/service-name=web")
            of_web = running.watchers.watch(Selection("EndpointSlice", "shop", "", labels))
            assert names(running.watchers.listing(of_web)) == ["web-mine", "web-a"]
            assert names(running.watchers.select(Selection("EndpointSlice", "default"))) == []
            assert running.get("EndpointSlice", "shop", "web-a")["endpoints"]

            slices["web"] = [derived("web-a", "web"), derived("web-b", "web")]
            running.watchers.slices_changed("shop", "web")
            assert await events_of(watcher, 2) == [("modified", "web-a"), ("added", "web-b")]
            assert await events_of(of_web, 2) == [("modified", "web-a"), ("added", "web-b")]
            slices["web"] = [derived("web-b", "web")]
            del slices["db"]
            running.watchers.slices_changed("shop", "web")
            running.watchers.slices_changed("shop", "db")
            assert await events_of(watcher, 3) == [
                ("deleted", "web-a"),
                ("modified", "web-b"),
                ("deleted", "db-a"),
            ]
            await running.apply(to_document(derived("web-mine", "web")))
            assert await events_of(watcher, 1) == [("modified", "web-mine")]
            running.watchers.end(watcher)
            running.watchers.end(of_web)

    asyncio.run(test())


def test_what_changes_while_objects_are_listed_is_told_once_and_in_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path, serve_dns=False) as running:
            for name in ("a", "b", "c", "d"):
                await running.apply(service(name))
            watcher = running.watchers.watch(Selection("Service"))
            listing = running.watchers.listing(watcher)
            assert [next(listing)["metadata"]["name"] for _ in range(2)] == ["a", "b"]
            await running.apply(service("a", type="NodePort"))  # listed already
            await running.apply(service("c", type="NodePort"))  # still to come
            await running.delete("b")
            await running.delete("d")
            await running.apply(service("e"))
            await running.apply(service("f"))
            await running.delete("f")
            (last,) = listing
            assert (last["metadata"]["name"], last["spec"]["type"]) == ("c", "NodePort")
            assert await events_of(watcher, 3) == [("modified", "a"), ("deleted", "b"), ("added", "e")]
            with pytest.raises(ValueError, match="once"):
                next(running.watchers.listing(watcher))

    asyncio.run(test())


def test_events_can_be_watched(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path, load_balancer_ranges=()) as running:
            watcher = running.watchers.watch(Selection("Event", "default"))
            assert names(running.watchers.listing(watcher)) == []
            await running.apply(service("web", type="LoadBalancer"))
            kind, document = await asyncio.wait_for(watcher.next(), 60)
            assert (kind, document["reason"]) == ("added", "AllocationFailed")
            assert names(running.watchers.select(Selection("Event", "shop"))) == []
            assert len(names(running.watchers.select(Selection("Event")))) == 1

    asyncio.run(test())


def test_a_services_changes_are_told_with_its_addresses(tmp_path: Path) -> None:
    async def test() -> None:
        async with intent(tmp_path, load_balancer_ranges=("192.0.2.1/32",)) as running:
            await running.apply(service("first", type="LoadBalancer"))
            watcher = running.watchers.watch(Selection("Service", "default", "second"))
            assert names(running.watchers.listing(watcher)) == []
            await running.apply(service("second", type="LoadBalancer"))
            kind, document = await asyncio.wait_for(watcher.next(), 60)
            assert (kind, document["status"]) == ("added", {"loadBalancer": {}})
            await running.delete("first")
            kind, document = await asyncio.wait_for(watcher.next(), 60)
            assert kind == "modified"
            assert document["status"]["loadBalancer"]["ingress"] == [{"ip": "192.0.2.1", "ipMode": "VIP"}]

    asyncio.run(test())
