# SPDX-License-Identifier: Apache-2.0
"""Who watches which objects: single objects as documents, and their changes as events.

A watcher that reads too slowly is given up, and told so: what waits for it is bounded, and nobody else is
held up. With no watcher a change costs nothing. Owned by the asyncio thread.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from controller.cluster import AttachmentKey, Cluster
from controller.programs import Programs
from controller.synchronizer import Status
from controller.views import Document, namespace_document, node_document, pod_document
from sdn.model import LabelSelector

EventType = Literal["added", "modified", "deleted"]

#: Events that may wait for one watcher.
BACKLOG = 10_000


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
    """One stream of events, from the moment it was made."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self._known: set[tuple[str, str]] = set()
        self._events: asyncio.Queue[tuple[EventType, Document]] = asyncio.Queue(BACKLOG)
        self._too_slow = asyncio.Event()

    def knows(self, namespace: str, name: str) -> None:
        """The object was told to the watcher when it began."""
        self._known.add((namespace, name))

    def feed(self, namespace: str, name: str, document: Document | None) -> None:
        """An object that the selection names is now this; None: there is none."""
        key = namespace, name
        fits = document is not None and self.selection.takes(document)
        if fits and document is not None:
            self._put("modified" if key in self._known else "added", document)
            self._known.add(key)
        elif key in self._known:
            self._known.discard(key)
            metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
            gone = {"apiVersion": "v1", "kind": self.selection.kind, "metadata": metadata}
            self._put("deleted", document if document is not None else gone)

    def _put(self, kind: EventType, document: Document) -> None:
        try:
            self._events.put_nowait((kind, document))
        except asyncio.QueueFull:
            self._too_slow.set()

    async def next(self) -> tuple[EventType, Document]:
        """The next event. TooSlowError when events were lost."""
        if self._too_slow.is_set():
            raise TooSlowError(f"the watch fell {BACKLOG} events behind: watch again")
        return await self._events.get()


class Watchers:
    """All watchers, and the documents that they are shown."""

    def __init__(self, cluster: Cluster, programs: Programs) -> None:
        self.programmed: set[AttachmentKey] = set()
        #: Whether the agent of a node has a session; set by the session service.
        self.agent_connected: Callable[[str], bool] = lambda _name: False
        self._cluster = cluster
        self._programs = programs
        self._watchers: dict[str, set[Watcher]] = defaultdict(set)

    def document(self, kind: str, namespace: str, name: str) -> Document | None:
        """An object as it is now; None when there is none."""
        if kind == "Pod":
            return pod_document(self._cluster, namespace, name, self.programmed)
        if kind == "Namespace":
            return namespace_document(self._cluster, name)
        synchronizer = self._programs.synchronizer(name)
        status = synchronizer.status if synchronizer is not None else Status()
        return node_document(self._cluster, name, self.agent_connected(name), status)

    def select(self, selection: Selection) -> list[Document]:
        """All objects that the selection means, in the order of their names."""
        documents = (
            self.document(selection.kind, namespace, name)
            for namespace, name in self._cluster.names(selection.kind)
            if selection.names(namespace, name)
        )
        return [document for document in documents if document is not None and selection.takes(document)]

    def watch(self, selection: Selection) -> tuple[list[Document], Watcher]:
        """What is there now, and a watcher for what comes; end it with :meth:`end`."""
        documents = self.select(selection)
        watcher = Watcher(selection)
        for document in documents:
            metadata = document["metadata"]
            watcher.knows(metadata.get("namespace", ""), metadata["name"])
        self._watchers[selection.kind].add(watcher)
        return documents, watcher

    def end(self, watcher: Watcher) -> None:
        self._watchers[watcher.selection.kind].discard(watcher)

    def changed(self, kind: str, namespace: str, name: str) -> None:
        """Something that the object's document shows may have changed."""
        concerned = [w for w in self._watchers[kind] if w.selection.names(namespace, name)]
        if concerned:
            document = self.document(kind, namespace, name)
            for watcher in concerned:
                watcher.feed(namespace, name, document)
