# SPDX-License-Identifier: Apache-2.0
"""Processes told apart from later ones that happen to get their number, and ended without mistake.

A pid alone may name another process tomorrow; a pid with its start time does not. Signals go through a pidfd, which
is opened first and compared then, so that no process is hit that took the number in between.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec

from sdn.lab.waiting import patience

#: Where /proc/PID/stat tells the end of the environment (its field 51), counted from the state on; 0 until it has one.
_ENV_END = 48
_EXEC_SECONDS = 10.0


class Identity(msgspec.Struct, frozen=True):
    """One process, for ever: `started` is field 22 of /proc/PID/stat, in clock ticks since boot (proc(5))."""

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None for nobody, or for a zombie, which is nobody any more."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else Identity(pid, int(fields[19]))


def frozen(process: Identity) -> bool:
    """Whether SIGSTOP has taken effect on it, and SIGCONT not yet."""
    fields = _stat(process.pid)
    return fields is not None and fields[0] == "T" and alive(process)


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold anything, so count from the last parenthesis.
    return stat.rpartition(")")[2].split()


def alive(process: Identity) -> bool:
    return identify(process.pid) == process


def send(process: Identity, number: signal.Signals) -> bool:
    """Send a signal to this process and no other; False if it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(process):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
            return True
        return False
    finally:
        os.close(descriptor)


def with_mark(mark: str) -> list[Identity]:
    """Processes that carry `mark` ("NAME=value") in the environment they were started with."""
    wanted = mark.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if wanted in _environment(entry).split(b"\0"):
                identity = identify(int(entry.name))
                if identity is not None:
                    found.append(identity)
    return found


def _environment(entry: Path) -> bytes:
    """What a process was started with. In the middle of exec(2) that reads as empty, on a busy machine for as long as
    the process waits for its turn, so what is empty is read again until the kernel has an environment for it, be it
    an empty one. Kernel threads, which have no executable, never do (FileNotFoundError).
    """
    deadline = time.monotonic() + patience(_EXEC_SECONDS)
    while True:
        before = _stat(int(entry.name))
        content = (entry / "environ").read_bytes()
        after = _stat(int(entry.name))
        if content or before is None or after is None:
            return content
        if before[_ENV_END] == after[_ENV_END] != "0" or time.monotonic() > deadline:
            return content
        (entry / "exe").readlink()
        time.sleep(0.005)


def myself_and_ancestors() -> set[int]:
    """The calling process and those that wait for it: whoever takes a lab down must not end himself."""
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return pids


def end(
    find: Callable[[], Iterable[Identity]], grace: float = 5, last: Collection[Identity] = ()
) -> list[Identity]:
    """Ask all that `find` finds to end, wait `grace` seconds, kill the rest; those that even so remain are returned.

    Those of `last` are not asked: they serve the others, and are killed as soon as nobody else is left.
    """
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        asked: set[Identity] = set()
        deadline = time.monotonic() + patience(seconds)
        while True:
            # Looked for again each time: a process may have started another one in between.
            remaining = list(find())
            if not remaining:
                return []
            if time.monotonic() > deadline:
                break
            others = [process for process in remaining if process not in last]
            for process in others or remaining:
                if process not in asked:
                    send(process, number if others else signal.SIGKILL)
                    asked.add(process)
            time.sleep(0.02)
    return list(find())
