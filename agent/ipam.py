# SPDX-License-Identifier: Apache-2.0
"""Which address, port number and MAC a new pod gets: pure functions, the state is in `agent.state`.

Addresses are given in turn (the next free one after the last one given), not lowest first: an address that
was just released is the last to be given again, so that what remote ends still remember of its former holder
(neighbour entries, connections) has time to be forgotten. OpenFlow port numbers are given in the same way.

Never given: the network's own address (in IPv6 the subnet-router anycast address, RFC 4291 section 2.6.1),
the first one, which is the gateway's, the broadcast address of IPv4, and the reserved anycast addresses at
the end of an IPv6 subnet (RFC 2526).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Container
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ANYCAST_RESERVED: Final = 128


class Exhausted(Exception):
    """Every address of a range is in use."""


def gateway(network: Network) -> Address:
    """The first usable address, which the node's gateway port has."""
    return network[1]


def bounds(network: Network) -> tuple[int, int]:
    """First and last address, as integers, that a pod may have; the first is past the last in too small a range."""
    first = int(network.network_address) + 2
    last = int(network.broadcast_address)
    if network.version == 4:
        last -= 1
    elif network.prefixlen <= 64:
        last -= _ANYCAST_RESERVED
    return first, last


def capacity(network: Network) -> int:
    """How many pods a range can hold."""
    first, last = bounds(network)
    return max(0, last - first + 1)


def next_free(first: int, last: int, used: Container[int], previous: int | None) -> int:
    """The first free number after `previous`, going round from `last` to `first`; Exhausted when all are in use."""
    start = first if previous is None or not first <= previous < last else previous + 1
    for candidate in range(start, last + 1):
        if candidate not in used:
            return candidate
    for candidate in range(first, min(start, last + 1)):
        if candidate not in used:
            return candidate
    raise Exhausted


def pod_mac(addresses: tuple[Address, ...]) -> str:
    """A pod's MAC, derived from its address so that it is unique wherever the address is.

    0a:58 and the four bytes of the IPv4 address; for a pod with IPv6 only, 0a:59 and a hash of that address.
    """
    for address in addresses:
        if address.version == 4:
            return _mac(b"\x0a\x58" + address.packed)
    return _mac(b"\x0a\x59" + hashlib.blake2b(addresses[0].packed, digest_size=4).digest())


def host_mac(ofport: int) -> str:
    """MAC of the node's end of a pod's link. No packet ever carries it; fixed so that a result can be told again."""
    return _mac(b"\x0a\x5a\x00\x00" + ofport.to_bytes(2, "big"))


def _mac(raw: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)
