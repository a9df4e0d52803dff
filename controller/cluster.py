# SPDX-License-Identifier: Apache-2.0
"""The cluster as the controller knows it: nodes, attachments and declared objects in memory, and what may
join them.

Indexes make each question cost the same in a cluster of one node and of a thousand: who has this address,
this MAC, this port, this datapath id. Nothing here does I/O; the engine's thread owns it, and stores a change
before it is made here.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

from controller.records import AttachmentRecord, NodeRecord
from sdn.model import InvalidObjectError, Object
from sdn.model.names import IPAddress

#: Node, container id, interface name.
AttachmentKey = tuple[str, str, str]
Name = TypeVar("Name")


class TakenError(Exception):
    """Something that must be unique belongs to another already; the text names both and the field."""


def key_of(record: AttachmentRecord) -> AttachmentKey:
    return record.node, record.container_id, record.interface_name


class Cluster:
    """See the module."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self.attachments: dict[AttachmentKey, AttachmentRecord] = {}
        #: Kind to (namespace, name) to declared object.
        self.objects: dict[str, dict[tuple[str, str], Object]] = defaultdict(dict)
        self._by_node: dict[str, set[AttachmentKey]] = defaultdict(set)
        self._by_pod: dict[tuple[str, str], set[AttachmentKey]] = defaultdict(set)
        #: How many pods and declared objects each namespace has.
        self._by_namespace: dict[str, int] = defaultdict(int)
        #: (node, "ofport", number), ("", "mac", text) or ("", "address", text): who has it.
        self._unique: dict[tuple[str, str, object], AttachmentKey] = {}
        self._node_addresses: dict[str, str] = {}
        #: The same addresses as values.
        self.node_addresses: set[IPAddress] = set()
        self._datapaths: dict[int, str] = {}

    # Nodes.

    def check_node(self, record: NodeRecord) -> None:
        """TakenError when the node's name, address or switch is another's."""
        known = self.nodes.get(record.name)
        if known is not None and known.uid != record.uid:
            raise TakenError(
                f"node.name: another node is registered as {record.name} (uid {known.uid}, this one is {record.uid}); "
                f"delete Node {record.name} first if it is gone for good"
            )
        for address in record.addresses:
            holder = self._node_addresses.get(address, record.name)
            if holder != record.name:
                raise TakenError(f"node.addresses: {address} is an address of Node {holder}")
        holder = self._datapaths.get(record.datapath_id, record.name)
        if holder != record.name:
            raise TakenError(f"node.datapath_id: {record.datapath_id:016x} is the switch of Node {holder}")

    def put_node(self, record: NodeRecord) -> None:
        self.remove_node(record.name)
        self.nodes[record.name] = record
        self._datapaths[record.datapath_id] = record.name
        for address in record.addresses:
            self._node_addresses[address] = record.name
            self.node_addresses.add(ipaddress.ip_address(address))

    def remove_node(self, name: str) -> None:
        """Forget a node; its attachments are removed one by one before."""
        record = self.nodes.pop(name, None)
        if record is not None:
            self._datapaths.pop(record.datapath_id, None)
            for address in record.addresses:
                self._node_addresses.pop(address, None)
                self.node_addresses.discard(ipaddress.ip_address(address))

    def node_of_switch(self, datapath_id: int) -> str:
        """The name of the node whose switch this is; empty: nobody's."""
        return self._datapaths.get(datapath_id, "")

    def node_at(self, address: str) -> str:
        """The name of the node that has an address, as text; empty: none."""
        return self._node_addresses.get(address, "")

    def peers_of(self, name: str) -> Iterator[NodeRecord]:
        """All other nodes."""
        return (record for record in self.nodes.values() if record.name != name)

    # Attachments.

    def check_attachment(
        self, record: AttachmentRecord, path: str = "attachment", leaving: Iterable[AttachmentKey] = ()
    ) -> None:
        """InvalidObjectError when something of the attachment belongs to another one.

        ``leaving`` are attachments whose claims do not count any longer.
        """
        mine = key_of(record)
        gone = leaving if isinstance(leaving, (set, frozenset)) else set(leaving)
        for claim, field in _claims(record):
            holder = self._unique.get(claim)
            if holder is None or holder == mine or holder in gone:
                continue
            other = self.attachments[holder]
            raise InvalidObjectError(
                f"{path}.{field}",
                f"{claim[2]} belongs to {other} on Node {other.node}",
                subject=f"Pod {record.pod_namespace}/{record.pod_name}",
            )

    def put_attachment(self, record: AttachmentRecord) -> None:
        key = key_of(record)
        self.remove_attachment(key)
        self.attachments[key] = record
        self._by_node[record.node].add(key)
        self._by_pod[record.pod_namespace, record.pod_name].add(key)
        self._count(record.pod_namespace, 1)
        for claim, _ in _claims(record):
            self._unique[claim] = key

    def remove_attachment(self, key: AttachmentKey) -> AttachmentRecord | None:
        record = self.attachments.pop(key, None)
        if record is None:
            return None
        _discard(self._by_node, record.node, key)
        _discard(self._by_pod, (record.pod_namespace, record.pod_name), key)
        self._count(record.pod_namespace, -1)
        for claim, _ in _claims(record):
            if self._unique.get(claim) == key:
                del self._unique[claim]
        return record

    def attachments_on(self, node: str) -> list[AttachmentRecord]:
        """A node's attachments."""
        return [self.attachments[key] for key in self._by_node.get(node, ())]

    def attachments_of(self, namespace: str, name: str) -> list[AttachmentRecord]:
        """A pod's attachments, the newest first: while a sandbox is replaced there are two."""
        records = [self.attachments[key] for key in self._by_pod.get((namespace, name), ())]
        return sorted(records, key=lambda record: (record.created_at, record.container_id), reverse=True)

    def attachment_at(self, address: str) -> AttachmentRecord | None:
        """The attachment that has an address, as text."""
        key = self._unique.get(("", "address", address))
        return None if key is None else self.attachments.get(key)

    # Objects.

    def put_object(self, value: Object) -> None:
        objects, key = self.objects[value.KIND], (value.metadata.namespace, value.metadata.name)
        if key not in objects:
            self._count(key[0], 1)
        objects[key] = value

    def remove_object(self, kind: str, namespace: str, name: str) -> None:
        if self.objects[kind].pop((namespace, name), None) is not None:
            self._count(namespace, -1)

    def _count(self, namespace: str, by: int) -> None:
        """A namespace has one thing more, or less."""
        self._by_namespace[namespace] += by
        if not self._by_namespace[namespace]:
            del self._by_namespace[namespace]

    def names(self, kind: str) -> list[tuple[str, str]]:
        """(namespace, name) of every object of a kind, declared or found, in order."""
        known = set(self.objects[kind])
        if kind == "Node":
            known.update(("", name) for name in self.nodes)
        elif kind == "Pod":
            known.update(self._by_pod)
        elif kind == "Namespace":
            known.update(("", namespace) for namespace in self._by_namespace if namespace)
            known.add(("", "default"))
        return sorted(known)

    def has_namespace(self, name: str) -> bool:
        """Whether a namespace is declared, or has pods or declared objects."""
        return name == "default" or ("", name) in self.objects["Namespace"] or name in self._by_namespace


def _claims(record: AttachmentRecord) -> Iterator[tuple[tuple[str, str, object], str]]:
    """What nobody else may have, and the field that says it."""
    yield (record.node, "ofport", record.ofport), "ofport"
    yield ("", "mac", record.mac), "mac"
    for address in record.addresses:
        yield ("", "address", address), "addresses"


def _discard(index: dict[Name, set[AttachmentKey]], name: Name, key: AttachmentKey) -> None:
    """Take a key out of an index, and the entry too when it was the last."""
    keys = index[name]
    keys.discard(key)
    if not keys:
        del index[name]
