# SPDX-License-Identifier: Apache-2.0
"""Marks on controllers that are not heard: who may set one, for whom it counts, and how long it keeps one away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ha.marks import FORGIVEN_SECONDS, Damping, clear_own_down, mark_down
from controller.records import DownRecord, decode, down_key, encode, member_key
from controller.store import ConflictError, Delete, Put, Store, open_store
from tests.unit.etcd_process import Etcd
from tests.unit.membership_process import member


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


@pytest.fixture
def revisions(store: Store) -> dict[str, int]:
    """Of the records of a and b."""
    return {
        name: store.write([Put(member_key(name), encode(member(name, f"{name}1")))]) for name in ("a", "b")
    }


def test_a_mark_says_whom_and_by_whom_and_is_set_once(store: Store, revisions: dict[str, int]) -> None:
    first = mark_down(store, "a", revisions["a"], "c", "c1")
    assert mark_down(store, "b", revisions["b"], "c", "c1") == first
    entry = store.get(down_key("c"))
    assert entry is not None
    assert entry.revision == first
    record = decode(DownRecord, entry)
    assert (record.incarnation, record.by) == ("c1", "a")
    assert record.at.endswith("Z")


def test_a_mark_of_a_former_incarnation_is_replaced(store: Store, revisions: dict[str, int]) -> None:
    first = mark_down(store, "a", revisions["a"], "c", "c1")
    assert mark_down(store, "a", revisions["a"], "c", "c2") > first


def test_of_two_that_mark_each_other_one_does(store: Store, revisions: dict[str, int]) -> None:
    mark_down(store, "a", revisions["a"], "b", "b1")
    with pytest.raises(ConflictError) as refused:
        mark_down(store, "b", revisions["b"], "a", "a1")
    assert refused.value.key == down_key("b")
    assert store.get(down_key("a")) is None


def test_who_has_no_record_any_more_marks_nobody(store: Store, revisions: dict[str, int]) -> None:
    store.write([Delete(member_key("a"))])
    with pytest.raises(ConflictError) as refused:
        mark_down(store, "a", revisions["a"], "b", "b1")
    assert refused.value.key == member_key("a")


def test_the_marked_one_takes_its_mark_away(store: Store, revisions: dict[str, int]) -> None:
    assert not clear_own_down(store, "b", revisions["b"])
    mark_down(store, "a", revisions["a"], "b", "b1")
    with pytest.raises(ConflictError):
        clear_own_down(store, "b", revisions["b"] + 100)
    assert clear_own_down(store, "b", revisions["b"])
    assert store.get(down_key("b")) is None
    mark_down(store, "b", revisions["b"], "a", "a1")


def test_the_time_away_doubles_and_has_an_end() -> None:
    damping = Damping()
    assert damping.away_seconds == 0.0
    away = []
    now = 1000.0
    for _ in range(7):
        damping = damping.marked(now)
        away.append(damping.away_seconds)
        assert damping.back_at == now + damping.away_seconds
        now = damping.back_at + 1.0
    assert away == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert damping.marked(now + FORGIVEN_SECONDS).away_seconds == 1.0


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=2000))
def test_the_time_away_is_within_its_bounds_and_what_is_kept_too(pauses: list[float]) -> None:
    damping, now, before = Damping(), 0.0, 0.0
    for pause in pauses:
        now += pause
        damping = damping.marked(now)
        assert 1.0 <= damping.away_seconds <= 30.0
        # Twice as long as before at most.
        assert damping.away_seconds <= max(1.0, 2 * before)
        before = damping.away_seconds
        assert damping.marked_at[0] > now - FORGIVEN_SECONDS
