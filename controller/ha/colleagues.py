# SPDX-License-Identifier: Apache-2.0
"""Asks other controllers what only they know: of a switch, who owns it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import grpc

from controller.errors import UnavailableError
from controller.ha.ownership import Ownership
from sdn import logs
from sdn.v1 import controller_pb2, inspection_pb2, inspection_pb2_grpc, types_pb2

log = logs.get("controller.colleagues")

T = TypeVar("T")

_Stub: Any = inspection_pb2_grpc.InspectionStub

#: Seconds that another controller gets for an answer.
ASK_SECONDS = 2.0
#: The same for what it has to write before it answers: the store may take five seconds, and other writes come first.
WRITE_SECONDS = 20.0
#: One that is behind a cut network must not be believed for ever: streams from it say nothing for hours.
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 1_500),
    # One that takes what is sent and does not answer: gRPC waits a minute unless it is told this.
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 2_000),
)


class ColleagueError(Exception):
    """Another controller did not do what it was asked for: its own words, and the status code that goes with them."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Colleagues:
    """Runs in the asyncio thread. ``credentials`` None: gRPC without TLS."""

    def __init__(self, ownership: Ownership, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._ownership = ownership
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}
        #: Those that did not answer when they were asked last: more of it is for the debug log.
        self._silent: set[str] = set()

    def others(self) -> dict[str, str]:
        """Where the other controllers that are there serve gRPC, by name."""
        return {
            name: member.record.grpc_address
            for name, member in self._ownership.members.all().items()
            if name != self._ownership.members.name and self._ownership.members.down(name) is None
        }

    async def ask(
        self, name: str, question: Callable[[inspection_pb2_grpc.InspectionAsyncStub], Awaitable[T]]
    ) -> T | None:
        """What another controller answers; None: it does not, which the log says, or is not there."""
        stub = self._stub(name)
        if stub is None:
            return None
        try:
            answer = await question(stub)
        except grpc.aio.AioRpcError as problem:
            tell = log.debug if name in self._silent else log.warning
            self._silent.add(name)
            tell(
                "another controller does not answer",
                controller=name,
                error=problem.details() or problem.code().name,
            )
            return None
        self._silent.discard(name)
        return answer

    async def switches(self, name: str) -> list[inspection_pb2.Switch]:
        """The switches that another controller owns, as it sees them; none where it does not answer."""
        request = inspection_pb2.ListSwitchesRequest(own_only=True)
        answer = await self.ask(name, lambda stub: stub.ListSwitches(request, timeout=ASK_SECONDS))
        return list(answer.switches) if answer is not None else []

    async def itself(self, name: str) -> inspection_pb2.ListControllersResponse | None:
        """What another controller says of itself; None: it does not answer. A former build tells of all others, too."""
        request = inspection_pb2.ListControllersRequest(own_only=True)
        return await self.ask(name, lambda stub: stub.ListControllers(request, timeout=ASK_SECONDS))

    async def count_connections(
        self, node: str, endpoints: Iterable[controller_pb2.Destination], seconds: float
    ) -> controller_pb2.ConnectionCounts:
        """What the owner of a node's switch says, within so many seconds. UnavailableError."""
        stub = self.owner(node)
        if stub is None:
            raise UnavailableError(f"no controller owns Node {node} now")
        request = inspection_pb2.CountConnectionsRequest(node=node, endpoints=endpoints)
        try:
            return await stub.CountConnections(request, timeout=seconds)
        except grpc.aio.AioRpcError as problem:
            raise UnavailableError(problem.details() or f"the owner of Node {node} does not answer") from None

    async def list_connections(
        self, node: str, ranges: Sequence[str], seconds: float
    ) -> AsyncGenerator[controller_pb2.TrackedConnection, None]:
        """The same of which connections it tracks, waiting so long for each part. UnavailableError."""
        stub = self.owner(node)
        if stub is None:
            raise UnavailableError(f"no controller owns Node {node} now")
        call = stub.ListConnections(inspection_pb2.ListConnectionsRequest(node=node, ranges=ranges))
        parts = aiter(call)
        try:
            with suppress(StopAsyncIteration):
                while True:
                    # The owner waits for its agent as long, and tells then.
                    part = await asyncio.wait_for(anext(parts), seconds + ASK_SECONDS)
                    for connection in part.connections:
                        yield connection
        except grpc.aio.AioRpcError as problem:
            raise UnavailableError(problem.details() or f"the owner of Node {node} does not answer") from None
        except TimeoutError:
            raise UnavailableError(f"the owner of Node {node} does not answer") from None
        finally:
            call.cancel()

    def owner(self, node: str) -> inspection_pb2_grpc.InspectionAsyncStub | None:
        """The owner of a node's switch, to be asked; None: nobody who is there."""
        owner = self._ownership.owner(node)
        return self._stub(owner.controller) if owner is not None else None

    async def drain(self, name: str, draining: bool) -> inspection_pb2.DrainControllerResponse:
        """Let another controller hand over its switches, or take some again. ColleagueError."""
        stub = self._stub(name)
        if stub is None:
            raise ColleagueError(grpc.StatusCode.UNAVAILABLE, f"Controller {name} is not there any more")
        request = inspection_pb2.DrainControllerRequest(name=name, draining=draining)
        try:
            return await stub.DrainController(request, timeout=WRITE_SECONDS)
        except grpc.aio.AioRpcError as problem:
            code, details = problem.code(), problem.details() or problem.code().name
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                # The deadline is this controller's, not that of who asked it.
                code = grpc.StatusCode.UNAVAILABLE
                details = f"did not answer within {WRITE_SECONDS:g} s, and may do it yet"
            raise ColleagueError(code, f"Controller {name}: {details}") from None

    async def watch_switches(self, name: str) -> AsyncIterator[inspection_pb2.Switch]:
        """What another controller tells of the switches that it owns, for as long as it does. AioRpcError."""
        if (stub := self._stub(name)) is not None:
            async for switch in stub.WatchSwitches(inspection_pb2.WatchSwitchesRequest()):
                yield switch

    async def verdicts(
        self, name: str, request: inspection_pb2.WatchVerdictsRequest
    ) -> AsyncIterator[types_pb2.VerdictRecord]:
        """What another controller tells of verdicts. AioRpcError."""
        if (stub := self._stub(name)) is not None:
            async for record in stub.WatchVerdicts(request, timeout=None if request.follow else ASK_SECONDS):
                yield record

    def _stub(self, name: str) -> inspection_pb2_grpc.InspectionAsyncStub | None:
        # One that somebody else does not hear may answer here all the same.
        member = self._ownership.members.all().get(name)
        address = member.record.grpc_address if member is not None else None
        # Generated without types; the stubs that say them name it InspectionAsyncStub.
        return _Stub(self._channel(address)) if address is not None else None

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS)
            self._channels[address] = channel
        return channel

    async def close(self) -> None:
        """Let go of all of them."""
        for channel in self._channels.values():
            await channel.close()
