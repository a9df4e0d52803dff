# SPDX-License-Identifier: Apache-2.0
"""The agents' service: one stream a node.

Messages of a stream are taken one after the other: an Attach is checked and stored before the next message is
read. Waiting for the switch holds nothing up: answers come when they come, by sequence number.

The newest stream of a node is the node's; the one before is ended with ABORTED.

Questions go the other way, and the agent answers them on the same stream (:mod:`controller.services.questions`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc

from controller.attachments import SupersededError
from controller.engine import Engine
from controller.errors import UnavailableError
from controller.records import NodeRecord
from controller.services.convert import node_info
from controller.services.errors import TOLD, code_of
from controller.services.questions import Questions
from controller.store import StoreError
from controller.verdicts import number_of
from controller.watchers import TooSlowError
from sdn import logs
from sdn.model import InvalidObjectError
from sdn.v1 import controller_pb2, controller_pb2_grpc, types_pb2
from sdn.version import VERSION

log = logs.get("controller.sessions")

#: Answers that may wait for an agent that does not read.
MAX_WAITING = 20_000
#: Verdicts of policies that may wait for it; of more only the number is told.
MAX_VERDICTS = 1_000
#: Seconds between two messages of all peers to one agent, for each node of the cluster and each session: while many
#: nodes come, making these messages takes a small part of the time. The first change is told at once.
PEERS_REST = 20e-6


class AgentSession:
    """One agent's stream: what is to be sent, and whether it has been taken over."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.ended_by: tuple[grpc.StatusCode, str] | None = None
        self._messages: asyncio.Queue[controller_pb2.ControllerMessage | None] = asyncio.Queue()
        self._peers_wanted = self._patterns_wanted = False
        #: When the peers may be told the next time.
        self._peers_at = 0.0
        self.questions = Questions(node, self.send)
        self._verdicts: list[types_pb2.VerdictRecord] = []
        self._verdicts_lost = 0

    def send(self, message: controller_pb2.ControllerMessage) -> None:
        """Queue a message; an agent that lets too many pile up is disconnected."""
        if self._messages.qsize() >= MAX_WAITING:
            self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WAITING} answers wait to be read")
        else:
            self._messages.put_nowait(message)

    def send_peers(self) -> None:
        """Queue the peers, as they are when the message is sent; many changes in a row make one message."""
        if not self._peers_wanted:
            self._peers_wanted = True
            loop = asyncio.get_running_loop()
            if loop.time() >= self._peers_at:
                self._put_peers()
            else:
                loop.call_at(self._peers_at, self._put_peers)

    def _put_peers(self) -> None:
        self._messages.put_nowait(controller_pb2.ControllerMessage(peers=controller_pb2.Peers()))

    def rest_peers(self, seconds: float) -> None:
        """The peers were told: the next time is not before so many seconds have gone."""
        self._peers_at = asyncio.get_running_loop().time() + seconds

    def send_patterns(self) -> None:
        """Queue which names are to be reported, likewise."""
        if not self._patterns_wanted:
            self._patterns_wanted = True
            patterns = controller_pb2.DomainPatterns()
            self._messages.put_nowait(controller_pb2.ControllerMessage(domain_patterns=patterns))

    def send_verdicts(self, records: Iterable[types_pb2.VerdictRecord]) -> bool:
        """Queue what policies said; all that waits makes one message. What is too much is counted only. False: the
        stream is at its end.
        """
        if self.ended_by is not None:
            return False
        waited = bool(self._verdicts)
        for record in records:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts_lost += number_of((record,))
                continue
            if self._verdicts_lost:
                kept = types_pb2.VerdictRecord()
                kept.CopyFrom(record)
                kept.suppressed += self._verdicts_lost
                record, self._verdicts_lost = kept, 0
            self._verdicts.append(record)
        if self._verdicts and not waited:
            verdicts = controller_pb2.Verdicts()
            self._messages.put_nowait(controller_pb2.ControllerMessage(verdicts=verdicts))
        return True

    @property
    def verdicts_unsent(self) -> int:
        """How many verdicts were queued, or only counted, and did not go."""
        return number_of(self._verdicts) + self._verdicts_lost

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, why: str = "") -> None:
        """End the stream, with an error unless the code is OK."""
        if self.ended_by is None:
            self.ended_by = (code, why)
            self._messages.put_nowait(None)

    async def next(self) -> controller_pb2.ControllerMessage | None:
        """The next message to send; None at the end."""
        message = await self._messages.get()
        if self.ended_by is not None:
            return None
        if message is not None and message.HasField("peers"):
            self._peers_wanted = False
        elif message is not None and message.HasField("domain_patterns"):
            self._patterns_wanted = False
        elif message is not None and message.HasField("verdicts"):
            message.verdicts.records.extend(self._verdicts)
            self._verdicts.clear()
        return message


class ControllerService(controller_pb2_grpc.ControllerServicer):
    """``targets`` are the OpenFlow targets that agents are told; empty: this host's address as the agent
    reaches it, with ``scheme`` and ``port``.
    """

    def __init__(self, engine: Engine, name: str, targets: tuple[str, ...], scheme: str, port: int) -> None:
        self._engine = engine
        self._name = name
        self._targets = targets
        self._scheme = scheme
        self._port = port
        self._sessions: dict[str, AgentSession] = {}
        self._infos: dict[str, tuple[NodeRecord, types_pb2.NodeInfo]] = {}
        #: Told a node, and how many verdicts its agent was not told of when its stream ended.
        self.on_verdicts_lost: Callable[[str, int], None] = lambda _node, _number: None
        engine.registrations.on_changed = self._send_peers
        engine.domains.on_changed = self._send_patterns
        engine.watchers.agent_connected = self.connected
        engine.count_connections = self.count_connections
        engine.list_connections = self.list_connections
        engine.refresh_datapath = self.refresh_datapath
        engine.end_session = self.end_session

    def connected(self, node: str) -> bool:
        """Whether the node's agent has a session."""
        return node in self._sessions

    async def count_connections(
        self, node: str, endpoints: Iterable[controller_pb2.Destination], timeout: float
    ) -> controller_pb2.ConnectionCounts:
        """How many connections to these endpoints a node's switch tracks, as its agent counts them.
        UnavailableError.
        """
        session = self._sessions.get(node)
        if session is None:
            raise UnavailableError(f"the agent of Node {node} is not connected")
        return await session.questions.count_connections(endpoints, timeout)

    async def list_connections(
        self, node: str, ranges: Sequence[str], timeout: float
    ) -> AsyncIterator[controller_pb2.TrackedConnection]:
        """Connections that a node's switch tracks and that have an address in one of ``ranges``, as its agent lists
        them. UnavailableError.
        """
        session = self._sessions.get(node)
        if session is None:
            raise UnavailableError(f"the agent of Node {node} is not connected")
        async with contextlib.aclosing(session.questions.list_connections(ranges, timeout)) as listed:
            async for connection in listed:
                yield connection

    def refresh_datapath(self, node: str) -> None:
        """Tell a node's agent that its datapath may have to forget what it has cached, if the agent is connected."""
        session = self._sessions.get(node)
        if session is not None:
            refresh = controller_pb2.RefreshDatapath()
            session.send(controller_pb2.ControllerMessage(refresh_datapath=refresh))

    def send_verdicts(self, node: str, records: Iterable[types_pb2.VerdictRecord]) -> bool:
        """Hand what policies said on a node to its agent; False: it is not connected."""
        session = self._sessions.get(node)
        return session is not None and session.send_verdicts(records)

    def end_session(self, node: str) -> None:
        """Another controller owns the node now: its agent finds it there."""
        session = self._sessions.get(node)
        if session is not None:
            session.end(grpc.StatusCode.FAILED_PRECONDITION, self._owner_text(node))

    def _owner_text(self, node: str) -> str:
        owner = self._engine.ownership.owner(node)
        if owner is None:
            return f"nobody owns Node {node} yet"
        member = self._engine.ownership.members.all().get(owner.controller)
        where = f" at {member.record.grpc_address}" if member is not None else ""
        return f"Node {node} is {owner.controller}'s{where}"

    async def WatchOwner(  # noqa: N802 - named in the .proto
        self, request: controller_pb2.WatchOwnerRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[controller_pb2.Owner]:
        told: controller_pb2.Owner | None = None
        while True:
            # Before it is looked at, so that nothing is missed.
            changed = self._engine.ownership.change_of(request.node)
            owner = self._owner(request.node)
            if owner != told:
                told = owner
                yield owner
            await changed.wait()

    def _owner(self, node: str) -> controller_pb2.Owner:
        ownership = self._engine.ownership
        members = ownership.members
        told = controller_pb2.Owner(
            openflow_targets=ownership.openflow_targets(node),
            controllers=sorted(member.record.grpc_address for member in members.all().values()),
        )
        owner = ownership.owner(node)
        if owner is not None and owner.controller in members.all():
            told.controller = owner.controller
            told.address = members.all()[owner.controller].record.grpc_address
            told.generation = owner.generation
        return told

    def end_all(self) -> None:
        """The controller ends: let go of every agent."""
        for session in list(self._sessions.values()):
            session.end(grpc.StatusCode.UNAVAILABLE, "the controller is stopping")

    def _info(self, record: NodeRecord) -> types_pb2.NodeInfo:
        """A node as its peers are told of it; made once, since each change of a node goes to all others."""
        known = self._infos.get(record.name)
        if known is None or known[0] is not record:
            known = self._infos[record.name] = (record, node_info(record))
        return known[1]

    def _send_peers(self) -> None:
        for session in self._sessions.values():
            session.send_peers()

    def _send_patterns(self) -> None:
        for session in self._sessions.values():
            session.send_patterns()

    async def Session(  # noqa: N802 - named in the .proto
        self,
        request_iterator: AsyncIterator[controller_pb2.AgentMessage],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[controller_pb2.ControllerMessage]:
        # Once only and now: asked of a call that has ended, gRPC reads freed memory.
        peer = context.peer()
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("hello"):
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "hello: must be the first message")
        ownership = self._engine.ownership
        try:
            # Before anything is written: what an agent says of its node is for the owner alone.
            if ownership.owner(first.hello.node.name) is None or ownership.owns(first.hello.node.name):
                record = await self._engine.registrations.register(first.hello.node)
                await ownership.settle(record.name)
        except TOLD as problem:
            log.warning("node refused", node=first.hello.node.name, peer=unquote(peer), reason=str(problem))
            await _abort(context, code_of(problem), str(problem))
        if not ownership.owns(first.hello.node.name):
            await _abort(
                context, grpc.StatusCode.FAILED_PRECONDITION, self._owner_text(first.hello.node.name)
            )
        session = self._open(record.name)
        reader = asyncio.create_task(self._read(session, request_iterator))
        log.info("agent connected", node=record.name, peer=unquote(peer))
        try:
            yield controller_pb2.ControllerMessage(welcome=self._welcome(record, peer))
            session.send_peers()
            session.send_patterns()
            while (message := await session.next()) is not None:
                if message.HasField("peers"):
                    message.peers.nodes.extend(map(self._info, self._engine.cluster.peers_of(record.name)))
                    session.rest_peers(PEERS_REST * len(self._engine.cluster.nodes) * len(self._sessions))
                elif message.HasField("domain_patterns"):
                    message.domain_patterns.patterns.extend(self._engine.domains.patterns)
                yield message
            code, why = session.ended_by or (grpc.StatusCode.OK, "")
            if code is not grpc.StatusCode.OK:
                await _abort(context, code, why)
        finally:
            reader.cancel()
            self._close(session)
            log.info("agent disconnected", node=record.name, peer=unquote(peer))

    def _open(self, node: str) -> AgentSession:
        session = AgentSession(node)
        former = self._sessions.get(node)
        self._sessions[node] = session
        if former is not None:
            former.end(grpc.StatusCode.ABORTED, f"a newer stream of Node {node} took over")
        self._engine.connection_changed(node)
        self._engine.refreshes.opened(node)
        return session

    def _close(self, session: AgentSession) -> None:
        session.questions.ended()
        self.on_verdicts_lost(session.node, session.verdicts_unsent)
        if self._sessions.get(session.node) is session:
            del self._sessions[session.node]
            self._engine.connection_changed(session.node)

    def _welcome(self, record: NodeRecord, peer: str) -> controller_pb2.Welcome:
        targets = (
            self._targets
            or self._engine.ownership.openflow_targets(record.name)
            or (f"{self._scheme}:{_own_address(peer)}:{self._port}",)
        )
        network = self._engine.services
        return controller_pb2.Welcome(
            node=node_info(record),
            cluster_ranges=self._engine.ranges.texts,
            controller_name=self._name,
            controller_version=VERSION,
            openflow_targets=targets,
            service_ranges=map(str, network.service_ranges),
            load_balancer_ranges=map(str, network.load_balancer_ranges),
            node_port_first=network.node_ports.start,
            node_port_last=network.node_ports.stop - 1,
            cluster_domain=network.cluster_domain,
            dns_addresses=network.dns_addresses,
            serve_dns=network.serve_dns,
            takes_drift=True,
        )

    async def WatchServices(  # noqa: N802 - named in the .proto
        self, request: controller_pb2.WatchServicesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[controller_pb2.ServiceUpdate]:
        node = request.node
        if node not in self._engine.cluster.nodes:
            await _abort(context, grpc.StatusCode.NOT_FOUND, f"Node {node} is not registered")
        feed = self._engine.states.open(node)
        try:
            while True:
                yield await feed.next()
        except TooSlowError as problem:
            log.warning("node reads Services too slowly", node=node)
            await _abort(context, code_of(problem), str(problem))
        finally:
            self._engine.states.close(feed)

    async def _read(
        self, session: AgentSession, requests: AsyncIterator[controller_pb2.AgentMessage]
    ) -> None:
        """Take the agent's messages until its stream ends."""
        try:
            async for message in requests:
                await self._take(session, message)
        except InvalidObjectError as problem:
            session.end(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
        except grpc.aio.AbortError:
            # The stream was ended from this side meanwhile, which is no defect.
            session.end()
        except grpc.aio.AioRpcError as problem:
            log.info("agent's stream broke", node=session.node, error=str(problem.details()))
            session.end()
        except Exception:  # a defect: the agent starts a new stream, and the log says what it was
            log.exception("session failed", node=session.node)
            session.end(grpc.StatusCode.INTERNAL, "the controller failed; see its log")
        else:
            session.end()

    def _drifted(self, node: str, drift: controller_pb2.Drift) -> None:
        """The node's agent has put something right."""
        log.warning("repaired by the agent", node=node, kind=drift.kind, what=drift.what, count=drift.count)
        synchronizer = self._engine.programs.synchronizer(node)
        if synchronizer is not None:
            synchronizer.repairs.add(drift.kind, drift.what, max(1, drift.count))

    async def _take(self, session: AgentSession, message: controller_pb2.AgentMessage) -> None:
        kind = message.WhichOneof("message")
        if kind is None or kind == "hello":
            raise InvalidObjectError(
                kind or "message", "only the first message is a hello, no other is empty"
            )
        if kind == "connection_counts":
            session.questions.counted(message.connection_counts)
            return
        if kind == "connections":
            session.questions.listed(message.connections)
            return
        if kind == "drift":
            self._drifted(session.node, message.drift)
            return
        sequence: int = getattr(message, kind).sequence

        wrong: dict[int, str] = {}

        def answer(refused: str | None) -> None:
            session.send(_answer(sequence, refused, wrong))

        def live() -> bool:
            return self._sessions.get(session.node) is session

        attachments = self._engine.attachments
        try:
            # A pod that is gone is found by what is stored of it, perhaps by the owner before, who told the store just
            # before this controller did.
            await self._engine.ledger.inherited(session.node)
            match kind:
                case "full_state":
                    await attachments.full_state(
                        session.node, message.full_state.attachments, answer, wrong, live
                    )
                case "attach":
                    await attachments.attach(session.node, message.attach.attachment, answer, live)
                case "detach":
                    detach = message.detach
                    await attachments.detach(
                        session.node, detach.container_id, detach.interface_name, answer, live
                    )
                case "resolved":
                    self._engine.domains.resolved(session.node, message.resolved, answer)
        except InvalidObjectError as problem:
            log.warning("refused", node=session.node, message=kind, sequence=sequence, reason=str(problem))
            answer(str(problem))
        except SupersededError as problem:
            log.info("too late", node=session.node, message=kind, sequence=sequence, reason=str(problem))
        except StoreError as problem:
            # No fault of the agent's: it comes back, here or to another controller, and says it all again.
            log.warning("session ends for the store", node=session.node, message=kind, reason=str(problem))
            session.end(grpc.StatusCode.UNAVAILABLE, str(problem))


def _answer(sequence: int, refused: str | None, wrong: Mapping[int, str]) -> controller_pb2.ControllerMessage:
    if refused is None:
        return controller_pb2.ControllerMessage(programmed=controller_pb2.Programmed(sequence=sequence))
    items = [controller_pb2.WrongItem(index=index, reason=why) for index, why in wrong.items()]
    rejected = controller_pb2.Rejected(sequence=sequence, reason=refused, wrong=items)
    return controller_pb2.ControllerMessage(rejected=rejected)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], code: grpc.StatusCode, why: str) -> NoReturn:
    await context.abort(code, why)
    raise AssertionError("abort raises")


def _own_address(peer: str) -> str:
    """The address of this host that reaches a gRPC peer ("ipv4:172.30.0.11:40112"), as a target writes it."""
    family, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if family not in ("ipv4", "ipv6"):
        return "127.0.0.1"
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        # Connecting a datagram socket sends nothing; it only looks the route up.
        probe.connect((host, 9))
        own: str = probe.getsockname()[0]
    return f"[{own}]" if family == "ipv6" else own
