# SPDX-License-Identifier: Apache-2.0
"""Answers that policies want to know of: reported, and held until the node's switch knows their addresses.

A policy may allow connections to a name (`domainNames`). Its addresses are whatever upstream servers answer; and as it
is we who hand the answer to the pod, we can first have them programmed. So the first packet that follows an answer is
not lost. An answer waits for HOLD_SECONDS at most; then it goes, and its addresses are in force a little later.

What was reported and is in force is remembered, and held no more. It is reported again, without being held, in time
before it ends (:mod:`sdn.policy.resolution`). What could not be brought in force is told again when a controller says
anew which names it wants to know of: that begins each connection to one.

All of it is bounded: names that are remembered, reports without an answer, answers that wait, and of the last two what
one client may have, so that no pod can keep the others from being seen.
"""

from __future__ import annotations

import asyncio
import functools
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import dns.exception
import dns.message
import dns.rdatatype

from agent.dns.feed import Resolution
from agent.dns.messages import MOST_UDP
from sdn.policy.resolution import (
    MOST_ADDRESSES,
    MOST_NAMES,
    Patterns,
    is_name,
    reported_seconds_of,
    seconds_of,
)

HOLD_SECONDS: Final = 1.0
#: Reports without an answer, and answers that wait: in all, and of one client.
MOST_WAITING: Final = 512
MOST_OF_ONE: Final = 64
#: What could not be brought in force and is told again.
MOST_FAILED: Final = 1_000
_KINDS: Final = (dns.rdatatype.A, dns.rdatatype.AAAA)


class Found(NamedTuple):
    """The addresses in an answer, and for how many seconds they may be used."""

    addresses: frozenset[str]
    ttl: int


@dataclass(eq=False, slots=True)
class _Report:
    """One that waits for its answer."""

    name: str
    found: Found
    at: float
    client: str
    #: Of the patterns: what is told of names after those have changed counts no more.
    generation: int
    answered: asyncio.Future[None]

    @property
    def key(self) -> tuple[str, frozenset[str]]:
        return self.name, self.found.addresses


class Observer:
    """See the module. ``report`` hands a report to the agent; False: it cannot. For one event loop."""

    def __init__(
        self, report: Callable[[Resolution], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._patterns = Patterns()
        self._generation = 0
        self._numbers = 0
        #: Until when each address of a name is in force; the names reported last at the end.
        self._known: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._reports: dict[int, _Report] = {}
        self._under_way: dict[tuple[str, frozenset[str]], _Report] = {}
        #: When reports that came to nothing were made.
        self._failed: OrderedDict[tuple[str, Found], float] = OrderedDict()
        self._reporting, self._holding = _Shares(), _Shares()

    def watch(self, patterns: Iterable[str]) -> None:
        """A controller wants to know of these names, and may have forgotten what was in force."""
        self._patterns = Patterns(patterns)
        self._generation += 1
        self._known.clear()
        self._under_way.clear()
        failed, self._failed = self._failed, OrderedDict()
        now = self._clock()
        for (name, found), at in failed.items():
            if self.wants(name) and at + seconds_of(found.ttl) > now:
                self._send(name, found, now, "")

    def wants(self, name: str) -> bool:
        """Whether answers about a name, in lower case and without a dot at the end, are to be seen."""
        return bool(self._patterns) and bool(self._patterns.match(name)) and is_name(name)

    async def see(self, name: str, reply: bytes, client: str) -> None:
        """An answer of an upstream server to a question about a name that is wanted. Returns when it may go to the
        client who asked.
        """
        found = addresses(reply)
        if found is None:
            return
        now = self._clock()
        known = self._known.get(name, {})
        until = min(known.get(address, 0.0) for address in found.addresses)
        report = self._under_way.get((name, found.addresses))
        if report is None:
            if until >= now + seconds_of(found.ttl):
                return
            report = self._send(name, found, now, client)
        if report is None or until > now:
            return
        left = report.at + HOLD_SECONDS - now
        if left <= 0 or not self._holding.take(client):
            return
        try:
            await asyncio.wait((report.answered,), timeout=left)
        finally:
            self._holding.give(client)

    def settled(self, number: int, in_force: bool) -> None:
        """The agent answers a report."""
        report = self._reports.pop(number, None)
        if report is None:
            return
        if self._under_way.get(report.key) is report:
            del self._under_way[report.key]
        self._reporting.give(report.client)
        if not in_force:
            self._failed[report.name, report.found] = report.at
            if len(self._failed) > MOST_FAILED:
                self._failed.popitem(last=False)
        elif report.generation == self._generation:
            self._remember(report)
        report.answered.set_result(None)

    def _send(self, name: str, found: Found, now: float, client: str) -> _Report | None:
        """None: it cannot be reported."""
        if not self._reporting.take(client):
            return None
        self._numbers += 1
        number = self._numbers
        if not self._report(Resolution(number, name, tuple(sorted(found.addresses)), found.ttl)):
            self._reporting.give(client)
            return None
        answered = asyncio.get_running_loop().create_future()
        report = _Report(name, found, now, client, self._generation, answered)
        self._reports[number] = self._under_way[report.key] = report
        return report

    def _remember(self, report: _Report) -> None:
        known = self._known.setdefault(report.name, {})
        self._known.move_to_end(report.name)
        # From when it was reported: the controller counts from a later moment.
        until = report.at + reported_seconds_of(report.found.ttl)
        for address in report.found.addresses:
            known[address] = max(until, known.pop(address, 0.0))
        while len(known) > MOST_ADDRESSES:
            del known[next(iter(known))]
        if len(self._known) > MOST_NAMES:
            self._known.popitem(last=False)


class _Shares:
    """So many of a thing, in all and of one client."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._all = 0

    def take(self, client: str) -> bool:
        # What has no client is told again, and was within its bounds before.
        if self._all >= MOST_WAITING or (client and self._taken[client] >= MOST_OF_ONE):
            return False
        self._taken[client] += 1
        self._all += 1
        return True

    def give(self, client: str) -> None:
        self._all -= 1
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]


def addresses(reply: bytes) -> Found | None:
    """What an answer says of the name that was asked for, itself or by way of other names (CNAME), up to
    MOST_ADDRESSES; None: no address, or nothing that can be read. Records of names beside that way do not count.
    """
    # Upstream servers give the same bytes for a second or so to all who ask, but for the identifier.
    return (_read_once if len(reply) <= MOST_UDP else _read)(reply[2:])


def _read(rest: bytes) -> Found | None:
    """Of an answer without its identifier."""
    try:
        message = dns.message.from_wire(b"\0\0" + rest, ignore_trailing=True)
        if not isinstance(message, dns.message.QueryMessage):
            return None
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, ValueError, struct.error, NotImplementedError):
        return None
    if chain.answer is None or chain.answer.rdtype not in _KINDS:
        return None
    found = [record.address for record in chain.answer][:MOST_ADDRESSES]
    return Found(frozenset(found), chain.minimum_ttl) if found else None


_read_once: Final = functools.lru_cache(maxsize=1024)(_read)
