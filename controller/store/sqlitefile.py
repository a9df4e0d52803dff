# SPDX-License-Identifier: Apache-2.0
"""The file of the embedded store: found, or made whole, and locked for this process.

A new store is made beside its place and comes there, by a rename, with all its tables in it. So an empty file in its
place is never one that was not finished: it was cut off, and nobody knows what it held. Taken for a new store it would
let the controller remove from the switches what is declared.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from controller.store.contract import StoreError


def damaged(path: Path, what: object) -> StoreError:
    """The error for a file that is no whole store; with what to do."""
    return StoreError(
        f"store {path}: damaged or no store: {what}. Move it away, with {path.name}-wal and {path.name}-shm, to "
        "start with an empty one; agents report their nodes and pods again, declared objects must be applied again"
    )


def open_locked(path: Path, schema: str) -> int:
    """A descriptor of the store's file, which is locked until that is closed. Where there is no file, one is made, of
    which the statements ``schema`` make a store. StoreError.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if path.is_symlink():
                raise  # Where the store lives is not there, such as a disk.
            return _make(path, schema)
        try:
            _lock(path, descriptor)
            if not os.fstat(descriptor).st_size:
                raise damaged(path, "it is empty, so it was cut off")
            os.fchmod(descriptor, 0o600)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as problem:
        raise StoreError(
            f"store {path}: {problem.strerror}: check that the folder exists and is writable"
        ) from None
    return descriptor


def _lock(path: Path, descriptor: int) -> None:
    try:
        # Unlike SQLite's own record locks on this file, flock is not lost when another descriptor closes.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(
            f"store {path}: locked by another process: is a second controller running on it?"
        ) from None


def _make(path: Path, schema: str) -> int:
    """Make the store's file. OSError, StoreError."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        # SQLite would take its pages into the new file.
        raise StoreError(
            f"store {path}: is missing, while {log.name}, which holds the last of it, is there: put it back, or move "
            f"{log.name} away, too, to start with an empty one"
        )
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(path, descriptor)
        if not path.exists():
            _fill(new, descriptor, schema)
            new.rename(path)
            _sync_folder(path.parent)
            return descriptor
        # Another process was faster, and has ended since.
        new.unlink(missing_ok=True)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return open_locked(path, schema)


def _fill(new: Path, descriptor: int, schema: str) -> None:
    # What is left of a start that did not come to its end.
    os.ftruncate(descriptor, 0)
    new.with_name(f"{new.name}-journal").unlink(missing_ok=True)
    os.fchmod(descriptor, 0o600)
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.executescript(f"BEGIN; {schema} COMMIT;")
    except sqlite3.Error as problem:
        new.unlink()
        raise StoreError(
            f"store {new}: {problem}: check that the disk is not full and the folder is writable"
        ) from None
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
