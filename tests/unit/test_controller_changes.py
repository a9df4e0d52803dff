# SPDX-License-Identifier: Apache-2.0
"""What waits for a busy synchronizer, or for a switch that is away, and what becomes of it when it is much."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from controller.changes import MERGE_ABOVE, Change, Inbox, entries_of, merged, unchanged
from controller.desired import Desired, Encoded, Entries, Part
from controller.holdings import Holdings
from controller.stale import StaleConnections
from controller.waiting import MOST_WAITING, Waiting
from sdn import logs
from sdn.pipeline.topology import Address

ADDRESSES = [Address.parse(f"10.244.0.{number}") for number in range(2, 6)]
KEYS = [b"one", b"two", b"three"]


def compiled(entries: Entries) -> Encoded:
    return Encoded(entries)


changes = st.lists(
    st.builds(
        Change,
        st.sampled_from(["a", "b", "c"]),
        st.none()
        | st.dictionaries(st.sampled_from(KEYS), st.sampled_from([b"x", b"y"])).map(
            lambda entries: functools.partial(compiled, entries)
        ),
        gone=st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple),
        fresh=st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple),
    ),
    max_size=12,
)


def effect(some: list[Change]) -> tuple[dict[object, bytes], set[Address], set[object]]:
    """What is desired after the changes; which connections must be forgotten before, and which after they are
    written.
    """
    desired, stale, fresh = Desired(), StaleConnections(), set[Address]()
    for change in some:
        stale.gone(change.gone)
        fresh |= stale.back(change.fresh)
        if change.compile is not unchanged:
            desired.replace(change.part, entries_of(change.compile))
    return dict(desired.items()), fresh, set(stale.take(0.0))


@given(changes)
def test_merged_changes_do_what_they_would_do_one_by_one(some: list[Change]) -> None:
    assert effect(merged(some)) == effect(some)


@given(changes)
def test_of_each_part_one_version_is_left_at_its_place(some: list[Change]) -> None:
    left = [change for change in merged(some) if change.compile is not unchanged]
    last = {change.part: change for change in some}
    order = list(dict.fromkeys(change.part for change in reversed(some)))[::-1]
    assert [change.part for change in left] == order
    assert all(change.compile is last[change.part].compile for change in left)


def test_all_who_wait_for_any_version_of_a_part_are_kept_in_their_order() -> None:
    told: list[tuple[int, str | None]] = []
    some = [
        Change(part, None, lambda why, number=number: told.append((number, why)))  # type: ignore[misc]
        for number, part in enumerate(["a", "b", "a", "a", "b"])
    ]
    again = merged(merged(some))
    assert [change.part for change in again] == ["a", "b"]
    for change in again:
        for done in change.waiting:
            done(None)
    assert [number for number, _ in told] == [0, 2, 3, 1, 4]


def test_what_waits_for_a_busy_thread_is_bounded_by_the_parts_it_concerns() -> None:
    inbox = Inbox()
    for number in range(20 * MERGE_ABOVE):
        inbox.add([Change(("part", number % 50), None, gone=(ADDRESSES[number % 4],))])
        assert len(inbox.changes) <= MERGE_ABOVE + 1
    taken = inbox.take()
    assert len(taken.changes) <= MERGE_ABOVE + 1
    assert inbox.changes == []
    assert len(merged(taken.changes)) <= 100
    # Of many parts none can be left out; then it is not tried again with each of them.
    for number in range(4 * MERGE_ABOVE):
        inbox.add([Change(("part", number), None)])
    assert len(inbox.changes) == 4 * MERGE_ABOVE


def test_for_a_switch_that_is_away_only_the_last_of_each_part_waits_when_they_are_many() -> None:
    waiting = Waiting()
    told: list[int] = []
    rounds = 3 * MOST_WAITING
    for number in range(rounds):
        part: Part = "mark" if number % 2 else ("pod", number % 10)
        waiting.add(part, [lambda _why, number=number: told.append(number)])  # type: ignore[misc]
        waiting.thin()
        assert len(waiting) <= MOST_WAITING + 1
    for _, done in waiting.take():
        done(None)
    assert rounds - 1 in told, "the newest is always kept"
    assert len(waiting) == 0


def test_few_who_wait_are_all_kept() -> None:
    waiting = Waiting()
    for _ in range(MOST_WAITING):
        waiting.add("mark", [lambda _why: None])
        waiting.thin()
    assert len(waiting) == MOST_WAITING


def test_while_no_switch_is_there_changed_keys_do_not_pile_up() -> None:
    holdings = Holdings(logs.get("test"))
    for number in range(60_000):
        part = ("pod", number)
        holdings.dirty.update(holdings.desired.replace(part, {number.to_bytes(4, "big"): b"x"}))
        holdings.dirty.update(holdings.desired.replace(part, {}))
        holdings.thin()
    assert len(holdings.dirty) <= 10_001
