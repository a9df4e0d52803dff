# SPDX-License-Identifier: Apache-2.0
"""Random packets for a random cluster: what its pods and nodes send, honest, forged, and everything between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from sdn.pipeline.compiler import switch_flows
from sdn.pipeline.flow import Flow
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.topology import LocalNode, PodPort, RemoteNode
from sdn.simulator.packet import Packet, arp, icmp, icmpv6, nd_advertise, nd_solicit, sctp, tcp, udp
from tests.property.test_pipeline import clusters

#: Ports that pods of a random cluster have, and one that no pod has.
POD_PORTS = tuple(range(16, 22))
EMPTY_PORT = 40
_WORLD = {4: 0x08080808, 6: 0x2001_4860_4860 << 80 | 0x8888}
_BROADCAST = 0xFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class ClusterCase:
    """A compiled switch and packets for it."""

    local: LocalNode
    pods: tuple[PodPort, ...]
    peers: tuple[RemoteNode, ...]
    # Not shown: they follow from the rest, and a failure would show nothing else.
    flows: tuple[Flow, ...] = field(repr=False)
    packets: tuple[Packet, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """Every MAC and address that means something to somebody."""

    macs: tuple[int, ...]
    addresses: dict[int, tuple[int, ...]]


def _known(local: LocalNode, pods: Sequence[PodPort], peers: Sequence[RemoteNode]) -> _Known:
    addresses: dict[int, list[int]] = {4: [0, _WORLD[4]], 6: [0, _WORLD[6], 0xFE80 << 112 | 1]}
    nodes: tuple[LocalNode | RemoteNode, ...] = (local, *peers)
    for node in nodes:
        for pod_range in node.pod_ranges:
            # The gateway's address, a pod's that may exist, and the range's last.
            bits = 32 if pod_range.version == 4 else 128
            last = pod_range.network | (1 << bits - pod_range.prefix_length) - 1
            addresses[pod_range.version] += [pod_range.gateway.value, pod_range.network + 77, last]
        for address in node.addresses:
            addresses[address.version].append(address.value)
    for pod in pods:
        for address in pod.addresses:
            addresses[address.version].append(address.value)
        addresses[6].append(pod.link_local)
    macs = (GATEWAY_MAC, ROUTER_MAC, _BROADCAST, 0x020000000001, *(pod.mac for pod in pods))
    return _Known(macs, {version: tuple(values) for version, values in addresses.items()})


@st.composite
def _cluster_packets(
    draw: st.DrawFn, known: _Known, pods: Sequence[PodPort], peers: Sequence[RemoteNode]
) -> Packet:
    sender = draw(st.sampled_from([*pods, *pods, *pods, None]))
    version = 4 if draw(st.booleans()) else 6
    addresses = known.addresses[version]
    macs = st.sampled_from(known.macs)
    values: dict[str, int | str] = {}
    source: int | None = None
    mac = draw(macs)
    if sender is not None:
        values["in_port"] = sender.ofport
        source = sender.ipv4 if version == 4 else sender.ipv6
        mac = sender.mac
    else:
        values["in_port"] = draw(st.sampled_from([GATEWAY_PORT, GATEWAY_PORT, TUNNEL_PORT, EMPTY_PORT]))
    if values["in_port"] == TUNNEL_PORT:
        tunnels = [peer.tunnel_address for peer in peers]
        four = [address.value for address in tunnels if address.version == 4]
        six = [address.value for address in tunnels if address.version == 6]
        # From a node of the cluster, or from a stranger.
        by_six = draw(st.booleans())
        if six and by_six:
            values |= {"tun_ipv6_src": draw(st.sampled_from(six)), "tun_ipv6_dst": "fd00:30::fe"}
        else:
            values |= {"tun_src": draw(st.sampled_from([*four, 0x0A0A0A0A])), "tun_dst": "172.30.0.254"}
    # One thing in four is not the sender's own.
    if source is None or draw(st.integers(0, 3)) == 0:
        source = draw(st.sampled_from(addresses))
    if draw(st.integers(0, 7)) == 0:
        mac = draw(macs)
    values["eth_src"] = mac
    target = draw(st.sampled_from(addresses))
    kind = draw(st.sampled_from(["ip", "ip", "ip", "neighbour", "neighbour", "answer"]))
    if kind != "ip":
        claimed = mac if draw(st.integers(0, 3)) else draw(macs)
        return _neighbour(kind, version, values, source, target, claimed)
    values["eth_dst"] = draw(macs)
    values["nw_ttl"] = draw(st.sampled_from([64, 64, 2, 1, 0, 255]))
    values["ip_frag"] = draw(st.sampled_from([0, 0, 0, 1, 3]))
    names = ("ip_src", "ip_dst") if version == 4 else ("ipv6_src", "ipv6_dst")
    values |= dict(zip(names, (source, target), strict=True))
    if version == 6 and draw(st.integers(0, 5)) == 0:
        # What only a router may say.
        return icmpv6(icmpv6_type=draw(st.sampled_from([133, 134, 137])), **values)
    return draw(st.sampled_from([tcp, udp, sctp, icmp if version == 4 else icmpv6]))(**values)


def _neighbour(
    kind: str, version: int, values: dict[str, int | str], source: int, target: int, claimed: int
) -> Packet:
    """ARP or neighbour discovery: a question or an answer, the MAC in it as claimed."""
    if version == 4:
        operation = 1 if kind == "neighbour" else 2
        return arp(arp_op=operation, arp_spa=source, arp_tpa=target, arp_sha=claimed, **values)
    if kind == "neighbour":
        return nd_solicit(ipv6_src=source, nd_target=target, nd_sll=claimed, **values)
    return nd_advertise(
        ipv6_src=source, ipv6_dst=target, nd_target=source, nd_tll=claimed, eth_dst=GATEWAY_MAC, **values
    )


@st.composite
def cluster_cases(draw: st.DrawFn, packets_each: int = 12) -> ClusterCase:
    """A node's switch, compiled, and packets for it."""
    local, pods, peers = draw(clusters())
    known = _known(local, pods, peers)
    packets = tuple(draw(_cluster_packets(known, pods, peers)) for _ in range(packets_each))
    return ClusterCase(local, tuple(pods), tuple(peers), switch_flows(local, pods, peers), packets)
