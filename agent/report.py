# SPDX-License-Identifier: Apache-2.0
"""The agent's stream to a controller: who we are, what is attached, and what is confirmed.

One stream at a time, to the controller that owns the node's switch (`agent.owners`). When another one becomes the
owner, the stream is ended and the next one begun there at once. While nobody owns the switch, or nobody says so (older
controllers), the controllers are asked in turn, those that answer, in an order of the node's own: whoever takes us owns
it.

A stream begins with Hello and, after Welcome, the full state, so whatever was said before and not confirmed is said
again, and nothing needs to be remembered but who waits for what (`agent.unanswered`). When the controller calls items
of the full state wrong, all is told again later: they may be right then.

What the DNS said of names (`resolved`) is not said again: a stream that ends answers it, and so does no stream.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import grpc

from agent import channel, targets, wire
from agent.answering import QUESTIONS, Answering, Answers
from agent.attempt import Attempt, Stream
from agent.channel import Pause
from agent.nodesetup.facts import Assignment, NodeFacts, Peer
from agent.owners import Owners, View
from agent.seeking import Seeker
from agent.state import Record
from agent.unanswered import Confirmation, Key, Outcome, Rejected, Unanswered
from sdn import logs
from sdn.v1 import controller_pb2 as messages
from sdn.v1 import types_pb2 as types
from sdn.v1.controller_pb2_grpc import ControllerStub

__all__ = ["Confirmation", "Rejected", "Reporter"]

log: Final = logs.get("agent.report")

_WELCOME_SECONDS: Final = 10.0
#: When a full state with wrong items is told again: first, and at last (seconds).
_TELL_AGAIN_FIRST: Final = 1.0
_TELL_AGAIN_LAST: Final = 60.0
#: Different problems that are told before a stream comes about; what is more is for the debug log.
_TOLD_PROBLEMS: Final = 50

#: Of things that were put right while no stream is there; of more only the number is told.
_UNTOLD_DRIFT: Final = 100

#: Called with whether what was said is in force.
Done = Callable[[bool], None]


class _StateRefusedError(Exception):
    """The controller refused the full state as a whole."""


class Reporter:
    """Keeps a stream to a controller, and what waits for an answer on it."""

    def __init__(
        self,
        owners: Owners,
        facts: Callable[[], NodeFacts],
        ranges: Callable[[], list[str]],
        attachments: Callable[[], list[Record]],
        assigned: Callable[[Assignment], None],
        peers: Callable[[list[Peer]], None] = lambda peers: None,
        programmed: Callable[[Key], None] = lambda key: None,
        answers: Answers = lambda question: iter(()),
        verdicts: Callable[[Sequence[types.VerdictRecord]], None] = lambda records: None,
        domains: Callable[[Sequence[str]], None] = lambda patterns: None,
    ) -> None:
        """
        facts        what Hello says of the node
        ranges       the pod ranges that it used so far
        attachments  every attachment, for the full state
        assigned     called with what Welcome tells; it tells nothing of peers
        peers        called with all other nodes
        programmed   called with each attachment that is confirmed
        answers      answers a question, in one message or several; it may take seconds
        verdicts     called with what policies said of connections; must not wait
        domains      called with the names that policies allow connections to; must not wait
        """
        self._owners = owners
        self._facts = facts
        self._ranges = ranges
        self._attachments = attachments
        self._assigned = assigned
        self._peers = peers
        self._programmed = programmed
        self._verdicts = verdicts
        self._domains = domains
        self._answering = Answering(answers)
        self._seeker = Seeker(owners, self._order)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sequence = itertools.count(1)
        self._unanswered = Unanswered()
        self._resolved: dict[int, Done] = {}
        #: What was put right and is not told yet: how it was not as it must be, what it was, how many.
        self._drifted: list[messages.Drift] = []
        self._drift_taken = False
        self._attempt: Attempt | None = None
        self._stream: Stream | None = None
        self._settled = False
        self._tell_again = Pause(_TELL_AGAIN_FIRST, _TELL_AGAIN_LAST)
        #: Where a controller that refused us has sent us.
        self._sent_to = ""
        #: Where each controller, by name, has welcomed us last.
        self._reached: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self.changed_at = datetime.now(UTC)
        owners.subscribe(self._look_where)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the stream. The controller keeps what it holds."""
        self._stop.set()
        self._seeker.stop()
        with self._lock:
            if self._attempt is not None and self._attempt.call is not None:
                self._attempt.call.cancel()
        self._thread.join(timeout=5)
        self._answering.close()

    @property
    def connected(self) -> bool:
        """Whether a controller has welcomed us and the stream lives."""
        return self._stream is not None

    @property
    def settled(self) -> bool:
        """Whether a controller has confirmed the full state on the stream that lives: all that the switch must hold is
        in force.
        """
        return self._settled

    @property
    def controller(self) -> tuple[str, str]:
        """Name and address of the controller that has welcomed us; both empty: none."""
        with self._lock:
            attempt = self._attempt
            return (attempt.name, attempt.target) if attempt is not None and attempt.welcomed else ("", "")

    @property
    def controllers(self) -> tuple[str, ...]:
        """Where controllers are known to serve."""
        return self._owners.view.known

    def attach(self, record: Record) -> Confirmation:
        """Tell of an attachment. Its record must be in the state already, where a new stream's full state finds it."""
        message = wire.attachment(record)
        with self._lock:
            confirmation = self._unanswered.expect(record.key)
            if self._stream is not None:
                sequence = next(self._sequence)
                self._unanswered.sent(sequence, record.key)
                attach = messages.Attach(sequence=sequence, attachment=message)
                self._stream.send(messages.AgentMessage(attach=attach))
        return confirmation

    def detach(self, container_id: str, ifname: str) -> None:
        """Tell that an attachment goes. `attachments` must leave it out already, and its addresses must not be given to
        another one before this has returned: what is told of that one comes later then.
        """
        with self._lock:
            self._unanswered.forget((container_id, ifname))
            if self._stream is not None:
                sequence = next(self._sequence)
                self._unanswered.sent(sequence)
                detach = messages.Detach(sequence=sequence, container_id=container_id, interface_name=ifname)
                self._stream.send(messages.AgentMessage(detach=detach))

    def resolved(self, name: str, addresses: Sequence[str], ttl: int, done: Done) -> None:
        """Tell what the DNS answered. `done` is called in any thread, at once when no controller is there."""
        with self._lock:
            stream = self._stream
            if stream is not None:
                sequence = next(self._sequence)
                self._resolved[sequence] = done
                said = messages.Resolved(sequence=sequence, name=name, addresses=addresses, ttl_seconds=ttl)
                stream.send(messages.AgentMessage(resolved=said))
        if stream is None:
            done(False)

    def drifted(self, kind: str, what: str) -> None:
        """Tell of something that was not as it must be and is put right, now or on the next stream."""
        with self._lock:
            if len(self._drifted) < _UNTOLD_DRIFT:
                self._drifted.append(messages.Drift(kind=kind, what=what, count=1))
            else:
                self._drifted[-1].count += 1
            self._tell_drift()

    def _tell_drift(self) -> None:
        if self._stream is not None and self._drift_taken:
            for drift in self._drifted:
                self._stream.send(messages.AgentMessage(drift=drift))
            self._drifted.clear()

    # --- where to

    def _look_where(self) -> None:
        """Something is new about the controllers: end a stream that belongs elsewhere now."""
        with self._lock:
            self._leave_if_misplaced()
        self._seeker.look()

    def _leave_if_misplaced(self) -> None:
        attempt = self._attempt
        if attempt is not None and attempt.call is not None and attempt.misplaced(self._owners.view):
            attempt.moved = True
            attempt.call.cancel()

    def _order(self, view: View, patient: bool) -> Sequence[str]:
        """Whom to ask for a stream."""
        sent_to, self._sent_to = self._sent_to, ""
        first = [sent_to] if sent_to else []
        if not view.owner.controller:
            return [*first, *(view.answering or view.known)]
        # It may have to be reached under another address than it thinks; or have moved since it was.
        known_as = self._reached.get(view.owner.controller, view.owner.address)
        owner = sorted((known_as, view.owner.address), key=lambda address: address not in view.answering)
        return [*first, *owner, *(view.answering if patient else ())]

    def _run(self) -> None:
        while target := self._seeker.next():
            attempt = Attempt(target, self._seeker.known.owner.generation)
            began = time.monotonic()
            problem = self._session(attempt)
            seconds = time.monotonic() - began
            self._log_end(attempt, problem, seconds)
            self._owners.lost(target)
            if attempt.welcomed and seconds > channel.SETTLED_SECONDS:
                self._seeker.good()
            if attempt.welcomed and not attempt.moved:
                self._seeker.again()

    # --- a stream

    def _session(self, attempt: Attempt) -> str:
        """One stream, from Hello to its end; why it ended."""
        stream = Stream()
        stream.send(messages.AgentMessage(hello=wire.hello(self._facts(), self._ranges())))
        with self._owners.connection(attempt.target) as connection:
            try:
                call = ControllerStub(connection).Session(stream.messages())
            except ValueError:
                return "nobody names this controller any more"
            with self._lock:
                attempt.call = call
                self._attempt = attempt
                self._leave_if_misplaced()
            watchdog = threading.Timer(_WELCOME_SECONDS, call.cancel)
            watchdog.daemon = True
            watchdog.start()
            if self._stop.is_set():
                call.cancel()
            try:
                for message in call:
                    if message.WhichOneof("message") == "welcome" and not attempt.welcomed:
                        watchdog.cancel()
                        self._welcome(message.welcome, attempt, stream)
                    else:
                        self._receive(message, stream)
            except _StateRefusedError as error:
                call.cancel()
                return f"the full state was refused: {error}"
            except grpc.RpcError as error:
                if channel.code(error) is grpc.StatusCode.FAILED_PRECONDITION:
                    self._sent_to = targets.elsewhere(call.details())
                return channel.problem(error)
            finally:
                watchdog.cancel()
                stream.end()
                self._end(attempt.welcomed)
        return "the controller ended the stream"

    def _log_end(self, attempt: Attempt, problem: str, seconds: float) -> None:
        fields = {"controller": attempt.target, "after_seconds": round(seconds, 1)}
        if self._stop.is_set():
            return
        if attempt.moved:
            log.info("the stream belongs elsewhere", now=self._owners.view.owner.address, **fields)
        elif attempt.welcomed:
            self._told.clear()
            log.warning("lost the controller", error=problem, **fields)
        elif (attempt.target, problem) not in self._told and len(self._told) < _TOLD_PROBLEMS:
            # The same answer every two seconds is worth one line.
            self._told.add((attempt.target, problem))
            log.warning("the controller did not take us", error=problem, **fields)
        else:
            log.debug("the controller did not take us", error=problem, **fields)

    def _welcome(self, welcome: messages.Welcome, attempt: Attempt, stream: Stream) -> None:
        self._assigned(wire.assignment(welcome))
        with self._lock:
            attempt.welcomed = True
            attempt.name = welcome.controller_name
            self._reached[attempt.name] = attempt.target
            self._stream = stream
            # Confirmed with it: everything that was said before and not answered.
            attachments = self._tell_all(stream)
            self._drift_taken = welcome.takes_drift
            self._tell_drift()
            self.changed_at = datetime.now(UTC)
        log.info(
            "welcomed by the controller",
            controller=attempt.target,
            name=welcome.controller_name,
            version=welcome.controller_version,
            ranges=list(welcome.node.pod_ranges),
            attachments=attachments,
        )

    def _tell_all(self, stream: Stream) -> int:
        """Send the full state; of how many attachments."""
        records = self._attachments()
        sequence = next(self._sequence)
        self._unanswered.listed(sequence, [record.key for record in records])
        state = messages.FullState(
            sequence=sequence, attachments=[wire.attachment(record) for record in records]
        )
        stream.send(messages.AgentMessage(full_state=state))
        return len(records)

    def _tell_all_again(self, stream: Stream) -> None:
        with self._lock:
            if stream is self._stream:
                self._tell_all(stream)

    def _receive(self, message: messages.ControllerMessage, stream: Stream) -> None:
        kind = message.WhichOneof("message")
        if kind == "programmed":
            sequence = message.programmed.sequence
            with self._lock:
                if self._unanswered.is_full_state(sequence):
                    self._tell_again.reset()
                    self._settled = True
                outcome = self._unanswered.programmed(sequence)
            self._settle(sequence, outcome, None)
        elif kind == "rejected":
            with self._lock:
                full = self._unanswered.is_full_state(message.rejected.sequence)
                outcome = self._unanswered.rejected(message.rejected)
                # All but the wrong items are in force.
                self._settled = self._settled or (full and not outcome.void)
            self._settle(message.rejected.sequence, outcome, message.rejected.reason)
            if outcome.void:
                # Nothing that is told now could be understood without it: begin again.
                raise _StateRefusedError(message.rejected.reason)
            if outcome.standing:
                again = threading.Timer(self._tell_again.next(), self._tell_all_again, (stream,))
                again.daemon = True
                again.start()
        elif kind == "peers":
            self._peers(wire.peers(message.peers))
        elif kind == "verdicts":
            self._verdicts(message.verdicts.records)
        elif kind == "domain_patterns":
            self._domains(message.domain_patterns.patterns)
        elif kind in QUESTIONS:
            self._answering.ask(message, stream)

    def _settle(self, sequence: int, outcome: Outcome, reason: str | None) -> None:
        with self._lock:
            resolved = self._resolved.pop(sequence, None)
        if resolved is not None:
            # There may be many, and a pod's questions are not for the log.
            log.debug("names resolved", sequence=sequence, refused=reason)
            resolved(reason is None)
        elif reason is not None:
            log.warning("refused by the controller", reason=reason)
        for key in outcome.confirmed:
            self._programmed(key)
        for confirmation, why in outcome.settled:
            confirmation.settle(why)

    def _end(self, welcomed: bool) -> None:
        with self._lock:
            self._stream = None
            self._settled = False
            self._attempt = None
            self._unanswered.ended()
            resolved, self._resolved = self._resolved, {}
            if welcomed:
                self.changed_at = datetime.now(UTC)
        for done in resolved.values():
            done(False)
