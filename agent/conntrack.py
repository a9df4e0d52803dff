# SPDX-License-Identifier: Apache-2.0
"""Connections that the node's own stack tracks, as `conntrack` shows them: what must be forgotten.

Translation is decided by a connection's first packet and then kept. UDP has no end that could be seen, so a client that
goes on sending would keep being translated to what is no more, or not be translated to what has come.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from agent.ipam import Address

#: (address of the node, port)
Destination = tuple[Address, int]
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget_udp(destinations: Collection[Destination]) -> int:
    """Remove the UDP connections that clients opened to these destinations; how many there were. OSError.

    Only what the node's stack tracks itself: on the kernel datapath the switch keeps its connections in the same
    table, in zones of its own.
    """
    forgotten = 0
    for version, family in _FAMILY.items():
        wanted = {(str(address), port) for address, port in destinations if address.version == version}
        if not wanted:
            continue
        with NFCTSocket(nfgen_family=family) as table:
            stale = [entry for entry in table.dump() if _is_one(entry, family, wanted)]
            for entry in stale:
                forgotten += _delete(table, entry, family)
    return forgotten


def _is_one(entry: Any, family: int, wanted: Collection[tuple[str, int]]) -> bool:
    original = entry.get_attr("CTA_TUPLE_ORIG")
    if entry["nfgen_family"] != family or original is None or entry.get_attr("CTA_ZONE"):
        return False
    ports = original.get_attr("CTA_TUPLE_PROTO")
    if ports.get_attr("CTA_PROTO_NUM") != socket.IPPROTO_UDP:
        return False
    return (_address(original, family, "DST"), int(ports.get_attr("CTA_PROTO_DST_PORT"))) in wanted


def _address(original: Any, family: int, end: str) -> str:
    version = "V4" if family == socket.AF_INET else "V6"
    return str(original.get_attr("CTA_TUPLE_IP").get_attr(f"CTA_IP_{version}_{end}"))


def _delete(table: Any, entry: Any, family: int) -> int:
    original = entry.get_attr("CTA_TUPLE_ORIG")
    ports = original.get_attr("CTA_TUPLE_PROTO")
    key = NFCTAttrTuple(
        family=family,
        saddr=_address(original, family, "SRC"),
        daddr=_address(original, family, "DST"),
        proto=socket.IPPROTO_UDP,
        sport=ports.get_attr("CTA_PROTO_SRC_PORT"),
        dport=ports.get_attr("CTA_PROTO_DST_PORT"),
    )
    try:
        table.entry("del", tuple_orig=key)
    except NetlinkError as problem:
        if problem.code != errno.ENOENT:
            raise OSError(problem.code, f"forget a connection: {problem}") from problem
        return 0
    return 1
