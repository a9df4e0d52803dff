# SPDX-License-Identifier: Apache-2.0
"""Verdicts through gRPC as people and agents get them, from a real engine and its services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from controller.engine import Engine
from controller.services.inspection import InspectionService
from controller.services.sessions import ControllerService
from controller.verdicts import Selection, Verdicts
from sdn.v1 import controller_pb2, controller_pb2_grpc, inspection_pb2, inspection_pb2_grpc, types_pb2
from tests.switch.controller_process import node_info
from tests.unit.services_engine import register, running_engine
from tests.unit.test_controller_verdicts import RULINGS, settled, sighting


@dataclass
class Served:
    """A controller's services in this process, and a client's side of them."""

    engine: Engine
    sessions: ControllerService
    verdicts: Verdicts
    inspection: inspection_pb2_grpc.InspectionAsyncStub
    controller: controller_pb2_grpc.ControllerAsyncStub


@asynccontextmanager
async def served(folder: Path, backlog: int = 100) -> AsyncIterator[Served]:
    async with running_engine(folder) as engine:
        verdicts = Verdicts(backlog)
        verdicts.node_of = lambda datapath_id: {1: "node-1", 2: "node-2"}.get(datapath_id, "")
        verdicts.ruling_of = lambda seen: RULINGS.get(seen.rule)
        sessions = ControllerService(engine, "controller-1", (), "tcp", 6653)
        verdicts.to_agent = sessions.send_verdicts
        sessions.on_verdicts_lost = verdicts.untold
        server = grpc.aio.server()
        controller_pb2_grpc.add_ControllerServicer_to_server(sessions, server)
        inspection_pb2_grpc.add_InspectionServicer_to_server(InspectionService(engine, verdicts), server)
        server.add_insecure_port(f"unix:{folder}/s")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
            yield Served(
                engine,
                sessions,
                verdicts,
                inspection_pb2_grpc.InspectionStub(channel),
                controller_pb2_grpc.ControllerStub(channel),
            )
        await server.stop(None)


def watch(client: Served, **fields: object) -> grpc.aio.UnaryStreamCall:
    return client.inspection.WatchVerdicts(inspection_pb2.WatchVerdictsRequest(**fields), timeout=60)


def test_the_last_verdicts_are_shown_and_with_follow_those_that_come(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as client:
            await register(client.engine, 1)
            for number in (1, 2):
                client.verdicts.hand_on(sighting(number=number))
            client.verdicts.hand_on(sighting(number=3, switch=2))
            await settled(client.verdicts)
            assert [record.source_port async for record in watch(client)] == [1, 2, 3]
            assert [record.source_port async for record in watch(client, node="node-1")] == [1, 2]
            following = watch(client, node="node-1", follow=True)
            assert [(await following.read()).source_port for _ in range(2)] == [1, 2]
            client.verdicts.hand_on(sighting(number=4))
            assert (await following.read()).source_port == 4
            following.cancel()
            while client.verdicts._readers:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_node_that_nobody_registered_is_not_found(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as client:
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await watch(client, node="node-9").read()
            assert told.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(run())


def test_a_watcher_that_does_not_read_is_told_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, backlog=50) as client:
            following = watch(client, follow=True)
            quick = client.verdicts.open(Selection())
            while len(client.verdicts._readers) < 2:
                await asyncio.sleep(0.01)
            # Far more than what the stream itself may hold.
            for number in range(20_000):
                client.verdicts.hand_on(sighting(number=number % 60_000))
                await settled(client.verdicts)
                await quick.next()
                if number % 100 == 0:
                    await asyncio.sleep(0)
            with pytest.raises(grpc.aio.AioRpcError) as told:
                while True:
                    await following.read()
            assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "fell 50 records behind" in str(told.value.details())

    asyncio.run(run())


async def agent_of(client: Served) -> grpc.aio.StreamStreamCall:
    """A session of node-1's agent."""
    session = client.controller.Session(timeout=60)
    hello = controller_pb2.Hello(node=node_info(1))
    await session.write(controller_pb2.AgentMessage(hello=hello))
    assert (await session.read()).HasField("welcome")
    return session


async def told(session: grpc.aio.StreamStreamCall) -> list[types_pb2.VerdictRecord]:
    """The next verdicts that an agent gets."""
    message = await session.read()
    while not message.HasField("verdicts"):
        message = await session.read()
    return list(message.verdicts.records)


def test_an_agent_gets_the_verdicts_of_its_node(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as client:
            client.verdicts.hand_on(sighting(number=1))
            await settled(client.verdicts)
            session = await agent_of(client)
            client.verdicts.hand_on(sighting(number=2))
            client.verdicts.hand_on(sighting(number=3, switch=2))
            (record,) = await told(session)
            assert (record.node, record.source_port, record.suppressed) == ("node-1", 2, 1)
            session.cancel()

    asyncio.run(run())


def test_what_did_not_reach_an_agent_when_its_session_ended_is_counted(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as client:
            first = await agent_of(client)
            session = client.sessions._sessions["node-1"]
            assert client.sessions.send_verdicts("node-1", [types_pb2.VerdictRecord(suppressed=2)])
            session.end()
            # It is still there, and takes nothing more.
            client.verdicts.hand_on(sighting(number=1))
            client.verdicts._take()
            assert client.sessions.connected("node-1")
            while client.sessions.connected("node-1"):
                await asyncio.sleep(0.01)
            again = await agent_of(client)
            client.verdicts.hand_on(sighting(number=2))
            (record,) = await told(again)
            assert (record.source_port, record.suppressed) == (2, 3 + 1)
            again.cancel()
            first.cancel()

    asyncio.run(run())
