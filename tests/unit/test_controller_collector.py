# SPDX-License-Identifier: Apache-2.0
"""What a controller holds for long is not looked at again by each full collection."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from controller import collector


class Record:
    """Something that lives long."""

    other: Record | None = None


@pytest.fixture
def setting_aside() -> Iterator[None]:
    # It collects when it is told to here, not in the midst of what is made.
    gc.disable()
    gc.collect()
    gc.freeze()
    collector.set_survivors_aside()
    yield
    gc.enable()
    gc.callbacks.remove(collector._collected)
    gc.unfreeze()
    gc.collect()


def looked_at() -> set[int]:
    """Of all objects that the collector looks at; what else there is comes and goes as it likes."""
    return set(map(id, gc.get_objects()))


@pytest.mark.usefixtures("setting_aside")
def test_many_survivors_of_a_full_collection_are_set_aside_once() -> None:
    held = [Record() for _ in range(collector.MANY)]
    gc.collect()
    assert looked_at().isdisjoint(map(id, held))
    more = [Record() for _ in range(1000)]
    gc.collect()
    assert looked_at().issuperset(map(id, more))


@pytest.mark.usefixtures("setting_aside")
def test_what_is_set_aside_goes_when_nothing_refers_to_it() -> None:
    held = [Record() for _ in range(collector.MANY)]
    gc.collect()
    one = weakref.ref(held[0])
    held.clear()
    assert one() is None


@pytest.mark.usefixtures("setting_aside")
def test_cycles_that_are_new_are_still_found() -> None:
    held = [Record() for _ in range(collector.MANY)]
    gc.collect()
    record = Record()
    record.other = record
    seen = weakref.ref(record)
    del record
    gc.collect()
    assert seen() is None
    assert len(held) == collector.MANY


def test_asking_twice_is_asking_once() -> None:
    before = list(gc.callbacks)
    try:
        collector.set_survivors_aside()
        collector.set_survivors_aside()
        assert len(gc.callbacks) == len(before) + 1
    finally:
        gc.callbacks.remove(collector._collected)


@pytest.mark.usefixtures("setting_aside")
def test_a_tuple_that_another_thread_is_making_is_left_alone() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    ended = threading.Event()
    problems: list[SystemError] = []

    def items() -> Iterator[list[int]]:
        for number in range(12):
            yield [number]
        # By now the unfinished tuple has survived what makes it old.
        gc.collect(1)
        gc.collect(1)
        for number in range(400):
            yield [number]

    def make() -> None:
        while not ended.is_set() and not problems:
            try:
                tuple(items())
            except SystemError as problem:
                problems.append(problem)

    makers = [threading.Thread(target=make) for _ in range(2)]
    try:
        for maker in makers:
            maker.start()
        for _ in range(500):
            collector._collected("stop", {"generation": 2})
    finally:
        ended.set()
        for maker in makers:
            maker.join()
        sys.setswitchinterval(interval)
    assert problems == []
