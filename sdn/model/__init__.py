# SPDX-License-Identifier: Apache-2.0
"""What users declare: Kubernetes-shaped objects as typed values, checked where they enter.

``parse`` turns a document (decoded YAML or JSON) into a :class:`Node`, :class:`Pod`, :class:`Namespace`,
:class:`Service`, :class:`EndpointSlice`, :class:`NetworkPolicy` or :class:`ClusterNetworkPolicy`, or raises
:class:`InvalidObjectError` that names the object and the path of the field. Nothing here knows of flows, stores or
gRPC.
"""

from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.endpointslice import EndpointSlice, SliceEndpoint, SlicePort
from sdn.model.labels import LabelSelector, parse_selector
from sdn.model.meta import ObjectMeta
from sdn.model.names import InvalidObjectError
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.objects import KINDS, Kind, Namespace, Node, Object
from sdn.model.parse import parse, to_document
from sdn.model.pod import Pod
from sdn.model.service import Service, ServicePortSpec, ServiceSpec, defaulted

__all__ = [
    "KINDS",
    "ClusterNetworkPolicy",
    "EndpointSlice",
    "InvalidObjectError",
    "Kind",
    "LabelSelector",
    "Namespace",
    "NetworkPolicy",
    "Node",
    "Object",
    "ObjectMeta",
    "Pod",
    "Service",
    "ServicePortSpec",
    "ServiceSpec",
    "SliceEndpoint",
    "SlicePort",
    "defaulted",
    "parse",
    "parse_selector",
    "to_document",
]
