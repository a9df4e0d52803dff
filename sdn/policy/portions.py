# SPDX-License-Identifier: Apache-2.0
"""Long work in portions: whoever does it can stop after each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

Item = TypeVar("Item")

#: How many are looked at in a row.
_PORTION: Final = 256


def portions(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The same items, so many at a time. They must not change meanwhile."""
    left = iter(items)
    while some := list(islice(left, _PORTION)):
        yield some
