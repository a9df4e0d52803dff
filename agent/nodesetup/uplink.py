# SPDX-License-Identifier: Apache-2.0
"""The uplink, and the bridge br-phy that takes its place on the userspace datapath.

With the kernel datapath the uplink stays as it is. With the userspace datapath Open vSwitch ends tunnels
itself, and finds the node's address only on the LOCAL port of a bridge of its own: so the uplink becomes a
port of br-phy, and its addresses and routes move to br-phy, which has the uplink's MAC. What was moved is
kept on disk: br-phy is a tap of ovs-vswitchd's and vanishes with it, and with br-phy everything that was on
it.

From then on br-phy's addresses are the agent's business. Whoever configures the uplink anew (a reboot does)
is followed: addresses found on the uplink are the truth and move.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agent import ethtool, netlink
from agent.drift import MISSING
from agent.ipam import Address
from agent.netlink import Netlink, Route
from agent.nodesetup import sysctl
from agent.nodesetup.facts import PHYSICAL_BRIDGE
from agent.nodesetup.integration import Mended, bring_back, keep_bridge, new_port
from agent.ovsdb import Replica
from agent.ports import port_of, remove
from agent.rows import update
from agent.state import State
from sdn import logs

log: Final = logs.get("agent.nodesetup.uplink")
_KEY: Final = "uplink"
_APPEAR_SECONDS: Final = 30.0


class UplinkError(Exception):
    """The uplink is missing or has no address; the text names it."""


class SavedRoute(msgspec.Struct, frozen=True):
    """A route as kept on disk."""

    destination: str
    gateway: str | None
    source: str | None
    metric: int | None
    protocol: int
    onlink: bool = False

    def route(self) -> Route:
        return Route(
            ipaddress.ip_network(self.destination),
            ipaddress.ip_address(self.gateway) if self.gateway else None,
            ipaddress.ip_address(self.source) if self.source else None,
            self.metric,
            self.protocol,
            self.onlink,
        )


class Uplink(msgspec.Struct, frozen=True):
    """What the uplink is and had, as kept on disk: addresses with prefix lengths, routes except the kernel's own."""

    name: str
    mac: str
    mtu: int
    addresses: list[str] = []
    routes: list[SavedRoute] = []

    def interfaces(self) -> list[netlink.Interface]:
        return [ipaddress.ip_interface(text) for text in self.addresses]


def node_addresses(uplink: Uplink, told: Sequence[str], *, here: bool) -> tuple[Address, ...]:
    """The node's: as told, else the uplink's first of each family, IPv4 first.

    here  whether those that are told must be the uplink's
    """
    if told:
        addresses = tuple(ipaddress.ip_address(text) for text in told)
        present = {interface.ip for interface in uplink.interfaces()}
        for address in addresses:
            if here and address not in present:
                raise UplinkError(f"node_addresses: {address} is not on {uplink.name}")
        return addresses
    first: dict[int, Address] = {}
    for interface in uplink.interfaces():
        first.setdefault(interface.version, interface.ip)
    return tuple(first[version] for version in sorted(first))


def look(node: Netlink, name: str) -> Uplink:
    """The uplink as it is now."""
    link = node.link(name)
    if link is None:
        raise UplinkError(f"uplink: this node has no interface {name}")
    index = link["index"]
    addresses = [
        str(address) for address, scope, _flags in node.addresses(index) if scope == netlink.SCOPE_UNIVERSE
    ]
    routes = [
        SavedRoute(
            str(route.destination),
            str(route.gateway) if route.gateway else None,
            str(route.source) if route.source else None,
            route.metric,
            route.protocol,
            route.onlink,
        )
        for route in node.routes(index)
        if route.protocol != netlink.PROTO_KERNEL
    ]
    return Uplink(name, link.get_attr("IFLA_ADDRESS"), link.get_attr("IFLA_MTU"), addresses, routes)


def known(node: Netlink, state: State, name: str) -> Uplink:
    """What the uplink has, or had before it moved; brings what is on disk up to date.

    UplinkError when there is no uplink, or no address either here or on disk; StateError when what is new cannot be
    written, since what is moved and not on disk is lost with br-phy.
    """
    now = look(node, name)
    saved = on_disk = state.load(_KEY, Uplink)
    if saved is None or saved.name != name or saved.mac != now.mac:
        saved = now if now.addresses else _moved(node, now)
    elif now.addresses:
        bridge = node.link(PHYSICAL_BRIDGE)
        moved = (
            {str(address) for address, _s, _f in node.addresses(bridge["index"])}
            if bridge is not None
            else set()
        )
        # Found on both: a move that was interrupted. Found on the uplink only: it was configured anew.
        half_way = bool(moved & set(saved.addresses))
        before = saved if half_way else now
        addresses = [*now.addresses, *(a for a in before.addresses if a not in now.addresses)]
        routes = [*now.routes, *(r for r in before.routes if r not in now.routes)]
        saved = Uplink(name, now.mac, now.mtu, addresses, routes)
    if not saved.addresses:
        raise UplinkError(f"uplink: interface {name} has no global address")
    if saved != on_disk:
        state.save(_KEY, saved)
    return saved


def _moved(node: Netlink, uplink: Uplink) -> Uplink:
    """What an earlier agent, whose state is lost, moved from the uplink to br-phy; nothing, if br-phy is another's."""
    link = node.link(PHYSICAL_BRIDGE)
    if link is None or link.get_attr("IFLA_ADDRESS") != uplink.mac:
        return uplink
    there = look(node, PHYSICAL_BRIDGE)
    return Uplink(uplink.name, uplink.mac, uplink.mtu, there.addresses, there.routes)


def bridge(uplink: Uplink, mended: Mended) -> Any:
    """The change that makes br-phy, an ordinary learning switch with the uplink on it, or mends what differs. `mended`
    is filled.

    How the uplink's own port is tuned (queues, its driver) is the operator's business, as other ports of br-phy are.
    """
    settings = {
        "datapath_type": "netdev",
        "fail_mode": "standalone",
        "other_config": {"hwaddr": uplink.mac, "disable-in-band": "true"},
    }

    def apply(replica: Replica) -> None:
        mended.found = []
        root = replica.root()
        if root is None:
            raise UplinkError("Open vSwitch's database is not initialized (ovs-vsctl init)")
        row = replica.named("Bridge", PHYSICAL_BRIDGE)
        if row is None:
            mended.found.append((MISSING, f"bridge {PHYSICAL_BRIDGE}"))
            row = replica.insert("Bridge")
            row.name = PHYSICAL_BRIDGE
            update(row, **settings)
            remove(replica, uplink.name)
            row.ports = [
                new_port(replica, PHYSICAL_BRIDGE, {"type": "internal"}),
                new_port(replica, uplink.name, {}),
            ]
            root.addvalue("bridges", row)
            return
        keep_bridge(replica, row, {"controller": [], **settings}, mended)
        if port_of(replica, row, uplink.name) is None:
            bring_back(replica, row, uplink.name, {}, mended)

    return apply


def move(node: Netlink, uplink: Uplink) -> None:
    """Put everything that the uplink had on br-phy's own port, once it is there. Nothing happens where that is so.

    The new place is complete before the old one is cleared, so that a crash in between loses nothing.
    """
    index = _appear(node, uplink)
    have = {address for address, _s, _f in node.addresses(index)}
    missing = [address for address in uplink.interfaces() if address not in have]
    sysctl.put(f"ipv6/conf/{PHYSICAL_BRIDGE}/accept_dad", "0")
    node.run([netlink.link_set(PHYSICAL_BRIDGE, up=True), *(netlink.address_add(index, a) for a in missing)])
    present = set(node.routes(index))
    routes = [saved.route() for saved in uplink.routes]
    # Those on the link come first, since gateways are reached by them.
    routes.sort(key=lambda route: route.gateway is not None)
    node.run([netlink.route_add(index, route) for route in routes if not _is_in(route, present)])
    if missing:
        log.info("the node's addresses are on br-phy", addresses=[str(address) for address in missing])
    _clear(node, uplink)


def _appear(node: Netlink, uplink: Uplink) -> int:
    """The interface br-phy's index, once it is there with the uplink's MAC."""
    deadline = time.monotonic() + _APPEAR_SECONDS
    while True:
        link = node.link(PHYSICAL_BRIDGE)
        if link is not None and link.get_attr("IFLA_ADDRESS") == uplink.mac:
            return int(link["index"])
        if time.monotonic() > deadline:
            raise UplinkError(f"ovs-vswitchd did not make {PHYSICAL_BRIDGE} within {_APPEAR_SECONDS:.0f} s")
        time.sleep(0.01)


def _is_in(route: Route, present: set[Route]) -> bool:
    """Whether a route is there, whatever metric the kernel filled in."""
    return any(
        (route.destination, route.gateway, route.metric or other.metric)
        == (other.destination, other.gateway, other.metric)
        for other in present
    )


def _clear(node: Netlink, uplink: Uplink) -> None:
    """Take from the uplink what has moved, so that the node's own stack leaves it alone."""
    link = node.link(uplink.name)
    if link is None:
        raise UplinkError(f"uplink: this node has no interface {uplink.name}")
    index = link["index"]
    left = [address for address, scope, _f in node.addresses(index) if scope == netlink.SCOPE_UNIVERSE]
    routes = [route for route in node.routes(index) if route.protocol != netlink.PROTO_KERNEL]
    node.run(
        [
            *(netlink.route_delete(index, route) for route in routes),
            *(netlink.address_delete(index, address) for address in left),
            *([] if link["flags"] & netlink.IFF_UP else [netlink.link_set(uplink.name, up=True)]),
        ]
    )
    sysctl.put(f"ipv6/conf/{uplink.name}/disable_ipv6", "1")
    ethtool.receive_merging_off(uplink.name)
