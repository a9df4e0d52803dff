# SPDX-License-Identifier: Apache-2.0
"""Verdicts of policies, from the switches' threads to those who want to know: the node's agent, which keeps its own log
of them, and people who watch.

A sighting (:mod:`controller.audit`) says the number of a rule and the addresses of a packet. In the asyncio thread,
where policies and pods are known, it becomes a record. Whatever waits is bounded, and nobody holds up anybody: for an
agent that is away or reads too slowly what is lost is counted in the next record that it gets, a reader that is too
slow is given up and told so. The last :data:`REMEMBERED` records are kept for those who ask later.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controller.audit import Audit, Sighting
from controller.watchers import TooSlowError
from sdn.model.address import Address
from sdn.policy.values import PROTOCOL_NAMES, TIER_NAMES, Action, Direction, PolicyRef, Tier
from sdn.v1 import types_pb2

#: Sightings of all switches that may wait to be looked at.
MOST_WAITING: Final = 10_000
#: Those that are looked at before others have their turn.
_AT_ONCE: Final = 200
#: Records that are kept.
REMEMBERED: Final = 2_000
#: Records that may wait for one reader.
BACKLOG: Final = 10_000

Record = types_pb2.VerdictRecord


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a sighting was reported for. ``rule`` is as people name it, empty where the pod is isolated and no rule
    allowed the packet; ``policy`` then is the first of those that isolate it.
    """

    policy: PolicyRef
    rule: str
    tier: Tier
    direction: Direction
    action: Action
    staged: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which verdicts are meant; what is empty means all.

    namespace   of the policy, or of the pod that it is about
    policy      "name", "Kind/name" or "Kind/namespace/name"
    """

    node: str = ""
    namespace: str = ""
    policy: str = ""

    def takes(self, record: Record) -> bool:
        """Whether the record is meant."""
        kind, _, full_name = record.policy.partition("/")
        namespace, _, name = full_name.rpartition("/")
        subject = record.destination_pod if record.direction == "ingress" else record.source_pod
        return (
            self.node in ("", record.node)
            and self.policy in ("", name, f"{kind}/{name}", record.policy)
            and (not self.namespace or self.namespace in (namespace, subject.partition("/")[0]))
        )


class Reader:
    """One who watches, from the moment when it was made. ``recent`` is what had been before, the oldest first."""

    def __init__(self, selection: Selection, recent: Sequence[Record], backlog: int) -> None:
        self.selection = selection
        self.recent = recent
        self._backlog = backlog
        self._records: asyncio.Queue[Record] = asyncio.Queue(backlog)
        self._too_slow = False

    def offer(self, record: Record) -> None:
        """Take a record, if it is meant and there is room."""
        if self.selection.takes(record):
            try:
                self._records.put_nowait(record)
            except asyncio.QueueFull:
                self._too_slow = True

    async def next(self) -> Record:
        """The next record. TooSlowError when some were lost."""
        if self._too_slow:
            raise TooSlowError(f"the log fell {self._backlog} records behind: ask again")
        return await self._records.get()


class Verdicts:
    """Make it in the asyncio thread; :meth:`audit` and :meth:`hand_on` may be called from any, the rest from there."""

    def __init__(self, backlog: int = BACKLOG) -> None:
        #: The name of the node that a switch is of, by its datapath id; empty: none. Set by the engine.
        self.node_of: Callable[[int], str] = lambda _datapath_id: ""
        #: What a sighting was reported for; None: that is not known any more. Set by the engine.
        self.ruling_of: Callable[[Sighting], Ruling | None] = lambda _sighting: None
        #: The pod that has an address, "namespace/name"; empty: none. Set by the engine.
        self.pod_of: Callable[[Address], str] = lambda _address: ""
        #: Hands records to a node's agent; False: it is not connected. Set by the session service.
        self.to_agent: Callable[[str, Sequence[Record]], bool] = lambda _node, _records: False
        self._loop = asyncio.get_running_loop()
        self._backlog = backlog
        self._lock = threading.Lock()
        self._waiting: deque[Sighting] = deque()
        self._scheduled = False
        # From here on: the asyncio thread only.
        self._recent: deque[Record] = deque(maxlen=REMEMBERED)
        self._readers: set[Reader] = set()
        #: By node: verdicts that there is no record of since the last one, and those that its agent is not told of yet.
        self._unknown: dict[str, int] = defaultdict(int)
        self._untold: dict[str, int] = defaultdict(int)

    def audit(self, datapath_id: int) -> Audit:
        """For a new connection of a switch."""
        return Audit(datapath_id, self.hand_on)

    def hand_on(self, sighting: Sighting) -> bool:
        """Take a sighting if there is room; never waits."""
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(sighting)
            wake, self._scheduled = not self._scheduled, True
        if wake:
            with suppress(RuntimeError):  # The loop has ended: nobody wants to know any more.
                self._loop.call_soon_threadsafe(self._take)
        return True

    def open(self, selection: Selection) -> Reader:
        """A reader; end it with :meth:`close`."""
        reader = Reader(selection, list(filter(selection.takes, self._recent)), self._backlog)
        self._readers.add(reader)
        return reader

    def close(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def untold(self, node: str, number: int) -> None:
        """So many verdicts did not reach the node's agent: the next record that it gets says so."""
        if number:
            self._untold[node] += number

    def _take(self) -> None:
        with self._lock:
            sightings = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._scheduled = bool(self._waiting)
            if self._scheduled:
                self._loop.call_soon(self._take)
        by_node: dict[str, list[Record]] = defaultdict(list)
        for sighting in sightings:
            record = self._record(sighting)
            if record is None:
                continue
            self._recent.append(record)
            for reader in self._readers:
                reader.offer(record)
            by_node[record.node].append(record)
        for node, records in by_node.items():
            self._tell(node, records)

    def _record(self, sighting: Sighting) -> Record | None:
        node = self.node_of(sighting.datapath_id)
        if not node:
            return None
        ruling = self.ruling_of(sighting)
        if ruling is None:
            self._unknown[node] += 1 + sighting.suppressed
            return None
        record = Record(
            node=node,
            policy=str(ruling.policy),
            rule=ruling.rule,
            tier=TIER_NAMES[ruling.tier],
            direction=ruling.direction.name.lower(),
            action=ruling.action.name.lower(),
            staged=ruling.staged,
            protocol=PROTOCOL_NAMES.get(sighting.protocol, str(sighting.protocol)),
            source=str(sighting.source),
            source_port=sighting.source_port,
            destination=str(sighting.destination),
            destination_port=sighting.destination_port,
            source_pod=self.pod_of(sighting.source),
            destination_pod=self.pod_of(sighting.destination),
            suppressed=sighting.suppressed + self._unknown.pop(node, 0),
        )
        record.time.FromNanoseconds(sighting.at)
        return record

    def _tell(self, node: str, records: list[Record]) -> None:
        untold = self._untold.pop(node, 0)
        if untold:
            # Not in the one that readers have: they were told.
            first = Record()
            first.CopyFrom(records[0])
            first.suppressed += untold
            records = [first, *records[1:]]
        if not self.to_agent(node, records):
            self.untold(node, number_of(records))


def number_of(records: Iterable[Record]) -> int:
    """How many verdicts records stand for."""
    return sum(1 + record.suppressed for record in records)
