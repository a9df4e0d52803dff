# SPDX-License-Identifier: Apache-2.0
"""The embedded store: one SQLite file, for one controller.

All writes go through one connection under one lock, each in a transaction of its own, in WAL mode with
``synchronous=NORMAL``: a write is safe from the end of the process (``kill -9``) when it returns, in about a
tenth of a millisecond. A power cut can lose the last moments before it, never the file's integrity; what is
lost then is what the agents report again when they connect (their range, their attachments).

The table ``changes`` keeps the last :data:`HISTORY` revisions, or as many as have room in :data:`HISTORY_BYTES`,
so that a watch can begin in the past. Watches are fed inside the process: a second process on the same file would
not be seen, so the file is locked for the life of the store. So a lease never outlives the process that it was
granted to: the table ``leased`` names the keys that went with one, and they are removed when the file is opened
again.

The file is readable by its owner only (0600), in a folder of mode 0700 where that is made here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from controller.store.contract import (
    ANY,
    Check,
    CompactedError,
    ConflictError,
    Delete,
    Entry,
    Event,
    Operation,
    Put,
    Snapshot,
    StoreError,
    check_compaction,
    check_operations,
)
from controller.store.sqlitefile import damaged, open_locked
from controller.store.sqliteleases import SqliteLeases
from controller.store.sqlitewatch import SqliteWatch

#: Revisions whose changes are kept for watches that begin in the past.
HISTORY = 10_000
#: Bytes of the values in them. When there are more, the older half goes.
HISTORY_BYTES = 64 << 20
FORMAT = 1

_Row: TypeAlias = tuple[str, bytes, int]

_SCHEMA = f"""
CREATE TABLE entries (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE changes (
    revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE TABLE leased (
    key TEXT PRIMARY KEY, lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, compacted INTEGER NOT NULL
);
INSERT INTO state (id, revision, compacted) VALUES (0, 0, 0);
PRAGMA user_version={FORMAT};
"""


class SqliteStore:
    """See the module's text. StoreError from the constructor says why a file cannot be used and what to
    do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._watches: list[SqliteWatch] = []
        self._leases = SqliteLeases(self._remove_leased)
        self._closed = False
        self._lock_file = open_locked(path, _SCHEMA)
        try:
            self._connection = self._open()
        except BaseException:
            os.close(self._lock_file)
            raise
        try:
            self._remove_leased(None)
        except BaseException:
            self.close()
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        except sqlite3.Error as problem:
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
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'state'").fetchone()[
                0
            ]
            if not version or not tables:
                raise sqlite3.DatabaseError("a controller's tables are not in it")
            state = connection.execute("SELECT revision, compacted FROM state").fetchone()
            self._revision: int = state[0]
            self._compacted: int = state[1]
            #: Bytes of the values in ``changes``, or somewhat more.
            self._history_bytes: int = connection.execute(
                "SELECT coalesce(sum(length(value)), 0) FROM changes"
            ).fetchone()[0]
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
        return str(damaged(self._path, problem))

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
            try:
                self._check_conditions(operations)
                writing = [operation for operation in operations if not isinstance(operation, Check)]
                if not writing:
                    return self._revision
                return self._transact(
                    lambda revision: [
                        event for operation in writing if (event := self._do(operation, revision))
                    ]
                )
            except sqlite3.Error as problem:
                raise StoreError(self._why(problem)) from None

    def _check_conditions(self, operations: Sequence[Operation]) -> None:
        """ConflictError, LeaseGoneError. The lock is held, and only this connection writes."""
        for operation in operations:
            if operation.expect != ANY and (actual := self._revision_of(operation.key)) != operation.expect:
                raise ConflictError(operation.key, operation.expect, actual)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease:
                self._leases.check(operation.lease)

    def _revision_of(self, key: str) -> int:
        row = self._connection.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else 0

    def _transact(self, work: Callable[[int], list[Event]]) -> int:
        """Do ``work`` under the next revision, all or nothing, and tell the watches. sqlite3.Error."""
        revision = self._revision + 1
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            events = work(revision)
            self._connection.executemany(
                "INSERT INTO changes VALUES (?, ?, ?)",
                [(event.revision, event.key, event.value) for event in events],
            )
            self._history_bytes += sum(len(event.value or b"") for event in events)
            compacted = max(self._compacted, revision - HISTORY, self._too_much())
            self._set_state(revision, compacted)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            # Counted anew by one of the next.
            self._history_bytes = HISTORY_BYTES
            raise
        self._revision, self._compacted = revision, compacted
        # Under the lock: every watch sees the changes in the order of their revisions.
        for watch in self._watches:
            watch.feed(events)
        return revision

    def _too_much(self) -> int:
        """The last revision whose changes there is no room for. sqlite3.Error."""
        if self._history_bytes <= HISTORY_BYTES:
            return 0
        # Counted anew: what was forgotten since is still in the number.
        self._history_bytes = 0
        sizes = self._connection.execute(
            "SELECT revision, coalesce(sum(length(value)), 0) FROM changes GROUP BY revision ORDER BY revision DESC"
        )
        for revision, size in sizes:
            if self._history_bytes + size > HISTORY_BYTES // 2:
                return int(revision)
            self._history_bytes += size
        return 0

    def _set_state(self, revision: int, compacted: int) -> None:
        self._connection.execute("DELETE FROM changes WHERE revision <= ?", (compacted,))
        self._connection.execute("UPDATE state SET revision = ?, compacted = ?", (revision, compacted))

    def _roll_back(self) -> None:
        # What failed may have rolled back already.
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("ROLLBACK")

    def _do(self, operation: Put | Delete, revision: int) -> Event | None:
        key = operation.key
        match operation:
            case Put(_, value, _, lease):
                self._connection.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, value, revision)
                )
                if lease:
                    self._connection.execute("INSERT OR REPLACE INTO leased VALUES (?, ?)", (key, lease))
                else:
                    self._connection.execute("DELETE FROM leased WHERE key = ?", (key,))
                return Event(key, value, revision)
            case Delete():
                self._connection.execute("DELETE FROM leased WHERE key = ?", (key,))
                if not self._connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount:
                    return None
                return Event(key, None, revision)

    def _remove_leased(self, lease: int | None) -> None:
        """Remove the keys of a lease that has ended; None: of all leases. StoreError."""
        with self._lock:
            rows = self._query(
                "SELECT key, '', lease FROM leased WHERE lease = ? OR ? IS NULL", (lease, lease)
            )
            if rows:
                try:
                    self._transact(
                        lambda revision: [
                            event for row in rows if (event := self._do(Delete(row[0]), revision))
                        ]
                    )
                except sqlite3.Error as problem:
                    raise StoreError(self._why(problem)) from None

    def grant(self, seconds: float) -> int:
        self._check_open()
        return self._leases.grant(seconds)

    def renew(self, lease: int) -> float:
        self._check_open()
        return self._leases.renew(lease)

    def revoke(self, lease: int) -> None:
        self._check_open()
        self._leases.revoke(lease)

    def revision(self) -> int:
        with self._lock:
            self._check_open()
            return self._revision

    def compact(self, revision: int) -> None:
        check_compaction(revision)
        with self._lock:
            self._check_open()
            self._check_known(revision)
            compacted = max(self._compacted, revision)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._set_state(self._revision, compacted)
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
            except sqlite3.Error as problem:
                raise StoreError(self._why(problem)) from None
            self._compacted = compacted

    def watch(self, prefix: str, after: int) -> SqliteWatch:
        with self._lock:
            self._check_open()
            self._check_known(after)
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

    def _check_known(self, revision: int) -> None:
        if revision > self._revision:
            raise StoreError(
                f"store {self._path}: revision {revision} is not known, the last one is {self._revision}"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self._path}: closed")

    def close(self) -> None:
        self._leases.close()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            watches, self._watches = self._watches, []
            self._connection.close()
            os.close(self._lock_file)
        for watch in watches:
            watch.end()
