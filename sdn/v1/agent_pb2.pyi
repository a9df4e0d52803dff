import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from sdn.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CniRequest(_message.Message):
    __slots__ = ("container_id", "netns", "ifname", "args", "path", "config")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    IFNAME_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    netns: str
    ifname: str
    args: str
    path: str
    config: bytes
    def __init__(self, container_id: _Optional[str] = ..., netns: _Optional[str] = ..., ifname: _Optional[str] = ..., args: _Optional[str] = ..., path: _Optional[str] = ..., config: _Optional[bytes] = ...) -> None: ...

class CniResponse(_message.Message):
    __slots__ = ("code", "output")
    CODE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    code: int
    output: bytes
    def __init__(self, code: _Optional[int] = ..., output: _Optional[bytes] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("node", "attachments", "connected", "connection_changed_at", "ranges", "controller", "controller_address")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.NodeInfo
    attachments: _containers.RepeatedCompositeFieldContainer[AttachmentState]
    connected: bool
    connection_changed_at: _timestamp_pb2.Timestamp
    ranges: _containers.RepeatedCompositeFieldContainer[RangeUsage]
    controller: str
    controller_address: str
    def __init__(self, node: _Optional[_Union[_types_pb2.NodeInfo, _Mapping]] = ..., attachments: _Optional[_Iterable[_Union[AttachmentState, _Mapping]]] = ..., connected: _Optional[bool] = ..., connection_changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ranges: _Optional[_Iterable[_Union[RangeUsage, _Mapping]]] = ..., controller: _Optional[str] = ..., controller_address: _Optional[str] = ...) -> None: ...

class AttachmentState(_message.Message):
    __slots__ = ("attachment", "programmed")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    PROGRAMMED_FIELD_NUMBER: _ClassVar[int]
    attachment: _types_pb2.Attachment
    programmed: bool
    def __init__(self, attachment: _Optional[_Union[_types_pb2.Attachment, _Mapping]] = ..., programmed: _Optional[bool] = ...) -> None: ...

class RangeUsage(_message.Message):
    __slots__ = ("range", "used", "capacity")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    range: str
    used: int
    capacity: int
    def __init__(self, range: _Optional[str] = ..., used: _Optional[int] = ..., capacity: _Optional[int] = ...) -> None: ...
