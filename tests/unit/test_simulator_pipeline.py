# SPDX-License-Identifier: Apache-2.0
"""Our pipeline, run by the simulator: where packets of a small cluster go, and why forged ones do not."""

from __future__ import annotations

import pytest

from sdn.pipeline.compiler import switch_flows
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.flow import Flow
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, ROUTER_MAC, TUNNEL_PORT
from sdn.pipeline.tables import DELIVERY, SPOOF_GUARD, table_name
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range, RemoteNode
from sdn.simulator.journey import Journey, render
from sdn.simulator.packet import (
    Packet,
    arp,
    icmp,
    icmpv6,
    ipv6,
    nd_advertise,
    nd_solicit,
    packet,
    tcp,
    udp,
)
from sdn.simulator.switch import SimulatedSwitch

WORLD, WORLD_IPV6 = "8.8.8.8", "2001:4860:4860::8888"


def _pod(name: str, node: int, host: int, ofport: int) -> PodPort:
    return PodPort(
        *("default", name, f"container-{name}", "eth0", ofport, 0x0A58 << 32 | 0x0AF40000 | node << 8 | host),
        Address.parse(f"10.244.{node}.{host}").value,
        Address.parse(f"fd00:10:244:{node}::{host}").value,
    )


def _ranges(node: int) -> tuple[Range, ...]:
    return Range.parse(f"10.244.{node}.0/24"), Range.parse(f"fd00:10:244:{node}::/64")


def _addresses(node: int) -> tuple[Address, ...]:
    return Address.parse(f"172.30.0.{10 + node}"), Address.parse(f"fd00:30::{10 + node}")


A, B, C = _pod("a", 1, 5, 16), _pod("b", 1, 6, 17), _pod("c", 2, 7, 16)
PODS = {1: (A, B), 2: (C,)}


def _flows(node: int) -> tuple[Flow, ...]:
    local = LocalNode(f"node-{node}", _ranges(node), _addresses(node), _addresses(node)[0])
    other = 3 - node
    peer = RemoteNode(f"node-{other}", _ranges(other), _addresses(other), _addresses(other)[0])
    return switch_flows(local, PODS[node], [peer])


SWITCHES = {node: SimulatedSwitch(_flows(node)) for node in PODS}
NODE_1 = SWITCHES[1]
FAMILIES = pytest.mark.parametrize("version", [4, 6])


def _address(pod: PodPort, version: int) -> int:
    address = pod.ipv4 if version == 4 else pod.ipv6
    assert address is not None
    return address


def _names(version: int) -> tuple[str, str]:
    return ("ip_src", "ip_dst") if version == 4 else ("ipv6_src", "ipv6_dst")


def _sent(pod: PodPort, eth_dst: int, destination: int | str, version: int, **more: int | str) -> Packet:
    """A TCP segment as the pod sends it."""
    source_name, destination_name = _names(version)
    values: dict[str, int | str] = {
        source_name: _address(pod, version),
        destination_name: destination,
        **more,
    }
    return tcp(in_port=pod.ofport, eth_src=pod.mac, eth_dst=eth_dst, tcp_dst=80, **values)


def _only(journey: Journey, port: int) -> Packet:
    assert journey.ports == (port,), str(journey)
    return journey.outcomes[0].packet


# Between pods.


@FAMILIES
def test_pods_of_one_node_are_neighbours(version: int) -> None:
    sent = _sent(A, B.mac, _address(B, version), version)
    arrived = _only(NODE_1.run(sent), B.ofport)
    assert arrived.arriving(A.ofport) == sent


@FAMILIES
def test_a_pod_of_another_node_is_one_hop_away(version: int) -> None:
    sent = _sent(A, GATEWAY_MAC, _address(C, version), version)
    tunnelled = _only(NODE_1.run(sent), TUNNEL_PORT)
    assert FIELDS["tun_dst"].format(tunnelled["tun_dst"]) == "172.30.0.12"
    assert tunnelled["nw_ttl"] == 63
    arrived = _only(SWITCHES[2].run(tunnelled.arriving(TUNNEL_PORT, tunnel_source="172.30.0.11")), C.ofport)
    assert (arrived["eth_dst"], arrived["eth_src"], arrived["nw_ttl"]) == (C.mac, GATEWAY_MAC, 63)
    source_name, destination_name = _names(version)
    assert (arrived[source_name], arrived[destination_name]) == (_address(A, version), _address(C, version))
    assert arrived["tcp_dst"] == 80


@FAMILIES
def test_a_packet_for_the_gateways_mac_reaches_a_pod_of_the_same_node_too(version: int) -> None:
    arrived = _only(NODE_1.run(_sent(A, GATEWAY_MAC, _address(B, version), version)), B.ofport)
    assert (arrived["eth_dst"], arrived["nw_ttl"]) == (B.mac, 63)


@FAMILIES
def test_a_frame_whose_mac_and_address_are_two_pods_reaches_neither(version: int) -> None:
    assert NODE_1.run(_sent(A, B.mac, _address(C, version), version)).dropped


def test_broadcast_and_multicast_end_at_the_sender() -> None:
    assert NODE_1.run(_sent(A, 0xFFFFFFFFFFFF, "255.255.255.255", 4)).dropped
    assert NODE_1.run(_sent(A, 0x333300000001, "ff02::1", 6)).dropped


# The node and the world.


@FAMILIES
def test_the_world_is_reached_by_way_of_the_node(version: int) -> None:
    world = WORLD if version == 4 else WORLD_IPV6
    arrived = _only(NODE_1.run(_sent(A, GATEWAY_MAC, world, version)), GATEWAY_PORT)
    # The node routes it, and decrements.
    assert (arrived["eth_dst"], arrived["nw_ttl"]) == (GATEWAY_MAC, 64)


@FAMILIES
def test_the_own_node_is_reached_by_its_gateway_port(version: int) -> None:
    node = _addresses(1)[0 if version == 4 else 1].value
    assert _only(NODE_1.run(_sent(A, GATEWAY_MAC, node, version)), GATEWAY_PORT)["nw_ttl"] == 64


@FAMILIES
def test_another_node_is_reached_through_the_tunnel_and_its_gateway_port(version: int) -> None:
    node = _addresses(2)[0 if version == 4 else 1].value
    tunnelled = _only(NODE_1.run(_sent(A, GATEWAY_MAC, node, version)), TUNNEL_PORT)
    arriving = tunnelled.arriving(TUNNEL_PORT, tunnel_source="172.30.0.11")
    arrived = _only(SWITCHES[2].run(arriving), GATEWAY_PORT)
    assert arrived["eth_dst"] == GATEWAY_MAC


@FAMILIES
def test_the_node_reaches_its_own_and_other_pods(version: int) -> None:
    source_name, destination_name = _names(version)
    node = _addresses(1)[0 if version == 4 else 1].value
    own: dict[str, int | str] = {source_name: node, destination_name: _address(B, version)}
    arrived = _only(
        NODE_1.run(tcp(in_port=GATEWAY_PORT, eth_src=GATEWAY_MAC, eth_dst=B.mac, **own)), B.ofport
    )
    assert arrived["nw_ttl"] == 64
    far: dict[str, int | str] = {source_name: node, destination_name: _address(C, version)}
    sent = tcp(in_port=GATEWAY_PORT, eth_src=GATEWAY_MAC, eth_dst=ROUTER_MAC, **far)
    assert _only(NODE_1.run(sent), TUNNEL_PORT)["nw_ttl"] == 63


@FAMILIES
def test_a_hop_limit_that_ends_goes_to_the_node_which_answers(version: int) -> None:
    sent = _sent(A, GATEWAY_MAC, _address(C, version), version, nw_ttl=1)
    assert _only(NODE_1.run(sent), GATEWAY_PORT)["nw_ttl"] == 1


# The tunnel.


def test_a_tunnel_packet_of_a_stranger_is_dropped() -> None:
    sent = tcp(
        in_port=TUNNEL_PORT,
        tun_src="172.30.0.99",
        tun_dst="172.30.0.11",
        ip_src=C.ipv4 or 0,
        ip_dst=A.ipv4 or 0,
    )
    assert NODE_1.run(sent).dropped
    assert NODE_1.run(sent.with_(tun_src="172.30.0.12")).ports == (A.ofport,)


@FAMILIES
def test_what_came_by_the_tunnel_is_delivered_here_or_nowhere(version: int) -> None:
    source_name, destination_name = _names(version)
    for destination in (_address(C, version), WORLD if version == 4 else WORLD_IPV6):
        addresses: dict[str, int | str] = {source_name: _address(C, version), destination_name: destination}
        journey = NODE_1.run(
            tcp(in_port=TUNNEL_PORT, tun_src="172.30.0.12", tun_dst="172.30.0.11", **addresses)
        )
        assert journey.dropped
        assert journey.last.table == DELIVERY.number


# Neighbours.


def _asks(pod: PodPort, target: int | str) -> Packet:
    return arp(in_port=pod.ofport, eth_src=pod.mac, arp_spa=pod.ipv4 or 0, arp_sha=pod.mac, arp_tpa=target)


@pytest.mark.parametrize(("target", "mac"), [("10.244.1.6", B.mac), ("10.244.1.1", GATEWAY_MAC)])
def test_arp_is_answered_by_the_switch(target: str, mac: int) -> None:
    answer = _only(NODE_1.run(_asks(A, target)), A.ofport)
    expected = arp(
        in_port=A.ofport,
        eth_src=mac,
        eth_dst=A.mac,
        arp_op=2,
        arp_spa=target,
        arp_sha=mac,
        arp_tpa=A.ipv4 or 0,
        arp_tha=A.mac,
    )
    assert answer.arriving(A.ofport) == expected


def test_arp_for_the_askers_own_or_an_unknown_address_has_no_answer() -> None:
    for target in ("10.244.1.5", "10.244.1.99", "10.244.2.7", "192.0.2.1"):
        assert NODE_1.run(_asks(A, target)).dropped
    probe = arp(in_port=A.ofport, eth_src=A.mac, arp_spa=0, arp_sha=A.mac, arp_tpa=A.ipv4 or 0)
    assert NODE_1.run(probe).dropped


def _solicits(pod: PodPort, target: str, **more: int | str) -> Packet:
    return nd_solicit(
        **{
            "in_port": pod.ofport,
            "eth_src": pod.mac,
            "ipv6_src": pod.ipv6 or 0,
            "nd_target": target,
            "nd_sll": pod.mac,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("target", "mac", "flags"),
    [("fd00:10:244:1::6", B.mac, 0x60000000), ("fd00:10:244:1::1", GATEWAY_MAC, 0xE0000000)],
)
def test_neighbour_discovery_is_answered_by_the_switch(target: str, mac: int, flags: int) -> None:
    answer = _only(NODE_1.run(_solicits(A, target)), A.ofport)
    expected = nd_advertise(
        in_port=A.ofport,
        eth_src=mac,
        eth_dst=A.mac,
        ipv6_src=target,
        ipv6_dst=A.ipv6 or 0,
        nd_target=target,
        nd_tll=mac,
        nd_reserved=flags,
    )
    seen = [field for field in FIELDS.values() if answer.has(field)]
    answer = answer.arriving(A.ofport)
    assert {str(field): answer[field] for field in seen} == {str(field): expected[field] for field in seen}


def test_neighbour_discovery_has_no_answer_for_the_own_the_unknown_and_the_routed() -> None:
    for target in ("fd00:10:244:1::5", "fd00:10:244:1::99", "fd00:10:244:2::7"):
        assert NODE_1.run(_solicits(A, target)).dropped
    assert NODE_1.run(_solicits(A, "fd00:10:244:1::6", nw_ttl=254)).dropped


def test_the_node_is_told_the_routers_mac_for_pods_of_other_nodes() -> None:
    asks = arp(in_port=GATEWAY_PORT, eth_src=GATEWAY_MAC, arp_sha=GATEWAY_MAC, arp_spa="10.244.1.1")
    for target, mac in (("10.244.2.7", ROUTER_MAC), ("10.244.1.5", A.mac)):
        assert _only(NODE_1.run(asks.with_(arp_tpa=target)), GATEWAY_PORT)["arp_sha"] == mac
    asks = nd_solicit(
        in_port=GATEWAY_PORT, eth_src=GATEWAY_MAC, nd_sll=GATEWAY_MAC, ipv6_src="fd00:10:244:1::1"
    )
    for target, mac in (("fd00:10:244:2::7", ROUTER_MAC), ("fd00:10:244:1::5", A.mac)):
        assert _only(NODE_1.run(asks.with_(nd_target=target)), GATEWAY_PORT)["nd_tll"] == mac


# Forgeries.

STRANGER = 0x020000000001
FORGERIES = {
    "another pod's IPv4 address": _sent(A, GATEWAY_MAC, WORLD, 4, ip_src=B.ipv4 or 0),
    "the gateway's IPv4 address": _sent(A, B.mac, B.ipv4 or 0, 4, ip_src="10.244.1.1"),
    "no IPv4 address": udp(in_port=A.ofport, eth_src=A.mac, ip_src="0.0.0.0", ip_dst="255.255.255.255"),
    "another pod's IPv6 address": _sent(A, GATEWAY_MAC, WORLD_IPV6, 6, ipv6_src=B.ipv6 or 0),
    "a stranger's MAC, IPv4": _sent(A, B.mac, B.ipv4 or 0, 4).with_(eth_src=STRANGER),
    "another pod's MAC, IPv6": _sent(A, B.mac, B.ipv6 or 0, 6).with_(eth_src=B.mac),
    "ARP from another's address": _asks(A, "10.244.1.1").with_(arp_spa=B.ipv4 or 0),
    "ARP with another's MAC inside": _asks(A, "10.244.1.1").with_(arp_sha=B.mac),
    "ARP with another's MAC outside": _asks(A, "10.244.1.1").with_(eth_src=B.mac),
    "ARP that gives another's address to all": _asks(A, B.ipv4 or 0).with_(arp_spa=B.ipv4 or 0),
    "an ARP answer for another": _asks(A, B.ipv4 or 0).with_(arp_op=2, arp_spa="10.244.1.1"),
    "a solicitation from another": _solicits(A, "fd00:10:244:1::1", ipv6_src=B.ipv6 or 0),
    "a solicitation with another's MAC inside": _solicits(A, "fd00:10:244:1::1", nd_sll=B.mac),
    "an advertisement of another's address": nd_advertise(
        in_port=A.ofport,
        eth_src=A.mac,
        eth_dst=B.mac,
        ipv6_src=A.ipv6 or 0,
        ipv6_dst=B.ipv6 or 0,
        nd_target="fd00:10:244:1::1",
        nd_tll=A.mac,
    ),
    "a router advertisement": icmpv6(
        in_port=A.ofport,
        eth_src=A.mac,
        eth_dst=B.mac,
        ipv6_src=A.ipv6 or 0,
        ipv6_dst=B.ipv6 or 0,
        icmpv6_type=134,
    ),
    "a redirect": icmpv6(
        in_port=A.ofport,
        eth_src=A.mac,
        eth_dst=B.mac,
        ipv6_src=A.ipv6 or 0,
        ipv6_dst=B.ipv6 or 0,
        icmpv6_type=137,
    ),
    "a fragment that hides neighbour discovery": icmpv6(
        in_port=A.ofport,
        eth_src=A.mac,
        eth_dst=B.mac,
        ipv6_src=A.ipv6 or 0,
        ipv6_dst=B.ipv6 or 0,
        icmpv6_type=136,
        nw_ttl=255,
        ip_frag=1,
    ),
    "a protocol that is not IP": packet(in_port=A.ofport, eth_src=A.mac, eth_dst=B.mac, eth_type=0x88CC),
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_dropped_by_the_spoof_guard(forged: Packet) -> None:
    journey = NODE_1.run(forged)
    assert journey.dropped
    assert journey.last.table == SPOOF_GUARD.number, str(journey)


def test_what_the_forgeries_are_made_of_passes_when_it_is_true() -> None:
    honest = [
        icmp(in_port=A.ofport, eth_src=A.mac, eth_dst=B.mac, ip_src=A.ipv4 or 0, ip_dst=B.ipv4 or 0),
        ipv6(in_port=A.ofport, eth_src=A.mac, eth_dst=B.mac, ipv6_src=A.ipv6 or 0, ipv6_dst=B.ipv6 or 0),
        _asks(A, "10.244.1.1"),
        _solicits(A, "fd00:10:244:1::1"),
        _solicits(A, "fd00:10:244:1::1", ipv6_src=A.link_local),
    ]
    for one in honest:
        assert not NODE_1.run(one).dropped, str(NODE_1.run(one))


def test_a_journey_names_tables_owners_and_reasons() -> None:
    lines = list(render(NODE_1.run(FORGERIES["another pod's IPv4 address"]), table_name))
    assert lines[1].startswith("table 0 classification: ")
    assert "[Pod/default/a: from the pod's port]" in lines[1]
    assert lines[-1] == "end: dropped in table 1 spoof_guard"
