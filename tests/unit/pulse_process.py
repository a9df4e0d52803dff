# SPDX-License-Identifier: Apache-2.0
"""A controller that does nothing but be there: its heartbeats' process, and itself, which can be stopped, killed, made
busy, and made to hang.

Run as a program, this is such a controller: it prints where its heartbeats listen and their process, reads whom to
listen for from stdin, or ``hang``, and prints what it is told.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.ha.pulse import TICK_SECONDS, Pulse
from sdn import logs
from tests.unit.heartbeat_process import PATIENCE, Collected, Told

#: What it ends with when one of its threads ends by an exception.
FAILED = 3


class Controller:
    """``busy`` threads compute all the time; ``hung_seconds`` as :class:`Pulse` takes it."""

    def __init__(self, name: str, *, busy: int = 0, hung_seconds: float = 60.0) -> None:
        self.told = Collected()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, name, str(busy), str(hung_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        port, self.pulse_pid = json.loads(self._process.stdout.readline())
        #: As it is given to `peers`.
        self.named = {name: (f"{name}1", f"127.0.0.1:{port}")}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.queue.put(Told(*json.loads(line)))

    def peers(self, named: Mapping[str, tuple[str, str]]) -> None:
        self._say(dict(named))

    def hang(self) -> None:
        """It is at work no more, but runs."""
        self._say("hang")

    def _say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """With what it ends."""
        return self._process.wait(PATIENCE)

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


def _compute() -> None:
    while True:
        sum(range(100_000))


def _main(name: str, busy: str, hung_seconds: str) -> None:
    logs.setup()
    threading.excepthook = lambda _: os._exit(FAILED)
    lock, hangs = threading.Lock(), threading.Event()

    def tell(*told: object) -> None:
        with lock:
            print(json.dumps([*told, time.monotonic()]), flush=True)

    def tick() -> None:
        while not hangs.wait(TICK_SECONDS):
            pulse.tick()

    pulse = Pulse(
        name,
        f"{name}1",
        "127.0.0.1:0",
        lambda *silent: tell("silent", *silent),
        lambda *heard: tell("heard", *heard, ""),
        hung_seconds=float(hung_seconds),
    )
    pulse.wait_ready()
    print(json.dumps([pulse.port, pulse.pid]), flush=True)
    threading.Thread(target=tick, daemon=True).start()
    for _ in range(int(busy)):
        threading.Thread(target=_compute, daemon=True).start()
    for line in sys.stdin:
        said = json.loads(line)
        if said == "hang":
            hangs.set()
        else:
            pulse.peers({name: (incarnation, address) for name, (incarnation, address) in said.items()})


if __name__ == "__main__":
    _main(*sys.argv[1:])
