# SPDX-License-Identifier: Apache-2.0
"""Asks other controllers what only they know: of a switch, who owns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from controller.ha.ownership import Ownership
from sdn.v1 import inspection_pb2, inspection_pb2_grpc

T = TypeVar("T")

_Stub: Any = inspection_pb2_grpc.InspectionStub

#: Seconds that another controller gets for an answer.
ASK_SECONDS = 2.0


class Colleagues:
    """Runs in the asyncio thread. ``credentials`` None: gRPC without TLS."""

    def __init__(self, ownership: Ownership, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._ownership = ownership
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}

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
        """What another controller answers; None: it does not."""
        address = self.others().get(name)
        if address is None:
            return None
        try:
            # Generated without types; the stubs that say them name it InspectionAsyncStub.
            stub: inspection_pb2_grpc.InspectionAsyncStub = _Stub(self._channel(address))
            return await question(stub)
        except grpc.aio.AioRpcError:
            return None

    async def switches(self, name: str) -> list[inspection_pb2.Switch]:
        """The switches that another controller owns, as it sees them; none where it does not answer."""
        request = inspection_pb2.ListSwitchesRequest(own_only=True)
        answer = await self.ask(name, lambda stub: stub.ListSwitches(request, timeout=ASK_SECONDS))
        return list(answer.switches) if answer is not None else []

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials)
            self._channels[address] = channel
        return channel

    async def close(self) -> None:
        """Let go of all of them."""
        for channel in self._channels.values():
            await channel.close()
