# SPDX-License-Identifier: Apache-2.0
"""The embedded store: one SQLite file, for one controller.

All writes go through one connection under one lock, each in a transaction of its own, in WAL mode with
``synchronous=NORMAL``: a write is safe from the end of the process (``kill -9``) when it returns, in about a
tenth of a millisecond. A power cut can lose the last moments before it, never the file's integrity; what is
lost then is what the agents report again when they connect (their range, their attachments).

The table ``changes`` keeps the last :data:`HISTORY` changes, so that a watch can begin in the past. Watches
are fed inside the process: a second process on the same file would not be seen, so the file is locked for the
life of the store.

The file is readable by its owner only (0600), in a folder of mode 0700 where that is made here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from controller.store.contract import (
    ANY,
    CompactedError,
    ConflictError,
    Delete,
    Entry,
    Event,
    Operation,
    Put,
    Snapshot,
    StoreError,
    check_operations,
)

#: Changes that are kept for watches that begin in the past.
HISTORY = 10_000
#: Events that a watch may lag behind before it is given up.
WATCH_BACKLOG = 100_000
FORMAT = 1

_Row: TypeAlias = tuple[str, bytes, int]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, compacted INTEGER NOT NULL
);
INSERT OR IGNORE INTO state (id, revision, compacted) VALUES (0, 0, 0);
"""


class SqliteStore:
    """See the module's text. StoreError from the constructor says why a file cannot be used and what to
    do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._watches: list[SqliteWatch] = []
        self._closed = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise StoreError(
                f"store {path}: {problem.strerror}: check that the folder exists and is writable"
            ) from None
        try:
            self._connection = self._open()
        except BaseException:
            os.close(self._lock_file)
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            # Unlike SQLite's own record locks on this file, flock is not lost when another descriptor closes.
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"store {self._path}: locked by another process: is a second controller running on it?"
            ) from None
        try:
            os.fchmod(self._lock_file, 0o600)
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        except (OSError, sqlite3.Error) as problem:
            raise StoreError(f"store {self._path}: cannot be opened: {problem}") from None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT):
                raise StoreError(
                    f"store {self._path}: format {version} is of another release; this one knows format {FORMAT}"
                )
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={FORMAT}; COMMIT;")
            state = connection.execute("SELECT revision, compacted FROM state").fetchone()
            self._revision: int = state[0]
            self._compacted: int = state[1]
        except sqlite3.Error as problem:
            connection.close()
            raise StoreError(self._why(problem)) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _why(self, problem: sqlite3.Error) -> str:
        if isinstance(problem, sqlite3.OperationalError):
            return f"store {self._path}: {problem}: check that the disk is not full and the file is writable"
        return (
            f"store {self._path}: damaged or no store: {problem}. Move it away to start with an empty one; "
            "agents report their nodes and pods again, declared objects must be applied again"
        )

    def get(self, key: str) -> Entry | None:
        with self._lock:
            rows = self._query("SELECT key, value, revision FROM entries WHERE key = ?", (key,))
        return Entry(*rows[0]) if rows else None

    def list_prefix(self, prefix: str) -> Snapshot:
        with self._lock:
            rows = self._query(
                "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, prefix + "\U0010ffff"),
            )
            return Snapshot(tuple(Entry(*row) for row in rows), self._revision)

    def _query(self, statement: str, parameters: tuple[object, ...]) -> list[_Row]:
        self._check_open()
        try:
            rows: list[_Row] = self._connection.execute(statement, parameters).fetchall()
            return rows
        except sqlite3.Error as problem:
            raise StoreError(self._why(problem)) from None

    def write(self, operations: Sequence[Operation]) -> int:
        check_operations(operations)
        with self._lock:
            self._check_open()
            revision = self._revision + 1
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    events = [event for operation in operations if (event := self._do(operation, revision))]
                    compacted = max(self._compacted, revision - HISTORY)
                    self._connection.execute("DELETE FROM changes WHERE revision <= ?", (compacted,))
                    self._connection.execute(
                        "UPDATE state SET revision = ?, compacted = ?", (revision, compacted)
                    )
                    self._connection.execute("COMMIT")
                except BaseException:
                    # A failed COMMIT may have rolled back already.
                    with contextlib.suppress(sqlite3.OperationalError):
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as problem:
                raise StoreError(self._why(problem)) from None
            self._revision, self._compacted = revision, compacted
            # Under the lock: every watch sees the changes in the order of their revisions.
            for watch in self._watches:
                watch.feed(events)
        return revision

    def _do(self, operation: Operation, revision: int) -> Event | None:
        row = self._connection.execute(
            "SELECT revision FROM entries WHERE key = ?", (operation.key,)
        ).fetchone()
        actual: int = row[0] if row else 0
        if operation.expect not in (ANY, actual):
            raise ConflictError(operation.key, operation.expect, actual)
        match operation:
            case Put(key, value):
                self._connection.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, value, revision)
                )
                event = Event(key, value, revision)
            case Delete(key):
                if not actual:
                    return None
                self._connection.execute("DELETE FROM entries WHERE key = ?", (key,))
                event = Event(key, None, revision)
        self._connection.execute("INSERT INTO changes VALUES (?, ?, ?)", (revision, event.key, event.value))
        return event

    def watch(self, prefix: str, after: int) -> SqliteWatch:
        with self._lock:
            self._check_open()
            if after < self._compacted:
                raise CompactedError(
                    f"store {self._path}: changes are known from revision {self._compacted} on, not from {after}"
                )
            try:
                rows = self._connection.execute(
                    "SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision, key",
                    (after,),
                ).fetchall()
            except sqlite3.Error as problem:
                raise StoreError(self._why(problem)) from None
            watch = SqliteWatch(prefix, self._forget)
            watch.feed([Event(*row) for row in rows])
            self._watches.append(watch)
        return watch

    def _forget(self, watch: SqliteWatch) -> None:
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self._path}: closed")

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            watches, self._watches = self._watches, []
            self._connection.close()
            os.close(self._lock_file)
        for watch in watches:
            watch.end()


_Forget: TypeAlias = Callable[["SqliteWatch"], None]


class SqliteWatch:
    """A watch on a SqliteStore; fed by it, under its lock."""

    def __init__(self, prefix: str, forget: _Forget) -> None:
        self._prefix = prefix
        self._forget = forget
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lost = False
        self._ended = False

    def feed(self, events: Sequence[Event]) -> None:
        """Take in the changes that concern this watch; never blocks."""
        for event in events:
            if event.key.startswith(self._prefix) and not self._lost:
                if self._events.qsize() >= WATCH_BACKLOG:
                    self._lost = True
                    self._events.put(None)
                else:
                    self._events.put(event)

    def next(self, timeout: float | None = None) -> Event | None:
        if self._ended and self._events.empty():
            return None
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is None and self._lost:
            raise StoreError(
                f"watch of {self._prefix}: its reader fell {WATCH_BACKLOG} changes behind; list again"
            )
        return event

    def end(self) -> None:
        """The store was closed: nothing more will come."""
        self._ended = True
        self._events.put(None)

    def close(self) -> None:
        self._forget(self)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
