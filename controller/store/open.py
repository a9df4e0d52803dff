# SPDX-License-Identifier: Apache-2.0
"""From the setting ``store`` ("sqlite:///var/lib/sdn/controller.db") to an open store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from controller.addresses import split_address
from controller.store.access import AccessError, StoreAccess
from controller.store.contract import Store, StoreError
from controller.store.sqlite import SqliteStore


def open_store(url: str, access: StoreAccess | None = None) -> Store:
    """Open, and where needed create, the store that ``url`` names.

    ``sqlite:///PATH``, or ``etcd://HOST:PORT`` with further endpoints after commas, which ``access`` is for.
    StoreError says what is wrong with the URL or with the store, AccessError what with ``access``.
    """
    check_store_url(url)
    check_access(url, access or StoreAccess())
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return SqliteStore(Path(parts.path))
    try:
        # Only who uses etcd needs its package.
        from controller.store.etcd import EtcdStore
    except ImportError as problem:
        raise StoreError(f"{url!r}: needs the Python package python3-etcd3: {problem}") from None
    return EtcdStore(parts.netloc.split(","), access)


def check_store_url(url: str) -> None:
    """StoreError when ``url`` names no kind of store that this controller has."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise StoreError(f"{url!r}: a SQLite store is written sqlite:///PATH, with an absolute path")
        return
    if parts.scheme == "etcd":
        try:
            for endpoint in parts.netloc.split(","):
                split_address(endpoint)
        except ValueError as problem:
            raise StoreError(f"{url!r}: an etcd store is written etcd://HOST:PORT,...: {problem}") from None
        if parts.path:
            raise StoreError(f"{url!r}: an etcd store has no path; it is written etcd://HOST:PORT,...")
        return
    raise StoreError(f"{url!r} names no store: use sqlite:///PATH or etcd://HOST:PORT,...")


def check_access(url: str, access: StoreAccess) -> None:
    """AccessError when ``access`` is not whole, or is for a store that ``url`` does not name."""
    access.check_complete()
    if urlsplit(url).scheme != "etcd" and (setting := access.first_setting()):
        raise AccessError(setting, "is for a store etcd://HOST:PORT,... only")
