# SPDX-License-Identifier: Apache-2.0
"""A controller that has taken a node before it was told all that the one before had stored of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from controller import ledger
from controller.applying import Applying
from controller.engine import Engine
from controller.follower import Follower
from controller.records import ATTACHMENTS
from controller.services.sessions import ControllerService
from controller.store import Put
from sdn.v1 import controller_pb2, controller_pb2_grpc, types_pb2
from tests.switch.controller_process import attachment
from tests.unit.services_engine import register
from tests.unit.several_engines import several, until
from tests.unit.test_controller_following import until_equal
from tests.unit.test_controller_missed_changes import deaf

#: Longer than anything takes that waits for nothing.
_A_WHILE = 0.3


def hears(engine: Engine) -> None:
    """It is told all that it was not."""
    engine._follower = Follower(engine.ledger._store, engine.ledger, Applying(engine).apply)
    engine._follower.start()


@asynccontextmanager
async def session(
    folder: Path, engine: Engine, info: types_pb2.NodeInfo
) -> AsyncIterator[grpc.aio.StreamStreamCall]:
    """An agent's session at a controller, which has welcomed it."""
    server = grpc.aio.server()
    controller_pb2_grpc.add_ControllerServicer_to_server(
        ControllerService(engine, "heir", (), "tcp", 6653), server
    )
    server.add_insecure_port(f"unix:{folder}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
        stream = controller_pb2_grpc.ControllerStub(channel).Session(timeout=20)
        hello = controller_pb2.Hello(node=info)
        await stream.write(controller_pb2.AgentMessage(hello=hello))
        assert (await stream.read()).HasField("welcome")
        yield stream
        stream.cancel()
    await server.stop(None)


def run(
    folder: Path,
    scenario: Callable[[Engine, grpc.aio.StreamStreamCall, types_pb2.Attachment], Awaitable[None]],
) -> None:
    """With the heir of a node, its agent's session there, and a pod that the heir was not told of."""

    async def both() -> None:
        async with several(folder, "a", "b") as (first, second):
            info = await register(first, 1)
            await first.ownership.settle("node-1")
            await until_equal(first, second)
            owner, heir = (first, second) if first.ownership.owns("node-1") else (second, first)
            for engine in (first, second):
                # Nothing is taken but by this test.
                engine.ownership.stop()
            await deaf(heir)
            pod = attachment(info, 1)
            await owner.attachments.attach("node-1", pod, lambda _refused: None)
            await heir.ownership._take(["node-1"])
            assert heir.ownership.owns("node-1")
            assert not heir.cluster.attachments
            async with session(folder, heir, info) as stream:
                await scenario(heir, stream, pod)

    asyncio.run(both())


def stored(engine: Engine) -> int:
    return len(engine.ledger._store.list_prefix(ATTACHMENTS).entries)


def test_a_pod_that_went_before_its_nodes_heir_was_told_of_it_is_gone(tmp_path: Path) -> None:
    async def scenario(heir: Engine, stream: grpc.aio.StreamStreamCall, _pod: types_pb2.Attachment) -> None:
        await stream.write(controller_pb2.AgentMessage(full_state=controller_pb2.FullState(sequence=1)))
        await asyncio.sleep(_A_WHILE)
        hears(heir)
        await until(lambda: not stored(heir), "what is stored of it to go")
        await until(lambda: heir.ledger.followed_to == heir.ledger._store.revision(), "all to be told")
        assert not heir.cluster.attachments

    run(tmp_path, scenario)


def test_who_is_not_told_for_long_sends_the_agent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "SEEN_SECONDS", _A_WHILE)

    async def scenario(heir: Engine, stream: grpc.aio.StreamStreamCall, pod: types_pb2.Attachment) -> None:
        detach = controller_pb2.Detach(
            sequence=1, container_id=pod.container_id, interface_name=pod.interface_name
        )
        await stream.write(controller_pb2.AgentMessage(detach=detach))
        # Nothing waits for what is waited for here.
        async with asyncio.timeout(_A_WHILE):
            async with heir.ledger.lock:
                pass
        with pytest.raises(grpc.aio.AioRpcError, match="Node node-1") as told:
            while await stream.read() is not grpc.aio.EOF:
                pass
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stored(heir)

    run(tmp_path, scenario)


def test_the_wait_ends_as_soon_as_all_is_told(tmp_path: Path) -> None:
    async def both() -> None:
        async with several(tmp_path, "a") as (engine,):
            store = engine.ledger._store
            await until(lambda: engine.ledger.followed_to == store.revision(), "all to be told")
            now = store.revision()
            assert await engine.ledger.caught_up(now, 0)
            assert not await engine.ledger.caught_up(now + 1, 0.01)
            waiting = asyncio.create_task(engine.ledger.caught_up(now + 1, 60))
            await asyncio.sleep(0)
            store.write([Put("/sdn/sequence", b"")])
            async with asyncio.timeout(20):
                assert await waiting

    asyncio.run(both())
