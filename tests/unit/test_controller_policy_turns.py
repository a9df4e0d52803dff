# SPDX-License-Identifier: Apache-2.0
"""What a policy means for many switches is handed out in turns: in which order, and that nobody is held up."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.changes import Done
from controller.engine import Engine
from sdn.model import parse
from sdn.policy.cells import Cell, CellKey, GuardKey
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import PolicyRef
from sdn.v1 import types_pb2
from tests.unit.services_engine import register, running_engine
from tests.unit.test_controller_policies import attachment, in_engine, policy, recorded, unanswered

NODES = 9
EVERYBODY = {"podSelector": {}, "policyTypes": ["Ingress"]}


class Handed:
    """What is handed to synchronizers, and in which iteration of the loop."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cells: dict[str, dict[CellKey, Cell]] = {}
        self.order: list[str] = []
        self.iterations: list[int] = []
        self._iteration = 0
        self._put = engine.programs.put_policies
        monkeypatch.setattr(engine.programs, "put_policies", self._put_policies)
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._count)
        for name in engine.programs.nodes():
            self.cells[name] = dict(engine.policies.engine.cells(name))

    def _count(self) -> None:
        self._iteration += 1
        self._loop.call_soon(self._count)

    def _put_policies(
        self, node: str, cells: Mapping[CellKey, Cell | None], done: Done | None = None
    ) -> None:
        self.order.append(node)
        self.iterations.append(self._iteration)
        there = self.cells.setdefault(node, {})
        for key, cell in cells.items():
            if cell is None:
                there.pop(key, None)
            else:
                there[key] = cell
        self._put(node, cells, done)


def node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of the loop has time for one node."""
    for method in (PolicyEngine.take_new, PolicyEngine.take_waiting):
        monkeypatch.setattr(PolicyEngine, method.__name__, functools.partialmethod(method, 1))
    monkeypatch.setattr("controller.turns.TURN_SECONDS", -1.0)


async def populate(engine: Engine) -> list[types_pb2.NodeInfo]:
    """Nodes with two pods each."""
    nodes = [await register(engine, number) for number in range(1, NODES + 1)]
    for node in nodes:
        for number in (1, 2):
            pod = attachment(node, number, f"{node.name}-{number}", app="web")
            await engine.attachments.attach(node.name, pod, unanswered)
    return nodes


def in_turns(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[Engine, list[types_pb2.NodeInfo]], Awaitable[None]],
) -> None:
    async def run() -> None:
        async with running_engine(folder) as engine:
            nodes = await populate(engine)
            node_by_node(monkeypatch)
            await scenario(engine, nodes)

    asyncio.run(run())


def declare(engine: Engine, name: str = "all", **spec: Any) -> None:
    """A policy for all pods, without the store in between: the test sees what happens in the same turn of the loop."""
    engine.declarations.stored(parse(policy(name, **{**EVERYBODY, **spec})))


def test_between_two_turns_of_the_loop_no_more_is_handed_out_than_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, _nodes: list[types_pb2.NodeInfo]) -> None:
        handed = Handed(engine, monkeypatch)
        declare(engine, ingress=[{"ports": [{"port": 80}]}])
        assert len(handed.order) <= 1
        await engine.policies.handed_out()
        assert sorted(handed.order) == sorted(engine.programs.nodes())
        assert max(Counter(handed.iterations).values()) == 1
        for node in engine.programs.nodes():
            assert handed.cells[node] == engine.policies.engine.cells(node) != {}

    in_turns(tmp_path, monkeypatch, scenario)


def test_a_change_for_few_is_handed_out_at_once(tmp_path: Path) -> None:
    async def scenario(engine: Engine) -> None:
        await populate(engine)
        order = recorded(engine)
        declare(engine)
        assert len(order) == NODES
        assert not engine.policies.engine.waiting

    in_engine(tmp_path, scenario)


def test_a_pods_policies_go_before_its_flows_where_many_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, nodes: list[types_pb2.NodeInfo]) -> None:
        last = nodes[-1]
        declare(engine)
        assert engine.policies.engine.waits(last.name)
        order = recorded(engine)
        record = engine.cluster.attachments[last.name, f"{last.name}-1", "eth0"]
        new = attachment(last, 3, "new", app="web")
        await engine.attachments.attach(last.name, new, unanswered)
        await engine.policies.handed_out()
        of_last = [parts for node, parts in order if node == last.name]
        assert of_last[-1] == [("pod", new.container_id, "eth0")]
        guards = [index for index, parts in enumerate(of_last) if ("policy", GuardKey(18)) in parts]
        assert guards
        assert guards[0] < len(of_last) - 1
        # What waited for the others goes with it, or went before.
        assert any(("policy", GuardKey(record.ofport)) in parts for parts in of_last[: guards[0] + 1])

    in_turns(tmp_path, monkeypatch, scenario)


def test_a_pods_policies_are_taken_back_after_its_flows_where_many_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, nodes: list[types_pb2.NodeInfo]) -> None:
        last = nodes[-1]
        declare(engine)
        await engine.policies.handed_out()
        declare(engine, "more", ingress=[{"ports": [{"port": 80}]}])
        order = recorded(engine)
        await engine.attachments.detach(last.name, f"{last.name}-2", "eth0", unanswered)
        await engine.loadbalancing.idle()
        await engine.policies.handed_out()
        of_last = [parts for node, parts in order if node == last.name]
        flows = of_last.index([("pod", f"{last.name}-2", "eth0")])
        (guard,) = [index for index, parts in enumerate(of_last) if ("policy", GuardKey(17)) in parts]
        assert guard > flows

    in_turns(tmp_path, monkeypatch, scenario)


def test_whoever_asks_whether_all_is_in_force_is_told_after_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, nodes: list[types_pb2.NodeInfo]) -> None:
        last = nodes[-1].name
        declare(engine)
        order = recorded(engine)
        engine.domains._settled(last, unanswered)
        policies, settled = [parts for node, parts in order if node == last]
        assert ("policy", GuardKey(16)) in policies
        assert settled == [("mark", "settled")]
        assert not engine.policies.engine.waits(last)

    in_turns(tmp_path, monkeypatch, scenario)


def test_changes_that_come_while_others_wait_are_merged_and_kept_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, _nodes: list[types_pb2.NodeInfo]) -> None:
        handed = Handed(engine, monkeypatch)
        declare(engine)
        await asyncio.sleep(0)
        declare(engine, "more", ingress=[{"ports": [{"port": 80}]}])
        await asyncio.sleep(0)
        engine.declarations.removed("NetworkPolicy", "default", "all")
        await engine.policies.handed_out()
        for node in engine.programs.nodes():
            assert handed.cells[node] == engine.policies.engine.cells(node) != {}
        assert max(Counter(handed.order).values()) <= 3
        assert min(Counter(handed.order).values()) == 1

    in_turns(tmp_path, monkeypatch, scenario)


def test_what_waits_for_a_node_that_is_forgotten_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, nodes: list[types_pb2.NodeInfo]) -> None:
        last = nodes[-1].name
        handed = Handed(engine, monkeypatch)
        declare(engine)
        await engine.registrations.forget(last)
        handed.order.clear()
        await engine.policies.handed_out()
        assert last not in handed.order
        assert not engine.policies.engine.waits(last)

    in_turns(tmp_path, monkeypatch, scenario)


def test_a_switch_whose_policies_wait_is_not_synchronized_and_whoever_was_told_is_told_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine, nodes: list[types_pb2.NodeInfo]) -> None:
        last = nodes[-1].name
        declare(engine)
        assert engine.policies.waits(last)
        # Nothing comes of it after all.
        engine.policies.engine.remove_policy(PolicyRef("NetworkPolicy", "default", "all"))
        told: list[str] = []
        monkeypatch.setattr(engine.programs, "_on_status", told.append)
        # A switch that has confirmed what was handed to it before.
        monkeypatch.setattr(engine.programs, "settled", lambda _node, done: done(None))
        await engine.policies.handed_out()
        assert told == [last]
        assert not engine.policies.waits(last)

    in_turns(tmp_path, monkeypatch, scenario)
