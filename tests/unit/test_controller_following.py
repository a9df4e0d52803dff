# SPDX-License-Identifier: Apache-2.0
"""Controllers on one store have one model, whoever changes it, and never give one thing twice."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.engine import Engine
from controller.errors import NotFoundError
from controller.ledger import DeposedError, Ledger
from controller.store import Operation, Put, open_store
from sdn.model import parse, to_document
from tests.switch.controller_process import attachment
from tests.unit.services_engine import apply, confirm, register, service
from tests.unit.several_engines import PATIENCE, gone, several, until


def run(folder: Path, scenario: Callable[[Engine, Engine], Awaitable[None]]) -> None:
    async def both() -> None:
        async with several(folder, "a", "b") as (first, second):
            await scenario(first, second)

    asyncio.run(both())


def model(engine: Engine) -> dict[str, Any]:
    """Everything that decides what switches hold."""
    cluster = engine.cluster
    objects = {
        (kind, *key): to_document(value)
        for kind, held in cluster.objects.items()
        for key, value in held.items()
    }
    return {
        "nodes": dict(cluster.nodes),
        "attachments": dict(cluster.attachments),
        "objects": objects,
        "addresses": {
            one.metadata.name: engine.allocation.load_balancer_addresses(
                one.metadata.namespace, one.metadata.name
            )
            for one in engine.allocation.services()
        },
        "in force": set(engine.loadbalancing.in_force),
        "owners": dict(engine.ownership.owners()),
        "numbers": {
            one.metadata.name: engine.allocation.number(one.metadata.namespace, one.metadata.name)
            for one in engine.allocation.services()
        },
        "flows": {
            node: sorted(map(str, engine.programs.flows_of(node, cluster)()))
            for node in engine.programs.nodes()
        },
    }


async def until_equal(first: Engine, second: Engine) -> None:
    try:
        await until(lambda: model(first) == model(second), "one model at both")
    except AssertionError:
        assert model(first) == model(second)
        raise


def test_what_one_is_told_the_other_has(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        node = await register(first, 1)
        await apply(first, service("web"))
        await until_equal(first, second)
        await first.ownership.settle("node-1")
        owner = first if first.ownership.owns("node-1") else second
        answers: list[str | None] = []
        await owner.attachments.attach("node-1", attachment(node, 1), answers.append)
        await until_equal(first, second)
        assert first.cluster.attachments
        assert second.cluster.attachments
        await owner.attachments.detach("node-1", attachment(node, 1).container_id, "eth0", answers.append)
        await second.declarations.remove("Service", "default", "web")
        await until_equal(first, second)
        assert not first.cluster.attachments
        assert "web" not in model(first)["numbers"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(3))
def test_changes_at_both_at_once_give_nothing_twice(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def scenario(first: Engine, second: Engine) -> None:
        async def change(engine: Engine, number: int) -> None:
            await asyncio.sleep(rng.uniform(0, 0.01))
            await engine.declarations.apply(_parsed(service(f"web-{number}", type="NodePort")), False)

        both = (first, second)
        changes = [change(both[number % 2], number) for number in range(40)]
        changes += [_registered(both[number % 2], number + 1) for number in range(8)]
        await asyncio.gather(*changes)
        await until_equal(first, second)
        services = first.allocation.services()
        assert len(services) == 40
        numbers = set(model(first)["numbers"].values())
        ports = {port.node_port for one in services for port in one.spec.ports}
        addresses = {address for one in services for address in one.spec.addresses}
        assert (len(numbers), len(ports), len(addresses)) == (40, 40, 40)
        ranges = [text for node in first.cluster.nodes.values() for text in node.pod_ranges]
        assert len(set(ranges)) == len(ranges) == 16
        assert not any(first.allocation.conflict("default", f"web-{number}") for number in range(40))

    run(tmp_path, scenario)


def test_only_the_owner_changes_what_is_on_a_node(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        node = await register(first, 1)
        await until_equal(first, second)
        await first.ownership.settle("node-1")
        await until(lambda: first.ownership.owner("node-1") is not None, "an owner")
        other = second if first.ownership.owns("node-1") else first
        await until(lambda: "node-1" in other.cluster.nodes, "the node")
        with pytest.raises(DeposedError):
            await other.attachments.attach("node-1", attachment(node, 1), lambda _refused: None)
        assert not other.cluster.attachments

    run(tmp_path, scenario)


async def _registered(engine: Engine, number: int) -> None:
    await register(engine, number)


def _parsed(document: dict[str, Any]) -> Any:
    return parse(document)


def test_what_was_written_before_a_key_was_removed_is_not_made_again(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        for round_ in range(30):
            engine = first if round_ % 2 else second
            await engine.declarations.apply(parse(service("web")), False)
            await engine.declarations.remove("Service", "default", "web")
        await until_equal(first, second)
        assert not first.allocation.services()

    run(tmp_path, scenario)


def test_what_one_was_told_another_removes_at_once(tmp_path: Path) -> None:
    """Whoever was told that his object is stored finds it everywhere: not only where the change has come by already."""

    async def scenario(first: Engine, second: Engine) -> None:
        for _ in range(30):
            await first.declarations.apply(parse(service("web")), False)
            await second.declarations.remove("Service", "default", "web")
        with pytest.raises(NotFoundError):
            await first.declarations.remove("Service", "default", "web")
        await until_equal(first, second)
        assert not first.allocation.services()

    run(tmp_path, scenario)


def test_a_write_gives_its_own_revision_whatever_others_wrote_since(tmp_path: Path) -> None:
    """A switch's owner is known by it: its generation is the revision of the write that took the switch."""

    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        ledger = Ledger(store)
        loop = asyncio.get_running_loop()
        written: list[int] = []
        write = store.write

        def slow(operations: Sequence[Operation]) -> int:
            written.append(write(operations))
            # Others' later write is taken in before the thread that wrote can say so.
            loop.call_soon_threadsafe(ledger.followed, written[-1] + 5)
            return written[-1]

        store.write = slow  # type: ignore[method-assign]
        assert [await ledger.write([Put("/sdn/x", b"")])] == written
        assert ledger.revision == written[-1] + 5
        ledger.stop()
        store.close()

    asyncio.run(scenario())


def test_what_others_register_holds_up_nobody_while_its_services_are_programmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        goes_on = asyncio.Event()
        program = second.loadbalancing.node_changed

        async def slow(name: str) -> None:
            await goes_on.wait()
            await program(name)

        monkeypatch.setattr(second.loadbalancing, "node_changed", slow)
        await apply(first, service("web"))
        for number in (1, 2, 3):
            await register(first, number)
        await until(lambda: len(second.cluster.nodes) == 3, "the nodes to be told")
        await apply(first, service("from-first"))
        await until(lambda: "from-first" in model(second)["numbers"], "the Service to be told")
        async with asyncio.timeout(PATIENCE):
            await apply(second, service("from-second"))
        goes_on.set()
        await until_equal(first, second)

    run(tmp_path, scenario)


def test_nobody_takes_a_switch_that_is_not_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took it would refuse it, and its agent could do nothing until all that comes before is programmed."""

    async def scenario(first: Engine, second: Engine) -> None:
        goes_on = asyncio.Event()
        program = second.loadbalancing.node_changed

        async def slow(name: str) -> None:
            await goes_on.wait()
            await program(name)

        monkeypatch.setattr(second.loadbalancing, "node_changed", slow)
        nodes = [f"node-{number}" for number in (1, 2, 3)]
        for number in (1, 2, 3):
            await register(first, number)
        gone(first.ledger._store, "a")
        await until(lambda: set(second.ownership.members.takers()) == {"b"}, "one to take all")
        await until(lambda: len(second.cluster.nodes) == 3, "the nodes to be told")
        here = asyncio.ensure_future(register(second, 3))
        await asyncio.sleep(0.5)
        assert not any(map(second.ownership.owns, nodes))
        assert not here.done()
        goes_on.set()
        await here
        assert second.programs.claimed("node-3")
        await until(lambda: all(map(second.ownership.owns, nodes)), "all to be taken")

    run(tmp_path, scenario)


def test_an_address_that_one_gave_stays_whatever_another_had_taken_back_before(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        web = service("web", type="LoadBalancer")
        await apply(first, web)
        await until_equal(first, second)
        await second.declarations.remove("Service", "default", "web")
        await until_equal(first, second)
        await apply(first, web)
        given = first.allocation.load_balancer_addresses("default", "web")
        assert given
        await until_equal(first, second)
        web["metadata"]["labels"] = {"changed": "yes"}
        await apply(second, web)
        await until_equal(first, second)
        for engine in (first, second):
            assert engine.allocation.load_balancer_addresses("default", "web") == given
            assert not engine.allocation.waiting()

    run(tmp_path, scenario)


def test_what_is_new_about_a_pod_that_stays_where_it_is_leaves_it_running_everywhere(tmp_path: Path) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        node = await register(first, 1)
        await first.ownership.settle("node-1")
        await until(lambda: first.ownership.owner("node-1") is not None, "an owner")
        owner, other = (first, second) if first.ownership.owns("node-1") else (second, first)
        pod = attachment(node, 1)
        key = ("node-1", pod.container_id, pod.interface_name)

        def told(label: str) -> bool:
            record = other.cluster.attachments.get(key)
            named = record is not None and record.labels["app"] == label
            return named and not other.attachments.confirmations.pending(key)

        for label in ("before", "after"):
            pod.labels["app"] = label
            await owner.attachments.attach("node-1", pod, lambda _refused: None)
            await confirm(owner)
            await until(functools.partial(told, label), f"the other to be told of the pod {label}")
            assert key in owner.watchers.programmed, label
            assert key in other.watchers.programmed, label
        await until_equal(first, second)

    run(tmp_path, scenario)
