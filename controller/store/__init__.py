# SPDX-License-Identifier: Apache-2.0
"""The store: where everything lives that must outlast the controller's process.

A flat space of keys ("/nodes/node-1") with values of plain bytes and one revision that counts writes, as etcd
has it: small enough to be the same over SQLite (one controller, a file) and etcd (several). What the bytes
mean is not known here.

:class:`Store` is the contract, ``sqlite.py`` and ``etcd.py`` keep it, and one test-suite is run against both.
"""

from controller.store.access import AccessError, StoreAccess
from controller.store.contract import (
    ANY,
    AnotherStoreError,
    Check,
    CompactedError,
    ConflictError,
    Delete,
    Entry,
    Event,
    LeaseGoneError,
    Operation,
    Put,
    Snapshot,
    Store,
    StoreError,
    UncertainError,
    Watch,
)
from controller.store.open import open_store

__all__ = [
    "ANY",
    "AccessError",
    "AnotherStoreError",
    "Check",
    "CompactedError",
    "ConflictError",
    "Delete",
    "Entry",
    "Event",
    "LeaseGoneError",
    "Operation",
    "Put",
    "Snapshot",
    "Store",
    "StoreAccess",
    "StoreError",
    "UncertainError",
    "Watch",
    "open_store",
]
