# SPDX-License-Identifier: Apache-2.0
"""What policies are about: pods, nodes, directions, tiers; and what names a policy."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from sdn.model.address import Address


class Direction(enum.IntEnum):
    """Which end of a connection a rule is for: the pod that it goes to, or the one that it comes from."""

    INGRESS = 0
    EGRESS = 1


class Tier(enum.IntEnum):
    """In the order in which they are asked (Network Policy API, v1alpha2)."""

    ADMIN = 0
    NETWORK_POLICY = 1
    BASELINE = 2


#: Tiers as people name them.
TIER_NAMES: Final[Mapping[Tier, str]] = {
    Tier.ADMIN: "Admin",
    Tier.NETWORK_POLICY: "NetworkPolicy",
    Tier.BASELINE: "Baseline",
}


class Action(enum.IntEnum):
    """What a rule says. PASS: the next tier decides."""

    DENY = 0
    ACCEPT = 1
    PASS = 2


class Protocol(enum.IntEnum):
    """Protocols that have ports; the values are IP protocol numbers (IANA)."""

    TCP = 6
    UDP = 17
    SCTP = 132


#: IP protocol numbers that are tracked without ports.
ICMP, ICMPV6 = 1, 58
#: Protocols as people name them, by IP protocol number.
PROTOCOL_NAMES: Final[Mapping[int, str]] = {
    **{int(protocol): protocol.name for protocol in Protocol},
    ICMP: "ICMP",
    ICMPV6: "ICMPv6",
}


@dataclass(frozen=True, slots=True, order=True)
class PolicyRef:
    """A policy's kind, namespace (empty: cluster-scoped) and name; also another object's, where one owns a flow."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A container's port that has a name."""

    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class PolicyPod:
    """One attachment of a pod, as policies see it. Pods on their node's network are none: they count as the node.

    ``key`` is its own in the cluster. While a sandbox is replaced a pod has two attachments, each with its own
    addresses and port of the switch (``ofport``).
    """

    key: Hashable
    namespace: str
    name: str
    node: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...]
    ofport: int
    named_ports: tuple[NamedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyNode:
    """A node. ``gateways`` are its gateway port's addresses in the pods' ranges: the node's own, too, but no peer
    of a rule selects a node by them.
    """

    name: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...]
    gateways: tuple[Address, ...] = ()
