# SPDX-License-Identifier: Apache-2.0
"""The ports of a rule as single integers, merged, with names apart.

A *port code* is a protocol and a range of destination ports in one integer; :data:`ALL_TRAFFIC` is whatever protocol
and port. Names are resolved later: what they mean depends on the pod that a connection goes to.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from sdn.model.clusternetworkpolicy import ClusterNetworkPolicyProtocol
from sdn.model.networkpolicy import NetworkPolicyPort
from sdn.policy.cells import PortMatch
from sdn.policy.ports import LATER_FRAGMENTS, cover
from sdn.policy.values import NamedPort, Protocol

#: All traffic of any protocol.
ALL_TRAFFIC: Final = -1
_LAST: Final = 0xFFFF
#: In a code: of later fragments.
_NO_PORT: Final = (1, 0)
_REMEMBERED: Final = 16_384


class Ports(NamedTuple):
    """What a rule says of ports: ``codes`` ascend and do not overlap; ``names`` are pairs of a name and a protocol, 0
    for any. Nothing in both: no port.
    """

    codes: tuple[int, ...]
    names: tuple[tuple[str, int], ...] = ()


#: A rule that says nothing of ports is for all traffic.
ALL: Final = Ports((ALL_TRAFFIC,))


def port_code(protocol: int, first: int, last: int) -> int:
    """Ports ``first`` to ``last`` of a protocol."""
    return int(protocol) << 32 | first << 16 | last


@lru_cache(maxsize=_REMEMBERED)
def port_match(code: int) -> PortMatch | None:
    """What a code stands for in a cell."""
    if code == ALL_TRAFFIC:
        return None
    first, last = code >> 16 & _LAST, code & _LAST
    if first > last:
        first = last = LATER_FRAGMENTS
    return PortMatch(Protocol(code >> 32), first, last)


@lru_cache(maxsize=_REMEMBERED)
def blocks(codes: tuple[int, ...], *, fragments: bool) -> tuple[int, ...]:
    """The same ports in blocks that one masked match takes each: of ranges that overlap, two can need the same block,
    which must be one cell then. With ``fragments``, those of the protocols that carry no port, too.
    """
    found: dict[int, None] = {}
    for code in codes:
        protocol, first, last = code >> 32, code >> 16 & _LAST, code & _LAST
        if code == ALL_TRAFFIC or (first, last) == (0, _LAST):
            found[code] = None
            continue
        for value, mask in cover(first, last):
            found[port_code(protocol, value, value | _LAST ^ mask)] = None
        if fragments:
            found[port_code(protocol, *_NO_PORT)] = None
    return tuple(found)


def covers(codes: Iterable[int], protocol: int, port: int) -> bool:
    """Whether one of these holds this port of this protocol."""
    return any(
        code == ALL_TRAFFIC or (code >> 32 == protocol and code >> 16 & _LAST <= port <= code & _LAST)
        for code in codes
    )


def resolved(ports: Ports, named: Iterable[NamedPort]) -> set[int]:
    """What the names of a rule mean on a pod with these named ports, less what the rule's numbers hold already."""
    return {
        port_code(one.protocol, one.port, one.port)
        for one in named
        for name, protocol in ports.names
        if one.name == name
        and protocol in (0, one.protocol)
        and not covers(ports.codes, one.protocol, one.port)
    }


@lru_cache(maxsize=_REMEMBERED)
def network_policy_ports(ports: tuple[NetworkPolicyPort, ...]) -> Ports:
    """The ports of a NetworkPolicy's rule."""
    if not ports:
        return ALL
    spans: list[tuple[int, int, int]] = []
    names: set[tuple[str, int]] = set()
    for one in ports:
        protocol = Protocol[one.protocol or "TCP"]
        if isinstance(one.port, str):
            names.add((one.port, int(protocol)))
        elif one.port is None:
            spans.append((protocol, 0, _LAST))
        else:
            spans.append((protocol, one.port, one.end_port or one.port))
    return Ports(_merged(spans), tuple(sorted(names)))


@lru_cache(maxsize=_REMEMBERED)
def cluster_policy_ports(protocols: tuple[ClusterNetworkPolicyProtocol, ...]) -> Ports:
    """The protocols of a ClusterNetworkPolicy's rule."""
    if not protocols:
        return ALL
    spans: list[tuple[int, int, int]] = []
    names: set[tuple[str, int]] = set()
    for one in protocols:
        if one.destination_named_port:
            names.add((one.destination_named_port, 0))
            continue
        for protocol, wanted in ((Protocol.TCP, one.tcp), (Protocol.UDP, one.udp), (Protocol.SCTP, one.sctp)):
            if wanted is None:
                continue
            port = wanted.destination_port
            if port is None:
                spans.append((protocol, 0, _LAST))
            elif port.range is not None:
                spans.append((protocol, port.range.start, port.range.end))
            else:
                spans.append((protocol, port.number, port.number))
    return Ports(_merged(spans), tuple(sorted(names)))


def _merged(spans: list[tuple[int, int, int]]) -> tuple[int, ...]:
    """Spans of ports as codes, those that overlap or touch as one."""
    merged: list[tuple[int, int, int]] = []
    for protocol, first, last in sorted(spans):
        if first > last:
            continue
        if merged and merged[-1][0] == protocol and first <= merged[-1][2] + 1:
            merged[-1] = protocol, merged[-1][1], max(merged[-1][2], last)
        else:
            merged.append((protocol, first, last))
    return tuple(port_code(*each) for each in merged)
