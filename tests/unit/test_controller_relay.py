# SPDX-License-Identifier: Apache-2.0
"""Whoever is asked about a switch that it is not connected to asks the switch's owner."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from controller.services import description
from controller.services.inspection import InspectionService
from controller.services.relay import HANDED_ON
from sdn.v1 import inspection_pb2
from tests.unit.services_engine import apply, register, service
from tests.unit.several_engines import until
from tests.unit.several_services import served

PATIENCE = 60


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        async for _ in call:
            pass
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(refusal.value.details())


def test_what_only_connected_controllers_can_read_the_owner_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connection(self: InspectionService, node: str, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self._engine.ownership.members.name} looks")

    async def read_switch(engine: Any, *_: object) -> Any:
        return [inspection_pb2.FlowEntry(why=engine.ownership.members.name)], []

    async def run() -> None:
        async with served(tmp_path, "a", "b") as both:
            ownership = both[0].engine.ownership
            await register(both[0].engine, 1)
            await until(
                lambda: all(one.engine.ownership.owner("node-1") is not None for one in both), "an owner"
            )
            owner = ownership.owner("node-1")
            assert owner is not None
            await apply(both[0].engine, service("web"))
            await until(
                lambda: all(one.engine.cluster.objects["Service"] for one in both), "the Service at both"
            )
            flows = inspection_pb2.ListFlowsRequest(node="node-1")
            groups = inspection_pb2.ListGroupsRequest(node="node-1")
            for one in both:
                me = one.engine.ownership.members.name
                for said in (one.inspection.ListFlows, one.inspection.ListGroups):
                    request = flows if said == one.inspection.ListFlows else groups
                    assert await refused(said(request, timeout=PATIENCE)) == f"{owner.controller} looks"
                    asked = said(request, timeout=PATIENCE, metadata=HANDED_ON)
                    assert await refused(asked) == f"{me} looks", "handed on once only"
                for node in ("", "node-1"):
                    about = inspection_pb2.DescribeServiceRequest(name="web", node=node)
                    answer = await one.inspection.DescribeService(about, timeout=PATIENCE)
                    assert [flow.why for flow in answer.nodes[0].flows] == [owner.controller]
                none = inspection_pb2.DescribeServiceRequest(name="none", node="node-1")
                with pytest.raises(grpc.aio.AioRpcError, match="Service default/none does not exist"):
                    await one.inspection.DescribeService(none, timeout=PATIENCE)
                policy = inspection_pb2.DescribePolicyRequest(
                    kind="NetworkPolicy", name="none", node="node-1"
                )
                with pytest.raises(grpc.aio.AioRpcError, match="NetworkPolicy default/none does not exist"):
                    await one.inspection.DescribePolicy(policy, timeout=PATIENCE)

    monkeypatch.setattr(InspectionService, "_connection", connection)
    monkeypatch.setattr(description, "read_switch", read_switch)
    asyncio.run(run())
