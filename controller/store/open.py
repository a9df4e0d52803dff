# SPDX-License-Identifier: Apache-2.0
"""From the setting ``store`` ("sqlite:///var/lib/sdn/controller.db") to an open store."""

from __future__ import annotations

from pathlib import Path

from controller.addresses import format_address, split_address
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
    scheme, _, where = url.partition("://")
    if scheme == "sqlite":
        return SqliteStore(Path(where))
    try:
        # Only who uses etcd needs its package.
        from controller.store.etcd import EtcdStore
    except ImportError as problem:
        raise StoreError(f"{url!r}: needs the Python package python3-etcd3: {problem}") from None
    return EtcdStore(_endpoints(where), access)


def check_store_url(url: str) -> None:
    """StoreError when ``url`` names no kind of store that this controller has."""
    scheme, _, where = url.partition("://")
    if scheme not in ("sqlite", "etcd"):
        raise StoreError(f"{url!r} names no store: use sqlite:///PATH or etcd://HOST:PORT,...")
    if scheme == "etcd" and "@" in where:
        # Not repeated here: it may hold a password.
        raise StoreError("etcd://HOST:PORT,... names no user: give store_user and store_password_file")
    if "?" in where or "#" in where:
        raise StoreError(
            f"{url!r}: neither '?' nor '#' may be in it: a store is told by its settings, and no more"
        )
    if scheme == "sqlite":
        if not where.startswith("/") or where == "/":
            raise StoreError(f"{url!r}: a SQLite store is written sqlite:///PATH, with an absolute path")
        return
    if "/" in where:
        raise StoreError(f"{url!r}: an etcd store has no path; it is written etcd://HOST:PORT,...")
    try:
        _endpoints(where)
    except ValueError as problem:
        raise StoreError(f"{url!r}: an etcd store is written etcd://HOST:PORT,...: {problem}") from None


def _endpoints(where: str) -> list[str]:
    """Each "host:port" as gRPC takes it. ValueError."""
    return [format_address(split_address(endpoint)) for endpoint in where.split(",")]


def check_access(url: str, access: StoreAccess) -> None:
    """AccessError when ``access`` is not whole, or is for a store that ``url`` does not name."""
    access.check_complete()
    if not url.startswith("etcd:") and (setting := access.first_setting()):
        raise AccessError(setting, "is for a store etcd://HOST:PORT,... only")
