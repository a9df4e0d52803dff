# SPDX-License-Identifier: Apache-2.0
"""What a controller holds for long is not looked at again by each full collection."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from controller import collector


class Record:
    """Something that lives long."""

    other: Record | None = None


@pytest.fixture
def setting_aside() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    collector.set_survivors_aside()
    yield
    gc.callbacks.remove(collector._collected)
    gc.unfreeze()
    gc.collect()


@pytest.mark.usefixtures("setting_aside")
def test_many_survivors_of_a_full_collection_are_set_aside_once() -> None:
    aside = gc.get_freeze_count()
    held = [Record() for _ in range(collector.MANY)]
    gc.collect()
    assert gc.get_freeze_count() >= aside + len(held)
    few = gc.get_freeze_count()
    more = [Record() for _ in range(1000)]
    gc.collect()
    assert gc.get_freeze_count() == few, f"{len(more)} are looked at again"


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
