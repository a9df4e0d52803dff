# SPDX-License-Identifier: Apache-2.0
"""New TCP connections: how long one takes, and how many a second there can be."""

from __future__ import annotations

import errno
import re
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from tests.bench import netns, process
from tests.bench.frame import Figure
from tests.switch.ovs import PrivateSwitch

AT_ONCE: Final = 32
CONNECT_SECONDS: Final = 10.0
_FIRST_PORT: Final = 10_000
"""Ports of the client from here on; the kernel would take some of them again and again."""
#: SO_LINGER that ends a connection by a reset, so that no address stays taken.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Rate:
    """New connections through the switch, and what each cost it."""

    a_second: float
    #: Milliseconds of processor time of ovs-vswitchd a connection.
    switch_cpu: float
    #: Packets a connection for which the datapath had no flow and asked for one.
    misses: float


@dataclass(frozen=True)
class Rates:
    """Through a group that spreads by dp_hash, through the same with hash, and pod to pod; a round each."""

    dp_hash: tuple[Rate, ...]
    hash: tuple[Rate, ...]
    straight: tuple[Rate, ...]


def connect(client: str, address: str, port: int) -> float:
    """Milliseconds that TCP's connect took from a namespace. OSError when it failed."""
    with netns.entered(client), socket.socket() as one:
        one.settimeout(CONNECT_SECONDS)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        began = time.perf_counter()
        one.connect((address, port))
        return (time.perf_counter() - began) * 1e3


def rate(client: str, address: str, port: int, count: int, switch: PrivateSwitch) -> Rate:
    """Connects so often, AT_ONCE at a time, each from a port of its own. RuntimeError when one fails.

    The datapath begins without flows and tracks no connections: what each connection costs it is seen, and not what
    was left by connections from the same port.
    """
    switch.appctl("dpctl/flush-conntrack")
    switch.appctl("revalidator/purge")
    misses, busy = _misses(switch), process.cpu_seconds(switch.vswitchd_pid)
    with netns.entered(client):
        began = time.perf_counter()
        _connect(count, (address, port))
        lasted = time.perf_counter() - began
    used = process.cpu_seconds(switch.vswitchd_pid) - busy
    return Rate(count / lasted, used * 1e3 / count, (_misses(switch) - misses) / count)


def _connect(count: int, target: tuple[str, int]) -> None:
    poll = select.epoll()
    waiting: dict[int, socket.socket] = {}
    left = count
    while left or waiting:
        while len(waiting) < AT_ONCE and left:
            left -= 1
            one = socket.socket()
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.bind(("", _FIRST_PORT + left))
            if (code := one.connect_ex(target)) not in (0, errno.EINPROGRESS):
                raise RuntimeError(f"connecting to {target}: {errno.errorcode[code]}")
            waiting[one.fileno()] = one
            poll.register(one, select.EPOLLOUT)
        ready = poll.poll(CONNECT_SECONDS)
        if not ready:
            raise RuntimeError(f"connecting to {target}: {len(waiting)} connections without an answer")
        for number, _ in ready:
            one = waiting.pop(number)
            poll.unregister(one)
            code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            one.close()
            if code:
                raise RuntimeError(f"connecting to {target}: {errno.errorcode[code]}")


def _misses(switch: PrivateSwitch) -> int:
    """Packets so far that the datapath had no flow for."""
    shown = switch.appctl("dpif-netdev/pmd-stats-show")
    return sum(map(int, re.findall(r"miss with (?:success|failed) upcall: (\d+)", shown)))


def figures(rates: Rates) -> list[Figure]:
    """The group as it is beside the same with selection_method=hash, and pod to pod for scale."""
    ours, peer, straight = (
        tuple(zip(*((one.a_second, one.switch_cpu, one.misses) for one in series), strict=True))
        for series in (rates.dp_hash, rates.hash, rates.straight)
    )
    return [
        Figure("new connections, dp_hash beside hash", "1/s", ours[0], peer[0], better="higher"),
        Figure("switch's CPU a connection, dp_hash beside hash", "ms", ours[1], peer[1]),
        Figure("misses a connection, dp_hash beside hash", "packets", ours[2], peer[2]),
        Figure("new connections, Service beside pod to pod", "1/s", ours[0], straight[0], better="higher"),
        Figure("switch's CPU a connection, Service beside pod to pod", "ms", ours[1], straight[1]),
    ]
