from sdn.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchOwnerRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class Owner(_message.Message):
    __slots__ = ("controller", "address", "generation", "openflow_targets", "controllers")
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OPENFLOW_TARGETS_FIELD_NUMBER: _ClassVar[int]
    CONTROLLERS_FIELD_NUMBER: _ClassVar[int]
    controller: str
    address: str
    generation: int
    openflow_targets: _containers.RepeatedScalarFieldContainer[str]
    controllers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, controller: _Optional[str] = ..., address: _Optional[str] = ..., generation: _Optional[int] = ..., openflow_targets: _Optional[_Iterable[str]] = ..., controllers: _Optional[_Iterable[str]] = ...) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("hello", "full_state", "attach", "detach", "connection_counts", "connections", "resolved", "drift")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FULL_STATE_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_COUNTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    full_state: FullState
    attach: Attach
    detach: Detach
    connection_counts: ConnectionCounts
    connections: Connections
    resolved: Resolved
    drift: Drift
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., full_state: _Optional[_Union[FullState, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., detach: _Optional[_Union[Detach, _Mapping]] = ..., connection_counts: _Optional[_Union[ConnectionCounts, _Mapping]] = ..., connections: _Optional[_Union[Connections, _Mapping]] = ..., resolved: _Optional[_Union[Resolved, _Mapping]] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("kind", "what", "count")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    what: str
    count: int
    def __init__(self, kind: _Optional[str] = ..., what: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("welcome", "programmed", "rejected", "peers", "count_connections", "list_connections", "verdicts", "domain_patterns", "refresh_datapath")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PROGRAMMED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    COUNT_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    LIST_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    REFRESH_DATAPATH_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    programmed: Programmed
    rejected: Rejected
    peers: Peers
    count_connections: CountConnections
    list_connections: ListConnections
    verdicts: Verdicts
    domain_patterns: DomainPatterns
    refresh_datapath: RefreshDatapath
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., programmed: _Optional[_Union[Programmed, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ..., count_connections: _Optional[_Union[CountConnections, _Mapping]] = ..., list_connections: _Optional[_Union[ListConnections, _Mapping]] = ..., verdicts: _Optional[_Union[Verdicts, _Mapping]] = ..., domain_patterns: _Optional[_Union[DomainPatterns, _Mapping]] = ..., refresh_datapath: _Optional[_Union[RefreshDatapath, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("node", "cluster_ranges", "controller_name", "controller_version", "openflow_targets", "service_ranges", "load_balancer_ranges", "node_port_first", "node_port_last", "cluster_domain", "dns_addresses", "serve_dns", "takes_drift")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_RANGES_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPENFLOW_TARGETS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_RANGES_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCER_RANGES_FIELD_NUMBER: _ClassVar[int]
    NODE_PORT_FIRST_FIELD_NUMBER: _ClassVar[int]
    NODE_PORT_LAST_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    DNS_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    SERVE_DNS_FIELD_NUMBER: _ClassVar[int]
    TAKES_DRIFT_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.NodeInfo
    cluster_ranges: _containers.RepeatedScalarFieldContainer[str]
    controller_name: str
    controller_version: str
    openflow_targets: _containers.RepeatedScalarFieldContainer[str]
    service_ranges: _containers.RepeatedScalarFieldContainer[str]
    load_balancer_ranges: _containers.RepeatedScalarFieldContainer[str]
    node_port_first: int
    node_port_last: int
    cluster_domain: str
    dns_addresses: _containers.RepeatedScalarFieldContainer[str]
    serve_dns: bool
    takes_drift: bool
    def __init__(self, node: _Optional[_Union[_types_pb2.NodeInfo, _Mapping]] = ..., cluster_ranges: _Optional[_Iterable[str]] = ..., controller_name: _Optional[str] = ..., controller_version: _Optional[str] = ..., openflow_targets: _Optional[_Iterable[str]] = ..., service_ranges: _Optional[_Iterable[str]] = ..., load_balancer_ranges: _Optional[_Iterable[str]] = ..., node_port_first: _Optional[int] = ..., node_port_last: _Optional[int] = ..., cluster_domain: _Optional[str] = ..., dns_addresses: _Optional[_Iterable[str]] = ..., serve_dns: _Optional[bool] = ..., takes_drift: _Optional[bool] = ...) -> None: ...

class Programmed(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("sequence", "reason", "wrong")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: str
    wrong: _containers.RepeatedCompositeFieldContainer[WrongItem]
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[str] = ..., wrong: _Optional[_Iterable[_Union[WrongItem, _Mapping]]] = ...) -> None: ...

class WrongItem(_message.Message):
    __slots__ = ("index", "reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.NodeInfo]
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.NodeInfo, _Mapping]]] = ...) -> None: ...

class CountConnections(_message.Message):
    __slots__ = ("sequence", "endpoints", "patience_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    endpoints: _containers.RepeatedCompositeFieldContainer[Destination]
    patience_ms: int
    def __init__(self, sequence: _Optional[int] = ..., endpoints: _Optional[_Iterable[_Union[Destination, _Mapping]]] = ..., patience_ms: _Optional[int] = ...) -> None: ...

class Destination(_message.Message):
    __slots__ = ("address", "port", "protocol")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    protocol: str
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., protocol: _Optional[str] = ...) -> None: ...

class ConnectionCounts(_message.Message):
    __slots__ = ("sequence", "counts", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    counts: _containers.RepeatedCompositeFieldContainer[ConnectionCount]
    error: str
    def __init__(self, sequence: _Optional[int] = ..., counts: _Optional[_Iterable[_Union[ConnectionCount, _Mapping]]] = ..., error: _Optional[str] = ...) -> None: ...

class ConnectionCount(_message.Message):
    __slots__ = ("endpoint", "frontend", "connections")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    FRONTEND_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    endpoint: Destination
    frontend: Destination
    connections: int
    def __init__(self, endpoint: _Optional[_Union[Destination, _Mapping]] = ..., frontend: _Optional[_Union[Destination, _Mapping]] = ..., connections: _Optional[int] = ...) -> None: ...

class RefreshDatapath(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListConnections(_message.Message):
    __slots__ = ("sequence", "ranges", "patience_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    ranges: _containers.RepeatedScalarFieldContainer[str]
    patience_ms: int
    def __init__(self, sequence: _Optional[int] = ..., ranges: _Optional[_Iterable[str]] = ..., patience_ms: _Optional[int] = ...) -> None: ...

class Connections(_message.Message):
    __slots__ = ("sequence", "connections", "error", "last")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    connections: _containers.RepeatedCompositeFieldContainer[TrackedConnection]
    error: str
    last: bool
    def __init__(self, sequence: _Optional[int] = ..., connections: _Optional[_Iterable[_Union[TrackedConnection, _Mapping]]] = ..., error: _Optional[str] = ..., last: _Optional[bool] = ...) -> None: ...

class TrackedConnection(_message.Message):
    __slots__ = ("protocol", "source", "destination", "source_port", "destination_port", "reply_source", "reply_destination", "reply_source_port", "reply_destination_port", "icmp_type", "icmp_code", "icmp_id", "mark")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    REPLY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    REPLY_DESTINATION_FIELD_NUMBER: _ClassVar[int]
    REPLY_SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    REPLY_DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    ICMP_TYPE_FIELD_NUMBER: _ClassVar[int]
    ICMP_CODE_FIELD_NUMBER: _ClassVar[int]
    ICMP_ID_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    reply_source: str
    reply_destination: str
    reply_source_port: int
    reply_destination_port: int
    icmp_type: int
    icmp_code: int
    icmp_id: int
    mark: int
    def __init__(self, protocol: _Optional[int] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., source_port: _Optional[int] = ..., destination_port: _Optional[int] = ..., reply_source: _Optional[str] = ..., reply_destination: _Optional[str] = ..., reply_source_port: _Optional[int] = ..., reply_destination_port: _Optional[int] = ..., icmp_type: _Optional[int] = ..., icmp_code: _Optional[int] = ..., icmp_id: _Optional[int] = ..., mark: _Optional[int] = ...) -> None: ...

class Verdicts(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_types_pb2.VerdictRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_types_pb2.VerdictRecord, _Mapping]]] = ...) -> None: ...

class DomainPatterns(_message.Message):
    __slots__ = ("patterns",)
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    patterns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, patterns: _Optional[_Iterable[str]] = ...) -> None: ...

class Resolved(_message.Message):
    __slots__ = ("sequence", "name", "addresses", "ttl_seconds")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    ttl_seconds: int
    def __init__(self, sequence: _Optional[int] = ..., name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class WatchServicesRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class ServiceUpdate(_message.Message):
    __slots__ = ("service", "removed", "synced")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    service: ServiceState
    removed: ServiceName
    synced: Synced
    def __init__(self, service: _Optional[_Union[ServiceState, _Mapping]] = ..., removed: _Optional[_Union[ServiceName, _Mapping]] = ..., synced: _Optional[_Union[Synced, _Mapping]] = ...) -> None: ...

class Synced(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServiceName(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ServiceState(_message.Message):
    __slots__ = ("namespace", "name", "type", "cluster_ips", "external_ips", "load_balancer_ips", "external_name", "ports", "endpoints", "external_local", "health_check_node_port", "local_endpoints", "announce")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_IPS_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_IPS_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCER_IPS_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_NAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_LOCAL_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_NODE_PORT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    type: str
    cluster_ips: _containers.RepeatedScalarFieldContainer[str]
    external_ips: _containers.RepeatedScalarFieldContainer[str]
    load_balancer_ips: _containers.RepeatedScalarFieldContainer[str]
    external_name: str
    ports: _containers.RepeatedCompositeFieldContainer[ServicePortState]
    endpoints: _containers.RepeatedCompositeFieldContainer[EndpointState]
    external_local: bool
    health_check_node_port: int
    local_endpoints: int
    announce: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., cluster_ips: _Optional[_Iterable[str]] = ..., external_ips: _Optional[_Iterable[str]] = ..., load_balancer_ips: _Optional[_Iterable[str]] = ..., external_name: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[ServicePortState, _Mapping]]] = ..., endpoints: _Optional[_Iterable[_Union[EndpointState, _Mapping]]] = ..., external_local: _Optional[bool] = ..., health_check_node_port: _Optional[int] = ..., local_endpoints: _Optional[int] = ..., announce: _Optional[bool] = ...) -> None: ...

class ServicePortState(_message.Message):
    __slots__ = ("name", "protocol", "port", "node_port")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NODE_PORT_FIELD_NUMBER: _ClassVar[int]
    name: str
    protocol: str
    port: int
    node_port: int
    def __init__(self, name: _Optional[str] = ..., protocol: _Optional[str] = ..., port: _Optional[int] = ..., node_port: _Optional[int] = ...) -> None: ...

class EndpointState(_message.Message):
    __slots__ = ("address", "hostname", "ports")
    class PortsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    address: str
    hostname: str
    ports: _containers.ScalarMap[str, int]
    def __init__(self, address: _Optional[str] = ..., hostname: _Optional[str] = ..., ports: _Optional[_Mapping[str, int]] = ...) -> None: ...
