# SPDX-License-Identifier: Apache-2.0
"""Attachments as agents report them, and what their switch is told of those who had their addresses before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.attachments import SupersededError
from controller.changes import Change
from controller.engine import Engine
from controller.stale import StaleConnections
from controller.store import ConflictError, StoreError
from tests.switch.controller_process import attachment
from tests.unit.services_engine import register, running_engine
from tests.unit.several_engines import until


def told(engine: Engine, node: str, monkeypatch: pytest.MonkeyPatch) -> list[Change]:
    """What the node's synchronizer is told from now on."""
    synchronizer = engine.programs.synchronizer(node)
    assert synchronizer is not None
    changes: list[Change] = []

    def submit_all(more: Sequence[Change]) -> None:
        changes.extend(more)

    monkeypatch.setattr(synchronizer, "submit_all", submit_all)
    return changes


def due(changes: Sequence[Change]) -> float | None:
    """When connections of pods that are gone are to be cut after these changes; None: there are none."""
    stale = StaleConnections()
    for change in changes:
        stale.gone(change.gone)
        stale.back(change.fresh)
    return stale.due()


def test_an_address_that_goes_on_within_one_full_state_is_the_new_pods_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with running_engine(tmp_path) as engine:
            node = await register(engine, 1)
            attachments = engine.attachments
            former = attachment(node, 1)
            await attachments.attach("node-1", former, lambda _refused: None)
            changes = told(engine, "node-1", monkeypatch)
            heir = attachment(node, 2, container_id="next", addresses=former.addresses)
            await attachments.full_state("node-1", [heir], lambda _refused: None)
            await engine.loadbalancing.idle()
            assert {str(address) for change in changes for address in change.gone} == set(former.addresses)
            assert due(changes) is None

            # One that has only other labels has connections of its own.
            del changes[:]
            heir.labels["app"] = "web"
            await attachments.full_state("node-1", [heir], lambda _refused: None)
            assert [change.fresh for change in changes if change.part[0] == "pod"] == [()]
            await attachments.full_state("node-1", [], lambda _refused: None)
            await engine.loadbalancing.idle()
            assert due(changes) is not None

    asyncio.run(run())


@pytest.mark.parametrize(
    "problem", [StoreError("away"), ConflictError("/sdn/sequence", 1, 2)], ids=["store", "conflict"]
)
def test_what_a_former_stream_said_is_not_stored_after_what_the_newer_one_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """The write fails once, and when it is tried again the agent has another stream, which has said what it has."""

    async def run() -> None:
        async with running_engine(tmp_path) as engine:
            node = await register(engine, 1)
            attachments, write = engine.attachments, engine.ledger.write
            live = [True]

            async def fails_once(*arguments: Any, **named: Any) -> int:
                monkeypatch.setattr(engine.ledger, "write", write)
                live[0] = False
                raise problem

            monkeypatch.setattr(engine.ledger, "write", fails_once)
            with pytest.raises(SupersededError, match="Node node-1"):
                await attachments.attach(
                    "node-1", attachment(node, 1), lambda _refused: None, lambda: live[0]
                )
            assert not engine.cluster.attachments_on("node-1")

            kept = attachment(node, 2)
            await attachments.full_state("node-1", [kept], lambda _refused: None)
            for late in (
                attachments.full_state("node-1", [], lambda _refused: None, live=lambda: False),
                attachments.detach("node-1", kept.container_id, "eth0", lambda _refused: None, lambda: False),
            ):
                with pytest.raises(SupersededError):
                    await late
            assert [record.container_id for record in engine.cluster.attachments_on("node-1")] == [
                kept.container_id
            ]

    asyncio.run(run())


@pytest.mark.parametrize("problem", ["away", "in doubt", "conflict"])
def test_what_was_refused_and_could_not_be_taken_back_goes_with_its_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    async def run() -> None:
        async with running_engine(tmp_path) as engine:
            node = await register(engine, 1)
            pod = attachment(node, 1)
            await engine.attachments.attach("node-1", pod, lambda _refused: None)
            (record,) = engine.cluster.attachments.values()
            answers: list[str | None] = []

            def fails(_operations: object) -> int:
                if problem == "conflict":
                    raise ConflictError("/sdn/other", 1, 2)
                raise StoreError("away")

            with monkeypatch.context() as away:
                away.setattr(engine.ledger._store, "write", fails)
                # Of a write that nobody confirmed before.
                engine.ledger._in_doubt = problem == "in doubt"
                engine.attachments._confirmed(record, answers.append, "a full table")
                await until(lambda: bool(answers), "whoever waits to be told")
            assert answers == ["a full table"]
            assert engine.cluster.attachments
            await engine.attachments.detach("node-1", pod.container_id, "eth0", answers.append)
            stored = engine.ledger._store.list_prefix("/sdn/attachments/").entries
            assert not stored
            assert not engine.cluster.attachments

    asyncio.run(run())
