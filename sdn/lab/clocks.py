# SPDX-License-Identifier: Apache-2.0
"""A wall clock of its own for single processes of a lab, which can be set while they run (libfaketime).

Set like the clock of a machine: time of day jumps, the monotonic clock goes on. Daemons in Python alone can have one:
etcd, written in Go, does not ask libc for the time.
"""

from __future__ import annotations

from pathlib import Path

from sdn.lab.errors import LabError
from sdn.lab.state import Folder, replace

#: The package that holds the library, and where it puts it on any architecture.
PACKAGE = "libfaketime"
_PLACES = (Path("/usr/lib"), "*/faketime/libfaketimeMT.so.1")
#: Python's own sleep fails under the library.
_SLEEPING = Path(__file__).with_name("clocked")
#: After this many seconds a process has noticed that its clock was set.
NOTICED = 1


def faketime() -> Path:
    """LabError if it is not installed."""
    folder, pattern = _PLACES
    for path in folder.glob(pattern):
        return path
    raise LabError(f"missing on this machine: {PACKAGE}, for clocks that can be set; apt install {PACKAGE}")


def environment(folder: Folder, process: str) -> dict[str, str]:
    """What a process is started with that is to have a clock of its own."""
    return {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(_file(folder, process)),
        "FAKETIME_CACHE_DURATION": str(NOTICED),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(_SLEEPING),
    }


def set_clock(folder: Folder, process: str, seconds: float) -> None:
    """The process's clock is `seconds` ahead of the machine's from now on; behind, if below 0."""
    replace(_file(folder, process), f"{seconds:+f}\n".encode())


def _file(folder: Folder, process: str) -> Path:
    return folder / f"clock-{process.replace('/', '-')}"
