# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: naming one for certain, and stepping into it for a moment.

Stepping in is setns(2), which moves the calling thread only; pyroute2's own way forks a process (9 ms here,
and forking beside the threads of gRPC invites deadlocks). A socket stays in the namespace that it was made
in, so one step inside is enough to open what is needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703
_libc: Final = ctypes.CDLL(None, use_errno=True)


class NetnsError(Exception):
    """A path leads to no network namespace; the text says why."""


class NetnsGone(NetnsError):
    """There is nothing (any more) at the path."""


class Netns:
    """An open network namespace. It lives at least as long as this object is open."""

    def __init__(self, path: str) -> None:
        """NetnsGone when nothing is there, NetnsError when it is something else than a network namespace; OSError when
        this process has no descriptor or memory left for it.
        """
        self.path = path
        try:
            # A pipe would be waited for until somebody writes to it.
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as problem:
            text = f"{path}: {problem.strerror}"
            if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
                raise NetnsGone(text) from None
            if problem.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            raise NetnsError(text) from None
        except ValueError as problem:  # a zero byte, which no environment can hold, but gRPC
            raise NetnsError(f"{path!r}: {problem}") from None
        try:
            kind = fcntl.ioctl(self.fd, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != _CLONE_NEWNET:
            os.close(self.fd)
            # What `ip netns delete` leaves for a moment, and a mount that did not happen, are plain empty files.
            empty = Path(path).is_file() and Path(path).stat().st_size == 0
            raise (NetnsGone if empty else NetnsError)(f"{path}: is not a network namespace")
        found = os.fstat(self.fd)
        self.identity = (found.st_dev, found.st_ino)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


#: The namespace that this process was started in: the node's.
NODE: Final = Netns("/proc/thread-self/ns/net")


@contextmanager
def inside(netns: Netns) -> Iterator[None]:
    """The calling thread is in the namespace within the context, and nothing may block or fork there."""
    _enter(netns)
    try:
        yield
    finally:
        try:
            _enter(NODE)
        except OSError:
            # A thread that stays in a pod's namespace would wire the next pod wrongly: better none at all.
            os._exit(1)


def _enter(netns: Netns) -> None:
    if _libc.setns(netns.fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), netns.path)
