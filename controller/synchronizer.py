# SPDX-License-Identifier: Apache-2.0
"""The one writer of a switch: brings what it holds to what it must hold, and never starts over.

One thread a switch, so that a stuck switch delays no other. It takes in changes of parts, compiles and
encodes them, and writes what changed as one atomic bundle closed by a barrier; changes that arrive while a
bundle is in flight go together into the next. On each new connection it reads the switch back first and
writes the difference, so that entries which are right keep forwarding and keep their counters. There is no
code here that clears a table.

A change is in force when the switch has confirmed it and has forgotten the connections that it made stale
(:mod:`controller.stale`). Only then are those told who wait for it.

Refusals. An atomic bundle fails whole, and one entry that a switch cannot take must not keep all others out:
the part that it belongs to is set aside, its waiters are told, and the rest is written again at once. What
was set aside is tried again with each new version of the part, with each new connection, and after a pause
that doubles up to a minute. A refusal that names no entry leads to a fresh comparison after the same pause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.changes import Change, Compile, Done, Inbox, Refused, entries_of
from controller.comparison import entry_text, read_back, report_foreign
from controller.connection import BundleRefusedError, SwitchConnection
from controller.cutting import cut
from controller.desired import Desired, Entries, Key, Part
from controller.forgetting import Flush
from controller.stale import Gone, StaleConnections
from controller.status import Status
from controller.transport import ConnectionClosedError, ProtocolError
from sdn import logs
from sdn.openflow import CodecError, spreads_anew
from sdn.pipeline.topology import Address

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Compile", "Done", "Status", "Synchronizer"]

log = logs.get("controller.synchronizer")

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
_FLUSHES_AT_ONCE = 256


class Synchronizer:
    """See the module. ``node`` is the name of the node whose switch this is, for logs."""

    def __init__(self, node: str, on_status: Callable[[], None] = lambda: None) -> None:
        self.node = node
        self._on_status = on_status
        self._log = log.bind(node=node)
        self._condition = threading.Condition()
        self._inbox = Inbox()
        self._status = Status()
        #: Changes were taken out of the inbox, and what came of them is not in the status yet.
        self._at_work = False
        # From here on: the synchronizer's thread only.
        self._desired = Desired()
        #: Keys whose entry in the switch is not confirmed to be as desired.
        self._dirty: set[Key] = set()
        self._installed_groups: dict[int, bytes] = {}
        #: The switch can take single buckets into a group (sdn/openflow/groupchanges.py).
        self._single_buckets = False
        #: What each message of the last bundle was about.
        self._batch: list[Key] = []
        self._stale = StaleConnections()
        #: Addresses of new pods whose former holders' connections must be forgotten before anything is written.
        self._fresh: set[Address] = set()
        self._waiting: list[tuple[Part, Done]] = []
        self._refused: dict[Part, Refused] = {}
        self._compared: SwitchConnection | None = None
        self._pause = FIRST_PAUSE
        self._retry_at: float | None = None
        #: A bundle was refused, and the switch has been read again because of that.
        self._read_again = False
        self._ever_compared = False
        self._thread = threading.Thread(target=self._run, name=f"synchronizer {node}", daemon=True)
        self._thread.start()

    # Called from other threads.

    def submit(
        self,
        part: Part,
        compile: Compile | None,
        done: Done | None = None,
        gone: tuple[Address, ...] = (),
    ) -> None:
        """Replace a part's entries by what ``compile`` gives; None removes the part. Never waits.

        ``done`` is called when the switch has confirmed this version of the part or refused it; while
        no switch is connected that may be long. ``gone`` are addresses of pods that no longer exist: the
        switch forgets every connection to them before ``done``.
        """
        self.submit_all([Change(part, compile, done, gone)])

    def submit_all(self, changes: Sequence[Change]) -> None:
        """Several changes that go into the switch together, in one atomic bundle: none of them is in force before
        the others are. Never waits.
        """
        with self._condition:
            self._inbox.changes += changes
            self._condition.notify()

    def flush(self, connections: Sequence[Flush]) -> None:
        """Let the switch forget these tracked connections, after what was submitted before was written. What cannot be
        done since no switch is connected is dropped: its tracker is looked at again when it is back.
        """
        with self._condition:
            self._inbox.flushes += connections
            self._condition.notify()

    def connected(self, connection: SwitchConnection) -> None:
        """A connection of this switch has finished its handshake. A former one is closed: the newest wins."""
        with self._condition:
            former, self._inbox.connection = self._inbox.connection, connection
            self._condition.notify()
        if former is not None:
            self._log.warning(
                "second connection of a switch", former=former.address, address=connection.address
            )
            former.close()

    def disconnected(self, connection: SwitchConnection) -> None:
        """A connection has ended."""
        with self._condition:
            if self._inbox.connection is connection:
                self._inbox.connection = None
                self._condition.notify()

    @property
    def connection(self) -> SwitchConnection | None:
        """The connection in use, if any: for reading; writing is done here alone."""
        with self._condition:
            return self._inbox.connection

    @property
    def status(self) -> Status:
        """How the switch stands, as of the last change; not synchronized while changes are under way."""
        with self._condition:
            if self._at_work or self._inbox.changes:
                return replace(self._status, synchronized=False)
            return self._status

    def stop(self, close: bool = False) -> None:
        """End the thread, without touching the switch; ``close`` ends the connection too."""
        with self._condition:
            self._inbox.stopping = True
            connection = self._inbox.connection
            self._condition.notify()
        if close and connection is not None:
            connection.close()

    # The thread.

    def _run(self) -> None:
        while True:
            inbox = self._wait()
            if inbox.stopping:
                return
            self._take_in(inbox.changes)
            connection = inbox.connection
            if connection is not None:
                try:
                    self._bring_up(connection)
                    self._flush(connection, inbox.flushes)
                except ConnectionClosedError:
                    self.disconnected(connection)
                except (CodecError, ProtocolError) as problem:
                    self._log.error("switch answers nonsense", error=str(problem), address=connection.address)
                    self._update(last_error=str(problem))
                    connection.close()
                    self.disconnected(connection)
            self._publish()

    def _wait(self) -> Inbox:
        """Sleep until there is something to do; empties the inbox."""
        with self._condition:
            while not self._has_work():
                self._condition.wait(self._seconds_to_wait())
            inbox = self._inbox
            taken = Inbox(inbox.changes, inbox.flushes, inbox.connection, inbox.stopping)
            inbox.changes, inbox.flushes = [], []
            self._at_work = True
            return taken

    def _has_work(self) -> bool:
        inbox = self._inbox
        if inbox.stopping or inbox.changes or inbox.flushes:
            return True
        if inbox.connection is None:
            return self._status.connected
        return inbox.connection is not self._compared or self._seconds_to_wait() == 0.0

    def _seconds_to_wait(self) -> float | None:
        """Until something is due by itself; None: nothing is."""
        if self._inbox.connection is None:
            return None
        due = [time for time in (self._retry_at, self._stale.due()) if time is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take_in(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._refused.pop(change.part, None)
            self._stale.gone(change.gone)
            self._fresh |= self._stale.back(change.fresh)
            try:
                entries = entries_of(change.compile)
            except (CodecError, ValueError) as problem:
                self._log.error("entries cannot be made", part=str(change.part), error=str(problem))
                if change.done is not None:
                    change.done(str(problem))
                continue
            except Exception as problem:  # noqa: BLE001 - one object's defect must not stop all others
                self._log.exception("entries cannot be made", part=str(change.part))
                if change.done is not None:
                    change.done(f"{type(problem).__name__}: {problem}")
                continue
            self._replace(change.part, entries)
            if change.done is not None:
                self._waiting.append((change.part, change.done))

    def _replace(self, part: Part, entries: Entries) -> None:
        before = self._desired.entries(part)
        changed = self._desired.replace(part, entries)
        self._dirty.update(changed)
        self._stale.changed(changed, self._desired.body, (before, entries))

    def _bring_up(self, connection: SwitchConnection) -> None:
        """Write until the switch holds what it must, or has refused some of it."""
        due = self._retry_at is not None and time.monotonic() >= self._retry_at
        if connection is not self._compared or due:
            if connection is not self._compared:
                self._pause = FIRST_PAUSE
            self._retry_at = None
            self._put_back_refused()
            self._compare(connection)
            self._compared = connection
        self._forget_former(connection)
        while self._dirty:
            try:
                self._write(connection)
            except BundleRefusedError as refusal:
                if self._groups_may_differ(refusal):
                    self._compare(connection)
                elif not self._set_aside(refusal, connection):
                    self._retry_later()
                    return
        self._read_again = False
        self._cut(connection)
        self._confirm()
        if self._refused:
            self._retry_later()
        else:
            self._pause = FIRST_PAUSE

    def _groups_may_differ(self, refusal: BundleRefusedError) -> bool:
        """Whether a change of a group was refused for the first time: it goes by what the group was, which
        somebody may have changed. A fresh look tells, before anything is set aside.
        """
        again, self._read_again = self._read_again, True
        return not again and any(
            index is not None and isinstance(self._batch[index], int) for index, _ in refusal.errors
        )

    def _forget_former(self, connection: SwitchConnection) -> None:
        """A new pod begins without the connections of those who had its addresses, as far as they can be forgotten: its
        own would be taken for theirs. (Answers to theirs never reach it: sdn/pipeline/features/holders.py.) Nothing is
        tracked of an address that has no pod (table ``presence``), so none comes before the pod's flows.
        """
        if not self._fresh:
            return
        former = [Gone(address, both_ways=True) for address in sorted(self._fresh, key=str)]
        if error := cut(connection, former):
            self._log.error("former connections stay", address=connection.address, error=error)
            self._update(last_error=f"the switch does not forget former connections: {error}")
        self._fresh.clear()

    def _cut(self, connection: SwitchConnection) -> None:
        """Let the switch forget the connections that are stale; of many the rest waits for changes that have come."""
        while stale := self._stale.take(time.monotonic()):
            began = time.monotonic()
            try:
                error = cut(connection, stale)
            except BaseException:
                self._stale.interrupted()
                raise
            now = time.monotonic()
            self._stale.spent(now, now - began)
            if error:
                self._log.error("stale connections stay", address=connection.address, error=error)
                self._update(last_error=f"the switch does not forget stale connections: {error}")
            self._log.debug("stale connections cut", kinds=len(stale), seconds=round(now - began, 4))
            with self._condition:
                if self._inbox.changes:
                    return

    def _flush(self, connection: SwitchConnection, flushes: Sequence[Flush]) -> None:
        for start in range(0, len(flushes), _FLUSHES_AT_ONCE):
            error = connection.flush(flushes[start : start + _FLUSHES_AT_ONCE])
            if error:
                self._log.error("denied connections stay", address=connection.address, error=error)
                self._update(last_error=f"the switch does not forget denied connections: {error}")

    def _compare(self, connection: SwitchConnection) -> None:
        """Read the switch back; what differs becomes dirty."""
        began = time.monotonic()
        self._single_buckets = spreads_anew(connection.software())
        installed = read_back(connection, self._desired)
        wrong = self._desired.differing(installed)
        # Of those that are right our own bytes are kept: other switches share them.
        self._installed_groups = {
            key: body if key in wrong else self._desired.body(key) or body
            for key, body in installed.items()
            if isinstance(key, int)
        }
        foreign = {key: installed[key] for key in wrong if self._desired.body(key) is None}
        # What was not written yet is no surprise; on the first comparison nothing was.
        drifted = wrong - self._dirty - foreign.keys() if self._ever_compared else set()
        changed = {key for key in drifted if key in installed}
        if foreign:
            report_foreign(self._log, foreign)
        if drifted:
            self._log.warning("entries differed", missing=len(drifted) - len(changed), changed=len(changed))
        self._stale.found(installed, wrong)
        self._dirty = wrong
        self._ever_compared = True
        self._update(repaired=self._status.repaired + len(foreign) + len(drifted))
        self._log.info(
            "switch compared",
            address=connection.address,
            installed=len(installed),
            desired=self._desired.flows + self._desired.groups,
            differing=len(wrong),
            seconds=round(time.monotonic() - began, 4),
        )

    def _write(self, connection: SwitchConnection) -> None:
        began = time.monotonic()
        self._batch, messages = self._desired.messages(
            self._dirty, self._installed_groups, single_buckets=self._single_buckets
        )
        if self._batch:
            connection.commit(messages, len(self._batch))
        for key in self._dirty:
            if isinstance(key, int):
                body = self._desired.body(key)
                if body is None:
                    self._installed_groups.pop(key, None)
                else:
                    self._installed_groups[key] = body
        self._dirty.clear()
        seconds = round(time.monotonic() - began, 4)
        self._log.debug("bundle committed", entries=len(self._batch), seconds=seconds)

    def _confirm(self) -> None:
        """All that is desired is in force: tell those who wait."""
        waiting, self._waiting = self._waiting, []
        self._publish()
        for part, done in waiting:
            refused = self._refused.get(part)
            if refused is None:
                done(None)
            else:
                refused.told.append(done)
                done(refused.why)

    # Refusals.

    def _set_aside(self, refusal: BundleRefusedError, connection: SwitchConnection) -> bool:
        """Take the parts that were refused out of what is desired; False when the refusal names none."""
        named = [(self._batch[index], error) for index, error in refusal.errors if index is not None]
        if not named:
            self._log.error("bundle refused", address=connection.address, error=str(refusal))
            self._update(last_error=f"the switch refused a bundle: {refusal}")
            return False
        for key, error in named:
            part = self._desired.part_of(key)
            why = f"the switch refused {entry_text(key, self._desired.body(key) or bytes(16))}: {error}"
            self._log.error("bundle refused", address=connection.address, part=str(part), error=why)
            self._update(last_error=why)
            if part is None:
                # What cannot even be named to the switch is not there to be removed.
                self._dirty.discard(key)
            else:
                self._refused[part] = Refused(self._desired.entries(part), why)
                self._replace(part, {})
        return True

    def _put_back_refused(self) -> None:
        for part, refused in self._refused.items():
            self._replace(part, refused.entries)
            self._waiting += [(part, done) for done in refused.told]
        self._refused.clear()

    def _retry_later(self) -> None:
        if self._retry_at is None:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    # Status.

    def _publish(self) -> None:
        connection = self.connection
        unconfirmed = [key for key in self._dirty if self._desired.body(key) is not None]
        groups = sum(isinstance(key, int) for key in unconfirmed)
        flows = len(unconfirmed) - groups
        known = self._ever_compared
        synchronized = (
            connection is not None and connection is self._compared and not self._dirty and not self._refused
        )
        before = self._status
        self._update(
            connected=connection is not None,
            address=connection.address if connection is not None else "",
            connected_since=connection.since if connection is not None else None,
            desired_flows=self._desired.flows + sum(_flows(r.entries) for r in self._refused.values()),
            desired_groups=self._desired.groups,
            installed_flows=self._desired.flows - flows if known else 0,
            installed_groups=self._desired.groups - groups if known else 0,
            synchronized=synchronized,
            synchronized_at=datetime.now(UTC) if synchronized else before.synchronized_at,
        )
        with self._condition:
            self._at_work = False
            after = self._status
        if (before.connected, before.synchronized) != (after.connected, after.synchronized):
            self._on_status()

    def _update(self, **fields: Any) -> None:
        with self._condition:
            self._status = replace(self._status, **fields)


def _flows(entries: Entries) -> int:
    return sum(not isinstance(key, int) for key in entries)
