# SPDX-License-Identifier: Apache-2.0
"""Between records and gRPC messages, and between Struct and plain documents."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2

from controller.checks import DATAPATHS, ENCAPSULATIONS
from controller.records import NodeRecord
from sdn.v1 import types_pb2

_ENCAPSULATION_NUMBERS = {name: number for number, name in ENCAPSULATIONS.items()}
_DATAPATH_NUMBERS = {name: number for number, name in DATAPATHS.items()}


def node_info(record: NodeRecord) -> types_pb2.NodeInfo:
    """A registered node as agents are told of it."""
    info = types_pb2.NodeInfo(
        name=record.name,
        uid=record.uid,
        addresses=record.addresses,
        tunnel_address=record.tunnel_address,
        tunnel_mac=record.tunnel_mac,
        datapath_id=record.datapath_id,
        pod_ranges=record.pod_ranges,
        mtu=record.mtu,
        agent_version=record.agent_version,
        labels=record.labels,
    )
    info.encapsulation = _ENCAPSULATION_NUMBERS[record.encapsulation]
    info.datapath = _DATAPATH_NUMBERS[record.datapath]
    return info


def to_struct(document: dict[str, Any]) -> struct_pb2.Struct:
    """A document as a Struct. ValueError for what JSON cannot say."""
    return json_format.ParseDict(document, struct_pb2.Struct())


def fill_struct(message: struct_pb2.Struct, document: dict[str, Any]) -> None:
    """:func:`to_struct` into a message that is there already."""
    json_format.ParseDict(document, message)


def from_struct(message: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as a document; numbers that are whole become integers again, as they were written."""
    document: dict[str, Any] = _whole(json_format.MessageToDict(message))
    return document


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
