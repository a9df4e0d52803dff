# SPDX-License-Identifier: Apache-2.0
"""Delivery: the last table hands a packet to a pod of this node, or to the node.

From a pod, whatever no other node has goes to the node, whose routing table decides: its own addresses, the
world outside (masqueraded there), or an ICMP error. From the tunnel and from the node itself only what is for
this node is delivered: sending the rest back would make a loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import Action, Output, SetField
from sdn.pipeline.fields import ETH_DST, ETH_SRC
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, Priority, Source
from sdn.pipeline.tables import DELIVERY
from sdn.pipeline.topology import LocalNode, PodPort

_TO_NODE: tuple[Action, ...] = (SetField(ETH_DST, GATEWAY_MAC), Output(GATEWAY_PORT))


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """The node's own addresses, and what leaves the cluster."""
    for address in (*local.addresses, *(pod_range.gateway for pod_range in local.pod_ranges)):
        field = "ip_dst" if address.version == 4 else "ipv6_dst"
        yield DELIVERY.flow(
            match(reg0=Source.TUNNEL, **{field: address.value}),
            _TO_NODE,
            owner=local.owner,
            why="to this node itself, from another node's pod",
        )
    yield DELIVERY.flow(
        match(reg0=Source.POD),
        _TO_NODE,
        owner=local.owner,
        why="to this node itself or out of the cluster: the node routes it",
        priority=Priority.LOW,
    )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """Routed packets to the pod."""
    for address in pod.addresses:
        field = "ip_dst" if address.version == 4 else "ipv6_dst"
        yield DELIVERY.flow(
            match(**{field: address.value}),
            (SetField(ETH_SRC, GATEWAY_MAC), SetField(ETH_DST, pod.mac), Output(pod.ofport)),
            owner=pod.owner,
            why="routed to the pod",
        )
