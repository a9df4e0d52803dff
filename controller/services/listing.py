# SPDX-License-Identifier: Apache-2.0
"""What switches hold, read now and explained: flows and groups with their owners, reasons and counters.

Everything here waits for a switch, and runs in worker threads. ConnectionClosedError, CodecError.

Where only one object's entries are asked for, only those are read: the switch finds flows by their cookie and
groups by their number, however many others it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from controller.connection import SwitchConnection
from sdn.openflow import (
    decode_flow_descs,
    decode_group,
    decode_group_stats,
    flow_image,
    format_actions,
    format_group,
    format_match,
    split_flow_descs,
    split_group_descs,
)
from sdn.pipeline.actions import Learn
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.owner import feature_of
from sdn.pipeline.tables import table_name
from sdn.v1 import inspection_pb2


class Flows:
    """The flows that a switch must hold, by which those that it holds are explained."""

    def __init__(self, wanted: Iterable[Flow]) -> None:
        self._wanted = {flow_image(flow)[0]: flow for flow in wanted}
        #: Whose flows the switch makes by itself, by the cookie that it gives them.
        self._learned: dict[int, tuple[int, Flow]] = {}
        for flow in self._wanted.values():
            for action in flow.actions:
                if isinstance(action, Learn):
                    self._learned[action.cookie] = action.table, flow

    def read(
        self, connection: SwitchConnection, table: int | None
    ) -> Iterator[list[inspection_pb2.FlowEntry]]:
        """All that the switch holds, or one table, reply by reply; with owners where they are known."""
        for body in connection.flow_descriptions(table):
            yield [self._entry(key, decoded) for key, decoded in _decoded(body)]

    def read_own(
        self, connection: SwitchConnection, table: int | None
    ) -> Iterator[list[inspection_pb2.FlowEntry]]:
        """Only what is wanted, or learned from it."""
        for found in self._read_wanted(connection, table):
            yield [entry for _, entry in found]
        for number in sorted({where for where, _ in self._learned.values() if table in (None, where)}):
            for body in connection.flow_descriptions(number):
                yield [
                    self._entry(key, decoded)
                    for key, decoded in _decoded(body)
                    if key not in self._wanted and decoded.cookie in self._learned
                ]

    def read_each(self, connection: SwitchConnection) -> Iterator[tuple[Flow, inspection_pb2.FlowEntry]]:
        """Those that are wanted and there, each with what the switch says of it."""
        for found in self._read_wanted(connection, None):
            yield from found

    def _read_wanted(
        self, connection: SwitchConnection, table: int | None
    ) -> Iterator[list[tuple[Flow, inspection_pb2.FlowEntry]]]:
        wanted = [flow for flow in self._wanted.values() if table in (None, flow.table)]
        for number, cookie in sorted({(flow.table, flow.cookie) for flow in wanted}):
            for body in connection.flow_descriptions(number, cookie):
                yield [
                    (self._wanted[key], self._entry(key, decoded))
                    for key, decoded in _decoded(body)
                    if key in self._wanted
                ]

    def _entry(self, key: bytes, decoded: Any) -> inspection_pb2.FlowEntry:
        flow = self._wanted.get(key)
        owner = why = ""
        if flow is not None and flow.cookie == decoded.cookie:
            owner, why = str(flow.owner), flow.why
        elif decoded.cookie in self._learned:
            flow = self._learned[decoded.cookie][1]
            owner, why = str(flow.owner), f"learned: {flow.why}"
        feature = feature_of(decoded.cookie)
        return inspection_pb2.FlowEntry(
            table=table_name(decoded.table),
            table_number=decoded.table,
            priority=decoded.priority,
            match=format_match(decoded.match),
            actions=format_actions(decoded.actions),
            cookie=decoded.cookie,
            owner=owner,
            feature=feature.name.lower() if feature is not None else "",
            why=why,
            packets=decoded.packets or 0,
            bytes=decoded.bytes or 0,
            duration_seconds=decoded.duration or 0.0,
        )


def _decoded(body: bytes) -> Iterator[tuple[bytes, Any]]:
    for (key, _), decoded in zip(split_flow_descs(body), decode_flow_descs(body), strict=True):
        yield key, decoded


class Groups:
    """The groups that a switch must hold, by which those that it holds are explained."""

    def __init__(self, wanted: Iterable[Group]) -> None:
        self._wanted = {group.group_id: group for group in wanted}

    def read(self, connection: SwitchConnection) -> Iterator[inspection_pb2.GroupEntry]:
        """All that the switch holds, with owners where they are known."""
        return self._read(connection, None)

    def read_own(self, connection: SwitchConnection) -> Iterator[inspection_pb2.GroupEntry]:
        """Only what is wanted."""
        for group_id in sorted(self._wanted):
            yield from self._read(connection, group_id)

    def _read(
        self, connection: SwitchConnection, group_id: int | None
    ) -> Iterator[inspection_pb2.GroupEntry]:
        counters = {
            one.group_id: one
            for body in connection.group_counters(group_id)
            for one in decode_group_stats(body)
        }
        for body in connection.group_descriptions(group_id):
            for number, image in split_group_descs(body):
                decoded = decode_group(number, image)
                wanted = self._wanted.get(number)
                # A group may have been made between the two answers.
                counted = counters.get(number)
                yield inspection_pb2.GroupEntry(
                    group_id=number,
                    type=decoded.type,
                    buckets=format_group(decoded).partition("bucket=")[2],
                    owner=str(wanted.owner) if wanted is not None else "",
                    why=wanted.why if wanted is not None else "",
                    packets=counted.packets if counted is not None else 0,
                    bytes=counted.bytes if counted is not None else 0,
                    bucket_count=len(decoded.buckets),
                )


def read_entries(
    connection: SwitchConnection, wanted: Sequence[Flow | Group]
) -> tuple[list[inspection_pb2.FlowEntry], list[inspection_pb2.GroupEntry]]:
    """What a switch holds of these flows and groups, and of the flows that it learned from them."""
    flows = Flows(entry for entry in wanted if isinstance(entry, Flow))
    groups = Groups(entry for entry in wanted if isinstance(entry, Group))
    return (
        [entry for entries in flows.read_own(connection, None) for entry in entries],
        list(groups.read_own(connection)),
    )
