# SPDX-License-Identifier: Apache-2.0
"""Which controllers there are, as the store says: those that have a lease, less those that are marked as down.

A mark counts for one start of a controller (its *incarnation*), and is set by another controller that does not hear
it (controller/ha/heartbeat.py). Who is marked marks nobody, so of two that do not hear each other one stands back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from controller.ha import connections
from controller.records import DownRecord, MemberRecord, OwnerRecord, decode, down_key, member_key
from controller.rendezvous import score
from controller.store import Check, Entry

#: Seconds for which switches are still told of a controller that has gone.
LINGER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Member:
    """A controller that has a lease, and the revision of its record."""

    record: MemberRecord
    revision: int


class Members:
    """``me`` is this controller; None: it is alone, with no record."""

    def __init__(self, me: MemberRecord | None) -> None:
        self.me = me
        self._members: dict[str, Member] = {}
        self._down: dict[str, DownRecord] = {}
        #: Those whose record has gone, and when.
        self._gone: dict[str, tuple[MemberRecord, float]] = {}

    @property
    def name(self) -> str:
        """This controller's name; empty: it is alone."""
        return self.me.name if self.me is not None else ""

    def all(self) -> dict[str, Member]:
        """The controllers that have a lease, by name."""
        return dict(self._members)

    def openflow_targets(self, node: str, owner: str | None) -> list[str]:
        """Where a node's switch, which ``owner`` has, reaches the controllers that it is connected to; none where this
        one is alone. One that has just gone is among them: most often it comes back, and each change disturbs the
        switches. Where there are too many for all to be connected it is not: another is connected in its place.
        """
        there = frozenset(self._members)
        if connections.bounded(there):
            near = connections.connected(node, there, owner)
            targets = {self._members[name].record.openflow_target for name in near}
            return sorted(target for target in targets if target)
        soon = time.monotonic() - LINGER_SECONDS
        self._gone = {name: gone for name, gone in self._gone.items() if gone[1] > soon}
        records = [member.record for member in self._members.values()]
        latest = sorted(self._gone.values(), key=lambda gone: gone[1], reverse=True)
        records += [record for record, _ in latest[: connections.MOST_CONNECTED - len(records)]]
        return sorted({record.openflow_target for record in records if record.openflow_target})

    def down(self, name: str) -> DownRecord | None:
        """The mark on a controller that has a lease, if there is one that counts."""
        record, member = self._down.get(name), self._members.get(name)
        if record is None or member is None or record.incarnation != member.record.incarnation:
            return None
        return record

    def own_mark(self) -> DownRecord | None:
        """The mark on this controller, be it of a former start, and whether its record is there or not."""
        return self._down.get(self.name)

    def is_of_this_start(self, mark: DownRecord) -> bool:
        """Whether that mark is of this start of this controller."""
        return self.me is not None and mark.incarnation == self.me.incarnation

    def keepers(self) -> dict[str, str]:
        """Those that keep the switches that they own: by name their incarnations."""
        return {name: member.record.incarnation for name, member in self._staying().items()}

    def takers(self, without: str = "") -> dict[str, str]:
        """Those that take more: of the keepers the ones with the highest version of the pipeline. So while controllers
        are replaced by newer ones each switch changes its pipeline once, and not back while a newer one is heard. When
        none is, older ones take at once what it had, and what is new: to swap a pipeline back and forth loses nothing,
        and a switch that nobody may take is worse. ``without``: as if this one handed over what it has.
        """
        staying = {name: member.record for name, member in self._staying().items() if name != without}
        highest = max((record.pipeline for record in staying.values()), default=0)
        return {name: record.incarnation for name, record in staying.items() if record.pipeline == highest}

    def may_take(self) -> bool:
        """Whether this controller is one of them. Alone it is."""
        return self.me is None or self.name in self.takers()

    def _staying(self) -> dict[str, Member]:
        return {
            name: member
            for name, member in self._members.items()
            if not member.record.draining and self.down(name) is None
        }

    def is_mine(self, thing: str) -> bool:
        """Whether it is this one of the controllers that are there which does what one of them is to do. For a moment
        two may think so, or none.
        """
        there = [name for name in self._members if self.down(name) is None]
        return self.me is None or self.name == max(
            there, key=lambda name: (score(thing, name), name), default=""
        )

    def is_there(self, owner: OwnerRecord) -> bool:
        """Whether the owner of a switch is still there. This controller is, to itself."""
        if self.me is not None and owner.is_of(self.me.name, self.me.incarnation):
            return True
        member = self._members.get(owner.controller)
        return (
            member is not None
            and member.record.incarnation == owner.incarnation
            and self.down(owner.controller) is None
        )

    def standing(self) -> bool:
        """This controller's record is stored, and nobody has marked it."""
        if self.me is None:
            return True
        member = self._members.get(self.name)
        return (
            member is not None
            and member.record.incarnation == self.me.incarnation
            and self.down(self.name) is None
        )

    def fence(self) -> list[Check]:
        """What a write says that may happen only while this controller stands."""
        return [
            Check(member_key(self.name), self._members[self.name].revision),
            Check(down_key(self.name), 0),
        ]

    # What is stored.

    def member_stored(self, name: str, entry: Entry | None) -> bool:
        """A controller has come, changed, or its lease has ended; whether it is another than before.
        CorruptRecordError.
        """
        before = self._members.pop(name, None)
        if entry is not None:
            self._members[name] = Member(decode(MemberRecord, entry), entry.revision)
            self._gone.pop(name, None)
        elif before is not None:
            self._gone[name] = (before.record, time.monotonic())
        after = self._members.get(name)
        return (before and before.record) != (after and after.record)

    def down_stored(self, name: str, entry: Entry | None) -> None:
        """A controller was marked, or its mark is gone. CorruptRecordError."""
        if entry is None:
            self._down.pop(name, None)
        else:
            self._down[name] = decode(DownRecord, entry)

    def mark(self, name: str, record: DownRecord | None) -> None:
        """The same, by this controller."""
        if record is None:
            self._down.pop(name, None)
        else:
            self._down[name] = record
