# SPDX-License-Identifier: Apache-2.0
"""What users declare: Kubernetes-shaped objects as typed values, checked where they enter.

``parse`` turns a document (decoded YAML or JSON) into a :class:`Node`, :class:`Pod` or :class:`Namespace`, or
raises :class:`InvalidObjectError` that names the object and the path of the field. Nothing here knows of
flows, stores or gRPC.
"""

from sdn.model.labels import LabelSelector, parse_selector
from sdn.model.names import InvalidObjectError
from sdn.model.objects import KINDS, Kind, Namespace, Node, Object, ObjectMeta, Pod
from sdn.model.parse import parse, to_document

__all__ = [
    "KINDS",
    "InvalidObjectError",
    "Kind",
    "LabelSelector",
    "Namespace",
    "Node",
    "Object",
    "ObjectMeta",
    "Pod",
    "parse",
    "parse_selector",
    "to_document",
]
