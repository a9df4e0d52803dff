# SPDX-License-Identifier: Apache-2.0
"""A small disk for the files of one process of a lab, which can be filled up: a tmpfs in the place of its folder.

Whatever is full there takes nothing from the machine's own disks, nor from other processes.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from sdn.lab import mounts
from sdn.lab.command import run
from sdn.lab.errors import LabError
from sdn.lab.lab import Lab

_BALLAST = "ballast"
_STEP = 1 << 20


@contextlib.contextmanager
def small(lab: Lab, name: str, megabytes: int) -> Iterator[None]:
    """For the time of the `with` block the files of controller-1 or etcd-2 are on a disk of so many MB (2**20 bytes).

    The process is restarted on it, with what it had. LabError if that takes more than the disk has. Afterwards the
    folder is empty: the lab is expected to end.
    """
    place = _place(lab, name)
    lab.stop(name)
    former = place.with_name(f"{name}.former")
    place.rename(former)
    place.mkdir(mode=0o700)
    run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", f"sdn-lab-{name}", str(place)])
    try:
        # Sockets of the process that was stopped are not worth a copy, and cannot be copied.
        files = shutil.ignore_patterns("*.sock")
        shutil.copytree(former, place, dirs_exist_ok=True, ignore=files)
        shutil.rmtree(former)
        lab.start(name)
        yield
    finally:
        mounts.remove_below(place)


def fill(lab: Lab, name: str) -> int:
    """Leave nothing free on the process's small disk; how many bytes that took."""
    place = _place(lab, name)
    if str(place) not in mounts.places():
        raise LabError(f"{name} of lab {lab.name} has no small disk")
    written = 0
    with (place / _BALLAST).open("ab", buffering=0) as ballast:
        step = _STEP
        while step:
            try:
                written += ballast.write(bytes(step))
            except OSError as problem:
                if problem.errno != errno.ENOSPC:
                    raise
                step //= 2
    return written


def free(lab: Lab, name: str) -> None:
    """Undo `fill`. No error when it is not full."""
    (_place(lab, name) / _BALLAST).unlink(missing_ok=True)


def _place(lab: Lab, name: str) -> Path:
    machines = (*lab.spec.controller_machines, *lab.spec.store_machines)
    if name not in [machine.name for machine in machines]:
        raise LabError(f"{name} of lab {lab.name} is neither a controller nor a member of etcd")
    return lab.folder / name
