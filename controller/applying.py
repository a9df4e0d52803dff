# SPDX-License-Identifier: Apache-2.0
"""What another controller has stored, made in the parts that it belongs to.

Runs in the asyncio thread, with the ledger's lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from controller.records import (
    ABSENT_NODES,
    ATTACHMENTS,
    DOMAINS,
    DOWN,
    LB_ADDRESSES,
    MEMBERS,
    NODES,
    OBJECTS,
    OWNERS,
    SERVICE_NUMBERS,
    AddressesRecord,
    CorruptRecordError,
    NodeRecord,
    NumberRecord,
    decode,
    decode_attachment,
)
from controller.store import Entry, Event
from sdn.model import InvalidObjectError, Object, parse

if TYPE_CHECKING:
    from controller.engine import Engine

#: Given the rest of the key behind the prefix, and the entry; None: it was removed.
Take = Callable[[str, Entry | None], None]


class Applying:
    """Of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._takes: dict[str, Take] = {
            OWNERS: engine.ownership.owner_stored,
            MEMBERS: engine.ownership.member_stored,
            DOWN: engine.ownership.down_stored,
            NODES: self._node,
            ATTACHMENTS: self._attachment,
            OBJECTS: self._object,
            SERVICE_NUMBERS: self._number,
            LB_ADDRESSES: self._addresses,
            DOMAINS: self._domain,
            ABSENT_NODES: self._absent,
        }

    def apply(self, event: Event) -> None:
        """Take in one change. CorruptRecordError."""
        self._engine.on_stored(event)
        for prefix, take in self._takes.items():
            if event.key.startswith(prefix):
                entry = None if event.value is None else Entry(event.key, event.value, event.revision)
                take(event.key.removeprefix(prefix), entry)
                return

    def _node(self, name: str, entry: Entry | None) -> None:
        if entry is None:
            self._engine.registrations.removed(name)
        else:
            self._engine.registrations.stored(decode(NodeRecord, entry))

    def _attachment(self, rest: str, entry: Entry | None) -> None:
        attachments = self._engine.attachments
        if entry is None:
            node, _, container = rest.partition("/")
            container_id, _, interface_name = container.rpartition("/")
            attachments.removed((node, container_id, interface_name))
            return
        record, pending = decode_attachment(entry)
        if record.node not in self._engine.cluster.nodes:
            raise CorruptRecordError(entry.key, f"{record} is on Node {record.node}, which is unknown")
        attachments.stored(record, pending)

    def _object(self, rest: str, entry: Entry | None) -> None:
        if entry is None:
            kind, _, holder = rest.partition("/")
            namespace, _, name = holder.partition("/")
            self._engine.declarations.removed(kind, namespace, name)
        else:
            self._engine.declarations.stored(object_of(entry))

    def _number(self, rest: str, entry: Entry | None) -> None:
        if entry is not None:
            namespace, _, name = rest.partition("/")
            self._engine.declarations.number_stored((namespace, name), decode(NumberRecord, entry).number)

    def _addresses(self, rest: str, entry: Entry | None) -> None:
        namespace, _, name = rest.partition("/")
        addresses = decode(AddressesRecord, entry).addresses if entry is not None else ()
        self._engine.declarations.addresses_stored((namespace, name), addresses)

    def _domain(self, name: str, entry: Entry | None) -> None:
        if entry is None:
            self._engine.domains.removed(name)
        else:
            self._engine.domains.stored(entry)

    def _absent(self, node: str, entry: Entry | None) -> None:
        self._engine.absences.stored_by_others(node, entry is not None)


def object_of(entry: Entry) -> Object:
    """A stored object. CorruptRecordError."""
    try:
        return parse(msgspec.json.decode(entry.value))
    except (msgspec.DecodeError, InvalidObjectError) as problem:
        raise CorruptRecordError(entry.key, problem) from None
