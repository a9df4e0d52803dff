# SPDX-License-Identifier: Apache-2.0
"""From Services to what the node's own stack must do for them: pure functions.

A Service contributes nothing when only the switch is needed for it, which is so for every plain ClusterIP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

from agent.ipam import Address, Network
from agent.nodesetup.frontends import Frontends, Health, NodePort, OwnAddress
from agent.services.table import Service

T = TypeVar("T")


@dataclass(frozen=True)
class Surroundings:
    """What of the node decides what a Service needs of it.

    addresses   the node's own
    switched    what is routed to the switch anyway
    """

    addresses: tuple[Address, ...] = ()
    switched: tuple[Network, ...] = ()


def contribution(service: Service, node: Surroundings) -> Frontends:
    """What one Service needs of the node's stack."""
    if service.type == "ExternalName" or service.headless:
        return Frontends()
    versions = {address.version for address in service.cluster_ips}
    own = set(node.addresses)
    from_outside = (*service.external_ips, *service.load_balancer_ips)
    health = {}
    if service.health_check_node_port:
        told = Health(service.namespace, service.name, service.local_endpoints)
        health[service.health_check_node_port] = told
    return Frontends(
        node_ports=frozenset(
            NodePort(version, port.protocol.lower(), port.node_port)
            for port in service.ports
            for version in versions
            if port.node_port
        ),
        own_addresses=frozenset(
            OwnAddress(address, port.protocol.lower(), port.port)
            for address in from_outside
            for port in service.ports
            if address in own
        ),
        routed=frozenset(
            address
            for address in from_outside
            if address not in own and not any(address in network for network in node.switched)
        ),
        announced=frozenset(service.load_balancer_ips) - own if service.announce else frozenset(),
        health=health,
    )


def total(contributions: Collection[Frontends]) -> Frontends:
    """What all of them need together."""
    return Frontends(
        node_ports=_union(one.node_ports for one in contributions),
        own_addresses=_union(one.own_addresses for one in contributions),
        routed=_union(one.routed for one in contributions),
        announced=_union(one.announced for one in contributions),
        health={port: told for one in contributions for port, told in one.health.items()},
    )


def _union(sets: Iterable[frozenset[T]]) -> frozenset[T]:
    return frozenset[T]().union(*sets)
