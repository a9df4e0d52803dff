# SPDX-License-Identifier: Apache-2.0
"""The node's audit log: what policies said of connections of its pods, one JSON object a line.

A controller hands the records over as they happen; a thread of its own writes them, so that neither a slow disk nor a
full one is felt by anything else. What waits is bounded, and what cannot be kept or written is counted: the next record
that is written tells how many there were before it (`suppressed`).

A file that has grown to its size is set aside as FILE.1, the one before as FILE.2, and so on. Whoever moves or removes
the file under way gets a new one. Lines are whole: what a full disk or a killed agent left of one is ended first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from sdn import logs, verdicts
from sdn.v1 import types_pb2 as types

log: Final = logs.get("agent.audit")

#: Records that may wait to be written.
MOST_WAITING: Final = 10_000
#: Trouble is logged once in this many seconds.
LOG_EVERY: Final = 60.0
#: Records in one write.
_AT_ONCE: Final = 100
#: How long the end may wait for the disk.
_CLOSE_SECONDS: Final = 5.0


class AuditLog:
    """Takes records from any thread, writes them in one."""

    def __init__(
        self, path: Path, max_bytes: int, files: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``files`` in all are kept, none larger than ``max_bytes`` but by a few records."""
        self._file = RotatedFile(path, max_bytes, files)
        self._clock = clock
        self._condition = threading.Condition()
        #: Each with what its line says of those before it.
        self._records: deque[tuple[int, types.VerdictRecord]] = deque()
        #: There was no room for so many since the last one that there was room for.
        self._lost = 0
        #: So many could not be written since the last one that was. The thread's own.
        self._unwritten = 0
        self._ending = False
        self._told_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, records: Iterable[types.VerdictRecord]) -> None:
        """Have records written. Never waits, never fails."""
        with self._condition:
            for record in records:
                if len(self._records) < MOST_WAITING:
                    self._records.append((self._lost + record.suppressed, record))
                    self._lost = 0
                else:
                    self._lost += 1 + record.suppressed
            self._condition.notify()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._condition:
            self._ending = True
            self._condition.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._records and not self._ending:
                    self._condition.wait()
                batch = [self._records.popleft() for _ in range(min(_AT_ONCE, len(self._records)))]
            if not batch:
                break
            self._write(batch)
        self._file.close()

    def _write(self, batch: list[tuple[int, types.VerdictRecord]]) -> None:
        documents = [{**verdicts.document(record), "suppressed": suppressed} for suppressed, record in batch]
        documents[0]["suppressed"] += self._unwritten
        try:
            self._file.write(b"".join(msgspec.json.encode(one) + b"\n" for one in documents))
        except OSError as problem:
            self._unwritten += sum(1 + suppressed for suppressed, _ in batch)
            now = self._clock()
            if self._told_at is None or now - self._told_at >= LOG_EVERY:
                self._told_at = now
                log.warning("verdicts of policies are not written", file=self._file.path, error=str(problem))
        else:
            self._unwritten = 0


class RotatedFile:
    """Whole lines at the end of a file, and what is done when it is full. For one thread."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor: int | None = None
        self._size = 0

    def write(self, lines: bytes) -> None:
        """All of it, or nothing and OSError."""
        self._open()
        if self._size and self._size + len(lines) > self._max_bytes:
            self._rotate()
            self._open()
        descriptor = self._descriptor
        if descriptor is None:
            raise AssertionError("an open file has a descriptor")
        try:
            written = 0
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._size)
            self.close()
            raise
        self._size += len(lines)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        """The file under its name, which may be another one than before."""
        if self._descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self.path)):
                    return
            self.close()
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        try:
            if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
                self._size += os.write(self._descriptor, b"\n")
        except OSError:
            self.close()
            raise

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 2, -1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._numbered(number), self._numbered(number + 1))
        if self._files == 1:
            self.path.unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path
