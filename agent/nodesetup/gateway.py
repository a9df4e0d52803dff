# SPDX-License-Identifier: Apache-2.0
"""The gateway port sdn-gw0: between the node's own stack and the pods of the whole cluster.

It has the gateway address of each of the node's ranges, without the range: one route for all pods of the
cluster leads out of it, with the node's own address as the source, so that pods see nodes as they are. Every
pod is "on the link" for the node; the switch answers for them (ARP, ND) and does the rest. Its MTU is a
pod's, so that the node's own packets fit the tunnels too.

Addresses of Services lead out of it too, by a next hop that is the switch itself, and with them two addresses that
exist only between the node's stack and its switch (`sdn.pipeline.registers`).
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Collection, Iterable
from typing import Final

from agent import ipam, netlink
from agent.netlink import Netlink, Route
from agent.nodesetup import returning, sysctl
from agent.nodesetup.facts import GATEWAY_INTERFACE, Assignment, NodeFacts
from agent.nodesetup.integration import Mended, mac_text
from sdn.pipeline.registers import GATEWAY_MAC, HAIRPIN_ADDRESS, NODE_PORT_ADDRESS

_APPEAR_SECONDS: Final = 30.0
#: The port has no neighbours but the switch: nobody to redirect, no router to listen to, no address to find taken.
#: What comes by it may come from anywhere (rp_filter 2: RFC 3704's loose mode): clients of Services keep their address.
_SETTINGS: Final = (
    ("ipv4/conf/{}/send_redirects", "0"),
    ("ipv4/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/rp_filter", "2"),
    ("ipv6/conf/{}/accept_ra", "0"),
    ("ipv6/conf/{}/accept_dad", "0"),
)


class GatewayError(Exception):
    """ovs-vswitchd did not make the gateway port."""


def furnish(
    node: Netlink,
    facts: NodeFacts,
    assignment: Assignment,
    mended: Mended,
    routed: Iterable[ipam.Address] = (),
) -> int:
    """Addresses and routes of sdn-gw0; the index of its interface.

    mended  is told whether it was down, or had another MTU
    routed  addresses of Services, outside of the ranges that are routed to the switch anyway
    """
    index, up, mtu = _appear(node)
    addresses = [_alone(ipam.gateway(network)) for network in assignment.ranges()]
    for key, value in _SETTINGS:
        sysctl.put(key.format(GATEWAY_INTERFACE), value)
    asks = []
    if not up or mtu != facts.mtu:
        asks.append(netlink.link_set(GATEWAY_INTERFACE, up=True, mtu=facts.mtu))
        wrong = [*([] if up else ["down"]), *([] if mtu == facts.mtu else [f"mtu {mtu}, not {facts.mtu}"])]
        mended.differed(f"interface {GATEWAY_INTERFACE}", wrong)
    here = {a for a, scope, _f in node.addresses(index) if scope == netlink.SCOPE_UNIVERSE}
    asks += [netlink.address_add(index, address) for address in addresses if address not in here]
    asks += [netlink.address_delete(index, address) for address in here - set(addresses)]
    wanted = {_key(route): route for route in routes(facts, assignment, routed)}
    present = {
        _key(route): route
        for table in (netlink.TABLE_MAIN, returning.TABLE)
        for route in node.routes(index, table)
        if route.protocol == netlink.PROTO_SDN
    }
    asks += [netlink.route_delete(index, route) for key, route in present.items() if key not in wanted]
    asks += [netlink.route_add(index, route) for key, route in wanted.items() if key not in present]
    node.run(asks)
    returning.furnish(node, [address.version for address in facts.addresses])
    sysctl.forward_packets(facts.interface)
    return index


def routes(facts: NodeFacts, assignment: Assignment, routed: Iterable[ipam.Address]) -> list[Route]:
    """All routes out of sdn-gw0: pods are on the link; addresses of Services are behind the switch, a router."""
    found = [Route(network, None, facts.address(network.version)) for network in assignment.cluster()]
    served = [*assignment.switched(), *(ipaddress.ip_network(address) for address in routed)]
    for own in facts.addresses:
        version = own.version
        fixed = [_fixed(NODE_PORT_ADDRESS[version], version), _fixed(HAIRPIN_ADDRESS[version], version)]
        for network in (*served, *fixed):
            if network.version == version:
                found.append(_behind_switch(network, own))
    return found + returning.routes([address.version for address in facts.addresses])


def serve(
    node: Netlink, facts: NodeFacts, before: Collection[ipam.Address], after: Collection[ipam.Address]
) -> None:
    """Change `routed` from what is in force to what is wanted. NetlinkError; `furnish` repairs what is left then."""
    link = node.link(GATEWAY_INTERFACE)
    if link is None:
        raise GatewayError(f"{GATEWAY_INTERFACE} is not there")
    index = int(link["index"])
    asks = []
    for address in set(before) ^ set(after):
        own = facts.address(address.version)
        if own is not None:
            route = _behind_switch(ipaddress.ip_network(address), own)
            change = netlink.route_add if address in after else netlink.route_delete
            asks.append(change(index, route))
    node.run(asks)


def _behind_switch(network: ipam.Network, own: ipam.Address) -> Route:
    return Route(network, returning.next_hop(network.version), own, onlink=True)


def _fixed(number: int, version: int) -> ipam.Network:
    address = ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)
    return ipaddress.ip_network(address)


def _key(route: Route) -> tuple[object, ...]:
    """What makes two routes the same, whatever metric the kernel filled in."""
    return route.destination, route.gateway, route.source, route.onlink, route.table


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
