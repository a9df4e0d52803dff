# SPDX-License-Identifier: Apache-2.0
"""Who watches which objects: single objects as documents, and their changes as events.

A watcher that reads too slowly is given up, and told so: what waits for it is bounded, and nobody else is
held up. With no watcher a change costs nothing. Owned by the asyncio thread.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from controller.allocation.allocation import Allocation
from controller.cluster import AttachmentKey, Cluster
from controller.events import EVENT, Events
from controller.programs import Programs
from controller.synchronizer import Status
from controller.views import (
    Document,
    namespace_document,
    node_document,
    pod_document,
    service_document,
)
from sdn.model import KINDS, EndpointSlice, LabelSelector, to_document
from sdn.model.endpointslice import SERVICE_NAME_LABEL

EventType = Literal["added", "modified", "deleted"]

#: Events that may wait for one watcher, and bytes of the documents in them, as they are sent. A document that waits for
#: many watchers is one object: so much is the most that one of them can hold by itself.
BACKLOG = 10_000
BACKLOG_BYTES = 16 << 20
#: About what it costs to note that an object has changed which the watcher is still to be told of.
KEY_BYTES = 200
#: Bytes that may wait for all watchers together. When there are more, whoever holds the most is given up.
ALL_BACKLOGS_BYTES = 256 << 20


class TooSlowError(Exception):
    """The watcher did not keep up; it must start again."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind are meant: all, those of a namespace, one; those with certain labels."""

    kind: str
    namespace: str = ""
    name: str = ""
    labels: LabelSelector = field(default_factory=LabelSelector)

    def names(self, namespace: str, name: str) -> bool:
        """Whether namespace and name fit."""
        return (not self.namespace or namespace == self.namespace) and (not self.name or name == self.name)

    def takes(self, document: Document) -> bool:
        """Whether the labels fit."""
        return self.labels.matches(document["metadata"].get("labels", {}))


class Watcher:
    """One stream of events, from the moment it was made.

    While the objects that exist are listed, it only notes which of them change: see :meth:`Watchers.listing`.
    """

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        #: What changed since it was listed last; None: nothing is listed.
        self._missed: set[tuple[str, str]] | None = None
        self._known: set[tuple[str, str]] = set()
        #: None: look whether it is too slow.
        self._events: asyncio.Queue[tuple[EventType, Document, int] | None] = asyncio.Queue(BACKLOG)
        self._too_slow = False
        #: Bytes of the documents that wait, and of what is noted while it lists.
        self.held = 0

    def begin(self) -> None:
        """All objects that exist are to be listed now."""
        self._missed = set()

    @property
    def listing(self) -> bool:
        """Whether :meth:`begin` was called, and :meth:`end` not yet."""
        return self._missed is not None

    def knows(self, namespace: str, name: str) -> None:
        """The object is told to the watcher, as it is now, in its listing."""
        key = namespace, name
        self._known.add(key)
        if self._missed is not None and key in self._missed:
            self._missed.remove(key)
            self.held -= KEY_BYTES

    def end(self) -> list[tuple[str, str]]:
        """All are listed; gives what has changed since it was told, in order."""
        missed, self._missed = self._missed or set(), None
        self.held -= KEY_BYTES * len(missed)
        return sorted(missed)

    def check(self) -> None:
        """TooSlowError when it was given up."""
        if self._too_slow:
            raise TooSlowError("the watch fell too far behind: watch again")

    def feed(self, namespace: str, name: str, document: Document | None, size: int | None = None) -> None:
        """An object that the selection names is now this; None: there is none. ``size`` is the document's, if known."""
        key = namespace, name
        if self._too_slow:
            return
        if self._missed is not None:
            if key not in self._missed:
                self._missed.add(key)
                self.held += KEY_BYTES
                if self.held > BACKLOG_BYTES:
                    self.give_up()
            return
        fits = document is not None and self.selection.takes(document)
        if fits and document is not None:
            self._put("modified" if key in self._known else "added", document, size)
            self._known.add(key)
        elif key in self._known:
            self._known.discard(key)
            metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
            version = KINDS[self.selection.kind].API_VERSION if self.selection.kind in KINDS else "v1"
            gone = {"apiVersion": version, "kind": self.selection.kind, "metadata": metadata}
            self._put("deleted", document if document is not None else gone, size)

    def _put(self, kind: EventType, document: Document, size: int | None) -> None:
        size = size_of(document) if size is None else size
        if self._events.full() or self.held + size > BACKLOG_BYTES:
            self.give_up()
        else:
            self.held += size
            self._events.put_nowait((kind, document, size))

    def give_up(self) -> None:
        """The watcher does not keep up. What waits for it goes at once: it may never ask for it."""
        self._too_slow = True
        self.held = 0
        if self._missed is not None:
            self._missed = set()
        while not self._events.empty():
            self._events.get_nowait()
        # It may wait for the first one: of a document that is too large nothing was there to be read.
        self._events.put_nowait(None)

    async def next(self) -> tuple[EventType, Document]:
        """The next event. TooSlowError when events were lost."""
        self.check()
        event = await self._events.get()
        self.check()
        assert event is not None, "said of one that was given up"
        kind, document, size = event
        self.held -= size
        return kind, document


def size_of(document: Document) -> int:
    """Bytes of a document as it is sent."""
    return len(msgspec.json.encode(document))


class Watchers:
    """All watchers, and the documents that they are shown."""

    def __init__(self, cluster: Cluster, programs: Programs, allocation: Allocation, events: Events) -> None:
        self.programmed: set[AttachmentKey] = set()
        #: Whether the agent of a node has a session; set by the session service.
        self.agent_connected: Callable[[str], bool] = lambda _name: False
        #: The same of every node, whosever its switch is, and how the switch stands; set by who asks other controllers.
        self.node_state: Callable[[str], tuple[bool, Status]] = self._own_node_state
        #: EndpointSlices that nobody declared, of the Services of a namespace (empty: of all), or of the one that
        #: is named; set by whoever derives them. They carry their Service's name as declared ones do.
        self.derived_slices: Callable[[str, str], Iterable[EndpointSlice]] = lambda _namespace, _service: ()
        self._cluster = cluster
        self._programs = programs
        self._allocation = allocation
        self._events = events
        self._watchers: dict[str, set[Watcher]] = defaultdict(set)
        #: Names of derived slices that watchers were told of, by their Service.
        self._told_slices: dict[tuple[str, str], set[str]] = {}
        events.on_change = lambda namespace, name: self.changed("Event", namespace, name)

    def document(self, kind: str, namespace: str, name: str) -> Document | None:
        """An object as it is now; None when there is none."""
        match kind:
            case "Pod":
                return pod_document(self._cluster, namespace, name, self.programmed)
            case "Namespace":
                return namespace_document(self._cluster, name)
            case "Service":
                addresses = self._allocation.load_balancer_addresses(namespace, name)
                return service_document(self._cluster, namespace, name, map(str, addresses))
            case "EndpointSlice":
                return self._slice_document(namespace, name)
            case "Event":
                return self._events.document(namespace, name)
            case "Node":
                return node_document(self._cluster, name, *self.node_state(name))
        # Of other kinds nothing is known but what was declared.
        declared = self._cluster.objects[kind].get((namespace, name))
        return to_document(declared) if declared is not None else None

    def _own_node_state(self, node: str) -> tuple[bool, Status]:
        return self.agent_connected(node), self._programs.status(node)

    def _slice_document(self, namespace: str, name: str) -> Document | None:
        declared = self._cluster.objects["EndpointSlice"].get((namespace, name))
        if declared is not None:
            return to_document(declared)
        # A derived slice's name begins with its Service's: without it all of the namespace are derived.
        derived = self.derived_slices(namespace, "")
        return next((to_document(one) for one in derived if one.metadata.name == name), None)

    def select(self, selection: Selection) -> Iterator[Document]:
        """All objects that the selection means, in the order of their names, Events in the order of time; each
        as it is when it is asked for: what goes meanwhile is left out.
        """
        documents = self._slices(selection) if selection.kind == "EndpointSlice" else self._named(selection)
        return (document for document in documents if selection.takes(document))

    def _named(self, selection: Selection) -> Iterator[Document]:
        names = self._events.names() if selection.kind == EVENT else self._cluster.names(selection.kind)
        for namespace, name in names:
            if selection.names(namespace, name):
                document = self.document(selection.kind, namespace, name)
                if document is not None:
                    yield document

    def _slices(self, selection: Selection) -> Iterator[Document]:
        """Those declared, then those derived of one Service after the other."""
        declared = self._cluster.objects["EndpointSlice"]
        for key in sorted(declared):
            if selection.names(*key) and key in declared:
                yield to_document(declared[key])
        for derived in self.derived_slices(selection.namespace, ""):
            key = derived.metadata.namespace, derived.metadata.name
            if selection.names(*key) and key not in declared:
                yield to_document(derived)

    def watch(self, selection: Selection) -> Watcher:
        """A watcher that knows of nothing yet: :meth:`listing` tells it what there is. End it with :meth:`end`."""
        watcher = Watcher(selection)
        watcher.begin()
        self._watchers[selection.kind].add(watcher)
        return watcher

    def listing(self, watcher: Watcher) -> Iterator[Document]:
        """What there is, each object once, as it is when it is asked for; after the last one the watcher has the
        events of all that changed meanwhile. TooSlowError when that was too much.
        """
        selection = watcher.selection
        if not watcher.listing:
            raise ValueError("a watcher lists once")
        for document in self.select(selection):
            watcher.check()
            watcher.knows(document["metadata"].get("namespace", ""), document["metadata"]["name"])
            self._note_slice(document)
            yield document
        watcher.check()
        for key in watcher.end():
            watcher.feed(*key, self.document(selection.kind, *key))

    def _note_slice(self, document: Document) -> None:
        """A derived EndpointSlice was told: it is known whose it is when it goes."""
        metadata = document["metadata"]
        service = metadata.get("labels", {}).get(SERVICE_NAME_LABEL)
        if document["kind"] == "EndpointSlice" and service:
            key = metadata["namespace"], service
            self._told_slices.setdefault(key, set()).add(metadata["name"])

    def end(self, watcher: Watcher) -> None:
        self._watchers[watcher.selection.kind].discard(watcher)
        if not self._watchers["EndpointSlice"]:
            self._told_slices.clear()

    def changed(self, kind: str, namespace: str, name: str) -> None:
        """Something that the object's document shows may have changed."""
        concerned = [w for w in self._watchers[kind] if w.selection.names(namespace, name)]
        if concerned:
            self._feed(concerned, namespace, name, self.document(kind, namespace, name))

    def slices_changed(self, namespace: str, service: str) -> None:
        """The EndpointSlices that are derived for a Service may have changed."""
        watchers = self._watchers["EndpointSlice"]
        if not watchers:
            return
        told = self._told_slices.pop((namespace, service), set())
        now = {one.metadata.name: one for one in self.derived_slices(namespace, service)}
        if now:
            self._told_slices[namespace, service] = set(now)
        for name in sorted(told | now.keys()):
            if (namespace, name) in self._cluster.objects["EndpointSlice"]:
                continue
            document = to_document(now[name]) if name in now else None
            concerned = [w for w in watchers if w.selection.names(namespace, name)]
            self._feed(concerned, namespace, name, document)

    def _feed(
        self, watchers: Iterable[Watcher], namespace: str, name: str, document: Document | None
    ) -> None:
        size = size_of(document) if document is not None else None
        for watcher in watchers:
            watcher.feed(namespace, name, document, size)
        while sum(one.held for one in self._all()) > ALL_BACKLOGS_BYTES:
            max(self._all(), key=lambda one: one.held).give_up()

    def _all(self) -> Iterator[Watcher]:
        return (watcher for watchers in self._watchers.values() for watcher in watchers)
