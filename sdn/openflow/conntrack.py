# SPDX-License-Identifier: Apache-2.0
"""Removing entries of a switch's connection tracker: NXT_CT_FLUSH (Open vSwitch 3.1, ``nicira-ext.h``; what
``ovs-ofctl ct-flush`` sends).

Open vSwitch takes it at once, never as part of a bundle, and does not answer: a barrier tells when it is done. Unless
all five parts of the original direction are given it reads every entry of the zone, in the thread that also serves
OpenFlow (about 20 ms for 30,000 entries on a small machine). Entries cannot be chosen by their mark, label or state.

Entries of ICMPv6 cannot be chosen at all: the userspace datapath of 3.1 aborts when one is found. So a flush by
addresses of IPv6 must say another protocol. (A flush of a whole zone takes them, too.)

On the userspace datapath one flush can leave entries behind: the tracker's table shrinks while they are removed, and
the walk over it then skips some. That needs a flush that removes a large part of all entries; each further flush takes
half of what is left, or more (4,000 became 1,000, 480, 230, 100, 40, 20, none). Whoever must be sure repeats it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.wire import HEADER, NX_VENDOR_ID, NXT_CT_FLUSH, OFP_VERSION, OFPT_EXPERIMENTER, padded
from sdn.pipeline.fields import IPPROTO_ICMP, IPPROTO_ICMPV6
from sdn.pipeline.topology import Address

_EXPERIMENTER: Final = struct.Struct("!II")
_FLUSH: Final = struct.Struct("!B7x")
_PROPERTY: Final = struct.Struct("!HH")
_NUMBER: Final = struct.Struct("!HHH2x")
_BYTE: Final = struct.Struct("!HHB3x")
_BYTE_LENGTH: Final = 5
_NESTED: Final = struct.Struct("!HH4x")
_ORIGINAL, _REPLY, _ZONE = 0, 1, 2
_SOURCE, _DESTINATION, _SOURCE_PORT, _DESTINATION_PORT, _ICMP_ID, _ICMP_TYPE, _ICMP_CODE = range(7)


@dataclass(frozen=True, slots=True)
class Icmp:
    """What tells connections of ICMP between two hosts apart: type and code of the message, and the id that an echo has
    in place of ports.
    """

    type: int
    code: int
    id: int


@dataclass(frozen=True, slots=True)
class CtTuple:
    """What one direction of a connection looks like, as far as it is given: None and 0 stand for anything.

    ``protocol`` is an IP protocol number, not ICMPv6's. ICMP's needs ``icmp``, since Open vSwitch always compares all
    of it.
    """

    protocol: int = 0
    source: Address | None = None
    destination: Address | None = None
    source_port: int = 0
    destination_port: int = 0
    icmp: Icmp | None = None


def ct_flush(
    xid: int, zone: int | None, original: CtTuple | None = None, reply: CtTuple | None = None
) -> bytes:
    """The message that removes the connections of ``zone`` (None: of all zones) whose original and reply directions
    look like that. With neither, all of them.

    The directions are as the tracker knows them: of a connection whose destination was translated, ``original`` has the
    address that the client used, and ``reply`` comes *from* the endpoint. Raises CodecError for what cannot be said.
    """
    given = [each for each in (original, reply) if each is not None]
    protocols = {each.protocol for each in given if each.protocol}
    versions = {
        address.version
        for each in given
        for address in (each.source, each.destination)
        if address is not None
    }
    if len(protocols) > 1 or len(versions) > 1:
        raise CodecError("both directions of a connection have the same protocol and the same family")
    if IPPROTO_ICMPV6 in protocols or (6 in versions and not protocols):
        raise CodecError("connections of ICMPv6 cannot be flushed: say another protocol")
    if any((each.icmp is not None) != (IPPROTO_ICMP in protocols) for each in given):
        raise CodecError("connections of ICMP, and no others, are chosen by their type, code and id")
    body = _FLUSH.pack(max(protocols, default=0))
    try:
        for kind, each in ((_ORIGINAL, original), (_REPLY, reply)):
            nested = b"" if each is None else _tuple(each)
            if nested:
                body += _NESTED.pack(kind, _NESTED.size + len(nested)) + nested
        if zone is not None:
            body += _NUMBER.pack(_ZONE, _NUMBER.size, zone)
        length = HEADER.size + _EXPERIMENTER.size + len(body)
        head = HEADER.pack(OFP_VERSION, OFPT_EXPERIMENTER, length, xid)
    except (struct.error, OverflowError) as error:
        raise CodecError(f"ct_flush of zone {zone}, {original}, {reply}: {error}") from error
    return head + _EXPERIMENTER.pack(NX_VENDOR_ID, NXT_CT_FLUSH) + body


def _tuple(each: CtTuple) -> bytes:
    result = b""
    for kind, address in ((_SOURCE, each.source), (_DESTINATION, each.destination)):
        if address is not None:
            # An IPv4 address is given in its IPv6-mapped form (RFC 4291, section 2.5.5.2).
            value = address.value if address.version == 6 else 0xFFFF << 32 | address.value
            length = _PROPERTY.size + 16
            data = _PROPERTY.pack(kind, length) + value.to_bytes(16, "big")
            result += data.ljust(padded(length), b"\0")
    for kind, port in ((_SOURCE_PORT, each.source_port), (_DESTINATION_PORT, each.destination_port)):
        if port:
            result += _NUMBER.pack(kind, _NUMBER.size, port)
    if each.icmp is not None:
        result += _NUMBER.pack(_ICMP_ID, _NUMBER.size, each.icmp.id)
        result += _BYTE.pack(_ICMP_TYPE, _BYTE_LENGTH, each.icmp.type)
        result += _BYTE.pack(_ICMP_CODE, _BYTE_LENGTH, each.icmp.code)
    return result
