# SPDX-License-Identifier: Apache-2.0
"""Which program each switch gets: the model's objects as parts of each node's synchronizer.

A node's switch has one part for the node itself, one for each of its attachments, one for each other node, one
for each Service, one for each cell of what policies say. A change is handed to the synchronizers that it concerns,
as a function still to be run: compiling takes place in their threads.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Collection, Iterable, KeysView, Mapping, Sequence
from dataclasses import replace

from controller.allocation.network import ServiceNetwork
from controller.changes import Change
from controller.cluster import Cluster
from controller.desired import NODE_PART, Encoded, Part, encode
from controller.forgetting import Flush
from controller.records import AttachmentRecord, NodeRecord
from controller.shared import SharedPeer
from controller.status import Status
from controller.switchboard import Switchboard
from controller.synchronizer import ALONE, Compile, Done, Synchronizer
from sdn.model.names import Network
from sdn.pipeline.compiler import node_flows, pod_flows, policy_flows, switch_flows
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.topology import Address, Encapsulation, LocalNode, PodPort, Range, RemoteNode
from sdn.policy.cells import Cell, CellKey, PeerCell, RuleCell

#: Parts of no entries: who asks for one is told when what was submitted before is in force.
_SETTLED = ("mark", "settled")
_POLICIES = ("mark", "policies")


def local_node(record: NodeRecord, network: ServiceNetwork) -> LocalNode:
    """The node as the compiler wants to know it when compiling its own switch."""
    return LocalNode(
        name=record.name,
        pod_ranges=tuple(map(Range.parse, record.pod_ranges)),
        addresses=tuple(map(Address.parse, record.addresses)),
        tunnel_address=Address.parse(record.tunnel_address),
        encapsulation=Encapsulation(record.encapsulation),
        service_ranges=_ranges(network.service_ranges),
        load_balancer_ranges=_ranges(network.load_balancer_ranges),
        first_node_port=network.node_ports.start,
        userspace=record.datapath == "netdev",
    )


def remote_node(record: NodeRecord) -> RemoteNode:
    """The node as the compiler wants to know it when compiling another's switch."""
    return RemoteNode(
        name=record.name,
        pod_ranges=tuple(map(Range.parse, record.pod_ranges)),
        addresses=tuple(map(Address.parse, record.addresses)),
        tunnel_address=Address.parse(record.tunnel_address),
    )


def pod_port(record: AttachmentRecord) -> PodPort:
    """An attachment as the compiler wants to know it."""
    by_version = {address.version: int(address) for address in map(ipaddress.ip_address, record.addresses)}
    return PodPort(
        namespace=record.pod_namespace,
        name=record.pod_name,
        container_id=record.container_id,
        interface_name=record.interface_name,
        ofport=record.ofport,
        mac=int(record.mac.replace(":", ""), 16),
        ipv4=by_version.get(4),
        ipv6=by_version.get(6),
    )


def _policy_entries(cell: Cell) -> Encoded:
    """What a switch holds of a cell. Of rules and of the other ends of connections all switches hold the same."""
    return _shared_cell(cell) if isinstance(cell, PeerCell | RuleCell) else encode(policy_flows(cell))


@functools.lru_cache(maxsize=1 << 16)
def _shared_cell(cell: PeerCell | RuleCell) -> Encoded:
    return encode(policy_flows(cell))


def _ranges(networks: Iterable[Network]) -> tuple[Range, ...]:
    return tuple(Range.parse(str(network)) for network in networks)


def _forgotten(node: str) -> str:
    return f"Node {node} is no longer registered"


class Programs:
    """One synchronizer a registered node. Owned by the engine's thread."""

    def __init__(
        self, switchboard: Switchboard, network: ServiceNetwork, on_status: Callable[[str], None]
    ) -> None:
        """``on_status`` is called in a synchronizer's thread, with the node's name, when its switch's state
        changed.
        """
        self._switchboard = switchboard
        self._network = network
        self._on_status = on_status
        self._synchronizers: dict[str, Synchronizer] = {}
        self._local: dict[str, LocalNode] = {}
        #: What each node owns on all other nodes' switches.
        self._peers: dict[str, SharedPeer] = {}
        self._datapaths: dict[str, int] = {}
        #: Whether nothing may be written to any switch.
        self._paused = False
        #: Of attachments, for people: whose they are.
        self._pods: dict[tuple[str, str], str] = {}
        #: Computes what all Services have on a node; set by the engine.
        self.services_on: Callable[[str], Callable[[], Iterable[Flow | Group]]] = lambda _node: tuple
        #: What policies say on a node; set by the engine.
        self.policies_on: Callable[[str], Collection[Cell]] = lambda _node: ()
        #: Hands over what policies say of a node and was not handed over yet; whether there may be any. Both set by the
        #: engine.
        self.hand_over_policies: Callable[[str], None] = lambda _node: None
        self.policies_wait: Callable[[str], bool] = lambda _node: False
        #: The generation with which this controller owns a node's switch, None: it does not; set by the engine.
        self.generation_of: Callable[[str], int | None] = lambda _node: ALONE
        #: Called in any thread, with the node, this controller's generation and the one that the switch has seen (0 if
        #: that is not known), when its switch has another master; must not wait; set by the engine.
        self.on_deposed: Callable[[str, int, int], None] = lambda _node, _generation, _seen: None

    def nodes(self) -> KeysView[str]:
        """The names of all nodes that have a synchronizer."""
        return self._synchronizers.keys()

    def put_node(self, record: NodeRecord, pods: Iterable[AttachmentRecord]) -> None:
        """A node was registered, or changed; ``pods`` are its attachments, compiled again if they must be.

        Its switch is let in by :meth:`claim`, when everything else that it must hold was submitted, too.
        """
        name = record.name
        local, remote = local_node(record, self._network), remote_node(record)
        synchronizer = self._synchronizers.get(name)
        if synchronizer is None:
            synchronizer = Synchronizer(
                name,
                functools.partial(self._on_status, name),
                owned=self.generation_of(name),
                on_deposed=lambda node, generation, seen: self.on_deposed(node, generation, seen),
                owner_of=functools.partial(self._owner_of, name),
            )
            synchronizer.pause(self._paused)
            self._synchronizers[name] = synchronizer
            others = [Change(("peer", other), peer.encoded) for other, peer in self._peers.items()]
            synchronizer.submit_all(others, patient=True)
        if self._local.get(name) != local:
            self._local[name] = local
            synchronizer.submit(NODE_PART, functools.partial(node_flows, local))
            for pod in pods:
                self.put_pod(pod, None)
        if name not in self._peers or self._peers[name].node != remote:
            shared = self._peers[name] = SharedPeer(remote)
            for its in self._synchronizers.values():
                if its is not synchronizer:
                    its.submit_all([Change(("peer", name), shared.encoded)], patient=True)

    def claim(self, record: NodeRecord) -> None:
        """Let the node's switch in: what it must hold was submitted."""
        name = record.name
        self.hand_over_policies(name)
        synchronizer = self._synchronizers.get(name)
        if synchronizer is not None and self._datapaths.get(name) != record.datapath_id:
            if name in self._datapaths:
                self._switchboard.release(self._datapaths[name])
            self._datapaths[name] = record.datapath_id
            self._switchboard.claim(record.datapath_id, synchronizer)

    def claimed(self, node: str) -> bool:
        """Whether the node's switch is let in."""
        return node in self._datapaths

    def own(self, node: str) -> None:
        """This controller owns the node's switch from now on, or anew, with the generation that ``generation_of`` says.
        Its synchronizer asks the switch for the role, compares it, and writes what differs.
        """
        synchronizer, generation = self._synchronizers.get(node), self.generation_of(node)
        if synchronizer is not None and generation is not None:
            synchronizer.own(generation)

    def disown(self, node: str, known: int = 0) -> None:
        """This controller does not own the node's switch any longer; ``known`` is the generation of who does, if that
        is known, see :meth:`Synchronizer.disown`. All who wait are told NOT_OWNER.
        """
        synchronizer = self._synchronizers.get(node)
        if synchronizer is not None:
            synchronizer.disown(known)

    def pause(self, paused: bool) -> None:
        """Whether no switch may be written for now, see :meth:`Synchronizer.pause`."""
        self._paused = paused
        for synchronizer in self._synchronizers.values():
            synchronizer.pause(paused)

    def remove_node(self, name: str) -> None:
        """Forget a node: its switch is let go as it is, the others lose their way to it."""
        synchronizer = self._synchronizers.pop(name, None)
        if synchronizer is None:
            return
        datapath_id = self._datapaths.pop(name, None)
        if datapath_id is not None:
            self._switchboard.release(datapath_id)
        synchronizer.stop(close=True)
        del self._local[name], self._peers[name]
        for other in self._synchronizers.values():
            other.submit_all([Change(("peer", name), None)], patient=True)

    def put_pod(self, record: AttachmentRecord, done: Done | None, *, new: bool = False) -> None:
        """An attachment was made, or changed. ``done`` as in :meth:`Synchronizer.submit`; ``new``: its addresses were
        nobody's before (see :class:`controller.changes.Change`). What policies say of it goes first.
        """
        self.hand_over_policies(record.node)
        synchronizer = self._synchronizers.get(record.node)
        if synchronizer is not None:
            compiled = functools.partial(pod_flows, self._local[record.node], pod_port(record))
            fresh = tuple(map(Address.parse, record.addresses)) if new else ()
            part = ("pod", *record.id)
            self._pods[record.id] = f"Pod {record.pod_namespace}/{record.pod_name}"
            synchronizer.submit_all([Change(part, compiled, done, fresh=fresh)])
        elif done is not None:
            done(_forgotten(record.node))

    def remove_pod(
        self,
        node: str,
        container_id: str,
        interface_name: str,
        done: Done | None,
        gone: Sequence[str] = (),
    ) -> None:
        """An attachment is gone, with these addresses."""
        self._pods.pop((container_id, interface_name), None)
        synchronizer = self._synchronizers.get(node)
        if synchronizer is not None:
            addresses = tuple(map(Address.parse, gone))
            synchronizer.submit(("pod", container_id, interface_name), None, done, addresses)
        elif done is not None:
            done(None)

    def put_service(
        self, node: str, namespace: str, name: str, compiled: Compile | None, gone: Sequence[Address] = ()
    ) -> None:
        """A Service is another on this node than before; None: the node has nothing of it. ``gone`` are
        addresses of endpoints that no longer exist, as in :meth:`Synchronizer.submit`.
        """
        self._synchronizers[node].submit(("service", namespace, name), compiled, None, tuple(gone))

    def put_policies(self, node: str, cells: Mapping[CellKey, Cell | None], done: Done | None = None) -> None:
        """What policies say is another on this node than before, all at once; None: a cell is gone."""
        synchronizer = self._synchronizers.get(node)
        if synchronizer is None:
            if done is not None:
                done(_forgotten(node))
            return
        changes = [
            Change(("policy", key), None if cell is None else functools.partial(_policy_entries, cell))
            for key, cell in cells.items()
        ]
        if done is not None:
            changes.append(Change(_POLICIES, None, done))
        synchronizer.submit_all(changes)

    def flush(self, node: str, connections: Sequence[Flush]) -> None:
        """Let the node's switch forget tracked connections, see :meth:`Synchronizer.flush`."""
        synchronizer = self._synchronizers.get(node)
        if synchronizer is not None:
            synchronizer.flush(connections)

    def _owner_of(self, node: str, part: Part) -> str:
        """Whose a part is, for people. Any thread may ask."""
        match part:
            case ("node",):
                return f"Node {node}"
            case ("peer", name):
                return f"Node {name}"
            case ("pod", container, interface):
                return self._pods.get((str(container), str(interface)), f"container {container}")
            case ("service", namespace, name):
                return f"Service {namespace}/{name}"
            case ("policy", *_):
                return "policies"
        return str(part)

    def settled(self, node: str, done: Done) -> None:
        """Call ``done`` once all that was said of the node until now is in force, or refused."""
        self.hand_over_policies(node)
        synchronizer = self._synchronizers.get(node)
        if synchronizer is not None:
            synchronizer.submit(_SETTLED, None, done)
        else:
            done(_forgotten(node))

    def synchronizer(self, node: str) -> Synchronizer | None:
        """The synchronizer of a registered node."""
        return self._synchronizers.get(node)

    def status(self, node: str) -> Status:
        """How the node's switch stands; not synchronized while something is still to be handed to its synchronizer."""
        synchronizer = self._synchronizers.get(node)
        if synchronizer is None:
            return Status()
        status = synchronizer.status
        if status.synchronized and self.policies_wait(node):
            return replace(status, synchronized=False)
        return status

    def refusing(self) -> str | None:
        """A node whose switch is this controller's, and has refused the node's own part; None: there is none."""
        return next((node for node, its in self._synchronizers.items() if its.refused), None)

    def tell_status(self, node: str, _refused: str | None) -> None:
        """Let those who follow it look at a node's switch again. In any thread."""
        self._on_status(node)

    def flows_of(self, node: str, cluster: Cluster) -> Callable[[], tuple[Flow, ...]]:
        """Computes every flow that the node's switch must hold, to explain a listing; may run in any
        thread.
        """
        others = self.flows_beside_services(node, cluster)
        services = self.services_on(node)
        return lambda: (*others(), *(entry for entry in services() if isinstance(entry, Flow)))

    def flows_beside_services(self, node: str, cluster: Cluster) -> Callable[[], tuple[Flow, ...]]:
        """The same without the Services' flows."""
        pods = [pod_port(record) for record in cluster.attachments_on(node)]
        peers = [peer.node for name, peer in self._peers.items() if name != node]
        local, cells = self._local[node], self.policies_on(node)
        return lambda: (
            *switch_flows(local, pods, peers),
            *(flow for cell in cells for flow in policy_flows(cell)),
        )

    def stop(self) -> None:
        """End all synchronizers; the switches keep what they hold."""
        for synchronizer in self._synchronizers.values():
            synchronizer.stop()
