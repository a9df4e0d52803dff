# SPDX-License-Identifier: Apache-2.0
"""Addresses of names stay while connections to them are tracked, whichever controller a node belongs to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from controller.domains import LOOK_AGAIN, UNASKED_SECONDS
from controller.errors import UnavailableError
from controller.ha import colleagues
from controller.services import inspection
from sdn.v1 import controller_pb2
from tests.unit.domain_world import NAME, ONE, policy
from tests.unit.services_engine import register
from tests.unit.several_engines import PATIENCE, gone, several, until
from tests.unit.several_services import Served, served


def lists(one: Served, node: str, *destinations: str) -> None:
    """The agent of this node, and no other one, has its session with this controller; and its switch tracks these
    connections.
    """

    async def listed(
        asked: str, ranges: Sequence[str], seconds: float
    ) -> AsyncIterator[controller_pb2.TrackedConnection]:
        if asked != node:
            raise UnavailableError(f"the agent of Node {asked} is not connected")
        assert ranges == [f"{ONE}/32"]
        for destination in destinations:
            yield controller_pb2.TrackedConnection(
                protocol=6, source="10.244.0.2", destination=destination, reply_source=destination
            )

    one.engine.list_connections = listed


def test_an_address_that_is_in_use_on_another_controllers_node_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers come in parts.
    monkeypatch.setattr(inspection, "LISTED_AT_ONCE", 2)

    async def run() -> None:
        async with served(tmp_path, "a", "b") as both:
            await register(both[0].engine, 1)
            await until(lambda: all(one.engine.ownership.owner("node-1") for one in both), "an owner")
            owner, other = sorted(both, key=lambda one: not one.engine.ownership.owns("node-1"))
            lists(owner, "node-1", *["192.0.2.9"] * 5, ONE)
            lists(other, "none")
            await owner.engine.declarations.apply(policy("names", "*.example.com"), False)
            domains = other.engine.domains
            await until(lambda: bool(domains.patterns), "the policy at the other")
            monkeypatch.setattr(domains, "_looks_at", lambda _name: True)
            later = 0.0
            monkeypatch.setattr(domains, "_clock", lambda: time.monotonic() + later)
            seen = controller_pb2.Resolved(sequence=1, name=NAME, addresses=[ONE], ttl_seconds=60)
            domains.resolved("node-1", seen, lambda _refused: None)
            await until(lambda: bool(domains._told), "it to be told")
            for later in (200.0, 1000.0, UNASKED_SECONDS + 1000.0, 2 * UNASKED_SECONDS):
                await domains.look()
                assert domains._told, later
            lists(owner, "node-1", *["192.0.2.9"] * 4)
            later += LOOK_AGAIN
            await domains.look()
            assert not domains._told

    asyncio.run(run())


def test_one_of_several_controllers_looks_at_each_name(tmp_path: Path) -> None:
    names = [f"www{number}.example.com" for number in range(60)]

    async def run() -> None:
        async with several(tmp_path, "a", "b", "c") as engines:

            def lookers() -> list[int]:
                """How many look at each name."""
                looking = [sum(one.domains._looks_at(name) for one in engines) for name in names]
                assert all(any(one.domains._looks_at(name) for name in names) for one in engines)
                return looking

            await until(
                lambda: all(len(one.ownership.members.all()) == 3 for one in engines), "all to be there"
            )
            assert set(lookers()) == {1}
            gone(engines[0].ledger._store, "c")
            engines = engines[:2]
            await until(lambda: all(len(one.ownership.members.all()) == 2 for one in engines), "one to go")
            assert set(lookers()) == {1}

    asyncio.run(run())


@pytest.mark.parametrize("how", ["its agent is not there", "it does not say so", "nobody owns the node"])
def test_an_owner_that_cannot_tell_counts_as_one_with_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(colleagues, "ASK_SECONDS", 0.1)

    async def never(*_: object) -> AsyncIterator[controller_pb2.TrackedConnection]:
        await asyncio.sleep(PATIENCE)
        yield controller_pb2.TrackedConnection()

    async def run() -> None:
        async with served(tmp_path, "a", "b") as both:
            await register(both[0].engine, 1)
            await until(lambda: all(one.engine.ownership.owner("node-1") for one in both), "an owner")
            owner, other = sorted(both, key=lambda one: not one.engine.ownership.owns("node-1"))
            lists(owner, "none")
            if how == "it does not say so":
                owner.engine.list_connections = never
            if how == "nobody owns the node":
                monkeypatch.setattr(other.engine.ownership, "owner", lambda _node: None)
            with pytest.raises(UnavailableError, match=r"Node node-1"):
                async for _ in other.engine.list_anywhere("node-1", ["192.0.2.0/24"], 0.1):
                    pass

    asyncio.run(run())
