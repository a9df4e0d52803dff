# SPDX-License-Identifier: Apache-2.0
"""What the cluster has for Services, as values: ranges of addresses, node ports, names.

Each function here makes one of them from the text of its setting; ValueError says in one line what is wrong.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sdn.model.names import Network

#: A ClusterIP's range may have this many host bits, as in Kubernetes (--service-cluster-ip-range).
MAX_HOST_BITS = 20
#: Lowest first node port: the ports below, from 1024 on, are for translated clients, and each node needs
#: thousands of them.
LOWEST_NODE_PORT = 9216
#: Place of the cluster's DNS in each range of ClusterIPs, by the custom of Kubernetes' installers.
DNS_PLACE = 10


@dataclass(frozen=True, slots=True)
class ServiceNetwork:
    """The cluster's side of Services. The first of ``service_ranges`` says which family is the primary one."""

    service_ranges: tuple[Network, ...] = (
        ipaddress.ip_network("10.96.0.0/16"),
        ipaddress.ip_network("fd00:10:96::/112"),
    )
    load_balancer_ranges: tuple[Network, ...] = ()
    node_ports: range = range(30000, 32768)
    cluster_domain: str = "cluster.local"
    serve_dns: bool = True
    """The agents serve DNS at ``dns_addresses``; else these belong to a DNS server that runs in pods."""
    dns_addresses: tuple[str, ...] = field(default=("10.96.0.10", "fd00:10:96::a"))

    @property
    def families(self) -> tuple[str, ...]:
        """As a Service's ipFamilies names them, the primary one first."""
        return tuple(f"IPv{network.version}" for network in self.service_ranges)


def service_ranges(texts: Sequence[str], cluster_ranges: Sequence[str]) -> tuple[Network, ...]:
    """Ranges of ClusterIPs, at most one a family; those of families that pods do not have are left out."""
    networks = [ipaddress.ip_network(text) for text in texts]
    pods = [ipaddress.ip_network(text) for text in cluster_ranges]
    seen: set[int] = set()
    for network in networks:
        if network.version in seen:
            raise ValueError(f"{network}: a second IPv{network.version} range; one a family is possible")
        seen.add(network.version)
        bits = network.max_prefixlen - network.prefixlen
        if not 2 <= bits <= MAX_HOST_BITS:
            raise ValueError(
                f"{network}: must be /{network.max_prefixlen - MAX_HOST_BITS} to /{network.max_prefixlen - 2}"
            )
        _check_apart(network, pods, "cluster_ranges")
    usable = tuple(network for network in networks if any(network.version == pod.version for pod in pods))
    if not usable:
        raise ValueError("none is of a family that cluster_ranges has")
    return usable


def load_balancer_ranges(
    texts: Sequence[str], cluster_ranges: Sequence[str], services: Sequence[Network]
) -> tuple[Network, ...]:
    """Ranges of LoadBalancer addresses; every address of them is usable."""
    networks: list[Network] = []
    for text in texts:
        network = ipaddress.ip_network(text)
        _check_apart(network, [ipaddress.ip_network(pods) for pods in cluster_ranges], "cluster_ranges")
        _check_apart(network, services, "service_ranges")
        for other in networks:
            if network.overlaps(other):
                raise ValueError(f"{network} overlaps {other}")
        networks.append(network)
    return tuple(networks)


def node_ports(text: str) -> range:
    """ "30000-32767" as a range."""
    low, dash, high = text.partition("-")
    if not dash or not low.isdecimal() or not high.isdecimal():
        raise ValueError(f"{text!r} is no range of ports such as 30000-32767")
    if not LOWEST_NODE_PORT <= int(low) <= int(high) <= 65535:
        raise ValueError(f"{text}: must lie within {LOWEST_NODE_PORT}-65535, the lower port first")
    return range(int(low), int(high) + 1)


def dns_addresses(texts: Sequence[str], services: Sequence[Network]) -> tuple[str, ...]:
    """Addresses of the cluster's DNS, at most one a family; without any the tenth of each range."""
    if not texts:
        return tuple(str(network[DNS_PLACE]) for network in services if network.num_addresses > DNS_PLACE + 1)
    addresses = [ipaddress.ip_address(text) for text in texts]
    if len({address.version for address in addresses}) != len(addresses):
        raise ValueError("one address a family is possible")
    for address in addresses:
        if not any(within(address, network) for network in services):
            ranges = ", ".join(map(str, services))
            raise ValueError(f"{address} is not inside service_ranges ({ranges})")
    return tuple(map(str, addresses))


def within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Network) -> bool:
    """Whether an address may be given from a range of ClusterIPs: not its first, nor an IPv4 range's last (its
    broadcast address).
    """
    if address.version != network.version or address not in network or address == network.network_address:
        return False
    return address.version == 6 or address != network.broadcast_address


def _check_apart(network: Network, others: Iterable[Network], setting: str) -> None:
    for other in others:
        if network.version == other.version and network.overlaps(other):
            raise ValueError(f"{network} overlaps {other} of {setting}")
