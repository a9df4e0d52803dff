# SPDX-License-Identifier: Apache-2.0
"""Several real engines on one store, each with the services that people and other controllers ask, in one loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import msgspec

from controller.engine import Engine
from controller.records import MemberRecord
from controller.services.inspection import InspectionService
from controller.store import Store, open_store
from controller.verdicts import Verdicts
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.unit.several_engines import member, one_of_several


@dataclass(frozen=True)
class Served:
    """One controller, and a client's side of it."""

    store: Store
    engine: Engine
    inspection: inspection_pb2_grpc.InspectionAsyncStub

    async def controllers(self) -> dict[str, inspection_pb2.ControllerStatus]:
        """All controllers as this one shows them, by name."""
        answer = await self.inspection.ListControllers(inspection_pb2.ListControllersRequest(), timeout=60)
        return {status.name: status for status in answer.controllers}


def member_at(folder: Path, name: str) -> MemberRecord:
    """A controller's record, which says that it serves on a unix socket in the folder."""
    return msgspec.structs.replace(member(name), grpc_address=f"unix:{folder}/{name}")


@asynccontextmanager
async def served(folder: Path, *names: str) -> AsyncIterator[Sequence[Served]]:
    async with AsyncExitStack() as stack:
        store = open_store(f"sqlite://{folder}/store.db")
        stack.callback(store.close)
        found = []
        for name in names:
            me = member_at(folder, name)
            engine = await stack.enter_async_context(one_of_several(store, me))
            service = InspectionService(engine, Verdicts())
            server = grpc.aio.server()
            inspection_pb2_grpc.add_InspectionServicer_to_server(service, server)
            server.add_insecure_port(me.grpc_address)
            await server.start()
            stack.push_async_callback(server.stop, None)
            stack.push_async_callback(service.close)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(me.grpc_address))
            found.append(Served(store, engine, inspection_pb2_grpc.InspectionStub(channel)))
        yield found
