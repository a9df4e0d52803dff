# SPDX-License-Identifier: Apache-2.0
"""Routing between nodes: what is for another node's pods or addresses leaves by the tunnel to that node.

Node addresses take the tunnel too, so that a pod and a node see each other's own address in both directions,
no pod address ever shows on the underlay, and reverse path filters on the nodes agree. The first node
decrements the hop limit, the second delivers: a path between nodes is one hop (RFC 1812, section 5.3.1; RFC
8200, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import Action, DecTtl, Goto, Output, SetField, set_field
from sdn.pipeline.fields import ETH_DST, ETH_SRC, ETH_TYPE_IPV4, ETH_TYPE_IPV6
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, TUNNEL_PORT, Priority, Source
from sdn.pipeline.tables import DELIVERY, ROUTING
from sdn.pipeline.topology import LocalNode, RemoteNode


def _encapsulate(peer: RemoteNode) -> tuple[Action, ...]:
    field = "tun_dst" if peer.tunnel_address.version == 4 else "tun_ipv6_dst"
    return (
        DecTtl(),
        SetField(ETH_SRC, ROUTER_MAC),
        SetField(ETH_DST, GATEWAY_MAC),
        set_field(**{field: peer.tunnel_address.value}),
        Output(TUNNEL_PORT),
    )


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """A hop limit that ends here, and pods of this node that are reached by way of the gateway."""
    for eth_type in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        for hops in (0, 1):
            yield ROUTING.flow(
                match(reg0=Source.POD, eth_type=eth_type, nw_ttl=hops),
                (SetField(ETH_DST, GATEWAY_MAC), Output(GATEWAY_PORT)),
                owner=local.owner,
                why="the hop limit ends here: the node answers with an ICMP error",
                priority=Priority.URGENT,
            )
    for pod_range in local.pod_ranges:
        field = "ip_dst" if pod_range.version == 4 else "ipv6_dst"
        yield ROUTING.flow(
            match(**{field: str(pod_range)}),
            (DecTtl(), Goto(DELIVERY.number)),
            owner=local.owner,
            why="to a pod of this node by way of the gateway",
        )
        yield ROUTING.flow(
            match(**{field: pod_range.gateway.value}),
            (Goto(DELIVERY.number),),
            owner=local.owner,
            why="to the gateway itself: no hop",
            priority=Priority.HIGH,
        )


def peer_flows(peer: RemoteNode) -> Iterator[Flow]:
    """Another node's pods and addresses."""
    for pod_range in peer.pod_ranges:
        field = "ip_dst" if pod_range.version == 4 else "ipv6_dst"
        yield ROUTING.flow(
            match(**{field: str(pod_range)}),
            _encapsulate(peer),
            owner=peer.owner,
            why="to a pod of the other node",
        )
    for address in peer.addresses:
        field = "ip_dst" if address.version == 4 else "ipv6_dst"
        yield ROUTING.flow(
            match(**{field: address.value}),
            _encapsulate(peer),
            owner=peer.owner,
            why="to the other node itself",
            priority=Priority.HIGH,
        )
