# SPDX-License-Identifier: Apache-2.0
"""Named network namespaces, as `ip netns` keeps them: made, removed, entered, and who lives in them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdn.lab.command import run
from sdn.lab.errors import LabError

FOLDER = Path("/run/netns")
#: Files that `ip netns exec` puts in the place of those in /etc, by name of the namespace (ip-netns(8)).
FILES = Path("/etc/netns")
_ATTEMPTS = 100
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def path(name: str) -> Path:
    return FOLDER / name


def exists(name: str) -> bool:
    return path(name).exists()


def add(name: str) -> None:
    """Make it, with its loopback up. LabError if the name is taken."""
    if exists(name):
        raise LabError(f"network namespace {name} exists already; `ip netns del {name}` removes it")
    run(["ip", "netns", "add", name])
    run(["ip", "-n", name, "link", "set", "lo", "up"])


def delete(name: str) -> None:
    """Remove it, all interfaces in it, and its files. No error when there is none."""
    if exists(name):
        run(["ip", "netns", "del", name])
    shutil.rmtree(FILES / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # there are others, or there never was any
        FILES.rmdir()


def write_resolv_conf(name: str, text: str) -> None:
    """How programs that `ip netns exec` starts in it resolve names (resolv.conf(5)). LabError: it cannot be written."""
    for _ in range(_ATTEMPTS):
        # Whoever removes the last namespace's files at this moment removes FILES, too.
        with contextlib.suppress(FileNotFoundError):
            (FILES / name).mkdir(parents=True, exist_ok=True)
            (FILES / name / "resolv.conf").write_text(text, encoding="ascii")
            return
    raise LabError(f"{FILES / name}: no folder can be made there")


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread, and no other, is inside the namespace for the time of the `with` block.

    Sockets opened there stay there. `/proc/sys/net` is the namespace's own; `/sys` is not.
    """
    try:
        there = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LabError(f"network namespace {name} does not exist") from None
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(there)
        try:
            yield
        finally:
            _setns(here)
    finally:
        os.close(there)
        os.close(here)


def sysctl(name: str, settings: dict[str, str]) -> None:
    """Write sysctls of the namespace, named as files below /proc/sys ("net/ipv6/conf/all/accept_dad")."""
    with entered(name):
        for key, value in settings.items():
            Path("/proc/sys", key).write_text(value, encoding="ascii")


def inhabitants(names: Iterable[str]) -> dict[int, str]:
    """Processes that are inside one of these namespaces: pid → name of the namespace."""
    inodes = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            inodes[path(name).stat().st_ino] = name
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process may end between the listing and the look.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                inode = (entry / "ns/net").stat().st_ino
                if inode in inodes:
                    found[int(entry.name)] = inodes[inode]
    return found


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
