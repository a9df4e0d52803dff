# SPDX-License-Identifier: Apache-2.0
"""Domains: the addresses of the names that ClusterNetworkPolicies allow connections to (``domainNames``).

Nodes' DNS servers see what pods are answered, and hold the answer back; their agents report it here. A report is stored
first and handed to all switches then, so a controller that starts again computes the same flows and cuts nothing. It is
answered when the switch of the node that reported has confirmed: then the pod gets its answer.

What ends. An address counts for as long as answers allow (:mod:`sdn.policy.resolution`), and then for as long as a
switch tracks a connection to it: every CHECK_SECONDS the agents are asked about those that are due. An agent that
cannot be asked counts as one that has such a connection, for UNASKED_SECONDS. Of several controllers one looks at each
name, and the others have from the store what it finds. Names that no policy names any more are forgotten with the next
look; so one whose policy is declared anew at once has lost nothing.

The store is written when something is new, and when an address counts longer than the store says. What it says is half
as long again as what is true, so that a name that is asked for all the time is seldom written.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from controller.changes import Done
from controller.cluster import Cluster
from controller.domaintable import DomainTable
from controller.domainuse import Use, use_of
from controller.ledger import Ledger, under
from controller.records import DOMAINS, CorruptRecordError, DomainRecord, decode, domain_key, encode
from controller.store import ConflictError, Delete, Entry, Operation, Put, StoreError
from controller.tracked import ListConnections
from controller.turns import Turns
from sdn import logs
from sdn.model import InvalidObjectError, Object
from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.policy.resolution import (
    MAX_SECONDS,
    MOST_ADDRESSES,
    Patterns,
    is_name,
    plain,
    reported_seconds_of,
)
from sdn.v1 import controller_pb2

log = logs.get("controller.domains")

#: Seconds between two looks at what is due, and until an address that had to stay is looked at again.
CHECK_SECONDS = 60.0
LOOK_AGAIN = 300.0
#: For so long an agent that cannot be asked counts as one with connections.
UNASKED_SECONDS = 3600.0
#: Reports that wait to be stored. Each agent holds some hundreds back at most.
MOST_WAITING = 20_000
#: Names of one write: with a thousand addresses each they are less than etcd takes.
_AT_ONCE = 20

#: Called in the asyncio thread: None, it is in force; else why it is not.
Answer = Callable[[str | None], None]


class _Seen(NamedTuple):
    node: str
    name: str
    addresses: frozenset[Address]
    seconds: float
    answer: Answer


class _Write(NamedTuple):
    """What is to be stored of a name: until when each of its addresses counts. Nothing: it is forgotten."""

    name: str
    operation: Operation
    stored: dict[Address, float]


class Domains:
    """See the module. Runs in the asyncio thread."""

    def __init__(
        self,
        ledger: Ledger,
        cluster: Cluster,
        tell: Callable[[str, Collection[Address]], None],
        settled: Callable[[str, Done], None],
        nodes: Callable[[], Collection[str]],
        list_connections: ListConnections,
        looks_at: Callable[[str], bool] = lambda _name: True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        tell     makes these all addresses of a name, in what is handed to the switches
        settled  calls back, in any thread, when a node's switch has confirmed all that was handed to it
        nodes    all that may have connections
        looks_at whether this one of several controllers finds out what of a name has ended
        clock    goes on evenly; ``wall`` is the one that outlasts the process
        """
        #: Called when :attr:`patterns` are others.
        self.on_changed: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._cluster = cluster
        self._tell = tell
        self._settled = settled
        self._nodes = nodes
        self._list = list_connections
        self._looks_at = looks_at
        self._clock = clock
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._of_policies: dict[str, frozenset[str]] = {}
        self._patterns = Patterns()
        #: What agents are told to report.
        self.patterns: tuple[str, ...] = ()
        self._table = DomainTable()
        #: What was handed to the switches.
        self._told: dict[str, frozenset[Address]] = {}
        #: Names of which the store, or the switches, do not have the last state.
        self._changed: dict[str, None] = {}
        self._writing = asyncio.Lock()
        self._waiting: list[_Seen] = []
        self._taking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def load(self, entries: Iterable[Entry]) -> None:
        """Take in the declared policies, and what is stored; nothing may be handed to switches before. ``entries`` are
        all that is stored. CorruptRecordError.
        """
        for (_, name), policy in self._cluster.objects["ClusterNetworkPolicy"].items():
            self._of_policies[name] = _patterns_of(policy)
        self._count_patterns()
        turns = Turns()
        for entry in under(DOMAINS, entries):
            self._load(entry)
            await turns.pause()
        self._looking = self._loop.create_task(self._look_on())
        self._looking.add_done_callback(_tell_defect)

    def stop(self) -> None:
        """End what goes on by itself."""
        for task in (self._taking, self._looking):
            if task is not None:
                task.cancel()

    def _load(self, entry: Entry) -> None:
        name = entry.key.removeprefix(DOMAINS)
        now, wall = self._clock(), self._wall()
        for text, until in decode(DomainRecord, entry).addresses.items():
            try:
                address = Address.parse(text)
            except ValueError:
                raise CorruptRecordError(entry.key, f"{text!r} is no IP address") from None
            # A clock that was wrong, then or now, makes nothing last for ever.
            left = min(until - wall, 2 * MAX_SECONDS)
            gone = self._table.put(name, self._patterns.match(name), (address,), now + left)
            self._changed.update(dict.fromkeys(gone))
            domain = self._table.get(name)
            if domain is not None and address in domain.lives:
                domain.lives[address].stored = now + left
        if addresses := self._addresses(name):
            self._told[name] = addresses
            self._tell(name, addresses)

    # Policies.

    def object_changed(self, kind: str, name: str, after: Object | None) -> None:
        """A declared object is another, new, or gone."""
        if kind != "ClusterNetworkPolicy":
            return
        if after is None:
            self._of_policies.pop(name, None)
        else:
            self._of_policies[name] = _patterns_of(after)
        if self._count_patterns():
            self.on_changed()

    def _count_patterns(self) -> bool:
        """Whether they are others than before."""
        patterns = tuple(sorted(frozenset().union(*self._of_policies.values())))
        if patterns == self.patterns:
            return False
        self.patterns = patterns
        self._patterns = Patterns(patterns)
        return True

    # Reports.

    def resolved(self, node: str, report: controller_pb2.Resolved, answer: Answer) -> None:
        """A node's DNS server has seen an answer. InvalidObjectError."""
        name, addresses = _checked(report)
        if not self._patterns.match(name):
            answer(f"no ClusterNetworkPolicy names {name}")
        elif not addresses:
            answer(None)
        elif len(self._waiting) >= MOST_WAITING:
            answer("too many names are resolved at once")
        else:
            seconds = reported_seconds_of(report.ttl_seconds)
            self._waiting.append(_Seen(node, name, addresses, seconds, answer))
            if self._taking is None:
                self._begin_to_take_in()

    def _begin_to_take_in(self) -> None:
        self._taking = self._loop.create_task(self._take_in())
        self._taking.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking = None
        _tell_defect(task)
        # What came after the task had looked for the last time, and before this was called.
        if self._waiting and not task.cancelled():
            self._begin_to_take_in()

    async def _take_in(self) -> None:
        turns = Turns()
        while self._waiting:
            reports, self._waiting = self._waiting, []
            for seen in reports:
                self._put(seen.name, seen.addresses, self._clock() + seen.seconds)
                await turns.pause()
            refused = await self._write()
            answers = defaultdict(list)
            for seen in reports:
                answers[seen.node].append(seen.answer)
            for node, waiting in answers.items():
                if refused is None:
                    self._settled(node, self._threadsafe(waiting))
                else:
                    _answer(waiting, refused)

    def _put(self, name: str, addresses: frozenset[Address], until: float) -> None:
        for gone in self._table.put(name, self._patterns.match(name), addresses, until):
            self._changed[gone] = None
        domain = self._table.get(name)
        if domain is None:
            return
        longer = any(life.until > life.stored for life in domain.lives.values())
        if longer or domain.lives.keys() != self._told.get(name, frozenset()):
            self._changed[name] = None

    def _threadsafe(self, answers: Sequence[Answer]) -> Done:
        def call(refused: str | None) -> None:
            with suppress(RuntimeError):  # The loop has ended: nobody is left to be told.
                self._loop.call_soon_threadsafe(_answer, answers, refused)

        return call

    # The store, and then the switches.

    async def _write(self) -> str | None:
        """Make both have what changed; else why not. What could not be written is tried again with the next write."""
        async with self._writing:
            while self._changed:
                writes = list(map(self._compose, list(self._changed)[:_AT_ONCE]))
                for write in writes:
                    del self._changed[write.name]
                try:
                    # No other change has to wait for these keys.
                    revision = await self._ledger.write([write.operation for write in writes])
                except ConflictError as conflict:
                    # Another controller has seen one of them: both have a say.
                    self._changed.update(dict.fromkeys(write.name for write in writes))
                    await self._ledger.seen(conflict)
                    continue
                except StoreError as problem:
                    self._changed.update(dict.fromkeys(write.name for write in writes))
                    log.warning("names are not stored", names=len(writes), error=str(problem))
                    return str(problem)
                for write in writes:
                    self._wrote(write, revision)
        return None

    def _compose(self, name: str) -> _Write:
        domain = self._table.get(name)
        if domain is None:
            return _Write(name, Delete(domain_key(name)), {})
        now, wall = self._clock(), self._wall()
        # Not what another controller has stored so: with every name that both write it would grow.
        longer = {
            address: life.stored if life.until <= life.stored else life.until + max(0.0, life.until - now) / 3
            for address, life in domain.lives.items()
        }
        times = {str(address): round(wall + stored - now, 3) for address, stored in longer.items()}
        return _Write(name, Put(domain_key(name), encode(DomainRecord(addresses=times))), longer)

    def _wrote(self, write: _Write, revision: int) -> None:
        """The store has it, or had it for a moment."""
        name, addresses = write.name, frozenset(write.stored)
        if not self._ledger.stands(domain_key(name), revision if addresses else 0):
            # Another controller has written since, and the follower has told of that. Both have a say.
            self._changed[name] = None
            return
        domain = self._table.get(name)
        for address, life in domain.lives.items() if domain is not None else ():
            # Only now: until it is stored, what is seen here is not another's to end.
            life.stored = max(life.stored, write.stored.get(address, 0.0))
        if addresses != self._told.pop(name, frozenset()):
            self._tell(name, addresses)
        if addresses:
            self._told[name] = addresses

    # What other controllers have stored.

    def stored(self, entry: Entry) -> None:
        """Another controller's nodes have seen a name, or look no more at some of its addresses."""
        name = entry.key.removeprefix(DOMAINS)
        domain = self._table.get(name)
        if domain is not None:
            now, told = self._clock(), decode(DomainRecord, entry).addresses
            # What was seen here since is not the other's to end.
            ended = [at for at, life in domain.lives.items() if life.until <= max(now, life.stored)]
            for address in ended:
                if str(address) not in told:
                    del domain.lives[address]
        self._load(entry)

    def removed(self, name: str) -> None:
        """Another controller has forgotten a name."""
        domain = self._table.get(name)
        if domain is not None and all(life.until <= life.stored for life in domain.lives.values()):
            self._table.remove(name)
            if self._told.pop(name, None):
                self._tell(name, frozenset())

    def _addresses(self, name: str) -> frozenset[Address]:
        domain = self._table.get(name)
        return frozenset(domain.lives) if domain is not None else frozenset()

    # What ends.

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Forget what nobody names, and what is due and not in use."""
        await self._forget_unnamed()
        due = await self._due()
        if due:
            use = await use_of(set().union(*due.values()), list(self._nodes()), self._list)
            for name, addresses in due.items():
                self._end(name, addresses, use)
        await self._write()

    async def _forget_unnamed(self) -> None:
        turns = Turns()
        for name, domain in self._table.items():
            pattern = self._patterns.match(name)
            if not pattern:
                self._table.remove(name)
                self._changed[name] = None
            elif pattern != domain.pattern and self._table.get(name) is domain:
                self._table.file(name, pattern)
            await turns.pause()

    async def _due(self) -> dict[str, set[Address]]:
        """Names with those of their addresses that may have to go."""
        turns = Turns()
        due: dict[str, set[Address]] = {}
        for name, domain in self._table.items():
            now = self._clock()
            over = {at for at, life in domain.lives.items() if max(life.until, life.look) <= now}
            if over and self._looks_at(name):
                due[name] = over
            await turns.pause()
        return due

    def _end(self, name: str, addresses: set[Address], use: Use) -> None:
        domain = self._table.get(name)
        now = self._clock()
        for address in addresses:
            life = domain.lives.get(address) if domain is not None else None
            # It may have been seen again meanwhile.
            if domain is None or life is None or life.until > now:
                continue
            if address in use.addresses or not (use.all_asked or now >= life.until + UNASKED_SECONDS):
                life.look = now + LOOK_AGAIN
                continue
            del domain.lives[address]
            self._changed[name] = None
        if domain is not None and not domain.lives:
            self._table.remove(name)


def _patterns_of(policy: Object) -> frozenset[str]:
    if not isinstance(policy, ClusterNetworkPolicy):
        return frozenset()
    return frozenset(
        plain(pattern) for rule in policy.spec.egress for peer in rule.to for pattern in peer.domain_names
    )


def _checked(report: controller_pb2.Resolved) -> tuple[str, frozenset[Address]]:
    """The name and those of its addresses that a host can have everywhere. InvalidObjectError."""
    name = plain(report.name)
    if not is_name(name):
        raise InvalidObjectError("resolved.name", f"{report.name!r} is no name of a host")
    if len(report.addresses) > MOST_ADDRESSES:
        raise InvalidObjectError("resolved.addresses", f"at most {MOST_ADDRESSES} are taken")
    found = set()
    for index, text in enumerate(report.addresses):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise InvalidObjectError(f"resolved.addresses[{index}]", f"{text!r} is no IP address") from None
        of_no_host = address.is_unspecified or address.is_loopback or address.is_multicast
        if not of_no_host and not address.is_link_local:
            found.add(Address(address.version, int(address)))
    return name, frozenset(found)


def _answer(answers: Sequence[Answer], refused: str | None) -> None:
    for answer in answers:
        answer(refused)


def _tell_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        log.error("names are not looked after", error=logs.error_text(problem))
