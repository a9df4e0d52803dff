# SPDX-License-Identifier: Apache-2.0
"""Several real engines on one store, as several controllers have them, in one loop; without switches and heartbeats."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from controller.allocation.network import ServiceNetwork
from controller.engine import Engine
from controller.ranges import ClusterRanges
from controller.records import MemberRecord, encode, member_key
from controller.store import Delete, Put, Store, open_store
from controller.switchboard import Switchboard
from tests.unit.services_engine import RANGES

PATIENCE = 20.0
POOL = (ipaddress.ip_network("192.0.2.0/29"),)


def member(name: str, incarnation: str = "", pipeline: int = 1) -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=incarnation or f"{name}/1",
        grpc_address=f"{name}:50051",
        openflow_target=f"tcp:{name}:6653",
        peers_address=f"{name}:6654",
        version="0",
        pipeline=pipeline,
    )


@asynccontextmanager
async def one_of_several(store: Store, me: MemberRecord) -> AsyncIterator[Engine]:
    """An engine that has loaded what the store holds, whose record stands."""
    store.write([Put(member_key(me.name), encode(me))])
    switchboard = Switchboard()
    services = ServiceNetwork(serve_dns=False, load_balancer_ranges=POOL)
    engine = Engine(store, ClusterRanges(RANGES), switchboard, services, me)
    try:
        await engine.load()
        engine.ownership.lease(True)
        yield engine
    finally:
        engine.stop()
        switchboard.close()


@asynccontextmanager
async def several(folder: Path, *names: str) -> AsyncIterator[Sequence[Engine]]:
    store = open_store(f"sqlite://{folder}/store.db")
    try:
        async with AsyncExitStack() as engines:
            yield [await engines.enter_async_context(one_of_several(store, member(name))) for name in names]
    finally:
        store.close()


def gone(store: Store, name: str) -> None:
    """A controller's lease has ended."""
    store.write([Delete(member_key(name))])


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until it is so; AssertionError with what never came."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)
