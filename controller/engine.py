# SPDX-License-Identifier: Apache-2.0
"""The engine: every change to the cluster goes through here, one at a time.

A change is checked against the model, written to the store, made in the model, and handed to the
synchronizers that it concerns, in this order: what is programmed is always stored, so a controller that
starts again computes the same flows with no agent connected, and nothing that is refused leaves a trace.

Runs in the asyncio thread. The store is written in a thread of its own; a lock keeps changes apart meanwhile.
Waiting for a switch is not part of a change: it is told later, through a callback, that what was stored is in
force.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import msgspec

from controller.checks import check_attachment, check_node
from controller.cluster import Cluster, key_of
from controller.programs import Programs
from controller.ranges import ClusterRanges
from controller.records import (
    ATTACHMENTS,
    NODES,
    OBJECTS,
    AttachmentRecord,
    CorruptRecordError,
    NodeRecord,
    RangeRecord,
    attachment_key,
    decode,
    encode,
    node_key,
    object_key,
    range_key,
)
from controller.store import Delete, Entry, Operation, Put, Store
from controller.store.contract import MAX_OPERATIONS
from controller.switchboard import Switchboard
from controller.watchers import Watchers
from sdn import logs
from sdn.model import InvalidObjectError, Node, Object, parse, to_document
from sdn.v1 import types_pb2

log = logs.get("controller.engine")

#: Called in the asyncio thread: None, it is in force; else why it is not, and never will be.
Answer = Callable[[str | None], None]
T = TypeVar("T")


class PreconditionError(Exception):
    """The cluster's state does not allow it; the text says what to do first."""


class NotFoundError(Exception):
    """No such object."""


class Engine:
    """See the module. Make it and :meth:`load` it inside the running event loop."""

    def __init__(self, store: Store, ranges: ClusterRanges, switchboard: Switchboard) -> None:
        self.cluster = Cluster()
        self.ranges = ranges
        self.programs = Programs(switchboard, self._status_changed)
        self.watchers = Watchers(self.cluster, self.programs)
        #: Attachments whose flows the switch has confirmed.
        self.programmed = self.watchers.programmed
        self.revision = 0
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._store_thread = ThreadPoolExecutor(1, "store")
        self._tasks: set[asyncio.Task[None]] = set()
        #: Told, with no details, whenever the set of nodes or one of them changed.
        self.on_nodes_changed: Callable[[], None] = lambda: None

    # Start and end.

    async def load(self) -> None:
        """Take in everything that is stored, and program it. StoreError, CorruptRecordError."""
        nodes = await self._in_store(self._store.list_prefix, NODES)
        attachments = await self._in_store(self._store.list_prefix, ATTACHMENTS)
        objects = await self._in_store(self._store.list_prefix, OBJECTS)
        self.revision = objects.revision
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
                    f"store: {attachment} is on Node {attachment.node}, which is not registered"
                )
            self._program(attachment, None)
        log.info(
            "loaded",
            nodes=len(nodes.entries),
            attachments=len(attachments.entries),
            objects=len(objects.entries),
            revision=self.revision,
        )

    def stop(self) -> None:
        """End the threads; nothing in the switches is touched."""
        self.programs.stop()
        self._store_thread.shutdown(wait=True)

    async def _in_store(self, call: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._store_thread, functools.partial(call, *arguments))

    async def _write(self, operations: Sequence[Operation]) -> None:
        """Write in as few transactions as the store allows."""
        for start in range(0, len(operations), MAX_OPERATIONS):
            self.revision = await self._in_store(
                self._store.write, operations[start : start + MAX_OPERATIONS]
            )

    # Nodes.

    async def register(self, info: types_pb2.NodeInfo) -> NodeRecord:
        """Register a node, or take in what changed about it; gives it its ranges.

        InvalidObjectError, TakenError, ranges.ExhaustedError, ranges.RangeError, StoreError; nothing is
        changed then.
        """
        wanted = check_node(info)
        async with self._lock:
            self.cluster.check_node(wanted)
            for address in wanted.addresses:
                self._check_outside_pods(address)
            known = self.cluster.nodes.get(wanted.name)
            chosen = self._ranges_for(wanted, known)
            record = msgspec.structs.replace(wanted, pod_ranges=chosen)
            if record == known:
                return record
            before = known.pod_ranges if known is not None else ()
            operations: list[Operation] = [Put(node_key(record.name), encode(record))]
            reserved = encode(RangeRecord(node=record.name))
            operations += [Put(range_key(text), reserved, expect=0) for text in chosen if text not in before]
            operations += [Delete(range_key(text)) for text in before if text not in chosen]
            await self._write(operations)
            self.cluster.put_node(record)
            self.programs.put_node(record, self.cluster.attachments_on(record.name))
        log.info(
            "node registered" if known is None else "node changed",
            node=record.name,
            pod_ranges=list(record.pod_ranges),
            datapath_id=f"{record.datapath_id:016x}",
            addresses=list(record.addresses),
        )
        self.node_changed(record.name)
        self.on_nodes_changed()
        return record

    def _check_outside_pods(self, address: str) -> None:
        for text in self.ranges.texts:
            if _in_range(address, text):
                raise InvalidObjectError(
                    "node.addresses", f"{address} lies in the cluster's range {text}, which is for pods"
                )

    def _ranges_for(self, wanted: NodeRecord, known: NodeRecord | None) -> tuple[str, ...]:
        if known is not None and (
            self.ranges.fits(known.pod_ranges) or self.cluster.attachments_on(known.name)
        ):
            return known.pod_ranges
        declared = self.cluster.objects["Node"].get(("", wanted.name))
        fixed = declared.pod_cidrs if isinstance(declared, Node) else ()
        taken = [text for other in self.cluster.peers_of(wanted.name) for text in other.pod_ranges]
        return self.ranges.choose(fixed, wanted.pod_ranges, taken)

    async def forget_node(self, name: str) -> None:
        """Forget a registered node and everything on it. NotFoundError, StoreError.

        The caller has made sure that its agent is not connected.
        """
        async with self._lock:
            record = self.cluster.nodes.get(name)
            if record is None:
                raise NotFoundError(f"Node {name} is not registered")
            attachments = self.cluster.attachments_on(name)
            operations: list[Operation] = [Delete(attachment_key(name, *a.id)) for a in attachments]
            # The node last: whatever interrupts this, no attachment is left without its node.
            operations += [Delete(range_key(text)) for text in record.pod_ranges]
            operations.append(Delete(node_key(name)))
            await self._write(operations)
            for attachment in attachments:
                self.cluster.remove_attachment(key_of(attachment))
                self.programmed.discard(key_of(attachment))
            self.cluster.remove_node(name)
            self.programs.remove_node(name)
        log.info("node forgotten", node=name, attachments=len(attachments))
        for attachment in attachments:
            self.watchers.changed("Pod", attachment.pod_namespace, attachment.pod_name)
        self.node_changed(name)
        self.on_nodes_changed()

    def node_changed(self, name: str) -> None:
        """Something that ``get Node`` shows has changed."""
        self.watchers.changed("Node", "", name)

    def _status_changed(self, node: str) -> None:
        # From a synchronizer's thread, which may outlive the loop by a moment.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.node_changed, node)

    # Attachments.

    async def attach(self, node: str, attachment: types_pb2.Attachment, answer: Answer) -> None:
        """Store and program an attachment; ``answer`` comes when the switch has confirmed it, or refused it.

        InvalidObjectError, StoreError: nothing of it is stored.
        """
        async with self._lock:
            record = check_attachment(attachment, self._node(node))
            self.cluster.check_attachment(record)
            known = self.cluster.attachments.get(key_of(record))
            if known != record:
                await self._write([Put(attachment_key(node, *record.id), encode(record))])
                self.programmed.discard(key_of(record))
                self.cluster.put_attachment(record)
            else:
                record = known
            self._program(record, answer)
        log.info(
            "pod attached",
            node=node,
            pod=f"{record.pod_namespace}/{record.pod_name}",
            container=record.container_id,
            addresses=list(record.addresses),
            ofport=record.ofport,
        )
        self.watchers.changed("Pod", record.pod_namespace, record.pod_name)

    async def detach(self, node: str, container_id: str, interface_name: str, answer: Answer) -> None:
        """Forget an attachment; ``answer`` comes when its flows are gone. An unknown one is no error.
        StoreError.
        """
        async with self._lock:
            self._node(node)
            record = self.cluster.attachments.get((node, container_id, interface_name))
            if record is not None:
                await self._write([Delete(attachment_key(node, container_id, interface_name))])
                self._forget(record)
            self.programs.remove_pod(node, container_id, interface_name, self._threadsafe(answer))
        if record is not None:
            log.info(
                "pod detached",
                node=node,
                pod=f"{record.pod_namespace}/{record.pod_name}",
                container=container_id,
            )

    async def full_state(
        self, node: str, attachments: Sequence[types_pb2.Attachment], answer: Answer
    ) -> None:
        """Make the node's attachments exactly these; ``answer`` comes when the switch has confirmed all of
        it.

        What is wrong with single attachments is told to ``answer`` too, as one text; the others are in force
        then. StoreError.
        """
        async with self._lock:
            accepted, problems = self._accept(self._node(node), attachments)
            wanted = {key_of(record): record for record in accepted}
            present = {key_of(record): record for record in self.cluster.attachments_on(node)}
            gone = [record for key, record in present.items() if key not in wanted]
            changed = [record for key, record in wanted.items() if present.get(key) != record]
            operations: list[Operation] = [Delete(attachment_key(node, *record.id)) for record in gone]
            operations += [Put(attachment_key(node, *record.id), encode(record)) for record in changed]
            await self._write(operations)
            for record in gone:
                self._forget(record)
                self.programs.remove_pod(node, *record.id, None)
            for record in changed:
                self.programmed.discard(key_of(record))
                self.cluster.remove_attachment(key_of(record))
            for record in changed:
                self.cluster.put_attachment(record)
                self._program(record, None)
            reason = "; ".join(problems) or None

            def settled(refused: str | None) -> None:
                answer(reason or refused)

            self.programs.settled(node, self._threadsafe(settled))
        log.info(
            "full state",
            node=node,
            attachments=len(wanted),
            changed=len(changed),
            gone=len(gone),
            rejected=problems,
        )
        for record in changed:
            self.watchers.changed("Pod", record.pod_namespace, record.pod_name)

    def _accept(
        self, node: NodeRecord, attachments: Sequence[types_pb2.Attachment]
    ) -> tuple[list[AttachmentRecord], list[str]]:
        """The attachments that can be together on the node, and what is wrong with the others."""
        accepted = Cluster()
        problems: list[str] = []
        # What the node had does not count: only the list as a whole says what it has.
        former = frozenset(key_of(record) for record in self.cluster.attachments_on(node.name))
        for index, attachment in enumerate(attachments):
            path = f"attachments[{index}]"
            try:
                record = check_attachment(attachment, node, path)
                accepted.check_attachment(record, path)
                self.cluster.check_attachment(record, path, former)
            except InvalidObjectError as problem:
                problems.append(str(problem))
            else:
                accepted.put_attachment(record)
        return list(accepted.attachments.values()), problems

    def _node(self, name: str) -> NodeRecord:
        record = self.cluster.nodes.get(name)
        if record is None:
            raise InvalidObjectError("node", f"Node {name} is no longer registered")
        return record

    def _program(self, record: AttachmentRecord, answer: Answer | None) -> None:
        self.programs.put_pod(record, self._threadsafe(functools.partial(self._confirmed, record, answer)))

    def _confirmed(self, record: AttachmentRecord, answer: Answer | None, refused: str | None) -> None:
        """The switch has confirmed an attachment, or refused it: then, if somebody waits, it is taken
        back.
        """
        key = key_of(record)
        if self.cluster.attachments.get(key) is not record:
            # Gone or changed meanwhile. Who asked for it learns whether it was in force.
            if answer is not None:
                answer(refused)
            return
        if refused is None:
            self.programmed.add(key)
            self.watchers.changed("Pod", record.pod_namespace, record.pod_name)
            if answer is not None:
                answer(None)
        elif answer is not None:
            task = self._loop.create_task(self._take_back(record, answer, refused))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _take_back(self, record: AttachmentRecord, answer: Answer, refused: str) -> None:
        async with self._lock:
            if self.cluster.attachments.get(key_of(record)) is record:
                await self._write([Delete(attachment_key(record.node, *record.id))])
                self._forget(record)
                self.programs.remove_pod(record.node, *record.id, None)
        answer(refused)

    def _forget(self, record: AttachmentRecord) -> None:
        self.cluster.remove_attachment(key_of(record))
        self.programmed.discard(key_of(record))
        self.watchers.changed("Pod", record.pod_namespace, record.pod_name)

    def _threadsafe(self, answer: Answer) -> Answer:
        """The same callback, callable from a synchronizer's thread."""

        def call(refused: str | None) -> None:
            with suppress(RuntimeError):  # The loop has ended: nobody is left to be told.
                self._loop.call_soon_threadsafe(answer, refused)

        return call

    # Declared objects.

    async def apply(self, value: Object, dry_run: bool) -> str:
        """Declare an object: "created", "configured" or "unchanged". PreconditionError, StoreError."""
        kind, namespace, name = value.KIND, value.metadata.namespace, value.metadata.name
        async with self._lock:
            before = self.cluster.objects[kind].get((namespace, name))
            self._check_declaration(value)
            outcome = "created" if before is None else "unchanged" if before == value else "configured"
            if not dry_run and outcome != "unchanged":
                document = msgspec.json.encode(to_document(value))
                await self._write([Put(object_key(kind, namespace, name), document)])
                self.cluster.put_object(value)
        if not dry_run and outcome != "unchanged":
            log.info("object applied", kind=kind, namespace=namespace, name=name, outcome=outcome)
            self._object_changed(kind, namespace, name)
        return outcome

    def _check_declaration(self, value: Object) -> None:
        if isinstance(value, Node) and value.pod_cidrs:
            record = self.cluster.nodes.get(value.metadata.name)
            if record is not None and set(value.pod_cidrs) - set(record.pod_ranges):
                raise PreconditionError(
                    f"Node {record.name}: spec.podCIDRs: the node is registered with {', '.join(record.pod_ranges)}; "
                    "delete the Node first to give it other ranges"
                )

    async def remove(self, kind: str, namespace: str, name: str) -> None:
        """Withdraw a declaration. NotFoundError, PreconditionError, StoreError."""
        async with self._lock:
            if (namespace, name) not in self.cluster.objects[kind]:
                if (namespace, name) in self.cluster.names(kind):
                    raise PreconditionError(
                        f"{kind} {_full(namespace, name)} exists, but was not declared here"
                    )
                raise NotFoundError(f"{kind} {_full(namespace, name)} does not exist")
            await self._write([Delete(object_key(kind, namespace, name))])
            self.cluster.remove_object(kind, namespace, name)
        log.info("object deleted", kind=kind, namespace=namespace, name=name)
        self._object_changed(kind, namespace, name)

    def _object_changed(self, kind: str, namespace: str, name: str) -> None:
        self.watchers.changed(kind, namespace, name)
        if namespace:
            # A namespace exists by its pods, too.
            self.watchers.changed("Namespace", "", namespace)


def _full(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _in_range(address: str, text: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(text)


def _object(entry: Entry) -> Object:
    try:
        return parse(msgspec.json.decode(entry.value))
    except (msgspec.DecodeError, InvalidObjectError) as problem:
        raise CorruptRecordError(f"store: the value of {entry.key} cannot be read: {problem}") from None
