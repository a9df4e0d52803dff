# SPDX-License-Identifier: Apache-2.0
"""etcd as the store: what happens when members die, or fall silent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store import (
    AnotherStoreError,
    Check,
    CompactedError,
    ConflictError,
    Delete,
    Event,
    LeaseGoneError,
    Operation,
    Put,
    Store,
    StoreError,
    UncertainError,
    open_store,
)
from controller.store.etcdwatch import PROBE_SECONDS
from tests.unit.etcd_process import Etcd

PATIENCE = 60.0


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


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_no_write_is_lost_or_done_twice_when_the_leader_goes(etcd: Etcd, how: str) -> None:
    stores = [open_store(etcd.url_from(number)) for number in range(3)]
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
    leader = etcd.leader()
    if how == "killed":
        etcd.kill(leader)
    else:
        etcd.pause(leader)
        time.sleep(3)
        # What lay in its buffers comes now.
        etcd.resume(leader)
    for thread in threads:
        thread.join(120)
    entry = stores[0].get("/sdn/count")
    assert entry is not None
    assert int(entry.value) == per_writer * len(stores)
    assert watched == list(range(1, per_writer * len(stores) + 1))
    for store in stores:
        store.close()


def test_a_request_that_comes_late_does_nothing(etcd: Etcd) -> None:
    """A member that was stopped hands on what it was sent before; by then it was done through another one, and
    undone again."""
    follower = (etcd.leader() + 1) % 3
    other = open_store(etcd.url_from((follower + 1) % 3))
    for _ in range(8):
        store = open_store(etcd.url_from(follower))
        store.write([Put("/sdn/next", b"0")])
        etcd.pause(follower)
        store.write([Put("/sdn/late", b"1")])
        other.write([Delete("/sdn/late")])
        etcd.resume(follower)
        time.sleep(0.5)
        assert other.get("/sdn/late") is None
        store.close()
    other.close()


def test_a_write_that_was_given_up_does_not_come_behind_the_next_one(etcd: Etcd) -> None:
    store = open_store(etcd.url)
    store.write([Put("/sdn/next", b"0")])
    for attempt in range(3):
        for number in range(3):
            etcd.pause(number)
        with pytest.raises(UncertainError, match="may have happened or not"):
            store.write([Put(f"/sdn/late/{attempt}", b"late")])
        for number in range(3):
            etcd.resume(number)
        settle(store)
        # It has happened by now, or never will.
        found = store.get(f"/sdn/late/{attempt}")
        time.sleep(1)
        assert store.get(f"/sdn/late/{attempt}") == found
    store.close()


def test_what_was_never_sent_is_not_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.store.etcd.CALL_SECONDS", 2)
    with Etcd() as etcd:
        store = open_store(etcd.url)
        store.write([Put("/sdn/a", b"1")])
        etcd.kill(0)
        with pytest.raises(StoreError):
            store.get("/sdn/a")
        with pytest.raises(StoreError, match="failed to connect") as refused:
            store.write([Put("/sdn/a", b"2")])
        assert not isinstance(refused.value, UncertainError)
        store.close()


def settle(store: Store) -> None:
    """Write, as often as it takes for one to succeed."""
    settled(store, Put("/sdn/next", b"1"))


def settled(store: Store, operation: Operation) -> None:
    for _ in range(10):
        try:
            store.write([operation])
        except StoreError:
            continue
        return
    raise AssertionError("the store does not come back")


def test_without_a_majority_every_call_says_so_and_with_one_again_all_is_well(etcd: Etcd) -> None:
    store = open_store(etcd.url)
    revision = store.write([Put("/sdn/a", b"1")])
    lease = store.grant(60)
    watch = store.watch("/sdn/", revision)
    for number in (0, 1):
        etcd.kill(number)
    with pytest.raises(StoreError, match="etcd://"):
        store.write([Put("/sdn/a", b"2", expect=revision)])
    with pytest.raises(StoreError, match="etcd://"):
        store.get("/sdn/a")
    with pytest.raises(StoreError, match="etcd://") as refused:
        store.renew(lease)
    assert not isinstance(refused.value, LeaseGoneError)
    with pytest.raises(StoreError, match="etcd://"):
        store.grant(60)
    for number in (0, 1):
        etcd.restart(number)
    etcd.wait_ready()
    settle(store)
    assert store.renew(lease) >= 60
    seen = [watch.next(60)]
    while (event := watch.next(0)) is not None:
        seen.append(event)
    assert seen[-1] is not None
    assert seen[-1].key == "/sdn/next"
    watch.close()
    store.close()


@pytest.mark.parametrize("number", range(3))
def test_one_member_that_is_silent_does_not_matter(etcd: Etcd, number: int) -> None:
    store = open_store(etcd.url_from(number))
    start = store.write([Put("/sdn/a", b"1")])
    lease = store.grant(60)
    with store.watch("/sdn/", start) as watch:
        etcd.pause(number)
        second = store.write([Put("/sdn/a", b"2", expect=start, lease=lease)])
        assert watch.next(60) == Event("/sdn/a", b"2", second)
        entry = store.get("/sdn/a")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", second)
        assert [found.key for found in store.list_prefix("/sdn/").entries] == ["/sdn/a"]
        renew(store, lease)
        store.revoke(lease)
        event = watch.next(60)
        assert event is not None
        assert (event.key, event.value) == ("/sdn/a", None)
    store.close()
    etcd.resume(number)


def renew(store: Store, lease: int) -> None:
    """Renew, over an election."""
    for _ in range(10):
        try:
            store.renew(lease)
        except LeaseGoneError:
            raise
        except StoreError:
            continue
        return
    raise AssertionError("the lease cannot be renewed")


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_lease_outlives_the_leader(etcd: Etcd, how: str) -> None:
    store = open_store(etcd.url)
    lease = store.grant(5)
    start = store.write([Put("/sdn/member", b"1", lease=lease)])
    with store.watch("/sdn/", start) as watch:
        for round_ in range(14):
            if round_ == 2:
                (etcd.kill if how == "killed" else etcd.pause)(etcd.leader())
            renew(store, lease)
            assert watch.next(0.5) is None
        # Nobody renews it any more.
        event = watch.next(60)
        assert event is not None
        assert event.value is None
    store.close()


def test_a_failed_check_names_its_key_whoever_leads(etcd: Etcd) -> None:
    store = open_store(etcd.url)
    member = store.write([Put("/sdn/controllers/a", b"1")])
    etcd.pause(etcd.leader())
    with pytest.raises(ConflictError) as refused:
        store.write([Put("/sdn/owners/n", b"a", expect=0), Check("/sdn/controllers/a", member - 1)])
    assert (refused.value.key, refused.value.actual) == ("/sdn/controllers/a", member)
    store.write([Put("/sdn/owners/n", b"a", expect=0), Check("/sdn/controllers/a", member)])
    store.close()


def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let watches stay with a member that is silent."""
    monkeypatch.setattr("controller.store.etcdwatch.SILENCE_SECONDS", 1000)


def test_a_watch_that_comes_back_too_late_says_so(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    stay(monkeypatch)
    number = (etcd.leader() + 1) % 3
    slow, store = open_store(etcd.url_from(number)), open_store(etcd.url_from((number + 1) % 3))
    watch = slow.watch("/sdn/", store.write([Put("/sdn/a", b"0")]))
    revision = store.write([Put("/sdn/a", b"1")])
    assert watch.next(60) == Event("/sdn/a", b"1", revision)
    etcd.pause(number)
    for attempt in range(20):
        store.write([Put("/sdn/a", str(attempt).encode())])
    store.compact(store.revision() - 10)
    etcd.kill(number)
    with pytest.raises(CompactedError, match="are known from revision"):
        watch.next(60)
    # From the list on it goes on.
    snapshot = slow.list_prefix("/sdn/")
    with slow.watch("/sdn/", snapshot.revision) as again:
        revision = store.write([Put("/sdn/b", b"1")])
        assert again.next(60) == Event("/sdn/b", b"1", revision)
    watch.close()
    slow.close()
    store.close()


def test_a_removal_in_the_last_forgotten_revision_is_not_missed(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd serves a watch from the revision of its last compaction on, but forgets removals at that one."""
    stay(monkeypatch)
    number = (etcd.leader() + 1) % 3
    store = open_store(etcd.url_from(number))
    other = etcd.url_from((number + 1) % 3).removeprefix("etcd://").split(",")[0]
    seen = store.write([Put("/sdn/a", b"0")])
    watch = store.watch("/sdn/", seen)
    etcd.pause(number)
    etcd.ctl("del", "/sdn/a", endpoints=other)
    etcd.ctl("compact", str(seen + 1), endpoints=other)
    etcd.kill(number)
    with pytest.raises(CompactedError):
        watch.next(60)
    watch.close()
    store.close()


@pytest.mark.root
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_watch_leaves_a_member_that_is_cut_off_from_the_others(who: str) -> None:
    done = subprocess.run(
        [
            *("unshare", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh"),
            *(sys.executable, "-m", "tests.unit.etcd_partition", who),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.parametrize("members", [1, 3])
def test_a_watch_of_a_store_that_was_wiped_says_so(members: int) -> None:
    """A stream from a revision that is far away would say nothing for long."""
    with Etcd(members) as etcd:
        store = open_store(etcd.url)
        for number in range(50):
            revision = store.write([Put("/sdn/a", str(number).encode())])
        watch = store.watch("/sdn/", revision)
        for number in range(members):
            etcd.kill(number)
        for number in range(members):
            etcd.wipe(number)
        with pytest.raises(AnotherStoreError, match="wiped or restored"):
            watch.next(PATIENCE)
        watch.close()
        store.close()


def test_a_watch_of_a_store_that_was_restored_says_so_also_when_others_write_at_once(tmp_path: Path) -> None:
    """Its revisions may be above those of before when somebody looks; its term is not."""
    with Etcd() as etcd:
        store = open_store(etcd.url)
        # Elections, as in the life of any cluster.
        for _ in range(4):
            etcd.kill(0)
            etcd.restart(0)
            etcd.wait_ready()
        settle(store)
        etcd.save(tmp_path / "backup")
        revision = store.write([Put("/sdn/a", b"lost")])
        watch = store.watch("/sdn/", revision)
        time.sleep(2 * PROBE_SECONDS)
        etcd.kill(0)
        etcd.restore(tmp_path / "backup")
        etcd.wait_ready()
        for number in range(20):
            etcd.ctl("put", "/other", str(number))
        with pytest.raises(AnotherStoreError, match="wiped or restored"):
            while watch.next(PATIENCE) is not None:
                pass
        watch.close()
        store.close()


def test_a_watch_outlives_every_member_in_turn(etcd: Etcd) -> None:
    """Elections and starts make no other store."""
    store = open_store(etcd.url)
    watch = store.watch("/sdn/", store.write([Put("/sdn/next", b"0")]))
    for round_ in range(6):
        etcd.kill(round_ % 3)
        time.sleep(1)
        etcd.restart(round_ % 3)
        etcd.wait_ready()
        settle(store)
        event = watch.next(PATIENCE)
        assert event is not None
        assert event.key == "/sdn/next"
        while watch.next(0) is not None:
            pass
    watch.close()
    store.close()


def test_a_key_that_is_no_text_is_left_aside(caplog: pytest.LogCaptureFixture) -> None:
    with Etcd() as etcd:
        store = open_store(etcd.url)
        start = store.write([Put("/sdn/a", b"1")])
        with store.watch("/sdn/", start) as watch:
            etcd.ctl("put", b"/sdn/\xff".decode(errors="surrogateescape"), "1")
            revision = store.write([Put("/sdn/b", b"1")])
            assert watch.next(PATIENCE) == Event("/sdn/b", b"1", revision)
        assert [entry.key for entry in store.list_prefix("/sdn/").entries] == ["/sdn/a", "/sdn/b"]
        assert caplog.text.count(r"b'/sdn/\xff'") == 2
        store.close()


def test_a_watch_that_is_broken_off_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with Etcd() as etcd:
        store = open_store(etcd.url)
        with store.watch("/sdn/", store.write([Put("/sdn/a", b"1")])) as watch:
            etcd.kill(0)
            time.sleep(1)
            etcd.restart(0)
            etcd.wait_ready()
            settle(store)
            assert watch.next(PATIENCE) is not None
        assert caplog.text.count("a watch is taken up again: unavailable") == 1
        store.close()


def marks(store: Store) -> list[str]:
    return [entry.key for entry in store.list_prefix("/sdn-writers/").entries]


def test_nothing_of_a_store_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with Etcd() as etcd:
        observer = open_store(etcd.url)
        store = open_store(etcd.url)
        store.write([Put("/sdn/a", b"1")])
        assert len(marks(observer)) == 1
        store.close()
        assert marks(observer) == []
        monkeypatch.setattr("controller.store.etcdwrites.MARK_SECONDS", 2)
        store = open_store(etcd.url)
        store.write([Put("/sdn/a", b"2")])
        # As after kill -9: nobody removes its mark.
        while marks(observer):
            time.sleep(0.1)
        revision = store.write([Put("/sdn/a", b"3")])
        monkeypatch.setattr("controller.store.etcdwrites.MARK_SECONDS", 600)
        etcd.clear()
        with pytest.raises(ConflictError):
            store.write([Put("/sdn/a", b"4", expect=revision)])
        store.write([Put("/sdn/a", b"4", expect=0)])
        store.close()
        observer.close()


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


def test_endpoints_are_taken_as_they_are_meant() -> None:
    with pytest.raises(StoreError, match=r"store etcd://127\.0\.0\.1:1,\[::1\]:2: unavailable"):
        open_store("etcd://127.0.0.1:01,[::1]:2")


@pytest.mark.parametrize("members", [1, 3])
def test_a_list_of_large_values_comes_in_smaller_pages(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no member can send in the time that one has for an answer."""
    monkeypatch.setattr("controller.store.endpoints.ATTEMPT_SECONDS", 0.04)
    with Etcd(members) as etcd:
        store = open_store(etcd.url)
        for number in range(250):
            settled(store, Put(f"/sdn/{number:03}", bytes(400_000)))
        entries = store.list_prefix("/sdn/").entries
        assert [(entry.key, len(entry.value)) for entry in entries] == [
            (f"/sdn/{number:03}", 400_000) for number in range(250)
        ]
        store.close()


@pytest.mark.parametrize("url", ["etcd://", "etcd://host", "etcd://host:1,", "etcd://host:1/path"])
def test_a_url_that_names_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="etcd://HOST:PORT"):
        open_store(url)
