# SPDX-License-Identifier: Apache-2.0
"""From a document to an object, and back.

Strict where the network reads (unknown kinds, unknown fields of the object, its metadata and of the network's own
kinds, wrong names, labels and ranges are refused with the field's path), open where it does not (the rest of
``spec`` of a Pod or Node). What an API server adds (``status``, ``metadata.uid`` and the like) is taken and left
out, so that what ``get`` printed can be applied.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.clusternetworkpolicyspec import read_cluster_network_policy_spec
from sdn.model.endpointslice import EndpointSlice, read_endpoint_slice
from sdn.model.meta import ObjectMeta
from sdn.model.names import (
    InvalidObjectError,
    check_dns_label,
    check_dns_subdomain,
    check_label_key,
    check_labels,
    check_network,
    check_service_name,
    check_text_map,
    type_name,
)
from sdn.model.networkpolicy import NetworkPolicy, check_annotations
from sdn.model.networkpolicyspec import read_network_policy_spec
from sdn.model.objects import KINDS, Kind, Namespace, Node, Object
from sdn.model.pod import Pod, check_pod_spec, read_pod_status
from sdn.model.reading import Fields
from sdn.model.service import Service
from sdn.model.servicespec import read_service_spec

#: Kubernetes' limit for the sum of all annotations.
MAX_ANNOTATION_BYTES = 256 * 1024
_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
_SLICE_FIELDS = ("apiVersion", "kind", "metadata", "addressType", "endpoints", "ports")
#: Fields of metadata that a Kubernetes API server fills in; taken and left out, so that what ``get`` printed
#: can be applied.
_SERVER_METADATA = frozenset(
    (
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    )
)


def parse(document: object) -> Object:
    """The object that a document declares. InvalidObjectError names the object and the field."""
    if not isinstance(document, Mapping):
        raise InvalidObjectError("", f"an object must be a map, got {type_name(document)}")
    kind = _kind(document)
    subject = _subject(kind, document)
    try:
        return _parse(kind, document)
    except InvalidObjectError as problem:
        raise problem.about(subject) from None


def to_document(value: Object) -> dict[str, Any]:
    """The object as a document, in the form that :func:`parse` takes."""
    document: dict[str, Any] = {"apiVersion": value.API_VERSION, "kind": value.KIND}
    document |= _with_lists(msgspec.to_builtins(value))
    return document


def _with_lists(value: Any) -> Any:
    """The same with lists for tuples, as a reader of JSON or YAML gives them."""
    if isinstance(value, dict):
        return {key: _with_lists(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_with_lists(member) for member in value]
    return value


def _kind(document: Mapping[str, Any]) -> Kind:
    name = document.get("kind")
    if not isinstance(name, str) or not name:
        raise InvalidObjectError("kind", f"must be one of {', '.join(KINDS)}")
    kind = KINDS.get(name)
    if kind is None:
        raise InvalidObjectError("kind", f"{name!r} is not known here; known are {', '.join(KINDS)}")
    version = document.get("apiVersion")
    if version != kind.API_VERSION:
        raise InvalidObjectError(
            "apiVersion", f"{version!r} of kind {name} is not known here; use {kind.API_VERSION!r}"
        )
    return kind


def _subject(kind: Kind, document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        return kind.KIND
    namespace = (metadata.get("namespace") or "default") if kind.NAMESPACED else ""
    return f"{kind.KIND} {namespace}/{metadata['name']}" if namespace else f"{kind.KIND} {metadata['name']}"


def _parse(kind: Kind, document: Mapping[str, Any]) -> Object:
    fields = Fields("", document, f"{_article(kind)} {kind.KIND}")
    fields.finish(also=_SLICE_FIELDS if kind is EndpointSlice else _FIELDS)
    metadata = _metadata(kind, fields.raw("metadata"))
    if kind is EndpointSlice:
        return read_endpoint_slice(metadata, fields)
    spec = fields.raw("spec")
    if spec is None:
        if kind is ClusterNetworkPolicy:
            raise InvalidObjectError("spec", "must be given")
        spec = {}
    if not isinstance(spec, Mapping):
        raise InvalidObjectError("spec", f"must be a map, got {type_name(spec)}")
    return _with_spec(kind, metadata, spec, fields)


def _with_spec(kind: Kind, metadata: ObjectMeta, spec: Mapping[str, Any], fields: Fields) -> Object:
    if kind is Service:
        return Service(metadata=metadata, spec=read_service_spec(spec))
    if kind is NetworkPolicy:
        check_annotations(metadata)
        return NetworkPolicy(metadata=metadata, spec=read_network_policy_spec(spec))
    if kind is ClusterNetworkPolicy:
        check_annotations(metadata)
        return ClusterNetworkPolicy(metadata=metadata, spec=read_cluster_network_policy_spec(spec))
    if kind is Pod:
        check_pod_spec(spec)
        return Pod(metadata=metadata, spec=dict(spec), status=read_pod_status(fields.raw("status")))
    if kind is Node:
        _check_pod_cidrs(spec)
        return Node(metadata=metadata, spec=dict(spec))
    return Namespace(metadata=metadata, spec=dict(spec))


def _article(kind: Kind) -> str:
    return "an" if kind.KIND[0] in "AEIOU" else "a"


def _metadata(kind: Kind, document: object) -> ObjectMeta:
    if not isinstance(document, Mapping):
        raise InvalidObjectError("metadata", f"must be a map, got {type_name(document)}")
    for field in document:
        if field not in ("name", "namespace", "labels", "annotations") and field not in _SERVER_METADATA:
            raise InvalidObjectError(f"metadata.{field}", "is no field of an object's metadata")
    name = _text("metadata.name", document.get("name"))
    if kind is Namespace:
        check_dns_label("metadata.name", name)
    elif kind is Service:
        check_service_name("metadata.name", name)
    else:
        check_dns_subdomain("metadata.name", name)
    namespace = document.get("namespace") or ""
    if not kind.NAMESPACED and namespace:
        raise InvalidObjectError("metadata.namespace", f"a {kind.KIND} belongs to no namespace")
    if kind.NAMESPACED:
        namespace = check_dns_label("metadata.namespace", _text("metadata.namespace", namespace or "default"))
    annotations = check_text_map("metadata.annotations", document.get("annotations"))
    for key in annotations:
        check_label_key(f'metadata.annotations["{key}"]', key)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATION_BYTES:
        raise InvalidObjectError("metadata.annotations", f"{size} bytes; at most {MAX_ANNOTATION_BYTES}")
    return ObjectMeta(
        name=name,
        namespace=namespace,
        labels=check_labels("metadata.labels", document.get("labels")),
        annotations=annotations,
        deletion_timestamp=_deletion_timestamp(document) if kind is Pod else "",
    )


def _deletion_timestamp(document: Mapping[str, Any]) -> str:
    path = "metadata.deletionTimestamp"
    value = document.get("deletionTimestamp")
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        # YAML's reader knows times by itself.
        value = value.isoformat()
    text = _text(path, value)
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidObjectError(path, f"{text!r} is no time as in RFC 3339: 2026-01-31T23:59:59Z") from None
    return text


def _check_pod_cidrs(spec: Mapping[str, Any]) -> None:
    """As Kubernetes has it: podCIDRs holds at most one range a family, podCIDR is the first of them."""
    ranges = spec.get("podCIDRs")
    first = spec.get("podCIDR")
    if first is not None:
        check_network("spec.podCIDR", _text("spec.podCIDR", first))
    if ranges is None:
        return
    if not isinstance(ranges, list):
        raise InvalidObjectError("spec.podCIDRs", f"must be a list, got {type_name(ranges)}")
    families: dict[int, int] = {}
    for index, text in enumerate(ranges):
        path = f"spec.podCIDRs[{index}]"
        network = check_network(path, _text(path, text))
        if network.version in families:
            raise InvalidObjectError(path, f"a second IPv{network.version} range; one a family is possible")
        families[network.version] = index
    if first is not None and (not ranges or ranges[0] != first):
        raise InvalidObjectError("spec.podCIDR", "must be the first of spec.podCIDRs")


def _text(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidObjectError(path, f"must be text, got {type_name(value)}")
    if not value:
        raise InvalidObjectError(path, "must not be empty")
    return value
