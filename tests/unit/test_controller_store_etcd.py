# SPDX-License-Identifier: Apache-2.0
"""etcd as the store: what happens when members die."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from controller.store import CompactedError, ConflictError, Event, Put, Store, StoreError, open_store
from tests.unit.etcd_process import Etcd


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with Etcd(members=3) as running:
        yield running


def increment(store: Store) -> None:
    """Count by compare-and-swap, as often as it takes."""
    while True:
        entry = store.get("/sdn/count")
        number, revision = (int(entry.value), entry.revision) if entry is not None else (0, 0)
        try:
            store.write([Put("/sdn/count", str(number + 1).encode(), expect=revision)])
        except ConflictError:
            continue
        return


def test_no_write_is_lost_or_done_twice_when_the_leader_dies(etcd: Etcd) -> None:
    stores = [open_store(etcd.url) for _ in range(3)]
    watched: list[int] = []
    watch = stores[0].watch("/sdn/count", stores[0].list_prefix("/sdn/").revision)
    per_writer = 150

    def read() -> None:
        while len(watched) < per_writer * len(stores):
            event = watch.next(60)
            assert event is not None
            assert event.value is not None
            watched.append(int(event.value))

    def count(store: Store) -> None:
        for _ in range(per_writer):
            increment(store)

    threads = [threading.Thread(target=count, args=(store,)) for store in stores]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    etcd.processes[etcd.leader()].kill()
    for thread in threads:
        thread.join(120)
    entry = stores[0].get("/sdn/count")
    assert entry is not None
    assert int(entry.value) == per_writer * len(stores)
    assert watched == list(range(1, per_writer * len(stores) + 1))
    for store in stores:
        store.close()


def test_without_a_majority_every_call_says_so(etcd: Etcd) -> None:
    store = open_store(etcd.url)
    for process in etcd.processes[:2]:
        process.kill()
    with pytest.raises(StoreError, match="etcd://"):
        store.write([Put("/sdn/a", b"1")])
    store.close()


def test_a_watch_from_a_compacted_revision_is_refused(etcd: Etcd) -> None:
    store = open_store(etcd.url)
    first = store.write([Put("/sdn/a", b"1")])
    last = first
    for number in range(5):
        last = store.write([Put("/sdn/a", str(number).encode())])
    etcd.ctl("compact", str(last))
    with pytest.raises(CompactedError, match="no longer known"):
        store.watch("/sdn/", first)
    with store.watch("/sdn/", last) as watch:
        revision = store.write([Put("/sdn/b", b"1")])
        assert watch.next(60) == Event("/sdn/b", b"1", revision)
    store.close()


def test_no_answer_from_any_endpoint_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match=r"store etcd://127\.0\.0\.1:1,127\.0\.0\.1:2: unavailable"):
        open_store("etcd://127.0.0.1:1,127.0.0.1:2")


@pytest.mark.parametrize("url", ["etcd://", "etcd://host", "etcd://host:1,", "etcd://host:1/path"])
def test_a_url_that_names_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="etcd://HOST:PORT"):
        open_store(url)
