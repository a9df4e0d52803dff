# SPDX-License-Identifier: Apache-2.0
"""This controller among the others: its record and lease, its links to them, and how it comes and goes.

It comes last of all, when everything that is stored is loaded and its listeners are open, since from then on others
leave switches to it. It goes by handing over first: its switches are others' before its connections end.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from controller.engine import Engine
from controller.ha.history import SHORTEN_SECONDS, History
from controller.ha.membership import Membership
from controller.ha.pulse import TICK_SECONDS, Pulse
from controller.records import MemberRecord
from controller.settings import ControllerSettings
from controller.store import AccessError, Store, StoreError
from sdn import daemon, logs
from sdn.pipeline.version import PIPELINE_VERSION
from sdn.version import VERSION

log = logs.get("controller.presence")

#: Seconds for which a controller that ends waits until others have its switches.
HAND_OVER_SECONDS = 3.0
#: Seconds for which a start waits until it has what it should have; nothing is wrong if that takes longer.
_BEGIN_SECONDS = 2.0
#: Pause after the store did not take this controller's record.
AGAIN_SECONDS = 1.0


def member_record(config: ControllerSettings) -> MemberRecord:
    """What is stored of this controller, another one at each start."""
    several = config.one_of_several
    return MemberRecord(
        name=config.name,
        incarnation=str(uuid.uuid4()),
        grpc_address=config.grpc_target or config.grpc_address,
        # Of one that is alone agents find out themselves where they reach it.
        openflow_target=config.openflow_target() if several else "",
        peers_address=config.peers_address,
        version=VERSION,
        pipeline=PIPELINE_VERSION,
        alike=config.alike(),
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


class Presence:
    """Make it inside the running event loop, when the engine is loaded. ListenError."""

    def __init__(self, store: Store, engine: Engine, me: MemberRecord, config: ControllerSettings) -> None:
        self._store = store
        self._engine = engine
        self._me = me
        self._several = config.one_of_several
        self._loop = asyncio.get_running_loop()
        self._membership = Membership(store, me, config.lease_seconds)
        self._membership.on_lost = lambda: self._soon(engine.ownership.lease, False)
        self._membership.on_regained = lambda _revision: self._soon(engine.ownership.lease, True)
        engine.announce_draining = lambda draining: self._membership.update(draining=draining)
        engine.on_stored = self._membership.stored
        engine.lease = self._membership.lease
        #: Incarnations of others whose settings were found to differ.
        self._unlike: set[str] = set()
        #: Incarnations of others that others still are told to reach where this one is.
        self._clashing: set[str] = set()
        self._pulse: Pulse | None = None
        self._ticking: asyncio.Task[None] | None = None
        if self._several:
            self._pulse = Pulse(
                me.name,
                me.incarnation,
                config.peers_address,
                lambda *what: self._soon(engine.ownership.silent, *what),
                lambda *whom: self._soon(engine.ownership.heard, *whom),
            )
            self._ticking = self._loop.create_task(self._tick(self._pulse))
            engine.heard = self._pulse.heard
            engine.ownership.on_members = self._members_changed
            self._members_changed()
        self._compacting: asyncio.Task[None] | None = None
        self._entered = False

    def _soon(self, call: object, *arguments: object) -> None:
        # From threads that may outlive the loop by a moment.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]

    def _members_changed(self) -> None:
        records = {name: member.record for name, member in self._engine.ownership.members.all().items()}
        if self._pulse is not None:
            self._pulse.peers(
                {name: (record.incarnation, record.peers_address) for name, record in records.items()}
            )
        for name, record in records.items():
            clash = name != self._me.name and record.peers_address == self._me.peers_address
            if clash and record.incarnation not in self._clashing:
                log.error(
                    "another controller has this one's peers_address: one of the two is taken for silent",
                    controller=name,
                    peers_address=record.peers_address,
                )
                self._clashing.add(record.incarnation)
            if record.incarnation not in self._unlike and (others := self._me.differing(record)):
                log.warning(
                    "another controller has other settings",
                    controller=name,
                    **{
                        setting: f"{text}, here {self._me.alike[setting]}" for setting, text in others.items()
                    },
                )
                self._unlike.add(record.incarnation)
        there = {record.incarnation for record in records.values()}
        self._unlike &= there
        self._clashing &= there

    async def enter(self, stop: daemon.Stop) -> bool:
        """Be there from now on, and take switches; whether it is, or was told to stop before.

        A store that has been loaded and does not answer now is away for a moment: it is asked until it does, and
        nothing that is connected already is let go. NameTakenError, AccessError, CorruptRecordError.
        """
        if self._pulse is not None:
            await asyncio.to_thread(self._pulse.wait_ready)
        if not await self._begin(stop):
            return False
        # Should it be lost already, its own thread has said so, and says so when it is regained.
        self._engine.ownership.lease(self._membership.may_write())
        if self._several:
            self._compacting = self._loop.create_task(self._compact())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._engine.ownership.begun.wait(), _BEGIN_SECONDS)
        return True

    async def _begin(self, stop: daemon.Stop) -> bool:
        said = ""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self._membership.start)
            except AccessError:
                raise
            except StoreError as problem:
                if str(problem) != said:
                    said = str(problem)
                    log.warning("not among the controllers yet: the store is asked again", error=said)
            else:
                self._entered = True
                return not stop.is_set()
            await asyncio.to_thread(stop.wait, AGAIN_SECONDS)
        return False

    async def leave(self, *, hand_over: bool) -> None:
        """Be gone; ``hand_over``: not before others have the switches, as far as there are others."""
        if self._compacting is not None:
            self._compacting.cancel()
        if hand_over and self._entered and self._several:
            # Whatever the store says to it: nothing is taken on the way out.
            self._engine.ownership.drain(True)
            try:
                await asyncio.wait_for(self._engine.drain(True), HAND_OVER_SECONDS)
                if not await self._engine.ownership.handed_over(HAND_OVER_SECONDS):
                    log.warning("not all switches were taken over")
            except (StoreError, TimeoutError) as problem:
                log.warning("switches are not handed over", error=str(problem) or "the store does not answer")

    async def gone(self) -> None:
        """Let the lease go; nothing is written any more."""
        if self._ticking is not None:
            self._ticking.cancel()
        if self._pulse is not None:
            await asyncio.to_thread(self._pulse.close)
        # Also of one that was on the way in: it may have a lease, and a record that it was not told of.
        await asyncio.to_thread(self._membership.stop)

    async def _tick(self, pulse: Pulse) -> None:
        while True:
            pulse.tick()
            await asyncio.sleep(TICK_SECONDS)

    async def _compact(self) -> None:
        history = History(self._store)
        while True:
            await asyncio.sleep(SHORTEN_SECONDS)
            members = self._engine.ownership.members
            # One of them does for all.
            if self._me.name == min(members.all(), default=""):
                try:
                    await self._engine.ledger.call(history.shorten)
                except StoreError as problem:
                    log.warning("the store's history is not shortened", error=str(problem))
