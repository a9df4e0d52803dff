# SPDX-License-Identifier: Apache-2.0
"""A node that is another controller's is deleted only when that one says that no agent is connected, or has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from controller.services.inspection import InspectionService
from controller.services.switches import Switches
from sdn.v1 import inspection_pb2
from tests.unit.services_engine import register
from tests.unit.several_engines import gone, until
from tests.unit.several_services import Served, served

PATIENCE = 60
REQUEST = inspection_pb2.DeleteRequest(kind="Node", name="node-1")


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams on which controllers tell each other of their switches are broken."""

    async def follow(_self: Switches, _name: str) -> None:
        return

    monkeypatch.setattr(Switches, "_follow", follow)


@asynccontextmanager
async def owner_and_other(folder: Path) -> AsyncIterator[tuple[Served, Served]]:
    async with served(folder, "a", "b") as both:
        await register(both[0].engine, 1)
        await until(lambda: all(one.engine.ownership.owner("node-1") is not None for one in both), "an owner")
        await until(lambda: any(one.engine.ownership.owns("node-1") for one in both), "it to know")
        first, second = both
        for one in both:
            # Nobody takes over.
            one.engine.ownership.stop()
        yield (first, second) if first.engine.ownership.owns("node-1") else (second, first)


async def refused(one: Served) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await one.inspection.Delete(REQUEST, timeout=PATIENCE)
    return refusal.value.code(), str(refusal.value.details())


def test_what_nobody_has_told_the_owner_is_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with owner_and_other(tmp_path) as (owner, other):
            owner.engine.watchers.agent_connected = lambda _node: True
            code, text = await refused(other)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "its agent is connected" in text
            owner.engine.watchers.agent_connected = lambda _node: False
            await other.inspection.Delete(REQUEST, timeout=PATIENCE)
            assert "node-1" not in other.engine.cluster.nodes

    asyncio.run(run())


def test_an_owner_that_does_not_answer_may_have_the_agent_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_self: InspectionService, _request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no answer")

    monkeypatch.setattr(InspectionService, "ListSwitches", silent)

    async def run() -> None:
        async with owner_and_other(tmp_path) as (owner, other):
            name = owner.engine.ownership.members.name
            code, text = await refused(other)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert f"Controller {name}" in text
            assert "node-1" in other.engine.cluster.nodes
            gone(other.store, name)
            await until(lambda: other.engine.ownership.owner("node-1") is None, "the owner to be gone")
            await other.inspection.Delete(REQUEST, timeout=PATIENCE)
            assert "node-1" not in other.engine.cluster.nodes

    asyncio.run(run())


def test_an_owner_that_does_not_know_of_it_yet_has_not_said_that_no_agent_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_self: Switches, _own_only: bool) -> list[inspection_pb2.Switch]:
        return []

    monkeypatch.setattr(Switches, "list", nothing)

    async def run() -> None:
        async with owner_and_other(tmp_path) as (_owner, other):
            assert (await refused(other))[0] is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())
