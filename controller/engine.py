# SPDX-License-Identifier: Apache-2.0
"""The engine: the cluster in memory, and the parts that change it, one change at a time.

=================
===============================================================================================
``registrations``  nodes: names, uids, ranges ``attachments``    what agents report of pods
``declarations``   what users apply
``programs``       what follows from it for each switch
``watchers``       who is told of it
=================
===============================================================================================

Everything here runs in the asyncio thread. A change is checked against the model, written to the store, made
in the model, and handed to the synchronizers that it concerns, in this order: what is programmed is always
stored, and nothing that is refused leaves a trace.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from controller.allocation.network import ServiceNetwork
from controller.attachments import Attachments
from controller.cluster import Cluster
from controller.declarations import Declarations
from controller.ledger import Ledger
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
from controller.registrations import Registrations
from controller.store import Entry, Store
from controller.switchboard import Switchboard
from controller.watchers import Watchers
from sdn import logs
from sdn.model import InvalidObjectError, Object, parse

log = logs.get("controller.engine")


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
        self.ranges = ranges
        self.services = services or ServiceNetwork()
        self.cluster = Cluster()
        self.ledger = Ledger(store)
        self.programs = Programs(switchboard, self._status_changed)
        self.watchers = Watchers(self.cluster, self.programs)
        self.registrations = Registrations(self.ledger, ranges, self.cluster, self.programs, self.watchers)
        self.attachments = Attachments(self.ledger, self.cluster, self.programs, self.watchers)
        self.declarations = Declarations(self.ledger, self.cluster, self.watchers)

    async def load(self) -> None:
        """Take in everything that is stored, and program it. StoreError, CorruptRecordError."""
        nodes = await self.ledger.list_prefix(NODES)
        attachments = await self.ledger.list_prefix(ATTACHMENTS)
        objects = await self.ledger.list_prefix(OBJECTS)
        for entry in objects.entries:
            self.cluster.put_object(_object(entry))
        for entry in attachments.entries:
            self.cluster.put_attachment(decode(AttachmentRecord, entry))
        for entry in nodes.entries:
            record = decode(NodeRecord, entry)
            self.cluster.put_node(record)
            self.programs.put_node(record, ())
        for attachment in self.cluster.attachments.values():
            if attachment.node not in self.cluster.nodes:
                raise CorruptRecordError(
                    f"store: {attachment} is on Node {attachment.node}, which is unknown"
                )
            self.attachments.program(attachment, None)
        log.info(
            "loaded",
            nodes=len(nodes.entries),
            attachments=len(attachments.entries),
            objects=len(objects.entries),
            revision=self.ledger.revision,
        )

    def stop(self) -> None:
        """End the threads; nothing in the switches is touched."""
        self.programs.stop()
        self.ledger.stop()

    def _status_changed(self, node: str) -> None:
        # From a synchronizer's thread, which may outlive the loop by a moment.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.watchers.changed, "Node", "", node)


def _object(entry: Entry) -> Object:
    try:
        return parse(msgspec.json.decode(entry.value))
    except (msgspec.DecodeError, InvalidObjectError) as problem:
        raise CorruptRecordError(f"store: the value of {entry.key} cannot be read: {problem}") from None
