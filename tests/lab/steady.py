# SPDX-License-Identifier: Apache-2.0
"""Traffic that never rests: pings every 10 ms and open TCP connections between pods, both families, all ways.

What is lost is counted exactly: `ping` says which number it has no answer to, and the kernel says of a TCP connection
how often it had to send something again.
"""

from __future__ import annotations

import itertools
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sdn.lab import namespaces
from sdn.lab.state import PodRecord
from tests.lab.traffic import family_of

PING_SECONDS = 0.01
_SAY_SECONDS = 0.02
_PORT = 7000
#: tcpi_total_retrans of struct tcp_info (linux/tcp.h).
_TOTAL_RETRANS = 100
_ANSWER = re.compile(rb"icmp_seq=(\d+) (?!.*no answer)")
_PATIENCE = 30.0


@dataclass
class Way:
    """From one pod to an address of another."""

    source: PodRecord
    target: PodRecord
    address: str

    def __str__(self) -> str:
        return f"{self.source.name} -> {self.target.name} {self.address}"


@dataclass
class Loss:
    """What one way has lost."""

    way: Way
    sent: int = 0
    lost: list[int] = field(default_factory=list)


class _Ping:
    """`ping` inside a pod."""

    def __init__(self, way: Way, output: Path) -> None:
        self._way = way
        self._output = output
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", way.source.netns),
                    *("ping", "-n", "-O", "-i", str(PING_SECONDS), "-s", "16", way.address),
                ],
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )

    def end(self) -> Loss:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(_PATIENCE)
        answered = [int(number) for number in _ANSWER.findall(self._output.read_bytes())]
        # The last ones may still be on their way.
        sent = max(answered, default=0)
        assert sent, f"{self._way}: nothing was ever answered: {self._output.read_text()[:200]}"
        return Loss(self._way, sent, sorted(set(range(1, sent + 1)) - set(answered)))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class _Stream:
    """A TCP connection over which something is said, and answered, all the time."""

    def __init__(self, way: Way, port: int) -> None:
        self.way = way
        self.exchanges = 0
        self.longest = 0.0
        self.problem: BaseException | None = None
        self._ended = threading.Event()
        family = family_of(way.address)
        with ExitStack() as opened:
            with namespaces.entered(way.target.netns):
                listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((way.address, port))
            listener.listen()
            with namespaces.entered(way.source.netns):
                client = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            client.settimeout(_PATIENCE)
            client.connect((way.address, port))
            server, _ = listener.accept()
            listener.close()
            opened.pop_all()
        server.settimeout(_PATIENCE)
        self._ends = (client, server)
        for end in self._ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread = threading.Thread(target=self._run, name=f"stream {way}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        client, server = self._ends
        try:
            while not self._ended.wait(_SAY_SECONDS):
                began = time.monotonic()
                client.sendall(b"said")
                server.sendall(server.recv(64))
                client.recv(64)
                self.longest = max(self.longest, time.monotonic() - began)
                self.exchanges += 1
        except OSError as problem:  # told by whoever ends it
            self.problem = problem

    def end(self) -> int:
        """How many segments had to be sent again, in both directions."""
        self._ended.set()
        self._thread.join(_PATIENCE)
        if self.problem is not None:
            raise AssertionError(f"{self.way}: the connection broke: {self.problem}")
        assert self.exchanges, f"{self.way}: nothing was ever said"
        return sum(_retransmissions(end) for end in self._ends)

    def close(self) -> None:
        self._ended.set()
        for end in self._ends:
            end.close()


def _retransmissions(channel: socket.socket) -> int:
    info = channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    total: int = struct.unpack_from("I", info, _TOTAL_RETRANS)[0]
    return total


class Steady:
    """All of it, for the time of the `with` block, between all pods."""

    def __init__(self, pods: Sequence[PodRecord], folder: Path) -> None:
        self._ways = [
            Way(source, target, address)
            for source, target in itertools.permutations(pods, 2)
            for address in target.addresses
        ]
        self._folder = folder
        self._pings: list[_Ping] = []
        self._streams: list[_Stream] = []
        self.losses: list[Loss] = []
        #: Of TCP connections: the way, and how many segments had to be sent again.
        self.again: list[tuple[Way, int]] = []
        self.longest = 0.0
        self.exchanges = 0
        #: By how much this process ran late at most, seconds: what is lost on a machine that stands still is nobody's.
        self.stalled = 0.0
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._look_at_the_clock, name="clock", daemon=True)

    def _look_at_the_clock(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(PING_SECONDS):
            now = time.monotonic()
            self.stalled = max(self.stalled, now - before - PING_SECONDS)
            before = now

    @property
    def sent(self) -> int:
        return sum(loss.sent for loss in self.losses)

    @property
    def lost(self) -> list[Loss]:
        return [loss for loss in self.losses if loss.lost]

    def told(self) -> str:
        """In one line."""
        gone = "; ".join(f"{loss.way}: {len(loss.lost)}, first {loss.lost[0]}" for loss in self.lost)
        again = "; ".join(f"{way}: {count}" for way, count in self.again)
        return (
            f"{self.sent} pings on {len(self._ways)} ways, lost: {gone or 'none'}; {self.exchanges} exchanges over"
            f" {len(self._ways)} TCP connections, sent again: {again or 'none'}, the longest took"
            f" {self.longest * 1000:.0f} ms; this process was late by {self.stalled * 1000:.0f} ms at most"
        )

    def __enter__(self) -> Steady:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clock.start()
        try:
            for number, way in enumerate(self._ways):
                self._streams.append(_Stream(way, _PORT + number))
                self._pings.append(_Ping(way, self._folder / f"ping-{number}"))
        except BaseException:
            self._kill()
            raise
        return self

    def _kill(self) -> None:
        self._ended.set()
        for ping in self._pings:
            ping.kill()
        for stream in self._streams:
            stream.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.losses = [ping.end() for ping in self._pings]
                counts = [(stream.way, stream.end()) for stream in self._streams]
                self.again = [(way, count) for way, count in counts if count]
                self.longest = max(stream.longest for stream in self._streams)
                self.exchanges = sum(stream.exchanges for stream in self._streams)
        finally:
            self._kill()
