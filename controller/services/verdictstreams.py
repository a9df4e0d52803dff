# SPDX-License-Identifier: Apache-2.0
"""Verdicts of policies on all switches, from whichever controllers own them, as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Final

import grpc

from controller.ha.colleagues import Colleagues
from controller.verdicts import BACKLOG, Reader, Selection, Verdicts
from controller.watchers import TooSlowError
from sdn import logs
from sdn.v1 import inspection_pb2, types_pb2

log = logs.get("controller.inspection")

Record = types_pb2.VerdictRecord

#: Seconds until it is looked again which other controllers are to be followed.
LOOK_SECONDS: Final = 1.0


class VerdictStreams:
    """Runs in the asyncio thread."""

    def __init__(self, verdicts: Verdicts, colleagues: Colleagues) -> None:
        self._verdicts = verdicts
        self._colleagues = colleagues

    async def watch(self, request: inspection_pb2.WatchVerdictsRequest) -> AsyncGenerator[Record, None]:
        """What is remembered, in the order of time, then what comes, for as long as is asked for. TooSlowError."""
        reader = self._verdicts.open(Selection(request.node, request.namespace, request.policy))
        joined = _Joined(self._colleagues, request)
        try:
            if request.follow and not request.own_only:
                joined.follow_others()
            remembered: list[Record] = []
            if not request.new_only:
                remembered = [*reader.recent, *([] if request.own_only else await self._remembered(request))]
                remembered.sort(key=lambda record: record.time.ToNanoseconds())
            for record in remembered:
                yield record
            if request.follow:
                joined.follow(reader, remembered)
                while True:
                    yield await joined.next()
        finally:
            self._verdicts.close(reader)
            joined.close()

    async def _remembered(self, request: inspection_pb2.WatchVerdictsRequest) -> list[Record]:
        """By the other controllers; those that do not answer are left out."""

        async def ask(name: str) -> list[Record]:
            try:
                return [record async for record in self._colleagues.verdicts(name, asked)]
            except grpc.aio.AioRpcError as problem:
                log.debug(
                    "another controller's verdicts are not told", controller=name, error=problem.details()
                )
                return []

        asked = _own(request, follow=False)
        answers = await asyncio.gather(*map(ask, self._colleagues.others()))
        return [record for answer in answers for record in answer]


class _Joined:
    """What comes from this controller and all others, one after the other."""

    def __init__(self, colleagues: Colleagues, request: inspection_pb2.WatchVerdictsRequest) -> None:
        self._colleagues = colleagues
        self._request = _own(request, follow=True)
        self._records: asyncio.Queue[Record | Exception] = asyncio.Queue(BACKLOG)
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._others: dict[str, asyncio.Task[None]] = {}
        #: Told already, while the streams began.
        self._remembered: set[bytes] = set()

    def follow(self, reader: Reader, remembered: Iterable[Record]) -> None:
        """What this controller's own switches tell goes in from now on, too. ``remembered`` was told."""
        self._remembered = {record.SerializeToString(deterministic=True) for record in remembered}
        self._tasks.append(self._loop.create_task(self._own(reader)))

    def follow_others(self) -> None:
        """What other controllers tell goes in from now on, and what those tell that come later."""
        self._follow_new()
        self._tasks.append(self._loop.create_task(self._look()))

    async def next(self) -> Record:
        """TooSlowError: some were lost."""
        while True:
            said = await self._records.get()
            if isinstance(said, Exception):
                raise said
            if not self._remembered or said.SerializeToString(deterministic=True) not in self._remembered:
                return said

    def close(self) -> None:
        for task in (*self._tasks, *self._others.values()):
            task.cancel()

    async def _own(self, reader: Reader) -> None:
        try:
            while True:
                await self._records.put(await reader.next())
        except TooSlowError as problem:
            await self._records.put(problem)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._follow_new()

    def _follow_new(self) -> None:
        others = self._colleagues.others()
        for name in self._others.keys() - others.keys():
            self._others.pop(name).cancel()
        for name in others:
            if name not in self._others or self._others[name].done():
                self._others[name] = self._loop.create_task(self._other(name))

    async def _other(self, name: str) -> None:
        try:
            async for record in self._colleagues.verdicts(name, self._request):
                await self._records.put(record)
        except grpc.aio.AioRpcError as problem:
            if problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                await self._records.put(TooSlowError(problem.details() or "the log fell behind: ask again"))
            log.debug("another controller's verdicts are not told", controller=name, error=problem.details())


def _own(
    request: inspection_pb2.WatchVerdictsRequest, *, follow: bool
) -> inspection_pb2.WatchVerdictsRequest:
    """What another controller is asked."""
    asked = inspection_pb2.WatchVerdictsRequest()
    asked.CopyFrom(request)
    asked.own_only, asked.follow, asked.new_only = True, follow, follow
    return asked
