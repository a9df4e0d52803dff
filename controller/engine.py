# SPDX-License-Identifier: Apache-2.0
"""The engine: the cluster in memory, and the parts that change it, one change at a time.

==================  ===========================================================================
``registrations``   nodes: names, uids, ranges
``attachments``     what agents report of pods
``declarations``    what users apply
``allocation``      what Services were given
``loadbalancing``   which endpoints Services have, and what each switch gets of them
``policies``        who may connect to whom, and what each switch gets of it
``domains``         which addresses the DNS gives for names in policies
``sweeps``          connections that policies deny since a change
``states``          Services as agents are told of them
``absences``        which nodes cannot announce
``programs``        what follows from it for each switch
``events``          what happened to objects, for people
``watchers``        who is told of it
==================  ===========================================================================

Everything here runs in the asyncio thread. A change is checked against the model, written to the store, made
in the model, and handed to the synchronizers that it concerns, in this order: what is programmed is always
stored, and nothing that is refused leaves a trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from controller.allocation.allocation import Allocation
from controller.allocation.network import ServiceNetwork
from controller.attachments import Attachments
from controller.cluster import Cluster, key_of
from controller.declarations import Declarations
from controller.domains import Domains
from controller.errors import UnavailableError
from controller.events import Events
from controller.ledger import Ledger
from controller.loadbalancing.absence import Absences
from controller.loadbalancing.index import ServiceKey
from controller.loadbalancing.runtime import LoadBalancing
from controller.loadbalancing.states import ServiceStates
from controller.policies import Policies
from controller.programs import Programs
from controller.ranges import ClusterRanges
from controller.records import (
    ATTACHMENTS,
    NODES,
    OBJECTS,
    AttachmentRecord,
    CorruptRecordError,
    NodeRecord,
    decode,
)
from controller.refreshes import Refreshes
from controller.registrations import Registrations
from controller.store import Entry, Store
from controller.sweeps import Sweeps
from controller.switchboard import Switchboard
from controller.tracked import ListConnections
from controller.turns import Turns
from controller.watchers import Watchers
from sdn import logs
from sdn.model import InvalidObjectError, Object, Service, parse
from sdn.v1 import controller_pb2

log = logs.get("controller.engine")


#: Node, endpoints, seconds.
CountConnections = Callable[
    [str, Sequence[controller_pb2.Destination], float], Awaitable[controller_pb2.ConnectionCounts]
]


class Engine:
    """Make it, and :meth:`load` it, inside the running event loop."""

    def __init__(
        self,
        store: Store,
        ranges: ClusterRanges,
        switchboard: Switchboard,
        services: ServiceNetwork | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        #: Nodes whose switch is connected.
        self._switches: set[str] = set()
        self.ranges = ranges
        self.services = services or ServiceNetwork()
        self.cluster = Cluster()
        self.ledger = Ledger(store)
        self.events = Events()
        self.allocation = Allocation(self.services)
        self.programs = Programs(switchboard, self.services, self._status_changed)
        self.loadbalancing = LoadBalancing(self.cluster, self.programs, self.allocation, ranges)
        self.programs.services_on = self.loadbalancing.entries_on
        self.policies = Policies(self.cluster, self.programs)
        self.programs.policies_on = self.policies.on_node
        self.states = ServiceStates(
            self.cluster, self.loadbalancing.index, self.allocation, self._announcer_changed
        )
        self.loadbalancing.on_changed = self._service_changed
        self.absences = Absences(self.ledger, self.cluster, self.states.candidates)
        self.states.on_candidates = self.absences.changed
        self.watchers = Watchers(self.cluster, self.programs, self.allocation, self.events)
        self.registrations = Registrations(
            self.ledger,
            ranges,
            self.cluster,
            self.programs,
            self.watchers,
            self.loadbalancing,
            self.policies,
            self.services,
        )
        self.attachments = Attachments(
            self.ledger, self.cluster, self.programs, self.watchers, self.loadbalancing, self.policies
        )
        self.declarations = Declarations(
            self.ledger, self.cluster, self.watchers, self.allocation, self.events
        )
        self.declarations.on_change = self._object_changed
        self.watchers.derived_slices = self.loadbalancing.derived_slices
        #: Asks a node's agent, for at most so many seconds, how many connections to these endpoints its switch
        #: tracks; UnavailableError. Set by the session service.
        self.count_connections: CountConnections = _nobody_counts
        #: Asks a node's agent which connections its switch tracks that have an address in one of these ranges, and
        #: waits for at most so many seconds for more of them; UnavailableError. Set by the session service.
        self.list_connections: ListConnections = _nobody_lists
        self.domains = Domains(
            self.ledger,
            self.cluster,
            self.policies.names_resolved,
            self.programs.settled,
            self.programs.nodes,
            lambda *question: self.list_connections(*question),
        )
        self.sweeps = Sweeps(self.policies, self.programs, lambda *question: self.list_connections(*question))
        self.policies.on_shrunk = self.sweeps.wanted
        #: Tells a node's agent, if it is connected, that its switch has confirmed a change of policies. Set by the
        #: session service.
        self.refresh_datapath: Callable[[str], None] = lambda _node: None
        self.policies.on_changed = Refreshes(lambda node: self.refresh_datapath(node)).wanted

    async def load(self) -> None:
        """Take in everything that is stored, and program it. StoreError, CorruptRecordError."""
        nodes = await self.ledger.list_prefix(NODES)
        attachments = await self.ledger.list_prefix(ATTACHMENTS)
        objects = await self.ledger.list_prefix(OBJECTS)
        services = []
        turns = Turns()
        for value in map(_object, objects.entries):
            if isinstance(value, Service):
                services.append(value)
            else:
                self.cluster.put_object(value)
            await turns.pause()
        for entry in attachments.entries:
            record = decode(AttachmentRecord, entry)
            self.cluster.put_attachment(record)
            # It was stored before it was programmed; nearly always it is in force since long ago.
            self.loadbalancing.in_force.add(key_of(record))
        for entry in nodes.entries:
            node = decode(NodeRecord, entry)
            self.cluster.put_node(node)
            self.programs.put_node(node, ())
        absent = await self.absences.load()
        for name in self.cluster.nodes:
            if name not in absent:
                self.states.candidates.expect(name)
        for attachment in self.cluster.attachments.values():
            if attachment.node not in self.cluster.nodes:
                raise CorruptRecordError(
                    f"store: {attachment} is on Node {attachment.node}, which is unknown"
                )
        # Before the pods' own flows, as always.
        await self.domains.load()
        await self.policies.load()
        for attachment in self.cluster.attachments.values():
            self.attachments.program(attachment, None)
        await self.declarations.load(services)
        await self.loadbalancing.load()
        await self.declarations.fill_waiting()
        # Last: a switch that connects from here on finds everything submitted.
        for node in self.cluster.nodes.values():
            self.programs.claim(node)
        log.info(
            "loaded",
            nodes=len(nodes.entries),
            attachments=len(attachments.entries),
            objects=len(objects.entries),
            revision=self.ledger.revision,
        )

    def stop(self) -> None:
        """End the threads; nothing in the switches is touched."""
        self.domains.stop()
        self.programs.stop()
        self.ledger.stop()

    def connection_changed(self, node: str) -> None:
        """A node's agent or switch has connected, or is gone."""
        self.watchers.changed("Node", "", node)
        synchronizer = self.programs.synchronizer(node)
        switch = synchronizer is not None and synchronizer.status.connected
        self.states.candidates.connected(node, switch and self.watchers.agent_connected(node))
        if switch and node not in self._switches:
            # What was denied while it was away, or before this controller began, is not known: all is looked at.
            self.sweeps.wanted(node, frozenset(self.policies.guarded(node)))
        (self._switches.add if switch else self._switches.discard)(node)

    def _object_changed(
        self, kind: str, namespace: str, name: str, before: Object | None, after: Object | None
    ) -> None:
        self.policies.object_changed(kind, namespace, name, after)
        self.domains.object_changed(kind, name, after)
        self.loadbalancing.object_changed(kind, namespace, name, before, after)

    def _status_changed(self, node: str) -> None:
        # From a synchronizer's thread, which may outlive the loop by a moment.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.connection_changed, node)

    def _service_changed(self, key: ServiceKey) -> None:
        self.states.changed(key)
        self.watchers.slices_changed(*key)

    def _announcer_changed(self, key: ServiceKey, node: str) -> None:
        if node:
            message = f"Node {node} announces the LoadBalancer addresses"
            self.events.record("Service", *key, "Normal", "AnnouncerElected", message)
        else:
            message = "no node can announce the LoadBalancer addresses"
            self.events.record("Service", *key, "Warning", "NoAnnouncer", message)


def _object(entry: Entry) -> Object:
    try:
        return parse(msgspec.json.decode(entry.value))
    except (msgspec.DecodeError, InvalidObjectError) as problem:
        raise CorruptRecordError(f"store: the value of {entry.key} cannot be read: {problem}") from None


async def _nobody_counts(
    node: str, _endpoints: Sequence[controller_pb2.Destination], _seconds: float
) -> controller_pb2.ConnectionCounts:
    raise UnavailableError(f"no agent is connected, nor Node {node}'s")


async def _nobody_lists(
    node: str, _ranges: Sequence[str], _seconds: float
) -> AsyncIterator[controller_pb2.TrackedConnection]:
    raise UnavailableError(f"no agent is connected, nor Node {node}'s")
    yield  # which makes it what it is
