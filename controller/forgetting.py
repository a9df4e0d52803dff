# SPDX-License-Identifier: Apache-2.0
"""What a switch is sent so that it ends tracked connections, and what it must never be sent.

Open vSwitch's userspace datapath aborts when a flush meets an entry of ICMPv6 (seen with 3.1: ``tuple_to_conn_key``
takes its type for one of ICMP). So a flush of an IPv6 address says the protocol, once for each that has connections;
what is left of ICMPv6 goes by itself, half a minute after its last packet.

A connection of ICMPv6 that policies deny is not flushed but marked as denied, which ends its answers: a packet like
its first one passes the tracker, and goes nowhere. The same is done where a pod has sent ICMP over IPv6 or ICMPv6 over
IPv4, which the tracker keeps but does not find again; and of UDP: were its entry gone, a datagram of the other end
would begin a connection of its own, and what the client sends would be its answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from controller.datagram import IPV4_TYPE, IPV6_TYPE, internet_checksum
from sdn.openflow import CtTuple, Icmp, ct_flush, packet_out
from sdn.pipeline.actions import Ct, SetField
from sdn.pipeline.fields import (
    CT_MARK,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    OFPP_CONTROLLER,
)
from sdn.pipeline.registers import SERVICE_ZONE, Mark
from sdn.pipeline.topology import Address


@dataclass(frozen=True, slots=True)
class Denial:
    """A connection that is marked instead, by what its first packet was: of ICMP or ICMPv6, whatever it goes over; or
    of UDP, with its source and destination port.
    """

    protocol: int
    source: Address
    destination: Address
    what: Icmp | tuple[int, int]


#: Which tracked connections: their zone (None: any), and what they have in their first direction and in the other; or
#: one that cannot be said so.
Flush = tuple[int | None, CtTuple | None, CtTuple | None] | Denial

_DENY = Ct(zone=SERVICE_ZONE, commit=True, execute=(SetField(CT_MARK, Mark.DENIED, Mark.DENIED),))
_MESSAGE = struct.Struct("!BBHHH")
_DATAGRAM = struct.Struct("!HHHH")
_CONNECTED = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP)


def messages(flush: Flush) -> Iterator[Callable[[int], bytes]]:
    """The messages that end the connections, each still without its transaction id."""
    if isinstance(flush, Denial):
        yield _marking(flush)
        return
    zone, original, reply = flush
    given = [each for each in (original, reply) if each is not None]
    any_protocol = not any(each.protocol for each in given)
    of_ipv6 = any(
        address.version == 6
        for each in given
        for address in (each.source, each.destination)
        if address is not None
    )
    if not (any_protocol and of_ipv6):
        yield _flushing(zone, original, reply)
        return
    for protocol in _CONNECTED:
        yield _flushing(
            zone,
            None if original is None else replace(original, protocol=protocol),
            None if reply is None else replace(reply, protocol=protocol),
        )


def _flushing(zone: int | None, original: CtTuple | None, reply: CtTuple | None) -> Callable[[int], bytes]:
    return lambda xid: ct_flush(xid, zone, original, reply)


def _marking(denied: Denial) -> Callable[[int], bytes]:
    frame = bytes(12) + (_over_ipv4(denied) if denied.source.version == 4 else _over_ipv6(denied))
    return lambda xid: packet_out(xid, OFPP_CONTROLLER, (_DENY,), frame)


def _over_ipv4(denied: Denial) -> bytes:
    """RFC 791, 3.1, behind its Ethernet type."""
    message = _message(denied, b"")
    addresses = b"".join(each.value.to_bytes(4, "big") for each in (denied.source, denied.destination))
    header = struct.pack("!BBHIBB", 0x45, 0, 20 + len(message), 0, 1, denied.protocol)
    return IPV4_TYPE + header + internet_checksum(header + addresses) + addresses + message


def _over_ipv6(denied: Denial) -> bytes:
    """RFC 8200, 3, behind its Ethernet type."""
    addresses = b"".join(each.value.to_bytes(16, "big") for each in (denied.source, denied.destination))
    # RFC 8200, 8.1; ICMP itself has no such thing.
    pseudo_header = addresses + struct.pack("!I3xB", _MESSAGE.size, denied.protocol)
    checked = denied.protocol in (IPPROTO_ICMPV6, IPPROTO_UDP)
    message = _message(denied, pseudo_header if checked else b"")
    return IPV6_TYPE + struct.pack("!IHBB", 6 << 28, len(message), denied.protocol, 1) + addresses + message


def _message(denied: Denial, pseudo_header: bytes) -> bytes:
    """RFC 792; RFC 4443, 2.1 and 4.1; RFC 768, without data."""
    what = denied.what
    if isinstance(what, tuple):
        unsigned = _DATAGRAM.pack(*what, _DATAGRAM.size, 0)
        # Over IPv4 it needs no checksum; and none is 0 (RFC 768).
        signed = int.from_bytes(internet_checksum(pseudo_header + unsigned), "big") or 0xFFFF
        return _DATAGRAM.pack(*what, _DATAGRAM.size, signed if pseudo_header else 0)
    unsigned = _MESSAGE.pack(what.type, what.code, 0, what.id, 0)
    signed = int.from_bytes(internet_checksum(pseudo_header + unsigned), "big")
    return _MESSAGE.pack(what.type, what.code, signed, what.id, 0)
