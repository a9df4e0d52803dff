# SPDX-License-Identifier: Apache-2.0
"""This controller's own record in the store, and the lease under which it stands.

While the lease holds, others know that this controller is there; when it ends, the record goes. The lease is renewed
every third of its time in a thread of its own. By its own clock a controller knows when the store may have ended it,
and stops writing before: that needs no answer from anybody, so that it holds as well for one that is cut off, or was
stopped for a while and goes on.

**The name.** Each controller has one of its own, and each start another incarnation. A record that is found under the
name at a start is of a former start whose lease has not ended, or of another controller that was given the same name.
Which of them is found out by asking at the address that the record names: where nobody listens any more, or another
incarnation does (this one itself, most often, since it has the address now), the former one is dead, and its record
is replaced at once: nobody waits for his own corpse. Where it answers, or where nothing can be known (another
machine, which may be cut off), its lease is waited for, and then the name is taken. Should the guess be wrong all the
same, then it is the other one that has no record any more: it takes no switch, and does not fight for the name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from controller.ha import wire
from controller.ha.wire import Greeting
from controller.records import CorruptRecordError, MemberRecord, decode, encode, member_key
from controller.store import (
    ConflictError,
    Entry,
    Event,
    LeaseGoneError,
    Put,
    Store,
    StoreError,
    UncertainError,
)
from sdn import logs

log = logs.get("controller.membership")

LEASE_SECONDS: Final = 5.0
#: The part of a lease's time that is counted on: what was begun before its end must have arrived before the store's.
COUNTED: Final = 0.9
#: Pause after the store did not answer.
RETRY_SECONDS: Final = 0.2
#: Seconds for which another's lease is waited for, beyond its time: the store looks only now and then.
GRACE_SECONDS: Final = 3.0
#: How often the clock is looked at while it is waited for the end of a lease: a suspended machine's waits are longer.
LOOK_SECONDS: Final = 1.0
#: Seconds that another controller with this name gets for an answer.
ASK_SECONDS: Final = 0.5

_NEVER: Final = float("-inf")


class NameTakenError(Exception):
    """Another controller with the same name is there; the text says which."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it is now."""

    #: Seconds for which it can still be counted on; 0: it was lost.
    left: float
    #: For how long the store lets it hold from each time that it is renewed.
    seconds: float


def clock() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def safe_until(asked_at: float, seconds: float) -> float:
    """Until when this controller counts on a lease that the store granted or renewed for ``seconds`` some time after
    it was asked.
    """
    return asked_at + COUNTED * seconds


def is_gone(other: MemberRecord, me: MemberRecord) -> bool:
    """Whether a controller is dead for certain, asked at its address; blocks for a moment."""
    try:
        answer = wire.ask(other.peers_address, Greeting(me.name, me.incarnation), ASK_SECONDS)
    except (OSError, ValueError):
        return False
    return answer != Greeting(other.name, other.incarnation)


class Membership:
    """Set the callbacks before :meth:`start`. They are called in a thread of this object's own and must not block."""

    def __init__(self, store: Store, record: MemberRecord, lease_seconds: float = LEASE_SECONDS) -> None:
        self._store = store
        self._record = record
        self._key = member_key(record.name)
        self._seconds = lease_seconds
        #: Revision of the own record; 0: it was not written yet.
        self.revision = 0
        #: The lease cannot be counted on any longer: nothing may be written.
        self.on_lost: Callable[[], None] = lambda: None
        #: It can again; told the revision of the own record.
        self.on_regained: Callable[[int], None] = lambda _revision: None
        #: One write of the record at a time.
        self._writing = threading.Lock()
        #: The lease's id, 0: none; and when the store was last asked for it, with success.
        self._lease = 0
        self._asked_at = _NEVER
        #: Whether the record, as it is here, is in the store under the lease.
        self._stored = False
        #: Until when the lease can be counted on; and how often it was lost, so that no loss is missed.
        self._until = _NEVER
        self._losses = 0
        #: For how long it was granted or renewed last.
        self._granted = lease_seconds
        self._changed = threading.Condition()
        self._look = threading.Event()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._keep, name="lease", daemon=True),
            threading.Thread(target=self._tell, name="lease clock", daemon=True),
        ]

    def start(self) -> int:
        """Write the record; gives its revision. Blocks, for somewhat more than a lease when another controller has
        the name.

        NameTakenError, StoreError, CorruptRecordError.
        """
        end = clock() + self._seconds + GRACE_SECONDS
        while True:
            entry = self._store.get(self._key)
            other = self._other(entry)
            try:
                if other is None or is_gone(other, self._record):
                    self._write(entry)
                    break
            except (ConflictError, LeaseGoneError, UncertainError) as problem:
                # Somebody was faster, or it took too long.
                if clock() >= end:
                    raise
                log.warning("record not written yet", error=str(problem))
                continue
            if clock() >= end:
                raise NameTakenError(
                    f"controller {self._record.name}: another controller has this name: at "
                    f"{other.peers_address}, incarnation {other.incarnation}, started at {other.started_at}"
                )
            time.sleep(RETRY_SECONDS)
        if other is not None:
            log.info("record of a former start replaced", incarnation=other.incarnation)
        for thread in self._threads:
            thread.start()
        return self.revision

    def may_write(self) -> bool:
        """Whether this controller may write switches now. Cheap; from any thread."""
        return clock() < self._until

    def lease(self) -> Lease:
        """How it stands with the lease. Cheap; from any thread."""
        return Lease(max(0.0, self._until - clock()), self._granted)

    def update(self, *, draining: bool) -> int:
        """Change the own record; gives its revision, 0 when it is written only when the lease is regained. Blocks.

        StoreError: it stays what it was, also where the store took the change without a word.
        """
        with self._writing:
            before = self._record
            self._record = msgspec.structs.replace(self._record, draining=draining)
            if not self._stored:
                return 0
            try:
                self.revision = self._put(self.revision)
            except (ConflictError, LeaseGoneError) as problem:
                self._lose(str(problem))
                return 0
            except StoreError:
                # Written again as it was, as soon as the store answers.
                self._record = before
                self._stored = False
                self._look.set()
                raise
            return self.revision

    def stored(self, event: Event) -> None:
        """What the store has under this controller's key, as whoever follows the store is told: also when it was
        somebody else who wrote or removed it. Does not block. CorruptRecordError.
        """
        if event.key != self._key or event.revision <= self.revision:
            return
        if event.value is None:
            self._lose("the record was removed")
        elif self._other(Entry(event.key, event.value, event.revision)) is not None:
            self._lose("another controller with this name has replaced the record")

    def stop(self) -> None:
        """End the lease: the record goes at once. Nothing may be written any more. Blocks."""
        with self._changed:
            self._stopping = True
            self._until = _NEVER
            self._changed.notify_all()
        self._look.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        if self._lease:
            try:
                self._store.revoke(self._lease)
            except StoreError as problem:
                log.warning("lease not ended: others wait for its end", error=str(problem))

    # The record.

    def _other(self, entry: Entry | None) -> MemberRecord | None:
        """The record of another incarnation, if that is what an entry is. CorruptRecordError."""
        record = decode(MemberRecord, entry) if entry is not None else None
        return record if record is not None and record.incarnation != self._record.incarnation else None

    def _write(self, former: Entry | None) -> None:
        """Write the record in place of a former one, under the lease or a new one. ConflictError, LeaseGoneError,
        UncertainError, StoreError.
        """
        with self._writing:
            # One that cannot be counted on any longer would be lost in the moment in which it is had.
            if not self._lease or clock() >= safe_until(self._asked_at, self._seconds):
                asked_at = clock()
                self._lease = self._store.grant(self._seconds)
                self._asked_at = asked_at
            try:
                self.revision = self._put(former.revision if former is not None else 0)
            except LeaseGoneError:
                self._lease = 0
                raise
            self._stored = True
        self._count(self._asked_at, self._seconds)

    def _put(self, expect: int) -> int:
        return self._store.write([Put(self._key, encode(self._record), expect, self._lease)])

    # The lease's thread.

    def _keep(self) -> None:
        pause = self._seconds / 3
        failing = False
        while True:
            self._look.wait(pause)
            self._look.clear()
            if self._stopping:
                return
            try:
                pause = self._renew() if self._stored else self._restore()
                failing = False
            except (StoreError, CorruptRecordError) as problem:
                pause = 0.0 if isinstance(problem, LeaseGoneError) else RETRY_SECONDS
                if not failing:
                    log.warning("lease not renewed", error=str(problem))
                failing = True

    def _renew(self) -> float:
        """Gives the seconds until the next time. LeaseGoneError, StoreError."""
        asked_at = clock()
        try:
            seconds = self._store.renew(self._lease)
        except LeaseGoneError as problem:
            self._lease = 0
            self._lose(str(problem))
            raise
        self._asked_at = asked_at
        self._count(asked_at, seconds)
        return max(0.0, asked_at + self._seconds / 3 - clock())

    def _restore(self) -> float:
        """Write the record again, where no other controller has the name. LeaseGoneError, StoreError,
        CorruptRecordError.
        """
        if self._lease:
            self._renew()
        entry = self._store.get(self._key)
        if (other := self._other(entry)) is not None:
            # Who came later has the name. One that took it back would lose it again, and so on.
            log.error("another controller has this name", name=other.name, address=other.peers_address)
            return self._seconds
        self._write(entry)
        return max(0.0, self._asked_at + self._seconds / 3 - clock())

    def _count(self, asked_at: float, seconds: float) -> None:
        """Count on the lease, if the record is stored: that may have been lost a moment ago."""
        with self._changed:
            if self._stored and not self._stopping:
                self._granted = seconds
                self._until = safe_until(asked_at, seconds)
                self._changed.notify_all()

    def _lose(self, why: str) -> None:
        if self._stored:
            log.warning("own record lost", reason=why)
        with self._changed:
            self._stored = False
            self._until = _NEVER
            self._losses += 1
            self._changed.notify_all()
        self._look.set()

    # The clock's thread.

    def _tell(self) -> None:
        held, losses = True, 0
        while True:
            with self._changed:
                while not self._stopping:
                    left = self._until - clock()
                    if held != (left > 0 and (losses == self._losses or not held)):
                        break
                    self._changed.wait(min(left, LOOK_SECONDS) if held else None)
                if self._stopping:
                    return
                held, losses, revision = not held, self._losses, self.revision
            try:
                if held:
                    self.on_regained(revision)
                else:
                    self.on_lost()
            except Exception:  # what is told later must be told all the same
                log.exception("a change of the lease was not taken in")
