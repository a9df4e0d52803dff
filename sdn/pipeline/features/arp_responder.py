# SPDX-License-Identifier: Apache-2.0
"""ARP responder: the switch answers who has an address (RFC 826), so that no request is ever flooded.

Three kinds of answers: a pod of this node has its own MAC, the gateway has the gateway's MAC, and to the
node a pod of another node has the router's MAC, for the switch routes there.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import IN_PORT, Action, Move, SetField, move
from sdn.pipeline.fields import ARP_OP, ARP_SHA, ARP_SPA, ARP_TPA, ETH_SRC
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import (
    GATEWAY_MAC,
    NEXT_HOP_ADDRESS,
    ROUTER_MAC,
    SCRATCH_REGISTER,
    Priority,
    Source,
)
from sdn.pipeline.tables import ARP_RESPONDER
from sdn.pipeline.topology import LocalNode, PodPort, RemoteNode

_REQUEST = 1
_REPLY = 2


def reply(mac: int) -> tuple[Action, ...]:
    """Turn a request into the answer that ``mac`` has the address asked for, and send it back."""
    return (
        move("eth_src", "eth_dst"),
        SetField(ETH_SRC, mac),
        SetField(ARP_OP, _REPLY),
        move("arp_sha", "arp_tha"),
        SetField(ARP_SHA, mac),
        Move(ARP_TPA, 0, SCRATCH_REGISTER, 0, ARP_TPA.bits),
        move("arp_spa", "arp_tpa"),
        Move(SCRATCH_REGISTER, 0, ARP_SPA, 0, ARP_SPA.bits),
        IN_PORT,
    )


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """The gateway's address, to pods; the switch's own, to the node."""
    yield ARP_RESPONDER.flow(
        match(reg0=Source.GATEWAY, arp_op=_REQUEST, arp_tpa=NEXT_HOP_ADDRESS[4]),
        reply(ROUTER_MAC),
        owner=local.owner,
        why="the node asks for the switch",
    )
    for pod_range in local.pod_ranges:
        if pod_range.version == 4:
            yield ARP_RESPONDER.flow(
                match(reg0=Source.POD, arp_op=_REQUEST, arp_tpa=pod_range.gateway.value),
                reply(GATEWAY_MAC),
                owner=local.owner,
                why="a pod asks for its gateway",
            )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """The pod's own address, to all but itself: an answer to its own probe would tell of a duplicate (RFC
    5227).
    """
    if pod.ipv4 is None:
        return
    yield ARP_RESPONDER.flow(
        match(arp_op=_REQUEST, arp_tpa=pod.ipv4),
        reply(pod.mac),
        owner=pod.owner,
        why="asked for the pod's MAC",
    )
    yield ARP_RESPONDER.flow(
        match(in_port=pod.ofport, arp_op=_REQUEST, arp_tpa=pod.ipv4),
        (),
        owner=pod.owner,
        why="the pod announces itself, or looks for a duplicate",
        priority=Priority.HIGH,
    )


def peer_flows(peer: RemoteNode) -> Iterator[Flow]:
    """Pods of another node, to this node, for which the whole cluster range is on the gateway port's link."""
    for pod_range in peer.pod_ranges:
        if pod_range.version == 4:
            yield ARP_RESPONDER.flow(
                match(reg0=Source.GATEWAY, arp_op=_REQUEST, arp_tpa=str(pod_range)),
                reply(ROUTER_MAC),
                owner=peer.owner,
                why="the node asks for a pod of another node",
            )
