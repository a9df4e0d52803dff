# SPDX-License-Identifier: Apache-2.0
"""What a synchronizer does in its thread: takes changes in, compares, writes, cuts, and tells those who wait.

It knows whether the switch is ours by what it was told last; the synchronizer knows what is said meanwhile.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Final

from controller.changes import NOT_OWNER, Change, Done, Refused, entries_of, unchanged
from controller.connection import BundleRefusedError, DeposedError, SwitchConnection
from controller.cutting import cut
from controller.desired import NODE_PART, Entries, Key, Part
from controller.drift import Drift
from controller.forgetting import Flush
from controller.holdings import Holdings
from controller.repairs import Repairs, entry_text
from controller.stale import Gone, Stale, StaleConnections
from controller.waiting import Waiting
from sdn.logs import Logger
from sdn.openflow import CodecError, Role, wants_group
from sdn.pipeline.topology import Address

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
_FLUSHES_AT_ONCE: Final = 256
#: What it takes to read a flow and to compare it, in seconds of a CPU.
COMPARE_SECONDS: Final = 15e-6


class Writer:
    """Owned by one thread."""

    def __init__(
        self,
        log: Logger,
        *,
        owner: bool,
        ours: Callable[[], bool],
        busy: Callable[[], bool],
        note: Callable[[str], None],
        confirmed: Callable[[], None],
        wake: Callable[[], None],
        repairs: Repairs,
        owner_of: Callable[[Part], str],
    ) -> None:
        """``ours`` says whether the switch is still ours, or another's, as it was when this was told; ``busy`` whether
        changes wait to be taken in; ``note`` takes an error for people; ``confirmed`` is called when everything is in
        force, before those who wait are told; ``wake``, in any thread, when the switch tells that others change it.
        ``repairs`` remembers that, with ``owner_of`` a part.
        """
        self.owner = owner
        self.holdings = Holdings(log, repairs, owner_of, ours)
        self.drift = Drift(log, wake)
        #: Bundles that the switch has confirmed.
        self.written = 0
        self._log = log
        self._ours = ours
        self._busy = busy
        self._note = note
        self._confirmed = confirmed
        self._stale = StaleConnections()
        #: Addresses of new pods whose former holders' connections must be forgotten before anything is written.
        self._fresh: dict[Address, Part] = {}
        self._waiting = Waiting()
        self._refused: dict[Part, Refused] = {}
        #: The node's own part was refused, and with it all others: nothing is written until it is tried again.
        self.held = False
        #: What is to be flushed when it is not refused any more: until then the switch would allow it anew.
        self._postponed: dict[Flush, None] = {}
        self._pause = FIRST_PAUSE
        self._retry_at: float | None = None
        #: A bundle was refused, and the switch has been read again because of that.
        self._read_again = False

    def change_hands(self, owner: bool) -> None:
        """The switch is ours, or no longer, or anew. What was read of it may be another's work since."""
        if owner and not self.owner:
            self._stale.take_over(time.monotonic())
        self.owner = owner
        self._put_back_refused()
        self.holdings.forget()
        self._postponed.clear()
        if not owner:
            self.drift.end()
        self._retry_at = None
        self._read_again = False
        if not owner:
            for _, done in self._waiting.take():
                done(NOT_OWNER)

    def due(self) -> float | None:
        """When something is to be done by itself, in the terms of time.monotonic(); None: never."""
        if self._retry_at is not None and self.holdings.dirty:
            # A bundle was refused, and nothing said why: nothing comes before it is tried again.
            return self._retry_at
        dues = (self._retry_at, self._stale.due(), self.drift.due())
        due = [moment for moment in dues if moment is not None]
        return min(due) if due else None

    def synchronized(self, connection: SwitchConnection) -> bool:
        """Whether the switch on this connection holds all that it must."""
        holdings = self.holdings
        return self.owner and connection is holdings.compared and not holdings.dirty and not self._refused

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody waits until something is in force."""
        return bool(self._waiting)

    def wanted(self) -> tuple[int, int]:
        """How many flows and groups the switch must hold, with those that it has refused."""
        refused = sum(not isinstance(key, int) for one in self._refused.values() for key in one.entries)
        return self.holdings.desired.flows + refused, self.holdings.desired.groups

    # Taking in.

    def take_in(self, changes: Iterable[Change]) -> None:
        """Compile changes. Those who wait for them wait on, or are told that the switch is not ours."""
        for change in changes:
            self._stale.gone(change.gone)
            self._fresh.update(dict.fromkeys(self._stale.back(change.fresh), change.part))
            if change.compile is not unchanged:
                refused = self._take_in_part(change)
                if not self.owner:
                    _tell(change.waiting, NOT_OWNER)
                elif refused is not None:
                    _tell(change.waiting, refused)
                else:
                    self._waiting.add(change.part, change.waiting)
        if not self.owner:
            # Another controller brings it into force; what differs is found should this one have to.
            self.holdings.dirty.clear()
            self._stale.stand_by(time.monotonic())

    def _take_in_part(self, change: Change) -> str | None:
        """Make a part what it is to be; else why it cannot be that."""
        self._refused.pop(change.part, None)
        try:
            entries = entries_of(change.compile)
        except (CodecError, ValueError) as problem:
            self._log.error("entries cannot be made", part=str(change.part), error=str(problem))
            return str(problem)
        except Exception as problem:  # noqa: BLE001 - one object's defect must not stop all others
            self._log.exception("entries cannot be made", part=str(change.part))
            return f"{type(problem).__name__}: {problem}"
        self._replace(change.part, entries)
        if change.part == NODE_PART:
            self.held = False
        if not entries and self._fresh:
            self._fresh = {address: part for address, part in self._fresh.items() if part != change.part}
        return None

    def _replace(self, part: Part, entries: Entries) -> None:
        desired = self.holdings.desired
        before = desired.entries(part)
        changed = desired.replace(part, entries)
        self.holdings.dirty.update(changed)
        self.holdings.changed(changed.values())
        self._stale.changed(changed, desired.body, (before, entries))

    def without_a_switch(self) -> None:
        """Changes were taken in, and no switch is there: see that what waits for it does not grow with time."""
        self.drift.end()
        self._waiting.thin()
        self.holdings.thin()

    # Writing.

    def bring_up(self, connection: SwitchConnection) -> None:
        """Write until the switch holds what it must, or has refused some of it, or is no longer ours.

        ConnectionClosedError, DeposedError, CodecError.
        """
        new = connection is not self.holdings.compared
        if new or (self._retry_at is not None and time.monotonic() >= self._retry_at):
            if new:
                self._pause = FIRST_PAUSE
            self._retry_at = None
            self._put_back_refused()
            if new:
                self.drift.begin(connection)
            self._compare(connection)
        if self.held:
            # Those who wait do so as for a switch that is away.
            self._waiting.thin()
            return
        self.drift.look(connection, self.holdings)
        self._forget_former(connection)
        if not self._write_all(connection):
            return
        # With a flow that learns goes what was learned by it, so that is compared when all is written.
        if not self._busy():
            if self.drift.wants_comparison():
                self._compare(connection)
            self.drift.look_at_learned(connection, self.holdings)
            if not self._write_all(connection):
                return
        self._read_again = False
        self._cut(connection)
        postponed, self._postponed = list(self._postponed), {}
        self.flush(connection, postponed)
        if not self._ours():
            return
        self._confirm()
        if self._refused:
            self._retry_later()
        else:
            self._pause = FIRST_PAUSE

    def _write_all(self, connection: SwitchConnection) -> bool:
        """Write what is dirty, but for what is refused; False: it cannot be, now."""
        while self.holdings.dirty:
            if not self._ours():
                return False
            try:
                self.holdings.write(connection)
                self.written += 1
            except BundleRefusedError as refusal:
                if self._groups_may_differ(refusal):
                    self._compare(connection)
                elif not self._set_aside(refusal, connection):
                    self._retry_later()
                    return False
        return True

    def _compare(self, connection: SwitchConnection) -> None:
        first = not self.holdings.known
        self.drift.compared()
        began = time.thread_time()
        found = self.holdings.compare(connection)
        cost = time.thread_time() - began
        if first:
            # A switch that began empty took no time. The next time it will, with all others that began with it.
            cost = max(cost, self.holdings.desired.flows * COMPARE_SECONDS)
        self.drift.was_compared(cost)
        self._stale.found(found.installed, found.wrong)
        if first and self._fresh:
            # Pods that another controller has let begin have connections of their own.
            entries = self.holdings.desired.entries
            self._fresh = {
                address: part for address, part in self._fresh.items() if entries(part).keys() <= found.wrong
            }

    def _groups_may_differ(self, refusal: BundleRefusedError) -> bool:
        """Whether a change of a group was refused for the first time, or a flow for want of one: it goes by what the
        groups were, which somebody may have changed. A fresh look tells, before anything is set aside.
        """
        again, self._read_again = self._read_again, True
        about = self.holdings.batch
        return not again and any(
            index is not None and (isinstance(about[index], int) or wants_group(error))
            for index, error in refusal.errors
        )

    def _confirm(self) -> None:
        """All that is desired is in force: tell those who wait."""
        waiting = self._waiting.take()
        self._confirmed()
        for part, done in waiting:
            refused = self._refused.get(part)
            if refused is None:
                done(None)
            else:
                refused.told.append(done)
                done(refused.why)

    # Connections that the switch must forget.

    def _forget_former(self, connection: SwitchConnection) -> None:
        """A new pod begins without the connections of those who had its addresses, as far as they can be forgotten: its
        own would be taken for theirs. (Answers to theirs never reach it: sdn/pipeline/features/holders.py.) Nothing is
        tracked of an address that has no pod (table ``presence``), so none comes before the pod's flows.
        """
        if not self._fresh:
            return
        former = [Gone(address, both_ways=True) for address in sorted(self._fresh, key=str)]
        if error := self._make_forget(connection, former):
            self._log.error("former connections stay", address=connection.address, error=error)
            self._note(f"the switch does not forget former connections: {error}")
        self._fresh.clear()

    def _cut(self, connection: SwitchConnection) -> None:
        """Let the switch forget the connections that are stale; of many the rest waits for changes that have come."""
        while self._ours() and (stale := self._stale.take(time.monotonic())):
            began = time.monotonic()
            try:
                error = self._make_forget(connection, stale)
            except BaseException:
                self._stale.interrupted()
                raise
            now = time.monotonic()
            self._stale.spent(now, now - began)
            if error:
                self._log.error("stale connections stay", address=connection.address, error=error)
                self._note(f"the switch does not forget stale connections: {error}")
            self._log.debug("stale connections cut", kinds=len(stale), seconds=round(now - began, 4))
            if self._busy():
                return

    def flush(self, connection: SwitchConnection, flushes: list[Flush]) -> None:
        """Let the switch forget these; what is done is taken out of them. ConnectionClosedError, DeposedError,
        CodecError.
        """
        if self.held:
            self._postponed.update(dict.fromkeys(flushes))
            flushes.clear()
        while flushes and self._ours():
            self._check_master(connection)
            error = connection.flush(flushes[:_FLUSHES_AT_ONCE])
            del flushes[:_FLUSHES_AT_ONCE]
            if error:
                self._log.error("denied connections stay", address=connection.address, error=error)
                self._note(f"the switch does not forget denied connections: {error}")

    def _make_forget(self, connection: SwitchConnection, stale: Iterable[Stale]) -> str:
        """See :func:`cut`. It may take long, so the switch is asked again and again whose it is."""
        return cut(connection, stale, ask=functools.partial(self._check_master, connection))

    def _check_master(self, connection: SwitchConnection) -> None:
        """DeposedError when another controller is the master: the switch itself lets everybody flush."""
        role = connection.request_role(Role.NOCHANGE).role
        if role is not Role.MASTER:
            raise DeposedError(f"the role at the switch is {role.name}")

    # Refusals.

    def _set_aside(self, refusal: BundleRefusedError, connection: SwitchConnection) -> bool:
        """Take the parts that were refused out of what is desired. False when the refusal names none, or the node's
        own: all others are written for its tables, and would forward nothing without it, while what the switch holds
        until now, be it another build's, would go.
        """
        about, desired = self.holdings.batch, self.holdings.desired
        named: list[tuple[Key, str]] = [
            (about[index], str(error)) for index, error in refusal.errors if index is not None
        ]
        if not named:
            self._log.error("bundle refused", address=connection.address, error=str(refusal))
            self._note(f"the switch refused a bundle: {refusal}")
            return False
        of_node = [(key, error) for key, error in named if desired.part_of(key) == NODE_PART]
        if of_node:
            self.held = True
            why = self._why(*of_node[0])
            self._log.error(
                "the node's own entries are refused: the switch stays as it is",
                address=connection.address,
                refused=len(of_node),
                error=why,
            )
            self._note(why)
            return False
        for key, error in named:
            part = desired.part_of(key)
            why = self._why(key, error)
            self._log.error("bundle refused", address=connection.address, part=str(part), error=why)
            self._note(why)
            if part is None:
                # What cannot even be named to the switch is not there to be removed.
                self.holdings.dirty.discard(key)
            else:
                self._refused[part] = Refused(desired.entries(part), why)
                self._replace(part, {})
        return True

    def _why(self, key: Key, error: str) -> str:
        body = self.holdings.desired.body(key) or bytes(16)
        return f"the switch refused {entry_text(key, body)}: {error}"

    def _put_back_refused(self) -> None:
        self.held = False
        for part, refused in self._refused.items():
            self._replace(part, refused.entries)
            self._waiting.add(part, refused.told)
        self._refused.clear()

    def _retry_later(self) -> None:
        if self._retry_at is None:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)


def _tell(waiting: Iterable[Done], why: str) -> None:
    for done in waiting:
        done(why)
