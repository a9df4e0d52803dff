# SPDX-License-Identifier: Apache-2.0
"""What the simulator says leaves a switch is, byte for byte, what a real one sends: real frames in, captured
frames out.

``ofproto/trace`` tells what a switch means to do; this shows what it does, checksums and the options of
neighbour discovery included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdn.openflow import FlowCommand, flow_image, flow_mod
from sdn.pipeline.compiler import switch_flows
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range
from sdn.simulator.packet import Packet, arp, icmpv6, nd_solicit, udp
from sdn.simulator.switch import SimulatedSwitch
from tests.switch.frames import captured, frame
from tests.switch.ovs import PrivateSwitch, wait_until

NODE = LocalNode(
    "node-1",
    (Range.parse("10.244.1.0/24"), Range.parse("fd00:10:244:1::/64")),
    (Address.parse("172.30.0.11"), Address.parse("fd00:30::11")),
    Address.parse("172.30.0.11"),
)


def _pod(name: str, host: int, ofport: int) -> PodPort:
    four, six = Address.parse(f"10.244.1.{host}"), Address.parse(f"fd00:10:244:1::{host}")
    return PodPort("default", name, name, "eth0", ofport, 0x0A58 << 32 | four.value, four.value, six.value)


A, B = _pod("a", 5, 16), _pod("b", 6, 17)
PORTS = (GATEWAY_PORT, A.ofport, B.ofport)
FLOWS = switch_flows(NODE, [A, B], [])

_FROM_A: dict[str, int | str] = {"in_port": A.ofport, "eth_src": A.mac}
_A_TO_B: dict[str, int | str] = {**_FROM_A, "ip_src": A.ipv4 or 0, "ip_dst": B.ipv4 or 0}
_A_TO_B_IPV6: dict[str, int | str] = {**_FROM_A, "ipv6_src": A.ipv6 or 0, "ipv6_dst": B.ipv6 or 0}
_ASKS: dict[str, int | str] = {**_FROM_A, "arp_spa": A.ipv4 or 0, "arp_sha": A.mac}
_SOLICITS: dict[str, int | str] = {**_FROM_A, "ipv6_src": A.ipv6 or 0, "nd_sll": A.mac}

PACKETS = {
    "ARP for a pod": arp(arp_tpa=B.ipv4 or 0, **_ASKS),
    "ARP for the gateway": arp(arp_tpa="10.244.1.1", **_ASKS),
    "ARP of the node for a pod": arp(
        in_port=GATEWAY_PORT,
        eth_src=GATEWAY_MAC,
        arp_sha=GATEWAY_MAC,
        arp_spa="10.244.1.1",
        arp_tpa=A.ipv4 or 0,
    ),
    "solicitation for a pod": nd_solicit(nd_target=B.ipv6 or 0, **_SOLICITS),
    "solicitation for the gateway": nd_solicit(nd_target="fd00:10:244:1::1", **_SOLICITS),
    "solicitation from a link-local address": nd_solicit(
        nd_target=B.ipv6 or 0, **{**_SOLICITS, "ipv6_src": A.link_local}
    ),
    "bridged UDP": udp(eth_dst=B.mac, udp_src=1000, udp_dst=53, ip_dscp=10, **_A_TO_B),
    "bridged UDP over IPv6": udp(eth_dst=B.mac, udp_src=1000, udp_dst=53, **_A_TO_B_IPV6),
    "routed UDP": udp(eth_dst=GATEWAY_MAC, udp_src=1000, udp_dst=53, **_A_TO_B),
    "routed echo over IPv6": icmpv6(eth_dst=ROUTER_MAC, **_A_TO_B_IPV6),
    "UDP to the world": udp(eth_dst=GATEWAY_MAC, udp_dst=53, **{**_A_TO_B, "ip_dst": "8.8.8.8"}),
    "UDP whose hop limit ends": udp(
        eth_dst=GATEWAY_MAC, nw_ttl=1, udp_dst=53, **{**_A_TO_B, "ip_dst": "8.8.8.8"}
    ),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A real switch with our flows and a capture of every port."""

    switch: PrivateSwitch

    def capture(self, port: int) -> Path:
        return self.switch.folder / f"p{port}.pcap"

    def send(self, packet: Packet) -> None:
        self.switch.appctl("netdev-dummy/receive", f"p{packet['in_port']}", frame(packet).hex())

    def counts(self) -> dict[int, int]:
        return {port: len(captured(self.capture(port))) for port in PORTS}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with PrivateSwitch() as switch:
        made = Node(switch)
        for port in PORTS:
            switch.add_port(f"p{port}", port, tx_pcap=str(made.capture(port)))
        with switch.connect() as connection:
            connection.transact(b"".join(flow_mod(FlowCommand.ADD, *flow_image(flow)) for flow in FLOWS))
        yield made


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
def test_a_real_switch_sends_these_very_bytes(node: Node, packet: Packet) -> None:
    (outcome,) = SimulatedSwitch(FLOWS).run(packet).outcomes
    before = node.counts()
    node.send(packet)
    wait_until(lambda: node.counts() != before, f"a frame after {packet}")
    assert node.counts() == {**before, outcome.port: before[outcome.port] + 1}
    assert captured(node.capture(outcome.port))[-1].hex() == frame(outcome.packet).hex()


def test_a_forgery_leaves_no_port_of_a_real_switch(node: Node) -> None:
    before = node.counts()
    node.send(PACKETS["bridged UDP"].with_(ip_src="10.244.1.99"))
    node.send(PACKETS["ARP for the gateway"].with_(arp_sha=B.mac))
    # A frame that passes, sent after them, shows that they had their time.
    node.send(PACKETS["bridged UDP"])
    wait_until(lambda: node.counts() != before, "the honest frame")
    assert node.counts() == {**before, B.ofport: before[B.ofport] + 1}
