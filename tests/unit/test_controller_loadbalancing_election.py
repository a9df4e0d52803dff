# SPDX-License-Identifier: Apache-2.0
"""Who announces LoadBalancer addresses."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from controller.allocation.network import load_balancer_ranges
from controller.loadbalancing.election import Candidates, elect
from tests.unit.services_engine import apply, endpoint_slice, register, running_engine, service

NODES = [f"node-{number}" for number in range(10)]
GRACE = 0.2


def test_everybody_elects_the_same_whatever_the_order() -> None:
    for name in ("web", "db", "mail"):
        assert elect("default", name, NODES) == elect("default", name, reversed(NODES))
    assert elect("default", "web", []) == ""


def test_the_work_is_spread() -> None:
    shares = Counter(elect("default", f"service-{number}", NODES) for number in range(2000))
    assert len(shares) == 10
    assert min(shares.values()) > 120


def test_when_a_node_goes_only_what_it_announced_moves() -> None:
    for number in range(500):
        before = elect("default", f"service-{number}", NODES)
        after = elect("default", f"service-{number}", NODES[1:])
        assert after == before if before != "node-0" else after != "node-0"


def test_a_short_absence_changes_nothing_and_a_long_one_does() -> None:
    async def run() -> None:
        changes: list[set[str]] = []
        candidates = Candidates(lambda _node: changes.append(set(candidates)), GRACE)
        candidates.connected("node-1", True)
        candidates.connected("node-1", False)
        candidates.connected("node-1", False)
        candidates.connected("node-1", True)
        await asyncio.sleep(2 * GRACE)
        assert changes == [{"node-1"}]
        candidates.connected("node-1", False)
        await asyncio.sleep(2 * GRACE)
        assert changes == [{"node-1"}, set()]
        candidates.connected("node-1", False)
        assert changes == [{"node-1"}, set()]

    asyncio.run(run())


def test_when_the_controller_starts_nodes_have_time_to_connect() -> None:
    async def run() -> None:
        changes: list[set[str]] = []
        candidates = Candidates(lambda _node: changes.append(set(candidates)), GRACE)
        candidates.expect("node-1")
        candidates.expect("node-2")
        candidates.expect("another-controllers")
        for node in ("node-1", "node-2"):  # This controller has taken them.
            candidates.connected(node, False)
        candidates.connected("node-1", True)
        assert set(candidates) == {"node-1", "node-2", "another-controllers"}
        await asyncio.sleep(2 * GRACE)
        assert set(candidates) == {"node-1", "another-controllers"}
        assert changes == [{"node-1", "another-controllers"}]

    asyncio.run(run())


def test_one_node_announces_and_its_end_is_an_event(tmp_path: Path) -> None:
    ranges = load_balancer_ranges(["192.0.2.0/24"], [], [])

    async def run() -> None:
        async with running_engine(tmp_path, load_balancer_ranges=ranges) as engine:
            for number in (1, 2):
                await register(engine, number)
                engine.states.candidates.connected(f"node-{number}", True)
            await apply(engine, service("web", type="LoadBalancer"))
            await apply(engine, service("local", type="LoadBalancer", externalTrafficPolicy="Local"))
            await apply(engine, endpoint_slice("a", "local", "192.168.1.1", nodeName="node-2"))
            web, local = ("default", "web"), ("default", "local")
            chosen = engine.states.announcer(web)
            assert engine.states.announcer(local) == "node-2"

            def announces(node: str) -> bool:
                state = engine.states.state(web, node)
                return state is not None and state.announce

            assert {node for node in ("node-1", "node-2") if announces(node)} == {chosen}
            engine.states.candidates.remove("node-2")
            assert engine.states.announcer(web) == "node-1"
            assert engine.states.announcer(local) == ""
            reasons = [event["reason"] for event in engine.events.about("Service", *local)]
            assert "AnnouncerElected" in reasons
            assert reasons[-1] == "NoAnnouncer"
            await apply(engine, service("web"))
            assert engine.states.announcer(web) == ""

    asyncio.run(run())


def test_a_node_that_was_away_for_long_is_not_waited_for_by_the_next_controller(tmp_path: Path) -> None:
    async def first() -> None:
        async with running_engine(tmp_path) as engine:
            for number in (1, 2, 3):
                await register(engine, number)
                engine.states.candidates.connected(f"node-{number}", True)
            engine.states.candidates.remove("node-2")
            engine.states.candidates.remove("node-3")
            engine.states.candidates.connected("node-3", True)
            await engine.absences.stored()

    async def second() -> None:
        async with running_engine(tmp_path) as engine:
            assert set(engine.states.candidates) == {"node-1", "node-3"}
            engine.states.candidates.connected("node-2", True)
            await engine.absences.stored()

    async def third() -> None:
        async with running_engine(tmp_path) as engine:
            assert set(engine.states.candidates) == {"node-1", "node-2", "node-3"}
            await engine.registrations.forget("node-1")

    for run in (first, second, third):
        asyncio.run(run())
