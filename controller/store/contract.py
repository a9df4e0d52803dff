# SPDX-License-Identifier: Apache-2.0
"""What a store promises, whichever engine is behind it.

- Each successful :meth:`Store.write` is atomic, durable against ``kill -9`` once it has returned, and gets
  the next revision. Revisions only grow.
- ``expect`` makes a write conditional (compare-and-swap): 0 means that the key must not exist, a number that
  the key was last written at that revision, :data:`ANY` that it does not matter. If one condition of a write
  fails, nothing of it happens and :class:`ConflictError` names the key.
- A watch sees every change after the revision that it starts from, in order, none twice.
- A key that was put under a lease is removed when the lease ends: by :meth:`Store.revoke`, or because nobody
  renewed it in time. Watches see that as they see any removal. Putting the key again without the lease, or
  under another one, takes it out of the first.

All methods block and may be called from any thread. Those that concern leases wait neither for writes nor for
one another, and end within about :data:`LEASE_CALL_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

#: As ``expect``: write whatever is there.
ANY = -1
#: Operations in one write; with what the engines add it stays below etcd's default limit.
MAX_OPERATIONS = 100
#: Within so many seconds a call about a lease succeeds or fails: whoever holds one must know soon.
LEASE_CALL_SECONDS = 1.0


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


class UncertainError(StoreError):
    """A write was sent and not answered: it may have happened or not.

    It has happened before the next write of the same :class:`Store` (one of checks only does not count) gives
    its revision or ConflictError, or it never will: nothing of it comes behind that one's back.
    """


class LeaseGoneError(StoreError):
    """The lease has ended, or there was none with this id. Keys that were put under it are gone."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease:x} has ended")
        self.lease = lease


class CompactedError(StoreError):
    """Changes since the revision asked for are no longer known: list again, and watch from there."""


class AnotherStoreError(StoreError):
    """The store is not the one that it was: its data was wiped, or restored from a backup. What was read from it
    before says nothing of what it holds now, and revisions of before and now cannot be compared."""


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
    """Write ``value`` under ``key``; with the id of a ``lease``, until that ends."""

    key: str
    value: bytes
    expect: int = ANY
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove ``key``; one that does not exist is no error unless ``expect`` says that it does."""

    key: str
    expect: int = ANY


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing to ``key``, but let the whole write fail unless the key is at the revision ``expect``
    (0: there is none)."""

    key: str
    expect: int


Operation: TypeAlias = Put | Delete | Check


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
        there. AnotherStoreError when that would not help.
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
        """Do all of ``operations`` at once, at most one a key; gives the revision.

        ConflictError, LeaseGoneError (only when all conditions hold), StoreError: none was done.
        UncertainError: see there. A write of nothing but :class:`Check` gives the store's revision at which
        all of them held, and makes no new one. At most :data:`MAX_OPERATIONS`, longer lists are the caller's
        to split; at most one lease.
        """

    def watch(self, prefix: str, after: int) -> Watch:
        """Changes of keys that start with ``prefix``, made after the revision ``after``. CompactedError if
        that is too old, StoreError if the store has not come to it."""

    def revision(self) -> int:
        """The revision that the store has come to. StoreError."""

    def compact(self, revision: int) -> None:
        """Forget what changed up to a revision, so that no watch begins before it; the entries stay. StoreError.

        Of the members that share a store, one does this now and then: a store may grow without.
        """

    def grant(self, seconds: float) -> int:
        """Begin a lease that ends when it is not renewed for ``seconds`` (a store may round them up); gives
        its id, greater than 0. StoreError."""

    def renew(self, lease: int) -> float:
        """Let a lease begin anew; gives the seconds for which it holds, by the store's word, counted from the
        moment at which this call began. LeaseGoneError, StoreError (it may or may not have been renewed)."""

    def revoke(self, lease: int) -> None:
        """End a lease and remove its keys; no error if it has ended already. StoreError."""

    def close(self) -> None: ...


def check_operations(operations: Sequence[Operation]) -> None:
    """ValueError for a write that no store could do in one transaction."""
    if not 0 < len(operations) <= MAX_OPERATIONS:
        raise ValueError(f"a write takes 1 to {MAX_OPERATIONS} operations, got {len(operations)}")
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueError("a write names each key at most once")
    for operation in operations:
        if isinstance(operation, Check) and operation.expect < 0:
            raise ValueError(f"a check of {operation.key} needs a revision, or 0 for none")
    if len({operation.lease for operation in operations if isinstance(operation, Put)} - {0}) > 1:
        raise ValueError("a write names at most one lease")


def check_compaction(revision: int) -> None:
    """ValueError for what is no revision up to which changes could be forgotten."""
    if revision <= 0:
        raise ValueError(f"there are no changes up to revision {revision}")
