# SPDX-License-Identifier: Apache-2.0
"""What the controller asks of an agent over its session: the agent answers on the same stream, by sequence numbers of
the controller's own. A listing is answered in many messages, which are handed on as they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

from controller.errors import UnavailableError
from sdn.v1 import controller_pb2

#: Connections of one listing that may wait to be looked at, a few hundred megabytes: of more the agent is not believed.
MAX_LISTED = 1_000_000


class _Listing:
    """What has come of one listing and was not looked at yet: parts of it, or why no more comes."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[controller_pb2.Connections | str] = asyncio.Queue()
        self.waiting = 0

    def fail(self, why: str) -> None:
        while not self.parts.empty():
            self.parts.get_nowait()
        self.parts.put_nowait(why)


class Questions:
    """The questions to one agent, as long as its session lasts. Runs in the asyncio thread."""

    def __init__(self, node: str, send: Callable[[controller_pb2.ControllerMessage], None]) -> None:
        self._node = node
        self._send = send
        self._asked = 0
        self._counts: dict[int, asyncio.Future[controller_pb2.ConnectionCounts]] = {}
        self._listings: dict[int, _Listing] = {}

    async def count_connections(
        self, endpoints: Iterable[controller_pb2.Destination], timeout: float
    ) -> controller_pb2.ConnectionCounts:
        """Ask the agent, and wait for at most ``timeout`` seconds. UnavailableError."""
        self._asked += 1
        sequence = self._asked
        question = controller_pb2.CountConnections(
            sequence=sequence, endpoints=endpoints, patience_ms=round(timeout * 1000)
        )
        answer = self._counts[sequence] = asyncio.get_running_loop().create_future()
        try:
            self._send(controller_pb2.ControllerMessage(count_connections=question))
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise self._unavailable(f" did not answer within {timeout:g} s") from None
        finally:
            del self._counts[sequence]

    async def list_connections(
        self, ranges: Iterable[str], timeout: float
    ) -> AsyncGenerator[controller_pb2.TrackedConnection, None]:
        """Ask the agent, and wait for at most ``timeout`` seconds for each part of its answer. UnavailableError."""
        self._asked += 1
        sequence = self._asked
        question = controller_pb2.ListConnections(
            sequence=sequence, ranges=ranges, patience_ms=round(timeout * 1000)
        )
        listing = self._listings[sequence] = _Listing()
        try:
            self._send(controller_pb2.ControllerMessage(list_connections=question))
            last = False
            while not last:
                part = await asyncio.wait_for(listing.parts.get(), timeout)
                if isinstance(part, str):
                    raise self._unavailable(part)
                listing.waiting -= len(part.connections)
                last = part.last
                for connection in part.connections:
                    yield connection
        except TimeoutError:
            raise self._unavailable(f" did not answer within {timeout:g} s") from None
        finally:
            self._listings.pop(sequence, None)

    # What the agent says; an answer that nobody waits for any longer is dropped.

    def counted(self, counts: controller_pb2.ConnectionCounts) -> None:
        """It has counted."""
        question = self._counts.get(counts.sequence)
        if question is None or question.done():
            return
        if counts.error:
            question.set_exception(self._unavailable(f": {counts.error}"))
        else:
            question.set_result(counts)

    def listed(self, part: controller_pb2.Connections) -> None:
        """A part of a listing has come."""
        listing = self._listings.get(part.sequence)
        if listing is None:
            return
        listing.waiting += len(part.connections)
        if part.error:
            listing.fail(f": {part.error}")
        elif listing.waiting > MAX_LISTED:
            del self._listings[part.sequence]
            listing.fail(f" lists more than {MAX_LISTED} connections")
        else:
            listing.parts.put_nowait(part)

    def ended(self) -> None:
        """The session has ended: no answer comes any more."""
        for question in self._counts.values():
            if not question.done():
                question.set_exception(self._unavailable(" has gone"))
        for listing in self._listings.values():
            listing.fail(" has gone")

    def _unavailable(self, why: str) -> UnavailableError:
        return UnavailableError(f"the agent of Node {self._node}{why}")
