# SPDX-License-Identifier: Apache-2.0
"""Requests about one node's switch that this controller is not connected to, handed on to the switch's owner.

Each is handed on once only: for a moment two controllers may take each other for the owner.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from typing import Any, Final, TypeVar

import grpc

from controller.engine import Engine
from controller.errors import UnavailableError
from controller.ha.colleagues import Colleagues
from controller.services.description import PATIENCE
from sdn.v1 import controller_pb2, inspection_pb2, inspection_pb2_grpc

T = TypeVar("T")

#: Says of a request that another controller has handed it on.
HANDED_ON: Final = (("sdn-handed-on", "1"),)

#: Seconds that an owner is given: it may wait for its agents and its switch for `PATIENCE` itself, and say so then.
_OWNER_SECONDS: Final = PATIENCE + 2.0

Context = grpc.aio.ServicerContext[Any, Any]


class Relay:
    """Runs in the asyncio thread."""

    def __init__(self, engine: Engine, colleagues: Colleagues) -> None:
        self._engine = engine
        self._colleagues = colleagues

    def owner(self, node: str, context: Context) -> inspection_pb2_grpc.InspectionAsyncStub | None:
        """Who is to be asked about a node's switch; None: this controller, which may say that it cannot know."""
        handed_on = HANDED_ON[0] in map(tuple, context.invocation_metadata() or ())
        return None if handed_on else self._owner(node)

    def _owner(self, node: str) -> inspection_pb2_grpc.InspectionAsyncStub | None:
        synchronizer = self._engine.programs.synchronizer(node)
        if synchronizer is None or synchronizer.connection is not None or self._engine.ownership.owns(node):
            return None
        return self._colleagues.owner(node)

    async def service(self, namespace: str, name: str, node: str) -> inspection_pb2.ServiceOnNode | None:
        """What a switch's owner says of a Service on its node; None: this controller is to be asked.
        UnavailableError.
        """
        if (owner := self._owner(node)) is None:
            return None
        request = inspection_pb2.DescribeServiceRequest(namespace=namespace, name=name, node=node)
        answer = await _asked(
            owner.DescribeService(request, metadata=HANDED_ON, timeout=_OWNER_SECONDS), node
        )
        return next(iter(answer.nodes), None)

    async def policy(
        self, kind: str, namespace: str, name: str, node: str
    ) -> inspection_pb2.DescribePolicyResponse | None:
        """The same of a policy."""
        if (owner := self._owner(node)) is None:
            return None
        request = inspection_pb2.DescribePolicyRequest(kind=kind, namespace=namespace, name=name, node=node)
        return await _asked(owner.DescribePolicy(request, metadata=HANDED_ON, timeout=_OWNER_SECONDS), node)

    async def connections(
        self, node: str, ranges: Sequence[str], seconds: float
    ) -> AsyncIterator[controller_pb2.TrackedConnection]:
        """What the agent of a node lists, whosever the node is: see `controller.tracked`. UnavailableError."""
        mine = self._engine.ownership.owns(node)
        ask = self._engine.list_connections if mine else self._colleagues.list_connections
        async for connection in ask(node, ranges, seconds):
            yield connection

    async def answer(self, call: Awaitable[T], context: Context) -> T:
        """What the owner answers, or its error."""
        try:
            return await call
        except grpc.aio.AioRpcError as problem:
            await context.abort(problem.code(), problem.details() or "")
        raise AssertionError("abort raises")

    async def portions(self, call: AsyncIterable[T], context: Context) -> AsyncIterator[T]:
        """The same for an answer of many messages."""
        try:
            async for portion in call:
                yield portion
        except grpc.aio.AioRpcError as problem:
            await context.abort(problem.code(), problem.details() or "")


async def _asked(call: Awaitable[T], node: str) -> T:
    """What the owner of a node's switch answers. UnavailableError."""
    try:
        return await call
    except grpc.aio.AioRpcError as problem:
        raise UnavailableError(problem.details() or f"the owner of Node {node} does not answer") from None
