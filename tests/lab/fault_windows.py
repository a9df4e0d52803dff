# SPDX-License-Identifier: Apache-2.0
"""When a packet may be lost: while a switch of its way was down, or its machine did not let that switch run.

    python -S -m tests.lab.fault_windows NODE=PIDFILE...     until stdin ends; a line of JSON for each stall

The switch's datapath is its main thread. The kernel counts for how long a thread was ready to run and was not let
(/proc/PID/schedstat, second number, nanoseconds): what came meanwhile waits in queues that hold a tenth of a second.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.lab.service_sockets import TREE

if TYPE_CHECKING:
    from sdn.lab.lab import Lab

#: Between two looks, seconds.
_EVERY = 0.05
#: For so much of the time between two looks a switch must have waited for a processor to be called stalled, seconds.
STALL = 0.1
#: What was under way when a switch was killed may have been sent so many seconds before.
_UNDER_WAY = 0.2


@dataclass(frozen=True)
class Span:
    """Of one node; times of time.monotonic()."""

    node: str
    begin: float
    end: float


@dataclass
class Outages:
    """When which node's switch was down, as far as the test itself has ended it."""

    spans: list[Span] = field(default_factory=list)
    _open: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def down(self, node: str) -> Iterator[None]:
        """For the time of the `with` block."""
        begin = time.monotonic()
        with self._lock:
            self._open[node] = begin
        try:
            yield
        finally:
            with self._lock:
                del self._open[node]
                self.spans.append(Span(node, begin, time.monotonic()))

    def covers(self, nodes: Iterable[str], begin: float, end: float) -> bool:
        """Whether the switch of one of these nodes was down at any time from begin to end."""
        return overlaps(self.spans, nodes, begin, end + _UNDER_WAY)

    def told(self) -> str:
        """How long, in one line."""
        lengths = sorted(span.end - span.begin for span in self.spans)
        if not lengths:
            return "no switch was restarted"
        middle = lengths[len(lengths) // 2]
        return f"{len(lengths)} restarts of a switch, p50 {middle:.1f} s, the longest {lengths[-1]:.1f} s"


def overlaps(spans: Sequence[Span], nodes: Iterable[str], begin: float, end: float) -> bool:
    """Whether any span of these nodes has a moment from begin to end."""
    wanted = set(nodes)
    return any(span.node in wanted and span.begin <= end and begin <= span.end for span in spans)


class Stalls:
    """The process that looks, for the time of the `with` block; afterwards `spans` tells when which switch stood."""

    def __init__(self, lab: Lab, output: Path) -> None:
        self.spans: list[Span] = []
        self._output = output
        switches = [f"{n.name}={lab.folder / n.name}/ovs-vswitchd.pid" for n in lab.spec.node_machines]
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "tests.lab.fault_windows", *switches],
                stdin=subprocess.PIPE,
                stdout=stdout,
                cwd=TREE,
            )

    def __enter__(self) -> Stalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode != 0:
            raise OSError(f"the process that looks for stalls ended with {self._process.returncode}")
        lines = self._output.read_text(encoding="ascii").splitlines()
        self.spans = [Span(*json.loads(line)) for line in lines]

    def told(self) -> str:
        """How often and how long, in one line."""
        if not self.spans:
            return f"no switch waited {STALL * 1000:.0f} ms for a processor"
        longest = max(span.end - span.begin for span in self.spans)
        return f"switches waited for a processor {len(self.spans)} times, for {longest * 1000:.0f} ms at most"


def _waited(pid_file: str) -> tuple[int, float] | None:
    """The switch's pid and how many seconds its main thread has waited; None while there is none."""
    with suppress(OSError, ValueError, IndexError):
        pid = int(Path(pid_file).read_text(encoding="ascii"))
        return pid, int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    return None


def main() -> None:
    files = dict(argument.split("=", 1) for argument in sys.argv[1:])
    before = {node: _waited(file) for node, file in files.items()}
    looked = time.monotonic()
    while not select.select([0], [], [], _EVERY)[0] or os.read(0, 1):
        now = time.monotonic()
        for node, file in files.items():
            last, found = before[node], _waited(file)
            before[node] = found
            if last is not None and found is not None and last[0] == found[0] and found[1] - last[1] >= STALL:
                print(json.dumps([node, looked, now]), flush=True)
        looked = now


if __name__ == "__main__":
    main()
