# SPDX-License-Identifier: Apache-2.0
"""The gateway port sdn-gw0: between the node's own stack and the pods of the whole cluster.

It has the gateway address of each of the node's ranges, without the range: one route for all pods of the
cluster leads out of it, with the node's own address as the source, so that pods see nodes as they are. Every
pod is "on the link" for the node; the switch answers for them (ARP, ND) and does the rest. Its MTU is a
pod's, so that the node's own packets fit the tunnels too.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Final

from agent import ipam, netlink
from agent.netlink import Netlink, Route
from agent.nodesetup import sysctl
from agent.nodesetup.facts import GATEWAY_INTERFACE, Assignment, NodeFacts
from agent.nodesetup.integration import mac_text
from sdn.pipeline.registers import GATEWAY_MAC

_APPEAR_SECONDS: Final = 30.0
#: The port has no neighbours but the switch: nobody to redirect, no router to listen to, no address to find taken.
_SWITCHED_OFF: Final = (
    "ipv4/conf/{}/send_redirects",
    "ipv4/conf/{}/accept_redirects",
    "ipv6/conf/{}/accept_ra",
    "ipv6/conf/{}/accept_dad",
)


class GatewayError(Exception):
    """ovs-vswitchd did not make the gateway port."""


def furnish(node: Netlink, facts: NodeFacts, assignment: Assignment) -> bool:
    """Addresses and routes of sdn-gw0; whether anything had to be changed."""
    index, up, mtu = _appear(node)
    addresses = [_alone(ipam.gateway(network)) for network in assignment.ranges()]
    routes = [Route(network, None, facts.address(network.version)) for network in assignment.cluster()]
    for key, value in (
        ("ipv4", "send_redirects"),
        ("ipv4", "accept_redirects"),
        ("ipv6", "accept_ra"),
        ("ipv6", "accept_dad"),
    ):
        sysctl.put(f"{key}/conf/{GATEWAY_INTERFACE}/{value}", "0")
    asks = []
    if not up or mtu != facts.mtu:
        asks.append(netlink.link_set(GATEWAY_INTERFACE, up=True, mtu=facts.mtu))
    here = {a for a, scope, _f in node.addresses(index) if scope == netlink.SCOPE_UNIVERSE}
    asks += [netlink.address_add(index, address) for address in addresses if address not in here]
    asks += [netlink.address_delete(index, address) for address in here - set(addresses)]
    present = {
        (route.destination, route.source): route
        for route in node.routes(index)
        if route.protocol == netlink.PROTO_SDN
    }
    wanted = {(route.destination, route.source) for route in routes}
    asks += [netlink.route_delete(index, route) for key, route in present.items() if key not in wanted]
    asks += [
        netlink.route_add(index, route)
        for route in routes
        if (route.destination, route.source) not in present
    ]
    node.run(asks)
    sysctl.forward_packets(facts.interface)
    return bool(asks)


def _alone(address: ipam.Address) -> netlink.Interface:
    return ipaddress.ip_interface(address)


def _appear(node: Netlink) -> tuple[int, bool, int]:
    """(index, whether it is up, MTU) of sdn-gw0, once it is there with its MAC."""
    deadline = time.monotonic() + _APPEAR_SECONDS
    while True:
        link = node.link(GATEWAY_INTERFACE)
        if link is not None and link.get_attr("IFLA_ADDRESS") == mac_text(GATEWAY_MAC):
            return int(link["index"]), bool(link["flags"] & netlink.IFF_UP), int(link.get_attr("IFLA_MTU"))
        if time.monotonic() > deadline:
            raise GatewayError(
                f"ovs-vswitchd did not make {GATEWAY_INTERFACE} within {_APPEAR_SECONDS:.0f} s"
            )
        time.sleep(0.01)
