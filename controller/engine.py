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
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

from controller.allocation.allocation import Allocation
from controller.allocation.network import ServiceNetwork
from controller.applying import Applying, object_of
from controller.attachments import Attachments
from controller.cluster import Cluster
from controller.declarations import Declarations
from controller.domains import Domains
from controller.errors import UnavailableError
from controller.events import Events
from controller.follower import Follower
from controller.ha.membership import Lease
from controller.ha.ownership import Ownership
from controller.ledger import Ledger, under
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
    CorruptRecordError,
    MemberRecord,
    NodeRecord,
    attachment_key,
    decode,
    decode_attachment,
)
from controller.refreshes import Refreshes
from controller.registrations import Registrations
from controller.store import Event, Store
from controller.sweeps import Sweeps
from controller.switchboard import Switchboard
from controller.tracked import ListConnections
from controller.turns import Turns
from controller.watchers import Watchers
from sdn import logs
from sdn.model import Object, Service
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
        me: MemberRecord | None = None,
    ) -> None:
        """``me`` is this controller among others; None: it is alone, and asks nobody whose a switch is."""
        self._loop = asyncio.get_running_loop()
        #: Nodes whose switch is connected.
        self._switches: set[str] = set()
        self.ranges = ranges
        self.services = services or ServiceNetwork()
        self.cluster = Cluster()
        self.ledger = Ledger(store)
        self.ownership = Ownership(self.ledger, self.cluster, me)
        self.ownership.on_held = self._held
        self.ownership.on_lost = self._lost
        self.ledger.owned_at = self.ownership.revision_of
        self.events = Events()
        self.allocation = Allocation(self.services)
        self.programs = Programs(switchboard, self.services, self._status_changed)
        self.loadbalancing = LoadBalancing(self.cluster, self.programs, self.allocation, ranges)
        self.programs.services_on = self.loadbalancing.entries_on
        self.ownership.on_pause = self.programs.pause
        self.ownership.refusing = self.programs.refusing
        self.policies = Policies(self.cluster, self.programs)
        self.programs.policies_on = self.policies.on_node
        self.programs.hand_over_policies = self.policies.hand_over
        self.programs.policies_wait = self.policies.waits
        if me is not None:
            self.programs.generation_of = self.ownership.generation_of
            self.programs.on_deposed = self._deposed
        self.states = ServiceStates(
            self.cluster, self.loadbalancing.index, self.allocation, self._announcer_changed
        )
        self.loadbalancing.on_changed = self._service_changed
        self.absences = Absences(self.ledger, self.cluster, self.states.candidates, self.ownership.owns)
        self.states.on_candidates = self.absences.changed
        self.watchers = Watchers(self.cluster, self.programs, self.allocation, self.events)
        self.ownership.on_owner = self._owner_changed
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
        self.registrations.on_new = self.absences.registered
        # What this controller writes itself the follower does not tell.
        self.registrations.on_forgotten = lambda name: self.ownership.owner_stored(name, None)
        self.registrations.on_let_in = self.ownership.nodes_changed
        self.ownership.claimed = self.programs.claimed
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
        #: The same, whosever the node is. Set by the inspection service, which can ask the node's owner.
        self.list_anywhere: ListConnections = lambda *question: self.list_connections(*question)
        self.domains = Domains(
            self.ledger,
            self.cluster,
            self.policies.names_resolved,
            self.programs.settled,
            self.programs.nodes,
            lambda *question: self.list_anywhere(*question),
            lambda name: self.ownership.members.is_mine(f"domain/{name}"),
        )
        self.sweeps = Sweeps(self.policies, self.programs, lambda *question: self.list_connections(*question))
        self.policies.on_shrunk = self.sweeps.wanted
        #: Tells a node's agent, if it is connected, that its switch has confirmed a change of policies. Set by the
        #: session service.
        self.refresh_datapath: Callable[[str], None] = lambda _node: None
        self.refreshes = Refreshes(lambda node: self.refresh_datapath(node))
        self.policies.on_changed = self.refreshes.wanted
        #: Ends a node's session, since another controller owns it now; set by the session service.
        self.end_session: Callable[[str], None] = lambda _node: None
        #: Told of a node whose agent or switch has another state, or another owner; set likewise.
        self.on_switch: Callable[[str], None] = lambda _node: None
        #: Keeps this controller's record, when it is one of several; set by whoever makes it.
        self.announce_draining: Callable[[bool], object] = lambda _draining: None
        #: Told of each change that others have stored, and of those of this controller's own record. Set likewise.
        self.on_stored: Callable[[Event], None] = lambda _event: None
        #: Seconds since another controller was heard directly; None: it was not yet. Set likewise.
        self.heard: Callable[[str], float | None] = lambda _name: None
        #: Told that the store was wiped, or restored, and how that is known: nothing that this engine knows counts any
        #: more. Set likewise.
        self.on_another_store: Callable[[str], None] = lambda _why: None
        #: How it stands with the lease under which this controller's record is; None: it has none yet. Set likewise.
        self.lease: Callable[[], Lease | None] = lambda: None
        self._follower = Follower(store, self.ledger, Applying(self).apply)
        self._follower.on_another_store = lambda why: self.on_another_store(why)

    async def load(self) -> None:
        """Take in everything that is stored, and program it; then follow what others store, and take what is this
        controller's. StoreError, CorruptRecordError.
        """
        entries = (await self.ledger.list_all()).entries
        nodes, attachments, objects = (under(prefix, entries) for prefix in (NODES, ATTACHMENTS, OBJECTS))
        self.ownership.load(entries)
        services = []
        turns = Turns()
        for value in map(object_of, objects):
            if isinstance(value, Service):
                services.append(value)
            else:
                self.cluster.put_object(value)
            await turns.pause()
        for entry in attachments:
            self.attachments.load(*decode_attachment(entry))
        for entry in nodes:
            node = decode(NodeRecord, entry)
            self.cluster.put_node(node)
            self.programs.put_node(node, ())
        absent = self.absences.load(entries)
        for name in self.cluster.nodes:
            if name not in absent:
                self.states.candidates.expect(name)
        for attachment in self.cluster.attachments.values():
            if attachment.node not in self.cluster.nodes:
                key = attachment_key(attachment.node, *attachment.id)
                raise CorruptRecordError(key, f"{attachment} is on Node {attachment.node}, which is unknown")
        # Before the pods' own flows, as always.
        await self.domains.load(entries)
        await self.policies.load()
        for attachment in self.cluster.attachments.values():
            self.attachments.program(attachment, None)
        await self.declarations.load(services, entries)
        await self.loadbalancing.load()
        await self.declarations.fill_waiting()
        # Last: a switch that connects from here on finds everything submitted.
        for node in self.cluster.nodes.values():
            self.programs.claim(node)
        log.info(
            "loaded",
            nodes=len(nodes),
            attachments=len(attachments),
            objects=len(objects),
            revision=self.ledger.revision,
        )
        self._follower.start()
        self.ownership.start()

    def stop(self) -> None:
        """End the threads; nothing in the switches is touched."""
        self.ownership.stop()
        self._follower.stop()
        self.registrations.stop()
        self.declarations.stop()
        self.domains.stop()
        self.policies.stop()
        self.programs.stop()
        self.ledger.stop()

    async def drain(self, draining: bool) -> None:
        """Hand over every switch, or take some again. StoreError: it goes on as before."""
        await self.ledger.call(self.announce_draining, draining)
        self.ownership.drain(draining)

    def connection_changed(self, node: str) -> None:
        """A node's agent or switch has connected, or is gone."""
        self.on_switch(node)
        self.watchers.changed("Node", "", node)
        if not self.ownership.owns(node):
            self._switches.discard(node)
            return
        synchronizer = self.programs.synchronizer(node)
        switch = synchronizer is not None and synchronizer.status.connected
        self.states.candidates.connected(node, switch and self.watchers.agent_connected(node))
        if switch and node not in self._switches:
            # What was denied while it was away, or before this controller began, is not known: all is looked at.
            self.sweeps.wanted(node, frozenset(self.policies.guarded(node)))
            # What others wrote last, its agent may not have been told, and what is written now, nobody else waits for.
            self.programs.settled(node, functools.partial(self._brought_up, node))
        (self._switches.add if switch else self._switches.discard)(node)

    def _brought_up(self, node: str, refused: str | None) -> None:
        # From a synchronizer's thread: the switch holds what it must since it is this controller's, or is back.
        if refused is None:
            self.policies.on_changed(node)

    def _held(self, node: str) -> None:
        """The node's switch is this controller's from now on."""
        log.info("owner of the switch", node=node, generation=self.ownership.generation_of(node))
        self.programs.own(node)
        # Also where it was, with a generation before: others may have written it since.
        self._switches.discard(node)
        # Of what its agent has asked for, this controller has answered nothing while the switch was not its own: it is
        # to ask anew.
        self.end_session(node)
        if node in self.cluster.nodes:
            self.states.candidates.connected(node, False)
            self.attachments.owned(node)
        self.connection_changed(node)
        # Whatever the former owner has stored of it.
        self.absences.changed()

    def _owner_changed(self, node: str) -> None:
        """Whoever owns it: one that another controller has registered has its first, one that is forgotten its last."""
        self.absences.unowned(node)
        self.watchers.changed("Node", "", node)

    def _lost(self, node: str) -> None:
        """Another controller owns the node's switch now, or nobody may write it."""
        log.info("no longer owner of the switch", node=node)
        owner = self.ownership.owners().get(node)
        self.programs.disown(node, owner.generation if owner is not None else 0)
        self.attachments.confirmations.unowned(node)
        self.end_session(node)
        self._switches.discard(node)
        self.absences.unowned(node)
        self.on_switch(node)
        self.watchers.changed("Node", "", node)

    def _deposed(self, node: str, generation: int, seen: int) -> None:
        # From a synchronizer's thread. The store nearly always says so, too.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.ownership.deposed, node, generation, seen)

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


async def _nobody_counts(
    node: str, _endpoints: Sequence[controller_pb2.Destination], _seconds: float
) -> controller_pb2.ConnectionCounts:
    raise UnavailableError(f"no agent is connected, nor Node {node}'s")


async def _nobody_lists(
    node: str, _ranges: Sequence[str], _seconds: float
) -> AsyncIterator[controller_pb2.TrackedConnection]:
    raise UnavailableError(f"no agent is connected, nor Node {node}'s")
    yield  # which makes it what it is
