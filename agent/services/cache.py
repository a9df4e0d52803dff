# SPDX-License-Identifier: Apache-2.0
"""The Services that a controller told last, on disk, for an agent that starts while no controller is there.

A file of its own, one row a Service as it came over the wire: a change costs one row, whatever the number of Services.
What is lost of it comes again from a controller, so a file that cannot be read is begun anew, and its writes are never
waited for.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from agent.services.table import Key, Service, from_message
from sdn import logs
from sdn.v1 import controller_pb2 as messages

log: Final = logs.get("agent.services.cache")
_FILE: Final = "services.db"
#: Another number begins the file anew.
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE service (
    namespace TEXT NOT NULL, name TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (namespace, name)
) WITHOUT ROWID
"""


class ServiceCache:
    """The file. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        try:
            self._db = self._on_disk()
        except (sqlite3.Error, OSError) as problem:
            # The disk is full, for instance. Pods can be served all the same, until the agent ends.
            log.error("Services are not kept on disk", file=self._path, error=str(problem))
            self._db = _opened(":memory:")

    def _on_disk(self) -> sqlite3.Connection:
        try:
            db = _opened(str(self._path))
        except sqlite3.DatabaseError as problem:
            log.warning("the Services on disk are lost", file=self._path, error=str(problem))
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(_FILE + suffix).unlink(missing_ok=True)
            db = _opened(str(self._path))
        self._path.chmod(0o600)
        return db

    def close(self) -> None:
        self._db.close()

    def load(self) -> list[Service]:
        """All Services on disk; those that cannot be understood are left out."""
        found = []
        try:
            rows = self._db.execute("SELECT state FROM service ORDER BY namespace, name").fetchall()
        except sqlite3.Error as problem:
            log.warning("the Services on disk are lost", file=self._path, error=str(problem))
            rows = []
        for (data,) in rows:
            try:
                found.append(from_message(messages.ServiceState.FromString(data)))
            except (DecodeError, ValueError) as problem:
                log.warning("a Service on disk cannot be understood", error=str(problem))
        return found

    def save(self, changed: Iterable[messages.ServiceState], removed: Iterable[Key]) -> None:
        """Take changes to disk; a failure is logged, since what is in memory goes on."""
        try:
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM service WHERE namespace = ? AND name = ?", list(removed))
            self._db.executemany(
                "INSERT OR REPLACE INTO service VALUES (?, ?, ?)",
                [(state.namespace, state.name, _needed(state)) for state in changed],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as problem:
            log.warning("Services are not on disk", file=self._path, error=str(problem))
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


def _opened(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            db.execute("DROP TABLE IF EXISTS service")
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("SELECT count(*) FROM service").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _needed(state: messages.ServiceState) -> bytes:
    """What the table would take of it."""
    if state.cluster_ips and state.endpoints:
        kept = messages.ServiceState()
        kept.CopyFrom(state)
        kept.ClearField("endpoints")
        return kept.SerializeToString()
    return state.SerializeToString()
