# SPDX-License-Identifier: Apache-2.0
"""Policies: keeps the policy engine (sdn/policy) like the cluster, and hands each switch what changed for it.

Order. What policies say of a pod is handed to its switch before the pod's own flows, and taken back after them: a pod
never forwards a packet that its policies have not seen. All that one change means for one switch goes into it in one
atomic bundle.

Turns. A change for all pods of a thousand switches would hold the asyncio thread for seconds. So what does not fit into
a turn is worked out and handed out switch by switch, while agents, switches and other controllers are answered. A
switch whose turn comes late gets all changes up to then at once; where the order demands it, it is handed everything
first (:meth:`Policies.hand_over`), as before a pod's own flows, and before anybody is told what is in force.

What a change denies is denied from the next packet on, by the flows. Connections that only answer are found in the
tracker and ended afterwards (:mod:`controller.sweeps`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Iterator

from controller.cluster import AttachmentKey, Cluster, key_of
from controller.programs import Programs
from controller.records import AttachmentRecord, NodeRecord
from controller.turns import Turns
from sdn import logs
from sdn.model import Namespace, Node, Object, Pod
from sdn.model.address import Address, Range
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.policy.cells import Cell
from sdn.policy.changes import Changes
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import NamedPort, PolicyNode, PolicyPod, PolicyRef, Protocol

log = logs.get("controller.policies")

#: Told a node and whose connections may be denied now, once its switch has confirmed that; in any thread.
OnShrunk = Callable[[str, Collection[Range]], None]


class Policies:
    """See the module. Runs in the asyncio thread."""

    def __init__(self, cluster: Cluster, programs: Programs) -> None:
        self.engine = PolicyEngine()
        self.on_shrunk: OnShrunk = lambda _node, _ranges: None
        #: Told a node whose switch has confirmed a change of policies; in any thread.
        self.on_changed: Callable[[str], None] = lambda _node: None
        self._cluster = cluster
        self._programs = programs
        #: Nodes whose synchronizer was given everything, and is told of each change.
        self._programmed: set[str] = set()
        self._handing_out: asyncio.Task[None] | None = None
        #: Nodes of which somebody was told that something waits to be handed out.
        self._told_waiting: set[str] = set()

    def stop(self) -> None:
        """Hand out no more."""
        if self._handing_out is not None:
            self._handing_out.cancel()

    async def load(self) -> None:
        """Take in the whole cluster and hand it to the synchronizers; switches are let in after that."""
        turns = Turns()
        for kind in ("Namespace", "NetworkPolicy", "ClusterNetworkPolicy"):
            for value in self._cluster.objects[kind].values():
                self._put_object(value)
                await turns.pause()
        for node in self._cluster.nodes.values():
            self._put_node(node)
        for record in self._cluster.attachments.values():
            self.engine.put_pod(self._pod(record))
            await turns.pause()
        for name in self._cluster.nodes:
            self._program(name)
            await turns.pause()

    # What changes.

    def object_changed(self, kind: str, namespace: str, name: str, after: Object | None) -> None:
        """A declared object is another, new, or gone (``after`` None)."""
        if kind == "Pod":
            for record in self._cluster.attachments_of(namespace, name):
                self.engine.put_pod(self._pod(record))
        elif kind == "Node":
            record_of_node = self._cluster.nodes.get(name)
            if record_of_node is not None:
                self._put_node(record_of_node)
        elif after is not None:
            self._put_object(after)
        elif kind == "Namespace":
            self.engine.remove_namespace(name)
        elif kind in ("NetworkPolicy", "ClusterNetworkPolicy"):
            self.engine.remove_policy(PolicyRef(kind, namespace, name))
        else:
            return
        self._hand_out()

    def pod_attached(self, record: AttachmentRecord) -> None:
        """An attachment is new or another; its flows are still to be handed to its switch."""
        self.engine.put_pod(self._pod(record))
        self._hand_out()

    def pod_detached(self, key: AttachmentKey) -> None:
        """An attachment is gone, and its flows were taken away. One that is there again is left alone."""
        if key not in self._cluster.attachments:
            self.engine.remove_pod(key)
            self._hand_out()

    def node_changed(self, record: NodeRecord) -> None:
        """A node was registered, or is another than before. Its synchronizer is there, its switch not let in."""
        name = record.name
        self._put_node(record)
        if name not in self._programmed:
            self._program(name)
        self._hand_out()

    def node_removed(self, name: str) -> None:
        """A node is forgotten; its synchronizer has ended, its pods are gone."""
        self._programmed.discard(name)
        self.engine.unsubscribe(name)
        self.engine.remove_node(name)
        self._hand_out()

    def names_resolved(self, name: str, addresses: Collection[Address]) -> None:
        """The DNS says that a name has these addresses; none: what it said is over."""
        self.engine.put_domain(name, frozenset(addresses))
        self._hand_out()

    # What the engine is told.

    def _put_object(self, value: Object) -> None:
        if isinstance(value, Namespace):
            self.engine.put_namespace(value.metadata.name, value.metadata.labels)
        elif isinstance(value, NetworkPolicy | ClusterNetworkPolicy):
            self.engine.put_policy(value)

    def _put_node(self, record: NodeRecord) -> None:
        self.engine.put_node(policy_node(self._cluster, record))

    def _pod(self, record: AttachmentRecord) -> PolicyPod:
        return policy_pod(self._cluster, record)

    # What the switches are told.

    def _program(self, node: str) -> None:
        """Give a node's synchronizer everything, and tell it of changes from now on."""
        self._programmed.add(node)
        self._programs.put_policies(node, self.engine.subscribe(node))

    def hand_over(self, node: str) -> None:
        """Hand a node's synchronizer everything that policies say by now, whether it is the node's turn or not."""
        if self.engine.waits(node):
            self._hand(self.engine.take_of(node))

    def waits(self, node: str) -> bool:
        """Whether there may be something that was not handed to a node's synchronizer. Who is told so is told, by the
        switch's status, when it is over.
        """
        if not self.engine.waits(node):
            return False
        self._told_waiting.add(node)
        return True

    async def handed_out(self) -> None:
        """Return when everything is handed to the synchronizers."""
        while self._handing_out is not None:
            await asyncio.wait([self._handing_out])

    def _hand_out(self) -> None:
        """After each change: what fits into this turn now, the rest in turns of its own."""
        self._hand(self.engine.take_new())
        if self.engine.waiting and self._handing_out is None:
            self._begin_to_hand_out()

    def _begin_to_hand_out(self) -> None:
        self._handing_out = asyncio.get_running_loop().create_task(self._hand_out_waiting())
        self._handing_out.add_done_callback(self._handed_out)

    async def _hand_out_waiting(self) -> None:
        turns = Turns()
        while self.engine.waiting:
            self._hand(self.engine.take_waiting())
            await turns.pause()
        # For some of them nothing may have come of it, and nothing else would say that it is over.
        told, self._told_waiting = self._told_waiting, set()
        for node in told & self._programmed:
            self._programs.settled(node, functools.partial(self._programs.tell_status, node))

    def _handed_out(self, task: asyncio.Task[None]) -> None:
        self._handing_out = None
        if task.cancelled():
            return
        if problem := task.exception():
            log.error("policies are not handed out", error=logs.error_text(problem))
        elif self.engine.waiting:
            # What came after the task had looked for the last time, and before this was called.
            self._begin_to_hand_out()

    def _hand(self, taken: Changes) -> None:
        for node, cells in taken.cells.items():
            done = functools.partial(self._in_force, node, taken.shrunk.get(node, frozenset()))
            self._programs.put_policies(node, cells, done)

    def _in_force(self, node: str, ranges: Collection[Range], refused: str | None) -> None:
        if refused is not None:
            return
        self.on_changed(node)
        if ranges:
            self.on_shrunk(node, ranges)

    # For people, and for those who look for connections.

    def on_node(self, node: str) -> Collection[Cell]:
        """What policies say on a node."""
        return self.engine.cells(node).values()

    def guarded(self, node: str) -> Iterator[Range]:
        """The addresses of the node's pods that have policies."""
        for record in self._cluster.attachments_on(node):
            if self.engine.policies_of(key_of(record)):
                yield from (Range.of(Address.parse(text)) for text in record.addresses)


def policy_pod(cluster: Cluster, record: AttachmentRecord) -> PolicyPod:
    """An attachment as policies see it. What is declared of the pod stands above what its agent reported."""
    declared = cluster.objects["Pod"].get((record.pod_namespace, record.pod_name))
    pod = declared if isinstance(declared, Pod) else None
    return PolicyPod(
        key=key_of(record),
        namespace=record.pod_namespace,
        name=record.pod_name,
        node=record.node,
        labels=dict(pod.metadata.labels if pod is not None else record.labels),
        addresses=tuple(map(Address.parse, record.addresses)),
        ofport=record.ofport,
        named_ports=tuple(
            NamedPort(name, Protocol[protocol], port)
            for name, protocol, port in (pod.named_ports if pod else ())
        ),
    )


def policy_node(cluster: Cluster, record: NodeRecord) -> PolicyNode:
    """A node as policies see it."""
    declared = cluster.objects["Node"].get(("", record.name))
    labels = dict(record.labels)
    if isinstance(declared, Node):
        labels |= declared.metadata.labels
    return PolicyNode(
        name=record.name,
        labels=labels,
        addresses=tuple(map(Address.parse, record.addresses)),
        gateways=tuple(Range.parse(text).gateway for text in record.pod_ranges),
    )
