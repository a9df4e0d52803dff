# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom: every pod to every pod and every node, every node to every pod, in both families."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sdn.lab import probe
from sdn.lab.spec import LabSpec
from sdn.lab.state import PodRecord

#: Ways between two places, in the order in which they are shown.
KINDS = (
    "pod to pod, same node",
    "pod to pod, other node",
    "pod to its own node",
    "pod to another node",
    "node to its own pod",
    "node to another node's pod",
)


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """One way, one family: was there an answer?"""

    kind: str
    source: str
    destination: str
    #: "ipv4" or "ipv6".
    family: str
    address: str
    reachable: bool
    rtt_ms: float | None
    attempts: int
    error: str = ""


def measure(
    spec: LabSpec, pods: Sequence[PodRecord], *, attempts: int = 3, timeout: float = 1.0
) -> list[Reach]:
    """Try all ways; a request without an answer is repeated, `attempts` in all."""
    ways = list(_ways(spec, pods))
    outcomes = probe.ping([way.probe for way in ways], attempts=attempts, timeout=timeout)
    return [
        Reach(
            kind=way.kind,
            source=way.source,
            destination=way.destination,
            family=_family(way.probe.address),
            address=way.probe.address,
            reachable=outcome.reachable,
            rtt_ms=outcome.rtt_ms,
            attempts=outcome.attempts,
            error=outcome.error,
        )
        for way, outcome in zip(ways, outcomes, strict=True)
    ]


class _Way(msgspec.Struct, frozen=True):
    kind: str
    source: str
    destination: str
    probe: probe.Probe


def _ways(spec: LabSpec, pods: Sequence[PodRecord]) -> Iterator[_Way]:
    versions: set[int] = {ipaddress.ip_network(text).version for text in spec.cluster_ranges}
    for source in pods:
        for target in pods:
            if source != target:
                kind = KINDS[0] if source.node == target.node else KINDS[1]
                for address in target.addresses:
                    yield _Way(kind, source.full_name, target.full_name, probe.Probe(source.netns, address))
        for node in spec.node_machines:
            own = node.name == source.node
            for address in _of(versions, (node.ipv4, node.ipv6)):
                kind = KINDS[2] if own else KINDS[3]
                yield _Way(kind, source.full_name, node.name, probe.Probe(source.netns, address))
            for address in source.addresses:
                kind = KINDS[4] if own else KINDS[5]
                yield _Way(kind, node.name, source.full_name, probe.Probe(node.netns, address))


def _of(versions: set[int], addresses: Iterable[str]) -> list[str]:
    return [address for address in addresses if ipaddress.ip_address(address).version in versions]


def _family(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"
