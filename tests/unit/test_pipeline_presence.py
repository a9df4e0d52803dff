# SPDX-License-Identifier: Apache-2.0
"""What is sent to an address before a pod has it leaves nothing in the connection tracker."""

from __future__ import annotations

import pytest

from sdn.pipeline.compiler import switch_flows
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range, RemoteNode
from sdn.simulator.conntrack import Request, Tracked
from sdn.simulator.packet import Packet, udp
from sdn.simulator.switch import SimulatedSwitch

NODE = LocalNode(
    "node-1",
    (Range.parse("10.244.1.0/24"),),
    (Address.parse("172.30.0.11"),),
    Address.parse("172.30.0.11"),
)
PEER = RemoteNode(
    "node-2",
    (Range.parse("10.244.2.0/24"),),
    (Address.parse("172.30.0.12"),),
    Address.parse("172.30.0.12"),
)
POD_MAC = 0x0A580AF40105
POD = PodPort("default", "web", "c1", "eth0", 16, POD_MAC, Address.parse("10.244.1.5").value, None)
FROM = {
    "another node": {
        "in_port": TUNNEL_PORT,
        "tun_src": "172.30.0.12",
        "eth_src": ROUTER_MAC,
        "eth_dst": GATEWAY_MAC,
        "ip_src": "10.244.2.7",
    },
    "a pod of the node": {
        "in_port": 16,
        "eth_src": POD_MAC,
        "eth_dst": GATEWAY_MAC,
        "ip_src": "10.244.1.5",
    },
    "the node": {
        "in_port": GATEWAY_PORT,
        "eth_src": GATEWAY_MAC,
        "eth_dst": ROUTER_MAC,
        "ip_src": "172.30.0.11",
    },
}


def committed(packet: Packet) -> tuple[bool, bool]:
    """Whether the tracker remembers the packet's connection, and whether the packet leaves."""
    requests: list[Request] = []

    def conntrack(request: Request) -> Tracked:
        requests.append(request)
        return Tracked()

    switch = SimulatedSwitch(switch_flows(NODE, [POD], [PEER]))
    journey = switch.run(packet, conntrack=conntrack)
    return any(request.action.commit for request in requests), not journey.dropped


@pytest.mark.parametrize("source", FROM)
def test_nothing_is_remembered_of_a_packet_to_an_address_without_a_pod(source: str) -> None:
    assert committed(udp(**FROM[source], ip_dst="10.244.1.9", udp_src=1, udp_dst=2)) == (False, False)


@pytest.mark.parametrize("source", ["another node", "the node"])
def test_a_packet_to_a_pod_is_remembered_and_delivered(source: str) -> None:
    assert committed(udp(**FROM[source], ip_dst="10.244.1.5", udp_src=1, udp_dst=2)) == (True, True)


@pytest.mark.parametrize("destination", ["10.244.1.1", "172.30.0.11", "10.244.2.7", "192.0.2.1"])
def test_what_is_no_pods_address_of_this_node_goes_on(destination: str) -> None:
    packet = udp(**FROM["a pod of the node"], ip_dst=destination, udp_src=1, udp_dst=2)
    assert committed(packet) == (True, True)
