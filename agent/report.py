# SPDX-License-Identifier: Apache-2.0
"""The agent's stream to a controller: who we are, what is attached, and what is confirmed.

One stream at a time, to the first controller of the list that answers; when it breaks, the next one is tried,
with a short and growing pause once the list was gone through. A stream begins with Hello and, after Welcome,
the full state, so whatever was said before and not confirmed is said again, and nothing needs to be
remembered but who waits for what.

Confirmation    handed out by `attach`; settled by Programmed, Rejected, or never (the caller's time runs out)

What the DNS said of names (`resolved`) is not said again: a stream that ends answers it, and so does no stream.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import grpc
import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from agent import channel
from agent.nodesetup.facts import Assignment, NodeFacts, Peer
from agent.state import Record
from sdn import logs
from sdn.v1 import controller_pb2 as messages
from sdn.v1 import types_pb2 as types
from sdn.v1.controller_pb2_grpc import ControllerStub
from sdn.version import VERSION

log: Final = logs.get("agent.report")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_WELCOME_SECONDS: Final = 10.0
#: Of an answer in many messages so many may wait to be sent; more is made when there is room, looked for this often.
_WAITING_ANSWERS: Final = 2
_ROOM_SECONDS: Final = 0.02
_QUESTIONS: Final = ("count_connections", "list_connections", "refresh_datapath")

#: Answers a question of the controller's, message by message.
Answers = Callable[[messages.ControllerMessage], Iterator[messages.AgentMessage]]
#: Called with whether what was said is in force.
Done = Callable[[bool], None]
#: What is to be sent on a stream; None ends it.
_Outgoing = queue.SimpleQueue[messages.AgentMessage | None]


class Rejected(Exception):
    """The controller refused an attachment; the text is its reason."""


class _StateRefusedError(Exception):
    """The controller refused the full state."""


class Confirmation:
    """Whether a controller confirmed an attachment."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()

    def wait(self, seconds: float) -> bool:
        """True once it is in force; False when that did not happen in time. Rejected when it was refused."""
        try:
            self._future.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return False
        return True

    def settle(self, reason: str | None) -> None:
        if self._future.done():
            return
        if reason is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(Rejected(reason))


class Reporter:
    """Keeps a stream to a controller, and what waits for an answer on it."""

    def __init__(
        self,
        controllers: list[str],
        facts: Callable[[], NodeFacts],
        assignment: Callable[[], Assignment | None],
        attachments: Callable[[], list[Record]],
        assigned: Callable[[Assignment], None],
        programmed: Callable[[tuple[str, str]], None] = lambda key: None,
        answers: Answers = lambda question: iter(()),
        verdicts: Callable[[Sequence[types.VerdictRecord]], None] = lambda records: None,
        domains: Callable[[Sequence[str]], None] = lambda patterns: None,
    ) -> None:
        """
        facts        what Hello says of the node
        assignment   what it used so far
        attachments  every attachment, for the full state
        assigned     called with what the controller told: Welcome and Peers, whole each time
        programmed   called with each attachment that is confirmed
        answers      answers a question, in one message or several; it may take seconds
        verdicts     called with what policies said of connections; must not wait
        domains      called with the names that policies allow connections to; must not wait
        """
        self._controllers = controllers
        self._facts = facts
        self._assignment = assignment
        self._attachments = attachments
        self._assigned = assigned
        self._programmed = programmed
        self._answers = answers
        self._verdicts = verdicts
        self._domains = domains
        # One at a time: whoever asks again meanwhile waits.
        self._answering = ThreadPoolExecutor(1, thread_name_prefix="answers")
        #: One that asks the datapath to be refreshed waits already.
        self._refresh_waits = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sequence = itertools.count(1)
        # Who waits, by attachment; and which attachments each message under way is about.
        self._waiting: dict[tuple[str, str], Confirmation] = {}
        self._sent: dict[int, list[tuple[str, str]]] = {}
        self._resolved: dict[int, Done] = {}
        self._stream: _Outgoing | None = None
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._call: grpc.Call | None = None
        self._full_state = 0  # sequence number of the stream's full state
        self._told = ""
        self.changed_at = datetime.now(UTC)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the stream. The controller keeps what it holds."""
        self._stop.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()
        self._thread.join(timeout=5)
        self._answering.shutdown(wait=False, cancel_futures=True)

    @property
    def connected(self) -> bool:
        """Whether a controller has welcomed us and the stream lives."""
        return self._stream is not None

    def attach(self, record: Record) -> Confirmation:
        """Tell of an attachment. Its record must be in the state already, where a new stream's full state finds it."""
        confirmation = Confirmation()
        message = attachment(record)
        with self._lock:
            self._waiting[record.key] = confirmation
            if self._stream is not None:
                sequence = next(self._sequence)
                self._sent[sequence] = [record.key]
                self._stream.put(
                    messages.AgentMessage(attach=messages.Attach(sequence=sequence, attachment=message))
                )
        return confirmation

    def detach(self, container_id: str, ifname: str) -> None:
        """Tell that an attachment is gone. Its record must be out of the state already."""
        with self._lock:
            self._waiting.pop((container_id, ifname), None)
            if self._stream is not None:
                sequence = next(self._sequence)
                self._sent[sequence] = []
                self._stream.put(
                    messages.AgentMessage(
                        detach=messages.Detach(
                            sequence=sequence, container_id=container_id, interface_name=ifname
                        )
                    )
                )

    def resolved(self, name: str, addresses: Sequence[str], ttl: int, done: Done) -> None:
        """Tell what the DNS answered. `done` is called in any thread, at once when no controller is there."""
        with self._lock:
            stream = self._stream
            if stream is not None:
                sequence = next(self._sequence)
                self._resolved[sequence] = done
                said = messages.Resolved(sequence=sequence, name=name, addresses=addresses, ttl_seconds=ttl)
                stream.put(messages.AgentMessage(resolved=said))
        if stream is None:
            done(False)

    # --- the thread

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            for target in self._controllers:
                if self._stop.is_set():
                    return
                if self._session(target):
                    pause = _FIRST_PAUSE
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _session(self, target: str) -> bool:
        """One stream, from Hello to its end; whether we were welcomed."""
        outgoing: _Outgoing = queue.SimpleQueue()
        outgoing.put(messages.AgentMessage(hello=self._hello()))
        welcomed = False
        began = time.monotonic()
        problem = "the controller ended the stream"
        with channel.channel(target) as connection:
            if not channel.answers(connection):
                log.debug("controller does not answer", controller=target)
                return False
            call = ControllerStub(connection).Session(_sending(outgoing))
            with self._lock:
                self._call = call
            watchdog = threading.Timer(_WELCOME_SECONDS, call.cancel)
            watchdog.daemon = True
            watchdog.start()
            try:
                for message in call:
                    if message.WhichOneof("message") == "welcome" and not welcomed:
                        welcomed = True
                        watchdog.cancel()
                        self._welcome(message.welcome, target, outgoing)
                    else:
                        self._receive(message)
            except _StateRefusedError as error:
                problem = f"the full state was refused: {error}"
                call.cancel()
            except grpc.RpcError as error:
                problem = channel.problem(error)
            finally:
                watchdog.cancel()
                outgoing.put(None)
                self._end(welcomed)
        # The same answer every two seconds is worth one line.
        if not self._stop.is_set() and (welcomed or problem != self._told):
            self._told = problem
            log.warning(
                "lost the controller" if welcomed else "the controller did not take us",
                controller=target,
                error=problem,
                after_seconds=round(time.monotonic() - began, 1),
            )
        return welcomed

    def _welcome(
        self,
        welcome: messages.Welcome,
        target: str,
        outgoing: _Outgoing,
    ) -> None:
        before = self._assignment()
        self._assigned(
            Assignment(
                pod_ranges=list(welcome.node.pod_ranges),
                cluster_ranges=list(welcome.cluster_ranges),
                openflow_targets=list(welcome.openflow_targets),
                peers=before.peers if before is not None else [],
                service_ranges=list(welcome.service_ranges),
                load_balancer_ranges=list(welcome.load_balancer_ranges),
                node_port_first=welcome.node_port_first,
                node_port_last=welcome.node_port_last,
                cluster_domain=welcome.cluster_domain,
                dns_addresses=list(welcome.dns_addresses),
                serve_dns=welcome.serve_dns,
            )
        )
        with self._lock:
            records = self._attachments()
            sequence = next(self._sequence)
            # Confirmed with it: everything that was said before and not answered.
            self._sent = {sequence: [record.key for record in records]}
            self._full_state = sequence
            outgoing.put(
                messages.AgentMessage(
                    full_state=messages.FullState(
                        sequence=sequence, attachments=[attachment(record) for record in records]
                    )
                )
            )
            self._stream = outgoing
            self.changed_at = datetime.now(UTC)
        log.info(
            "welcomed by the controller",
            controller=target,
            name=welcome.controller_name,
            version=welcome.controller_version,
            ranges=list(welcome.node.pod_ranges),
            attachments=len(records),
        )

    def _receive(self, message: messages.ControllerMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "programmed":
            self._settle(message.programmed.sequence, None)
        elif kind == "rejected":
            self._settle(message.rejected.sequence, message.rejected.reason)
            if message.rejected.sequence == self._full_state:
                # Nothing that is told now could be understood without it: begin again.
                raise _StateRefusedError(message.rejected.reason)
        elif kind == "peers":
            before = self._assignment()
            if before is not None:
                peers = [
                    Peer(node.name, list(node.addresses), node.tunnel_address, node.tunnel_mac)
                    for node in sorted(message.peers.nodes, key=lambda node: node.name)
                ]
                self._assigned(msgspec.structs.replace(before, peers=peers))
        elif kind == "verdicts":
            self._verdicts(message.verdicts.records)
        elif kind == "domain_patterns":
            self._domains(message.domain_patterns.patterns)
        elif kind in _QUESTIONS:
            self._ask(kind, message)

    def _ask(self, kind: str, question: messages.ControllerMessage) -> None:
        if kind == "refresh_datapath":
            if self._refresh_waits.is_set():
                return  # One that waits does for all.
            self._refresh_waits.set()
        self._answering.submit(self._answer, question, self._stream).add_done_callback(_tell_defect)

    def _answer(self, question: messages.ControllerMessage, stream: _Outgoing | None) -> None:
        """Answer on the stream that the question came by; nobody waits for it on another one."""
        if question.HasField("refresh_datapath"):
            self._refresh_waits.clear()
        for answer in self._answers(question):
            while stream is not None and stream is self._stream and stream.qsize() >= _WAITING_ANSWERS:
                if self._stop.wait(_ROOM_SECONDS):
                    return
            with self._lock:
                if stream is None or stream is not self._stream:
                    return
                stream.put(answer)

    def _settle(self, sequence: int, reason: str | None) -> None:
        with self._lock:
            resolved = self._resolved.pop(sequence, None)
            keys = self._sent.pop(sequence, [])
            waiting = [(key, self._waiting.pop(key, None)) for key in keys]
        if resolved is not None:
            # There may be many, and a pod's questions are not for the log.
            log.debug("names resolved", sequence=sequence, refused=reason)
            resolved(reason is None)
        elif reason is not None:
            log.warning("refused by the controller", reason=reason)
        for key, confirmation in waiting:
            if reason is None:
                self._programmed(key)
            if confirmation is not None:
                confirmation.settle(reason)

    def _end(self, welcomed: bool) -> None:
        with self._lock:
            self._stream = None
            self._call = None
            self._sent = {}
            resolved, self._resolved = self._resolved, {}
            if welcomed:
                self.changed_at = datetime.now(UTC)
        for done in resolved.values():
            done(False)

    def _hello(self) -> messages.Hello:
        assignment = self._assignment()
        return messages.Hello(node=node_info(self._facts(), assignment.pod_ranges if assignment else []))


def _sending(outgoing: _Outgoing) -> Iterator[messages.AgentMessage]:
    while (message := outgoing.get()) is not None:
        yield message


def node_info(facts: NodeFacts, pod_ranges: list[str]) -> types.NodeInfo:
    """The node as the wire has it."""
    return types.NodeInfo(
        name=facts.name,
        uid=facts.uid,
        addresses=[str(address) for address in facts.addresses],
        tunnel_address=str(facts.tunnel_address),
        tunnel_mac=facts.mac,
        encapsulation=f"ENCAPSULATION_{facts.encapsulation.upper()}",
        datapath=f"DATAPATH_{facts.datapath.upper()}",
        datapath_id=facts.datapath_id,
        pod_ranges=pod_ranges,
        mtu=facts.mtu,
        agent_version=VERSION,
        labels=facts.labels,
    )


def _tell_defect(answered: Future[None]) -> None:
    """A question that made us fail; whoever asked waits in vain, until its time is up."""
    if not answered.cancelled() and (problem := answered.exception()) is not None:
        log.error("question not answered", exc_info=problem)


def attachment(record: Record) -> types.Attachment:
    """An attachment as the wire has it."""
    created_at = Timestamp()
    created_at.FromMicroseconds(int(record.created_at * 1_000_000))
    return types.Attachment(
        container_id=record.container_id,
        interface_name=record.ifname,
        pod_namespace=record.pod_namespace,
        pod_name=record.pod_name,
        pod_uid=record.pod_uid,
        ofport=record.ofport,
        mac=record.mac,
        addresses=[str(address.ip) for address in record.addresses],
        labels=dict(record.labels),
        host_interface=record.host_interface,
        netns=record.netns,
        created_at=created_at,
    )
