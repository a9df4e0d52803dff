# SPDX-License-Identifier: Apache-2.0
"""The endpoints of a Service, from pods that its selector takes and from EndpointSlices.

Where Kubernetes' endpoint controllers do not run, :func:`endpoint_of` does for one pod what they do, and
:func:`slices_of` shows the result as the EndpointSlices that they would write. Source: Kubernetes documentation,
"EndpointSlices", "Service" and "DNS for Services and Pods".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sdn.model import EndpointSlice, ObjectMeta, Service, SliceEndpoint, SlicePort
from sdn.model.endpointslice import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Conditions,
    HintName,
    Hints,
    TargetRef,
)
from sdn.model.service import EXTERNAL_NAME, FAMILIES, ServicePortSpec
from sdn.pipeline.service import Protocol
from sdn.pipeline.topology import Address

#: The name and value that Kubernetes' headless Services put on their slices.
HEADLESS_LABEL = "service.kubernetes.io/headless"
#: Who made the slices that :func:`slices_of` shows.
MANAGED_BY = "sdn-controller"
#: Endpoints in one derived slice, as Kubernetes' controller fills them.
SLICE_ENDPOINTS = 100

_FAMILY_NAMES = {version: name for name, version in FAMILIES.items()}


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One address that serves a Service. ``ports``: the name of the Service's port, its protocol, the number at
    this endpoint. ``zone``, ``node`` and ``hostname`` are empty when they are not known or do not apply.

    ``ready``: may get new connections. ``serving``: answers, be it terminating. ``target`` is the object behind
    it, "Pod/namespace/name". ``pod`` is True for a pod of this network, False for a node's address and for
    addresses outside of the cluster.
    """

    address: Address
    ports: tuple[tuple[str, Protocol, int], ...]
    node: str = ""
    zone: str = ""
    hostname: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    target: str = ""
    hint_zones: tuple[str, ...] = ()
    hint_nodes: tuple[str, ...] = ()
    pod: bool = True


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod as Services see it. ``ready`` is whether it can serve, whatever ``terminating`` says. ``named_ports``:
    name, protocol ("TCP"), number. With ``host_network``, ``addresses`` are the node's.
    """

    namespace: str
    name: str
    node: str
    zone: str
    addresses: tuple[Address, ...]
    labels: Mapping[str, str]
    ready: bool = True
    terminating: bool = False
    hostname: str = ""
    subdomain: str = ""
    named_ports: tuple[tuple[str, str, int], ...] = ()
    host_network: bool = False

    @property
    def target(self) -> str:
        """How a :class:`ServiceEndpoint` names it."""
        return f"Pod/{self.namespace}/{self.name}"


def selects(service: Service, pod: PodView) -> bool:
    """Whether the pod is one of the Service's. A Service without a selector takes no pod."""
    selector = service.spec.selector
    return (
        bool(selector)
        and service.spec.type != EXTERNAL_NAME
        and service.metadata.namespace == pod.namespace
        and all(pod.labels.get(key) == value for key, value in (selector or {}).items())
    )


def endpoint_of(service: Service, pod: PodView) -> tuple[ServiceEndpoint, ...]:
    """What the pod is to the Service: an endpoint in each of the Service's families that it has an address of;
    none when it is not selected.

    A port of the Service that names a port which the pod lacks is left out for this pod. With
    publishNotReadyAddresses the pod counts as ready, whatever it says.
    """
    if not selects(service, pod):
        return ()
    ports = tuple(
        (port.name, Protocol[port.protocol or "TCP"], number)
        for port in service.spec.ports
        if (number := _target_number(port, pod)) is not None
    )
    in_domain = bool(pod.hostname) and pod.subdomain == service.metadata.name
    return tuple(
        ServiceEndpoint(
            address=address,
            ports=ports,
            node=pod.node,
            zone=pod.zone,
            hostname=pod.hostname if in_domain else "",
            ready=service.spec.publish_not_ready_addresses or (pod.ready and not pod.terminating),
            serving=pod.ready,
            terminating=pod.terminating,
            target=pod.target,
            pod=not pod.host_network,
        )
        for version in _versions(service)
        for address in _first(version, pod.addresses)
    )


def from_slice(
    slice_: EndpointSlice, is_pod: Callable[[Address], bool] = lambda _: False
) -> tuple[ServiceEndpoint, ...]:
    """The endpoints of a slice; ``is_pod`` tells which addresses are pods of this network. A slice of names
    (addressType FQDN) has none that a switch could use. Nor has one that :func:`slices_of` made: whoever applies
    what ``get`` printed must not keep endpoints alive whose pods are gone.
    """
    if slice_.address_type not in FAMILIES or slice_.managed_by == MANAGED_BY:
        return ()
    ports = tuple(
        (port.name, Protocol[port.protocol], port.port) for port in slice_.ports if port.port is not None
    )
    return tuple(_from_slice(slice_, endpoint, ports, is_pod) for endpoint in slice_.endpoints)


def _from_slice(
    slice_: EndpointSlice,
    endpoint: SliceEndpoint,
    ports: tuple[tuple[str, Protocol, int], ...],
    is_pod: Callable[[Address], bool],
) -> ServiceEndpoint:
    address = Address.parse(endpoint.addresses[0])
    reference = endpoint.target_ref
    target = ""
    if reference is not None and reference.kind and reference.name:
        target = f"{reference.kind}/{reference.namespace or slice_.metadata.namespace}/{reference.name}"
    return ServiceEndpoint(
        address=address,
        ports=ports,
        node=endpoint.node_name,
        zone=endpoint.zone,
        hostname=endpoint.hostname,
        ready=endpoint.ready,
        serving=endpoint.serving,
        terminating=endpoint.terminating,
        target=target,
        hint_zones=endpoint.hint_zones,
        hint_nodes=endpoint.hint_nodes,
        pod=is_pod(address),
    )


def slices_of(service: Service, endpoints: Iterable[ServiceEndpoint]) -> tuple[EndpointSlice, ...]:
    """The endpoints as EndpointSlices: one family and one set of ports each, at most SLICE_ENDPOINTS endpoints,
    with names that stay the same while the Service keeps its name and ports.
    """
    groups: dict[tuple[int, tuple[tuple[str, Protocol, int], ...]], list[ServiceEndpoint]] = {}
    for endpoint in endpoints:
        groups.setdefault((endpoint.address.version, endpoint.ports), []).append(endpoint)
    slices = []
    for (version, ports), members in sorted(groups.items(), key=lambda group: group[0]):
        members.sort(key=lambda endpoint: (endpoint.address.value, endpoint.target))
        for start in range(0, len(members), SLICE_ENDPOINTS):
            chunk = members[start : start + SLICE_ENDPOINTS]
            slices.append(_slice(service, version, ports, start // SLICE_ENDPOINTS, chunk))
    return tuple(slices)


def _slice(
    service: Service,
    version: int,
    ports: tuple[tuple[str, Protocol, int], ...],
    number: int,
    members: list[ServiceEndpoint],
) -> EndpointSlice:
    text = (
        f"{version} {' '.join(f'{name}/{protocol.name}/{port}' for name, protocol, port in ports)} {number}"
    )
    suffix = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    labels = {SERVICE_NAME_LABEL: service.metadata.name, MANAGED_BY_LABEL: MANAGED_BY}
    if service.spec.headless:
        labels[HEADLESS_LABEL] = ""
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{service.metadata.name}-{suffix}", namespace=service.metadata.namespace, labels=labels
        ),
        address_type=_FAMILY_NAMES[version],
        endpoints=tuple(_slice_endpoint(member) for member in members),
        ports=tuple(
            SlicePort(
                name=name, protocol=protocol.name, port=number_, app_protocol=_app_protocol(service, name)
            )
            for name, protocol, number_ in ports
        ),
    )


def _slice_endpoint(endpoint: ServiceEndpoint) -> SliceEndpoint:
    hints = None
    if endpoint.hint_zones or endpoint.hint_nodes:
        hints = Hints(
            for_zones=tuple(HintName(name=zone) for zone in endpoint.hint_zones),
            for_nodes=tuple(HintName(name=node) for node in endpoint.hint_nodes),
        )
    target = None
    if endpoint.target:
        kind, namespace, name = endpoint.target.split("/", 2)
        target = TargetRef(kind=kind, namespace=namespace, name=name)
    return SliceEndpoint(
        addresses=(str(endpoint.address),),
        conditions=Conditions(
            ready=endpoint.ready, serving=endpoint.serving, terminating=endpoint.terminating
        ),
        hostname=endpoint.hostname,
        node_name=endpoint.node,
        zone=endpoint.zone,
        hints=hints,
        target_ref=target,
    )


def _app_protocol(service: Service, name: str) -> str:
    return next((port.app_protocol for port in service.spec.ports if port.name == name), "")


def _target_number(port: ServicePortSpec, pod: PodView) -> int | None:
    target = port.target_port
    if not target:
        return port.port
    if isinstance(target, int):
        return target
    protocol = port.protocol or "TCP"
    return next((number for name, of, number in pod.named_ports if name == target and of == protocol), None)


def _versions(service: Service) -> tuple[int, ...]:
    """The Service's families. Before the controller chose them: those of its addresses, else both."""
    spec = service.spec
    if spec.ip_families:
        return tuple(FAMILIES[family] for family in spec.ip_families)
    if spec.addresses:
        return tuple(Address.parse(text).version for text in spec.addresses)
    return tuple(FAMILIES.values())


def _first(version: int, addresses: Iterable[Address]) -> tuple[Address, ...]:
    for address in addresses:
        if address.version == version:
            return (address,)
    return ()
