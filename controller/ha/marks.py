# SPDX-License-Identifier: Apache-2.0
"""Marks on controllers that others do not hear.

A mark counts for one incarnation. Who is marked marks nobody, and owns nothing new: so of two that do not hear each
other one stands back. It takes its mark away itself when it is back, after a while (:class:`Damping`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controller.records import DownRecord, decode, down_key, encode, member_key
from controller.store import Check, ConflictError, Delete, Put, Store

FIRST_AWAY_SECONDS: Final = 1.0
LONGEST_AWAY_SECONDS: Final = 30.0
#: A mark so long ago is forgiven.
FORGIVEN_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Damping:
    """How long a controller keeps away that was found silent: longer each time, so that one that comes and goes moves
    little. Times are of a clock that nobody sets.
    """

    marked_at: tuple[float, ...] = ()

    def marked(self, now: float) -> Damping:
        """It was marked once more."""
        recent = [at for at in self.marked_at if at > now - FORGIVEN_SECONDS]
        return Damping((*recent, now))

    @property
    def away_seconds(self) -> float:
        """For how long it keeps away after the last time; 0: it was never marked."""
        if not self.marked_at:
            return 0.0
        doubled = min(len(self.marked_at) - 1, 10)
        return min(FIRST_AWAY_SECONDS * 2.0**doubled, LONGEST_AWAY_SECONDS)

    @property
    def back_at(self) -> float:
        """When it may take its mark away."""
        return self.marked_at[-1] + self.away_seconds if self.marked_at else 0.0


def mark_down(store: Store, me: str, own_revision: int, name: str, incarnation: str) -> int:
    """Mark a controller, in this incarnation, as silent; gives the revision of the mark, also of one that another
    controller has set.

    ``own_revision`` is that of this controller's record. ConflictError about this controller's own record or its own
    mark: it is not for it to mark anybody now. StoreError, CorruptRecordError.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = DownRecord(incarnation=incarnation, by=me, at=at)
    checks: Sequence[Check] = (Check(member_key(me), own_revision), Check(down_key(me), 0))
    expect = 0
    while True:
        try:
            return store.write([*checks, Put(down_key(name), encode(record), expect)])
        except ConflictError as conflict:
            if conflict.key != down_key(name):
                raise
        found = store.get(down_key(name))
        if found is not None and decode(DownRecord, found).incarnation == incarnation:
            return found.revision
        # Of a former incarnation, or taken away meanwhile.
        expect = found.revision if found is not None else 0


def clear_own_down(store: Store, me: str, own_revision: int) -> bool:
    """Take the mark on this controller away, whatever incarnation it is of; whether there was one.

    ConflictError: this controller's record has changed, or the mark has. StoreError.
    """
    found = store.get(down_key(me))
    if found is None:
        return False
    store.write([Check(member_key(me), own_revision), Delete(down_key(me), found.revision)])
    return True
