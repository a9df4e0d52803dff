# SPDX-License-Identifier: Apache-2.0
"""EndpointSlice: some of the endpoints of a Service, all of one address family and with the same ports.

Fields and meanings are those of ``discovery.k8s.io/v1 EndpointSlice`` (Kubernetes API reference; documentation
"EndpointSlices"). A Service's slices carry its name in the label ``kubernetes.io/service-name``.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from sdn.model.meta import ObjectMeta
from sdn.model.names import (
    PROTOCOLS,
    InvalidObjectError,
    check_dns_label,
    check_dns_subdomain,
    check_label_key,
    check_label_value,
    check_port,
    check_unicast_address,
)
from sdn.model.reading import Fields, check_choice
from sdn.model.service import FAMILIES
from sdn.model.wire import wire_name

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
#: An address type that the switch cannot use: names instead of addresses.
FQDN = "FQDN"

MAX_ENDPOINTS = 1000
MAX_SLICE_PORTS = 100
MAX_ADDRESSES = 100
MAX_HINTS = 8


class SlicePort(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """A port of every endpoint of the slice; ``name`` is the name of the Service's port. ``port`` None: not
    said, so that nothing can be sent to it.
    """

    name: str = ""
    protocol: str
    port: int | None = None
    app_protocol: str = ""


class Conditions(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """What is known of an endpoint; None: unknown. Read them by :class:`SliceEndpoint`'s properties."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class HintName(msgspec.Struct, frozen=True, kw_only=True):
    """A zone or a node, by name."""

    name: str


class Hints(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """Who should use an endpoint: clients in these zones, clients on these nodes."""

    for_zones: tuple[HintName, ...] = ()
    for_nodes: tuple[HintName, ...] = ()


class TargetRef(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """The object behind an endpoint."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class SliceEndpoint(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """One endpoint. Its addresses are interchangeable; the first one is used, as kube-proxy does."""

    addresses: tuple[str, ...]
    conditions: Conditions = Conditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    hints: Hints | None = None
    target_ref: TargetRef | None = None

    @property
    def ready(self) -> bool:
        """May get new connections; unknown counts as ready."""
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        """Answers, be it terminating; unknown: when it is ready."""
        return self.ready if self.conditions.serving is None else self.conditions.serving

    @property
    def terminating(self) -> bool:
        """Is being ended; unknown counts as no."""
        return self.conditions.terminating is True

    @property
    def hint_zones(self) -> tuple[str, ...]:
        """The zones whose clients should use it; none: no hint."""
        return tuple(zone.name for zone in self.hints.for_zones) if self.hints else ()

    @property
    def hint_nodes(self) -> tuple[str, ...]:
        """The nodes whose clients should use it; none: no hint."""
        return tuple(node.name for node in self.hints.for_nodes) if self.hints else ()


class EndpointSlice(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """An EndpointSlice of a namespace. ``address_type`` is IPv4, IPv6 or FQDN."""

    KIND: ClassVar[str] = "EndpointSlice"
    API_VERSION: ClassVar[str] = "discovery.k8s.io/v1"
    NAMESPACED: ClassVar[bool] = True

    metadata: ObjectMeta
    address_type: str
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    @property
    def service(self) -> str:
        """The name of its Service, of the same namespace; empty: it belongs to none."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")

    @property
    def managed_by(self) -> str:
        """Who keeps the slice, from its label; empty: a person."""
        return self.metadata.labels.get(MANAGED_BY_LABEL, "")


def read_endpoint_slice(metadata: ObjectMeta, fields: Fields) -> EndpointSlice:
    """The checked slice. ``fields`` is the whole document. InvalidObjectError names the field."""
    address_type = fields.text("addressType")
    if not address_type:
        raise InvalidObjectError("addressType", f"must be given: {', '.join(FAMILIES)} or {FQDN}")
    check_choice("addressType", address_type, (*FAMILIES, FQDN))
    endpoints = fields.items("endpoints")
    if len(endpoints) > MAX_ENDPOINTS:
        raise InvalidObjectError("endpoints", f"{len(endpoints)} endpoints; at most {MAX_ENDPOINTS}")
    ports = fields.items("ports")
    if len(ports) > MAX_SLICE_PORTS:
        raise InvalidObjectError("ports", f"{len(ports)} ports; at most {MAX_SLICE_PORTS}")
    return EndpointSlice(
        metadata=metadata,
        address_type=address_type,
        endpoints=tuple(
            _read_endpoint(Fields(path, endpoint, "an endpoint"), address_type)
            for path, endpoint in endpoints
        ),
        ports=_read_ports([Fields(path, port, "an EndpointSlice's port") for path, port in ports]),
    )


def _read_ports(members: list[Fields]) -> tuple[SlicePort, ...]:
    ports: dict[str, SlicePort] = {}
    for fields in members:
        port = SlicePort(
            name=fields.text("name"),
            protocol=fields.choice("protocol", PROTOCOLS) or "TCP",
            port=fields.integer("port"),
            app_protocol=fields.text("appProtocol"),
        )
        fields.finish()
        if port.name:
            check_dns_label(fields.path("name"), port.name)
        if port.name in ports:
            raise InvalidObjectError(fields.path("name"), f"{port.name!r} is the name of another port, too")
        if port.port is not None:
            check_port(fields.path("port"), port.port)
        if port.app_protocol:
            check_label_key(fields.path("appProtocol"), port.app_protocol)
        ports[port.name] = port
    return tuple(ports.values())


def _read_endpoint(fields: Fields, address_type: str) -> SliceEndpoint:
    endpoint = SliceEndpoint(
        addresses=_read_addresses(fields, address_type),
        conditions=_read_conditions(fields.inner("conditions", "an endpoint's conditions")),
        hostname=fields.text("hostname"),
        node_name=fields.text("nodeName"),
        zone=fields.text("zone"),
        hints=_read_hints(fields.inner("hints", "an endpoint's hints")),
        target_ref=_read_target(fields.inner("targetRef", "an endpoint's targetRef")),
    )
    fields.finish(also=("deprecatedTopology",))
    if endpoint.hostname:
        check_dns_label(fields.path("hostname"), endpoint.hostname)
    if endpoint.node_name:
        check_dns_subdomain(fields.path("nodeName"), endpoint.node_name)
    return endpoint


def _read_addresses(fields: Fields, address_type: str) -> tuple[str, ...]:
    addresses = fields.texts("addresses")
    path = fields.path("addresses")
    if not addresses:
        raise InvalidObjectError(path, "at least one address must be given")
    if len(addresses) > MAX_ADDRESSES:
        raise InvalidObjectError(path, f"{len(addresses)} addresses; at most {MAX_ADDRESSES}")
    for index, text in enumerate(addresses):
        place = f"{path}[{index}]"
        if address_type == FQDN:
            check_dns_subdomain(place, text.removesuffix("."))
        elif check_unicast_address(place, text).version != FAMILIES[address_type]:
            raise InvalidObjectError(place, f"{text!r} is no {address_type} address, as addressType says")
    return addresses


def _read_conditions(fields: Fields | None) -> Conditions:
    if fields is None:
        return Conditions()
    conditions = Conditions(
        ready=fields.boolean("ready"),
        serving=fields.boolean("serving"),
        terminating=fields.boolean("terminating"),
    )
    fields.finish()
    return conditions


def _read_hints(fields: Fields | None) -> Hints | None:
    if fields is None:
        return None
    zones = _read_hint_names(fields, "forZones", "a zone hint")
    for index, zone in enumerate(zones):
        check_label_value(f"{fields.path('forZones')}[{index}].name", zone.name)
    nodes = _read_hint_names(fields, "forNodes", "a node hint")
    for index, node in enumerate(nodes):
        check_dns_subdomain(f"{fields.path('forNodes')}[{index}].name", node.name)
    fields.finish()
    return Hints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


def _read_hint_names(fields: Fields, name: str, what: str) -> tuple[HintName, ...]:
    members = fields.items(name)
    if len(members) > MAX_HINTS:
        raise InvalidObjectError(fields.path(name), f"{len(members)} hints; at most {MAX_HINTS}")
    names: list[HintName] = []
    for path, member in members:
        hint = Fields(path, member, what)
        text = hint.text("name")
        hint.finish()
        if not text:
            raise InvalidObjectError(hint.path("name"), "must be given")
        if HintName(name=text) in names:
            raise InvalidObjectError(hint.path("name"), f"{text!r} is given twice")
        names.append(HintName(name=text))
    return tuple(names)


def _read_target(fields: Fields | None) -> TargetRef | None:
    if fields is None:
        return None
    target = TargetRef(
        kind=fields.text("kind"),
        namespace=fields.text("namespace"),
        name=fields.text("name"),
        uid=fields.text("uid"),
    )
    fields.finish(also=("apiVersion", "fieldPath", "resourceVersion"))
    return target
