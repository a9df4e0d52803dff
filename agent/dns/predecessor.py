# SPDX-License-Identifier: Apache-2.0
"""The DNS server's process of an agent that was here before, which goes on until its successor serves.

A file names it by its pid and its start (field 22 of /proc/PID/stat, proc(5)): a pid alone may be another process's by
now. The signal goes through a pidfd, opened before the two are compared.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True):
    """One process, for as long as the machine runs."""

    pid: int
    started: int


def identify(pid: int) -> Process | None:
    """Who has the pid now; None for nobody."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything.
    return Process(pid, int(stat.rpartition(")")[2].split()[19]))


def succeed(path: Path, pid: int) -> int | None:
    """End the process that the file names, and name another one instead. The pid that was ended; None: there was none.

    OSError when the file cannot be written.
    """
    ended = None
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        before = msgspec.json.decode(path.read_bytes(), type=Process)
        if before.pid != pid and _end(before):
            ended = before.pid
    now = identify(pid)
    if now is not None:
        draft = path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(now))
        draft.replace(path)
    return ended


def _end(process: Process) -> bool:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
