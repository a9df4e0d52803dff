# SPDX-License-Identifier: Apache-2.0
"""What switches have said of attachments: which are in force, which they refuse, and which are still to be said.

Which attachments are in force decides what all switches hold, since only those are endpoints of Services. So what a
switch's owner was told the store says, too, for the other controllers: after the answer to the agent, and for all that
were confirmed meanwhile at once.
"""

from __future__ import annotations

import asyncio

from controller.cluster import AttachmentKey, Cluster, key_of
from controller.ledger import DeposedError, Ledger, whole
from controller.loadbalancing.runtime import LoadBalancing
from controller.records import AttachmentRecord, attachment_key, encode_attachment
from controller.store import Put, StoreError
from controller.watchers import Watchers
from sdn import logs

log = logs.get("controller.attachments")

#: Seconds until the store is tried again that could not be written.
AGAIN_SECONDS = 1.0


class Confirmations:
    """Runs in the asyncio thread."""

    def __init__(self, ledger: Ledger, cluster: Cluster, watchers: Watchers, services: LoadBalancing) -> None:
        self._ledger = ledger
        self._cluster = cluster
        self._watchers = watchers
        self._services = services
        self._loop = asyncio.get_running_loop()
        #: Attachments that the store says are still to be confirmed by their switch.
        self._pending: set[AttachmentKey] = set()
        #: Those that are confirmed, which the store does not say yet.
        self._to_tell: dict[AttachmentKey, AttachmentRecord] = {}
        self._telling: asyncio.Task[None] | None = None
        #: Those that their switch refuses, and why; it is asked again from time to time.
        self._refused: dict[AttachmentKey, str] = {}

    # What is known.

    def pending(self, key: AttachmentKey) -> bool:
        """Whether the store says that the switch is still to confirm an attachment."""
        return key in self._pending

    def missing(self, key: AttachmentKey) -> bool:
        """Whether a new owner of the switch has to see to it that an attachment is confirmed."""
        return key in self._pending or key not in self._watchers.programmed

    def refusal(self, key: AttachmentKey) -> str | None:
        """Why the switch refuses an attachment; None: it does not, as far as is known."""
        return self._refused.get(key)

    # What this controller's switches say.

    def confirmed(self, record: AttachmentRecord) -> None:
        """The switch has confirmed an attachment: it counts from now on, for this controller and all others."""
        key = key_of(record)
        self._refused.pop(key, None)
        self._in_force(record)
        if key in self._pending:
            self._to_tell[key] = record
            if self._telling is None:
                self._telling = self._loop.create_task(self._store_all())
                self._telling.add_done_callback(self._told)

    def refused(self, record: AttachmentRecord, why: str) -> None:
        """The switch has refused an attachment that stays."""
        self._refused[key_of(record)] = why

    async def told(self) -> None:
        """Return when the store says of all attachments that are confirmed that they are."""
        while self._telling is not None:
            await asyncio.wait([self._telling])

    # What becomes of attachments.

    def loaded(self, key: AttachmentKey, pending: bool) -> None:
        """An attachment is stored, and was when this controller began."""
        self._note(key, pending)
        if not pending:
            self._services.in_force.add(key)
            self._watchers.programmed.add(key)

    def stored(self, record: AttachmentRecord, pending: bool) -> None:
        """Another controller has stored an attachment, or that it is confirmed."""
        key = key_of(record)
        self._note(key, pending)
        if pending:
            return
        self._refused.pop(key, None)
        # Of one that has not moved only the latter is to be said anew.
        if key not in self._services.in_force or key not in self._watchers.programmed:
            self._in_force(record)

    def replaced(self, key: AttachmentKey, moved: bool) -> None:
        """An attachment is new, or another than before. Where it leads stays in force unless it has ``moved``."""
        self._refused.pop(key, None)
        self._watchers.programmed.discard(key)
        if moved:
            self._services.in_force.discard(key)
            self._pending.add(key)

    def forgotten(self, key: AttachmentKey) -> None:
        """An attachment is gone."""
        self._watchers.programmed.discard(key)
        self._services.in_force.discard(key)
        self._pending.discard(key)
        self._refused.pop(key, None)

    def unowned(self, node: str) -> None:
        """The node's switch is another controller's: what it refuses is told to that one."""
        for key in [key for key in self._refused if key[0] == node]:
            del self._refused[key]

    def _note(self, key: AttachmentKey, pending: bool) -> None:
        if pending:
            self._pending.add(key)
        else:
            self._pending.discard(key)

    def _in_force(self, record: AttachmentRecord) -> None:
        self._watchers.programmed.add(key_of(record))
        self._services.in_force.add(key_of(record))
        self._services.pod_changed(record.pod_namespace, record.pod_name)
        self._watchers.changed("Pod", record.pod_namespace, record.pod_name)

    # Telling the others.

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling = None
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("confirmed attachments are not stored", error=logs.error_text(problem))

    async def _store_all(self) -> None:
        while self._to_tell:
            node = next(iter(self._to_tell))[0]
            try:
                await self._store_of(node)
            except StoreError as problem:
                log.warning("confirmed attachments are not stored yet", node=node, error=str(problem))
                await asyncio.sleep(AGAIN_SECONDS)

    @whole
    async def _store_of(self, node: str) -> None:
        """Write all that waits of one node at once. StoreError."""
        async with self._ledger.lock:
            mine = {key: record for key, record in self._to_tell.items() if key[0] == node}
            still = [record for key, record in mine.items() if self._cluster.attachments.get(key) is record]
            try:
                if still:
                    await self._ledger.write([put(record, pending=False) for record in still], node=node)
            except DeposedError as problem:
                # Whoever owns the node has its switch confirm them again.
                log.info("confirmed attachments are not stored", node=node, error=str(problem))
            else:
                self._pending.difference_update(key_of(record) for record in still)
            for key, record in mine.items():
                if self._to_tell.get(key) is record:
                    del self._to_tell[key]


def put(record: AttachmentRecord, *, pending: bool) -> Put:
    """What stores an attachment."""
    return Put(attachment_key(*key_of(record)), encode_attachment(record, pending=pending))
