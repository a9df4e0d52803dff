import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encapsulation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCAPSULATION_UNSPECIFIED: _ClassVar[Encapsulation]
    ENCAPSULATION_GENEVE: _ClassVar[Encapsulation]
    ENCAPSULATION_VXLAN: _ClassVar[Encapsulation]
    ENCAPSULATION_GRE: _ClassVar[Encapsulation]

class Datapath(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATAPATH_UNSPECIFIED: _ClassVar[Datapath]
    DATAPATH_NETDEV: _ClassVar[Datapath]
    DATAPATH_SYSTEM: _ClassVar[Datapath]
ENCAPSULATION_UNSPECIFIED: Encapsulation
ENCAPSULATION_GENEVE: Encapsulation
ENCAPSULATION_VXLAN: Encapsulation
ENCAPSULATION_GRE: Encapsulation
DATAPATH_UNSPECIFIED: Datapath
DATAPATH_NETDEV: Datapath
DATAPATH_SYSTEM: Datapath

class Attachment(_message.Message):
    __slots__ = ("container_id", "interface_name", "pod_namespace", "pod_name", "pod_uid", "ofport", "mac", "addresses", "labels", "host_interface", "netns", "created_at")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_NAME_FIELD_NUMBER: _ClassVar[int]
    POD_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    OFPORT_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HOST_INTERFACE_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    interface_name: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    ofport: int
    mac: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    host_interface: str
    netns: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, container_id: _Optional[str] = ..., interface_name: _Optional[str] = ..., pod_namespace: _Optional[str] = ..., pod_name: _Optional[str] = ..., pod_uid: _Optional[str] = ..., ofport: _Optional[int] = ..., mac: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., host_interface: _Optional[str] = ..., netns: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("name", "uid", "addresses", "tunnel_address", "tunnel_mac", "encapsulation", "datapath", "datapath_id", "pod_ranges", "mtu", "agent_version", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_MAC_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_ID_FIELD_NUMBER: _ClassVar[int]
    POD_RANGES_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    tunnel_address: str
    tunnel_mac: str
    encapsulation: Encapsulation
    datapath: Datapath
    datapath_id: int
    pod_ranges: _containers.RepeatedScalarFieldContainer[str]
    mtu: int
    agent_version: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., tunnel_address: _Optional[str] = ..., tunnel_mac: _Optional[str] = ..., encapsulation: _Optional[_Union[Encapsulation, str]] = ..., datapath: _Optional[_Union[Datapath, str]] = ..., datapath_id: _Optional[int] = ..., pod_ranges: _Optional[_Iterable[str]] = ..., mtu: _Optional[int] = ..., agent_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class VerdictRecord(_message.Message):
    __slots__ = ("time", "node", "policy", "rule", "tier", "direction", "action", "staged", "protocol", "source", "source_port", "destination", "destination_port", "source_pod", "destination_pod", "suppressed")
    TIME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POD_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_POD_FIELD_NUMBER: _ClassVar[int]
    SUPPRESSED_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    node: str
    policy: str
    rule: str
    tier: str
    direction: str
    action: str
    staged: bool
    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    source_pod: str
    destination_pod: str
    suppressed: int
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., node: _Optional[str] = ..., policy: _Optional[str] = ..., rule: _Optional[str] = ..., tier: _Optional[str] = ..., direction: _Optional[str] = ..., action: _Optional[str] = ..., staged: _Optional[bool] = ..., protocol: _Optional[str] = ..., source: _Optional[str] = ..., source_port: _Optional[int] = ..., destination: _Optional[str] = ..., destination_port: _Optional[int] = ..., source_pod: _Optional[str] = ..., destination_pod: _Optional[str] = ..., suppressed: _Optional[int] = ...) -> None: ...
