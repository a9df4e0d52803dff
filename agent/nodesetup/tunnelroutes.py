# SPDX-License-Identifier: Apache-2.0
"""Routes to the other nodes, told to the userspace datapath's tunnels.

ovs-vswitchd copies the kernel's routes, and throws its copy away to read all of them again whenever any interface of
the node changes. What is sent to or comes from another node in that moment is lost, so every pod that is made or
removed could cost others packets (seen with Open vSwitch 3.1: bursts of a few dozen). Routes that it was told itself
it keeps. So it is started with --disable-system-route, and told here the routes that leave by br-phy, again after each
of its restarts; without that option they do no harm.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from agent.netlink import Netlink
from agent.nodesetup.facts import PHYSICAL_BRIDGE
from agent.vswitchd import Vswitchd, VswitchdRefused
from sdn import logs

log: Final = logs.get("agent.nodesetup")


def tell(vswitchd: Vswitchd, node: Netlink) -> None:
    """Make ovs-vswitchd's own routes over br-phy those that the kernel has there now."""
    link = node.link(PHYSICAL_BRIDGE)
    if link is None:
        return
    wanted = {
        str(route.destination): str(route.gateway) if route.gateway is not None else ""
        for route in node.routes(link["index"])
        if not route.destination.is_link_local and not route.destination.is_multicast
    }
    present = told(vswitchd.command("ovs/route/show"))
    try:
        for destination in present.keys() - wanted.keys():
            vswitchd.command("ovs/route/del", destination)
        # Those on the link first: a gateway must be found on one of them.
        for destination, gateway in sorted(wanted.items(), key=lambda item: item[1]):
            if present.get(destination) != gateway:
                vswitchd.command(
                    "ovs/route/add", destination, PHYSICAL_BRIDGE, *([gateway] if gateway else [])
                )
    except VswitchdRefused as problem:
        # The kernel has routes that Open vSwitch has no notion of; most nodes can be reached without them.
        log.warning("a route could not be told to the tunnels", error=str(problem))


def told(shown: str) -> dict[str, str]:
    """Destination and gateway (empty: on the link) of the routes over br-phy in what `ovs/route/show` prints."""
    found = {}
    for line in shown.splitlines():
        words = line.split()
        if words[:1] != ["User:"] or words[2:4] != ["dev", PHYSICAL_BRIDGE]:
            continue
        network = str(ipaddress.ip_network(words[1]))
        found[network] = words[words.index("GW") + 1] if "GW" in words else ""
    return found
