# SPDX-License-Identifier: Apache-2.0
"""Port ranges as masked values: what a switch matches in one flow each."""

from __future__ import annotations

from typing import Final

from sdn.policy.aligned import aligned

_BITS: Final = 16

#: As ``PortMatch.first`` and ``last``: fragments after the first, which carry no port. They are useless without the
#: first, so a rule that allows a port allows them.
LATER_FRAGMENTS: Final = -1


def cover(first: int, last: int) -> list[tuple[int, int]]:
    """(value, mask) pairs that match the ports ``first`` to ``last`` and no other, as few as there can be: at most 30.

    Mask 0 matches all ports, 0xffff one. ValueError when it is no range of ports.
    """
    if not 0 <= first <= last < 1 << _BITS:
        raise ValueError(f"{first} to {last} is no range of ports")
    return [(value, (1 << _BITS) - (1 << _BITS - length)) for value, length in aligned(first, last, _BITS)]
