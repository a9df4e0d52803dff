# SPDX-License-Identifier: Apache-2.0
"""What a node is: found on it, told by its settings, and told by the controller. Values only."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agent.ipam import Address, Network

PHYSICAL_BRIDGE: Final = "br-phy"
GATEWAY_INTERFACE: Final = "sdn-gw0"
TUNNEL_INTERFACE: Final = "sdn-tun0"


@dataclass(frozen=True)
class NodeFacts:
    """The node as its own agent knows it.

    interface   that holds the node's addresses now: the uplink, or br-phy
    mac         of that interface
    mtu         of a pod
    """

    name: str
    uid: str
    addresses: tuple[Address, ...]
    tunnel_address: Address
    mac: str
    interface: str
    uplink: str
    encapsulation: str
    datapath: str
    mtu: int
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def datapath_id(self) -> int:
        """OpenFlow's number for br-int, derived from the uid so that it never changes and is nobody else's."""
        return int.from_bytes(hashlib.sha256(self.uid.encode()).digest()[:8], "big")

    def address(self, version: int) -> Address | None:
        """The node's own address of a family."""
        return next((address for address in self.addresses if address.version == version), None)


class Peer(msgspec.Struct, frozen=True):
    """Another node, as far as this one's set-up depends on it."""

    name: str
    addresses: list[str]
    tunnel_address: str
    tunnel_mac: str


class Assignment(msgspec.Struct, frozen=True):
    """What the controller told last; kept on disk, so that an agent without a controller can set its node up."""

    pod_ranges: list[str]
    cluster_ranges: list[str]
    openflow_targets: list[str]
    peers: list[Peer] = []
    # Since Services are served. What was written to disk before has none of them.
    service_ranges: list[str] = []
    load_balancer_ranges: list[str] = []
    node_port_first: int = 0
    node_port_last: int = 0
    cluster_domain: str = ""
    dns_addresses: list[str] = []
    serve_dns: bool = False

    def ranges(self) -> list[Network]:
        """This node's ranges of pod addresses, IPv4 first."""
        return sorted(
            (ipaddress.ip_network(text) for text in self.pod_ranges), key=lambda network: network.version
        )

    def cluster(self) -> list[Network]:
        """The ranges of all pods of the cluster."""
        return [ipaddress.ip_network(text) for text in self.cluster_ranges]

    def switched(self) -> list[Network]:
        """The ranges of addresses that only the switch knows: ClusterIPs and LoadBalancer addresses."""
        return [ipaddress.ip_network(text) for text in self.service_ranges + self.load_balancer_ranges]

    def own(self) -> Assignment:
        """What concerns this node itself, which its pods wait for: not the other nodes, nor who controls the switch."""
        return msgspec.structs.replace(self, peers=[], openflow_targets=[])

    def peer_addresses(self) -> list[Address]:
        """The addresses of all other nodes."""
        return [ipaddress.ip_address(text) for peer in self.peers for text in peer.addresses]
