# SPDX-License-Identifier: Apache-2.0
"""The simulated switches of a cluster with policies: what becomes of a connection's packet on its whole way.

Switches are compiled as the controller compiles them: nodes, pods and peers by the compiler, policies by the engine. A
packet enters where it really would, leaves through the tunnel and enters the other node's switch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sdn.model.address import Address, Range
from sdn.pipeline.compiler import policy_flows, switch_flows
from sdn.pipeline.fields import OFPP_CONTROLLER
from sdn.pipeline.flow import Flow
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.tables import DENIAL, PRESENCE
from sdn.pipeline.topology import LocalNode, PodPort, RemoteNode
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import PolicyNode, PolicyPod, Protocol
from sdn.policy.verdict import Connection, PolicyCluster
from sdn.simulator.conntrack import NEW, Tracked
from sdn.simulator.journey import Journey
from sdn.simulator.packet import Packet, icmp, icmpv6, ipv4, ipv6, sctp, tcp, udp
from sdn.simulator.switch import SimulatedSwitch
from tests.property.policy_clusters import node_ranges

CLIENT_PORT: Final = 40_000
_SYN: Final = 0x2


def engine_of(cluster: PolicyCluster) -> PolicyEngine:
    """An engine that was told everything."""
    engine = PolicyEngine()
    for name, labels in cluster.namespaces.items():
        engine.put_namespace(name, labels)
    for node in cluster.nodes:
        engine.put_node(node)
    for name, addresses in cluster.domains.items():
        engine.put_domain(name, addresses)
    for policy in cluster.policies:
        engine.put_policy(policy)
    for pod in cluster.pods:
        engine.put_pod(pod)
    engine.take()
    return engine


def mac_of(pod: PolicyPod) -> int:
    """A MAC of its own."""
    return 0x0A58_8000_0000 | int(pod.node.removeprefix("node-")) << 16 | pod.ofport


def pod_port(pod: PolicyPod) -> PodPort:
    """The pod as the compiler wants to know it."""
    values = {address.version: address.value for address in pod.addresses}
    return PodPort(
        pod.namespace, pod.name, str(pod.key), "eth0", pod.ofport, mac_of(pod), values.get(4), values.get(6)
    )


def _ranges(node: PolicyNode) -> tuple[Range, ...]:
    versions = [address.version for address in node.addresses]
    return node_ranges(int(node.name.removeprefix("node-")), versions)


@dataclass(frozen=True, slots=True)
class Passage:
    """What one node's switch did with a packet."""

    node: str
    journey: Journey

    @property
    def denied(self) -> bool:
        """Policies, or their guard, ended it: it met the table of denials, or never left those of policies."""
        met = [step.table for step in self.journey.steps]
        gone = all(port == OFPP_CONTROLLER for port in self.journey.ports)
        return DENIAL.number in met or (gone and max(met) < PRESENCE.number)


class Network:
    """The switches of a cluster."""

    def __init__(self, cluster: PolicyCluster, engine: PolicyEngine | None = None) -> None:
        self.cluster = cluster
        self.engine = engine or engine_of(cluster)
        self._nodes = {node.name: node for node in cluster.nodes}
        self._switches: dict[str, SimulatedSwitch] = {}

    def local(self, name: str) -> LocalNode:
        """A node as the compiler wants to know it when compiling its own switch."""
        node = self._nodes[name]
        return LocalNode(name, _ranges(node), node.addresses, node.addresses[0])

    def flows(self, name: str) -> tuple[Flow, ...]:
        """Everything that a node's switch holds."""
        pods = [pod_port(pod) for pod in self.cluster.pods if pod.node == name]
        peers = [
            RemoteNode(node.name, _ranges(node), node.addresses, node.addresses[0])
            for node in self.cluster.nodes
            if node.name != name
        ]
        policies = (flow for cell in self.engine.cells(name).values() for flow in policy_flows(cell))
        return (*switch_flows(self.local(name), pods, peers), *policies)

    def switch(self, name: str) -> SimulatedSwitch:
        """A node's switch; made once."""
        if name not in self._switches:
            self._switches[name] = SimulatedSwitch(self.flows(name))
        return self._switches[name]

    # Packets.

    def enters(self, connection: Connection) -> tuple[str, Packet]:
        """Where a connection's first packet enters, and as what."""
        source, destination = connection.source, connection.destination
        if isinstance(source, PolicyPod):
            node = source.node
            neighbour = isinstance(destination, PolicyPod) and destination.node == node
            mac = mac_of(destination) if neighbour and isinstance(destination, PolicyPod) else GATEWAY_MAC
            where = {"in_port": source.ofport, "eth_src": mac_of(source), "eth_dst": mac}
        else:
            assert isinstance(destination, PolicyPod), "one end is a pod"
            node = self._node_of(connection.source_address) or destination.node
            here = destination.node == node
            mac = mac_of(destination) if here else ROUTER_MAC
            where = {"in_port": GATEWAY_PORT, "eth_src": GATEWAY_MAC, "eth_dst": mac}
        return node, first_packet(connection, where)

    def _node_of(self, address: Address) -> str | None:
        return next(
            (node.name for node in self.cluster.nodes if address in (*node.addresses, *node.gateways)), None
        )

    def passages(
        self, connection: Connection, state: int = NEW, mark: int = 0, label: int = 0, **changes: int
    ) -> Iterator[Passage]:
        """The packet's way from switch to switch, as far as it goes. ``state``, ``mark`` and ``label`` are what each
        switch's tracker says of its connection; ``changes`` what is other than in a first packet.
        """
        node, packet = self.enters(connection)
        yield from self._onward(node, packet.with_(**changes), Tracked(state, mark, label))

    def _onward(self, node: str, packet: Packet, tracked: Tracked) -> Iterator[Passage]:
        journey = self.switch(node).run(packet, conntrack=lambda _request: tracked)
        yield Passage(node, journey)
        for outcome in journey.outcomes:
            if outcome.port != TUNNEL_PORT:
                continue
            own = self._nodes[node].addresses[0]
            arriving = outcome.packet.arriving(TUNNEL_PORT, tunnel_source=own.value)
            yield from self._onward(self._behind(outcome.packet), arriving, tracked)

    def _behind(self, sent: Packet) -> str:
        target = Address(6, sent["tun_ipv6_dst"]) if sent["tun_ipv6_dst"] else Address(4, sent["tun_dst"])
        return next(node.name for node in self.cluster.nodes if target in node.addresses)

    def allows(self, connection: Connection, state: int = NEW, mark: int = 0, **changes: int) -> bool:
        """Whether policies let the packet pass on its whole way."""
        return not any(passage.denied for passage in self.passages(connection, state, mark, **changes))


def first_packet(connection: Connection, where: Mapping[str, int]) -> Packet:
    """The first packet of a connection."""
    source, destination = ("ip_src", "ip_dst") if connection.version == 4 else ("ipv6_src", "ipv6_dst")
    addresses = {source: connection.source_address.value, destination: connection.destination_address.value}
    if connection.protocol == Protocol.TCP:
        return tcp(**where, **addresses, tcp_src=CLIENT_PORT, tcp_dst=connection.port, tcp_flags=_SYN)
    if connection.protocol == Protocol.UDP:
        return udp(**where, **addresses, udp_src=CLIENT_PORT, udp_dst=connection.port)
    if connection.protocol == Protocol.SCTP:
        return sctp(**where, **addresses, sctp_src=CLIENT_PORT, sctp_dst=connection.port)
    if connection.protocol in (1, 58):
        return (icmp if connection.version == 4 else icmpv6)(**where, **addresses)
    return (ipv4 if connection.version == 4 else ipv6)(nw_proto=connection.protocol, **where, **addresses)
