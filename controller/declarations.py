# SPDX-License-Identifier: Apache-2.0
"""Declared objects: what users applied, stored as they wrote it; a Service with all that it was given.

A change is stored in one write: the object, and with a Service its number and its LoadBalancer addresses. What is
refused, or only tried (dry run), leaves no trace.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from controller.allocation.allocation import ADDRESS_GIVEN, NO_ADDRESS, Allocation, Plan
from controller.allocation.pool import Holder
from controller.cluster import Cluster
from controller.errors import NotFoundError, PreconditionError
from controller.events import Events
from controller.ledger import Ledger, under, whole
from controller.ranges import ExhaustedError
from controller.records import (
    LB_ADDRESSES,
    SERVICE_NUMBERS,
    AddressesRecord,
    NumberRecord,
    decode,
    object_key,
)
from controller.store import ConflictError, Delete, Entry, Operation, Put, StoreError
from controller.watchers import Watchers
from sdn import logs
from sdn.model import InvalidObjectError, Node, Object, Service, defaulted, to_document

log = logs.get("controller.declarations")

#: Of an object as it is stored. etcd refuses what is half as large again, and nothing must depend on the store.
MAX_OBJECT_BYTES = 1 << 20
#: Seconds until Services that wait are given what is free, where somebody else may have given it by then; and where the
#: store is away.
FILL_SECONDS = 1.0
FILL_AGAIN_SECONDS = 5.0

#: Told kind, namespace, name, and what the object was before and is now; None: there was, or is, none. Both are equal
#: when only what a Service was given beside its spec is another.
OnChange = Callable[[str, str, str, Object | None, Object | None], None]


class Applied(NamedTuple):
    """What became of a declaration."""

    #: "created", "configured" or "unchanged".
    outcome: str
    #: The object as it is stored, or would be.
    value: Object


class Declarations:
    """Runs in the asyncio thread."""

    def __init__(
        self, ledger: Ledger, cluster: Cluster, watchers: Watchers, allocation: Allocation, events: Events
    ) -> None:
        #: Called after the model has changed and before anybody who watches is told.
        self.on_change: OnChange = lambda _kind, _namespace, _name, _before, _after: None
        self._ledger = ledger
        self._cluster = cluster
        self._watchers = watchers
        self._allocation = allocation
        self._events = events
        #: What other controllers have given Services that are not known here yet, or not as they are now.
        self._numbers: dict[Holder, int] = {}
        self._addresses: dict[Holder, tuple[str, ...]] = {}
        #: Until Services that wait are given what is free; None: nothing is known to be. And what gives it then.
        self._filling: asyncio.TimerHandle | None = None
        self._fill: asyncio.Task[None] | None = None
        self._stopped = False

    async def load(self, services: Iterable[Service], entries: Sequence[Entry]) -> None:
        """Take in the stored Services; nodes are known. ``entries`` are all that is stored. StoreError,
        CorruptRecordError.
        """
        numbers = {
            _holder(entry.key, SERVICE_NUMBERS): decode(NumberRecord, entry).number
            for entry in under(SERVICE_NUMBERS, entries)
        }
        addresses = {
            _holder(entry.key, LB_ADDRESSES): decode(AddressesRecord, entry).addresses
            for entry in under(LB_ADDRESSES, entries)
        }
        loaded = self._allocation.load(services, numbers, addresses, self._cluster.node_addresses)
        try:
            if loaded.operations:
                await self._ledger.write(loaded.operations, gives=True)
        except ConflictError as conflict:
            # Another controller mends the same, and its changes will come.
            log.info("the store is mended by another controller", conflict=str(conflict))
        for service in self._allocation.services():
            self._cluster.put_object(service)
        for (namespace, name), reason, text in loaded.problems:
            self._events.record("Service", namespace, name, "Warning", reason, text)

    @whole
    async def apply(self, value: Object, dry_run: bool) -> Applied:
        """Declare an object. InvalidObjectError, ExhaustedError, PreconditionError, StoreError."""
        kind, namespace, name = value.KIND, value.metadata.namespace, value.metadata.name
        async with self._ledger.lock:
            before = self._cluster.objects[kind].get((namespace, name))
            self._check_declaration(value)
            plan = self._plan(value)
            operations: list[Operation] = []
            if plan is not None:
                value = plan.service
                operations += plan.operations
            unchanged = before == value and not operations and not self._allocation.conflict(namespace, name)
            outcome = "created" if before is None else "unchanged" if unchanged else "configured"
            document = msgspec.json.encode(to_document(value))
            if not unchanged and len(document) > MAX_OBJECT_BYTES:
                raise InvalidObjectError(
                    "",
                    f"takes {len(document):,} bytes, more than the {MAX_OBJECT_BYTES:,} that are stored of one object",
                    f"{kind} {_full(namespace, name)}",
                )
            if dry_run:
                return Applied(outcome, value)
            if unchanged:
                # Unless another controller has changed it since.
                await self._ledger.confirm(object_key(kind, namespace, name))
                return Applied(outcome, value)
            # Last: who follows the store knows what a Service was given when it sees the Service.
            operations.append(Put(object_key(kind, namespace, name), document))
            await self._ledger.write(operations, gives=plan is not None)
            self._cluster.put_object(value)
            if plan is not None:
                self._forget_given((namespace, name))
            freed = plan is not None and self._allocation.commit(plan)
            self.on_change(kind, namespace, name, before, value)
            if plan is not None and plan.lacking:
                self._events.record("Service", namespace, name, "Warning", NO_ADDRESS, plan.lacking)
            if freed:
                await self._fill_waiting()
        log.info("object applied", kind=kind, namespace=namespace, name=name, outcome=outcome)
        self._object_changed(kind, namespace, name)
        return Applied(outcome, value)

    def _plan(self, value: Object) -> Plan | None:
        """What a Service gets; None for other kinds, and for the Service that is not declared here."""
        if not isinstance(value, Service):
            return None
        builtin = self._allocation.builtin
        if builtin is None or _name(value) != _name(builtin):
            return self._allocation.plan(value, self._cluster.node_addresses)
        if defaulted(value) != builtin:
            raise _provided(value.metadata.namespace, value.metadata.name)
        return None

    def _check_declaration(self, value: Object) -> None:
        if isinstance(value, Node) and value.pod_cidrs:
            record = self._cluster.nodes.get(value.metadata.name)
            if record is not None and set(value.pod_cidrs) - set(record.pod_ranges):
                raise PreconditionError(
                    f"Node {record.name}: spec.podCIDRs: the node is registered with {', '.join(record.pod_ranges)}; "
                    "delete the Node first to give it other ranges"
                )

    @whole
    async def remove(self, kind: str, namespace: str, name: str) -> None:
        """Withdraw a declaration. NotFoundError, PreconditionError, StoreError."""
        async with self._ledger.lock:
            before = self._cluster.objects[kind].get((namespace, name))
            if before is None:
                # Another controller may have stored it just now.
                await self._ledger.confirm(object_key(kind, namespace, name))
                if self._watchers.document(kind, namespace, name) is not None:
                    raise PreconditionError(
                        f"{kind} {_full(namespace, name)} exists, but was not declared here"
                    )
                raise NotFoundError(f"{kind} {_full(namespace, name)} does not exist")
            operations: list[Operation] = [Delete(object_key(kind, namespace, name))]
            if kind == "Service":
                builtin = self._allocation.builtin
                if builtin is not None and _name(before) == _name(builtin):
                    raise _provided(namespace, name)
                operations += self._allocation.withdrawal(namespace, name)
            await self._ledger.write(operations, gives=kind == "Service")
            self._cluster.remove_object(kind, namespace, name)
            if kind == "Service":
                self._forget_given((namespace, name))
            freed = kind == "Service" and self._allocation.release(namespace, name)
            self.on_change(kind, namespace, name, before, None)
            if freed:
                await self._fill_waiting()
        log.info("object deleted", kind=kind, namespace=namespace, name=name)
        self._object_changed(kind, namespace, name)

    @whole
    async def fill_waiting(self) -> None:
        """Give LoadBalancers that wait for an address one, as far as there are any. StoreError."""
        async with self._ledger.lock:
            await self._fill_waiting()

    async def _fill_waiting(self) -> None:
        vain: set[tuple[str, ...]] = set()
        for namespace, name in self._allocation.waiting():
            service = self._cluster.objects["Service"][namespace, name]
            if not isinstance(service, Service) or service.spec.ip_families in vain:
                continue
            try:
                plan = self._allocation.plan(service, self._cluster.node_addresses)
                if plan.lacking:
                    # All others of these families wait for the same.
                    vain.add(service.spec.ip_families)
                    self._events.record("Service", namespace, name, "Warning", NO_ADDRESS, plan.lacking)
                    continue
                await self._ledger.write(plan.operations, gives=True)
            except ConflictError:
                # Others were first, with this or with something else. Raised, it would repeat what has freed it.
                self._fill_in(FILL_SECONDS)
                return
            except (StoreError, InvalidObjectError, ExhaustedError) as problem:
                if isinstance(problem, StoreError):
                    self._fill_in(FILL_AGAIN_SECONDS)
                # It goes on waiting; nobody asked for this now who could be told.
                self._events.record("Service", namespace, name, "Warning", NO_ADDRESS, str(problem))
                continue
            self._allocation.commit(plan)
            addresses = ", ".join(plan.given.load_balancer)
            self._events.record("Service", namespace, name, "Normal", ADDRESS_GIVEN, f"got {addresses}")
            self.on_change("Service", namespace, name, service, service)
            self._object_changed("Service", namespace, name)

    def _fill_in(self, seconds: float) -> None:
        """Give Services that wait what is free, in about so many seconds or before."""
        if self._filling is None and not self._stopped:
            # Of several controllers that see the same one is the first, and the others need not try in vain.
            seconds *= random.uniform(0.5, 1.5)
            self._filling = asyncio.get_running_loop().call_later(seconds, self._fill_now)

    def _fill_now(self) -> None:
        self._filling = None
        self._fill = asyncio.get_running_loop().create_task(self._fill_or_retry())

    async def _fill_or_retry(self) -> None:
        try:
            await self.fill_waiting()
        except StoreError as problem:
            log.warning("Services wait for addresses", error=str(problem))
            self._fill_in(FILL_AGAIN_SECONDS)

    def stop(self) -> None:
        """Give nothing any more that nobody asks for."""
        self._stopped = True
        if self._filling is not None:
            self._filling.cancel()
        if self._fill is not None:
            self._fill.cancel()

    # What other controllers have stored.

    def number_stored(self, holder: Holder, number: int) -> None:
        """Another controller has given a Service its number; the Service itself comes next."""
        self._numbers[holder] = number

    def addresses_stored(self, holder: Holder, addresses: tuple[str, ...]) -> None:
        """Another controller has given a Service addresses of the pool, or taken them back."""
        service = self._cluster.objects["Service"].get(holder)
        if isinstance(service, Service) and self._taken_in(service, 0, addresses):
            self.on_change("Service", *holder, service, service)
            self._object_changed("Service", *holder)
        elif addresses:
            self._addresses[holder] = addresses

    def _taken_in(self, service: Service, number: int, addresses: tuple[str, ...] | None) -> bool:
        """Take in what a Service was given, as :meth:`Allocation.taken_in` does. False: it has no number."""
        freed = self._allocation.taken_in(service, number, addresses)
        self._became_free(bool(freed))
        return freed is not None

    def _became_free(self, freed: bool) -> None:
        """Another controller has freed an address of the pool, or not. It gives it to who waits, if it can."""
        if freed and self._allocation.waiting():
            self._fill_in(FILL_SECONDS)

    def _forget_given(self, holder: Holder) -> None:
        """What others had given a Service before is not what it has now."""
        self._numbers.pop(holder, None)
        self._addresses.pop(holder, None)

    def stored(self, value: Object) -> None:
        """Another controller has stored an object."""
        kind, namespace, name = value.KIND, value.metadata.namespace, value.metadata.name
        if isinstance(value, Service):
            holder = namespace, name
            number, addresses = self._numbers.pop(holder, 0), self._addresses.pop(holder, None)
            value = defaulted(value)
            if not self._taken_in(value, number, addresses):
                log.error("Service without a number", namespace=namespace, name=name)
                return
        before = self._cluster.objects[kind].get((namespace, name))
        self._cluster.put_object(value)
        self.on_change(kind, namespace, name, before, value)
        self._object_changed(kind, namespace, name)

    def removed(self, kind: str, namespace: str, name: str) -> None:
        """Another controller has withdrawn an object."""
        before = self._cluster.objects[kind].get((namespace, name))
        if before is None:
            return
        self._cluster.remove_object(kind, namespace, name)
        if kind == "Service":
            self._forget_given((namespace, name))
            self._became_free(self._allocation.release(namespace, name))
        self.on_change(kind, namespace, name, before, None)
        self._object_changed(kind, namespace, name)

    def _object_changed(self, kind: str, namespace: str, name: str) -> None:
        self._watchers.changed(kind, namespace, name)
        if namespace:
            # A namespace exists by what it holds, too.
            self._watchers.changed("Namespace", "", namespace)


def _name(value: Object) -> tuple[str, str]:
    return value.metadata.namespace, value.metadata.name


def _holder(key: str, prefix: str) -> tuple[str, str]:
    namespace, _, name = key.removeprefix(prefix).partition("/")
    return namespace, name


def _provided(namespace: str, name: str) -> PreconditionError:
    return PreconditionError(
        f"Service {namespace}/{name}: the agents serve it; set the setting dns to false to declare it"
    )


def _full(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name
