# SPDX-License-Identifier: Apache-2.0
"""What every store promises (controller/store/contract.py), held against each implementation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store import CompactedError, ConflictError, Delete, Event, Put, Store, open_store
from controller.store.contract import MAX_OPERATIONS
from tests.unit.etcd_process import Etcd


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as running:
        yield running


@pytest.fixture(params=["sqlite", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        opened = open_store(f"sqlite://{tmp_path}/store.db")
    else:
        etcd: Etcd = request.getfixturevalue("etcd")
        etcd.clear()
        opened = open_store(etcd.url)
    yield opened
    opened.close()


def test_what_is_written_is_read(store: Store) -> None:
    revision = store.write([Put("/a", b"1"), Put("/b", b"2")])
    entry = store.get("/a")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("/a", b"1", revision)
    assert store.get("/missing") is None


def test_a_prefix_lists_its_keys_in_order_and_no_others(store: Store) -> None:
    store.write([Put("/n/b", b"2"), Put("/n/a", b"1"), Put("/na", b"3"), Put("/n/é", b"4")])
    snapshot = store.list_prefix("/n/")
    assert [entry.key for entry in snapshot.entries] == ["/n/a", "/n/b", "/n/é"]
    assert store.list_prefix("/none/").entries == ()


def test_revisions_only_grow(store: Store) -> None:
    first = store.write([Put("/a", b"1")])
    second = store.write([Delete("/a")])
    third = store.write([Put("/a", b"1")])
    assert first < second < third
    assert store.list_prefix("/").revision >= third


def test_a_write_with_one_failed_condition_does_nothing(store: Store) -> None:
    store.write([Put("/taken", b"1")])
    with pytest.raises(ConflictError, match="/taken"):
        store.write([Put("/new", b"2"), Put("/taken", b"2", expect=0)])
    assert store.get("/new") is None
    entry = store.get("/taken")
    assert entry is not None
    assert entry.value == b"1"


def test_compare_and_swap_on_the_revision(store: Store) -> None:
    first = store.write([Put("/a", b"1", expect=0)])
    second = store.write([Put("/a", b"2", expect=first)])
    with pytest.raises(ConflictError) as refused:
        store.write([Put("/a", b"3", expect=first)])
    assert (refused.value.expected, refused.value.actual) == (first, second)
    with pytest.raises(ConflictError):
        store.write([Delete("/a", expect=first)])
    store.write([Delete("/a", expect=second)])
    assert store.get("/a") is None


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.write([Delete("/a")])
    assert store.get("/a") is None


def test_of_many_writers_with_the_same_expectation_one_wins(store: Store) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.write([Put("/owner", str(number).encode(), expect=0)])
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = store.get("/owner")
    assert entry is not None
    assert [str(number).encode() for number in won] == [entry.value]


def test_a_watch_sees_each_change_after_its_revision_once_and_in_order(store: Store) -> None:
    store.write([Put("/w/before", b"0")])
    start = store.write([Put("/w/a", b"1")])
    past = store.write([Put("/w/b", b"2")])
    with store.watch("/w/", start) as watch:
        later = store.write([Put("/w/a", b"3"), Put("/other", b"4")])
        gone = store.write([Delete("/w/b")])
        events = [watch.next(30) for _ in range(3)]
        assert events == [
            Event("/w/b", b"2", past),
            Event("/w/a", b"3", later),
            Event("/w/b", None, gone),
        ]
        assert watch.next(0.2) is None


def test_a_closed_watch_ends_its_reader(store: Store) -> None:
    watch = store.watch("/w/", store.write([Put("/w/a", b"1")]))
    seen: list[Event | None] = []
    reader = threading.Thread(target=lambda: seen.append(watch.next()))
    reader.start()
    watch.close()
    reader.join(30)
    assert seen == [None]


def test_a_write_is_bounded_and_names_each_key_once(store: Store) -> None:
    store.write([Put(f"/k/{number:04}", b"v") for number in range(MAX_OPERATIONS)])
    assert len(store.list_prefix("/k/").entries) == MAX_OPERATIONS
    with pytest.raises(ValueError, match="operations"):
        store.write([Put(f"/k/{number}", b"v") for number in range(MAX_OPERATIONS + 1)])
    with pytest.raises(ValueError, match="operations"):
        store.write([])
    with pytest.raises(ValueError, match="once"):
        store.write([Put("/a", b"1"), Delete("/a")])


def test_a_watch_from_a_forgotten_revision_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.store.sqlite.HISTORY", 10)
    store = open_store(f"sqlite://{tmp_path}/store.db")
    first = store.write([Put("/a", b"0")])
    for number in range(20):
        store.write([Put("/a", str(number).encode())])
    with pytest.raises(CompactedError):
        store.watch("/", first)
    store.close()
