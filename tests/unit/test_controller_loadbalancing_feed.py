# SPDX-License-Identifier: Apache-2.0
"""What waits for an agent that is told of Services, and what it is told."""

from __future__ import annotations

import asyncio

import pytest

from controller.loadbalancing.feed import ServiceFeed
from controller.loadbalancing.index import ServiceKey
from controller.watchers import TooSlowError
from sdn.v1 import controller_pb2


class States:
    """Services as they are now."""

    def __init__(self, *names: str) -> None:
        self.local = dict.fromkeys(names, 0)

    def __call__(self, key: ServiceKey) -> controller_pb2.ServiceState | None:
        if key[1] not in self.local:
            return None
        return controller_pb2.ServiceState(namespace=key[0], name=key[1], local_endpoints=self.local[key[1]])

    def feed(self, **fields: int) -> ServiceFeed:
        return ServiceFeed([("default", name) for name in self.local], self, **fields)


async def told(feed: ServiceFeed) -> list[str]:
    """What can be read without waiting: "web 1", "synced", "-web"."""
    found = []
    while True:
        try:
            update = await asyncio.wait_for(feed.next(), 0.05)
        except TimeoutError:
            return found
        match update.WhichOneof("update"):
            case "service":
                found.append(f"{update.service.name} {update.service.local_endpoints}")
            case "removed":
                found.append(f"-{update.removed.name}")
            case "synced":
                found.append("synced")


def test_first_everything_then_synced_then_changes() -> None:
    async def run() -> None:
        states = States("web", "db")
        feed = states.feed()
        assert await told(feed) == ["web 0", "db 0", "synced"]
        states.local |= {"web": 1, "new": 2}
        feed.changed(("default", "web"))
        feed.changed(("default", "new"))
        assert await told(feed) == ["web 1", "new 2"]
        del states.local["db"]
        feed.changed(("default", "db"))
        assert await told(feed) == ["-db"]

    asyncio.run(run())


def test_many_changes_of_one_service_are_told_once_as_it_is_then() -> None:
    async def run() -> None:
        states = States("web")
        feed = states.feed()
        await told(feed)
        for number in range(100):
            states.local["web"] = number
            feed.changed(("default", "web"))
        assert await told(feed) == ["web 99"]
        feed.changed(("default", "web"))
        assert await told(feed) == [], "what is the same is not told again"

    asyncio.run(run())


def test_a_service_that_changes_while_the_first_are_read_is_not_lost() -> None:
    async def run() -> None:
        states = States("a", "b", "c")
        feed = states.feed()
        first = await feed.next()
        assert first.service.name == "a"
        states.local["a"] = 1
        feed.changed(("default", "a"))
        del states.local["b"]
        feed.changed(("default", "b"))
        assert await told(feed) == ["c 0", "synced", "a 1"], "one that nobody was told of is not removed"

    asyncio.run(run())


def test_a_reader_that_is_too_slow_is_sent_away() -> None:
    async def run() -> None:
        states = States()
        feed = states.feed(backlog=10)
        for number in range(10):
            for _ in range(3):
                feed.changed(("default", f"s{number}"))
        assert (await feed.next()).HasField("synced")
        for number in range(10, 13):
            feed.changed(("default", f"s{number}"))
        with pytest.raises(TooSlowError, match="more than 10 Services"):
            await feed.next()

    asyncio.run(run())
