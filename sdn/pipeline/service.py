# SPDX-License-Identifier: Apache-2.0
"""What the compiler is told of Services: for one switch, each port of each Service as a frozen value.

Everything that Kubernetes says about *which* endpoints a node may use (readiness, topology, traffic policies) is
decided before, in sdn/services; here are the results. One :class:`ServicePort` is one port of one Service in one
address family.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sdn.pipeline.owner import Owner
from sdn.pipeline.topology import Address, Range


class Protocol(enum.IntEnum):
    """Transport protocols of Services; the values are IP protocol numbers (IANA)."""

    TCP = 6
    UDP = 17
    SCTP = 132


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a connection may go. ``pod`` is True for a pod of this network, which answers through its switch; False for
    a node's own address (a hostNetwork pod) and for addresses outside of the cluster.
    """

    address: Address
    port: int
    pod: bool


@dataclass(frozen=True, slots=True)
class Frontend:
    """Where clients send to. ``address`` None stands for every node's address: a NodePort.

    ``external`` frontends (NodePort, LoadBalancer, externalIPs) follow externalTrafficPolicy for clients from outside;
    others (ClusterIP) follow internalTrafficPolicy. ``source_ranges`` limits who may connect, empty: everybody
    (Kubernetes: loadBalancerSourceRanges). They do not overlap each other.
    """

    address: Address | None
    port: int
    external: bool
    source_ranges: tuple[Range, ...] = ()
    restricted: bool = False
    """Only ``source_ranges`` may connect, even when there is none of this family."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service in one family, as one node's switch must serve it.

    ``group_base`` is a number of its own in the cluster, even (see :func:`group_base`). ``endpoints`` serve traffic
    under the policy Cluster, ``local_endpoints`` (those on this node) under Local. With neither, and nothing
    ``elsewhere``, connections are rejected; where only other nodes have endpoints that a policy forbids, they are
    dropped (as kube-proxy does).
    """

    owner: Owner
    group_base: int
    version: int
    protocol: Protocol
    frontends: tuple[Frontend, ...]
    endpoints: tuple[Endpoint, ...]
    local_endpoints: tuple[Endpoint, ...] = ()
    elsewhere: bool = False
    """There are endpoints that this node's policies do not let it use."""
    internal_local: bool = False
    """internalTrafficPolicy is Local."""
    external_local: bool = False
    """externalTrafficPolicy is Local."""
    affinity_seconds: int = 0
    """sessionAffinity ClientIP with this time-out; 0: none."""


#: Ports that a Service can have: bits of a group's number.
MAX_PORTS = 512
#: Services that can be numbered.
MAX_SERVICES = (1 << 21) - 2


def group_base(service_number: int, port_index: int, version: int) -> int:
    """The even number from which a ServicePort's groups are numbered: +0 for the policy Cluster, +1 for Local.

    ``service_number`` (1 to MAX_SERVICES) belongs to the Service for its life, ``port_index`` is the port's place in
    spec.ports. ValueError when out of range.
    """
    if not 1 <= service_number <= MAX_SERVICES:
        raise ValueError(f"service number {service_number} is not within 1 to {MAX_SERVICES}")
    if not 0 <= port_index < MAX_PORTS:
        raise ValueError(f"port index {port_index} is not below {MAX_PORTS}")
    return service_number << 11 | port_index << 2 | (version == 6) << 1
