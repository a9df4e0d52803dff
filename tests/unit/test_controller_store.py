# SPDX-License-Identifier: Apache-2.0
"""What every store promises (controller/store/contract.py), held against each implementation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.ha.history import KEPT_TIMES, History
from controller.store import (
    ANY,
    Check,
    CompactedError,
    ConflictError,
    Delete,
    Event,
    LeaseGoneError,
    Put,
    Store,
    StoreError,
    open_store,
)
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


def test_a_check_lets_a_write_fail_and_writes_nothing_itself(store: Store) -> None:
    first = store.write([Put("/member", b"1")])
    written = store.write([Check("/member", first), Check("/none", 0), Put("/owner", b"me", expect=0)])
    entry = store.get("/member")
    assert entry is not None
    assert entry.revision == first
    with pytest.raises(ConflictError) as refused:
        store.write([Put("/owner", b"you", expect=written), Check("/member", 0)])
    assert (refused.value.key, refused.value.expected, refused.value.actual) == ("/member", 0, first)
    with pytest.raises(ConflictError, match="/none"):
        store.write([Delete("/owner"), Check("/none", first)])
    owner = store.get("/owner")
    assert owner is not None
    assert owner.value == b"me"


def test_a_write_of_checks_only_gives_the_revision_and_makes_none(store: Store) -> None:
    first = store.write([Put("/a", b"1")])
    last = store.write([Put("/b", b"1")])
    assert store.write([Check("/a", first), Check("/none", 0)]) == last
    assert store.list_prefix("/").revision == last
    with pytest.raises(ConflictError, match="/a"):
        store.write([Check("/a", last)])


def test_what_no_write_can_be_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="revision"):
        store.write([Check("/a", ANY)])
    with pytest.raises(ValueError, match="once"):
        store.write([Check("/a", 0), Put("/a", b"1")])
    with pytest.raises(ValueError, match="one lease"):
        store.write([Put("/a", b"1", lease=1), Put("/b", b"1", lease=2)])
    with pytest.raises(ValueError, match="no changes"):
        store.compact(0)
    with pytest.raises(ValueError, match="lease"):
        store.grant(0)


def test_the_keys_of_a_lease_that_is_not_renewed_go_and_watches_see_it(store: Store) -> None:
    lease = store.grant(2)
    start = store.write([Put("/m/a", b"1", lease=lease), Put("/m/b", b"1"), Put("/m/c", b"1", lease=lease)])
    with store.watch("/m/", start) as watch:
        gone = [watch.next(30), watch.next(30)]
        assert [(event.key, event.value) for event in gone if event] == [("/m/a", None), ("/m/c", None)]
        assert watch.next(0.2) is None
    assert [entry.key for entry in store.list_prefix("/m/").entries] == ["/m/b"]
    with pytest.raises(LeaseGoneError):
        store.renew(lease)
    with pytest.raises(LeaseGoneError):
        store.write([Put("/m/d", b"1"), Put("/m/a", b"1", lease=lease)])
    assert store.get("/m/d") is None
    store.revoke(lease)


def test_a_renewed_lease_holds(store: Store) -> None:
    lease = store.grant(3)
    start = store.write([Put("/m/a", b"1", lease=lease)])
    with store.watch("/m/", start) as watch:
        for _ in range(8):
            assert store.renew(lease) >= 3
            assert watch.next(0.5) is None
    assert store.get("/m/a") is not None
    store.revoke(lease)


def test_a_revoked_lease_takes_its_keys_with_it_at_once(store: Store) -> None:
    lease = store.grant(600)
    other = store.grant(600)
    assert lease != other
    store.write([Put("/m/moved", b"1", lease=lease)])
    store.write([Put("/m/kept", b"1", lease=lease)])
    store.write([Put("/m/moved", b"2", lease=other)])
    store.write([Put("/m/kept", b"2")])
    start = store.write([Put("/m/a", b"1", lease=lease)])
    with store.watch("/m/", start) as watch:
        store.revoke(lease)
        assert [entry.key for entry in store.list_prefix("/m/").entries] == ["/m/kept", "/m/moved"]
        event = watch.next(30)
        assert event is not None
        assert (event.key, event.value) == ("/m/a", None)
        assert watch.next(0.2) is None
    with pytest.raises(LeaseGoneError):
        store.renew(lease)
    store.revoke(lease)
    store.revoke(other)
    assert store.get("/m/moved") is None


def test_a_failed_condition_is_told_before_an_ended_lease(store: Store) -> None:
    store.write([Put("/a", b"1")])
    with pytest.raises(ConflictError, match="/a"):
        store.write([Put("/a", b"2", expect=0, lease=12345)])
    with pytest.raises(LeaseGoneError, match="3039"):
        store.write([Put("/b", b"2", expect=0, lease=12345)])


def test_forgotten_history_is_refused_and_entries_stay(store: Store) -> None:
    first = store.write([Put("/h/a", b"0")])
    for number in range(1, 20):
        last = store.write([Put("/h/b", str(number).encode())])
    assert store.revision() == last
    store.compact(last - 5)
    with pytest.raises(CompactedError):
        store.watch("/h/", first)
    with store.watch("/h/", last - 5) as watch:
        values = [event.value for _ in range(5) if (event := watch.next(30))]
        assert values == [b"15", b"16", b"17", b"18", b"19"]
    store.compact(last - 6)
    store.compact(last)
    with pytest.raises(StoreError):
        store.compact(last + 100)
    with store.watch("/h/", last) as watch:
        revision = store.write([Delete("/h/b")])
        assert watch.next(30) == Event("/h/b", None, revision)
    assert [entry.key for entry in store.list_prefix("/h/").entries] == ["/h/a"]


def test_a_watch_from_the_future_is_refused(store: Store) -> None:
    last = store.write([Put("/a", b"0")])
    with pytest.raises(StoreError):
        store.watch("/", last + 100)


def test_a_long_list_is_of_one_revision(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.store.etcd.PAGE", 7)
    store.write([Put(f"/k/{number:02}", b"0") for number in range(50)])
    stop = threading.Event()

    def write() -> None:
        round_ = 0
        while not stop.is_set():
            round_ += 1
            store.write([Put(f"/k/{number:02}", str(round_).encode()) for number in range(50)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            entries = store.list_prefix("/k/").entries
            assert [entry.key for entry in entries] == [f"/k/{number:02}" for number in range(50)]
            assert len({entry.value for entry in entries}) == 1
    finally:
        stop.set()
        writer.join()


def test_history_is_kept_for_some_minutes_and_not_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.ha.history.KEPT_REVISIONS", 20)
    history, minutes = History(store), []
    for _ in range(KEPT_TIMES + 3):
        minutes.append(store.write([Put("/h/a", b"0")]))
        history.shorten()
    store.watch("/h/", minutes[-KEPT_TIMES - 1]).close()
    with pytest.raises(CompactedError):
        store.watch("/h/", minutes[-KEPT_TIMES - 1] - 1)
    for _ in range(30):
        last = store.write([Put("/h/a", b"0")])
    history.shorten()
    store.watch("/h/", last - 20).close()
    with pytest.raises(CompactedError):
        store.watch("/h/", last - 21)


def test_the_embedded_store_bounds_its_history_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.store.sqlite.HISTORY_BYTES", 1_000_000)
    path = tmp_path / "store.db"
    store = open_store(f"sqlite://{path}")
    for number in range(60):
        last = store.write([Put("/large", bytes(50_000)), Put(f"/small/{number}", b"1")])
        if number % 20 == 0:
            store.close()
            store = open_store(f"sqlite://{path}")
    assert path.stat().st_size < 2_000_000
    with store.watch("/", last - 5) as watch:
        assert [event.key for _ in range(10) if (event := watch.next(30))][::2] == ["/large"] * 5
    with pytest.raises(CompactedError):
        store.watch("/", last - 25)
    store.write([Put("/large", bytes(2_000_000))])
    assert len(store.list_prefix("/").entries) == 61
    store.close()


def test_the_embedded_store_forgets_history_by_itself(
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
