# SPDX-License-Identifier: Apache-2.0
"""Proxy entries of the neighbour tables, as `ip neigh ... proxy` has them: addresses that the kernel answers for on a
link (ARP, ND) though the node does not have them.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any, Final

from pyroute2.netlink.rtnl.ndmsg import ndmsg

from agent.netlink import PROTO_SDN, Address, Ask, Netlink

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_REPLACE, _CREATE = 0x100, 0x400
_PROXY: Final = 0x08  # NTF_PROXY
_PERMANENT: Final = 0x80  # NUD_PERMANENT


def add(index: int, address: Address) -> Ask:
    """`ip neigh replace proxy ADDRESS dev INDEX protocol 88`"""
    body = _body(index, address)
    body["attrs"].append(("NDA_PROTOCOL", PROTO_SDN))
    return Ask(f"answer for {address}", _RTM_NEWNEIGH, _CREATE | _REPLACE, body, (errno.EEXIST,))


def delete(index: int, address: Address) -> Ask:
    return Ask(
        f"answer no more for {address}",
        _RTM_DELNEIGH,
        0,
        _body(index, address),
        (errno.ENOENT, errno.ENODEV),
    )


def ours(node: Netlink) -> set[tuple[int, Address]]:
    """(index of the interface, address) of the entries that this agent made."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        body = ndmsg()
        body["family"] = int(family)
        body["flags"] = _PROXY
        for message in node.dump("list proxy entries", _RTM_GETNEIGH, body, ndmsg):
            if message["flags"] & _PROXY and message.get_attr("NDA_PROTOCOL") == PROTO_SDN:
                found.add((int(message["ifindex"]), ipaddress.ip_address(message.get_attr("NDA_DST"))))
    return found


def _body(index: int, address: Address) -> Any:
    body = ndmsg()
    body["family"] = int(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    body["ifindex"] = index
    body["state"] = _PERMANENT
    body["flags"] = _PROXY
    body["attrs"] = [("NDA_DST", str(address))]
    return body
