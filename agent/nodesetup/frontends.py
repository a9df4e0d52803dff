# SPDX-License-Identifier: Apache-2.0
"""What Services need of the node's own stack, as one value: the sum over all Services, derived in `agent.services`.

The switch serves Services. The node's stack only has to hand it what comes to the node itself (NodePorts, external
addresses that are the node's own), what is sent to addresses that nobody else routes to it, and to answer on its link
for the addresses that this node announces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.ipam import Address


class NodePort(NamedTuple):
    """A port of every address of the node. `version`: 4 or 6; `protocol`: "tcp", "udp" or "sctp"."""

    version: int
    protocol: str
    port: int


class OwnAddress(NamedTuple):
    """A port of one address of the node that is an externalIP too."""

    address: Address
    protocol: str
    port: int


@dataclass(frozen=True)
class Health:
    """A Service of which a load balancer asks whether this node has endpoints."""

    namespace: str
    name: str
    local_endpoints: int


@dataclass(frozen=True)
class Frontends:
    """
    node_ports     lead into the switch from every address of the node
    own_addresses  likewise, from one address
    routed         addresses that lead into the switch, and are in none of the ranges that do anyway
    announced      addresses that this node answers for on its link
    health         by healthCheckNodePort
    """

    node_ports: frozenset[NodePort] = frozenset()
    own_addresses: frozenset[OwnAddress] = frozenset()
    routed: frozenset[Address] = frozenset()
    announced: frozenset[Address] = frozenset()
    health: Mapping[int, Health] = field(default_factory=dict)
