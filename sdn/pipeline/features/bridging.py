# SPDX-License-Identifier: Apache-2.0
"""Bridging: pods of one node, and the node with its pods, share a link.

A frame reaches a pod's port untouched when its MAC and its destination address are the pod's: to the pods they are
neighbours. A neighbour may still remember the MAC of the pod that had the IPv6 address before, for half a minute or
more (RFC 4861, 7.3.3): the MAC is put right (that of an IPv4 address never changes, agent/ipam.py). Frames to the
gateway's or the router's MAC are routed. There is no broadcast and no multicast between pods: what would need them
(ARP, neighbour discovery) is answered by the switch.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import Goto, Output, SetField
from sdn.pipeline.fields import ETH_DST
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import GATEWAY_MAC, ROUTER_MAC, Priority
from sdn.pipeline.tables import BRIDGING, ROUTING
from sdn.pipeline.topology import LocalNode, PodPort

_UNICAST = "00:00:00:00:00:00/01:00:00:00:00:00"


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """Frames to be routed."""
    for mac, whose in ((GATEWAY_MAC, "the gateway"), (ROUTER_MAC, "the router")):
        yield BRIDGING.flow(
            match(eth_dst=mac),
            (Goto(ROUTING.number),),
            owner=local.owner,
            why=f"sent to {whose}: to be routed",
        )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """Frames to the pod."""
    for address in pod.addresses:
        field = "ip_dst" if address.version == 4 else "ipv6_dst"
        yield BRIDGING.flow(
            match(eth_dst=pod.mac, **{field: address.value}),
            (Output(pod.ofport),),
            owner=pod.owner,
            why="to a pod on the same node",
        )
    if pod.ipv6 is not None:
        yield BRIDGING.flow(
            match(eth_dst=_UNICAST, ipv6_dst=pod.ipv6),
            (SetField(ETH_DST, pod.mac), Output(pod.ofport)),
            owner=pod.owner,
            why="to a pod on the same node, by the MAC of who had its address before",
            priority=Priority.LOW,
        )
