# SPDX-License-Identifier: Apache-2.0
"""Connections that must be cut, because the endpoint that they go to is no more.

The switch's connection tracker keeps a connection's translation for as long as packets come, and UDP has no
end: a client that goes on sending would go on to an endpoint that its Service has no longer. So when a flow
that sends connections to an endpoint goes, the UDP entries that it made are flushed in the same change. TCP
and SCTP connections are left to close, as kube-proxy leaves them. Everything to a pod that is gone is flushed.

What is flushed belongs to a *pair*: a Service port, and an endpoint. When another Service port has the same
endpoint, its connections must live: then only those are flushed that went to the lost one's own addresses.

Each flush is made twice. A switch goes on for a moment after it has confirmed a change: packets that meet
what its datapath has cached still make entries of the old kind.

A flush reads the whole connection table, in the switch's thread that also takes changes (about 25 ms for
100,000 connections). So pods that are gone wait while flushing takes more than half of the time; what goes on
to an endpoint that its Service has lost never waits.

Of a switch that another controller owns nothing is flushed here: that one does it. What it would have had to flush
lately is remembered, since it may fail before it has.

Owned by one thread, no I/O. What it keeps grows with the UDP endpoints of a switch; what a change costs does
not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from controller.desired import Entries, Key
from controller.endpointflows import FrontendAddress, Target, frontends, target, udp_service_port
from sdn.pipeline.tables import LOAD_BALANCING
from sdn.pipeline.topology import Address

#: Seconds until the second flush. Open vSwitch looks its cached flows through at once after a change, and then at
#: least every half second (other_config:max-revalidator).
SECOND_AFTER: Final = 0.6

#: Endpoints, and pods that are gone, that are flushed in one go; changes of flows are not held up by more.
MOST_AT_ONCE: Final = 64

#: Seconds for which it is remembered what another controller has to flush; longer than it takes to see that it failed.
REMEMBERED: Final = 30.0
#: What is remembered comes in pieces of so many seconds.
_PIECE: Final = 1.0

#: A Service port (its group base) and where it sent connections.
Pair = tuple[int, Target]


class StaleUdp(NamedTuple):
    """UDP connections to an endpoint: all, or those that went to one frontend."""

    endpoint: Target
    frontend: FrontendAddress | None


class Gone(NamedTuple):
    """Everything to an address, and ``both_ways`` from it."""

    address: Address
    both_ways: bool


Stale = StaleUdp | Gone


class _Sweep(NamedTuple):
    #: Frontends are only known where the endpoint had other users.
    pairs: dict[Pair, set[FrontendAddress]]
    gone: set[Address]


class StaleConnections:
    """What must be cut on one switch; see the module."""

    def __init__(self) -> None:
        #: UDP endpoints and the Service ports that are to use them.
        self._users: dict[Target, tuple[int, ...]] = {}
        self._first = _Sweep({}, set())
        self._second: deque[tuple[float, _Sweep]] = deque()
        #: What was taken for the second time just now.
        self._last: _Sweep | None = None
        self._rest_until = 0.0

    def changed(
        self,
        changes: Mapping[Key, bytes | None],
        body: Callable[[Key], bytes | None],
        parts: Iterable[Entries],
    ) -> None:
        """Desired entries have changed: ``changes`` has the bodies that they had, ``body`` those that they
        have, ``parts`` are the entries among which the Service's other flows are, before and after.
        """
        lost: list[Pair] = []
        for key, former in changes.items():
            service_port = udp_service_port(key)
            if service_port is None:
                continue
            now = body(key)
            was_for = None if former is None else target(former)
            is_for = None if now is None else target(now)
            if was_for == is_for:
                continue
            if was_for is not None:
                self._remove_user(was_for, service_port)
                lost.append((service_port, was_for))
            if is_for is not None:
                self._users[is_for] = (*self._users.get(is_for, ()), service_port)
        for pair in lost:
            self._add(pair, parts)

    def found(self, installed: Entries, wrong: Iterable[Key]) -> None:
        """A switch was found to hold ``installed``, of which the entries with the keys ``wrong`` are not as
        they must be.
        """
        services: tuple[Entries, ...] | None = None
        for key in wrong:
            service_port = udp_service_port(key)
            was_for = target(installed[key]) if service_port is not None and key in installed else None
            if service_port is None or was_for is None:
                continue
            if services is None:
                services = ({k: b for k, b in installed.items() if _is_load_balancing(k)},)
            self._add((service_port, was_for), services)

    def gone(self, addresses: Collection[Address]) -> None:
        """These pods' addresses are nobody's any more."""
        self._first.gone.update(addresses)

    def back(self, addresses: Collection[Address]) -> set[Address]:
        """A new pod has these addresses: what was still to be flushed of the one before would be its own from now on.
        Gives those of which something was.
        """
        pending: set[Address] = set()
        for sweep in (self._first, *(sweep for _, sweep in self._second)):
            pending.update(sweep.gone.intersection(addresses))
            sweep.gone.difference_update(addresses)
        return pending

    def _add(self, pair: Pair, parts: Iterable[Entries]) -> None:
        service_port, endpoint = pair
        users = self._users.get(endpoint, ())
        if service_port in users:
            return
        known = self._first.pairs.setdefault(pair, set())
        if users:
            for entries in parts:
                known |= frontends(service_port, entries)

    def _remove_user(self, endpoint: Target, service_port: int) -> None:
        users = list(self._users.get(endpoint, ()))
        if service_port in users:
            users.remove(service_port)
        if users:
            self._users[endpoint] = tuple(users)
        else:
            self._users.pop(endpoint, None)

    def take(self, now: float) -> list[Stale]:
        """What is to be flushed at the time ``now``, in seconds: a first time, or a second. Of much it is a part;
        then more is due at once.
        """
        rested = now >= self._rest_until
        stale: list[Stale] = []
        first = _Sweep({}, set())
        while self._first.pairs and len(first.pairs) < MOST_AT_ONCE:
            pair, known = self._first.pairs.popitem()
            first.pairs[pair] = known
        while self._first.gone and rested and len(first.gone) < MOST_AT_ONCE:
            first.gone.add(self._first.gone.pop())
        if first.pairs or first.gone:
            stale += self._stale(first, both_ways=False)
            self._second.append((now + SECOND_AFTER, first))
        self._last = None
        if self._second and self._second[0][0] <= now and rested:
            _, self._last = self._second.popleft()
            stale += self._stale(self._last, both_ways=True)
        return list(dict.fromkeys(stale))

    def spent(self, now: float, seconds: float) -> None:
        """What was taken has been flushed, and took so long."""
        self._rest_until = now + seconds

    def due(self) -> float | None:
        """When :meth:`take` has something to give: a time, None never."""
        if self._first.pairs:
            return 0.0
        if self._first.gone:
            return self._rest_until
        return max(self._second[0][0], self._rest_until) if self._second else None

    def interrupted(self) -> None:
        """What was taken could not be flushed: begin anew."""
        taken = [sweep for _, sweep in self._second]
        if self._last is not None:
            taken.append(self._last)
        for sweep in taken:
            self._add_to(self._first, sweep)
        self._second.clear()
        self._last = None

    @staticmethod
    def _add_to(all_of: _Sweep, sweep: _Sweep) -> None:
        for pair, known in sweep.pairs.items():
            all_of.pairs.setdefault(pair, set()).update(known)
        all_of.gone.update(sweep.gone)

    def stand_by(self, now: float) -> None:
        """Another controller flushes, at the time ``now``: remember for a while what it has to do."""
        if self._first.pairs or self._first.gone:
            if not self._second or self._second[-1][0] < now - _PIECE:
                self._second.append((now, _Sweep({}, set())))
            self._add_to(self._second[-1][1], self._first)
            self._first = _Sweep({}, set())
        while self._second and self._second[0][0] < now - REMEMBERED:
            self._second.popleft()

    def take_over(self, now: float) -> None:
        """Nobody else flushes any more, from the time ``now`` on: what may not have been done is to be done."""
        self.stand_by(now)
        self.interrupted()

    def _stale(self, sweep: _Sweep, *, both_ways: bool) -> list[Stale]:
        stale: list[Stale] = []
        for (service_port, endpoint), known in sweep.pairs.items():
            users = self._users.get(endpoint, ())
            if service_port in users or endpoint.address in sweep.gone:
                continue  # It is back; or all of its connections go.
            if users and known:
                stale += [StaleUdp(endpoint, frontend) for frontend in sorted(known, key=str)]
            elif not users:
                stale.append(StaleUdp(endpoint, None))
            # Else it has found another user since: what may be that one's is left alone.
        stale += [Gone(address, both_ways) for address in sorted(sweep.gone, key=str)]
        return stale


def _is_load_balancing(key: Key) -> bool:
    return not isinstance(key, int) and key[0] == LOAD_BALANCING.number
