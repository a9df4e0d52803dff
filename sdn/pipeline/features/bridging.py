# SPDX-License-Identifier: Apache-2.0
"""Bridging: pods of one node, and the node with its pods, share a link.

A frame reaches a pod's port only when both its MAC and its destination address are the pod's. The packet is
not changed: to the pods they are neighbours. Frames to the gateway's or the router's MAC are routed. There is
no broadcast and no multicast between pods: what would need them (ARP, neighbour discovery) is answered by the
switch.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import Goto, Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import GATEWAY_MAC, ROUTER_MAC
from sdn.pipeline.tables import BRIDGING, ROUTING
from sdn.pipeline.topology import LocalNode, PodPort


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
