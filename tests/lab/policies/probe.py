# SPDX-License-Identifier: Apache-2.0
"""Hundreds of connections tried at once: those that are allowed are answered, and of the others nothing is heard.

A socket belongs for ever to the namespace that it was opened in, so this process asks from all pods and nodes; another
one, of tests/lab/service_servers.py, answers in all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sdn.lab import namespaces, probe
from tests.lab.service_clients import ask
from tests.lab.service_sockets import Answer, Request

FAMILIES = ("IPv4", "IPv6")
TRANSPORTS = ("tcp", "udp")
PORTS = (80, 81)
#: Seconds (stretched) that one attempt of what is allowed may take. Lost packets and a busy machine cost attempts,
#: and are no denial.
PATIENCE = 1.0
#: Of each namespace; it has about a hundred connections a round, and some are tried again.
_PORTS_A_ROUND = 256


@dataclass(frozen=True)
class Place:
    """A pod (NAMESPACE/NAME), a node, or ``outside``: where connections begin and end."""

    name: str
    netns: str
    node: str
    addresses: Mapping[str, str]
    """By family."""
    is_pod: bool = True


@dataclass(frozen=True)
class Way:
    """One connection between two places."""

    source: str
    destination: str
    family: str
    transport: str
    """tcp, udp, icmp."""
    port: int = 0
    """Where it arrives, after a Service was translated; 0 of icmp."""
    frontend: tuple[str, int] | None = None
    """Address and port of a Service that leads there; None: the destination itself is asked."""

    def __str__(self) -> str:
        words = [self.source, ">", self.destination, self.transport, str(self.port or ""), self.family]
        through = f" through {self.frontend[0]} {self.frontend[1]}" if self.frontend else ""
        return " ".join(word for word in words if word) + through


def matrix(
    sources: Iterable[Place],
    destinations: Iterable[Place],
    *,
    transports: Iterable[str] = TRANSPORTS,
    ports: Iterable[int] = PORTS,
) -> Iterator[Way]:
    """From each of the ones to each of the others, in all families, transports and ports. Of what a node or a machine
    outside sends only that to pods is anybody's business here.
    """
    destinations = list(destinations)
    for source in sources:
        for destination in destinations:
            if not source.is_pod and not destination.is_pod:
                continue
            for family in source.addresses.keys() & destination.addresses.keys():
                for transport in transports:
                    if transport == "icmp":
                        yield Way(source.name, destination.name, family, transport)
                        continue
                    for port in ports:
                        yield Way(source.name, destination.name, family, transport, port)


def meant(pattern: str, ways: Iterable[Way]) -> list[Way]:
    """The ways that a test speaks of: ``x/a > y/*``, with a transport, a port and a family, or without, in any order.
    AssertionError if it speaks of none.
    """
    source, arrow, destination, *rest = pattern.split()
    assert arrow == ">", pattern
    found = [
        way
        for way in ways
        if fnmatchcase(way.source, source)
        and fnmatchcase(way.destination, destination)
        and set(rest) <= {way.transport, str(way.port), way.family}
    ]
    assert found, f"{pattern}: there is no such way"
    return found


def faults(
    places: Mapping[str, Place], expected: Mapping[Way, bool], *, silence: float, attempts: int
) -> dict[Way, str]:
    """Try all ways at once, and say of each that is not as expected what came of it.

    What is allowed is tried `attempts` times; of what is denied nothing may be heard for `silence` seconds (stretched).
    """
    _take_fresh_ports({places[way.source].netns for way in expected})
    asked = [way for way in expected if way.transport != "icmp"]
    requests = [request(places, way, expected[way], silence=silence, attempts=attempts) for way in asked]
    answers = zip(asked, ask(*requests, window=len(requests) or 1), strict=True)
    found = {way: fault(places, way, expected[way], answer) for way, answer in answers}
    for allowed, limits in ((True, (attempts, PATIENCE)), (False, (1, silence))):
        echoes = [way for way in expected if way.transport == "icmp" and expected[way] is allowed]
        probes = [
            probe.Probe(places[way.source].netns, places[way.destination].addresses[way.family])
            for way in echoes
        ]
        for way, outcome in zip(
            echoes, probe.ping(probes, attempts=limits[0], timeout=limits[1]), strict=True
        ):
            heard = "is answered" if outcome.reachable else "is not answered"
            found[way] = heard if outcome.reachable is not allowed else ""
    return {way: what for way, what in found.items() if what}


_fresh = itertools.cycle(range(10_000, 60_000, _PORTS_A_ROUND))


def _take_fresh_ports(netns: Iterable[str]) -> None:
    """Let clients of these namespaces have ports that none had for some minutes: what a switch's tracker still knows
    of a connection of an earlier round is no new connection.
    """
    first = next(_fresh)
    for name in netns:
        namespaces.sysctl(name, {"net/ipv4/ip_local_port_range": f"{first} {first + _PORTS_A_ROUND - 1}"})


def request(
    places: Mapping[str, Place], way: Way, allowed: bool, *, silence: float, attempts: int
) -> Request:
    """What the source of a way sends."""
    address, port = way.frontend or (places[way.destination].addresses[way.family], way.port)
    return Request(
        places[way.source].netns,
        way.transport,
        address,
        port,
        timeout=PATIENCE if allowed else silence,
        attempts=attempts if allowed else 1,
    )


def fault(places: Mapping[str, Place], way: Way, allowed: bool, answer: Answer) -> str:
    """What is wrong with an answer; empty: nothing."""
    if not allowed:
        if answer.outcome == "silence":
            return ""
        heard = f"{answer.outcome} {answer.name} {answer.error}".strip()
        return f"is denied, but: {heard}, asked from port {answer.own_port}"
    if answer.outcome != "answered":
        return f"is allowed, but: {answer.outcome} {answer.error} after {answer.attempts} attempts"
    if answer.name != way.destination:
        return f"is answered by {answer.name}"
    # What policies were asked about must be what there is: pods and nodes are seen as themselves.
    own = places[way.source].addresses[way.family]
    if (
        places[way.destination].is_pod
        and way.source not in ("outside", way.destination)
        and answer.source != own
    ):
        return f"is seen as {answer.source} instead of {own}"
    return ""
