# SPDX-License-Identifier: Apache-2.0
"""What servers and clients in many network namespaces say to each other, and the sockets they say it through.

A socket belongs for ever to the namespace that it was opened in, so one process serves in all pods and on all nodes,
and one asks from all of them: a thousand requests cost a thousand sockets, not a thousand processes. Needs nothing but
the standard library and sdn.lab.namespaces.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from sdn.lab import namespaces

TREE = Path(__file__).parents[2]
TRANSPORTS = ("tcp", "udp", "sctp")
#: The most that is read at once, bytes.
BUFFER = 1 << 16
_IPPROTO_SCTP = 132


@dataclass(frozen=True)
class Listener:
    """Answer as `name` on `address`:`port` inside the namespace `netns`."""

    netns: str
    name: str
    transport: str
    address: str
    port: int


@dataclass(frozen=True)
class Request:
    """Ask once, with a connection and a source port of its own, from inside the namespace `netns`."""

    netns: str
    transport: str
    address: str
    port: int
    #: Bytes of a datagram, for both ways; short ones suffice to hold what is said.
    size: int = 0
    #: Own address to ask from; empty: the kernel chooses.
    source: str = ""
    #: Seconds (stretched) to wait for an answer, and how many times that is tried.
    timeout: float = 2.0
    attempts: int = 3


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    #: "answered", "refused" (TCP reset or ICMP port unreachable at once), "unreachable" (other ICMP errors), "silence"
    #: (nothing came), "broken" (the connection ended without an answer), "error" (the request could not be sent).
    outcome: str
    #: Who answered, and whom he saw.
    name: str = ""
    source: str = ""
    source_port: int = 0
    #: The client's own end.
    own: str = ""
    own_port: int = 0
    attempts: int = 1
    #: When the last attempt began, and ended (time.monotonic(), the same for all processes of a machine).
    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    #: What the last attempt said, by which a server knows it again.
    token: str = ""

    @property
    def seconds(self) -> float:
        """How long the last attempt took."""
        return self.ended - self.began


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(netns: str, transport: str, family: socket.AddressFamily) -> socket.socket:
    """A socket of the namespace."""
    with namespaces.entered(netns):
        if transport == "udp":
            return socket.socket(family, socket.SOCK_DGRAM)
        return socket.socket(family, socket.SOCK_STREAM, _IPPROTO_SCTP if transport == "sctp" else 0)
