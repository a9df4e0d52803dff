# SPDX-License-Identifier: Apache-2.0
"""What a store promises, whichever engine is behind it.

- Each successful :meth:`Store.write` is atomic, durable against ``kill -9`` once it has returned, and gets
  the next revision. Revisions only grow.
- ``expect`` makes a write conditional (compare-and-swap): 0 means that the key must not exist, a number that
  the key was last written at that revision, :data:`ANY` that it does not matter. If one condition of a write
  fails, nothing of it happens and :class:`ConflictError` names the key.
- A watch sees every change after the revision that it starts from, in order, none twice.

All methods block and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

#: As ``expect``: write whatever is there.
ANY = -1


class StoreError(Exception):
    """The store cannot do what was asked; the text says which store and why."""


class ConflictError(StoreError):
    """A key is not at the revision that the writer expected. Nothing was written."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(f"{key}: expected {_revision(expected)}, found {_revision(actual)}")
        self.key = key
        self.expected = expected
        self.actual = actual


def _revision(number: int) -> str:
    return "no such key" if number == 0 else f"revision {number}"


class CompactedError(StoreError):
    """Changes since the revision asked for are no longer known: list again, and watch from there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, its value, and the revision at which it was last written."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Entries in the order of their keys, and the revision of the whole store at which they were read."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``value`` under ``key``."""

    key: str
    value: bytes
    expect: int = ANY


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove ``key``; one that does not exist is no error unless ``expect`` says that it does."""

    key: str
    expect: int = ANY


Operation: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Event:
    """One key's change; ``value`` is None when the key was removed."""

    key: str
    value: bytes | None
    revision: int


class Watch(Protocol):
    """A running watch. Close it when done; a context manager does."""

    def next(self, timeout: float | None = None) -> Event | None:
        """The next change; None when ``timeout`` seconds pass first, or when the watch was closed.

        StoreError when changes were lost (a broken connection, a reader too slow): list again and watch from
        there.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """See the module's text."""

    def get(self, key: str) -> Entry | None:
        """The entry under a key, or None."""

    def list_prefix(self, prefix: str) -> Snapshot:
        """All entries whose key starts with ``prefix``."""

    def write(self, operations: Sequence[Operation]) -> int:
        """Do all of ``operations`` at once, at most one a key; gives the revision. ConflictError, StoreError:
        none was done.

        At most :data:`MAX_OPERATIONS` (etcd's default limit): longer lists are the caller's to split.
        """

    def watch(self, prefix: str, after: int) -> Watch:
        """Changes of keys that start with ``prefix``, made after the revision ``after``. CompactedError if
        that is too old."""

    def close(self) -> None: ...


MAX_OPERATIONS = 100


def check_operations(operations: Sequence[Operation]) -> None:
    """ValueError for a write that no store could do in one transaction."""
    if not 0 < len(operations) <= MAX_OPERATIONS:
        raise ValueError(f"a write takes 1 to {MAX_OPERATIONS} operations, got {len(operations)}")
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueError("a write names each key at most once")
