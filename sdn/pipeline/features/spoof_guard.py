# SPDX-License-Identifier: Apache-2.0
"""Spoof guard: a pod may speak only as itself.

Every packet from a pod's port must carry the pod's MAC and one of its addresses. ARP must not claim
another's address or MAC (sender fields, RFC 826), nor neighbour discovery (source address and link-layer
option, RFC 4861; duplicate address detection with the unspecified source only for the pod's own addresses,
RFC 4862, section 5.4). Router advertisements and redirects are never a pod's to send (RFC 6105). What does
not match is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import Goto
from sdn.pipeline.fields import ICMPV6_NEIGHBOR_SOLICITATION, IP_FRAG_ANY
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import Priority
from sdn.pipeline.tables import ARP_RESPONDER, ND_RESPONDER, SPOOF_GUARD, UNTRANSLATION
from sdn.pipeline.topology import LocalNode, PodPort

#: With which neighbour discovery is sent: a router would have lowered it (RFC 4861, section 3.1).
_HOP_LIMIT = 255
#: Router solicitation, router advertisement, neighbour solicitation, neighbour advertisement, redirect (RFC
#: 4861, section 4).
_NEIGHBOR_DISCOVERY_TYPES = (133, 134, 135, 136, 137)


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """Neighbour discovery passes only where a pod's own flows, above these, let it."""
    for icmpv6_type in _NEIGHBOR_DISCOVERY_TYPES:
        yield SPOOF_GUARD.flow(
            match(icmpv6_type=icmpv6_type),
            (),
            owner=local.owner,
            why="neighbour discovery that a pod may not send",
            priority=Priority.HIGH,
        )
    # In a fragment Open vSwitch reads every ICMPv6 type as 0, so it could hide any of these. Neighbour discovery
    # is never fragmented (RFC 6980), and nothing but it needs the hop limit 255.
    yield SPOOF_GUARD.flow(
        match(icmpv6_type=0, ip_frag=f"{IP_FRAG_ANY}/{IP_FRAG_ANY}", nw_ttl=_HOP_LIMIT),
        (),
        owner=local.owner,
        why="a fragment that could hide neighbour discovery",
        priority=Priority.HIGH,
    )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """What the pod may send."""
    if pod.ipv4 is not None:
        yield from _ipv4(pod, pod.ipv4)
    if pod.ipv6 is not None:
        yield from _ipv6(pod, pod.ipv6)


def _ipv4(pod: PodPort, address: int) -> Iterator[Flow]:
    yield SPOOF_GUARD.flow(
        match(in_port=pod.ofport, eth_src=pod.mac, ip_src=address),
        (Goto(UNTRANSLATION.number),),
        owner=pod.owner,
        why="sent from the pod's own MAC and IPv4 address",
    )
    # A probe for a duplicate has the sender address 0.0.0.0 (RFC 5227, section 2.1.1).
    for sender in (address, 0):
        yield SPOOF_GUARD.flow(
            match(in_port=pod.ofport, eth_src=pod.mac, arp_spa=sender, arp_sha=pod.mac),
            (Goto(ARP_RESPONDER.number),),
            owner=pod.owner,
            why="ARP that claims only the pod's own address",
        )


def _ipv6(pod: PodPort, address: int) -> Iterator[Flow]:
    yield SPOOF_GUARD.flow(
        match(in_port=pod.ofport, eth_src=pod.mac, ipv6_src=address),
        (Goto(UNTRANSLATION.number),),
        owner=pod.owner,
        why="sent from the pod's own MAC and IPv6 address",
    )
    for source in (address, pod.link_local):
        # Open vSwitch reads an absent option as zero.
        for option in (pod.mac, 0):
            yield SPOOF_GUARD.flow(
                match(
                    in_port=pod.ofport,
                    eth_src=pod.mac,
                    ipv6_src=source,
                    icmpv6_type=ICMPV6_NEIGHBOR_SOLICITATION,
                    nd_sll=option,
                ),
                (Goto(ND_RESPONDER.number),),
                owner=pod.owner,
                why="solicitation that claims only the pod's own MAC",
                priority=Priority.URGENT,
            )
