# SPDX-License-Identifier: Apache-2.0
"""Which endpoints of a Service a node uses, and for which addresses and ports.

For each port of a Service and each family, from all endpoints that have this port:

- *Usable* are the ready ones. Where there is no ready one, those that are terminating but still serve; this is
  decided for all endpoints and for the node's own separately.
- The policy Cluster uses the usable ones, narrowed by topology: to those that are meant for this node when each ready
  endpoint has a hint for nodes and one of them names this node; else, in the same way, by hints for zones; else not.
  Where a Service asks for trafficDistribution and its endpoints carry no hints, an endpoint is meant for its own zone
  (and, with PreferSameNode, its own node), as Kubernetes' controller writes it into the hints.
- The policy Local uses the usable ones of this node, whatever topology says.

Source: Kubernetes documentation, "Virtual IPs and Service Proxies" (traffic policies, traffic to terminating
endpoints, traffic distribution), "Topology Aware Routing" (safeguards) and "EndpointSlices" (conditions).

:class:`Selection` does once what is the same for every node; :func:`service_ports` is for callers with one node.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sdn.model import Service, ServicePortSpec
from sdn.model.service import EXTERNAL_NAME, LOAD_BALANCER, LOCAL, NODE_PORT
from sdn.pipeline.owner import Owner
from sdn.pipeline.service import Endpoint, Frontend, Protocol, ServicePort, group_base
from sdn.pipeline.topology import Address, Range
from sdn.services.endpoints import ServiceEndpoint

_DISTRIBUTIONS_BY_ZONE = ("PreferClose", "PreferSameZone", "PreferSameNode")
_PREFER_SAME_NODE = "PreferSameNode"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as Services see it. ``zone`` is empty when it is not known."""

    name: str
    zone: str
    addresses: tuple[Address, ...]


def service_ports(
    service: Service,
    number: int,
    load_balancer_ips: Sequence[Address],
    endpoints: Sequence[ServiceEndpoint],
    node: NodeView,
) -> tuple[ServicePort, ...]:
    """What the node's switch must serve: by port, then by family. None for a Service that is headless, an
    ExternalName or has no address yet.

    ``number`` is the Service's number in the cluster (see :func:`sdn.pipeline.service.group_base`, which raises
    ValueError). The order of ``endpoints`` and ``load_balancer_ips`` does not matter.
    """
    return Selection(service, number, load_balancer_ips, endpoints).ports(node)


def local_ready(service: Service, endpoints: Iterable[ServiceEndpoint], node: NodeView) -> int:
    """How many endpoints on the node are ready: what a health check of healthCheckNodePort is told. One that has
    addresses of two families counts once.
    """
    publish = service.spec.publish_not_ready_addresses
    return len(
        {
            endpoint.target or endpoint.address
            for endpoint in endpoints
            if node.name and endpoint.node == node.name and (endpoint.ready or publish)
        }
    )


class _Candidate(NamedTuple):
    """An endpoint as one port of the Service sees it."""

    endpoint: Endpoint
    node: str
    ready: bool
    zones: tuple[str, ...]
    nodes: tuple[str, ...]


class _Candidates:
    """The usable endpoints of one port in one family, for any node."""

    def __init__(self, found: Iterable[_Candidate]) -> None:
        best: dict[tuple[int, int], _Candidate] = {}
        for one in found:
            key = one.endpoint.address.value, one.endpoint.port
            other = best.get(key)
            if other is None or _rank(one) > _rank(other):
                best[key] = one
        ordered = [best[key] for key in sorted(best)]
        self._ready = [one for one in ordered if one.ready]
        self._all = tuple(one.endpoint for one in self._ready or ordered)
        self._by_node = _by_hint(self._ready, lambda one: one.nodes)
        self._by_zone = _by_hint(self._ready, lambda one: one.zones)
        self._on_node: dict[str, list[_Candidate]] = {}
        for one in ordered:
            self._on_node.setdefault(one.node, []).append(one)

    def cluster(self, node: NodeView) -> tuple[Endpoint, ...]:
        """For the policy Cluster."""
        return self._by_node.get(node.name) or self._by_zone.get(node.zone) or self._all

    def local(self, node: NodeView) -> tuple[Endpoint, ...]:
        """For the policy Local. An endpoint whose node is not known is on none."""
        own = self._on_node.get(node.name, []) if node.name else []
        return tuple(one.endpoint for one in own if one.ready) or tuple(one.endpoint for one in own)

    def elsewhere(self, node: NodeView) -> bool:
        """Whether there are any that are not on this node."""
        return any(not name or name != node.name for name in self._on_node)


def _rank(one: _Candidate) -> tuple[bool, str, bool, tuple[str, ...], tuple[str, ...]]:
    """Of two endpoints with one address and port the greater counts: ready, on a known node."""
    return one.ready, one.node, one.endpoint.pod, one.zones, one.nodes


def _by_hint(
    ready: Sequence[_Candidate], hints: Callable[[_Candidate], tuple[str, ...]]
) -> dict[str, tuple[Endpoint, ...]]:
    """The endpoints that are meant for each zone or node; nothing when one is meant for none at all."""
    meant: dict[str, list[Endpoint]] = {}
    for one in ready:
        names = hints(one)
        if not names:
            return {}
        for name in names:
            meant.setdefault(name, []).append(one.endpoint)
    return {name: tuple(endpoints) for name, endpoints in meant.items()}


class Selection:
    """A Service with its endpoints, made ready for asking what each node uses."""

    def __init__(
        self,
        service: Service,
        number: int,
        load_balancer_ips: Sequence[Address],
        endpoints: Sequence[ServiceEndpoint],
    ) -> None:
        self._spec = service.spec
        self._owner = Owner(service.KIND, service.metadata.namespace, service.metadata.name)
        self._number = number
        self._external_local = service.spec.external and service.spec.external_traffic_policy == LOCAL
        self._internal_local = service.spec.internal_traffic_policy == LOCAL
        self._external_ips = tuple(map(Address.parse, service.spec.external_ips))
        self._load_balancer_ips = tuple(load_balancer_ips) if service.spec.type == LOAD_BALANCER else ()
        self._source_ranges = _source_ranges(service.spec.load_balancer_source_ranges)
        self._parts: list[tuple[int, ServicePortSpec, Address, _Candidates]] = []
        if service.spec.type == EXTERNAL_NAME:
            return
        hinted = any(endpoint.hint_zones or endpoint.hint_nodes for endpoint in endpoints)
        distribution = "" if hinted else service.spec.traffic_distribution
        addresses = sorted(map(Address.parse, service.spec.addresses), key=_place)
        for index, port in enumerate(service.spec.ports):
            for address in addresses:
                found = _candidates(service, port, address.version, endpoints, distribution)
                self._parts.append((index, port, address, _Candidates(found)))

    def ports(self, node: NodeView) -> tuple[ServicePort, ...]:
        """See :func:`service_ports`."""
        return tuple(self._port(*part, node) for part in self._parts)

    def _port(
        self, index: int, port: ServicePortSpec, address: Address, candidates: _Candidates, node: NodeView
    ) -> ServicePort:
        frontends = self._frontends(port, address, node)
        external = any(frontend.external for frontend in frontends)
        uses_local = self._internal_local or (self._external_local and external)
        return ServicePort(
            owner=self._owner,
            group_base=group_base(self._number, index, address.version),
            version=address.version,
            protocol=Protocol[port.protocol or "TCP"],
            frontends=frontends,
            # Clients inside of the cluster are served so at external addresses under either policy.
            endpoints=candidates.cluster(node) if external or not self._internal_local else (),
            local_endpoints=candidates.local(node) if uses_local else (),
            elsewhere=uses_local and candidates.elsewhere(node),
            internal_local=self._internal_local,
            external_local=self._external_local,
            affinity_seconds=self._spec.affinity_seconds,
        )

    def _frontends(self, port: ServicePortSpec, address: Address, node: NodeView) -> tuple[Frontend, ...]:
        """ClusterIP, LoadBalancer addresses, externalIPs, NodePort. An address that is the node's own is served
        to pods as it is; what the node itself and the outside send there comes in as a NodePort does.
        """
        version = address.version
        found: dict[tuple[Address | None, int], Frontend] = {
            (address, port.port): Frontend(address, port.port, external=False)
        }
        ranges = tuple(one for one in self._source_ranges if one.version == version)
        restricted = bool(self._source_ranges)
        for own in sorted({one for one in self._load_balancer_ips if one.version == version}, key=_place):
            for place in (own, None) if own in node.addresses else (own,):
                front = Frontend(place, port.port, external=True, source_ranges=ranges, restricted=restricted)
                found.setdefault((place, port.port), front)
        for own in sorted({one for one in self._external_ips if one.version == version}, key=_place):
            for place in (own, None) if own in node.addresses else (own,):
                found.setdefault((place, port.port), Frontend(place, port.port, external=True))
        if port.node_port and self._spec.type in (NODE_PORT, LOAD_BALANCER):
            found.setdefault((None, port.node_port), Frontend(None, port.node_port, external=True))
        return tuple(found.values())


def _candidates(
    service: Service,
    port: ServicePortSpec,
    version: int,
    endpoints: Iterable[ServiceEndpoint],
    distribution: str,
) -> Iterable[_Candidate]:
    """The endpoints of the family that have the port and may be used: ready, or terminating and serving."""
    publish = service.spec.publish_not_ready_addresses
    protocol, port_name = Protocol[port.protocol or "TCP"], port.name
    by_zone = distribution in _DISTRIBUTIONS_BY_ZONE
    by_node = distribution == _PREFER_SAME_NODE
    for one in endpoints:
        ready = one.ready or publish
        if one.address.version != version or not (ready or (one.serving and one.terminating)):
            continue
        for name, of, number in one.ports:
            if of is protocol and name == port_name:
                zones = (one.zone,) if by_zone and one.zone else one.hint_zones
                nodes = (one.node,) if by_node and one.node else one.hint_nodes
                yield _Candidate(Endpoint(one.address, number, one.pod), one.node, ready, zones, nodes)
                break


def _source_ranges(texts: Iterable[str]) -> tuple[Range, ...]:
    """The ranges of both families, none within or beside another that could be one with it."""
    networks = [ipaddress.ip_network(text.strip(), strict=False) for text in texts]
    collapsed = [
        *ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network)),
    ]
    return tuple(Range.parse(str(network)) for network in collapsed)


def _place(address: Address) -> tuple[int, int]:
    return address.version, address.value
