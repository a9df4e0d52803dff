# SPDX-License-Identifier: Apache-2.0
"""Answers of the node's own servers to clients from outside that came by the switch go back by the switch.

A hostNetwork pod behind a Service with externalTrafficPolicy Local sees the client's own address. By its routes the
node would answer past the switch, which has to translate the answer back. So such connections are marked when they
come (`agent.nodesetup.firewall`), their answers get the mark from the connection, and a rule of policy routing sends
what has the mark out of sdn-gw0.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from agent import rules
from agent.ipam import Address
from agent.netlink import Netlink, Route
from agent.rules import Rule
from sdn.pipeline.registers import NEXT_HOP_ADDRESS

#: A bit of packets' and connections' marks that kube-proxy (0x4000, 0x8000) and the network plugins whose marks are
#: known leave alone.
MARK: Final = 0x00200000
#: A routing table of our own; the number is that of the protocol of our routes.
TABLE: Final = 88
#: Before the main table (32766), after the node's own addresses (0).
PREFERENCE: Final = 1088


def next_hop(version: int) -> Address:
    """The switch, as routes name it."""
    number = NEXT_HOP_ADDRESS[version]
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)


def routes(versions: Iterable[int]) -> list[Route]:
    """What table TABLE holds: everything goes to the switch."""
    everywhere = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
    return [Route(everywhere[version], next_hop(version), onlink=True, table=TABLE) for version in versions]


def furnish(node: Netlink, versions: Iterable[int]) -> bool:
    """The rules for these families and no others of ours; whether anything had to be changed."""
    wanted = {Rule(version, MARK, TABLE, PREFERENCE) for version in versions}
    present = rules.ours(node)
    asks = [
        *(rules.add(rule) for rule in sorted(wanted - present, key=str)),
        *(rules.delete(rule) for rule in sorted(present - wanted, key=str)),
    ]
    node.run(asks)
    return bool(asks)
