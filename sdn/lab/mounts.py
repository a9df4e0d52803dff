# SPDX-License-Identifier: Apache-2.0
"""What is mounted in a lab's folder."""

from __future__ import annotations

from pathlib import Path

from sdn.lab.command import run


def places() -> list[str]:
    """Where something is mounted (proc_pid_mountinfo(5)); names of a lab's folders need no unescaping."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split()[4] for line in lines]


def remove_below(folder: Path) -> None:
    """Take away all that is mounted on or below `folder`, the last first, with what it holds.

    Processes that still have files there keep them until they end.
    """
    for place in reversed(places()):
        if Path(place).is_relative_to(folder):
            run(["umount", "--lazy", place])
