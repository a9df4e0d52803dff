# SPDX-License-Identifier: Apache-2.0
"""Services, EndpointSlices and Events in words and columns, as kubectl has them. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sdn.cli.output import NONE, age, joined, labels

Document = Mapping[str, Any]

#: What a LoadBalancer Service without an address yet shows, as kubectl has it.
PENDING = "<pending>"
#: Endpoints of a slice that stand in its row.
_SHOWN_ENDPOINTS = 3


def _of(document: Document, *path: str) -> Any:
    value: Any = document
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def service_type(service: Document) -> str:
    return str(_of(service, "spec", "type") or "ClusterIP")


def cluster_ips(service: Document) -> str:
    """All of them; None for a headless Service."""
    spec = service.get("spec") or {}
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return joined([str(address) for address in found])


def load_balancer_ips(service: Document) -> list[str]:
    ingress = _of(service, "status", "loadBalancer", "ingress") or []
    return [str(item.get("ip") or item.get("hostname")) for item in ingress]


def external_ips(service: Document) -> str:
    """Addresses of load balancers, then externalIPs; of an ExternalName Service the name."""
    kind = service_type(service)
    if kind == "ExternalName":
        return str(_of(service, "spec", "externalName") or NONE)
    found = [*load_balancer_ips(service), *(_of(service, "spec", "externalIPs") or [])]
    if kind == "LoadBalancer" and not load_balancer_ips(service):
        found.insert(0, PENDING)
    return joined([str(address) for address in found])


def ports(service: Document) -> str:
    """80/TCP, or 80:30080/TCP with its node port."""
    found = []
    for port in _of(service, "spec", "ports") or []:
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        found.append(f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}")
    return joined(found)


def selector(service: Document) -> str:
    return labels(_of(service, "spec", "selector"))


def slice_ports(document: Document) -> str:
    return joined([str(port["port"]) for port in document.get("ports") or [] if port.get("port")])


def slice_endpoints(document: Document) -> str:
    """The first few addresses, and how many more there are."""
    found = [str(a) for endpoint in document.get("endpoints") or [] for a in endpoint.get("addresses") or []]
    more = len(found) - _SHOWN_ENDPOINTS
    text = joined(found[:_SHOWN_ENDPOINTS])
    return f"{text} + {more} more..." if more > 0 else text


def ready_endpoints(document: Document) -> str:
    """Ready ones of all, as 2/3; a condition that is not said counts as true (Kubernetes API, EndpointConditions)."""
    found = document.get("endpoints") or []
    ready = [item for item in found if (item.get("conditions") or {}).get("ready") is not False]
    return f"{len(ready)}/{len(found)}"


def involved(event: Document) -> str:
    """The object that an Event is about."""
    about = event.get("involvedObject") or {}
    return f"{str(about.get('kind', 'object')).lower()}/{about.get('name', '?')}"


def since(text: object) -> str:
    """How long ago a time stamp was, as in AGE."""
    if not text:
        return NONE
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return str(text)
    return age((datetime.now(UTC) - moment).total_seconds())


def lines(service: Document) -> list[tuple[str, str]]:
    """What a Service is, one property a line; what it does not have is left out."""
    metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
    affinity = str(spec.get("sessionAffinity") or "None")
    seconds = _of(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds")
    if seconds:
        affinity += f" ({seconds} s)"
    found = [
        ("Name", metadata.get("name")),
        ("Namespace", metadata.get("namespace")),
        ("Labels", labels(metadata.get("labels"))),
        ("Annotations", labels(metadata.get("annotations"))),
        ("Selector", selector(service)),
        ("Type", service_type(service)),
        ("IP families", _with(joined(spec.get("ipFamilies")), spec.get("ipFamilyPolicy"))),
        ("ClusterIPs", cluster_ips(service)),
        ("External IPs", joined(spec.get("externalIPs"))),
        ("Load balancer", external_load_balancer(service)),
        ("Allowed sources", joined(spec.get("loadBalancerSourceRanges"))),
        ("External name", spec.get("externalName")),
        *(("Port", port_line(port)) for port in spec.get("ports") or []),
        ("Session affinity", affinity if affinity != "None" else None),
        ("External traffic", spec.get("externalTrafficPolicy")),
        ("Internal traffic", spec.get("internalTrafficPolicy")),
        ("Distribution", spec.get("trafficDistribution")),
        ("Health check port", spec.get("healthCheckNodePort")),
        ("Not ready ones", "are published" if spec.get("publishNotReadyAddresses") else None),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "", 0, NONE)]


def external_load_balancer(service: Document) -> str | None:
    if service_type(service) != "LoadBalancer":
        return None
    return joined(load_balancer_ips(service) or [PENDING])


def port_line(port: Document) -> str:
    """http 80/TCP -> web, node port 30080."""
    name = f"{port['name']} " if port.get("name") else ""
    target = port.get("targetPort") or port.get("port")
    node_port = f", node port {port['nodePort']}" if port.get("nodePort") else ""
    return f"{name}{port.get('port')}/{port.get('protocol', 'TCP')} → {target}{node_port}"


def _with(text: str, more: object) -> str:
    return text if text == NONE or not more else f"{text} ({more})"


def state(endpoint: Mapping[str, Any]) -> str:
    """Of an endpoint, in one word for what it may be used for."""
    if endpoint["terminating"]:
        return "terminating, serving" if endpoint["serving"] else "terminating"
    return "ready" if endpoint["ready"] else "not ready"


def event_rows(events: Sequence[Document]) -> list[list[str]]:
    return [
        [
            since(event.get("lastTimestamp")),
            str(event.get("type") or NONE),
            str(event.get("reason") or NONE),
            str(event.get("count") or 1),
            str(event.get("message") or NONE),
        ]
        for event in events
    ]
