# SPDX-License-Identifier: Apache-2.0
"""Processes and the processor: what they have used of it, and how a benchmark goes before other work."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PRIORITY: Final = -15
"""Nice value of what is measured, ours and the peer's alike."""


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, in steps of 10 ms (fields 14 and 15 of /proc/PID/stat, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu_seconds() -> float:
    """Processor time of the processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def before_others() -> Iterator[None]:
    """This process and those that it starts go before whatever else the machine has to do.

    Where the kernel groups processes by session (autogroup, sched(7)) the group's value counts among groups, and a
    process's own only within its group: so both are set. Daemons with a session of their own need `go_first`.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    group_before = _autogroup_nice(os.getpid())
    go_first(os.getpid())
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
        if group_before is not None:
            _autogroup(os.getpid()).write_text(str(group_before))


def go_first(pid: int) -> None:
    """One process, and the group of its session where there are such groups, go before other work."""
    os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)
    if _autogroup_nice(pid) is not None:
        _autogroup(pid).write_text(str(PRIORITY))


def is_first() -> bool:
    """Whether this process goes before others."""
    return os.getpriority(os.PRIO_PROCESS, 0) == PRIORITY


def _autogroup(pid: int) -> Path:
    return Path(f"/proc/{pid}/autogroup")


def _autogroup_nice(pid: int) -> int | None:
    """The value of the group, from a line such as "/autogroup-25 nice 0"; None where there are no groups."""
    path = _autogroup(pid)
    fields = path.read_text().split() if path.exists() else []
    return int(fields[-1]) if len(fields) == 3 else None
