# SPDX-License-Identifier: Apache-2.0
"""What people ask of the controller: objects, switches, flows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from controller import verdicts
from controller.connection import SwitchConnection
from controller.engine import Engine
from controller.errors import NotFoundError, PreconditionError
from controller.events import EVENT
from controller.ha.colleagues import ColleagueError, Colleagues
from controller.services.controllers import Controllers
from controller.services.convert import fill_struct, from_struct, to_struct
from controller.services.description import PATIENCE, Describer
from controller.services.entries import Entries
from controller.services.errors import TOLD, code_of
from controller.services.policycheck import Checker
from controller.services.policydescription import PolicyDescriber
from controller.services.relay import HANDED_ON, Relay
from controller.services.switches import Switches
from controller.services.verdictstreams import VerdictStreams
from controller.tracked import LIST_SECONDS, LISTS_AT_ONCE
from controller.transport import ConnectionClosedError
from controller.turns import Turns
from controller.watchers import Selection
from sdn import logs
from sdn.model import KINDS, InvalidObjectError, parse, parse_selector, to_document
from sdn.openflow import CodecError
from sdn.pipeline.tables import TABLES
from sdn.v1 import controller_pb2, inspection_pb2, inspection_pb2_grpc, types_pb2

log = logs.get("controller.inspection")

#: Switches that are read at a time.
READERS = 16
#: Connections of one message.
LISTED_AT_ONCE = 1_000

_OUTCOMES = {
    "created": inspection_pb2.ApplyResponse.OUTCOME_CREATED,
    "configured": inspection_pb2.ApplyResponse.OUTCOME_CONFIGURED,
    "unchanged": inspection_pb2.ApplyResponse.OUTCOME_UNCHANGED,
}
_EVENTS = {
    "added": inspection_pb2.WatchEvent.TYPE_ADDED,
    "modified": inspection_pb2.WatchEvent.TYPE_MODIFIED,
    "deleted": inspection_pb2.WatchEvent.TYPE_DELETED,
}

Context = grpc.aio.ServicerContext[Any, Any]


class InspectionService(inspection_pb2_grpc.InspectionServicer):
    """See inspection.proto for what each method means and which errors it gives."""

    def __init__(
        self,
        engine: Engine,
        reported: verdicts.Verdicts,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """``reported``: what policies say on all switches. ``credentials``: for other controllers' gRPC; None: it is
        without TLS.
        """
        self._engine = engine
        self._threads = ThreadPoolExecutor(READERS, "inspection")
        self._checker = Checker(engine, self._threads)
        self._entries = Entries(engine, self._threads)
        self._colleagues = Colleagues(engine.ownership, credentials)
        self._listings = asyncio.Semaphore(LISTS_AT_ONCE)
        self._controllers = Controllers(engine, self._colleagues)
        self._relay = Relay(engine, self._colleagues)
        engine.list_anywhere = self._relay.connections
        self._describer = Describer(engine, self._threads, self._count, self._relay.service)
        self._policy_describer = PolicyDescriber(engine, self._threads, self._relay.policy)
        self._switches = Switches(engine, self._colleagues)
        self._streams = VerdictStreams(reported, self._colleagues)

    async def close(self) -> None:
        """Let go of the other controllers."""
        await self._switches.close()
        await self._colleagues.close()

    async def Apply(  # noqa: N802 - named in the .proto, as are those that follow
        self, request: inspection_pb2.ApplyRequest, context: Context
    ) -> inspection_pb2.ApplyResponse:
        try:
            value = parse(from_struct(request.object))
            applied = await self._engine.declarations.apply(value, request.dry_run)
        except TOLD as problem:
            await _abort(context, problem)
        metadata = value.metadata
        document: dict[str, Any] | None = to_document(applied.value)
        if not request.dry_run:
            document = self._engine.watchers.document(value.KIND, metadata.namespace, metadata.name)
        return inspection_pb2.ApplyResponse(
            outcome=_OUTCOMES[applied.outcome],
            object=to_struct(document) if document is not None else request.object,
        )

    async def Delete(  # noqa: N802
        self, request: inspection_pb2.DeleteRequest, context: Context
    ) -> inspection_pb2.DeleteResponse:
        try:
            kind, namespace, name = _named(request.kind, request.namespace, request.name)
            if kind == "Node":
                await self._delete_node(name)
            else:
                await self._engine.declarations.remove(kind, namespace, name)
        except TOLD as problem:
            await _abort(context, problem)
        return inspection_pb2.DeleteResponse()

    async def _delete_node(self, name: str) -> None:
        """Withdraw the declaration and forget the registration, whichever there is."""
        registered = name in self._engine.cluster.nodes
        if registered and await self._switches.agent_connected(name):
            raise PreconditionError(
                f"Node {name}: its agent is connected, and would register it again; stop the agent first"
            )
        try:
            await self._engine.declarations.remove("Node", "", name)
        except (NotFoundError, PreconditionError):
            # It is not declared, which need not be, either.
            if not registered:
                raise
        if registered:
            await self._engine.registrations.forget(name)

    async def Get(  # noqa: N802
        self, request: inspection_pb2.GetRequest, context: Context
    ) -> inspection_pb2.GetResponse:
        try:
            selection = _selection(request)
            answer = inspection_pb2.GetResponse(revision=self._engine.ledger.revision)
            turns = Turns()
            for document in self._engine.watchers.select(selection):
                fill_struct(answer.objects.add(), document)
                await turns.pause()
            if selection.name and not answer.objects and not request.label_selector:
                raise NotFoundError(f"{selection.kind} {_full(selection)} does not exist")
        except TOLD as problem:
            await _abort(context, problem)
        return answer

    async def Watch(  # noqa: N802
        self, request: inspection_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[inspection_pb2.WatchEvent]:
        try:
            selection = _selection(request)
        except TOLD as problem:
            await _abort(context, problem)
        watcher = self._engine.watchers.watch(selection)
        try:
            turns = Turns()
            for document in self._engine.watchers.listing(watcher):
                yield inspection_pb2.WatchEvent(
                    type=inspection_pb2.WatchEvent.TYPE_ADDED, object=to_struct(document)
                )
                await turns.pause()
            yield inspection_pb2.WatchEvent(type=inspection_pb2.WatchEvent.TYPE_BOOKMARK)
            while True:
                kind, document = await watcher.next()
                yield inspection_pb2.WatchEvent(type=_EVENTS[kind], object=to_struct(document))
        except TOLD as problem:
            await _abort(context, problem)
        finally:
            self._engine.watchers.end(watcher)

    async def ListSwitches(  # noqa: N802
        self, request: inspection_pb2.ListSwitchesRequest, context: Context
    ) -> inspection_pb2.ListSwitchesResponse:
        return inspection_pb2.ListSwitchesResponse(switches=await self._switches.list(request.own_only))

    async def WatchSwitches(  # noqa: N802
        self, request: inspection_pb2.WatchSwitchesRequest, context: Context
    ) -> AsyncIterator[inspection_pb2.Switch]:
        async with contextlib.aclosing(self._switches.watch()) as switches:
            async for switch in switches:
                yield switch

    async def CountConnections(  # noqa: N802
        self, request: inspection_pb2.CountConnectionsRequest, context: Context
    ) -> controller_pb2.ConnectionCounts:
        try:
            return await self._engine.count_connections(request.node, request.endpoints, PATIENCE)
        except TOLD as problem:
            await _abort(context, problem)

    async def ListConnections(  # noqa: N802
        self, request: inspection_pb2.ListConnectionsRequest, context: Context
    ) -> AsyncIterator[controller_pb2.Connections]:
        part = controller_pb2.Connections()
        try:
            async with self._listings:
                listed = self._engine.list_connections(request.node, request.ranges, LIST_SECONDS)
                async for connection in listed:
                    part.connections.append(connection)
                    if len(part.connections) == LISTED_AT_ONCE:
                        yield part
                        part = controller_pb2.Connections()
        except TOLD as problem:
            await _abort(context, problem)
        part.last = True
        yield part

    async def _count(
        self, node: str, endpoints: Sequence[controller_pb2.Destination], seconds: float
    ) -> controller_pb2.ConnectionCounts:
        """The same, whosever the switch is."""
        mine = self._engine.ownership.owns(node)
        ask = self._engine.count_connections if mine else self._colleagues.count_connections
        return await ask(node, endpoints, seconds)

    async def ListControllers(  # noqa: N802
        self, request: inspection_pb2.ListControllersRequest, context: Context
    ) -> inspection_pb2.ListControllersResponse:
        return await self._controllers.list(request.own_only)

    async def DrainController(  # noqa: N802
        self, request: inspection_pb2.DrainControllerRequest, context: Context
    ) -> inspection_pb2.DrainControllerResponse:
        try:
            return await self._controllers.drain(request.name, request.draining)
        except ColleagueError as problem:
            await context.abort(problem.code, str(problem))
        except TOLD as problem:
            await _abort(context, problem)
        raise AssertionError("abort raises")

    async def ListFlows(  # noqa: N802
        self, request: inspection_pb2.ListFlowsRequest, context: Context
    ) -> AsyncIterator[inspection_pb2.ListFlowsResponse]:
        if (owner := self._relay.owner(request.node, context)) is not None:
            call = owner.ListFlows(request, metadata=HANDED_ON, timeout=context.time_remaining())
            async for portion in self._relay.portions(call, context):
                yield portion
            return
        connection = await self._connection(request.node, context)
        table = None
        if request.table:
            table = next((t.number for t in TABLES if t.name == request.table), None)
            if table is None:
                names = ", ".join(t.name for t in TABLES)
                why = f"table: {request.table!r} is none of {names}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
        try:
            flows = self._entries.flows(connection, request.node, request.owner, table)
            async with contextlib.aclosing(flows) as portions:
                async for portion in portions:
                    yield portion
        except TOLD as problem:
            await _abort(context, problem)
        except (ConnectionClosedError, CodecError) as problem:
            why = f"the switch of Node {request.node}: {problem}"
            await context.abort(grpc.StatusCode.UNAVAILABLE, why)

    async def ListGroups(  # noqa: N802
        self, request: inspection_pb2.ListGroupsRequest, context: Context
    ) -> AsyncIterator[inspection_pb2.ListGroupsResponse]:
        if (owner := self._relay.owner(request.node, context)) is not None:
            call = owner.ListGroups(request, metadata=HANDED_ON, timeout=context.time_remaining())
            async for portion in self._relay.portions(call, context):
                yield portion
            return
        connection = await self._connection(request.node, context)
        try:
            groups = self._entries.groups(connection, request.node, request.owner)
            async with contextlib.aclosing(groups) as portions:
                async for portion in portions:
                    yield portion
        except TOLD as problem:
            await _abort(context, problem)
        except (ConnectionClosedError, CodecError) as problem:
            why = f"the switch of Node {request.node}: {problem}"
            await context.abort(grpc.StatusCode.UNAVAILABLE, why)

    async def _connection(self, node: str, context: Context) -> SwitchConnection:
        """The connection of a node's switch; aborts the call when there is none."""
        synchronizer = self._engine.programs.synchronizer(node)
        if synchronizer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Node {node} is not registered")
        elif synchronizer.connection is None:
            why = f"the switch of Node {node} is not connected"
            await context.abort(grpc.StatusCode.UNAVAILABLE, why)
        else:
            return synchronizer.connection
        raise AssertionError("abort raises")

    async def DescribeService(  # noqa: N802
        self, request: inspection_pb2.DescribeServiceRequest, context: Context
    ) -> inspection_pb2.DescribeServiceResponse:
        try:
            _, namespace, name = _named("Service", request.namespace, request.name)
            if request.node and (owner := self._relay.owner(request.node, context)) is not None:
                call = owner.DescribeService(request, metadata=HANDED_ON, timeout=context.time_remaining())
                return await self._relay.answer(call, context)
            return await self._describer.describe(namespace, name, request.node)
        except TOLD as problem:
            await _abort(context, problem)

    async def DescribePolicy(  # noqa: N802
        self, request: inspection_pb2.DescribePolicyRequest, context: Context
    ) -> inspection_pb2.DescribePolicyResponse:
        try:
            kind, namespace, name = _named(request.kind, request.namespace, request.name)
            if request.node and (owner := self._relay.owner(request.node, context)) is not None:
                call = owner.DescribePolicy(request, metadata=HANDED_ON, timeout=context.time_remaining())
                return await self._relay.answer(call, context)
            return await self._policy_describer.describe(kind, namespace, name, request.node)
        except TOLD as problem:
            await _abort(context, problem)

    async def CheckPolicy(  # noqa: N802
        self, request: inspection_pb2.CheckPolicyRequest, context: Context
    ) -> inspection_pb2.CheckPolicyResponse:
        try:
            return await self._checker.check(request)
        except TOLD as problem:
            await _abort(context, problem)

    async def WatchVerdicts(  # noqa: N802
        self, request: inspection_pb2.WatchVerdictsRequest, context: Context
    ) -> AsyncIterator[types_pb2.VerdictRecord]:
        if request.node and request.node not in self._engine.cluster.nodes:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Node {request.node} is not registered")
        try:
            async with contextlib.aclosing(self._streams.watch(request)) as records:
                async for record in records:
                    yield record
        except TOLD as problem:
            await _abort(context, problem)


def _named(kind: str, namespace: str, name: str, shown: bool = False) -> tuple[str, str, str]:
    """Kind, namespace and name of one object, checked and completed; ``shown``: of kinds that are only shown,
    too.
    """
    kinds = {one.KIND: one.NAMESPACED for one in KINDS.values()} | ({EVENT: True} if shown else {})
    if kind not in kinds:
        raise InvalidObjectError("kind", f"{kind!r} is not known here; known are {', '.join(kinds)}")
    if not name:
        raise InvalidObjectError("name", "must not be empty")
    if not kinds[kind] and namespace:
        raise InvalidObjectError("namespace", f"a {kind} belongs to no namespace")
    return kind, (namespace or "default") if kinds[kind] else "", name


def _selection(request: inspection_pb2.GetRequest | inspection_pb2.WatchRequest) -> Selection:
    labels = parse_selector(request.label_selector)
    if request.name:
        kind, namespace, name = _named(request.kind, request.namespace, request.name, shown=True)
        return Selection(kind, namespace, name, labels)
    kind, namespace, _ = _named(request.kind, request.namespace, "any", shown=True)
    return Selection(kind, request.namespace, "", labels)


def _full(selection: Selection) -> str:
    return f"{selection.namespace}/{selection.name}" if selection.namespace else selection.name


async def _abort(context: Context, problem: Exception) -> NoReturn:
    await context.abort(code_of(problem), str(problem))
    raise AssertionError("abort raises")
