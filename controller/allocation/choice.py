# SPDX-License-Identifier: Apache-2.0
"""What a Service gets: its spec made complete against what the cluster has and what others hold.

Nothing is changed here: a choice is made again when it was refused, or only asked for. InvalidObjectError names
the field that asks for what cannot be had, ExhaustedError the range that has nothing left.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from controller.allocation.index import Index, Place
from controller.allocation.network import ServiceNetwork
from controller.allocation.pool import Holder
from controller.ranges import ExhaustedError
from sdn.model import InvalidObjectError
from sdn.model.names import IPAddress
from sdn.model.service import FAMILIES, LOAD_BALANCER, ServiceSpec

#: spec.loadBalancerClass of Services that get an address from the pool, beside those without any.
LOAD_BALANCER_CLASS = "sdn/pool"


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses for one Service. ``nodes`` are the nodes' own addresses."""

    network: ServiceNetwork
    index: Index
    holder: Holder
    nodes: Collection[IPAddress]

    # ClusterIPs.

    def cluster_ips(self, spec: ServiceSpec) -> ServiceSpec:
        """The spec with an address of each of its families. Those asked for are checked, unless it has them."""
        if spec.headless or not spec.ip_families:
            return spec
        chosen = list(spec.addresses)
        for index, text in enumerate(chosen):
            self._check_cluster_ip(f"spec.clusterIPs[{index}]" if index else "spec.clusterIP", text)
        for family in spec.ip_families[len(chosen) :]:
            chosen.append(self._cluster_ip(spec, FAMILIES[family]))
        return replace(spec, cluster_ip=chosen[0], cluster_ips=tuple(chosen))

    def _check_cluster_ip(self, path: str, text: str) -> None:
        address = ipaddress.ip_address(text)
        if self.index.cluster_ips.holder(address) == self.holder:
            return  # Whatever the ranges are by now: what it has it keeps.
        if address not in self.index.cluster_ips:
            ranges = ", ".join(map(str, self.network.service_ranges))
            raise InvalidObjectError(path, f"{text} is not within service_ranges ({ranges})")
        self.check(Place("cluster-ip", path, address))

    def _cluster_ip(self, spec: ServiceSpec, version: int) -> str:
        def refused(address: IPAddress) -> bool:
            return str(address) in self.network.dns_addresses or self._is_external(address, spec)

        address = self.index.cluster_ips.choose(version, refused)
        if address is None:
            ranges = [str(network) for network in self.network.service_ranges if network.version == version]
            raise ExhaustedError(
                f"Service {self.holder[0]}/{self.holder[1]}: spec.clusterIPs: no address is left in "
                f"service_ranges ({', '.join(ranges)})"
            )
        return str(address)

    # Node ports.

    def node_ports(self, spec: ServiceSpec) -> ServiceSpec:
        """The spec with every node port that it shall have, the one for health checks included."""
        for index, port in enumerate(spec.ports):
            if port.node_port:
                self._check_node_port(f"spec.ports[{index}].nodePort", port.protocol, port.node_port)
        if spec.health_check_node_port:
            self._check_node_port("spec.healthCheckNodePort", "TCP", spec.health_check_node_port)
            for index, port in enumerate(spec.ports):
                if (port.protocol, port.node_port) == ("TCP", spec.health_check_node_port):
                    raise InvalidObjectError(
                        "spec.healthCheckNodePort",
                        f"{port.node_port}/TCP is spec.ports[{index}].nodePort, too",
                    )
        taken = {("TCP", spec.health_check_node_port)}
        taken.update((port.protocol, port.node_port) for port in spec.ports)
        if spec.uses_node_ports:
            spec = self._with_node_ports(spec, taken)
        if spec.needs_health_check_node_port and not spec.health_check_node_port:
            port_number = self._node_port(("TCP",), taken, "spec.healthCheckNodePort")
            spec = replace(spec, health_check_node_port=port_number)
        return spec

    def _with_node_ports(self, spec: ServiceSpec, taken: set[tuple[str, int]]) -> ServiceSpec:
        """Ports of one number (53/UDP and 53/TCP) get one node port, too, where that is possible."""
        by_number = {port.port: port.node_port for port in spec.ports if port.node_port}
        done = []
        for index, port in enumerate(spec.ports):
            if not port.node_port:
                path = f"spec.ports[{index}].nodePort"
                same = by_number.get(port.port, 0)
                if not same or not self._free(port.protocol, same, taken):
                    protocols = [other.protocol for other in spec.ports if other.port == port.port]
                    same = self._node_port(protocols, taken, path)
                by_number[port.port] = same
                taken.add((port.protocol, same))
                port = replace(port, node_port=same)
            done.append(port)
        return replace(spec, ports=tuple(done))

    def _free(self, protocol: str, port: int, taken: set[tuple[str, int]]) -> bool:
        place = Place("node-port", "", None, protocol, port)
        return (protocol, port) not in taken and self.index.other(place, self.holder, self.nodes) is None

    def _check_node_port(self, path: str, protocol: str, port: int) -> None:
        if self.index.node_ports.holder(protocol, port) == self.holder:
            return
        if port not in self.network.node_ports:
            raise InvalidObjectError(path, f"{port} is not within {self.index.node_ports}")
        self.check(Place("node-port", path, None, protocol, port))

    def _node_port(self, protocols: Collection[str], taken: set[tuple[str, int]], path: str) -> int:
        def refused(port: int) -> bool:
            return any(not self._free(protocol, port, taken) for protocol in protocols)

        port = self.index.node_ports.choose(tuple(protocols), refused)
        if port is None:
            raise ExhaustedError(
                f"Service {self.holder[0]}/{self.holder[1]}: {path}: no port is left in {self.index.node_ports}"
            )
        return port

    # LoadBalancer addresses.

    def load_balancer(self, spec: ServiceSpec, had: Iterable[str]) -> tuple[tuple[str, ...], str]:
        """The addresses from the pool, one a family where there is one, and why there is none at all ("": there
        is one, or none is wanted). ``had`` are kept where they still fit.
        """
        if not wants_load_balancer(spec):
            return (), ""
        versions = [FAMILIES[family] for family in spec.ip_families]
        by_version: dict[int, str] = {ipaddress.ip_address(text).version: text for text in had}
        if spec.load_balancer_ip:
            asked = ipaddress.ip_address(spec.load_balancer_ip)
            self._check_load_balancer_ip(asked, spec, by_version.get(asked.version))
            by_version[asked.version] = str(asked)
        chosen = []
        for version in versions:
            if version not in by_version and (address := self._load_balancer_ip(spec, version)):
                by_version[version] = address
            if version in by_version:
                chosen.append(by_version[version])
        return tuple(chosen), "" if chosen else self._why_none(versions)

    def _check_load_balancer_ip(self, address: IPAddress, spec: ServiceSpec, had: str | None) -> None:
        path = "spec.loadBalancerIP"
        if f"IPv{address.version}" not in spec.ip_families:
            raise InvalidObjectError(
                path, f"{address} is an IPv{address.version} address, but the Service's ipFamilies are only "
                f"{', '.join(spec.ip_families)}"
            )  # fmt: skip
        if str(address) == had:
            return
        if address not in self.index.load_balancer:
            ranges = ", ".join(map(str, self.network.load_balancer_ranges)) or "none is set"
            raise InvalidObjectError(path, f"{address} is not within load_balancer_ranges ({ranges})")
        if address in self.nodes:
            raise InvalidObjectError(path, f"{address} is an address of a Node")
        self.check(Place("load-balancer", path, address))

    def _load_balancer_ip(self, spec: ServiceSpec, version: int) -> str | None:
        address = self.index.load_balancer.choose(
            version, lambda address: address in self.nodes or self._is_external(address, spec)
        )
        return str(address) if address is not None else None

    def _is_external(self, address: IPAddress, spec: ServiceSpec) -> bool:
        """Whether an address is, or is to be, among anybody's externalIPs."""
        own = map(ipaddress.ip_address, spec.external_ips)
        return address in own or self.index.is_external(address, self.holder)

    def _why_none(self, versions: Collection[int]) -> str:
        pool = self.index.load_balancer
        if not pool.networks:
            return "no address can be given: load_balancer_ranges are not set"
        ranges = ", ".join(map(str, pool.networks))
        if not any(pool.serves(version) for version in versions):
            return f"no address can be given: load_balancer_ranges ({ranges}) are of another family"
        return f"no address is left in load_balancer_ranges ({ranges})"

    # All of it.

    def check(self, place: Place) -> None:
        """InvalidObjectError when another Service holds the place, or is reached there."""
        other = self.index.other(place, self.holder, self.nodes)
        if other is not None:
            raise InvalidObjectError(place.path, f"{place} belongs to Service {other[0]}/{other[1]}")


def wants_load_balancer(spec: ServiceSpec) -> bool:
    """Whether a Service's addresses shall come from the pool."""
    return spec.type == LOAD_BALANCER and spec.load_balancer_class in ("", LOAD_BALANCER_CLASS)
