# SPDX-License-Identifier: Apache-2.0
"""What people ask of the controller: objects, switches, flows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

import grpc

from controller.connection import SwitchConnection
from controller.engine import Engine
from controller.errors import NotFoundError, PreconditionError
from controller.services.convert import from_struct, to_struct
from controller.services.errors import TOLD, code_of
from controller.transport import ConnectionClosedError
from controller.watchers import Selection
from sdn import logs
from sdn.model import KINDS, InvalidObjectError, parse, parse_selector
from sdn.openflow import (
    CodecError,
    decode_flow_descs,
    flow_image,
    format_actions,
    format_match,
    split_flow_descs,
)
from sdn.pipeline.flow import Flow
from sdn.pipeline.owner import feature_of
from sdn.pipeline.tables import TABLES, table_name
from sdn.v1 import inspection_pb2, inspection_pb2_grpc

log = logs.get("controller.inspection")

#: Flows in one message of a listing.
FLOWS_AT_ONCE = 500

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

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Apply(  # noqa: N802 - named in the .proto, as are those that follow
        self, request: inspection_pb2.ApplyRequest, context: Context
    ) -> inspection_pb2.ApplyResponse:
        try:
            value = parse(from_struct(request.object))
            applied = await self._engine.declarations.apply(value, request.dry_run)
        except TOLD as problem:
            await _abort(context, problem)
        metadata = value.metadata
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
        if registered and self._engine.watchers.agent_connected(name):
            raise PreconditionError(
                f"Node {name}: its agent is connected, and would register it again; stop the agent first"
            )
        declared = ("", name) in self._engine.cluster.objects["Node"]
        if not registered and not declared:
            raise NotFoundError(f"Node {name} does not exist")
        if declared:
            await self._engine.declarations.remove("Node", "", name)
        if registered:
            await self._engine.registrations.forget(name)

    async def Get(  # noqa: N802
        self, request: inspection_pb2.GetRequest, context: Context
    ) -> inspection_pb2.GetResponse:
        try:
            selection = _selection(request)
            documents = self._engine.watchers.select(selection)
            if selection.name and not documents and not request.label_selector:
                raise NotFoundError(f"{selection.kind} {_full(selection)} does not exist")
        except TOLD as problem:
            await _abort(context, problem)
        return inspection_pb2.GetResponse(
            objects=[to_struct(document) for document in documents], revision=self._engine.ledger.revision
        )

    async def Watch(  # noqa: N802
        self, request: inspection_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[inspection_pb2.WatchEvent]:
        try:
            selection = _selection(request)
        except TOLD as problem:
            await _abort(context, problem)
        documents, watcher = self._engine.watchers.watch(selection)
        try:
            for document in documents:
                yield inspection_pb2.WatchEvent(
                    type=inspection_pb2.WatchEvent.TYPE_ADDED, object=to_struct(document)
                )
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
        nodes = self._engine.cluster.nodes
        return inspection_pb2.ListSwitchesResponse(
            switches=[self._switch(name) for name in sorted(nodes)],
        )

    def _switch(self, node: str) -> inspection_pb2.Switch:
        synchronizer = self._engine.programs.synchronizer(node)
        if synchronizer is None:
            raise AssertionError(f"registered node {node} has no synchronizer")
        status = synchronizer.status
        switch = inspection_pb2.Switch(
            node=node,
            datapath_id=self._engine.cluster.nodes[node].datapath_id,
            address=status.address,
            connected=status.connected,
            desired_flows=status.desired_flows,
            installed_flows=status.installed_flows,
            desired_groups=status.desired_groups,
            installed_groups=status.installed_groups,
            synchronized=status.synchronized,
            repaired=status.repaired,
            last_error=status.last_error,
        )
        _set_time(switch.connected_since, status.connected_since)
        _set_time(switch.synchronized_at, status.synchronized_at)
        return switch

    async def ListFlows(  # noqa: N802
        self, request: inspection_pb2.ListFlowsRequest, context: Context
    ) -> AsyncIterator[inspection_pb2.ListFlowsResponse]:
        synchronizer = self._engine.programs.synchronizer(request.node)
        if synchronizer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Node {request.node} is not registered")
            return
        table = None
        if request.table:
            table = next((t.number for t in TABLES if t.name == request.table), None)
            if table is None:
                names = ", ".join(t.name for t in TABLES)
                why = f"table: {request.table!r} is none of {names}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
        connection = synchronizer.connection
        if connection is None:
            why = f"the switch of Node {request.node} is not connected"
            await context.abort(grpc.StatusCode.UNAVAILABLE, why)
            return
        wanted = self._engine.programs.flows_of(request.node, self._engine.cluster)
        listing = _Listing(connection, table, request.owner)
        try:
            await asyncio.to_thread(lambda: listing.explain(wanted()))
            bodies = listing.read()
            while (entries := await asyncio.to_thread(next, bodies, None)) is not None:
                for start in range(0, len(entries), FLOWS_AT_ONCE):
                    yield inspection_pb2.ListFlowsResponse(flows=entries[start : start + FLOWS_AT_ONCE])
        except (ConnectionClosedError, CodecError) as problem:
            why = f"the switch of Node {request.node}: {problem}"
            await context.abort(grpc.StatusCode.UNAVAILABLE, why)


class _Listing:
    """Reads a switch's flows and names their owners; runs in worker threads."""

    def __init__(self, connection: SwitchConnection, table: int | None, owner: str) -> None:
        self._connection = connection
        self._table = table
        self._owner = owner
        self._wanted: dict[bytes, Flow] = {}

    def explain(self, flows: Iterable[Flow]) -> None:
        """What the switch must hold: owners and reasons are taken from it."""
        self._wanted = {flow_image(flow)[0]: flow for flow in flows}

    def read(self) -> Iterator[list[inspection_pb2.FlowEntry]]:
        """The entries, reply by reply."""
        for body in self._connection.flow_descriptions(self._table):
            yield [
                entry
                for (key, _), decoded in zip(split_flow_descs(body), decode_flow_descs(body), strict=True)
                if (entry := self._entry(key, decoded)).owner == self._owner or not self._owner
            ]

    def _entry(self, key: bytes, decoded: Any) -> inspection_pb2.FlowEntry:
        flow = self._wanted.get(key)
        owned = flow if flow is not None and flow.cookie == decoded.cookie else None
        feature = feature_of(decoded.cookie)
        return inspection_pb2.FlowEntry(
            table=table_name(decoded.table),
            table_number=decoded.table,
            priority=decoded.priority,
            match=format_match(decoded.match),
            actions=format_actions(decoded.actions),
            cookie=decoded.cookie,
            owner=str(owned.owner) if owned is not None else "",
            feature=feature.name.lower() if feature is not None else "",
            why=owned.why if owned is not None else "",
            packets=decoded.packets or 0,
            bytes=decoded.bytes or 0,
            duration_seconds=decoded.duration or 0.0,
        )


def _named(kind: str, namespace: str, name: str) -> tuple[str, str, str]:
    """Kind, namespace and name of one object, checked and completed."""
    known = KINDS.get(kind)
    if known is None:
        raise InvalidObjectError("kind", f"{kind!r} is not known here; known are {', '.join(KINDS)}")
    if not name:
        raise InvalidObjectError("name", "must not be empty")
    if not known.NAMESPACED and namespace:
        raise InvalidObjectError("namespace", f"a {kind} belongs to no namespace")
    return kind, (namespace or "default") if known.NAMESPACED else "", name


def _selection(request: inspection_pb2.GetRequest | inspection_pb2.WatchRequest) -> Selection:
    labels = parse_selector(request.label_selector)
    if request.name:
        kind, namespace, name = _named(request.kind, request.namespace, request.name)
        return Selection(kind, namespace, name, labels)
    kind, namespace, _ = _named(request.kind, request.namespace, "any")
    return Selection(kind, request.namespace, "", labels)


def _full(selection: Selection) -> str:
    return f"{selection.namespace}/{selection.name}" if selection.namespace else selection.name


def _set_time(field: Any, value: datetime | None) -> None:
    if value is not None:
        field.FromDatetime(value)


async def _abort(context: Context, problem: Exception) -> NoReturn:
    await context.abort(code_of(problem), str(problem))
    raise AssertionError("abort raises")
