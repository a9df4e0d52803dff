# SPDX-License-Identifier: Apache-2.0
"""How many connections to Services the switch tracks, by the endpoint and by what the client had connected to.

A dump of the switch's connection tracker is read, counted and forgotten. One of a hundred thousand connections takes a
second or two, so this is done when somebody asks, never on its own, and on a thread of its own.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from agent.ipam import Address
from agent.nodesetup.facts import NodeFacts
from agent.services.conntrackdump import dump, parse
from agent.vswitchd import Vswitchd, VswitchdRefused, VswitchdUnavailable
from sdn.pipeline.registers import NODE_PORT_ADDRESS
from sdn.v1 import controller_pb2 as messages

#: Protocols whose connections go to a port, as the dump names them.
_PROTOCOLS: Final = frozenset(("tcp", "udp", "sctp"))


class Destination(NamedTuple):
    """An address and a port of a protocol ("TCP", "UDP", "SCTP")."""

    address: str
    port: int
    protocol: str


def count(
    vswitchd: Vswitchd, datapath: str, own: Mapping[int, Address], endpoints: Collection[Destination]
) -> dict[tuple[Destination, Destination], int]:
    """Connections by (endpoint, frontend). VswitchdUnavailable, VswitchdRefused.

    datapath   "netdev" or "system"
    own        the node's addresses by family, as which NodePorts appear
    """
    return counted(dump(vswitchd, datapath), own, endpoints)


def answered(
    vswitchd: Vswitchd, facts: Callable[[], NodeFacts], question: messages.CountConnections
) -> messages.ConnectionCounts:
    """The answer to a controller's question; a failure is part of it."""
    node = facts()
    own: dict[int, Address] = {address.version: address for address in node.addresses}
    answer = messages.ConnectionCounts(sequence=question.sequence)
    try:
        endpoints = [Destination(item.address, item.port, item.protocol) for item in question.endpoints]
        found = count(vswitchd, node.datapath, own, endpoints)
    except (VswitchdUnavailable, VswitchdRefused, ValueError) as problem:
        answer.error = str(problem)
        return answer
    for (endpoint, frontend), connections in sorted(found.items()):
        answer.counts.append(
            messages.ConnectionCount(
                endpoint=messages.Destination(**endpoint._asdict()),
                frontend=messages.Destination(**frontend._asdict()),
                connections=connections,
            )
        )
    return answer


def counted(
    text: str, own: Mapping[int, Address], endpoints: Collection[Destination]
) -> dict[tuple[Destination, Destination], int]:
    """What a dump tells of these endpoints."""
    wanted = {
        Destination(_text(endpoint.address), endpoint.port, endpoint.protocol) for endpoint in endpoints
    }
    inside = {str(_node_port_address(version)): str(address) for version, address in own.items()}
    found: Counter[tuple[Destination, Destination]] = Counter()
    for one in parse(text):
        if one.protocol not in _PROTOCOLS:
            continue
        protocol = one.protocol.upper()
        endpoint = Destination(one.reply_source, int(one.reply_source_port), protocol)
        if endpoint not in wanted or one.over:
            continue
        frontend = inside.get(one.destination, one.destination)
        found[endpoint, Destination(frontend, int(one.destination_port), protocol)] += 1
    return dict(found)


def _text(address: str) -> str:
    """An address as the switch prints it."""
    return str(ipaddress.ip_address(address))


def _node_port_address(version: int) -> Address:
    number = NODE_PORT_ADDRESS[version]
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)
