# SPDX-License-Identifier: Apache-2.0
"""Flows and groups of one node's switch, all or those of one owner, in messages of bounded size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from concurrent.futures import Executor
from typing import Final

from controller.connection import SwitchConnection
from controller.engine import Engine
from controller.services.listing import Flows, Groups
from controller.services.portions import Listings
from sdn.model import InvalidObjectError
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.owner import Owner
from sdn.v1 import inspection_pb2

#: Flows in one message of a listing.
FLOWS_AT_ONCE: Final = 500
#: About how many bytes of groups are in one message: a group may have a thousand buckets.
BYTES_AT_ONCE: Final = 1 << 20


class Entries:
    """Runs in the asyncio thread; switches are read in ``threads``.

    What is given may raise what :meth:`Listings.list` does, InvalidObjectError of the owner, ConnectionClosedError and
    CodecError.
    """

    def __init__(self, engine: Engine, threads: Executor) -> None:
        self._engine = engine
        self._listings = Listings(threads)

    def flows(
        self, connection: SwitchConnection, node: str, owner: str, table: int | None
    ) -> AsyncGenerator[inspection_pb2.ListFlowsResponse, None]:
        """``owner`` empty: everybody's; ``table`` None: of all tables."""

        def prepare() -> Callable[[], Generator[inspection_pb2.ListFlowsResponse, None, None]]:
            wanted = self._wanted_flows(node, owner)

            def read() -> Generator[inspection_pb2.ListFlowsResponse, None, None]:
                flows = Flows(wanted())
                return flow_portions(
                    flows.read_own(connection, table) if owner else flows.read(connection, table)
                )

            return read

        return self._listings.list(prepare)

    def groups(
        self, connection: SwitchConnection, node: str, owner: str
    ) -> AsyncGenerator[inspection_pb2.ListGroupsResponse, None]:
        """``owner`` empty: everybody's."""

        def prepare() -> Callable[[], Generator[inspection_pb2.ListGroupsResponse, None, None]]:
            wanted = self._wanted_groups(node, owner)

            def read() -> Generator[inspection_pb2.ListGroupsResponse, None, None]:
                groups = Groups(wanted())
                return group_portions(groups.read_own(connection) if owner else groups.read(connection))

            return read

        return self._listings.list(prepare)

    def _wanted_flows(self, node: str, owner: str) -> Callable[[], list[Flow]]:
        """Computes the flows that a node's switch must hold, all or those of one owner; for any thread."""
        if not owner:
            every = self._engine.programs.flows_of(node, self._engine.cluster)
            return lambda: list(every())
        meant = _owner(owner)
        computed: Callable[[], Iterable[Flow | Group]]
        if meant.kind == "Service":
            computed = self._engine.loadbalancing.entries_on(node, (meant.namespace, meant.name))
        else:
            computed = self._engine.programs.flows_beside_services(node, self._engine.cluster)
        return lambda: [flow for flow in computed() if isinstance(flow, Flow) and flow.owner == meant]

    def _wanted_groups(self, node: str, owner: str) -> Callable[[], list[Group]]:
        """The same for groups; only Services have any."""
        key = None
        if owner:
            meant = _owner(owner)
            if meant.kind != "Service":
                return list
            key = meant.namespace, meant.name
        computed = self._engine.loadbalancing.entries_on(node, key)
        return lambda: [entry for entry in computed() if isinstance(entry, Group)]


def _owner(text: str) -> Owner:
    """ "Kind/namespace/name" or "Kind/name" as a value. InvalidObjectError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidObjectError("owner", f"{text!r} is no owner such as Pod/default/web-1 or Node/node-2")
    return Owner(parts[0], parts[1] if len(parts) == 3 else "", parts[-1])


def flow_portions(
    read: Iterable[list[inspection_pb2.FlowEntry]],
) -> Generator[inspection_pb2.ListFlowsResponse, None, None]:
    """Flows as messages."""
    for entries in read:
        for start in range(0, len(entries), FLOWS_AT_ONCE):
            yield inspection_pb2.ListFlowsResponse(flows=entries[start : start + FLOWS_AT_ONCE])


def group_portions(
    read: Iterable[inspection_pb2.GroupEntry],
) -> Generator[inspection_pb2.ListGroupsResponse, None, None]:
    """Groups as messages."""
    portion = inspection_pb2.ListGroupsResponse()
    size = 0
    for entry in read:
        portion.groups.append(entry)
        size += entry.ByteSize()
        if size >= BYTES_AT_ONCE:
            yield portion
            portion, size = inspection_pb2.ListGroupsResponse(), 0
    if portion.groups:
        yield portion
