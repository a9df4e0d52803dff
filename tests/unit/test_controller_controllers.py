# SPDX-License-Identifier: Apache-2.0
"""What is shown of controllers: leases and revisions as each says of itself, and what each owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import msgspec
import pytest

from controller.ha.membership import Lease
from controller.records import OwnerRecord, encode, member_key, owner_key
from controller.store import Delete, Put
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.unit.services_engine import apply, service
from tests.unit.several_engines import PATIENCE
from tests.unit.several_services import Served, member_at, served

Shown = dict[str, inspection_pb2.ControllerStatus]


async def until(controller: Served, condition: Callable[[Shown], bool], what: str) -> Shown:
    """Wait until a controller shows it; AssertionError with what it shows instead."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition(shown := await controller.controllers()):
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}: {shown}"
        await asyncio.sleep(0.02)
    return shown


def all_well(shown: Shown) -> bool:
    """There are three, which answer and have everything."""
    return len(shown) == 3 and not any(one.unanswering or one.lag for one in shown.values())


def test_each_tells_of_its_lease_whichever_is_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "a", "b", "c") as (first, second, third):
            first.engine.lease = lambda: Lease(4.25, 5.0)
            second.engine.lease = lambda: Lease(0.0, 6.0)
            for asked in (first, second, third):
                shown = await until(asked, all_well, "all")
                told = {name: (one.lease_left_ms, one.lease_ms) for name, one in shown.items()}
                assert told == {"a": (4250, 5000), "b": (0, 6000), "c": (0, 0)}
                assert [one.HasField("lease_left_ms") for one in shown.values()] == [True, True, False]
                assert all(one.HasField("lag") and one.revision for one in shown.values())

    asyncio.run(run())


def test_one_that_does_not_hear_the_store_any_more_is_behind_whichever_is_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "a", "b") as (first, second):
            await until(first, lambda shown: len(shown) == 2 and not shown["b"].lag, "b to have all")
            second.engine._follower.stop()
            await asyncio.to_thread(second.engine._follower._thread.join)
            for name in ("one", "two", "three"):
                await apply(first.engine, service(name))
            for asked in (first, second):
                shown = await until(asked, lambda shown: not shown["a"].lag, "a to have all")
                assert shown["b"].lag >= 3
                assert shown["b"].revision + shown["b"].lag >= shown["a"].revision

    asyncio.run(run())


def test_one_that_does_not_hear_its_own_changes_is_behind_by_them(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "a") as (alone,):
            await until(alone, lambda shown: not shown["a"].lag, "it to have all")
            alone.engine._follower.stop()
            await asyncio.to_thread(alone.engine._follower._thread.join)
            await apply(alone.engine, service("web"))
            assert (await alone.controllers())["a"].lag >= 1

    asyncio.run(run())


def test_one_that_does_not_answer_is_shown_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "a") as (first,):
            first.store.write([Put(member_key("b"), encode(member_at(tmp_path, "b")))])
            shown = await until(first, lambda shown: "b" in shown, "b")
            assert shown["b"].unanswering
            assert not any(shown["b"].HasField(field) for field in ("lag", "revision", "lease_left_ms"))
            assert not shown["a"].unanswering

    asyncio.run(run())


class Former(inspection_pb2_grpc.InspectionServicer):
    """A controller of a build that knows nothing of all this."""

    def __init__(self, name: str, **fields: int) -> None:
        self._name = name
        self._fields = fields

    async def ListControllers(  # noqa: N802
        self, request: inspection_pb2.ListControllersRequest, context: object
    ) -> inspection_pb2.ListControllersResponse:
        listed = [
            inspection_pb2.ControllerStatus(name="a", alive=True),
            inspection_pb2.ControllerStatus(name=self._name, alive=True, **self._fields),
        ]
        return inspection_pb2.ListControllersResponse(controllers=listed, answered_by=self._name)


@pytest.mark.parametrize(("fields", "lag"), [({}, False), ({"revision": 1}, True)])
def test_one_of_a_former_build_says_less(tmp_path: Path, fields: dict[str, int], lag: bool) -> None:
    async def run() -> None:
        async with served(tmp_path, "a") as (first,):
            former = grpc.aio.server()
            inspection_pb2_grpc.add_InspectionServicer_to_server(Former("b", **fields), former)
            former.add_insecure_port(f"unix:{tmp_path}/b")
            await former.start()
            first.store.write([Put(member_key("b"), encode(member_at(tmp_path, "b")))])
            shown = await until(first, lambda shown: "b" in shown, "b")
            assert not shown["b"].unanswering
            assert not shown["b"].HasField("lease_left_ms")
            assert shown["b"].HasField("lag") is lag
            await former.stop(None)

    asyncio.run(run())


def test_another_one_at_its_address_does_not_speak_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "a", "b") as (first, second):
            second.store.write([Put(member_key("c"), encode(member_at(tmp_path, "b")))])
            shown = await until(first, lambda shown: "c" in shown, "c")
            assert shown["c"].unanswering

    asyncio.run(run())


def test_what_a_former_start_owned_is_not_counted(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "a") as (first,):
            start, another = (
                encode(msgspec.structs.replace(member_at(tmp_path, "b"), incarnation=incarnation))
                for incarnation in ("b/1", "b/2")
            )
            owned = OwnerRecord(controller="b", incarnation="b/1")
            first.store.write(
                [
                    Put(member_key("b"), start),
                    Put(owner_key("node-8"), encode(owned)),
                    Put(owner_key("node-9"), encode(owned)),
                ]
            )
            await until(first, lambda shown: "b" in shown and shown["b"].switches == 2, "what b owns")
            first.store.write([Put(member_key("b"), another)])
            shown = await until(first, lambda shown: shown["b"].switches != 2, "b to have begun anew")
            assert (shown["b"].alive, shown["b"].switches) == (True, 0)
            first.store.write([Delete(member_key("b"))])
            shown = await until(first, lambda shown: not shown["b"].alive, "b to have gone")
            assert shown["b"].switches == 2

    asyncio.run(run())
