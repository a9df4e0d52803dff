# SPDX-License-Identifier: Apache-2.0
"""Domains on a real store, with agents that list connections and clocks that a test sets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.changes import Done
from controller.cluster import Cluster
from controller.domains import Domains
from controller.errors import UnavailableError
from controller.ledger import Ledger, under
from controller.records import DOMAINS
from controller.store import Operation, StoreError
from controller.store.sqlite import SqliteStore
from sdn.model import Object, parse
from sdn.model.address import Address
from sdn.v1 import controller_pb2

NAME = "www.example.com"
#: Pods of the namespace default reach nobody but what an administrator accepts.
DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "default"},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
}
ONE, TWO, SIX = "192.0.2.1", "192.0.2.2", "2001:db8::1"


def policy(name: str, *patterns: str, staged: bool = False) -> Object:
    return parse(
        {
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name, "annotations": {"sdn/staged": "true"} if staged else {}},
            "spec": {
                "tier": "Admin",
                "priority": 1,
                "subject": {"namespaces": {}},
                "egress": [
                    {"action": "Accept", "to": [{"networks": ["203.0.113.0/24"]}]},
                    {"action": "Accept", "to": [{"domainNames": list(patterns)}]},
                ],
            },
        }
    )


class FullStore(SqliteStore):
    """A store that can be out of space."""

    full = False
    writes = 0

    def write(self, operations: Sequence[Operation]) -> int:
        if self.full:
            raise StoreError("sqlite: no space")
        self.writes += 1
        return super().write(operations)


class World:
    """Domains on a real store; what they tell the switches; agents that list connections; and two clocks."""

    def __init__(self, store: FullStore, now: float, wall: float) -> None:
        self.store = store
        self.now, self.wall = now, wall
        self.told: dict[str, set[str]] = {}
        self.tellings: list[str] = []
        self.answers: list[str | None] = []
        #: What each node's switch tracks: (destination, where a Service led it); None: its agent does not answer.
        self.tracked: dict[str, list[tuple[str, str]] | None] = {"node-1": [], "node-2": []}
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        #: Callbacks of what switches have not confirmed yet; None: they confirm at once.
        self.unconfirmed: list[tuple[str, Done]] | None = None
        self.changes = 0
        self.cluster = Cluster()
        self.ledger = Ledger(store)
        self.domains = Domains(
            self.ledger,
            self.cluster,
            self._tell,
            self._settled,
            lambda: self.tracked.keys(),
            self._list,
            clock=lambda: self.now,
            wall=lambda: self.wall,
        )
        self.domains.on_changed = self._changed

    def _changed(self) -> None:
        self.changes += 1

    def _tell(self, name: str, addresses: Collection[Address]) -> None:
        self.tellings.append(name)
        self.told[name] = set(map(str, addresses))
        if not addresses:
            del self.told[name]

    def _settled(self, node: str, done: Done) -> None:
        if self.unconfirmed is None:
            done(None)
        else:
            self.unconfirmed.append((node, done))

    async def _list(
        self, node: str, ranges: Sequence[str], seconds: float
    ) -> AsyncIterator[controller_pb2.TrackedConnection]:
        self.asked.append((node, tuple(ranges)))
        tracked = self.tracked[node]
        if tracked is None:
            raise UnavailableError(f"the agent of Node {node} is not connected")
        await asyncio.sleep(0)
        for destination, reply_source in tracked:
            yield controller_pb2.TrackedConnection(
                protocol=6, source="10.244.0.2", destination=destination, reply_source=reply_source
            )

    def declare(self, name: str, *patterns: str, staged: bool = False) -> None:
        after = policy(name, *patterns, staged=staged)
        self.cluster.put_object(after)
        self.domains.object_changed("ClusterNetworkPolicy", name, after)

    def withdraw(self, name: str) -> None:
        self.cluster.remove_object("ClusterNetworkPolicy", "", name)
        self.domains.object_changed("ClusterNetworkPolicy", name, None)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def report(self, *addresses: str, name: str = NAME, ttl: int = 300, node: str = "node-1") -> None:
        report = controller_pb2.Resolved(sequence=1, name=name, addresses=addresses, ttl_seconds=ttl)
        self.domains.resolved(node, report, self.answers.append)

    async def resolved(self, *addresses: str, **fields: Any) -> str | None:
        """Report, and wait for the answer."""
        count = len(self.answers)
        self.report(*addresses, **fields)
        await self.until(count + 1)
        return self.answers[-1]

    async def until(self, answers: int) -> None:
        async with asyncio.timeout(60):
            while len(self.answers) < answers:
                await asyncio.sleep(0.001)

    async def stored(self) -> dict[str, dict[str, float]]:
        entries = under(DOMAINS, (await self.ledger.list_all()).entries)
        return {entry.key.removeprefix(DOMAINS): json.loads(entry.value)["addresses"] for entry in entries}


@asynccontextmanager
async def world(folder: Path, *patterns: str, now: float = 1000.0, wall: float = 2e9) -> AsyncIterator[World]:
    """As a controller's start finds it, with a policy that names these patterns."""
    store = FullStore(folder / "store.db")
    made = World(store, now, wall)
    if patterns:
        made.cluster.put_object(policy("names", *patterns))
    try:
        await made.domains.load((await made.ledger.list_all()).entries)
        yield made
    finally:
        made.domains.stop()
        made.ledger.stop()
        store.close()
