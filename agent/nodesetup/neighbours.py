# SPDX-License-Identifier: Apache-2.0
"""Link-layer addresses of the other nodes, told to the userspace datapath's tunnels.

ovs-vswitchd asks for a tunnel neighbour only when the first packet for it arrives, and loses that packet. The
controller tells every node's MAC, so those on our own link are written at once (`tnl/neigh/set`), and again
after every restart of ovs-vswitchd, which keeps them in memory only, and now and then, since they age. Nodes
behind a router are left to ovs-vswitchd, which asks for the router.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from agent.netlink import Interface
from agent.nodesetup.facts import PHYSICAL_BRIDGE, Peer
from agent.vswitchd import Vswitchd


def tell(vswitchd: Vswitchd, own: Iterable[Interface], peers: Iterable[Peer]) -> None:
    """`own`: the node's addresses with prefix lengths, which say who is on the link."""
    networks = [address.network for address in own]
    for peer in peers:
        address = ipaddress.ip_address(peer.tunnel_address)
        if peer.tunnel_mac and any(address in network for network in networks):
            vswitchd.command("tnl/neigh/set", PHYSICAL_BRIDGE, str(address), peer.tunnel_mac)
