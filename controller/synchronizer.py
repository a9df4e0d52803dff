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

The node's own part is never set aside: all others are written for its tables, and a switch without it forwards nothing.
While it is refused the switch stays as it is, with what an older build may have written, nobody is told anything, and
all is tried again as above.

Owners. Of several controllers one owns a switch, with a *generation* that no other owner has had: only that one
writes. Each first asks the switch for its role, MASTER with its generation or SLAVE, and the switch itself refuses
whoever another has replaced (:mod:`sdn.openflow.roles`). What such a switch refuses says nothing about what was
written: the owner is *deposed*, writes no more until it owns the switch anew, and nobody is told of a refusal. Who
does not own the switch takes in all changes, too, so that to take it over is to ask for the role, to compare, and to
write the difference.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from controller.changes import NEVER, NOT_OWNER, Change, Compile, Done, Inbox
from controller.connection import DeposedError, SwitchConnection
from controller.desired import Part
from controller.forgetting import Flush
from controller.lanes import LARGE, ROLES, SMALL, STAND_BY, Lane, Waiter
from controller.repairs import Repairs
from controller.status import Status, seen, stands
from controller.transport import ConnectionClosedError, ProtocolError
from controller.writer import Writer
from sdn import logs
from sdn.openflow import CodecError, Role, RoleStatus
from sdn.pipeline.topology import Address

__all__ = ["ALONE", "NOT_OWNER", "Compile", "Done", "Status", "Synchronizer"]

log = logs.get("controller.synchronizer")

#: The generation of a controller that has no others beside it.
ALONE: Final = 1
#: Seconds for which changes wait for others: those that come in great numbers where they may, such as of all other
#: nodes when nodes come; and all at a controller that does not own the switch, since nobody waits for them.
PATIENCE: Final = 0.1
STAND_BY_PATIENCE: Final = 0.5
#: So many changes are small work.
_FEW: Final = 8


class Synchronizer:
    """See the module. ``node`` is the name of the node whose switch this is, for logs."""

    def __init__(
        self,
        node: str,
        on_status: Callable[[], None] = lambda: None,
        *,
        owned: int | None = ALONE,
        on_deposed: Callable[[str, int, int], None] = lambda _node, _generation, _seen: None,
        owner_of: Callable[[Part], str] = str,
    ) -> None:
        """``owned`` is the generation with which this controller owns the switch from the start, None: it does not.

        ``on_deposed`` is called with the node and the generation when the switch has another master than this
        controller, which owned it with that, and with the generation that the switch has seen, 0 if that is not known;
        once for each, in any thread, and must not wait. ``owner_of`` says for
        people whose a part is, in any thread.
        """
        self.node = node
        self._on_status = on_status
        self._on_deposed = on_deposed
        self._log = log.bind(node=node)
        self._condition = threading.Condition()
        self._inbox = Inbox(generation=owned, known=owned or 0)
        self._status = Status()
        #: What of the node was not as it must be. Any thread may add to it.
        self.repairs = Repairs()
        #: The connection that the status is about.
        self._shown: SwitchConnection | None = None
        #: Changes were taken out of the inbox, and what came of them is not in the status yet.
        self._at_work = False
        #: Somebody was told that the switch is not synchronized, since changes were under way.
        self._told_busy = False
        # From here on: the synchronizer's thread only.
        #: The generation by which this thread acts; the inbox has the one that counts.
        self._generation = owned
        self._given_up = self._pauses = 0
        #: Somebody waits for entries that were taken in.
        self._hurried = False
        #: In line for a lane; a switch that is to have its master does not wait there.
        self._waiter = Waiter(self._in_a_hurry, self._asks_to_be_master)
        #: For which connection and generation, and after how many pauses, the switch has given us our role.
        self._role_of: tuple[SwitchConnection, int | None, int] | None = None
        self._writer = Writer(
            self._log,
            owner=owned is not None,
            ours=self._ours,
            busy=self._busy,
            note=lambda error: self._update(last_error=error),
            confirmed=self._publish,
            wake=self._wake,
            repairs=self.repairs,
            owner_of=owner_of,
        )
        #: As many bundles were confirmed when the status was told last.
        self._told_written = 0
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
        no switch is connected that may be long. It is called with NOT_OWNER when this controller does not own the
        switch, or no longer does. ``gone`` are addresses of pods that no longer exist: the switch forgets every
        connection to them before ``done``.
        """
        self.submit_all([Change(part, compile, done, gone)])

    def submit_all(self, changes: Sequence[Change], *, patient: bool = False) -> None:
        """Several changes that go into the switch together, in one atomic bundle: none of them is in force before
        the others are. Never waits. ``patient``: there may be many more like these, which go together as well.
        """
        patience = PATIENCE if patient else 0.0
        with self._condition:
            inbox = self._inbox
            if inbox.generation is None:
                patience = STAND_BY_PATIENCE
            before, now = inbox.due, time.monotonic()
            inbox.add(changes, now + patience)
            if inbox.due < before:
                self._condition.notify()

    def flush(self, connections: Sequence[Flush]) -> None:
        """Let the switch forget these tracked connections, after what was submitted before was written. What cannot be
        done since no switch is connected, or it is another controller's, is dropped: its tracker is looked at again
        when it is back.
        """
        with self._condition:
            if self._inbox.generation is not None:
                self._inbox.flushes.update(dict.fromkeys(connections))
                self._condition.notify()

    def own(self, generation: int) -> None:
        """This controller owns the switch from now on, with this generation. Never waits.

        Generations grow: one that another controller has taken the switch from is not believed again.
        """
        with self._condition:
            believed = generation > self._inbox.lost and generation >= self._inbox.known
            if believed:
                self._inbox.generation = self._inbox.known = generation
                self._condition.notify()
        self._waiter.look_up()
        if not believed:
            self._log.warning("old generation not believed", generation=generation)

    def disown(self, known: int = 0) -> None:
        """This controller does not own the switch, or no longer does: it begins no further change. Never waits; one
        that is under way when this is called may still come into force, unless the next owner is quicker.

        ``known`` is the generation of who owns it, if that is known: the switch refuses all before.
        """
        with self._condition:
            self._inbox.generation = None
            self._inbox.given_up += 1
            self._inbox.known = max(self._inbox.known, known)
            if self._inbox.connection is not None:
                self._inbox.connection.give_up()
            self._condition.notify()

    def pause(self, paused: bool) -> None:
        """Whether nothing may be written for now, though the switch is this controller's. Never waits; what is under
        way ends after the next message. When the pause is over, the switch is asked first whether it is still this
        controller's.
        """
        with self._condition:
            inbox = self._inbox
            inbox.paused = paused
            if inbox.held_up:
                inbox.pauses += 1
                if inbox.connection is not None:
                    inbox.connection.packets_wanted = False
            self._condition.notify()
        self._waiter.look_up()

    def connected(self, connection: SwitchConnection) -> None:
        """A connection of this switch has finished its handshake. A former one is closed: the newest wins."""
        # Until the switch has said that it has no other master.
        connection.packets_wanted = False
        connection.on_role_status = functools.partial(self._role_changed, connection)
        with self._condition:
            former, self._inbox.connection = self._inbox.connection, connection
            self._condition.notify()
        self._waiter.look_up()
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
    def generation(self) -> int | None:
        """With which this controller owns the switch; None: it does not."""
        with self._condition:
            return self._inbox.generation

    @property
    def status(self) -> Status:
        """How the switch stands, as of the last change; not synchronized while changes are under way."""
        with self._condition:
            inbox, status = self._inbox, replace(self._status, repaired=self.repairs.count)
            if inbox.generation is None:
                return replace(status, owner=False, connected=False, synchronized=False)
            another = inbox.connection is not self._shown
            if self._at_work or another or inbox.changes or self._changes_hands(inbox):
                self._told_busy = True
                return replace(status, synchronized=False)
            return status

    @property
    def refused(self) -> bool:
        """Whether the switch is ours, and has refused the node's own part."""
        with self._condition:
            return self._status.refused and self._inbox.generation is not None

    def stop(self, close: bool = False) -> None:
        """End the thread, without touching the switch; ``close`` ends the connection too."""
        with self._condition:
            self._inbox.stopping = True
            connection = self._inbox.connection
            self._condition.notify()
        if close and connection is not None:
            connection.close()

    def _role_changed(self, connection: SwitchConnection, status: RoleStatus) -> None:
        """Called in the connection's thread."""
        with self._condition:
            current = connection is self._inbox.connection
            generation = self._inbox.generation
        # What the switch has said before it was asked with our generation is of no interest.
        if (
            current
            and status.role is Role.SLAVE
            and generation is not None
            and status.generation >= generation
        ):
            self._depose(
                generation,
                f"a controller with generation {status.generation} is the switch's master",
                status.generation,
            )

    def _depose(self, generation: int, why: str, seen: int) -> None:
        """The switch says that who owned it with this generation does so no longer."""
        with self._condition:
            if self._inbox.generation != generation:
                return  # It was given up, or is owned anew.
            self._inbox.generation = None
            self._inbox.given_up += 1
            self._inbox.lost = generation
            if self._inbox.connection is not None:
                self._inbox.connection.give_up()
            self._condition.notify()
        self._log.warning("deposed", generation=generation, reason=why)
        self._update(last_error=f"deposed: {why}")
        self._on_deposed(self.node, generation, seen)

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify()

    # The thread.

    def _run(self) -> None:
        while True:
            self._wait()
            if self._asks_to_be_master():
                with ROLES:
                    self._take_role_early()
            with self._lane().entered(self._waiter) as inside:
                if not inside:
                    continue
                inbox = self._take()
                if inbox.stopping:
                    self._writer.drift.end()
                    return
                self._work(inbox)

    def _work(self, inbox: Inbox) -> None:
        if self._changes_hands(inbox):
            self._change_hands(inbox)
        connection = inbox.connection
        # Before anything is compiled: nobody else writes from then on.
        self._pauses = inbox.pauses
        reached = connection is not None and not inbox.held_up and self._attempt(connection, self._take_role)
        self._writer.take_in(inbox.changes)
        if connection is None:
            self._writer.without_a_switch()
        elif reached and self._generation is not None:
            flushes = list(inbox.flushes)
            if self._attempt(connection, self._writer.bring_up):
                self._attempt(connection, functools.partial(self._writer.flush, flushes=flushes))
            if flushes:
                self._put_back(connection, flushes)
        self._publish()

    def _put_back(self, connection: SwitchConnection, flushes: Sequence[Flush]) -> None:
        """A pause was in the way of these; nothing else leaves them to do."""
        with self._condition:
            inbox = self._inbox
            if inbox.connection is connection and not self._changes_hands(inbox):
                inbox.flushes = dict.fromkeys(flushes) | inbox.flushes

    def _attempt(self, connection: SwitchConnection, step: Callable[[SwitchConnection], None]) -> bool:
        """Do something with the switch; False when that did not come to its end."""
        try:
            step(connection)
        except ConnectionClosedError:
            self.disconnected(connection)
        except DeposedError as problem:
            # In a pause it may be that nobody has taken the switch: it is asked after it.
            if self._generation is not None and self._ours():
                self._depose(self._generation, str(problem), problem.seen)
        except (CodecError, ProtocolError) as problem:
            self._log.error("switch answers nonsense", error=str(problem), address=connection.address)
            self._update(last_error=str(problem))
            connection.close()
            self.disconnected(connection)
        else:
            return True
        return False

    def _wait(self) -> None:
        """Sleep until there is something to do."""
        with self._condition:
            while not self._has_work():
                self._condition.wait(self._seconds_to_wait())

    def _lane(self) -> Lane:
        """In which it is done; asked as late as can be, since the switch may be ours by then."""
        with self._condition:
            inbox = self._inbox
            if inbox.generation is None:
                return STAND_BY
            known = inbox.connection is None or inbox.connection is self._writer.holdings.compared
            return SMALL if known and len(inbox.changes) <= _FEW else LARGE

    # These two in any thread, and without the condition, which may be held by who asks for a place: a moment too early
    # or too late does no harm.

    def _in_a_hurry(self) -> bool:
        return self._hurried or self._inbox.is_waited_for

    def _asks_to_be_master(self) -> bool:
        inbox = self._inbox
        role = inbox.connection, inbox.generation, inbox.pauses
        wanted = None not in role[:2] and self._role_of != role
        return wanted and not inbox.held_up and not inbox.stopping

    def _take(self) -> Inbox:
        """Empty the inbox."""
        with self._condition:
            self._at_work = True
            inbox = self._inbox.take()
        self._hurried = self._hurried or inbox.is_waited_for
        return inbox

    def _has_work(self) -> bool:
        inbox = self._inbox
        if inbox.stopping or self._changes_hands(inbox):
            return True
        if inbox.connection is None and self._status.linked:
            return True
        if not inbox.held_up:
            role = inbox.connection, inbox.generation, inbox.pauses
            if inbox.flushes or (inbox.connection is not None and self._role_of != role):
                return True
        return self._seconds_to_wait() == 0.0

    def _seconds_to_wait(self) -> float | None:
        """Until something is due by itself; None: nothing is."""
        due = self._inbox.due
        if self._inbox.connection is not None and self._generation is not None and not self._inbox.held_up:
            if self._inbox.connection is not self._writer.holdings.compared:
                return 0.0
            by_itself = self._writer.due()
            due = due if by_itself is None else min(due, by_itself)
        return None if due == NEVER else max(0.0, due - time.monotonic())

    # Whose the switch is.

    def _changes_hands(self, inbox: Inbox) -> bool:
        return (inbox.generation, inbox.given_up) != (self._generation, self._given_up)

    def _change_hands(self, inbox: Inbox) -> None:
        """The switch is ours, or no longer, or anew. Whatever was read of it may be another's work since."""
        self._generation, self._given_up = inbox.generation, inbox.given_up
        self._role_of = None
        self._writer.change_hands(self._generation is not None)

    def _take_role_early(self) -> None:
        """Where many switches are to be compared, each has its new master before any of that begins."""
        with self._condition:
            self._at_work = True
            inbox = replace(self._inbox, changes=[])
        if inbox.stopping:
            return
        if self._changes_hands(inbox):
            self._change_hands(inbox)
        self._pauses = inbox.pauses
        if inbox.connection is not None and not inbox.held_up:
            self._attempt(inbox.connection, self._take_role)

    def _take_role(self, connection: SwitchConnection) -> None:
        """Ask the switch for the role that is ours."""
        generation = self._generation
        role = connection, generation, self._pauses
        if self._role_of == role:
            return
        if generation is None:
            reply = connection.become_slave(self._inbox.known)
            connection.end_monitor()
        else:
            reply = connection.request_role(Role.MASTER, generation)
        if reply.role is not (Role.SLAVE if generation is None else Role.MASTER):
            raise CodecError(f"the switch gave the role {reply.role.name}")
        self._role_of = role
        with self._condition:
            if self._inbox.generation == generation and not self._inbox.held_up:
                connection.packets_wanted = generation is not None
        self._update(role=reply.role, generation=reply.generation)
        self._log.debug(
            "role given", role=reply.role.name, generation=reply.generation, address=connection.address
        )

    def _ours(self) -> bool:
        """Whether the switch is still ours as it was when this thread looked last, and there was no pause since."""
        with self._condition:
            inbox = self._inbox
            return not self._changes_hands(inbox) and not inbox.held_up and inbox.pauses == self._pauses

    def _busy(self) -> bool:
        with self._condition:
            return bool(self._inbox.changes)

    # Status.

    def _publish(self) -> None:
        self._hurried = self._hurried and self._writer.is_waited_for
        before, owner = self._status, self._generation is not None
        news, self._told_written = self._writer.written != self._told_written, self._writer.written
        connection = self.connection
        self._update(**seen(before, connection, self._writer, owner=owner, news=news))
        with self._condition:
            self._shown = connection
            self._at_work = False
            after = self._status
            # Whoever was told in the meantime is told how it ended.
            over = self._told_busy and not self._inbox.changes
            if over:
                self._told_busy = False
        if over or stands(before) != stands(after):
            self._on_status()

    def _update(self, **fields: Any) -> None:
        with self._condition:
            self._status = replace(self._status, **fields)
