# SPDX-License-Identifier: Apache-2.0
"""Echo requests from many network namespaces at once, in one process.

A socket belongs for ever to the namespace that it was opened in. So one thread opens a raw ICMP socket in each source's
namespace and then speaks through all of them: a thousand pairs cost a thousand packets, not a thousand processes.
A reply counts only when it comes from the address that was asked. RFC 792, RFC 4443 section 4.
"""

from __future__ import annotations

import ipaddress
import secrets
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from sdn.lab import namespaces
from sdn.lab.waiting import patience

#: Requests that are on their way at the same time; a switch's first look at a flow is slow.
WINDOW = 48
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER = 1
_SO_RCVBUFFORCE = 33
_HEADER = struct.Struct("!BBHHH")
_PAYLOAD = struct.Struct("!8sIH")


class Probe(msgspec.Struct, frozen=True):
    """Ask `address` from inside the network namespace `netns`."""

    netns: str
    address: str


class Outcome(msgspec.Struct, frozen=True):
    """What came of a probe."""

    reachable: bool
    #: Of the attempt that was answered, milliseconds; None when none was.
    rtt_ms: float | None
    #: Requests sent.
    attempts: int
    #: Why a request could not even be sent.
    error: str = ""


class _Flight(msgspec.Struct):
    probe: Probe
    channel: socket.socket
    version: int
    attempts: int = 0
    sent: float = 0.0
    error: str = ""


def ping(probes: Sequence[Probe], *, attempts: int = 3, timeout: float = 1.0) -> list[Outcome]:
    """Send every probe, at most `attempts` times, `timeout` seconds (stretched) apart; outcomes in their order."""
    token = secrets.token_bytes(8)
    limit = patience(timeout)
    versions: list[int] = [ipaddress.ip_address(probe.address).version for probe in probes]
    channels = _open({(probe.netns, version) for probe, version in zip(probes, versions, strict=True)})
    flights = [
        _Flight(probe, channels[probe.netns, version], version)
        for probe, version in zip(probes, versions, strict=True)
    ]
    outcomes: list[Outcome | None] = [None] * len(probes)
    waiting = deque(range(len(probes)))
    in_flight: dict[int, None] = {}  # in the order of sending, so the oldest comes first
    try:
        with selectors.DefaultSelector() as selector:
            for place, channel in channels.items():
                selector.register(channel, selectors.EVENT_READ, place)
            while waiting or in_flight:
                while waiting and len(in_flight) < WINDOW:
                    index = waiting.popleft()
                    _send(flights[index], token, index)
                    in_flight[index] = None
                pause = max(0.0, min(flights[i].sent for i in in_flight) + limit - time.monotonic())
                for key, _ in selector.select(pause):
                    netns, version = key.data
                    for index, received in _receive(channels[netns, version], version, token, flights):
                        if index in in_flight:
                            del in_flight[index]
                            flight = flights[index]
                            rtt = (received - flight.sent) * 1000
                            outcomes[index] = Outcome(True, round(rtt, 3), flight.attempts)
                now = time.monotonic()
                for index in [i for i in in_flight if now - flights[i].sent >= limit]:
                    del in_flight[index]
                    flight = flights[index]
                    if flight.attempts < attempts:
                        waiting.append(index)
                    else:
                        outcomes[index] = Outcome(False, None, flight.attempts, flight.error)
    finally:
        for channel in channels.values():
            channel.close()
    return [outcome for outcome in outcomes if outcome is not None]


def _open(wanted: set[tuple[str, int]]) -> dict[tuple[str, int], socket.socket]:
    channels: dict[tuple[str, int], socket.socket] = {}
    try:
        for netns in sorted({name for name, _ in wanted}):
            with namespaces.entered(netns):
                for version in (4, 6):
                    if (netns, version) in wanted:
                        channels[netns, version] = _open_here(version)
    except BaseException:
        for channel in channels.values():
            channel.close()
        raise
    return channels


def _open_here(version: int) -> socket.socket:
    if version == 4:
        channel = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        channel.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _ECHO_REPLY[4]) & 0xFFFFFFFF))
    else:
        channel = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        words = [0xFFFFFFFF] * 8
        words[_ECHO_REPLY[6] >> 5] &= ~(1 << (_ECHO_REPLY[6] & 31)) & 0xFFFFFFFF
        channel.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
    channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 21)
    channel.setblocking(False)
    return channel


def _send(flight: _Flight, token: bytes, index: int) -> None:
    flight.attempts += 1
    flight.sent = time.monotonic()
    payload = _PAYLOAD.pack(token, index, flight.attempts)
    kind = _ECHO_REQUEST[flight.version]
    header = _HEADER.pack(kind, 0, 0, index & 0xFFFF, flight.attempts)
    if flight.version == 4:  # the kernel computes the one of ICMPv6 itself
        header = _HEADER.pack(kind, 0, checksum(header + payload), index & 0xFFFF, flight.attempts)
    try:
        flight.channel.sendto(header + payload, (flight.probe.address, 0))
        flight.error = ""
    except OSError as problem:  # no route, no neighbour; perhaps there is one at the next attempt
        flight.error = problem.strerror or str(problem)


def _receive(
    channel: socket.socket, version: int, token: bytes, flights: Sequence[_Flight]
) -> list[tuple[int, float]]:
    """Indexes of probes that are answered by what the socket holds, and when that was read."""
    found: list[tuple[int, float]] = []
    while True:
        try:
            data, sender = channel.recvfrom(2048)
        except BlockingIOError:
            return found
        now = time.monotonic()
        if version == 4:
            data = data[(data[0] & 0x0F) * 4 :]
        if len(data) < _HEADER.size + _PAYLOAD.size or data[0] != _ECHO_REPLY[version]:
            continue
        echoed, index, attempt = _PAYLOAD.unpack_from(data, _HEADER.size)
        if echoed != token or index >= len(flights):
            continue
        flight = flights[index]
        asked = ipaddress.ip_address(flight.probe.address)
        from_whom = ipaddress.ip_address(str(sender[0]).partition("%")[0])
        if flight.channel is channel and attempt == flight.attempts and from_whom == asked:
            found.append((index, now))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) over data whose own checksum field is zero."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
