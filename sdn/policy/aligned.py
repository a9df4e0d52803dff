# SPDX-License-Identifier: Apache-2.0
"""Spans of numbers as blocks that one mask takes each: of addresses, and of ports."""

from __future__ import annotations

from collections.abc import Iterator


def aligned(first: int, last: int, bits: int) -> Iterator[tuple[int, int]]:
    """The numbers ``first`` to ``last``, of so many bits, as the fewest blocks: the first number of each, and how many
    bits of it are the same in all of the block.
    """
    while first <= last:
        # The largest block that begins here and does not end too late.
        size = min(first & -first or 1 << bits, 1 << ((last - first + 1).bit_length() - 1))
        yield first, bits - size.bit_length() + 1
        first += size
