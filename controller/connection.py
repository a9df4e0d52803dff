# SPDX-License-Identifier: Apache-2.0
"""A switch that has finished the handshake: questions and answers, bundles and barriers, as raw messages.

An *exchange* is a range of transaction ids; whatever the switch sends under one of them belongs to it. The
receiving thread only sorts messages into exchanges; whoever opened one takes them out, in a thread that may
wait. Packets that the switch hands over belong to none: those to Services without endpoints are answered where they
arrive (controller.rejects), those that policies report are read there (controller.audit). Nor does the switch's word
that another controller has become its master, or that somebody has changed a flow or a group, which may come at any
time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from controller import forgetting
from controller.addresses import format_address
from controller.audit import Audit
from controller.lanes import aside
from controller.rejects import Rejects
from controller.transport import ConnectionClosedError, ProtocolError, Transport
from sdn import logs
from sdn.openflow import (
    NO_GENERATION,
    CodecError,
    ErrorMessage,
    FlowUpdate,
    Role,
    RoleReply,
    RoleStatus,
    barrier_request,
    decode_error,
    decode_role_reply,
    decode_role_status,
    decode_software,
    desc_request,
    flow_desc_request,
    flow_monitor_end,
    flow_monitor_request,
    forward_group_changes,
    group_desc_request,
    group_stats_request,
    is_flow_monitor,
    multipart_body,
    multipart_more,
    packet_in_cookie,
    role_request,
    split_flow_updates,
    tells_deposed,
)
from sdn.openflow.bundle import (
    BundleControl,
    bundle,
    bundle_commit,
    bundle_discard,
    decode_bundle_reply,
)
from sdn.openflow.wire import (
    OFPT_BARRIER_REPLY,
    OFPT_BUNDLE_CONTROL,
    OFPT_ERROR,
    OFPT_MULTIPART_REPLY,
    OFPT_PACKET_IN,
    OFPT_REQUESTFORWARD,
    OFPT_ROLE_REPLY,
    OFPT_ROLE_STATUS,
)
from sdn.pipeline.owner import Feature, feature_of

log = logs.get("controller.openflow")

#: What a switch may send in answer to one question: a million flows of 500 bytes.
MAX_ANSWER = 1 << 29
_LAST_XID = 0x7FFFFFFF

_WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF
#: The number of the one flow monitor of a connection.
_MONITOR = 1


class BundleRefusedError(Exception):
    """The switch refused a bundle, nothing of it is in force.

    ``errors`` are its answers with the index of the message that each is about, None where it is about none
    of them.
    """

    def __init__(self, errors: Sequence[tuple[int | None, ErrorMessage]]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) for _, error in self.errors) or "refused without an error")


class DeposedError(Exception):
    """The switch takes no change from here: another controller is its master. What was to be changed is as it was;
    nothing is said of whether the switch would take it.

    ``seen`` is the highest generation that the switch has seen, 0 when that is not known.
    """

    seen = 0


class StaleError(DeposedError):
    """The switch has seen a higher generation than the one with which a role was asked for."""


class _Exchange:
    """One range of transaction ids, and what came for it. None in the queue: the connection ended."""

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.last = first + count - 1
        self.received = 0
        self._messages: queue.SimpleQueue[tuple[int, int, bytes] | None] = queue.SimpleQueue()

    def put(self, kind: int, xid: int, message: bytes) -> None:
        self.received += len(message)
        if self.received > MAX_ANSWER:
            raise ProtocolError(f"an answer of more than {MAX_ANSWER} bytes")
        self._messages.put((kind, xid, message))

    def end(self) -> None:
        self._messages.put(None)

    def next(self) -> tuple[int, int, bytes]:
        """The next message: type, xid, bytes. Waits; the keepalive ends the connection of a switch that never
        answers.
        """
        try:
            item = self._messages.get_nowait()
        except queue.Empty:
            with aside():
                item = self._messages.get()
        if item is None:
            raise ConnectionClosedError("the connection to the switch ended")
        return item


class SwitchConnection:
    """One connection, from the end of the handshake until it closes."""

    def __init__(self, datapath: Any, audit: Audit | None = None) -> None:
        """``audit`` reads what policies report; None: nobody wants to know."""
        self._transport: Transport = datapath.transport
        self.datapath_id: int = datapath.id
        self.address = format_address(datapath.address)
        self.since = datetime.now(UTC)
        self._lock = threading.Lock()
        self._exchanges: list[_Exchange] = []
        self._next_xid = 1
        self._ended = False
        self._rejects = Rejects(datapath.id, self._transport.offer)
        self._audit = audit
        #: Packets that the switch hands over are answered and reported. A switch that has another master hands them to
        #: that one, and to who has not asked for a role yet.
        self.packets_wanted = True
        #: Called in the receiving thread when the switch says by itself that the role here is another now.
        self.on_role_status: Callable[[RoleStatus], None] = lambda _status: None
        #: Called in the receiving thread when the switch tells what others change, while it is monitored.
        self.on_flow_updates: Callable[[Iterable[FlowUpdate]], None] = lambda _updates: None
        self.on_group_change: Callable[[], None] = lambda: None
        self._monitored = False
        #: Flushes may be on their way that the switch has not confirmed.
        self._flushing = False
        datapath.receiver = self._receive

    def close(self) -> None:
        """End the connection; whoever waits for an answer gets ConnectionClosedError."""
        self._transport.close()

    def give_up(self) -> None:
        """The switch is another's now, for all that is known: its packets are not wanted, and flushes that have not
        arrived must not arrive. The switch would do them, so where there may be any the connection is ended. In any
        thread.
        """
        self.packets_wanted = False
        if self._flushing:
            log.warning("connection ended with flushes under way", address=self.address)
            self._transport.abort()

    def ended(self) -> None:
        """To be called when the connection has ended."""
        with self._lock:
            self._ended = True
            for exchange in self._exchanges:
                exchange.end()

    def _receive(self, kind: int, xid: int, message: bytes) -> None:
        if kind == OFPT_PACKET_IN:
            if self.packets_wanted:
                self._receive_packet(message)
            return
        if kind == OFPT_ROLE_STATUS:
            self._receive_role_status(message)
            return
        if kind == OFPT_REQUESTFORWARD:
            self.on_group_change()
            return
        if kind == OFPT_MULTIPART_REPLY and xid == 0:
            self._receive_updates(message)
            return
        with self._lock:
            for exchange in self._exchanges:
                if exchange.first <= xid <= exchange.last:
                    exchange.put(kind, xid, message)
                    return
        if kind == OFPT_ERROR:
            log.warning(
                "switch reported an error", datapath_id=f"{self.datapath_id:016x}", error=_text(message)
            )

    def _receive_packet(self, message: bytes) -> None:
        # By the flow that sent it, before anything is decoded: a flood of one kind costs the other nothing.
        if feature_of(packet_in_cookie(message)) is not Feature.POLICY:
            self._rejects.packet_in(message)
        elif self._audit is not None:
            self._audit.packet_in(message)

    def _receive_role_status(self, message: bytes) -> None:
        try:
            status = decode_role_status(message)
        except CodecError as problem:
            log.warning(
                "role status is malformed", datapath_id=f"{self.datapath_id:016x}", error=str(problem)
            )
            return
        if status.role is Role.SLAVE:
            self.give_up()
        self.on_role_status(status)

    def _receive_updates(self, message: bytes) -> None:
        try:
            if is_flow_monitor(message):
                self.on_flow_updates(split_flow_updates(multipart_body(message)))
        except CodecError as problem:
            raise ProtocolError(f"an update of flows: {problem}") from problem

    @contextmanager
    def _exchange(self, count: int) -> Iterator[_Exchange]:
        with self._lock:
            if self._ended:
                raise ConnectionClosedError("the connection to the switch ended")
            if self._next_xid + count > _LAST_XID:
                self._next_xid = 1
            exchange = _Exchange(self._next_xid, count)
            self._next_xid += count
            self._exchanges.append(exchange)
        try:
            yield exchange
        finally:
            with self._lock:
                self._exchanges.remove(exchange)

    def request_role(self, role: Role, generation: int = 0) -> RoleReply:
        """Ask for a role, as the owner of ``generation``; which role it is now, and the switch's highest generation.

        StaleError: the role is what it was, which is not SLAVE by that alone. ConnectionClosedError; CodecError when
        the switch answers nonsense, or refuses the role otherwise.
        """
        with self._exchange(1) as exchange:
            self._transport.write([role_request(exchange.first, role, generation)])
            kind, _, message = exchange.next()
        if kind == OFPT_ERROR:
            error = decode_error(message)
            if tells_deposed(error):
                stale = StaleError(f"role {role.name} with generation {generation}: {error}")
                if role is Role.MASTER:
                    seen = self.request_role(Role.NOCHANGE).generation
                    stale.seen = 0 if seen == NO_GENERATION else seen
                raise stale
            raise CodecError(f"the switch refused the role {role.name}: {error}")
        if kind != OFPT_ROLE_REPLY:
            raise CodecError(f"message type {kind} in answer to a role request")
        return decode_role_reply(message)

    def become_slave(self, known: int = 0) -> RoleReply:
        """Ask for the role SLAVE, with the highest generation of those that the switch has seen and ``known``, which
        keeps whoever has a lower one from becoming the master. ConnectionClosedError, CodecError.
        """
        while True:
            seen = self.request_role(Role.NOCHANGE).generation
            try:
                return self.request_role(Role.SLAVE, known if seen == NO_GENERATION else max(seen, known))
            except StaleError:
                # Another controller has become the master between question and request.
                continue

    def monitor(self) -> str:
        """Let the switch tell what others change, from the answer on. Why it does not; empty: it does.
        ConnectionClosedError, CodecError.
        """
        if self._monitored:
            return ""
        with self._exchange(2) as exchange:
            first, last = exchange.first, exchange.last
            self._transport.write([forward_group_changes(first, True) + flow_monitor_request(last, _MONITOR)])
            refused = self._monitor_answer(exchange)
        self._monitored = not refused
        return refused

    def end_monitor(self) -> None:
        """Let the switch tell no more. ConnectionClosedError, CodecError."""
        if not self._monitored:
            return
        self._monitored = False
        with self._exchange(2) as exchange:
            first, last = exchange.first, exchange.last
            self._transport.write([forward_group_changes(first, False) + flow_monitor_end(last, _MONITOR)])
            self._monitor_answer(exchange)

    def _monitor_answer(self, exchange: _Exchange) -> str:
        """What was refused, once the flow monitor's request, the last one, is answered."""
        refused: list[str] = []
        while True:
            kind, xid, message = exchange.next()
            if kind == OFPT_ERROR:
                refused.append(_text(message))
            elif kind != OFPT_MULTIPART_REPLY:
                raise CodecError(f"message type {kind} in answer to a flow monitor's request")
            if xid == exchange.last and (kind == OFPT_ERROR or not multipart_more(message)):
                return "; ".join(refused)

    def software(self) -> str:
        """The version of Open vSwitch, "3.1.0"."""
        with self._exchange(1) as exchange:
            self._transport.write([desc_request(exchange.first)])
            return decode_software(b"".join(self._multipart(exchange)))

    def flow_descriptions(self, table: int | None = None, cookie: int | None = None) -> Iterator[bytes]:
        """Bodies of flow description replies: all flows, those of one table, those with one cookie."""
        mask = 0 if cookie is None else _WHOLE_COOKIE
        with self._exchange(1) as exchange:
            request = flow_desc_request(exchange.first, table=table, cookie=cookie or 0, cookie_mask=mask)
            self._transport.write([request])
            yield from self._multipart(exchange)

    def group_descriptions(self, group_id: int | None = None) -> Iterator[bytes]:
        """Bodies of group description replies: all groups, or one."""
        with self._exchange(1) as exchange:
            self._transport.write([group_desc_request(exchange.first, group_id)])
            yield from self._multipart(exchange)

    def group_counters(self, group_id: int | None = None) -> Iterator[bytes]:
        """Bodies of group statistics replies: all groups, or one."""
        with self._exchange(1) as exchange:
            self._transport.write([group_stats_request(exchange.first, group_id)])
            yield from self._multipart(exchange)

    def _multipart(self, exchange: _Exchange) -> Iterator[bytes]:
        more = True
        while more:
            kind, _, message = exchange.next()
            if kind == OFPT_ERROR:
                raise CodecError(f"the switch refused to describe its entries: {_text(message)}")
            if kind != OFPT_MULTIPART_REPLY:
                raise CodecError(f"message type {kind} in answer to a multipart request")
            more = multipart_more(message)
            yield multipart_body(message)

    def commit(self, messages: Iterable[bytes], count: int) -> None:
        """Put ``count`` messages in force, all at once or none; returns when the switch has confirmed it by a
        barrier.

        The messages are taken as the switch takes them. BundleRefusedError, DeposedError: nothing is in force.
        ConnectionClosedError: nothing or all of it. CodecError when a message cannot be sent or the switch answers
        nonsense: nothing is in force then, and the connection must end, since a bundle is left open on it.
        """
        # Open, close, the messages, then commit or discard, then the barrier.
        with self._exchange(count + 4) as exchange:
            bundle_id = exchange.first
            self._transport.write(bundle(bundle_id, messages, exchange.first))
            errors = self._until_closed(exchange)
            final, barrier = exchange.last - 1, exchange.last
            stroke = bundle_discard if errors else bundle_commit
            self._transport.write([stroke(bundle_id, final) + barrier_request(barrier)])
            late = self._until_barrier(exchange, barrier)
            if deposed := next((error for error in errors + late if tells_deposed(error)), None):
                raise DeposedError(str(deposed))
            if errors or late:
                raise BundleRefusedError([_about(exchange, error, count) for error in errors or late])

    def flush(self, flushes: Sequence[forgetting.Flush]) -> str:
        """Let the switch forget tracked connections; returns when it has. What it answers where it refuses, else
        nothing.

        A switch that has another master does what is asked all the same, but for what takes a packet to be sent: then
        DeposedError, as when it was given up. ConnectionClosedError.
        """
        wanted = [message for flush in flushes for message in forgetting.messages(flush)]
        with self._exchange(len(wanted) + 1) as exchange:
            barrier = exchange.last
            messages = [message(xid) for xid, message in enumerate(wanted, exchange.first)]
            self._flushing = True
            try:
                # Whoever gives it up from here on sees the flag.
                if not self.packets_wanted:
                    raise DeposedError("the switch was given up")
                self._transport.write([b"".join(messages) + barrier_request(barrier)])
                errors = self._until_barrier(exchange, barrier)
            finally:
                self._flushing = False
        if deposed := next(filter(tells_deposed, errors), None):
            raise DeposedError(str(deposed))
        return "; ".join(sorted({str(error) for error in errors}))

    def _until_closed(self, exchange: _Exchange) -> list[ErrorMessage]:
        """Errors that came before the answer to the close request."""
        errors: list[ErrorMessage] = []
        while True:
            kind, xid, message = exchange.next()
            if kind == OFPT_ERROR:
                errors.append(decode_error(message))
                if xid == exchange.first + 1:
                    return errors
            elif (
                kind == OFPT_BUNDLE_CONTROL and decode_bundle_reply(message).type is BundleControl.CLOSE_REPLY
            ):
                return errors

    def _until_barrier(self, exchange: _Exchange, barrier: int) -> list[ErrorMessage]:
        errors: list[ErrorMessage] = []
        while True:
            kind, xid, message = exchange.next()
            if kind == OFPT_ERROR:
                errors.append(decode_error(message))
            elif kind == OFPT_BARRIER_REPLY and xid == barrier:
                return errors


def _about(exchange: _Exchange, error: ErrorMessage, count: int) -> tuple[int | None, ErrorMessage]:
    index = error.xid - exchange.first - 2
    return (index if 0 <= index < count else None), error


def _text(message: bytes) -> str:
    try:
        return str(decode_error(message))
    except CodecError as problem:
        return str(problem)
