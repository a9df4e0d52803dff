# SPDX-License-Identifier: Apache-2.0
"""Which range of pod addresses a node gets: pure arithmetic on the cluster's ranges and those that are taken.

A node keeps what it has for as long as it is registered. A new node gets, in this order: the ranges that its
declaration fixes (``Node`` spec.podCIDRs), those that it offers itself when they are free (a controller that
lost its store meets nodes with pods), the first free one. Nothing is ever given twice, whatever is offered.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence

from sdn.model.names import Network


class ExhaustedError(Exception):
    """No range is left for another node; the text names the cluster's range."""


class RangeError(ValueError):
    """A range cannot be given to the node; the text says which and why."""


class ClusterRanges:
    """The ranges that all pods of the cluster have their addresses from: at most one a family."""

    def __init__(self, ranges: Sequence[str], node_prefix_ipv4: int = 24, node_prefix_ipv6: int = 64) -> None:
        """ValueError, one line, for ranges that make no sense."""
        self._prefix = {4: node_prefix_ipv4, 6: node_prefix_ipv6}
        self._ranges: dict[int, Network] = {}
        for text in ranges:
            network = ipaddress.ip_network(text)
            if network.version in self._ranges:
                raise ValueError(f"{text}: a second IPv{network.version} range; one a family is possible")
            prefix = self._prefix[network.version]
            if not network.prefixlen <= prefix <= network.max_prefixlen - 2:
                raise ValueError(
                    f"{text}: node ranges of /{prefix} must lie inside it and hold at least 4 addresses"
                )
            self._ranges[network.version] = network
        if not self._ranges:
            raise ValueError("at least one range is needed")

    @property
    def texts(self) -> tuple[str, ...]:
        """In CIDR notation, as set."""
        return tuple(str(network) for network in self._ranges.values())

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        network = self._ranges.get(address.version)
        return network is not None and address in network

    def choose(
        self, declared: Sequence[str], offered: Sequence[str], taken: Iterable[str]
    ) -> tuple[str, ...]:
        """One range a family for a new node, in the families' order.

        ``taken`` are the ranges of all other nodes. RangeError for a declared range that cannot be had,
        ExhaustedError when nothing is left. Offered ranges are taken only where they fit.
        """
        used = [_network(text) for text in taken]
        wishes = _by_version(declared)
        for version in wishes:
            if version not in self._ranges:
                raise RangeError(f"{wishes[version]}: the cluster has no IPv{version} range")
        offers = _by_version(offered)
        chosen = []
        for version, cluster in self._ranges.items():
            others = [network for network in used if network.version == version]
            if version in wishes:
                why = self._refusal(wishes[version], cluster, others)
                if why:
                    raise RangeError(f"{wishes[version]}: {why}")
                chosen.append(str(wishes[version]))
            elif version in offers and not self._refusal(offers[version], cluster, others):
                chosen.append(str(offers[version]))
            else:
                chosen.append(str(self._first_free(cluster, others)))
        return tuple(chosen)

    def fits(self, ranges: Sequence[str]) -> bool:
        """Whether a node's ranges are what this cluster gives: one a family, inside its ranges."""
        networks = _by_version(ranges)
        return networks.keys() == self._ranges.keys() and all(
            not self._refusal(network, self._ranges[version], ()) for version, network in networks.items()
        )

    def _refusal(self, network: Network, cluster: Network, others: Iterable[Network]) -> str:
        if not _within(network, cluster):
            return f"not inside the cluster's range {cluster}"
        if network.prefixlen > network.max_prefixlen - 2:
            return "too small for a node"
        for other in others:
            if network.overlaps(other):
                return f"overlaps {other} of another node"
        return ""

    def _first_free(self, cluster: Network, others: Sequence[Network]) -> Network:
        """The lowest free range. Skips whole ranges that are taken, so a /64 of a /48 is found as fast as a
        /24.
        """
        size = 1 << (cluster.max_prefixlen - self._prefix[cluster.version])
        candidate = int(cluster.network_address)
        end = int(cluster.broadcast_address) + 1
        for other in sorted(others, key=lambda network: int(network.network_address)):
            if candidate + size <= int(other.network_address):
                break
            after = int(other.broadcast_address) + 1
            candidate = max(candidate, -(-after // size) * size)
        if candidate + size > end:
            prefix = self._prefix[cluster.version]
            raise ExhaustedError(f"no /{prefix} is left in the cluster's range {cluster} for another node")
        kind = ipaddress.IPv4Network if cluster.version == 4 else ipaddress.IPv6Network
        return kind((candidate, self._prefix[cluster.version]))


@functools.lru_cache(maxsize=1 << 14)
def _network(text: str) -> Network:
    """A range, read once: all nodes' are looked at whenever a node comes."""
    return ipaddress.ip_network(text)


def _by_version(texts: Iterable[str]) -> dict[int, Network]:
    return {network.version: network for network in map(ipaddress.ip_network, texts)}


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)
