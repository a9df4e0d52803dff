# SPDX-License-Identifier: Apache-2.0
"""Numbered datagrams, all the time: from many pods to many ports, each answered, and a record of what became of each.

    python -S -m tests.lab.policy_stream     the plan as a line of JSON on stdin; its end ends it; the record on stdout

Every second datagram of a way comes from a socket that stays, so that it belongs to a connection that is known; the
others come from sockets that are new every few datagrams.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from sdn.lab.waiting import patience
from tests.lab.service_sockets import TREE, family_of, opened

_WORDS = struct.Struct("!4sII")
_MAGIC = b"wAy!"
_SO_RCVBUFFORCE = 33
#: Datagrams from a socket that does not stay.
_FRESH = 5
#: Ways that send at the same moment; more would come as a burst.
_AT_ONCE = 6
#: Seconds (stretched) in which what was sent at the end may still arrive.
_LINGER = 0.8


@dataclass(frozen=True)
class Way:
    """From inside `netns` to `address`:`port` of a pod, whose namespace is `target`."""

    source: str
    destination: str
    netns: str
    target: str
    address: str
    port: int
    same_node: bool


class Datagram(NamedTuple):
    """Times of time.monotonic(); 0.0: it did not arrive, or its answer did not."""

    sent: float
    received: float
    answered: float
    #: Whether its socket stays.
    steady: bool


class Stream:
    """The process, for the time of a `with` block; afterwards `record` tells of each way what it sent."""

    def __init__(self, ways: Sequence[Way], rate: int, output: Path) -> None:
        self.ways = tuple(ways)
        self.record: dict[Way, list[Datagram]] = {}
        self._output = output
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "tests.lab.policy_stream"],
                stdin=subprocess.PIPE,
                stdout=stdout,
                text=True,
                cwd=TREE,
            )
        assert self._process.stdin is not None
        plan = {"ways": [asdict(way) for way in ways], "rate": rate}
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(patience(30))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if kind is not None:
            return
        if self._process.returncode != 0:
            raise OSError(f"the stream's process ended with {self._process.returncode}")
        told = json.loads(self._output.read_text(encoding="ascii"))
        for way, datagrams in zip(self.ways, told, strict=True):
            self.record[way] = [
                Datagram(*times, steady=number % 2 == 0) for number, times in enumerate(datagrams) if times[0]
            ]

    @property
    def sent(self) -> int:
        return sum(map(len, self.record.values()))


class _Sender:
    """One way's sockets and what was sent through them."""

    def __init__(self, number: int, way: Way) -> None:
        self.way = way
        self.times: list[list[float]] = []
        self._number = number
        self._steady = self._open()
        self._fresh = self._open()
        self._former: socket.socket | None = None

    def _open(self) -> socket.socket:
        channel = opened(self.way.netns, "udp", family_of(self.way.address))
        channel.setblocking(False)
        return channel

    def send(self) -> None:
        count = len(self.times)
        if count % (2 * _FRESH) == 1:
            if self._former is not None:
                self._former.close()
            # Answers to the last ones may still come.
            self._former, self._fresh = self._fresh, self._open()
        channel = self._fresh if count % 2 else self._steady
        data = _WORDS.pack(_MAGIC, self._number, count)
        now = time.monotonic()
        try:
            channel.sendto(data, (self.way.address, self.way.port))
        except OSError:  # a full buffer, or nobody answers for the next hop: not sent
            now = 0.0
        self.times.append([now, 0.0, 0.0])

    def answers(self) -> None:
        for channel in (self._steady, self._fresh, self._former):
            if channel is None:
                continue
            with suppress(OSError):
                while True:
                    magic, number, count = _WORDS.unpack(channel.recv(64))
                    if magic == _MAGIC and number == self._number:
                        self.times[count][2] = time.monotonic()


def _run(ways: Sequence[Way], rate: int) -> list[_Sender]:
    senders = [_Sender(number, way) for number, way in enumerate(ways)]
    selector = selectors.DefaultSelector()
    for target, address, port in sorted({(way.target, way.address, way.port) for way in ways}):
        channel = opened(target, "udp", family_of(address))
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        channel.bind((address, port))
        channel.setblocking(False)
        selector.register(channel, selectors.EVENT_READ)
    os.set_blocking(0, False)
    groups = [senders[start : start + _AT_ONCE] for start in range(0, len(senders), _AT_ONCE)]
    pause = 1 / (rate * len(groups))
    turn, due, end = 0, time.monotonic(), float("inf")
    while (now := time.monotonic()) < end:
        if end == float("inf") and now >= due:
            for sender in groups[turn % len(groups)]:
                sender.send()
            for sender in groups[(turn + 1) % len(groups)]:
                sender.answers()
            turn += 1
            # What was missed while nobody let this process run is not sent at once.
            due = max(due + pause, now)
            with suppress(BlockingIOError):
                if not os.read(0, 1):
                    end = now + patience(_LINGER)
        elif end < float("inf"):
            for sender in senders:
                sender.answers()
        for key, _ in selector.select(max(0.0, min(due, end) - time.monotonic()) if end > now else 0):
            _receive(key.fileobj, senders)  # type: ignore[arg-type]
    return senders


def _receive(channel: socket.socket, senders: Sequence[_Sender]) -> None:
    while True:
        try:
            data, sender = channel.recvfrom(64)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error about an earlier answer
            continue
        magic, number, count = _WORDS.unpack(data)
        if magic == _MAGIC:
            senders[number].times[count][1] = time.monotonic()
            with suppress(OSError):
                channel.sendto(data, sender)


def main() -> None:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    plan = json.loads(line)
    senders = _run([Way(**fields) for fields in plan["ways"]], plan["rate"])
    json.dump([sender.times for sender in senders], sys.stdout)


if __name__ == "__main__":
    main()
