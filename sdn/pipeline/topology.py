# SPDX-License-Identifier: Apache-2.0
"""What the compiler is told: the node, its pods and the other nodes, as frozen values.

Addresses are integers and ranges :class:`Range`, as everywhere in the pipeline. Whoever builds these values
(the controller's engine) has validated them; the compiler only computes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sdn.model.address import Address, Range
from sdn.pipeline.owner import Owner

__all__ = ["Address", "Encapsulation", "LocalNode", "PodPort", "Range", "RemoteNode"]


class Encapsulation(enum.StrEnum):
    """How packets travel between nodes; the names are Open vSwitch's port types."""

    GENEVE = "geneve"
    VXLAN = "vxlan"
    GRE = "gre"


@dataclass(frozen=True, slots=True)
class LocalNode:
    """The node whose switch is compiled."""

    name: str
    pod_ranges: tuple[Range, ...]
    addresses: tuple[Address, ...]
    tunnel_address: Address
    encapsulation: Encapsulation = Encapsulation.GENEVE
    service_ranges: tuple[Range, ...] = ()
    """Where ClusterIPs are from."""
    load_balancer_ranges: tuple[Range, ...] = ()
    first_node_port: int = 30000
    userspace: bool = False
    """Its datapath is Open vSwitch's own (``netdev``), not the kernel's."""

    def own_address(self, version: int) -> Address | None:
        """The node's address of a family; where it has none, its gateway's in the pods' range; None: no such family."""
        gateways = (pod_range.gateway for pod_range in self.pod_ranges)
        return next((one for one in (*self.addresses, *gateways) if one.version == version), None)

    @property
    def owner(self) -> Owner:
        return Owner("Node", "", self.name)


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """Another node of the cluster."""

    name: str
    pod_ranges: tuple[Range, ...]
    addresses: tuple[Address, ...]
    tunnel_address: Address

    @property
    def owner(self) -> Owner:
        return Owner("Node", "", self.name)


@dataclass(frozen=True, slots=True)
class PodPort:
    """A pod's interface, plugged into the node's switch at ``ofport``."""

    namespace: str
    name: str
    container_id: str
    interface_name: str
    ofport: int
    mac: int
    ipv4: int | None
    ipv6: int | None

    @property
    def owner(self) -> Owner:
        return Owner("Pod", self.namespace, self.name)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(
            Address(version, value)
            for version, value in ((4, self.ipv4), (6, self.ipv6))
            if value is not None
        )

    @property
    def link_local(self) -> int:
        """The IPv6 link-local address that the interface makes from its MAC (RFC 4291, appendix A: modified
        EUI-64).
        """
        high, low = self.mac >> 24, self.mac & 0xFFFFFF
        return 0xFE80 << 112 | (high ^ 0x020000) << 40 | 0xFFFE << 24 | low
