# SPDX-License-Identifier: Apache-2.0
"""One tracked connection, and the flush that ends it and no other.

A flush that gives all of the original direction finds its entry without reading the tracker's table. So the reply
direction, which would tell no more, is left out, and one connection of a million costs what one of ten does.

Protocols without ports have one entry for all that goes between two hosts, which the addresses and the protocol name:
SCTP is one of them on the userspace datapath. Such a flush, and one of a port 0, reads the table.
"""

from __future__ import annotations

from controller.forgetting import Denial, Flush
from sdn.openflow import CtTuple, Icmp
from sdn.pipeline.fields import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP
from sdn.pipeline.registers import SERVICE_ZONE
from sdn.pipeline.topology import Address
from sdn.v1 import controller_pb2

#: Largest numbers of eight and of sixteen bits.
_BYTE, _SHORT = 0xFF, 0xFFFF


def flush_of(connection: controller_pb2.TrackedConnection) -> Flush:
    """Ends this connection, as an agent lists it. ValueError when it can be none."""
    source, destination = Address.parse(connection.source), Address.parse(connection.destination)
    ports = connection.source_port, connection.destination_port
    if source.version != destination.version or connection.protocol > _BYTE or max(ports) > _SHORT:
        raise ValueError(f"no connection of any switch: {connection}")
    icmp = None
    if connection.protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        icmp = Icmp(connection.icmp_type, connection.icmp_code, connection.icmp_id)
        if max(icmp.type, icmp.code) > _BYTE or icmp.id > _SHORT:
            raise ValueError(f"no connection of any switch: {connection}")
        if (connection.protocol, source.version) != (IPPROTO_ICMP, 4):
            return Denial(connection.protocol, source, destination, icmp)
    if connection.protocol == IPPROTO_UDP:
        return Denial(connection.protocol, source, destination, ports)
    return SERVICE_ZONE, CtTuple(connection.protocol, source, destination, *ports, icmp), None
