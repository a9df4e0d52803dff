# SPDX-License-Identifier: Apache-2.0
"""Takes in what changes about Services, pods and nodes, and hands each switch what changed for it.

A change marks the Services that it concerns, and each marked Service is computed once in a later turn of the
event loop, however many changes marked it: a burst of a hundred pods costs one computation a Service, and one
entry in each synchronizer whose node sees something else than before. Turns are short, so that agents and
switches are answered while ten thousand Services are computed.

Order. A pod is an endpoint only after its switch has confirmed its flows. A pod that goes leaves its Services
first: whoever takes its flows away does so by :meth:`LoadBalancing.afterwards`. Services that lose a pod are
computed before any others that wait.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from controller.cluster import AttachmentKey, Cluster
from controller.desired import Encoded
from controller.loadbalancing.dns import dns_endpoints
from controller.loadbalancing.index import EndpointIndex, PodKey, ServiceKey
from controller.loadbalancing.pods import node_addresses, pod_view, zone_of
from controller.loadbalancing.shared import NOTHING, SharedService
from controller.programs import Programs
from controller.ranges import ClusterRanges
from controller.records import NodeRecord
from controller.turns import TURN_SECONDS, Turns
from sdn import logs
from sdn.model import EndpointSlice, Object, Service
from sdn.model.service import EXTERNAL_NAME, LOCAL
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.service import ServicePort
from sdn.pipeline.topology import Address, Range
from sdn.services.endpoints import from_slice, slices_of
from sdn.services.selection import NodeView, Selection

log = logs.get("controller.loadbalancing")

#: What took so many seconds to compute is computed again only after so many times as long: of a cluster whose nodes all
#: come at once, a Service of which each node sees another part would take all the time there is.
_NOTICED, _REST = 0.005, 10.0

#: For what every node sees alike.
_ANY_NODE = NodeView("", "", ())


class Allocated(Protocol):
    """What a Service was given that is not written into it."""

    @property
    def builtin(self) -> Service | None:
        """The Service that is there without being declared: the cluster's DNS."""

    def number(self, namespace: str, name: str) -> int:
        """Its number, see ``sdn.pipeline.service.group_base``."""

    def load_balancer_addresses(self, namespace: str, name: str) -> Sequence[Address]:
        """Its LoadBalancer addresses."""

    def conflict(self, namespace: str, name: str) -> str:
        """Why it must not be programmed; empty: it may be."""


@dataclass(slots=True)
class _Programmed:
    """What each node has of a Service: most often the same, else ``own``."""

    common: SharedService = NOTHING
    own: dict[str, SharedService] = field(default_factory=dict)

    def on(self, node: str) -> SharedService:
        return self.own.get(node, self.common)


class LoadBalancing:
    """See the module. Runs in the asyncio thread."""

    def __init__(
        self,
        cluster: Cluster,
        programs: Programs,
        allocated: Allocated,
        ranges: ClusterRanges,
    ) -> None:
        self.index = EndpointIndex()
        #: Attachments whose flows are in their switch, kept by whoever programs them.
        self.in_force: set[AttachmentKey] = set()
        #: Told of each Service that may be another than before, or gone, after its switches were.
        self.on_changed: Callable[[ServiceKey], None] = lambda _key: None
        self._cluster = cluster
        self._programs = programs
        self._allocated = allocated
        self._dns = allocated.builtin
        self._pod_ranges = tuple(map(Range.parse, ranges.texts))
        self._loop = asyncio.get_running_loop()
        self._programmed: dict[ServiceKey, _Programmed] = {}
        self._pods_on: dict[str, set[PodKey]] = defaultdict(set)
        #: What is to be computed, and addresses of pods that are gone from it; urgent ones come first.
        self._marked: OrderedDict[ServiceKey, tuple[Address, ...]] = OrderedDict()
        self._urgent: set[ServiceKey] = set()
        self._afterwards: list[Callable[[], None]] = []
        #: What was computed for long: until when it rests; and of it what is to be computed again then.
        self._rests: dict[ServiceKey, float] = {}
        self._resting: set[ServiceKey] = set()
        self._views: dict[str, tuple[NodeRecord, str, NodeView]] = {}
        self._turn_due = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Take in the whole cluster, and hand it to the synchronizers; switches are let in after that."""
        self._turn_due = True  # Nothing is computed before everything is known.
        turns = Turns()
        for key, service in self._cluster.objects["Service"].items():
            if isinstance(service, Service):
                self._service_changed(key, service)
            await turns.pause()
        for value in self._cluster.objects["EndpointSlice"].values():
            self._list(None, value)
            await turns.pause()
        for namespace, name in self._cluster.names("Pod"):
            self.pod_changed(namespace, name)
            await turns.pause()
        for name in self._cluster.nodes:
            self._list_dns(name)
        self._loop.call_soon(self._turn)
        await self.idle()

    async def idle(self) -> None:
        """Return when everything that has changed is handed to the synchronizers."""
        await self._idle.wait()

    # What changes.

    def object_changed(
        self, kind: str, namespace: str, name: str, before: Object | None, after: Object | None
    ) -> None:
        """A declared object is another, new (``before`` None) or gone (``after`` None)."""
        if kind == "Service":
            self._service_changed((namespace, name), after)
        elif kind == "EndpointSlice":
            self._list(before, after)
        elif kind == "Pod":
            self.pod_changed(namespace, name)
        elif kind == "Node" and name in self._cluster.nodes:
            self._later(self.node_changed(name))

    def _service_changed(self, key: ServiceKey, after: Object | None) -> None:
        if isinstance(after, Service):
            self.index.put_service(key, after)
        else:
            self.index.remove_service(key)
        self._mark([key])

    def _list(self, before: Object | None, after: Object | None) -> None:
        """An EndpointSlice: it may have gone from one Service to another."""
        old, new = _service_of(before), _service_of(after)
        if isinstance(before, EndpointSlice) and old is not None and old != new:
            self._mark(self.index.put_list(old, before.metadata.name, ()))
        if isinstance(after, EndpointSlice) and new is not None:
            endpoints = from_slice(after, self._is_pod)
            self._mark(self.index.put_list(new, after.metadata.name, endpoints))

    def _is_pod(self, address: Address) -> bool:
        return any(address in pods for pods in self._pod_ranges)

    def pod_changed(self, namespace: str, name: str, gone: Iterable[str] = ()) -> None:
        """A pod, its attachments or its declaration changed. ``gone`` are addresses that it had and that
        nobody has now: connections to them end.
        """
        key = namespace, name
        before = self.index.pod(key)
        view = pod_view(self._cluster, namespace, name, self.in_force)
        concerned = self.index.selecting(key) if gone else set()
        concerned |= self.index.put_pod(view) if view is not None else self.index.remove_pod(key)
        if before is not None:
            self._pods_on[before.node].discard(key)
        if view is not None:
            self._pods_on[view.node].add(key)
        self._mark(concerned, tuple(map(Address.parse, gone)))

    async def node_changed(self, name: str) -> None:
        """A node was registered or is another than before: give its switch what it must hold of every Service.

        Returns when all of it is handed to its synchronizer. What the others see of the node's pods is
        marked.
        """
        for namespace, pod in list(self._pods_on[name]):
            self.pod_changed(namespace, pod)
        self._list_dns(name)
        turns = Turns()
        for key in list(self.index.services):
            # All that was awaited before this: the node may have gone, the Service too.
            if name not in self._programs.nodes():
                return
            if key in self.index.services:
                with _defects_logged(key):
                    self._program_on(key, name)
            await turns.pause()

    def node_removed(self, name: str) -> None:
        """A node is forgotten, its synchronizer has ended."""
        for namespace, pod in list(self._pods_on.pop(name, ())):
            self.pod_changed(namespace, pod)
        self._list_dns(name)
        self._views.pop(name, None)
        for programmed in self._programmed.values():
            programmed.own.pop(name, None)

    def _list_dns(self, name: str) -> None:
        """A node's agent serves DNS, or the node is gone."""
        if self._dns is not None:
            record = self._cluster.nodes.get(name)
            endpoints = dns_endpoints(record, zone_of(self._cluster, name)) if record is not None else ()
            self._mark(self.index.put_list(_key(self._dns), name, endpoints))

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call when the Services that lose a pod have been handed to the synchronizers: now, or soon. Calls are
        made in the order in which they were asked for.
        """
        if self._urgent:
            self._afterwards.append(call)
        else:
            call()

    # Turns.

    def _mark(self, keys: Iterable[ServiceKey], gone: tuple[Address, ...] = ()) -> None:
        for key in keys:
            if not gone and key not in self._marked and self._must_rest(key):
                continue
            self._marked[key] = self._marked.get(key, ()) + gone
            self._resting.discard(key)
            if gone:
                self._urgent.add(key)
                self._marked.move_to_end(key, last=False)
        if self._marked or self._resting:
            self._idle.clear()
        if self._marked and not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _must_rest(self, key: ServiceKey) -> bool:
        """Whether a Service waits, since it has taken much time of late; it is marked again when that is over."""
        if key in self._resting:
            return True
        until = self._rests.get(key)
        if until is None or until <= self._loop.time():
            return False
        self._resting.add(key)
        self._loop.call_at(until, self._rested, key)
        return True

    def _rested(self, key: ServiceKey) -> None:
        self._rests.pop(key, None)
        if key in self._resting:
            self._resting.discard(key)
            self._mark([key])

    def _turn(self) -> None:
        end = self._loop.time() + TURN_SECONDS
        while self._marked:
            key, gone = self._marked.popitem(last=False)
            began = self._loop.time()
            with _defects_logged(key):
                self._program(key, gone)
            self._urgent.discard(key)
            now = self._loop.time()
            if now - began > _NOTICED and key in self._programmed:
                self._rests[key] = now + _REST * (now - began)
            if now > end:
                break
        if not self._urgent:
            calls, self._afterwards = self._afterwards, []
            for call in calls:
                with _defects_logged():
                    call()
        self._turn_due = bool(self._marked)
        if self._turn_due:
            self._loop.call_soon(self._turn)
        elif not self._resting:
            self._idle.set()

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Programs.

    def _program(self, key: ServiceKey, gone: tuple[Address, ...]) -> None:
        """Hand a Service to the nodes for which it is another than before."""
        before = self._programmed.get(key, _Programmed())
        service = self.index.services.get(key)
        if service is not None:
            after = self._programmed[key] = self._compute(key, service, before)
        else:
            after = _Programmed()
            self._programmed.pop(key, None)
            self._rests.pop(key, None)
        for node in self._programs.nodes():
            was, now = before.on(node), after.on(node)
            if now is not was or (gone and now is not NOTHING):
                self._submit(key, node, now, gone)
        self.on_changed(key)

    def _program_on(self, key: ServiceKey, node: str) -> None:
        """Hand a Service to one node, whether it has it already or not."""
        programmed = self._programmed.get(key)
        if programmed is None:
            return
        service = self.index.services[key]
        if self._depends_on_node(key, service) and (selection := self._selection(key, service)) is not None:
            known = [programmed.on(node), *programmed.own.values()]
            programmed.own[node] = _interned(selection.ports(self._view(node)), known)
        self._submit(key, node, programmed.on(node), ())

    def _submit(self, key: ServiceKey, node: str, now: SharedService, gone: tuple[Address, ...]) -> None:
        # Not what it is now but what it is when the synchronizer comes to it: of many changes in a row only
        # the last is compiled.
        compiled = None if now is NOTHING else functools.partial(self._encoded, key, node)
        self._programs.put_service(node, *key, compiled, gone)

    def _encoded(self, key: ServiceKey, node: str) -> Encoded:
        """What a switch holds of a Service; runs in the synchronizers' threads."""
        return self.shared_on(node, key).encoded()

    def _compute(self, key: ServiceKey, service: Service, before: _Programmed) -> _Programmed:
        selection = self._selection(key, service)
        if selection is None:
            return _Programmed()
        if not self._depends_on_node(key, service):
            known = [before.common, *before.own.values()]
            return _Programmed(_interned(selection.ports(_ANY_NODE), known))
        after = _Programmed()
        #: What was made here, by what tells one node's part from another's.
        made: dict[object, SharedService] = {}
        for node in self._programs.nodes():
            ports = selection.ports(self._view(node))
            part = tuple(
                # One selection gives the same tuple of endpoints to all nodes that have the same.
                (port.frontends, port.local_endpoints, port.elsewhere, id(port.endpoints))
                for port in ports
            )
            if part not in made:
                made[part] = _interned(ports, [before.on(node), before.common])
            after.own[node] = made[part]
        return after

    def _selection(self, key: ServiceKey, service: Service) -> Selection | None:
        """None when no switch holds anything of the Service."""
        if service.headless or service.spec.type == EXTERNAL_NAME or self._allocated.conflict(*key):
            return None
        addresses = self._allocated.load_balancer_addresses(*key)
        return Selection(service, self._allocated.number(*key), addresses, self.index.endpoints(key))

    def _depends_on_node(self, key: ServiceKey, service: Service) -> bool:
        """Whether nodes may see different things of a Service; most often they do not, and it is computed
        once: by policy, by topology, or because an address that leads to it may be a node's own.
        """
        spec = service.spec
        return (
            LOCAL in (spec.internal_traffic_policy, spec.external_traffic_policy)
            or bool(spec.traffic_distribution or spec.external_ips)
            or bool(self._allocated.load_balancer_addresses(*key))
            or any(one.hint_zones or one.hint_nodes for one in self.index.endpoints(key))
        )

    def _view(self, node: str) -> NodeView:
        record, zone = self._cluster.nodes[node], zone_of(self._cluster, node)
        known = self._views.get(node)
        if known is None or known[0] is not record or known[1] != zone:
            known = self._views[node] = record, zone, NodeView(node, zone, node_addresses(record))
        return known[2]

    # For people.

    def derived_slices(self, namespace: str, name: str) -> Iterator[EndpointSlice]:
        """EndpointSlices that nobody declared: of the Services of a namespace (empty: of all), or of the one
        that is named.
        """
        keys = [(namespace, name)] if name else list(self.index.services)
        for key in keys:
            service = self.index.services.get(key)
            if service is not None and namespace in ("", key[0]):
                builtin = self._dns is not None and key == _key(self._dns)
                endpoints = self.index.endpoints(key) if builtin else self.index.derived(key)
                yield from slices_of(service, endpoints)

    def shared_on(self, node: str, key: ServiceKey) -> SharedService:
        """What a node's switch has, or soon has, of a Service."""
        programmed = self._programmed.get(key)
        return NOTHING if programmed is None else programmed.on(node)

    def entries_on(self, node: str, service: ServiceKey | None = None) -> Callable[[], list[Flow | Group]]:
        """Computes the flows and groups of one Service, or all, on a node; may run in any thread."""
        keys = self._programmed if service is None else (service,)
        shared = [self.shared_on(node, key) for key in keys]
        return lambda: [entry for one in shared for entry in one.entries()]


@contextmanager
def _defects_logged(key: ServiceKey = ("", "")) -> Iterator[None]:
    """A defect in one piece of work, most often one Service's: the others are done."""
    try:
        yield
    except Exception:
        log.exception("cannot be programmed", namespace=key[0], service=key[1])


def _interned(ports: tuple[ServicePort, ...], known: Iterable[SharedService]) -> SharedService:
    """The shared Service with these ports: one that is known already where there is one."""
    if not ports:
        return NOTHING
    return next((one for one in known if one.ports == ports), None) or SharedService(ports)


def _key(service: Service) -> ServiceKey:
    return service.metadata.namespace, service.metadata.name


def _service_of(value: Object | None) -> ServiceKey | None:
    """The Service that an EndpointSlice belongs to, if any."""
    if not isinstance(value, EndpointSlice) or not value.service:
        return None
    return value.metadata.namespace, value.service
