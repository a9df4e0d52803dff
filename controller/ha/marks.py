# SPDX-License-Identifier: Apache-2.0
"""Marks in the store of controllers that were found silent: those that this one sets, and its own, which it takes away.

Who is marked is taken for gone, whatever its lease says, until it takes the mark away itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from controller.ha.damping import Damping
from controller.ha.members import Members
from controller.ledger import Ledger
from controller.records import DownRecord, down_key, encode
from controller.store import Delete, Put
from sdn import logs

log = logs.get("controller.marks")


class Marks:
    """Make it inside the running event loop."""

    def __init__(
        self, ledger: Ledger, members: Members, look: asyncio.Event, changed: Callable[[], None]
    ) -> None:
        """``look`` is set when there may be something to write; ``changed`` is called after each mark that was set or
        taken away.
        """
        self._ledger = ledger
        self._members = members
        self._look = look
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        #: Members that this controller does not hear, by name: their incarnation.
        self._silent: dict[str, str] = {}
        #: The mark on this controller that is sat out, and how many there were.
        self._sat_out: DownRecord | None = None
        self._damping = Damping()

    def silent(self, name: str, incarnation: str, why: str) -> None:
        """A controller is not heard any more."""
        log.warning("controller is silent", controller=name, why=why)
        member = self._members.all().get(name)
        if member is not None and member.record.incarnation == incarnation:
            self._silent[name] = incarnation
            self._look.set()

    def heard(self, name: str, incarnation: str) -> None:
        """A controller is heard again."""
        if self._silent.get(name) == incarnation:
            del self._silent[name]
            log.info("controller is heard again", controller=name)
            self._look.set()

    def gone(self, name: str) -> None:
        """A controller's record has gone: when it is back, whether it is heard is told anew."""
        self._silent.pop(name, None)

    async def rise_in_time(self) -> None:
        """Take away the mark that another controller has set on this one: of a former start at once, else after a
        while that doubles with each time, so that one that comes and goes moves little. ConflictError, StoreError.
        """
        me, mark = self._members.name, self._members.own_mark()
        if mark is None:
            return
        if self._members.is_of_this_start(mark):
            now = self._loop.time()
            if mark != self._sat_out:
                self._sat_out, self._damping = mark, self._damping.marked(now)
                log.warning("found silent by another controller", seconds_away=self._damping.away_seconds)
            if now < self._damping.back_at:
                self._loop.call_at(self._damping.back_at, self._look.set)
                return
        await self._ledger.write([Delete(down_key(me))])
        if self._ledger.stands(down_key(me), 0):
            self._members.mark(me, None)
            self._changed()

    async def mark_silent(self) -> None:
        """Mark the controllers that this one does not hear. ConflictError, StoreError."""
        for name, incarnation in list(self._silent.items()):
            member = self._members.all().get(name)
            if (
                not self._members.standing()
                or member is None
                or member.record.incarnation != incarnation
                or self._members.down(name) is not None
            ):
                continue
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            record = DownRecord(incarnation=incarnation, by=self._members.name, at=at)
            checks = [check for check in self._members.fence() if check.key != down_key(name)]
            revision = await self._ledger.write([Put(down_key(name), encode(record)), *checks])
            log.warning("controller is marked as down", controller=name)
            if self._ledger.stands(down_key(name), revision):
                self._members.mark(name, record)
                self._changed()
