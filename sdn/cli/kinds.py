# SPDX-License-Identifier: Apache-2.0
"""Kinds as people type them, and what of an object is shown in columns. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sdn.cli import policies, services
from sdn.cli.errors import UsageError
from sdn.cli.output import NONE, joined, labels

Document = Mapping[str, Any]


class Column(msgspec.Struct, frozen=True):
    """One column: its title, and what of an object stands in it."""

    title: str
    cell: Callable[[Document], str]
    wide: bool = False


class Kind(msgspec.Struct, frozen=True):
    """One kind of object, with the names that `get` knows it by, most usual first.

    Or several kinds in one table: ``kinds`` are their names, and ``order`` sorts their objects.
    """

    kind: str
    names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]
    kinds: tuple[str, ...] = ()
    order: Callable[[Document], Any] = lambda _document: 0


def field(document: Document, path: str) -> Any:
    """The value at a dotted path; None when any part of it is missing."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _text(path: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        value = field(document, path)
        return NONE if value in (None, "") else str(value)

    return cell


def _age(document: Document) -> str:
    return services.since(field(document, "metadata.creationTimestamp"))


def _labels(document: Document) -> str:
    return labels(field(document, "metadata.labels"))


def _of_list(path: str, key: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        return joined([str(item[key]) for item in field(document, path) or [] if item.get(key)])

    return cell


def _node_addresses(document: Document) -> str:
    found = field(document, "status.addresses") or []
    return joined([str(item["address"]) for item in found if item.get("type", "InternalIP") == "InternalIP"])


def _ready(document: Document) -> str:
    """Ready when all of a node's conditions hold, else those that do not."""
    conditions = field(document, "status.conditions") or []
    failing = [str(item.get("type")) for item in conditions if item.get("status") != "True"]
    return f"Not{',Not'.join(failing)}" if failing else "Ready" if conditions else NONE


def _pod_ranges(document: Document) -> str:
    return joined(field(document, "spec.podCIDRs") or field(document, "status.podCIDRs"))


NAME = Column("NAME", _text("metadata.name"))
NAMESPACE = Column("NAMESPACE", _text("metadata.namespace"))
AGE = Column("AGE", _age)
LABELS = Column("LABELS", _labels, wide=True)
STAGED = Column("STAGED", policies.staged, wide=True)
AUDIT = Column("AUDIT", policies.audit, wide=True)

KINDS = (
    Kind(
        "Node",
        ("nodes", "node", "no"),
        False,
        (
            NAME,
            Column("STATUS", _ready),
            Column("ADDRESSES", _node_addresses),
            Column("POD RANGES", _pod_ranges),
            Column("PODS", _text("status.pods")),
            Column("ENCAPSULATION", _text("status.nodeInfo.encapsulation"), wide=True),
            Column("DATAPATH", _text("status.nodeInfo.datapath"), wide=True),
            Column("MTU", _text("status.nodeInfo.mtu"), wide=True),
            Column("AGENT", _text("status.nodeInfo.agentVersion"), wide=True),
            LABELS,
        ),
    ),
    Kind(
        "Pod",
        ("pods", "pod", "po"),
        True,
        (
            NAMESPACE,
            NAME,
            Column("STATUS", _text("status.phase")),
            Column("ADDRESSES", _of_list("status.podIPs", "ip")),
            Column("NODE", _text("spec.nodeName")),
            AGE,
            LABELS,
        ),
    ),
    Kind(
        "Namespace",
        ("namespaces", "namespace", "ns"),
        False,
        (NAME, Column("STATUS", _text("status.phase")), LABELS),
    ),
    Kind(
        "Service",
        ("services", "service", "svc"),
        True,
        (
            NAMESPACE,
            NAME,
            Column("TYPE", services.service_type),
            Column("CLUSTER-IP", services.cluster_ips),
            Column("EXTERNAL-IP", services.external_ips),
            Column("PORT(S)", services.ports),
            AGE,
            Column("SELECTOR", services.selector, wide=True),
            LABELS,
        ),
    ),
    Kind(
        "EndpointSlice",
        ("endpointslices", "endpointslice"),
        True,
        (
            NAMESPACE,
            NAME,
            Column("ADDRESSTYPE", _text("addressType")),
            Column("PORTS", services.slice_ports),
            Column("ENDPOINTS", services.slice_endpoints),
            Column("READY", services.ready_endpoints, wide=True),
            AGE,
            LABELS,
        ),
    ),
    Kind(
        "NetworkPolicy",
        ("networkpolicies", "networkpolicy", "netpol"),
        True,
        (
            NAMESPACE,
            NAME,
            Column("POD-SELECTOR", policies.pod_selector),
            AGE,
            Column("POLICY-TYPES", policies.policy_types, wide=True),
            STAGED,
            AUDIT,
            LABELS,
        ),
    ),
    Kind(
        "ClusterNetworkPolicy",
        ("clusternetworkpolicies", "clusternetworkpolicy", "cnp"),
        False,
        (
            NAME,
            Column("TIER", policies.tier),
            Column("PRIORITY", policies.priority),
            AGE,
            Column("SUBJECT", policies.subject, wide=True),
            STAGED,
            AUDIT,
            LABELS,
        ),
    ),
    Kind(
        "Policy",
        ("policies", "policy"),
        True,
        (
            Column("KIND", _text("kind")),
            NAMESPACE,
            NAME,
            Column("TIER", policies.tier),
            Column("PRIORITY", policies.priority),
            Column("SUBJECT", policies.subject),
            STAGED,
            AUDIT,
            LABELS,
        ),
        kinds=("NetworkPolicy", "ClusterNetworkPolicy"),
        order=policies.order,
    ),
    Kind(
        "Event",
        ("events", "event", "ev"),
        True,
        (
            NAMESPACE,
            Column("LAST SEEN", lambda event: services.since(event.get("lastTimestamp"))),
            Column("TYPE", _text("type")),
            Column("REASON", _text("reason")),
            Column("OBJECT", services.involved),
            Column("COUNT", _text("count"), wide=True),
            Column("FIRST SEEN", lambda event: services.since(event.get("firstTimestamp")), wide=True),
            Column("SOURCE", _text("source.component"), wide=True),
            Column("MESSAGE", _text("message")),
        ),
    ),
)

SWITCHES = ("switches", "switch", "sw")


def known_names() -> list[str]:
    """What `get` takes, for help and completion."""
    return [*(kind.names[0] for kind in KINDS), SWITCHES[0]]


def kind_called(text: str) -> Kind:
    """The kind that somebody means by "pods", "po" or "Pod"; UsageError lists what there is."""
    for kind in KINDS:
        if text.lower() in kind.names:
            return kind
    raise UsageError(f"there is no kind {text!r}; there are {', '.join(known_names())}")


def members(kind: Kind) -> list[Kind]:
    """The kinds that are shown in one table; most often this one alone."""
    return [each for each in KINDS if each.kind in kind.kinds] or [kind]


def one_kind_called(text: str) -> Kind:
    """As :func:`kind_called`, where several kinds will not do; UsageError says which they are."""
    kind = kind_called(text)
    if kind.kinds:
        which = " or ".join(each.names[0] for each in members(kind))
        raise UsageError(f"{kind.names[0]} are of several kinds: say {which}")
    return kind


def name_of(document: Document) -> str:
    """An object as `-o name` prints it and messages say it: pod/default/web-1, node/node-1."""
    kind = str(document.get("kind", "object")).lower()
    namespace = field(document, "metadata.namespace")
    name = field(document, "metadata.name") or "?"
    return f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}"


def rows(kind: Kind, documents: Sequence[Document], wide: bool) -> tuple[list[str], list[list[str]]]:
    """Titles and cells."""
    columns = [column for column in kind.columns if wide or not column.wide]
    return [c.title for c in columns], [[c.cell(document) for c in columns] for document in documents]
