# SPDX-License-Identifier: Apache-2.0
"""Which connections the switch tracks, for a controller that looks for those that policies do not allow any more.

A dump of the tracker is read when the controller asks, on a thread of its own. What is found goes in messages of
:data:`PORTION` connections, each made when the one before has gone, so that there is never much more in memory than the
dump itself.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agent.nodesetup.facts import NodeFacts
from agent.services.conntrackdump import Tracked, dump, parse
from agent.vswitchd import Vswitchd, VswitchdRefused, VswitchdUnavailable
from sdn.v1 import controller_pb2 as messages

#: Connections in one message: about a megabyte, of the four that gRPC takes by default.
PORTION: Final = 10_000
#: IP protocol numbers of the names that ovs-vswitchd prints (IANA, "Assigned Internet Protocol Numbers").
_NUMBERS: Final = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}


class Ranges:
    """Ranges of addresses of which one is to be found quickly, however many there are."""

    def __init__(self, ranges: Iterable[str]) -> None:
        """From CIDR texts. ValueError."""
        #: By family and host bits: the networks, without these bits.
        self._networks: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for text in ranges:
            network = ipaddress.ip_network(text)
            host_bits = network.max_prefixlen - network.prefixlen
            same = self._networks[network.version].setdefault(host_bits, set())
            same.add(int(network.network_address) >> host_bits)
        #: What was found of an address: most of them are in many connections.
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        """Whether an address, as ovs-vswitchd prints it, is in one of them."""
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = self._holds(address)
        return known

    def _holds(self, address: str) -> bool:
        version, family = (6, socket.AF_INET6) if ":" in address else (4, socket.AF_INET)
        try:
            number = int.from_bytes(socket.inet_pton(family, address), "big")
        except OSError:
            return False
        return any(number >> bits in networks for bits, networks in self._networks[version].items())


def answered(
    vswitchd: Vswitchd, facts: Callable[[], NodeFacts], question: messages.ListConnections
) -> Iterator[messages.Connections]:
    """The answer to a controller's question, message by message; a failure is part of it."""
    try:
        ranges = Ranges(question.ranges)
        text = dump(vswitchd, facts().datapath)
    except (VswitchdUnavailable, VswitchdRefused, ValueError) as problem:
        yield messages.Connections(sequence=question.sequence, error=str(problem), last=True)
        return
    yield from portions(question.sequence, listed(text, ranges))


def portions(
    sequence: int, found: Iterable[messages.TrackedConnection], size: int = PORTION
) -> Iterator[messages.Connections]:
    """Connections as messages, of which there is at least one, and the last says so."""
    portion = messages.Connections(sequence=sequence)
    for connection in found:
        if len(portion.connections) == size:
            yield portion
            portion = messages.Connections(sequence=sequence)
        portion.connections.append(connection)
    portion.last = True
    yield portion


def listed(text: str, ranges: Ranges) -> Iterator[messages.TrackedConnection]:
    """The connections of a dump that have an address in one of these ranges and are not over."""
    for one in parse(text):
        inside = (
            one.source in ranges
            or one.destination in ranges
            or one.reply_source in ranges
            or one.reply_destination in ranges
        )
        if inside and not one.over:
            connection = _message(one)
            if connection is not None:
                yield connection


def _message(one: Tracked) -> messages.TrackedConnection | None:
    """A connection as the wire has it; None of a protocol that nobody knows."""
    protocol = _NUMBERS.get(one.protocol)
    if protocol is None:
        if not one.protocol.isdecimal():
            return None
        protocol = int(one.protocol)
    connection = messages.TrackedConnection(
        protocol=protocol,
        source=one.source,
        destination=one.destination,
        reply_source=one.reply_source,
        reply_destination=one.reply_destination,
        mark=one.mark,
    )
    if one.code is not None:
        connection.icmp_id = int(one.source_port)
        connection.icmp_type = int(one.destination_port)
        connection.icmp_code = int(one.code)
        return connection
    connection.source_port = int(one.source_port)
    connection.destination_port = int(one.destination_port)
    connection.reply_source_port = int(one.reply_source_port)
    connection.reply_destination_port = int(one.reply_destination_port)
    return connection
