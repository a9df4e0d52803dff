# SPDX-License-Identifier: Apache-2.0
"""From the setting ``store`` ("sqlite:///var/lib/sdn/controller.db") to an open store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from controller.store.contract import Store, StoreError
from controller.store.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """Open, and where needed create, the store that ``url`` names.

    ``sqlite:///PATH``. StoreError says what is wrong with the URL or with the store.
    """
    check_store_url(url)
    return SqliteStore(Path(urlsplit(url).path))


def check_store_url(url: str) -> None:
    """StoreError when ``url`` names no kind of store that this controller has."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise StoreError(f"{url!r}: a SQLite store is written sqlite:///PATH, with an absolute path")
        return
    raise StoreError(f"{url!r} names no store: use sqlite:///PATH")
