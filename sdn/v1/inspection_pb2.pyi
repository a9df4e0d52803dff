import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from sdn.v1 import controller_pb2 as _controller_pb2
from sdn.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyRequest(_message.Message):
    __slots__ = ("object", "dry_run")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    object: _struct_pb2.Struct
    dry_run: bool
    def __init__(self, object: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("outcome", "object")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ApplyResponse.Outcome]
        OUTCOME_CREATED: _ClassVar[ApplyResponse.Outcome]
        OUTCOME_CONFIGURED: _ClassVar[ApplyResponse.Outcome]
        OUTCOME_UNCHANGED: _ClassVar[ApplyResponse.Outcome]
    OUTCOME_UNSPECIFIED: ApplyResponse.Outcome
    OUTCOME_CREATED: ApplyResponse.Outcome
    OUTCOME_CONFIGURED: ApplyResponse.Outcome
    OUTCOME_UNCHANGED: ApplyResponse.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    outcome: ApplyResponse.Outcome
    object: _struct_pb2.Struct
    def __init__(self, outcome: _Optional[_Union[ApplyResponse.Outcome, str]] = ..., object: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "label_selector")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    label_selector: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., label_selector: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("objects", "revision")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    revision: int
    def __init__(self, objects: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "label_selector")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    label_selector: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., label_selector: _Optional[str] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("type", "object")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[WatchEvent.Type]
        TYPE_ADDED: _ClassVar[WatchEvent.Type]
        TYPE_MODIFIED: _ClassVar[WatchEvent.Type]
        TYPE_DELETED: _ClassVar[WatchEvent.Type]
        TYPE_BOOKMARK: _ClassVar[WatchEvent.Type]
    TYPE_UNSPECIFIED: WatchEvent.Type
    TYPE_ADDED: WatchEvent.Type
    TYPE_MODIFIED: WatchEvent.Type
    TYPE_DELETED: WatchEvent.Type
    TYPE_BOOKMARK: WatchEvent.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    type: WatchEvent.Type
    object: _struct_pb2.Struct
    def __init__(self, type: _Optional[_Union[WatchEvent.Type, str]] = ..., object: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ListSwitchesRequest(_message.Message):
    __slots__ = ("own_only",)
    OWN_ONLY_FIELD_NUMBER: _ClassVar[int]
    own_only: bool
    def __init__(self, own_only: _Optional[bool] = ...) -> None: ...

class WatchSwitchesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CountConnectionsRequest(_message.Message):
    __slots__ = ("node", "endpoints")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    endpoints: _containers.RepeatedCompositeFieldContainer[_controller_pb2.Destination]
    def __init__(self, node: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[_controller_pb2.Destination, _Mapping]]] = ...) -> None: ...

class ListConnectionsRequest(_message.Message):
    __slots__ = ("node", "ranges")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    node: str
    ranges: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., ranges: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSwitchesResponse(_message.Message):
    __slots__ = ("switches",)
    SWITCHES_FIELD_NUMBER: _ClassVar[int]
    switches: _containers.RepeatedCompositeFieldContainer[Switch]
    def __init__(self, switches: _Optional[_Iterable[_Union[Switch, _Mapping]]] = ...) -> None: ...

class Switch(_message.Message):
    __slots__ = ("node", "datapath_id", "address", "connected", "connected_since", "desired_flows", "installed_flows", "desired_groups", "installed_groups", "synchronized", "synchronized_at", "repaired", "last_error", "owner", "generation", "agent_connected", "last_repairs", "pipeline")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DATAPATH_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_SINCE_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FLOWS_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_FLOWS_FIELD_NUMBER: _ClassVar[int]
    DESIRED_GROUPS_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_GROUPS_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONIZED_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONIZED_AT_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    AGENT_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    LAST_REPAIRS_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    node: str
    datapath_id: int
    address: str
    connected: bool
    connected_since: _timestamp_pb2.Timestamp
    desired_flows: int
    installed_flows: int
    desired_groups: int
    installed_groups: int
    synchronized: bool
    synchronized_at: _timestamp_pb2.Timestamp
    repaired: int
    last_error: str
    owner: str
    generation: int
    agent_connected: bool
    last_repairs: _containers.RepeatedCompositeFieldContainer[Repair]
    pipeline: int
    def __init__(self, node: _Optional[str] = ..., datapath_id: _Optional[int] = ..., address: _Optional[str] = ..., connected: _Optional[bool] = ..., connected_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., desired_flows: _Optional[int] = ..., installed_flows: _Optional[int] = ..., desired_groups: _Optional[int] = ..., installed_groups: _Optional[int] = ..., synchronized: _Optional[bool] = ..., synchronized_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., repaired: _Optional[int] = ..., last_error: _Optional[str] = ..., owner: _Optional[str] = ..., generation: _Optional[int] = ..., agent_connected: _Optional[bool] = ..., last_repairs: _Optional[_Iterable[_Union[Repair, _Mapping]]] = ..., pipeline: _Optional[int] = ...) -> None: ...

class Repair(_message.Message):
    __slots__ = ("time", "kind", "what")
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    kind: str
    what: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...

class ListFlowsRequest(_message.Message):
    __slots__ = ("node", "table", "owner")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    node: str
    table: str
    owner: str
    def __init__(self, node: _Optional[str] = ..., table: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class ListFlowsResponse(_message.Message):
    __slots__ = ("flows",)
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    flows: _containers.RepeatedCompositeFieldContainer[FlowEntry]
    def __init__(self, flows: _Optional[_Iterable[_Union[FlowEntry, _Mapping]]] = ...) -> None: ...

class FlowEntry(_message.Message):
    __slots__ = ("table", "table_number", "priority", "match", "actions", "cookie", "owner", "feature", "why", "packets", "bytes", "duration_seconds")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TABLE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    COOKIE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    table: str
    table_number: int
    priority: int
    match: str
    actions: str
    cookie: int
    owner: str
    feature: str
    why: str
    packets: int
    bytes: int
    duration_seconds: float
    def __init__(self, table: _Optional[str] = ..., table_number: _Optional[int] = ..., priority: _Optional[int] = ..., match: _Optional[str] = ..., actions: _Optional[str] = ..., cookie: _Optional[int] = ..., owner: _Optional[str] = ..., feature: _Optional[str] = ..., why: _Optional[str] = ..., packets: _Optional[int] = ..., bytes: _Optional[int] = ..., duration_seconds: _Optional[float] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("node", "owner")
    NODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    node: str
    owner: str
    def __init__(self, node: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupEntry]
    def __init__(self, groups: _Optional[_Iterable[_Union[GroupEntry, _Mapping]]] = ...) -> None: ...

class GroupEntry(_message.Message):
    __slots__ = ("group_id", "type", "buckets", "owner", "why", "packets", "bytes", "bucket_count")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BUCKET_COUNT_FIELD_NUMBER: _ClassVar[int]
    group_id: int
    type: str
    buckets: str
    owner: str
    why: str
    packets: int
    bytes: int
    bucket_count: int
    def __init__(self, group_id: _Optional[int] = ..., type: _Optional[str] = ..., buckets: _Optional[str] = ..., owner: _Optional[str] = ..., why: _Optional[str] = ..., packets: _Optional[int] = ..., bytes: _Optional[int] = ..., bucket_count: _Optional[int] = ...) -> None: ...

class DescribeServiceRequest(_message.Message):
    __slots__ = ("namespace", "name", "node")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    node: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class DescribeServiceResponse(_message.Message):
    __slots__ = ("service", "endpoints", "nodes", "events")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    service: _struct_pb2.Struct
    endpoints: _containers.RepeatedCompositeFieldContainer[ServiceEndpoint]
    nodes: _containers.RepeatedCompositeFieldContainer[ServiceOnNode]
    events: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    def __init__(self, service: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., endpoints: _Optional[_Iterable[_Union[ServiceEndpoint, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[ServiceOnNode, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ...) -> None: ...

class ServiceEndpoint(_message.Message):
    __slots__ = ("address", "port_name", "port", "protocol", "node", "zone", "target", "ready", "serving", "terminating", "connections")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_NAME_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    TERMINATING_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    address: str
    port_name: str
    port: int
    protocol: str
    node: str
    zone: str
    target: str
    ready: bool
    serving: bool
    terminating: bool
    connections: int
    def __init__(self, address: _Optional[str] = ..., port_name: _Optional[str] = ..., port: _Optional[int] = ..., protocol: _Optional[str] = ..., node: _Optional[str] = ..., zone: _Optional[str] = ..., target: _Optional[str] = ..., ready: _Optional[bool] = ..., serving: _Optional[bool] = ..., terminating: _Optional[bool] = ..., connections: _Optional[int] = ...) -> None: ...

class ServiceOnNode(_message.Message):
    __slots__ = ("node", "error", "flows", "groups", "connections")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    node: str
    error: str
    flows: _containers.RepeatedCompositeFieldContainer[FlowEntry]
    groups: _containers.RepeatedCompositeFieldContainer[GroupEntry]
    connections: int
    def __init__(self, node: _Optional[str] = ..., error: _Optional[str] = ..., flows: _Optional[_Iterable[_Union[FlowEntry, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[GroupEntry, _Mapping]]] = ..., connections: _Optional[int] = ...) -> None: ...

class DescribePolicyRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "node")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    node: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class DescribePolicyResponse(_message.Message):
    __slots__ = ("policy", "tier", "staged", "audit", "pods", "pod_total", "rules", "isolation", "nodes", "events")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    POD_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    policy: _struct_pb2.Struct
    tier: str
    staged: bool
    audit: _containers.RepeatedScalarFieldContainer[str]
    pods: _containers.RepeatedCompositeFieldContainer[PolicyPod]
    pod_total: int
    rules: _containers.RepeatedCompositeFieldContainer[PolicyRule]
    isolation: _containers.RepeatedCompositeFieldContainer[PolicyIsolation]
    nodes: _containers.RepeatedCompositeFieldContainer[PolicyOnNode]
    events: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    def __init__(self, policy: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tier: _Optional[str] = ..., staged: _Optional[bool] = ..., audit: _Optional[_Iterable[str]] = ..., pods: _Optional[_Iterable[_Union[PolicyPod, _Mapping]]] = ..., pod_total: _Optional[int] = ..., rules: _Optional[_Iterable[_Union[PolicyRule, _Mapping]]] = ..., isolation: _Optional[_Iterable[_Union[PolicyIsolation, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[PolicyOnNode, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ...) -> None: ...

class PolicyPod(_message.Message):
    __slots__ = ("namespace", "name", "node", "addresses", "isolating_ingress", "isolating_egress")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ISOLATING_INGRESS_FIELD_NUMBER: _ClassVar[int]
    ISOLATING_EGRESS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    node: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    isolating_ingress: int
    isolating_egress: int
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., node: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., isolating_ingress: _Optional[int] = ..., isolating_egress: _Optional[int] = ...) -> None: ...

class PolicyRule(_message.Message):
    __slots__ = ("direction", "rule", "action", "everybody", "pods", "pod_total", "networks", "nodes", "node_total", "domains", "ports", "count", "shared_total", "shared_with")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    POD_TOTAL_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODE_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SHARED_WITH_FIELD_NUMBER: _ClassVar[int]
    direction: str
    rule: str
    action: str
    everybody: bool
    pods: _containers.RepeatedCompositeFieldContainer[PolicyPod]
    pod_total: int
    networks: _containers.RepeatedCompositeFieldContainer[PolicyNetwork]
    nodes: _containers.RepeatedCompositeFieldContainer[PolicyNode]
    node_total: int
    domains: _containers.RepeatedCompositeFieldContainer[PolicyDomain]
    ports: _containers.RepeatedCompositeFieldContainer[PolicyPort]
    count: PolicyCount
    shared_total: int
    shared_with: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, direction: _Optional[str] = ..., rule: _Optional[str] = ..., action: _Optional[str] = ..., everybody: _Optional[bool] = ..., pods: _Optional[_Iterable[_Union[PolicyPod, _Mapping]]] = ..., pod_total: _Optional[int] = ..., networks: _Optional[_Iterable[_Union[PolicyNetwork, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[PolicyNode, _Mapping]]] = ..., node_total: _Optional[int] = ..., domains: _Optional[_Iterable[_Union[PolicyDomain, _Mapping]]] = ..., ports: _Optional[_Iterable[_Union[PolicyPort, _Mapping]]] = ..., count: _Optional[_Union[PolicyCount, _Mapping]] = ..., shared_total: _Optional[int] = ..., shared_with: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyNetwork(_message.Message):
    __slots__ = ("cidr", "exceptions")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    EXCEPTIONS_FIELD_NUMBER: _ClassVar[int]
    cidr: str
    exceptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cidr: _Optional[str] = ..., exceptions: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyNode(_message.Message):
    __slots__ = ("name", "addresses")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyDomain(_message.Message):
    __slots__ = ("pattern", "addresses", "address_total")
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    address_total: int
    def __init__(self, pattern: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., address_total: _Optional[int] = ...) -> None: ...

class PolicyPort(_message.Message):
    __slots__ = ("protocol", "first", "last", "name", "resolved", "resolved_total")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    protocol: str
    first: int
    last: int
    name: str
    resolved: _containers.RepeatedScalarFieldContainer[str]
    resolved_total: int
    def __init__(self, protocol: _Optional[str] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., name: _Optional[str] = ..., resolved: _Optional[_Iterable[str]] = ..., resolved_total: _Optional[int] = ...) -> None: ...

class PolicyCount(_message.Message):
    __slots__ = ("connections", "packets", "bytes")
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    connections: int
    packets: int
    bytes: int
    def __init__(self, connections: _Optional[int] = ..., packets: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class PolicyIsolation(_message.Message):
    __slots__ = ("direction", "denied", "shared_total")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    SHARED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    direction: str
    denied: PolicyCount
    shared_total: int
    def __init__(self, direction: _Optional[str] = ..., denied: _Optional[_Union[PolicyCount, _Mapping]] = ..., shared_total: _Optional[int] = ...) -> None: ...

class PolicyOnNode(_message.Message):
    __slots__ = ("node", "error", "flows", "flow_total", "pods")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    FLOW_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    node: str
    error: str
    flows: _containers.RepeatedCompositeFieldContainer[FlowEntry]
    flow_total: int
    pods: int
    def __init__(self, node: _Optional[str] = ..., error: _Optional[str] = ..., flows: _Optional[_Iterable[_Union[FlowEntry, _Mapping]]] = ..., flow_total: _Optional[int] = ..., pods: _Optional[int] = ...) -> None: ...

class CheckPolicyRequest(_message.Message):
    __slots__ = ("source", "destination", "namespace", "protocol", "port", "family")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    source: str
    destination: str
    namespace: str
    protocol: str
    port: int
    family: str
    def __init__(self, source: _Optional[str] = ..., destination: _Optional[str] = ..., namespace: _Optional[str] = ..., protocol: _Optional[str] = ..., port: _Optional[int] = ..., family: _Optional[str] = ...) -> None: ...

class CheckPolicyResponse(_message.Message):
    __slots__ = ("verdicts", "endpoint_total")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[PolicyVerdict]
    endpoint_total: int
    def __init__(self, verdicts: _Optional[_Iterable[_Union[PolicyVerdict, _Mapping]]] = ..., endpoint_total: _Optional[int] = ...) -> None: ...

class PolicyVerdict(_message.Message):
    __slots__ = ("family", "source", "source_address", "destination", "destination_address", "protocol", "port", "allowed", "egress", "ingress", "reason", "would_deny")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WOULD_DENY_FIELD_NUMBER: _ClassVar[int]
    family: str
    source: str
    source_address: str
    destination: str
    destination_address: str
    protocol: str
    port: int
    allowed: bool
    egress: PolicyDecision
    ingress: PolicyDecision
    reason: str
    would_deny: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, family: _Optional[str] = ..., source: _Optional[str] = ..., source_address: _Optional[str] = ..., destination: _Optional[str] = ..., destination_address: _Optional[str] = ..., protocol: _Optional[str] = ..., port: _Optional[int] = ..., allowed: _Optional[bool] = ..., egress: _Optional[_Union[PolicyDecision, _Mapping]] = ..., ingress: _Optional[_Union[PolicyDecision, _Mapping]] = ..., reason: _Optional[str] = ..., would_deny: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyDecision(_message.Message):
    __slots__ = ("allowed", "reason", "policy", "rule", "tier", "action", "passed", "isolating")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    ISOLATING_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    reason: str
    policy: str
    rule: str
    tier: str
    action: str
    passed: str
    isolating: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed: _Optional[bool] = ..., reason: _Optional[str] = ..., policy: _Optional[str] = ..., rule: _Optional[str] = ..., tier: _Optional[str] = ..., action: _Optional[str] = ..., passed: _Optional[str] = ..., isolating: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchVerdictsRequest(_message.Message):
    __slots__ = ("node", "namespace", "policy", "follow", "own_only", "new_only")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    OWN_ONLY_FIELD_NUMBER: _ClassVar[int]
    NEW_ONLY_FIELD_NUMBER: _ClassVar[int]
    node: str
    namespace: str
    policy: str
    follow: bool
    own_only: bool
    new_only: bool
    def __init__(self, node: _Optional[str] = ..., namespace: _Optional[str] = ..., policy: _Optional[str] = ..., follow: _Optional[bool] = ..., own_only: _Optional[bool] = ..., new_only: _Optional[bool] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVersionResponse(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: str
    def __init__(self, level: _Optional[str] = ...) -> None: ...

class SetLogLevelResponse(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: str
    def __init__(self, previous: _Optional[str] = ...) -> None: ...

class ListControllersRequest(_message.Message):
    __slots__ = ("own_only",)
    OWN_ONLY_FIELD_NUMBER: _ClassVar[int]
    own_only: bool
    def __init__(self, own_only: _Optional[bool] = ...) -> None: ...

class ListControllersResponse(_message.Message):
    __slots__ = ("controllers", "answered_by", "store_revision")
    CONTROLLERS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_BY_FIELD_NUMBER: _ClassVar[int]
    STORE_REVISION_FIELD_NUMBER: _ClassVar[int]
    controllers: _containers.RepeatedCompositeFieldContainer[ControllerStatus]
    answered_by: str
    store_revision: int
    def __init__(self, controllers: _Optional[_Iterable[_Union[ControllerStatus, _Mapping]]] = ..., answered_by: _Optional[str] = ..., store_revision: _Optional[int] = ...) -> None: ...

class ControllerStatus(_message.Message):
    __slots__ = ("name", "grpc_address", "openflow_target", "version", "alive", "draining", "down_by", "started_at", "switches", "preferred", "heard_ms", "revision", "differing_settings", "lease_left_ms", "lease_ms", "lag", "unanswering")
    class DifferingSettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OPENFLOW_TARGET_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    DOWN_BY_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    SWITCHES_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    UNANSWERING_FIELD_NUMBER: _ClassVar[int]
    name: str
    grpc_address: str
    openflow_target: str
    version: str
    alive: bool
    draining: bool
    down_by: str
    started_at: _timestamp_pb2.Timestamp
    switches: int
    preferred: int
    heard_ms: int
    revision: int
    differing_settings: _containers.ScalarMap[str, str]
    lease_left_ms: int
    lease_ms: int
    lag: int
    unanswering: bool
    def __init__(self, name: _Optional[str] = ..., grpc_address: _Optional[str] = ..., openflow_target: _Optional[str] = ..., version: _Optional[str] = ..., alive: _Optional[bool] = ..., draining: _Optional[bool] = ..., down_by: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., switches: _Optional[int] = ..., preferred: _Optional[int] = ..., heard_ms: _Optional[int] = ..., revision: _Optional[int] = ..., differing_settings: _Optional[_Mapping[str, str]] = ..., lease_left_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ..., lag: _Optional[int] = ..., unanswering: _Optional[bool] = ...) -> None: ...

class DrainControllerRequest(_message.Message):
    __slots__ = ("name", "draining")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    name: str
    draining: bool
    def __init__(self, name: _Optional[str] = ..., draining: _Optional[bool] = ...) -> None: ...

class DrainControllerResponse(_message.Message):
    __slots__ = ("warning",)
    WARNING_FIELD_NUMBER: _ClassVar[int]
    warning: str
    def __init__(self, warning: _Optional[str] = ...) -> None: ...
