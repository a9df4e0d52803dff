# SPDX-License-Identifier: Apache-2.0
"""The store: where everything lives that must outlast the controller's process.

A flat space of keys ("/nodes/node-1") with values of plain bytes and one revision that counts writes, as etcd
has it: small enough to be the same over SQLite (one controller, a file) and etcd (several). What the bytes
mean is not known here.

:class:`Store` is the contract, ``sqlite.py`` and ``etcd.py`` keep it, and one test-suite is run against both.
"""

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
    Store,
    StoreError,
    Watch,
)
from controller.store.open import open_store

__all__ = [
    "ANY",
    "CompactedError",
    "ConflictError",
    "Delete",
    "Entry",
    "Event",
    "Operation",
    "Put",
    "Snapshot",
    "Store",
    "StoreError",
    "Watch",
    "open_store",
]
