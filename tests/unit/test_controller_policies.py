# SPDX-License-Identifier: Apache-2.0
"""How policies come to the switches: in which order, together with what, and whose connections are looked at again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.changes import Change
from controller.engine import Engine
from controller.errors import UnavailableError
from controller.forgetting import Flush
from controller.sweeps import Sweeps
from sdn.model.address import Address, Range
from sdn.pipeline.registers import Mark
from sdn.policy.cells import GuardKey, IsolationKey
from sdn.policy.evaluator import evaluate
from sdn.policy.values import Direction
from sdn.policy.verdict import connection_between
from sdn.v1 import controller_pb2, types_pb2
from tests.unit.services_engine import apply, policy_cluster, register, running_engine

TCP = 6


def in_engine(folder: Path, scenario: Callable[[Engine], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running_engine(folder) as engine:
            await scenario(engine)

    asyncio.run(run())


def attachment(node: types_pb2.NodeInfo, number: int, name: str, **labels: str) -> types_pb2.Attachment:
    """The pod with this number on its node; names tell pods of nodes apart."""
    prefix = node.pod_ranges[0].removesuffix("0/24")
    return types_pb2.Attachment(
        container_id=f"{node.name}-{number}",
        interface_name="eth0",
        pod_namespace="default",
        pod_name=name,
        ofport=15 + number,
        mac=f"0a:58:0a:f4:{int(node.name[-1]):02x}:{number:02x}",
        addresses=[f"{prefix}{number + 1}"],
        labels=labels,
    )


def policy(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy for pods labelled app=web."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, **spec},
    }


def unanswered(_refused: str | None) -> None:
    pass


def recorded(engine: Engine) -> list[tuple[str, list[Any]]]:
    """What is handed to synchronizers from now on: (node, parts that go together)."""
    found: list[tuple[str, list[Any]]] = []
    for name in engine.programs.nodes():
        synchronizer = engine.programs.synchronizer(name)
        assert synchronizer is not None
        submit = synchronizer.submit_all

        def recording(
            changes: Sequence[Change],
            node: str = name,
            submit: Callable[[Sequence[Change]], None] = submit,
        ) -> None:
            found.append((node, [change.part for change in changes]))
            submit(changes)

        synchronizer.submit_all = recording  # type: ignore[method-assign]
    return found


def test_a_pods_policies_are_handed_to_its_switch_before_its_flows(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, policy())
        order = recorded(engine)
        await engine.attachments.attach("node-1", attachment(node, 1, "web", app="web"), unanswered)
        kinds = [parts[0][0] for _, parts in order]
        assert kinds == ["policy", "pod"]
        assert ("policy", IsolationKey(Direction.INGRESS, 16)) in order[0][1]
        assert ("policy", GuardKey(16)) in order[0][1]

    in_engine(tmp_path, scenario)


def test_a_pods_policies_are_taken_back_after_its_flows(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, policy())
        await engine.attachments.attach("node-1", attachment(node, 1, "web", app="web"), unanswered)
        order = recorded(engine)
        await engine.attachments.detach("node-1", "node-1-1", "eth0", unanswered)
        await engine.loadbalancing.idle()
        assert [parts[0][0] for _, parts in order] == ["pod", "policy"]
        assert engine.policies.engine.cells("node-1") == {}

    in_engine(tmp_path, scenario)


def test_all_that_one_change_means_for_a_switch_goes_into_it_together(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        nodes = [await register(engine, number) for number in (1, 2)]
        for number, node in enumerate(nodes):
            for pod in (1, 2, 3):
                name = f"web-{number}-{pod}"
                await engine.attachments.attach(node.name, attachment(node, pod, name, app="web"), unanswered)
        order = recorded(engine)
        peers = [{"from": [{"podSelector": {}}], "ports": [{"port": 80}, {"port": 81}]}]
        await apply(engine, policy(ingress=peers))
        assert sorted(node for node, _ in order) == ["node-1", "node-2"]
        assert all(len(parts) > 6 for _, parts in order)

    in_engine(tmp_path, scenario)


def test_a_declared_pods_labels_and_named_ports_count(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, policy(ingress=[{"ports": [{"port": "http"}]}]))
        await engine.attachments.attach("node-1", attachment(node, 1, "one"), unanswered)
        (record,) = engine.cluster.attachments.values()
        pod = Address.parse(record.addresses[0])
        outside = Address.parse("192.0.2.1")
        allows = engine.policies.engine.allows
        assert allows(outside, pod, TCP, 8081)
        declared = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "one", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        }
        await apply(engine, declared)
        assert allows(outside, pod, TCP, 8080)
        assert not allows(outside, pod, TCP, 8081)
        await engine.declarations.remove("Pod", "default", "one")
        assert allows(outside, pod, TCP, 8081)

    in_engine(tmp_path, scenario)


def test_what_was_stored_is_in_force_after_a_restart(tmp_path: Path) -> None:
    cells: list[Mapping[Any, Any]] = []

    async def before(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, policy(ingress=[{"from": [{"podSelector": {}}]}]))
        await engine.attachments.attach("node-1", attachment(node, 1, "web", app="web"), unanswered)
        cells.append(engine.policies.engine.cells("node-1"))

    async def after(engine: Engine) -> None:
        assert cells[0]
        assert engine.policies.engine.cells("node-1") == cells[0]

    in_engine(tmp_path, before)
    in_engine(tmp_path, after)


def test_the_engine_decides_as_the_evaluator_does_of_the_same_cluster(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        await apply(engine, policy(ingress=[{"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}]))
        for number, app in ((1, "web"), (2, "other")):
            await engine.attachments.attach("node-1", attachment(node, number, app, app=app), unanswered)
        cluster = policy_cluster(engine)
        one, other = (pod.addresses[0] for pod in cluster.pods)
        outside = Address.parse("192.0.2.1")
        for source, destination in ((one, other), (other, one), (outside, one), (one, outside)):
            for port in (80, 81):
                expected = evaluate(cluster, connection_between(cluster, source, destination, TCP, port))
                assert engine.policies.engine.allows(source, destination, TCP, port) == expected.allowed

    in_engine(tmp_path, scenario)


class Agent:
    """Lists connections as an agent would; the first ``failures`` times it cannot be asked."""

    def __init__(self, connections: Sequence[controller_pb2.TrackedConnection], failures: int = 0) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._connections = connections
        self._failures = failures

    async def __call__(
        self, node: str, ranges: Sequence[str], _seconds: float
    ) -> AsyncIterator[controller_pb2.TrackedConnection]:
        self.asked.append((node, list(ranges)))
        if len(self.asked) <= self._failures:
            raise UnavailableError("not now")
        for connection in self._connections:
            yield connection


def tracked(source: str, destination: str, port: int, endpoint: str = "") -> controller_pb2.TrackedConnection:
    return controller_pb2.TrackedConnection(
        protocol=TCP,
        source=source,
        destination=destination,
        source_port=40000,
        destination_port=port,
        reply_source=endpoint or destination,
        reply_destination=source,
        reply_source_port=port,
        reply_destination_port=40000,
    )


async def swept(engine: Engine, agent: Agent, ranges: Sequence[str], monkeypatch: Any) -> list[Flush]:
    """What is flushed in two sweeps of these ranges."""
    monkeypatch.setattr("controller.sweeps.SECOND_AFTER", 0.01)
    monkeypatch.setattr("controller.sweeps.RETRY_AFTER", 0.01)
    flushed: list[Flush] = []
    monkeypatch.setattr(engine.programs, "flush", lambda _node, flushes: flushed.extend(flushes))
    sweeps = Sweeps(engine.policies, engine.programs, agent)
    sweeps.wanted("node-1", [Range.parse(each) for each in ranges])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await sweeps.idle()
    return flushed


def test_exactly_the_denied_connections_are_ended_twice_looked_at(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, policy(ingress=[{"ports": [{"port": 80}]}]))
        await engine.attachments.attach("node-1", attachment(node, 1, "web", app="web"), unanswered)
        (record,) = engine.cluster.attachments.values()
        pod = record.addresses[0]
        agent = Agent(
            [
                tracked("192.0.2.1", pod, 80),
                tracked("192.0.2.1", pod, 81),
                tracked("192.0.2.1", "10.96.0.10", 81, endpoint=pod),
                tracked(pod, "192.0.2.1", 81),
            ]
        )
        flushed = await swept(engine, agent, [f"{pod}/32"], monkeypatch)
        assert agent.asked == [("node-1", [f"{pod}/32"])] * 2
        assert len(flushed) == 4
        destinations = [flush[1].destination for flush in flushed if isinstance(flush, tuple) and flush[1]]
        assert destinations == [Address.parse(pod), Address.parse("10.96.0.10")] * 2

    in_engine(tmp_path, scenario)


def test_connections_that_are_marked_as_denied_stay(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario(engine: Engine) -> None:
        node = await register(engine, 1)
        await apply(engine, policy())
        await engine.attachments.attach("node-1", attachment(node, 1, "web", app="web"), unanswered)
        (record,) = engine.cluster.attachments.values()
        pod = record.addresses[0]
        marked = tracked("192.0.2.1", pod, 80)
        marked.mark = Mark.DENIED
        agent = Agent([marked, tracked("192.0.2.2", pod, 80)])
        flushed = await swept(engine, agent, [f"{pod}/32"], monkeypatch)
        assert len(agent.asked) == 2
        sources = [flush[1].source for flush in flushed if isinstance(flush, tuple) and flush[1]]
        assert sources == [Address.parse("192.0.2.2")] * 2

    in_engine(tmp_path, scenario)


def test_an_agent_that_cannot_be_asked_is_asked_again(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        agent = Agent([], failures=2)
        await swept(engine, agent, ["10.244.0.2/32"], monkeypatch)
        assert len(agent.asked) == 4

    in_engine(tmp_path, scenario)


def test_what_is_wanted_at_the_very_end_of_a_sweep_is_swept(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario(engine: Engine) -> None:
        await register(engine, 1)
        agent = Agent([])

        async def listed(
            node: str, ranges: Sequence[str], seconds: float
        ) -> AsyncIterator[controller_pb2.TrackedConnection]:
            async for connection in agent(node, ranges, seconds):
                yield connection
            if len(agent.asked) == 2:
                sweeps.wanted(node, [Range.parse("10.244.0.3/32")])

        monkeypatch.setattr("controller.sweeps.SECOND_AFTER", 0.01)
        sweeps = Sweeps(engine.policies, engine.programs, listed)
        sweeps.wanted("node-1", [Range.parse("10.244.0.2/32")])
        await asyncio.sleep(0.01)
        await sweeps.idle()
        await asyncio.sleep(0.05)
        await sweeps.idle()
        assert [ranges for _, ranges in agent.asked] == [["10.244.0.2/32"]] * 2 + [["10.244.0.3/32"]] * 2

    in_engine(tmp_path, scenario)


def test_nobody_is_asked_about_a_node_that_is_forgotten(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario(engine: Engine) -> None:
        agent = Agent([], failures=1000)
        await swept(engine, agent, ["10.244.0.2/32"], monkeypatch)
        assert len(agent.asked) == 1

    in_engine(tmp_path, scenario)
