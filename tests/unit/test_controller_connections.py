# SPDX-License-Identifier: Apache-2.0
"""Where a node's switch is told to connect to: what all controllers say alike, and when they say it anew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.engine import Engine
from controller.ha import members as members_module
from controller.ha import ownership as ownership_module
from controller.ha.connections import MOST_CONNECTED, candidates, connected
from controller.ha.members import Members
from controller.records import encode, member_key
from controller.services.sessions import ControllerService
from controller.store import Entry, Put, open_store
from sdn.v1 import controller_pb2
from tests.unit.services_engine import register
from tests.unit.several_engines import gone, member, one_of_several, several, until

NAMES = [f"c{number}" for number in range(MOST_CONNECTED + 3)]


def members(*names: str) -> Members:
    found = Members(None)
    for name in names:
        found.member_stored(name, Entry(member_key(name), encode(member(name)), 5))
    return found


def targets(names: Sequence[str] | frozenset[str]) -> list[str]:
    return sorted(f"tcp:{name}:6653" for name in names)


def owner_of(engine: Engine, node: str) -> str:
    owner = engine.ownership.owner(node)
    assert owner is not None
    return owner.controller


def test_few_controllers_are_all_connected_also_those_that_have_just_gone() -> None:
    few = NAMES[:MOST_CONNECTED]
    found = members(*few)
    assert found.openflow_targets("node-1", None) == targets(few)
    found.member_stored(few[0], None)
    assert found.openflow_targets("node-1", few[1]) == targets(few)


def test_from_many_to_few_no_switch_gets_more_than_so_many() -> None:
    many = NAMES[: MOST_CONNECTED + 1]
    found = members(*many)
    found.member_stored(many[0], None)
    assert found.openflow_targets("node-1", None) == targets(many[1:])
    found.member_stored(many[1], None)
    assert found.openflow_targets("node-1", None) == targets(many[1:])


def test_of_many_the_owner_is_connected_wherever_it_ranks_and_who_has_gone_is_not() -> None:
    found = members(*NAMES)
    for owner in NAMES:
        told = found.openflow_targets("node-1", owner)
        assert len(told) == MOST_CONNECTED
        assert f"tcp:{owner}:6653" in told
    gone = min(candidates("node-1", frozenset(NAMES)))
    found.member_stored(gone, None)
    told = found.openflow_targets("node-1", gone)
    assert len(told) == MOST_CONNECTED
    assert f"tcp:{gone}:6653" not in told


def test_many_controllers_say_the_same_and_a_switch_goes_to_one_that_is_connected(tmp_path: Path) -> None:
    nodes = [f"node-{number}" for number in range(1, 13)]

    async def scenario() -> None:
        async with several(tmp_path, *NAMES) as engines:

            def settled() -> bool:
                return all(
                    engine.ownership.owner(node) is not None
                    and engine.ownership.owners() == engines[0].ownership.owners()
                    and engine.ownership.members.all().keys() == engines[0].ownership.members.all().keys()
                    for engine in engines
                    for node in nodes
                )

            def said(node: str) -> list[str]:
                first, *others = (engine.ownership.openflow_targets(node) for engine in engines)
                assert all(other == first for other in others)
                return first

            await until(lambda: all(len(e.ownership.members.all()) == len(NAMES) for e in engines), "all")
            for number in range(1, len(nodes) + 1):
                await register(engines[0], number)
            await until(settled, "an owner of each node")
            there = frozenset(NAMES)
            for node in nodes:
                owner = owner_of(engines[0], node)
                assert owner in candidates(node, there)
                assert said(node) == targets(connected(node, there, owner))

            leaving = owner_of(engines[0], "node-1")
            before = {node: said(node) for node in nodes}
            lost = [node for node in nodes if owner_of(engines[0], node) == leaving]
            finder = next(engine for engine in engines if engine.ownership.members.name != leaving)
            finder.ownership.silent(leaving, f"{leaving}/1", "as it seems")
            await until(
                lambda: settled() and all(owner_of(engines[0], node) != leaving for node in lost),
                "a takeover",
            )
            for node in lost:
                assert f"tcp:{owner_of(engines[0], node)}:6653" in before[node]
                assert said(node) == before[node], "nothing is connected anew"

    asyncio.run(scenario())


def test_a_controller_that_has_gone_is_forgotten_in_time_without_any_other_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (members_module, ownership_module):
        monkeypatch.setattr(module, "LINGER_SECONDS", 0.5)

    async def scenario() -> None:
        store = open_store(f"sqlite://{tmp_path}/store.db")
        try:
            async with one_of_several(store, member("a")) as only:
                service = ControllerService(only, "a", (), "tcp", 6653)
                context: Any = None
                store.write([Put(member_key("b"), encode(member("b")))])
                await until(lambda: len(only.ownership.members.all()) == 2, "both")
                words = aiter(service.WatchOwner(controller_pb2.WatchOwnerRequest(node="node-1"), context))
                assert list((await anext(words)).openflow_targets) == targets(["a", "b"])
                gone(store, "b")
                left = await asyncio.wait_for(anext(words), 20)
                assert list(left.controllers) == ["a:50051"]
                assert list(left.openflow_targets) == targets(["a", "b"]), "it may be back in a moment"
                last = await asyncio.wait_for(anext(words), 20)
                assert list(last.openflow_targets) == targets(["a"])
        finally:
            store.close()

    asyncio.run(scenario())
