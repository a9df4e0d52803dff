# SPDX-License-Identifier: Apache-2.0
"""When a packet may be lost: while a switch of its way was down, or its machine did not let that switch run.

    python -S -m tests.lab.fault_windows NODE=PIDFILE...     until stdin ends; a line of JSON for each stall

The switch's datapath is its main thread. The kernel counts for how long a thread was ready to run and was not let
(/proc/PID/schedstat, second number, nanoseconds), and how often it was let (third number): one that it was not let once
between two looks, and that stands in the kernel at both (state D of /proc/PID/stat), has waited there. In user space a
switch does so whenever a pod goes: it closes the packet socket of the port, and close(2) comes back when the kernel has
made sure that nobody reads it any more (synchronize_rcu: up to 0.3 s were seen on two busy cores); and when it asks for
its devices while others are removed (RTNL). What came meanwhile waits in queues that hold a tenth of a second.
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
#: For so many seconds a switch must have waited to be called stalled: for a processor between two looks, in the kernel
#: over several of them.
STALL = 0.1
PROCESSOR, KERNEL = "for a processor", "in the kernel"
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


@dataclass(frozen=True)
class Stall(Span):
    """When a switch waited, and where."""

    where: str


class Stalls:
    """The process that looks, for the time of the `with` block; afterwards `spans` tells when which switch stood."""

    def __init__(self, lab: Lab, output: Path) -> None:
        self.spans: list[Stall] = []
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
        self.spans = [Stall(*json.loads(line)) for line in lines]

    def told(self) -> str:
        """How often and how long, in one line."""
        found = []
        for where in (PROCESSOR, KERNEL):
            lengths = [span.end - span.begin for span in self.spans if span.where == where]
            most = f", for {max(lengths) * 1000:.0f} ms at most" if lengths else ""
            found.append(f"{len(lengths)} times {where}{most}")
        return f"switches waited for {STALL * 1000:.0f} ms or more {'; '.join(found)}"


@dataclass(frozen=True)
class _Look:
    """At the main thread of a switch."""

    pid: int
    waited: float
    """Seconds, ready to run."""
    turns: int
    """How often it was let run."""
    in_kernel: bool


def _look(pid_file: str) -> _Look | None:
    """None while there is no switch."""
    with suppress(OSError, ValueError, IndexError):
        pid = int(Path(pid_file).read_text(encoding="ascii"))
        _, waited, turns = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return _Look(pid, int(waited) / 1e9, int(turns), state.split()[0] == "D")
    return None


class Watched:
    """One switch, looked at again and again."""

    def __init__(self, node: str, pid_file: str) -> None:
        self._node = node
        self._pid_file = pid_file
        self._last = _look(pid_file)
        self._looked = time.monotonic()
        #: When it was first seen to stand in the kernel without a turn in between, until now.
        self._since = self._looked

    def look(self) -> Iterator[Stall]:
        """How it has stood, if that is over."""
        last, found, now = self._last, _look(self._pid_file), time.monotonic()
        looked, self._last, self._looked = self._looked, found, now
        if last is None or found is None or last.pid != found.pid:
            self._since = now
            return
        if found.waited - last.waited >= STALL:
            yield Stall(self._node, looked, now, PROCESSOR)
        if not (last.in_kernel and found.in_kernel and last.turns == found.turns):
            if looked - self._since >= STALL:
                yield Stall(self._node, self._since - _EVERY, now, KERNEL)
            self._since = now


def main() -> None:
    watched = [Watched(*argument.split("=", 1)) for argument in sys.argv[1:]]
    while not select.select([0], [], [], _EVERY)[0] or os.read(0, 1):
        for switch in watched:
            for stall in switch.look():
                print(json.dumps([stall.node, stall.begin, stall.end, stall.where]), flush=True)


if __name__ == "__main__":
    main()
