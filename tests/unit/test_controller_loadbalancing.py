# SPDX-License-Identifier: Apache-2.0
"""Services in a real engine on a real store: what each node is given, when, and at which cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from controller.engine import Engine
from controller.loadbalancing import runtime, shared
from controller.records import object_key
from controller.store import Put
from sdn.model import parse, to_document
from sdn.services.selection import Selection
from tests.switch.controller_process import attachment
from tests.unit.services_engine import (
    apply,
    confirm,
    destinations,
    endpoint_slice,
    held,
    host_pod,
    register,
    running_engine,
    service,
)

WEB = ("default", "web")


def unanswered(_refused: str | None) -> None:
    """There is no switch that could confirm anything."""


def in_engine(folder: Path, scenario: Callable[[Engine], Awaitable[None]], **network: object) -> None:
    async def run() -> None:
        async with running_engine(folder, **network) as engine:
            await scenario(engine)

    asyncio.run(run())


class Work:
    """Counts what is computed, while the real functions compute it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.selected = 0
        self.compiled = 0
        compile_service = shared.service_flows

        class Counted(Selection):
            def __init__(inner, *arguments: object) -> None:  # noqa: N805
                self.selected += 1
                super().__init__(*arguments)  # type: ignore[arg-type]

        def counted(ports: object) -> object:
            self.compiled += 1
            return compile_service(ports)  # type: ignore[arg-type]

        monkeypatch.setattr(runtime, "Selection", Counted)
        monkeypatch.setattr(shared, "service_flows", counted)


def compile_all(engine: Engine) -> None:
    """Compile for every node what is not compiled yet, as the synchronizers do in their own time."""
    for node in engine.programs.nodes():
        for key in engine.loadbalancing.index.services:
            engine.loadbalancing.shared_on(node, key).encoded()


def test_a_service_reaches_every_node_with_its_endpoints(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        await apply(engine, service("web"))
        assert destinations(engine, "node-1", "web") == set()
        assert held(engine, "node-1", "web"), "without endpoints connections are refused"
        await apply(engine, endpoint_slice("a", "web", "192.0.2.1", "192.0.2.2"))
        assert destinations(engine, "node-1", "web") == {"192.0.2.1:8080", "192.0.2.2:8080"}
        await register(engine, 2)
        assert destinations(engine, "node-2", "web") == {"192.0.2.1:8080", "192.0.2.2:8080"}
        await engine.declarations.remove("EndpointSlice", "default", "a")
        await engine.loadbalancing.idle()
        assert destinations(engine, "node-2", "web") == set()
        await engine.declarations.remove("Service", "default", "web")
        await engine.loadbalancing.idle()
        assert held(engine, "node-1", "web") == []

    in_engine(tmp_path, scenario)


def test_a_slice_can_go_to_another_service(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        await apply(engine, service("web"))
        await apply(engine, service("db"))
        await apply(engine, endpoint_slice("a", "web", "192.0.2.1"))
        await apply(engine, endpoint_slice("a", "db", "192.0.2.1"))
        assert destinations(engine, "node-1", "web") == set()
        assert destinations(engine, "node-1", "db") == {"192.0.2.1:8080"}

    in_engine(tmp_path, scenario)


def test_host_network_pods_are_endpoints_at_their_nodes_addresses(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        await apply(engine, service("web"))
        await apply(engine, host_pod("a", "node-1", app="web"))
        await apply(engine, host_pod("b", "node-2", app="web"))
        assert destinations(engine, "node-1", "web") == {"172.30.0.1:8080"}
        await register(engine, 2)
        assert destinations(engine, "node-1", "web") == {"172.30.0.1:8080", "172.30.0.2:8080"}
        await apply(engine, host_pod("a", "node-1", ready=False, app="web"))
        assert destinations(engine, "node-2", "web") == {"172.30.0.2:8080"}
        await register(engine, 2, addresses=["172.30.9.2"], tunnel_address="172.30.9.2")
        assert destinations(engine, "node-1", "web") == {"172.30.9.2:8080"}

    in_engine(tmp_path, scenario)


def test_a_pod_is_no_endpoint_before_its_switch_has_confirmed_it(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, service("web"))
        await engine.attachments.attach("node-1", attachment(node, 1, labels={"app": "web"}), unanswered)
        await engine.loadbalancing.idle()
        assert destinations(engine, "node-1", "web") == set()
        (endpoint,) = engine.loadbalancing.index.endpoints(WEB)
        assert not endpoint.ready

    in_engine(tmp_path, scenario)


def test_after_a_restart_every_confirmed_pod_counts(tmp_path: Path) -> None:
    async def before(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, service("web"))
        for number in (1, 2):
            pod = attachment(node, number, labels={"app": "web"})
            await engine.attachments.attach("node-1", pod, unanswered)
        await confirm(engine)
        pod = attachment(node, 3, labels={"app": "web"})
        await engine.attachments.attach("node-1", pod, unanswered)

    async def after(engine: Engine) -> None:
        assert destinations(engine, "node-1", "web") == {"10.244.0.3:8080", "10.244.0.4:8080"}
        await engine.attachments.detach("node-1", "node-1-container-1", "eth0", unanswered)
        await engine.loadbalancing.idle()
        assert destinations(engine, "node-1", "web") == {"10.244.0.4:8080"}

    in_engine(tmp_path, before)
    in_engine(tmp_path, after)


def test_declared_labels_replace_those_of_the_attachment(tmp_path: Path) -> None:
    async def before(engine: Engine) -> None:
        node = await register(engine, 1)
        await engine.attachments.attach("node-1", attachment(node, 1, labels={"app": "web"}), unanswered)
        await confirm(engine)
        await apply(engine, service("web"))
        await apply(engine, service("db"))

    async def after(engine: Engine) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "node-1-web-1", "namespace": "default", "labels": {"app": "db"}},
        }
        assert destinations(engine, "node-1", "web") == {"10.244.0.3:8080"}
        await apply(engine, document)
        assert destinations(engine, "node-1", "web") == set()
        assert destinations(engine, "node-1", "db") == {"10.244.0.3:8080"}
        await engine.declarations.remove("Pod", "default", "node-1-web-1")
        await engine.loadbalancing.idle()
        assert destinations(engine, "node-1", "web") == {"10.244.0.3:8080"}

    in_engine(tmp_path, before)
    in_engine(tmp_path, after)


def test_nodes_that_see_the_same_share_what_is_compiled(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        for number in (1, 2, 3):
            await register(engine, number, zone="a" if number < 3 else "b")
        await apply(engine, service("web"))
        await apply(engine, service("near", trafficDistribution="PreferClose"))
        for name in ("web", "near"):
            await apply(engine, endpoint_slice(f"{name}-a", name, "192.0.2.1", zone="a"))
            await apply(engine, endpoint_slice(f"{name}-b", name, "192.0.2.2", zone="b"))
        shared_on = engine.loadbalancing.shared_on
        near = ("default", "near")
        assert shared_on("node-1", WEB) is shared_on("node-2", WEB) is shared_on("node-3", WEB)
        assert shared_on("node-1", near) is shared_on("node-2", near)
        assert destinations(engine, "node-1", "near") == {"192.0.2.1:8080"}
        assert destinations(engine, "node-3", "near") == {"192.0.2.2:8080"}
        await register(engine, 2, zone="b")
        assert destinations(engine, "node-2", "near") == {"192.0.2.2:8080"}
        assert shared_on("node-2", near) is shared_on("node-3", near)

    in_engine(tmp_path, scenario)


def test_nodes_for_which_nothing_changed_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        for number, zone in ((1, "a"), (2, "b")):
            await register(engine, number, zone=zone)
        await apply(engine, service("near", trafficDistribution="PreferClose"))
        await apply(engine, endpoint_slice("a", "near", "192.0.2.1", "192.0.2.2", zone="a"))
        await apply(engine, endpoint_slice("b", "near", "192.0.2.3", zone="b"))
        told: list[str] = []
        put_service = engine.programs.put_service

        def watched(node: str, *arguments: object) -> None:
            told.append(node)
            put_service(node, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(engine.programs, "put_service", watched)
        await apply(engine, endpoint_slice("a", "near", "192.0.2.1", zone="a"))
        assert told == ["node-1"]
        await apply(engine, service("near", trafficDistribution="PreferClose", sessionAffinity="None"))
        assert told == ["node-1"], "another word for the same"

    in_engine(tmp_path, scenario)


@pytest.mark.parametrize("others", [0, 2000])
def test_a_change_of_one_endpoint_costs_the_same_beside_many_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    async def scenario(engine: Engine) -> None:
        for number in (1, 2, 3):
            await register(engine, number)
        for number in range(others):
            await engine.declarations.apply(parse(service(f"other-{number}")), False)
        await apply(engine, service("web"))
        await apply(engine, endpoint_slice("a", "web", "192.0.2.1", "192.0.2.2"))
        compile_all(engine)
        work = Work(monkeypatch)
        await apply(engine, endpoint_slice("a", "web", "192.0.2.1"))
        compile_all(engine)
        assert (work.selected, work.compiled) == (1, 1)

    in_engine(tmp_path, scenario)


def test_a_burst_is_computed_once_for_each_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        await apply(engine, service("web"))
        work = Work(monkeypatch)
        for number in range(100):
            name, key = f"pod-{number}", ("default", f"pod-{number}")
            engine.cluster.objects["Pod"][key] = parse(host_pod(name, "node-1", app="web"))
            engine.loadbalancing.pod_changed(*key)
        await engine.loadbalancing.idle()
        assert work.selected == 1

    in_engine(tmp_path, scenario)


def test_what_is_compiled_late_is_what_is_current(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        await apply(engine, service("web"))
        handed = []
        put_service = engine.programs.put_service
        engine.programs.put_service = lambda *arguments: handed.append(arguments)  # type: ignore[method-assign]
        await apply(engine, endpoint_slice("a", "web", "192.0.2.1"))
        await apply(engine, endpoint_slice("a", "web", "192.0.2.2"))
        engine.programs.put_service = put_service  # type: ignore[method-assign]
        first, second = (arguments[3] for arguments in handed)
        assert first is not None
        assert second is not None
        assert first() is second(), "compiled once, though two changes were handed over"

    in_engine(tmp_path, scenario)


def test_a_pods_flows_go_after_it_has_left_its_services(tmp_path: Path) -> None:
    async def before(engine: Engine) -> None:
        node = await register(engine, 1)
        await register(engine, 2)
        await apply(engine, service("web"))
        await engine.attachments.attach("node-1", attachment(node, 1, labels={"app": "web"}), unanswered)

    async def after(engine: Engine) -> None:
        order: list[tuple[str, object]] = []
        programs = engine.programs
        put_service, remove_pod = programs.put_service, programs.remove_pod

        def service_put(node: str, namespace: str, name: str, compiled: object, gone: object = ()) -> None:
            order.append((f"service on {node}", tuple(map(str, gone))))  # type: ignore[call-overload]
            put_service(node, namespace, name, compiled, gone)  # type: ignore[arg-type]

        def pod_removed(*arguments: object) -> None:
            order.append(("pod", None))
            remove_pod(*arguments)  # type: ignore[arg-type]

        programs.put_service = service_put  # type: ignore[method-assign]
        programs.remove_pod = pod_removed  # type: ignore[method-assign]
        await engine.attachments.detach("node-1", "node-1-container-1", "eth0", unanswered)
        await engine.loadbalancing.idle()
        gone = ("10.244.0.3", "fd00:10:244::3")
        assert order == [("service on node-1", gone), ("service on node-2", gone), ("pod", None)]

    in_engine(tmp_path, before)
    in_engine(tmp_path, after)


def test_a_pod_that_comes_while_its_node_is_forgotten_holds_nothing_up(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await register(engine, 2)
        await apply(engine, service("web"))
        pod = attachment(node, 1, labels={"app": "web"})
        await engine.attachments.attach("node-1", pod, unanswered)
        (record,) = engine.cluster.attachments.values()
        answers: list[str | None] = []
        engine.loadbalancing.pod_changed("default", "node-1-web-1", ["10.244.0.3"])
        engine.loadbalancing.afterwards(lambda: engine.programs.put_pod(record, answers.append))
        engine.loadbalancing.afterwards(lambda: engine.programs.settled("node-1", answers.append))
        engine.loadbalancing.afterwards(
            lambda: engine.programs.remove_pod("node-1", *record.id, answers.append)
        )
        engine.programs.remove_node("node-1")
        await engine.loadbalancing.idle()
        assert answers == ["Node node-1 is no longer registered"] * 2 + [None]
        await apply(engine, endpoint_slice("a", "web", "192.0.2.1"))
        assert destinations(engine, "node-2", "web") == {"192.0.2.1:8080"}

    in_engine(tmp_path, scenario)


def test_a_service_that_cannot_be_computed_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        number = engine.allocation.number

        def broken(namespace: str, name: str) -> int:
            if name == "bad":
                raise ValueError("a defect")
            return number(namespace, name)

        monkeypatch.setattr(engine.allocation, "number", broken)
        await apply(engine, service("bad"))
        await apply(engine, service("web"))
        assert held(engine, "node-1", "web")
        await register(engine, 2)
        assert held(engine, "node-2", "web")

    in_engine(tmp_path, scenario)


def test_a_stored_service_that_claims_anothers_address_is_served_to_nobody(tmp_path: Path) -> None:
    """Only a changed setting, or somebody else's hand in the store, can lead to it."""

    async def before(engine: Engine) -> None:
        await register(engine, 1)
        await apply(engine, service("first", clusterIP="10.96.0.77"))
        await apply(engine, service("second", clusterIP="10.96.0.78"))
        document = to_document(engine.cluster.objects["Service"]["default", "second"])
        document["spec"] |= {"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}
        stored = Put(object_key("Service", "default", "second"), msgspec.json.encode(document))
        await engine.ledger.write([stored])

    async def after(engine: Engine) -> None:
        assert held(engine, "node-1", "first")
        assert not held(engine, "node-1", "second")
        assert engine.states.state(("default", "first"), "node-1") is not None
        assert engine.states.state(("default", "second"), "node-1") is None
        await engine.declarations.remove("Service", "default", "second")
        await apply(engine, service("second", clusterIP="10.96.0.78"))
        assert held(engine, "node-1", "second")
        assert engine.states.state(("default", "second"), "node-1") is not None

    in_engine(tmp_path, before)
    in_engine(tmp_path, after)


def test_the_clusters_dns_has_every_node_and_each_node_uses_its_own(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        await register(engine, 2)
        for number in (1, 2):
            name = f"node-{number}"
            own = {f"10.244.{number - 1}.1:53", f"[fd00:10:244:{number - 1}::1]:53".replace(":0::", "::")}
            assert destinations(engine, name, "kube-dns", "kube-system") == own
        assert len(engine.loadbalancing.index.endpoints(("kube-system", "kube-dns"))) == 4
        await engine.registrations.forget("node-2")
        await engine.loadbalancing.idle()
        assert len(engine.loadbalancing.index.endpoints(("kube-system", "kube-dns"))) == 2

    in_engine(tmp_path, scenario, serve_dns=True)


def test_many_services_are_loaded_while_the_loop_turns(tmp_path: Path) -> None:
    async def before(engine: Engine) -> None:
        await register(engine, 1)
        for number in range(1500):
            await engine.declarations.apply(parse(service(f"s{number}")), False)

    async def after() -> None:
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.get_running_loop().create_task(turning())
        async with running_engine(tmp_path) as engine:
            loading = turns
            assert all(held(engine, "node-1", f"s{number}") for number in (0, 1499))
        counter.cancel()
        assert loading > 10

    in_engine(tmp_path, before)
    asyncio.run(after())
