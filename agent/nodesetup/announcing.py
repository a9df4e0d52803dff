# SPDX-License-Identifier: Apache-2.0
"""LoadBalancer addresses that this node announces: its kernel answers for them on the link to the outside.

Proxy entries of the neighbour tables do it (RFC 1027 for ARP, RFC 4861 section 7.2.8 for ND): they work with both
datapaths, since the interface that holds the node's address is one of the kernel's either way, and they answer on
while the agent is restarted. The kernel forwards what then comes by its routes, into the switch. That others learn at
once is up to `agent.services.gratuitous`.
"""

from __future__ import annotations

from collections.abc import Collection

from agent import proxies
from agent.ipam import Address
from agent.netlink import Netlink
from agent.nodesetup import sysctl
from agent.nodesetup.facts import NodeFacts


def serve(node: Netlink, facts: NodeFacts, announced: Collection[Address]) -> bool:
    """Answer for these addresses and no others; whether anything had to be changed. NetlinkError."""
    link = node.link(facts.interface)
    present = proxies.ours(node)
    wanted = {(int(link["index"]), address) for address in announced} if link is not None else set()
    if wanted:
        # Answered at once instead of within a second by chance; the node is the only one that does.
        for family in ("ipv4", "ipv6"):
            sysctl.put(f"{family}/neigh/{facts.interface}/proxy_delay", "0")
        sysctl.put(f"ipv6/conf/{facts.interface}/proxy_ndp", "1")
    # What must end, first: another node may have taken over.
    node.run(
        [
            *(proxies.delete(index, address) for index, address in sorted(present - wanted, key=str)),
            *(proxies.add(index, address) for index, address in sorted(wanted - present, key=str)),
        ]
    )
    return wanted != present
