# SPDX-License-Identifier: Apache-2.0
"""Of a process that was not let run, or that stood in the kernel, the lab's faults know when."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.fault_windows import KERNEL, PROCESSOR, STALL, Stall, Watched

_SECONDS = 0.6
# clone(2) with CLONE_VFORK holds the caller in the kernel until its child ends.
_STANDS = f"""
import ctypes, os, sys, time
sys.stdin.readline()
number = {{"x86_64": 56, "aarch64": 220}}[os.uname().machine]
if ctypes.CDLL(None).syscall(number, 0x4000 | 17, 0, 0, 0, 0) == 0:
    time.sleep({_SECONDS})
    os._exit(0)
sys.stdin.readline()
"""
_SLEEPS = f"import sys, time; sys.stdin.readline(); time.sleep({_SECONDS}); sys.stdin.readline()"
# It takes what others leave of one processor, and there is one who leaves nothing.
_WAITS = """
import os, sys, time
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
busy = os.fork()
if busy:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
end = time.monotonic() + 30
while time.monotonic() < end and os.getppid() != 1:
    pass
"""


@contextmanager
def watched(folder: Path, program: str) -> Iterator[tuple[Watched, subprocess.Popen[bytes]]]:
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        try:
            (folder / "pid").write_text(f"{process.pid}\n")
            yield Watched("node-1", str(folder / "pid")), process
        finally:
            process.kill()


def begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def looks(switch: Watched, seconds: float) -> Iterator[Stall]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield from switch.look()
        time.sleep(0.02)


def test_who_stands_in_the_kernel_is_told_with_when(tmp_path: Path) -> None:
    with watched(tmp_path, _STANDS) as (switch, process):
        before = time.monotonic()
        begin(process)
        found = next(stall for stall in looks(switch, 60) if stall.where == KERNEL)
        assert found.node == "node-1"
        assert found.end - found.begin >= STALL
        assert before <= found.end <= time.monotonic()


def test_who_waits_for_something_else_is_not(tmp_path: Path) -> None:
    with watched(tmp_path, _SLEEPS) as (switch, process):
        begin(process)
        assert [stall for stall in looks(switch, 2 * _SECONDS) if stall.where == KERNEL] == []


def test_who_waits_for_a_processor_is_told(tmp_path: Path) -> None:
    with watched(tmp_path, _WAITS) as (switch, _):
        assert next(stall for stall in looks(switch, 60) if stall.where == PROCESSOR).node == "node-1"


def test_nothing_is_told_of_a_process_that_is_not_there(tmp_path: Path) -> None:
    switch = Watched("node-1", str(tmp_path / "pid"))
    assert list(looks(switch, 0.1)) == []
