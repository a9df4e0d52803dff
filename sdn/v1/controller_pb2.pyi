from sdn.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AgentMessage(_message.Message):
    __slots__ = ("hello", "full_state", "attach", "detach")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FULL_STATE_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    full_state: FullState
    attach: Attach
    detach: Detach
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., full_state: _Optional[_Union[FullState, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., detach: _Optional[_Union[Detach, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.NodeInfo
    def __init__(self, node: _Optional[_Union[_types_pb2.NodeInfo, _Mapping]] = ...) -> None: ...

class FullState(_message.Message):
    __slots__ = ("sequence", "attachments")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    attachments: _containers.RepeatedCompositeFieldContainer[_types_pb2.Attachment]
    def __init__(self, sequence: _Optional[int] = ..., attachments: _Optional[_Iterable[_Union[_types_pb2.Attachment, _Mapping]]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("sequence", "attachment")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    attachment: _types_pb2.Attachment
    def __init__(self, sequence: _Optional[int] = ..., attachment: _Optional[_Union[_types_pb2.Attachment, _Mapping]] = ...) -> None: ...

class Detach(_message.Message):
    __slots__ = ("sequence", "container_id", "interface_name")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_NAME_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    container_id: str
    interface_name: str
    def __init__(self, sequence: _Optional[int] = ..., container_id: _Optional[str] = ..., interface_name: _Optional[str] = ...) -> None: ...

class ControllerMessage(_message.Message):
    __slots__ = ("welcome", "programmed", "rejected", "peers")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PROGRAMMED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    programmed: Programmed
    rejected: Rejected
    peers: Peers
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., programmed: _Optional[_Union[Programmed, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("node", "cluster_ranges", "controller_name", "controller_version", "openflow_targets")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_RANGES_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPENFLOW_TARGETS_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.NodeInfo
    cluster_ranges: _containers.RepeatedScalarFieldContainer[str]
    controller_name: str
    controller_version: str
    openflow_targets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[_Union[_types_pb2.NodeInfo, _Mapping]] = ..., cluster_ranges: _Optional[_Iterable[str]] = ..., controller_name: _Optional[str] = ..., controller_version: _Optional[str] = ..., openflow_targets: _Optional[_Iterable[str]] = ...) -> None: ...

class Programmed(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("sequence", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.NodeInfo]
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.NodeInfo, _Mapping]]] = ...) -> None: ...
