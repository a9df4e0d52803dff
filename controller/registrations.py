# SPDX-License-Identifier: Apache-2.0
"""Nodes: who is registered, with which ranges.

A registration binds a name to the uid that the node's agent made at its first start, and to ranges of pod
addresses. Both are stored before they are told to anybody, and stay until the node is forgotten by hand.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence

import msgspec

from controller.allocation.network import ServiceNetwork
from controller.checks import check_node
from controller.cluster import Cluster, key_of
from controller.errors import NotFoundError
from controller.ledger import Ledger, whole
from controller.loadbalancing.runtime import LoadBalancing
from controller.policies import Policies
from controller.programs import Programs
from controller.ranges import ClusterRanges
from controller.records import (
    AttachmentRecord,
    NodeRecord,
    RangeRecord,
    absent_key,
    attachment_key,
    encode,
    node_key,
    owner_key,
    range_key,
)
from controller.store import Delete, Operation, Put
from controller.watchers import Watchers
from sdn import logs
from sdn.model import InvalidObjectError, Node
from sdn.v1 import types_pb2

log = logs.get("controller.registrations")


class Registrations:
    """Runs in the asyncio thread."""

    def __init__(
        self,
        ledger: Ledger,
        ranges: ClusterRanges,
        cluster: Cluster,
        programs: Programs,
        watchers: Watchers,
        services: LoadBalancing,
        policies: Policies,
        network: ServiceNetwork,
    ) -> None:
        self._ledger = ledger
        self._ranges = ranges
        self._cluster = cluster
        self._programs = programs
        self._watchers = watchers
        self._services = services
        self._policies = policies
        self._network = network
        #: Told, with no details, whenever the set of nodes or one of them changed.
        self.on_changed: Callable[[], None] = lambda: None
        #: Told of a node that this controller has registered as new, and as one that cannot announce yet.
        self.on_new: Callable[[str], None] = lambda _name: None
        #: Told of a node that this controller has forgotten, and whose owner's record it has removed.
        self.on_forgotten: Callable[[str], None] = lambda _name: None
        #: Told, without details, when the switch of a node that another controller has registered may be taken.
        self.on_let_in: Callable[[], None] = lambda: None
        #: Nodes that others have registered, until their synchronizers have all they must hold; and what sees to it.
        self._entering: dict[str, NodeRecord] = {}
        self._letting_in: asyncio.Task[None] | None = None

    @whole
    async def register(self, info: types_pb2.NodeInfo) -> NodeRecord:
        """Register a node, or take in what changed about it; gives it its ranges.

        InvalidObjectError, TakenError, ranges.ExhaustedError, ranges.RangeError, StoreError; nothing is
        changed then.
        """
        wanted = check_node(info)
        async with self._ledger.lock:
            self._cluster.check_node(wanted)
            for address in wanted.addresses:
                self._check_outside(address)
            known = self._cluster.nodes.get(wanted.name)
            chosen = self._ranges_for(wanted, known)
            record = msgspec.structs.replace(wanted, pod_ranges=chosen)
            if record != known:
                before = known.pod_ranges if known is not None else ()
                operations: list[Operation] = [Put(node_key(record.name), encode(record))]
                reserved = encode(RangeRecord(node=record.name))
                operations += [
                    Put(range_key(text), reserved, expect=0) for text in chosen if text not in before
                ]
                operations += [Delete(range_key(text)) for text in before if text not in chosen]
                if known is None:
                    # Until its owner has found it connected.
                    operations.append(Put(absent_key(record.name), b"{}"))
                await self._ledger.write(operations, gives=True)
                self._take_in(record)
                if known is None:
                    self.on_new(record.name)
        if known is not None and record == known:
            if not self._programs.claimed(known.name):
                # It has come here before its turn among those that others have registered.
                await self._let_in(known)
            return known
        log.info(
            "node registered" if known is None else "node changed",
            node=record.name,
            pod_ranges=list(record.pod_ranges),
            datapath_id=f"{record.datapath_id:016x}",
            addresses=list(record.addresses),
        )
        self._tell(record.name)
        await self._let_in(record)
        return record

    def _take_in(self, record: NodeRecord) -> None:
        self._cluster.put_node(record)
        self._programs.put_node(record, self._cluster.attachments_on(record.name))
        self._policies.node_changed(record)

    def _tell(self, name: str) -> None:
        self._watchers.changed("Node", "", name)
        self.on_changed()

    async def _let_in(self, record: NodeRecord) -> None:
        await self._services.node_changed(record.name)
        # Last: a switch that connects from here on finds everything submitted.
        if self._cluster.nodes.get(record.name) is record:
            self._programs.claim(record)

    # What other controllers have stored.

    def stored(self, record: NodeRecord) -> None:
        """Another controller has registered a node. Its part of all Services follows: nobody who waits for the ledger
        waits for that, which takes long where there are many of both.
        """
        if record == self._cluster.nodes.get(record.name):
            return
        self._take_in(record)
        self._tell(record.name)
        self._entering[record.name] = record
        if self._letting_in is None or self._letting_in.done():
            self._letting_in = asyncio.get_running_loop().create_task(self._let_all_in())

    async def _let_all_in(self) -> None:
        while self._entering:
            record = self._entering.pop(next(iter(self._entering)))
            try:
                await self._let_in(record)
            except Exception:  # one node's defect must not stop all others
                log.exception("a node's Services cannot be programmed", node=record.name)
            self.on_let_in()

    def stop(self) -> None:
        """Let nobody in any more."""
        if self._letting_in is not None:
            self._letting_in.cancel()

    def removed(self, name: str) -> None:
        """Another controller has forgotten a node."""
        if name in self._cluster.nodes:
            self._tell_forgotten(name, self._forget(name))

    def _check_outside(self, address: str) -> None:
        for ranges, whose in (
            (self._ranges.texts, "pods"),
            (self._network.service_ranges, "Services"),
            (self._network.load_balancer_ranges, "LoadBalancers"),
        ):
            for one in ranges:
                if _in_range(address, str(one)):
                    raise InvalidObjectError(
                        "node.addresses", f"{address} lies in the cluster's range {one}, which is for {whose}"
                    )

    def _ranges_for(self, wanted: NodeRecord, known: NodeRecord | None) -> tuple[str, ...]:
        if known is not None and (
            self._ranges.fits(known.pod_ranges) or self._cluster.attachments_on(known.name)
        ):
            return known.pod_ranges
        declared = self._cluster.objects["Node"].get(("", wanted.name))
        fixed = declared.pod_cidrs if isinstance(declared, Node) else ()
        taken = [text for other in self._cluster.peers_of(wanted.name) for text in other.pod_ranges]
        # What is fixed for a node that is still to come is given to nobody else.
        taken += [
            text
            for (_, name), other in self._cluster.objects["Node"].items()
            if isinstance(other, Node) and name != wanted.name and name not in self._cluster.nodes
            for text in other.pod_cidrs
        ]
        return self._ranges.choose(fixed, wanted.pod_ranges, taken)

    @whole
    async def forget(self, name: str) -> None:
        """Forget a registered node and everything on it. NotFoundError, StoreError.

        The caller has made sure that its agent is not connected.
        """
        async with self._ledger.lock:
            record = self._cluster.nodes.get(name)
            if record is None:
                raise NotFoundError(f"Node {name} is not registered")
            attachments = self._cluster.attachments_on(name)
            operations: list[Operation] = [Delete(attachment_key(name, *a.id)) for a in attachments]
            # The node last: whatever interrupts this, no attachment is left without its node.
            operations += [Delete(range_key(text)) for text in record.pod_ranges]
            operations += [Delete(node_key(name)), Delete(owner_key(name))]
            await self._ledger.write(operations, gives=True)
            attachments = self._forget(name)
            self.on_forgotten(name)
        log.info("node forgotten", node=name, attachments=len(attachments))
        self._tell_forgotten(name, attachments)

    def _forget(self, name: str) -> list[AttachmentRecord]:
        """Take a node out of the model; gives what was attached there."""
        attachments = self._cluster.attachments_on(name)
        for attachment in attachments:
            self._cluster.remove_attachment(key_of(attachment))
            self._watchers.programmed.discard(key_of(attachment))
            self._services.in_force.discard(key_of(attachment))
        self._cluster.remove_node(name)
        self._programs.remove_node(name)
        for attachment in attachments:
            self._services.pod_changed(attachment.pod_namespace, attachment.pod_name, attachment.addresses)
        self._services.node_removed(name)
        for attachment in attachments:
            self._policies.pod_detached(key_of(attachment))
        self._policies.node_removed(name)
        return attachments

    def _tell_forgotten(self, name: str, attachments: Sequence[AttachmentRecord]) -> None:
        for attachment in attachments:
            self._watchers.changed("Pod", attachment.pod_namespace, attachment.pod_name)
        self._tell(name)


def _in_range(address: str, text: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(text)
