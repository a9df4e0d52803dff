# SPDX-License-Identifier: Apache-2.0
"""Heartbeats in processes of their own, which can be stopped and killed; and peers made of plain sockets.

Run as a program, this is such a process: it prints its ports, reads whom to listen for from stdin, and prints what it
is told, each with the time on the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from controller.ha import heartbeat
from controller.ha.heartbeat import Heartbeats
from controller.ha.wire import Greeting, parse
from controller.listening import listen

PATIENCE = 60.0


class Told(NamedTuple):
    """``what`` is "silent" or "heard"; ``why`` is empty for the second."""

    what: str
    name: str
    incarnation: str
    why: str
    at: float


class Collected:
    """What callbacks were told."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Told] = queue.SimpleQueue()

    def silent(self, name: str, incarnation: str, why: str) -> None:
        self.queue.put(Told("silent", name, incarnation, why, time.monotonic()))

    def heard(self, name: str, incarnation: str) -> None:
        self.queue.put(Told("heard", name, incarnation, "", time.monotonic()))

    def next(self) -> Told:
        return self.queue.get(timeout=PATIENCE)

    def nothing_for(self, seconds: float) -> None:
        """Fail if anything is told within so many seconds."""
        try:
            told = self.queue.get(timeout=seconds)
        except queue.Empty:
            return
        raise AssertionError(f"told {told}")


class Remote:
    """A process with the heartbeats of ``names``, each of which listens on ``host`` and a port of its own.

    ``busy`` threads compute all the time; ``silence`` are the seconds that count as death. ``prefix`` is a command to
    run it with, such as one that enters a network namespace.
    """

    def __init__(
        self,
        names: Sequence[str] = ("b",),
        *,
        host: str = "127.0.0.1",
        busy: int = 0,
        silence: float = heartbeat.SILENCE_SECONDS,
        prefix: Sequence[str] = (),
    ) -> None:
        self.told = Collected()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", __spec__.name, host, str(busy), str(silence), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        #: As they are given to `peers`.
        self.named = {name: (f"{name}1", f"{host}:{port}") for name, port in zip(names, ports, strict=True)}
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.queue.put(Told(*json.loads(line)))

    def peers(self, named: Mapping[str, tuple[str, str]]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(named).encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> float:
        """Gives the time at which it was sent."""
        at = time.monotonic()
        self._process.send_signal(number)
        return at

    def cpu_seconds(self) -> float:
        """Seconds of a processor that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class RawPeer:
    """A peer made of plain sockets: accepts one connection after the other and hands each to ``serve``."""

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        """``serve`` gets the connection and its number, from 0; it is closed afterwards."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection, number), daemon=True).start()
            number += 1

    def _one(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                self._serve(connection, number)
            except OSError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def greet(connection: socket.socket, name: str, incarnation: str) -> None:
    """Wait for a greeting, and answer it."""
    data = b""
    while parse(data) is None:
        received = connection.recv(1024)
        if not received:
            raise ConnectionError
        data += received
    connection.sendall(Greeting(name, incarnation).encode())


def answer(connection: socket.socket, beats: int | None = None) -> None:
    """Send back what comes: so many times, or until the other end closes."""
    while beats is None or beats > 0:
        data = connection.recv(1024)
        if not data:
            return
        connection.sendall(data)
        beats = None if beats is None else beats - 1


def _compute() -> None:
    while True:
        sum(range(1000))


def _main(host: str, busy: str, silence: str, *names: str) -> None:
    heartbeat.SILENCE_SECONDS = float(silence)  # type: ignore[misc]
    sys.setswitchinterval(0.001)  # as the controller does
    lock = threading.Lock()

    def tell(*told: object) -> None:
        with lock:
            print(json.dumps([*told, time.monotonic()]), flush=True)

    beating = [
        Heartbeats(
            name,
            f"{name}1",
            listen(f"{host}:0"),
            lambda name, incarnation, why: tell("silent", name, incarnation, why),
            lambda name, incarnation: tell("heard", name, incarnation, ""),
        )
        for name in names
    ]
    print(json.dumps([each.port for each in beating]), flush=True)
    for _ in range(int(busy)):
        threading.Thread(target=_compute, daemon=True).start()
    for line in sys.stdin:
        for each in beating:
            each.peers(
                {name: (incarnation, address) for name, (incarnation, address) in json.loads(line).items()}
            )


if __name__ == "__main__":
    _main(*sys.argv[1:])
