# SPDX-License-Identifier: Apache-2.0
"""Allocation: what each Service was given, in memory, and how that changes.

A change is planned first, which touches nothing; then its owner writes the plan to the store, and commits it
here. Owned by the asyncio thread, used with the ledger's lock held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from controller.allocation.builtin import DNS, DNS_NUMBER, dns_service
from controller.allocation.carried import carried
from controller.allocation.choice import Chooser, wants_load_balancer
from controller.allocation.families import with_families
from controller.allocation.index import Index, Place, places
from controller.allocation.network import ServiceNetwork
from controller.allocation.numbers import Numbers
from controller.allocation.pool import Holder
from controller.ranges import ExhaustedError
from controller.records import AddressesRecord, NumberRecord, addresses_key, encode, number_key
from controller.store import Delete, Operation, Put
from sdn.model import InvalidObjectError
from sdn.model.names import IPAddress
from sdn.model.service import Service, defaulted, defaulted_spec
from sdn.model.servicespec import check_service_spec
from sdn.pipeline.topology import Address

#: Reasons of events, as Kubernetes names them.
NO_ADDRESS = "AllocationFailed"
ADDRESS_GIVEN = "IPAllocated"
ALREADY_ALLOCATED = "AlreadyAllocated"


@dataclass(frozen=True, slots=True)
class Given:
    """What a Service was given beside what its spec says."""

    service: Service
    number: int
    load_balancer: tuple[str, ...] = ()

    @property
    def holder(self) -> Holder:
        return self.service.metadata.namespace, self.service.metadata.name


@dataclass(frozen=True, slots=True)
class Plan:
    """What a Service would be given. ``operations`` store what is not in the Service itself. ``lacking`` says why a
    LoadBalancer has no address; empty: it has one, or wants none.
    """

    given: Given
    operations: tuple[Operation, ...]
    lacking: str = ""

    @property
    def service(self) -> Service:
        """The complete Service, as it is stored."""
        return self.given.service


class Problem(NamedTuple):
    """Something stored that cannot be as it is: whose, the reason of an event, and its text."""

    holder: Holder
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading: what mends the store, and what people should know."""

    operations: list[Operation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Allocation:
    """See the module."""

    def __init__(self, network: ServiceNetwork) -> None:
        self.network = network
        #: The Service that the controller itself provides; None: none.
        self.builtin = dns_service(network)
        self._index = Index(network)
        self._numbers = Numbers(first=DNS_NUMBER + 1)
        self._given: dict[Holder, Given] = {}
        self._held: dict[Holder, dict[tuple[object, ...], Place]] = {}
        #: LoadBalancers that wait for an address, those that wait longest first.
        self._waiting: dict[Holder, None] = {}
        self._conflicts: dict[Holder, str] = {}
        if self.builtin is not None:
            self.commit(Plan(Given(self.builtin, DNS_NUMBER), ()))

    # What others ask.

    def number(self, namespace: str, name: str) -> int:
        """The number of a stored Service, its own for its life. KeyError."""
        return self._given[namespace, name].number

    def load_balancer_addresses(self, namespace: str, name: str) -> tuple[Address, ...]:
        """Addresses that a Service has from the pool, in the order of its ipFamilies."""
        given = self._given.get((namespace, name))
        return tuple(map(Address.parse, given.load_balancer)) if given is not None else ()

    def conflict(self, namespace: str, name: str) -> str:
        """Why a stored Service must not be programmed: it claims what another one has; empty: it may be."""
        return self._conflicts.get((namespace, name), "")

    def services(self) -> list[Service]:
        """All Services, the one that is not stored included."""
        return [given.service for given in self._given.values()]

    def waiting(self) -> list[Holder]:
        """LoadBalancers that could use an address, those that wait longest first."""
        return list(self._waiting)

    # Changes.

    def plan(self, service: Service, nodes: Collection[IPAddress]) -> Plan:
        """Make a declared Service complete. ``nodes`` are the nodes' own addresses.

        InvalidObjectError, ExhaustedError: it cannot be, and nothing is changed.
        """
        holder = service.metadata.namespace, service.metadata.name
        try:
            return self._plan(service, holder, nodes)
        except InvalidObjectError as problem:
            raise problem.about(f"Service {holder[0]}/{holder[1]}") from None

    def _plan(self, service: Service, holder: Holder, nodes: Collection[IPAddress]) -> Plan:
        before = self._given.get(holder)
        chooser = Chooser(self.network, self._index, holder, nodes)
        spec = service.spec
        families: tuple[str, ...] = ()
        if before is not None:
            spec = carried(spec, before.service.spec)
            families = before.service.spec.ip_families
        spec = with_families(defaulted_spec(spec), self.network.families, families)
        check_service_spec(spec)
        spec = chooser.node_ports(chooser.cluster_ips(spec))
        had = before.load_balancer if before is not None else ()
        addresses, lacking = chooser.load_balancer(spec, had)
        held = self._held.get(holder, {})
        for place in places(spec, addresses):
            if place.identity not in held:
                chooser.check(place)
        number = before.number if before is not None else self._numbers.choose()
        if number is None:
            raise ExhaustedError(
                f"Service {holder[0]}/{holder[1]}: there is no number left for another Service"
            )
        operations: list[Operation] = []
        if before is None:
            operations.append(Put(number_key(*holder), encode(NumberRecord(number=number))))
        if addresses and addresses != had:
            operations.append(Put(addresses_key(*holder), encode(AddressesRecord(addresses=addresses))))
        elif had and not addresses:
            operations.append(Delete(addresses_key(*holder)))
        given = Given(replace(service, spec=spec), number, addresses)
        return Plan(given, tuple(operations), lacking)

    def commit(self, plan: Plan) -> bool:
        """Take in what was stored. Whether an address of the pool became free."""
        given = plan.given
        freed = self._hold(given.holder, places(given.service.spec, given.load_balancer))
        self._given[given.holder] = given
        self._numbers.take(given.number)
        self._conflicts.pop(given.holder, None)
        if plan.lacking:
            self._waiting.setdefault(given.holder)
        else:
            self._waiting.pop(given.holder, None)
        return freed

    def taken_in(self, service: Service, number: int, addresses: tuple[str, ...] | None) -> bool | None:
        """Take in what another controller has given a Service: its number (0: the one that it has), and its addresses
        of the pool (None: those that it has). Whether an address of the pool became free; None: it has no number, and
        nothing was taken in.
        """
        holder = service.metadata.namespace, service.metadata.name
        before = self._given.get(holder)
        if before is not None:
            number = number or before.number
            addresses = before.load_balancer if addresses is None else addresses
        if not number:
            return None
        lacking = "" if addresses or not wants_load_balancer(service.spec) else "no address is left for it"
        return self.commit(Plan(Given(service, number, addresses or ()), (), lacking))

    def withdrawal(self, namespace: str, name: str) -> list[Operation]:
        """What removes from the store what a Service was given, beside the Service itself."""
        operations: list[Operation] = [Delete(number_key(namespace, name))]
        if self.load_balancer_addresses(namespace, name):
            operations.append(Delete(addresses_key(namespace, name)))
        return operations

    def release(self, namespace: str, name: str) -> bool:
        """A Service is gone from the store. Whether an address of the pool became free."""
        holder = namespace, name
        given = self._given.pop(holder, None)
        if given is None:
            return False
        freed = self._hold(holder, ())
        del self._held[holder]
        self._numbers.give_back(given.number)
        self._conflicts.pop(holder, None)
        self._waiting.pop(holder, None)
        return freed

    def _hold(self, holder: Holder, wanted: Iterable[Place]) -> bool:
        """Hold these places instead of those held before; what is in both is not touched. Whether an address of
        the pool became free.
        """
        before = self._held.get(holder, {})
        now = {place.identity: place for place in wanted}
        gone = [place for identity, place in before.items() if identity not in now]
        for place in gone:
            self._index.give_back(place, holder)
        for identity, place in now.items():
            if identity not in before:
                self._index.take(place, holder)
        self._held[holder] = now
        return any(place.kind in ("load-balancer", "external") for place in gone)

    # Start.

    def load(
        self,
        services: Iterable[Service],
        numbers: Mapping[Holder, int],
        addresses: Mapping[Holder, tuple[str, ...]],
        nodes: Collection[IPAddress],
    ) -> Loaded:
        """Take in what is stored; ``numbers`` and ``addresses`` are the records beside the Services.

        A Service that claims what an earlier one has is taken in without it, and must not be programmed (see
        :meth:`conflict`); it can be changed and deleted like any other.
        """
        loaded = Loaded()
        known: set[Holder] = set()
        taken_in: list[Given] = []
        for service in services:
            holder = service.metadata.namespace, service.metadata.name
            known.add(holder)
            if self.builtin is not None and holder == DNS:
                loaded.problems.append(
                    Problem(holder, "Shadowed", "not in force: the agents serve DNS (setting dns)")
                )
                continue
            number = numbers.get(holder, 0)
            if number <= DNS_NUMBER or number in self._numbers:
                number = 0
            else:
                self._numbers.take(number)
            taken_in.append(Given(defaulted(service), number, addresses.get(holder, ())))
        for given in taken_in:
            if not given.number:
                given = dataclasses.replace(given, number=self._numbers.choose() or 0)
                self._numbers.take(given.number)
                record = encode(NumberRecord(number=given.number))
                loaded.operations.append(Put(number_key(*given.holder), record))
            loaded.problems.extend(self._take_in(given, nodes))
        orphans = [holder for holder in numbers if holder not in known]
        loaded.operations.extend(Delete(number_key(*holder)) for holder in orphans)
        orphans = [holder for holder in addresses if holder not in known]
        loaded.operations.extend(Delete(addresses_key(*holder)) for holder in orphans)
        return loaded

    def _take_in(self, given: Given, nodes: Collection[IPAddress]) -> Iterator[Problem]:
        holder = given.holder
        possible = []
        for place in places(given.service.spec, given.load_balancer):
            other = self._index.other(place, holder, nodes)
            if other is None:
                possible.append(place)
                reason = self._index.out_of_range(place)
                if reason:
                    yield Problem(
                        holder,
                        reason,
                        f"{place.path}: {place} is not within the range that is set; kept as it is",
                    )
                continue
            why = f"not in force: {place.path}: {place} belongs to Service {other[0]}/{other[1]}"
            if holder not in self._conflicts:
                self._conflicts[holder] = why
                yield Problem(holder, ALREADY_ALLOCATED, why)
        self._hold(holder, possible)
        self._given[holder] = given
        if wants_load_balancer(given.service.spec) and not given.load_balancer:
            self._waiting[holder] = None
