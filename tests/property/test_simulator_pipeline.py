# SPDX-License-Identifier: Apache-2.0
"""What holds of our pipeline for every packet of every cluster: nothing forged leaves, nothing reaches the
wrong place.
"""

from __future__ import annotations

from hypothesis import given, settings

from sdn.pipeline.fields import OFPP_CONTROLLER
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, HAIRPIN_ADDRESS, ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.topology import Address, PodPort, RemoteNode
from sdn.simulator.journey import Outcome
from sdn.simulator.packet import Packet
from sdn.simulator.switch import SimulatedSwitch
from tests.property.simulator_clusters import ClusterCase, cluster_cases

#: Source and destination of a frame that goes back to the node.
_BACK = ROUTER_MAC, GATEWAY_MAC


def _source(packet: Packet) -> Address | None:
    return _address(packet, "src", "arp_spa")


def _destination(packet: Packet) -> Address | None:
    return _address(packet, "dst", "arp_tpa")


def _address(packet: Packet, end: str, in_arp: str) -> Address | None:
    """The packet's source or destination, in ARP the sender's or the target's."""
    if packet["eth_type"] == 0x0800:
        return Address(4, packet[f"ip_{end}"])
    if packet["eth_type"] == 0x86DD:
        return Address(6, packet[f"ipv6_{end}"])
    return Address(4, packet[in_arp]) if packet["eth_type"] == 0x0806 else None


def _is_answer(packet: Packet) -> bool:
    return packet["arp_op"] == 2 or packet["icmpv6_type"] == 136


@settings(max_examples=200)
@given(case=cluster_cases())
def test_every_packet_that_leaves_a_switch_may(case: ClusterCase) -> None:
    switch = SimulatedSwitch(case.flows)
    pods = {pod.ofport: pod for pod in case.pods}
    for packet in case.packets:
        for outcome in switch.run(packet).outcomes:
            _check_sender(packet, outcome, pods, case.peers)
            _check_receiver(packet, outcome, pods, case)


def _check_sender(
    packet: Packet, outcome: Outcome, pods: dict[int, PodPort], peers: tuple[RemoteNode, ...]
) -> None:
    """Who sent it is who it says, and is known at all."""
    port = packet["in_port"]
    if port in pods:
        pod = pods[port]
        assert packet["eth_src"] == pod.mac
        # What is answered by the switch itself may be a question without a source (a probe for a duplicate).
        answered = outcome.port == port and _is_answer(outcome.packet)
        assert answered or _source(packet) in pod.addresses
    elif port == TUNNEL_PORT:
        tunnels = [peer.tunnel_address for peer in peers]
        six = packet["tun_ipv6_src"]
        assert (Address(6, six) if six else Address(4, packet["tun_src"])) in tunnels
    else:
        assert port == GATEWAY_PORT


def _check_receiver(packet: Packet, outcome: Outcome, pods: dict[int, PodPort], case: ClusterCase) -> None:
    """It goes where its destination is, and no further."""
    sent, destination = outcome.packet, _destination(outcome.packet)
    forwarded = _is_answer(packet) or not _is_answer(sent)
    if outcome.port == GATEWAY_PORT == packet["in_port"] and forwarded:
        assert (sent["eth_src"], sent["eth_dst"]) == _BACK
        # Back to the node: what another sent to its address, or it sent itself under the address that endpoints see.
        borrowed = [Address(version, value) for version, value in HAIRPIN_ADDRESS.items()]
        assert destination in case.local.addresses or _source(sent) in borrowed
    elif outcome.port == packet["in_port"] and outcome.port in pods and forwarded:
        # A pod that sends to itself by way of the gateway.
        assert sent["eth_dst"] == pods[outcome.port].mac
        assert destination in pods[outcome.port].addresses
        assert _source(sent) in pods[outcome.port].addresses
    elif outcome.port == packet["in_port"]:
        # An answer, to the MAC that asked.
        assert _is_answer(sent)
        assert sent["eth_dst"] == packet["eth_src"]
    elif outcome.port in pods:
        pod = pods[outcome.port]
        assert sent["eth_dst"] == pod.mac
        assert destination in pod.addresses
        bridged = packet["eth_dst"] not in (GATEWAY_MAC, ROUTER_MAC) or packet["in_port"] == TUNNEL_PORT
        if bridged and packet["in_port"] != TUNNEL_PORT and packet["eth_dst"] != pod.mac:
            # A neighbour remembers who had the address before; the MAC of an IPv4 address is always the same.
            assert destination is not None
            assert destination.version == 6
        assert sent["nw_ttl"] == packet["nw_ttl"] - (0 if bridged else 1)
    elif outcome.port == TUNNEL_PORT:
        # Never from tunnel to tunnel: that is a loop.
        assert packet["in_port"] != TUNNEL_PORT
        assert sent["nw_ttl"] == packet["nw_ttl"] - 1
        (peer,) = [peer for peer in case.peers if _goes_to(peer, sent)]
        assert destination is not None
        assert destination in peer.addresses or any(destination in known for known in peer.pod_ranges)
    elif outcome.port == GATEWAY_PORT:
        assert sent["eth_dst"] == GATEWAY_MAC
        # Routed already where it was for a pod of this node that does not exist: the node says so.
        nobody = destination is not None and any(destination in known for known in case.local.pod_ranges)
        assert sent["nw_ttl"] == packet["nw_ttl"] or (nobody and sent["nw_ttl"] == packet["nw_ttl"] - 1)
    else:
        # A hop limit that ends in what the node itself sends.
        assert (outcome.port, outcome.reason) == (OFPP_CONTROLLER, "invalid_ttl")
        assert packet["in_port"] == GATEWAY_PORT


def _goes_to(peer: RemoteNode, sent: Packet) -> bool:
    four, six = sent["tun_dst"], sent["tun_ipv6_dst"]
    return peer.tunnel_address == (Address(4, four) if four else Address(6, six))
