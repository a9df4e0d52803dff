# SPDX-License-Identifier: Apache-2.0
"""Who holds what: addresses, node ports, and each address and port where a Service is reached.

All of it is found without looking at other Services, however many there are.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from controller.allocation.network import ServiceNetwork
from controller.allocation.pool import AddressPool, Holder, PortPool
from sdn.model.names import IPAddress
from sdn.model.service import ServiceSpec

Protocol = str


@dataclass(frozen=True, slots=True)
class Place:
    """Something that one Service may hold, and the field that says it holds it.

    ``cluster-ip`` and ``load-balancer`` are whole addresses, ``node-port`` a port of all nodes, ``front`` an
    address with a port, ``external`` such a one out of spec.externalIPs.
    """

    kind: Literal["cluster-ip", "load-balancer", "node-port", "front", "external"]
    path: str
    address: IPAddress | None = None
    protocol: Protocol = ""
    port: int = 0

    @property
    def identity(self) -> tuple[object, ...]:
        """What it is, wherever it is said."""
        return self.kind, self.address, self.protocol, self.port

    def __str__(self) -> str:
        if self.address is None:
            return f"{self.port}/{self.protocol}"
        if not self.port:
            return str(self.address)
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}/{self.protocol}"


def places(spec: ServiceSpec, load_balancer: Iterable[str]) -> Iterator[Place]:
    """All that a complete Service holds."""
    fronts: list[tuple[Literal["front", "external"], str, IPAddress]] = []
    for index, text in enumerate(spec.addresses):
        path = f"spec.clusterIPs[{index}]" if index else "spec.clusterIP"
        yield Place("cluster-ip", path, ipaddress.ip_address(text))
        fronts.append(("front", path, ipaddress.ip_address(text)))
    for text in load_balancer:
        yield Place("load-balancer", "spec.loadBalancerIP", ipaddress.ip_address(text))
        fronts.append(("front", "spec.loadBalancerIP", ipaddress.ip_address(text)))
    for index, text in enumerate(spec.external_ips):
        fronts.append(("external", f"spec.externalIPs[{index}]", ipaddress.ip_address(text)))
    for index, port in enumerate(spec.ports):
        if port.node_port:
            yield Place("node-port", f"spec.ports[{index}].nodePort", None, port.protocol, port.node_port)
        for kind, path, address in fronts:
            yield Place(kind, path, address, port.protocol, port.port)
    if spec.health_check_node_port:
        yield Place("node-port", "spec.healthCheckNodePort", None, "TCP", spec.health_check_node_port)


class Index:
    """See the module."""

    def __init__(self, network: ServiceNetwork) -> None:
        self.cluster_ips = AddressPool(network.service_ranges, cluster_ips=True)
        self.load_balancer = AddressPool(network.load_balancer_ranges, cluster_ips=False)
        self.node_ports = PortPool(network.node_ports)
        self._fronts: dict[tuple[str, IPAddress, Protocol, int], Holder] = {}
        #: Addresses of externalIPs: at how many ports who has them.
        self._external: dict[IPAddress, Counter[Holder]] = defaultdict(Counter)
        #: Who has an external address with this port.
        self._external_ports: dict[tuple[Protocol, int], dict[IPAddress, Holder]] = defaultdict(dict)

    def other(self, place: Place, holder: Holder, nodes: Collection[IPAddress]) -> Holder | None:
        """The other Service that holds a place, or is reached there; None: nobody. ``nodes`` are the nodes' own
        addresses.
        """
        found: Holder | None = None
        match place.kind:
            case "cluster-ip" if place.address is not None:
                found = self.cluster_ips.holder(place.address)
            case "load-balancer" if place.address is not None:
                found = self.load_balancer.holder(place.address)
            case "node-port":
                found = self.node_ports.holder(place.protocol, place.port)
                if found in (None, holder):
                    found = self.node_port_in_use(place.protocol, place.port, holder, nodes)
            case _ if place.address is not None:
                for kind in ("front", "external"):
                    if found in (None, holder):
                        found = self._fronts.get((kind, place.address, place.protocol, place.port))
                if found in (None, holder) and place.kind == "external" and place.address in nodes:
                    found = self.node_ports.holder(place.protocol, place.port)
        return None if found == holder else found

    def node_port_in_use(
        self, protocol: Protocol, port: int, holder: Holder, nodes: Collection[IPAddress]
    ) -> Holder | None:
        """The other Service that has a node's address as external address, with this port."""
        at_port = self._external_ports.get((protocol, port), {})
        return next((other for node in nodes if (other := at_port.get(node, holder)) != holder), None)

    def out_of_range(self, place: Place) -> str:
        """The reason of an event when a place is not where it may be by now; empty: it is."""
        if place.address is not None:
            if place.kind == "cluster-ip" and place.address not in self.cluster_ips:
                return "ClusterIPOutOfRange"
            if place.kind == "load-balancer" and place.address not in self.load_balancer:
                return "LoadBalancerIPOutOfRange"
        if place.kind == "node-port" and place.port not in self.node_ports.ports:
            return "PortOutOfRange"
        return ""

    def is_external(self, address: IPAddress, holder: Holder) -> bool:
        """Whether an address is among the externalIPs of another one than this."""
        return any(other != holder for other in self._external.get(address, ()))

    def take(self, place: Place, holder: Holder) -> None:
        match place.kind:
            case "cluster-ip" if place.address is not None:
                self.cluster_ips.take(place.address, holder)
            case "load-balancer" if place.address is not None:
                self.load_balancer.take(place.address, holder)
            case "node-port":
                self.node_ports.take(place.protocol, place.port, holder)
            case _ if place.address is not None:
                self._fronts[place.kind, place.address, place.protocol, place.port] = holder
                if place.kind == "external":
                    self._external[place.address][holder] += 1
                    self._external_ports[place.protocol, place.port][place.address] = holder

    def give_back(self, place: Place, holder: Holder) -> None:
        """What another holds is left alone."""
        match place.kind:
            case "cluster-ip" if place.address is not None:
                self.cluster_ips.give_back(place.address, holder)
            case "load-balancer" if place.address is not None:
                self.load_balancer.give_back(place.address, holder)
            case "node-port":
                self.node_ports.give_back(place.protocol, place.port, holder)
            case _ if place.address is not None:
                key = place.kind, place.address, place.protocol, place.port
                if place.kind == "external":
                    self._leave(place.address, holder)
                if self._fronts.get(key) == holder:
                    del self._fronts[key]
                    if place.kind == "external":
                        self._leave_port(place, place.address)

    def _leave(self, address: IPAddress, holder: Holder) -> None:
        """Of one port less; its own, whoever has taken that meanwhile."""
        ports = self._external[address]
        ports[holder] -= 1
        if not ports[holder]:
            del ports[holder]
        if not ports:
            del self._external[address]

    def _leave_port(self, place: Place, address: IPAddress) -> None:
        at_port = self._external_ports[place.protocol, place.port]
        at_port.pop(address, None)
        if not at_port:
            del self._external_ports[place.protocol, place.port]
