# SPDX-License-Identifier: Apache-2.0
"""Classification: the first table decides where a packet came from, and remembers it in reg0.

What comes from nowhere known is dropped: a port without a pod, or a tunnel packet whose outer source is no
node of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import Goto, SetField
from sdn.pipeline.fields import ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ICMPV6_NEIGHBOR_SOLICITATION
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import (
    GATEWAY_PORT,
    SERVICE_REGISTER,
    SOURCE_REGISTER,
    TUNNEL_PORT,
    Mark,
    Priority,
    Source,
)
from sdn.pipeline.tables import ARP_RESPONDER, CLASSIFICATION, ND_RESPONDER, SPOOF_GUARD, UNTRANSLATION
from sdn.pipeline.topology import LocalNode, PodPort, RemoteNode


def _from(source: Source) -> SetField:
    return SetField(SOURCE_REGISTER, source)


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """What the node itself sends by its gateway port: trusted, so past the spoof guard."""
    yield CLASSIFICATION.flow(
        match(in_port=GATEWAY_PORT, eth_type=ETH_TYPE_ARP),
        (_from(Source.GATEWAY), Goto(ARP_RESPONDER.number)),
        owner=local.owner,
        why="the node asks for a pod's MAC",
    )
    yield CLASSIFICATION.flow(
        match(in_port=GATEWAY_PORT, icmpv6_type=ICMPV6_NEIGHBOR_SOLICITATION),
        (_from(Source.GATEWAY), Goto(ND_RESPONDER.number)),
        owner=local.owner,
        why="the node asks for a pod's MAC",
        priority=Priority.HIGH,
    )
    for address in (*local.addresses, *(pod_range.gateway for pod_range in local.pod_ranges)):
        field = "ip_src" if address.version == 4 else "ipv6_src"
        yield CLASSIFICATION.flow(
            match(in_port=GATEWAY_PORT, **{field: address.value}),
            (
                _from(Source.GATEWAY),
                SetField(SERVICE_REGISTER, Mark.VIA_GATEWAY | Mark.OWN_NODE),
                Goto(UNTRANSLATION.number),
            ),
            owner=local.owner,
            why="from the node itself",
        )
    for eth_type in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        yield CLASSIFICATION.flow(
            match(in_port=GATEWAY_PORT, eth_type=eth_type),
            (
                _from(Source.OUTSIDE),
                SetField(SERVICE_REGISTER, Mark.VIA_GATEWAY | Mark.MASQUERADE),
                Goto(UNTRANSLATION.number),
            ),
            owner=local.owner,
            why="from elsewhere, routed by the node",
            priority=Priority.NORMAL_WIDE,
        )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """What a pod sends must pass the spoof guard."""
    yield CLASSIFICATION.flow(
        match(in_port=pod.ofport),
        (_from(Source.POD), Goto(SPOOF_GUARD.number)),
        owner=pod.owner,
        why="from the pod's port",
    )


def peer_flows(peer: RemoteNode) -> Iterator[Flow]:
    """What another node sends by the tunnel is for this node: it is delivered, never sent on to a third."""
    field = "tun_src" if peer.tunnel_address.version == 4 else "tun_ipv6_src"
    yield CLASSIFICATION.flow(
        match(in_port=TUNNEL_PORT, **{field: peer.tunnel_address.value}),
        (_from(Source.TUNNEL), Goto(UNTRANSLATION.number)),
        owner=peer.owner,
        why="from the other node's tunnel address",
    )
