# SPDX-License-Identifier: Apache-2.0
"""A controller's own record and lease: there while it lives, gone soon after, and nothing written beyond."""

from __future__ import annotations

import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.ha import membership as module
from controller.ha.heartbeat import Heartbeats
from controller.ha.membership import COUNTED, Membership, NameTakenError, clock, safe_until
from controller.listening import listen
from controller.records import CorruptRecordError, MemberRecord, decode, encode, member_key
from controller.store import Delete, Event, Put, Store, StoreError, open_store
from tests.ports import unused_port
from tests.unit.cut_relay import CutRelay
from tests.unit.etcd_process import Etcd
from tests.unit.membership_process import RemoteMember, member

PATIENCE = 60.0
LEASE = 2.0
KEY = member_key("a")


@pytest.fixture(scope="module")
def running_etcd() -> Iterator[Etcd]:
    with Etcd() as running:
        yield running


@pytest.fixture
def etcd(running_etcd: Etcd) -> Etcd:
    running_etcd.clear()
    return running_etcd


@pytest.fixture(params=["sqlite", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        opened = open_store(f"sqlite://{tmp_path}/store.db")
    else:
        etcd: Etcd = request.getfixturevalue("etcd")
        opened = open_store(etcd.url)
    yield opened
    opened.close()


@pytest.fixture
def observer(etcd: Etcd) -> Iterator[Store]:
    """The store, as another controller sees it."""
    opened = open_store(etcd.url)
    yield opened
    opened.close()


class Watched(Membership):
    """A membership that keeps what it told: "lost", or the revision at which it was regained."""

    def __init__(self, store: Store, record: MemberRecord, lease_seconds: float = LEASE) -> None:
        super().__init__(store, record, lease_seconds)
        self.told: queue.SimpleQueue[str | int] = queue.SimpleQueue()
        self.on_lost = lambda: self.told.put("lost")
        self.on_regained = self.told.put

    def next(self) -> str | int:
        return self.told.get(timeout=PATIENCE)


@contextmanager
def started(store: Store, record: MemberRecord, lease_seconds: float = LEASE) -> Iterator[Watched]:
    watched = Watched(store, record, lease_seconds)
    watched.start()
    try:
        yield watched
    finally:
        watched.stop()


def found(store: Store, key: str = KEY) -> MemberRecord | None:
    entry = store.get(key)
    return decode(MemberRecord, entry) if entry is not None else None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def unused_address() -> str:
    return f"127.0.0.1:{unused_port()}"


def listening(name: str, incarnation: str, address: str = "127.0.0.1:0") -> Heartbeats:
    return Heartbeats(name, incarnation, listen(address), lambda *_: None, lambda *_: None)


def test_the_record_is_there_from_start_to_stop(store: Store) -> None:
    record = member("a", "a1")
    watched = Watched(store, record)
    assert not watched.may_write()
    with store.watch(KEY, store.list_prefix("/").revision) as watch:
        revision = watched.start()
        assert watched.may_write()
        assert watch.next(PATIENCE) == Event(KEY, encode(record), revision)
        watched.stop()
        gone = watch.next(PATIENCE)
        assert gone is not None
        assert gone.value is None
    assert not watched.may_write()
    assert watched.told.empty()
    watched.stop()


def test_the_lease_is_renewed_and_nothing_changes(store: Store) -> None:
    with started(store, member("a", "a1"), lease_seconds=3.0) as watched:
        before = store.get(KEY)
        for _ in range(30):
            time.sleep(0.25)
            assert watched.may_write()
        assert store.get(KEY) == before
        assert watched.told.empty()


def test_the_record_can_be_changed_and_still_goes_with_the_lease(store: Store) -> None:
    with started(store, member("a", "a1")) as watched:
        revision = watched.update(draining=True)
        entry = store.get(KEY)
        assert entry is not None
        assert entry.revision == revision == watched.revision
        record = found(store)
        assert record is not None
        assert record.draining
        assert record.name == "a"
        assert watched.update(draining=False) > revision
    assert store.get(KEY) is None
    assert watched.told.empty()


def test_a_removed_record_is_written_again(store: Store) -> None:
    with started(store, member("a", "a1")) as watched:
        first = watched.revision
        removed = store.write([Delete(KEY)])
        watched.stored(Event(KEY, None, removed))
        assert watched.next() == "lost"
        regained = watched.next()
        entry = store.get(KEY)
        assert entry is not None
        assert regained == entry.revision > first
        assert watched.may_write()
        # What is told late, or of its own writes, or of others, changes nothing.
        watched.stored(Event(KEY, None, removed))
        watched.stored(Event(KEY, entry.value, entry.revision + 5))
        watched.stored(Event(member_key("b"), None, entry.revision + 5))
        time.sleep(0.5)
        assert watched.told.empty()
        with pytest.raises(CorruptRecordError, match=KEY):
            watched.stored(Event(KEY, b"{", entry.revision + 5))
    assert store.get(KEY) is None


def test_who_is_replaced_does_not_fight_for_the_name_and_comes_back_when_it_is_free(store: Store) -> None:
    with started(store, member("a", "a1")) as watched:
        other = encode(member("a", "a2"))
        replaced = store.write([Put(KEY, other)])
        watched.stored(Event(KEY, other, replaced))
        assert watched.next() == "lost"
        time.sleep(2 * LEASE)
        assert not watched.may_write()
        assert watched.told.empty()
        assert watched.update(draining=True) == 0
        record = found(store)
        assert record is not None
        assert record.incarnation == "a2"
        store.write([Delete(KEY)])
        assert watched.next() == watched.revision
        record = found(store)
        assert record is not None
        assert record.incarnation == "a1"
        assert record.draining


def test_changing_a_record_that_was_replaced_finds_that_out(store: Store) -> None:
    with started(store, member("a", "a1")) as watched:
        store.write([Put(KEY, encode(member("a", "a2")))])
        assert watched.update(draining=True) == 0
        assert watched.next() == "lost"
        assert not watched.may_write()


def test_two_with_one_name_are_one_too_many(store: Store) -> None:
    listener = listening("a", "a1")
    address = f"127.0.0.1:{listener.port}"
    try:
        with started(store, member("a", "a1", address), lease_seconds=1.0) as watched:
            second = Watched(store, member("a", "a2", unused_address()), lease_seconds=1.0)
            with pytest.raises(
                NameTakenError, match=f"controller a: .* at {address}, incarnation a1, started at 2026"
            ):
                second.start()
            assert not second.may_write()
            second.stop()
            assert watched.may_write()
            assert watched.told.empty()
    finally:
        listener.close()


def test_who_stops_in_time_gives_the_name_to_the_next(store: Store) -> None:
    listener = listening("a", "a1")
    try:
        with started(store, member("a", "a1", f"127.0.0.1:{listener.port}")) as first:
            stopping = threading.Timer(0.5, first.stop)
            stopping.start()
            with started(store, member("a", "a2", unused_address())) as second:
                assert second.may_write()
            stopping.join()
    finally:
        listener.close()


@pytest.mark.parametrize("listens", ["nobody", "itself", "another controller", "another program"])
def test_the_record_of_one_that_is_dead_is_replaced(store: Store, listens: str) -> None:
    listeners = []
    address = unused_address()
    if listens == "itself":
        listeners.append(listening("a", "a2", address))
    elif listens == "another controller":
        listeners.append(listening("b", "b1", address))
    with socket.socket() as program:
        if listens == "another program":
            program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host, _, port = address.partition(":")
            program.bind((host, int(port)))
            program.listen()

            def close_all() -> None:
                with program.accept()[0] as connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

            threading.Thread(target=close_all, daemon=True).start()
        lease = store.grant(600.0)  # that of the dead one: nothing but replacing it makes a start possible
        store.write([Put(KEY, encode(member("a", "a1", address)), lease=lease)])
        with started(store, member("a", "a2", address)):
            record = found(store)
            assert record is not None
            assert record.incarnation == "a2"
            store.revoke(lease)
            assert found(store) == record
    for listener in listeners:
        listener.close()


def test_the_lease_of_one_that_does_not_answer_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        address = f"127.0.0.1:{dumb.getsockname()[1]}"
        lease = store.grant(LEASE)
        before = clock()
        store.write([Put(KEY, encode(member("a", "a1", address)), lease=lease)])
        with started(store, member("a", "a2", unused_address())):
            assert clock() - before >= LEASE


def test_a_record_that_is_none_is_an_error_that_names_it(store: Store) -> None:
    store.write([Put(KEY, b"[]")])
    with pytest.raises(CorruptRecordError, match=KEY):
        Watched(store, member("a", "a1")).start()


def test_a_callback_that_fails_does_not_end_it(store: Store) -> None:
    with started(store, member("a", "a1")) as watched:

        def fail() -> None:
            watched.told.put("lost")
            raise RuntimeError("not now")

        watched.on_lost = fail
        for _ in range(2):
            watched.stored(Event(KEY, None, store.write([Delete(KEY)])))
            assert watched.next() == "lost"
            assert isinstance(watched.next(), int)


def test_a_loss_is_told_also_when_it_is_over_before_it_can_be(store: Store) -> None:
    with started(store, member("a", "a1")) as watched:
        busy, go_on = threading.Event(), threading.Event()

        def wait(revision: int) -> None:
            watched.told.put(revision)
            busy.set()
            go_on.wait(PATIENCE)

        watched.on_regained = wait
        watched.stored(Event(KEY, None, store.write([Delete(KEY)])))
        assert [watched.next(), watched.next()] == ["lost", watched.revision]
        busy.wait(PATIENCE)
        removed = store.write([Delete(KEY)])
        watched.stored(Event(KEY, None, removed))
        wait_until(lambda: watched.revision > removed and watched.may_write())
        go_on.set()
        assert [watched.next(), watched.next()] == ["lost", watched.revision]


def test_a_renewal_that_comes_after_the_loss_of_the_record_is_not_counted_on(store: Store) -> None:
    membership = Membership(store, member("a", "1"), LEASE)
    membership._count(clock(), LEASE)
    assert not membership.may_write()


def test_a_file_that_was_left_by_a_killed_controller_has_no_record(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    with RemoteMember(url, "a", "a1", LEASE, unused_address()) as first:
        first.signal(signal.SIGKILL)
    store = open_store(url)
    with started(store, member("a", "a2")):
        pass
    store.close()


def test_who_is_cut_off_stops_writing_before_its_record_is_gone(etcd: Etcd, observer: Store) -> None:
    with CutRelay(etcd.endpoints) as relay:
        store = open_store(f"etcd://{relay.address}")
        with started(store, member("a", "a1")) as watched:
            with observer.watch(KEY, watched.revision) as watch:
                relay.cut()
                event = watch.next(PATIENCE)
                may_write = watched.may_write()
                assert event is not None
                assert event.value is None
                assert not may_write
            assert watched.next() == "lost"
            relay.mend()
            regained = watched.next()
            assert watched.may_write()
            entry = observer.get(KEY)
            assert entry is not None
            assert entry.revision == regained == watched.revision
        store.close()


def test_a_short_cut_is_no_loss(etcd: Etcd, observer: Store) -> None:
    with CutRelay(etcd.endpoints) as relay:
        store = open_store(f"etcd://{relay.address}")
        with started(store, member("a", "a1"), lease_seconds=15.0) as watched:
            relay.cut()
            # Beyond the first attempt to renew it.
            time.sleep(7.0)
            relay.mend()
            time.sleep(2.0)
            assert watched.may_write()
            assert watched.told.empty()
        store.close()


def test_a_name_that_was_given_away_during_a_cut_stays_with_its_new_holder(
    etcd: Etcd, observer: Store
) -> None:
    with CutRelay(etcd.endpoints) as relay:
        store = open_store(f"etcd://{relay.address}")
        with started(store, member("a", "a1")) as watched:
            relay.cut()
            with started(observer, member("a", "a2")) as second:
                assert watched.next() == "lost"
                relay.mend()
                time.sleep(2 * LEASE)
                assert not watched.may_write()
                assert second.may_write()
                assert second.told.empty()
        store.close()


def test_without_a_store_nothing_is_written_and_stopping_ends(etcd: Etcd) -> None:
    with CutRelay(etcd.endpoints) as relay:
        store = open_store(f"etcd://{relay.address}")
        watched = Watched(store, member("a", "a1"))
        watched.start()
        relay.cut()
        assert watched.next() == "lost"
        assert not watched.may_write()
        with pytest.raises(StoreError):
            watched.update(draining=True)
        watched.stop()
        store.close()


def test_who_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_goes_on(
    etcd: Etcd, observer: Store
) -> None:
    with RemoteMember(etcd.url, "a", "a1", LEASE, unused_address()) as remote:
        with observer.watch(KEY, observer.list_prefix("/").revision) as watch:
            remote.signal(signal.SIGSTOP)
            event = watch.next(PATIENCE)
            assert event is not None
            assert event.value is None
        remote.signal(signal.SIGCONT)
        told = [remote.next() for _ in range(3)]
        assert ("ran again", False) in told
        assert ("lost", False) in told
        assert ("regained", True) in told
        record = found(observer)
        assert record is not None
        assert record.incarnation == "a1"


def test_a_killed_controller_that_starts_again_does_not_wait_for_its_former_lease(
    etcd: Etcd, observer: Store
) -> None:
    address = unused_address()
    with RemoteMember(etcd.url, "a", "a1", 600.0, address) as first:
        first.signal(signal.SIGKILL)
        begun = time.monotonic()
        with RemoteMember(etcd.url, "a", "a2", 30.0, address):
            print(f"killed and standing again, a start of Python included: {time.monotonic() - begun:.1f} s")
            record = found(observer)
            assert record is not None
            assert record.incarnation == "a2"


def test_the_end_of_what_is_counted_on_is_before_the_end_of_the_lease() -> None:
    assert 100.0 < safe_until(100.0, 5.0) == 100.0 + 5.0 * COUNTED < 105.0
