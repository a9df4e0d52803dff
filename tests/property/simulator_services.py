# SPDX-License-Identifier: Apache-2.0
"""Random Services of a random cluster, who connects to them, and what must become of it.

The second half is a reference: what a node must do with a first packet, written from the words of
:class:`~sdn.pipeline.service.ServicePort` and of Kubernetes ("Virtual IPs and Service Proxies"), without a look at the
flows. It is slow, small and plain; the compiled switch is held against it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from sdn.pipeline.compiler import service_flows, switch_flows
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import (
    FIRST_MASQUERADE_PORT,
    GATEWAY_MAC,
    GATEWAY_PORT,
    HAIRPIN_ADDRESS,
    NODE_PORT_ADDRESS,
    ROUTER_MAC,
    TUNNEL_PORT,
)
from sdn.pipeline.service import Endpoint, Frontend, Protocol, ServicePort, group_base
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range, RemoteNode
from sdn.simulator.packet import Packet, sctp, tcp, udp

VERSIONS = (4, 6)
SERVICE_RANGES = (Range.parse("10.96.0.0/16"), Range.parse("fd00:10:96::/112"))
LOAD_BALANCER_RANGES = (Range.parse("192.168.77.0/24"), Range.parse("fd00:77::/112"))
_OUTSIDE_RANGES = {
    4: (Range.parse("192.0.2.0/25"), Range.parse("192.0.2.128/25"), Range.parse("10.244.0.0/16")),
    6: (Range.parse("2001:db8:1::/48"), Range.parse("2001:db8:2::/48"), Range.parse("fd00:10:244::/48")),
}
_OUTSIDE = {4: ("192.0.2.9", "192.0.2.200"), 6: ("2001:db8:1::9", "2001:db8:2::9")}
_ELSEWHERE = {4: "203.0.113.7", 6: "2001:db8:ffff::7"}
_CONSTRUCTORS = {Protocol.TCP: tcp, Protocol.UDP: udp, Protocol.SCTP: sctp}
#: Addresses of frontends by version: ClusterIPs, then those for clients outside.
_INTERNAL = {4: ("10.96.0.10", "10.96.0.11"), 6: ("fd00:10:96::a", "fd00:10:96::b")}
_EXTERNAL = {4: ("192.168.77.1", "198.51.100.5"), 6: ("fd00:77::1", "2001:db8:5::5")}
_PORTS = (53, 80)
_NODE_PORTS = (30053, 30080)


@dataclass(frozen=True, slots=True)
class Client:
    """Who connects. ``pod`` is the pod, when it is one."""

    kind: Kind
    address: Address
    pod: PodPort | None = None


class Kind(enum.Enum):
    """Where a client is: a pod of this node, this node itself, or elsewhere (routed here by the node)."""

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A first packet to a frontend of a Service's port."""

    client: Client
    port: ServicePort
    frontend: Frontend
    packet: Packet


@dataclass(frozen=True, slots=True)
class ServiceCase:
    """A compiled switch with Services."""

    local: LocalNode
    pods: tuple[PodPort, ...]
    peers: tuple[RemoteNode, ...]
    ports: tuple[ServicePort, ...]
    flows: tuple[Flow, ...] = field(repr=False)
    groups: tuple[Group, ...] = field(repr=False)

    def clients(self, version: int) -> Iterator[Client]:
        """One of each kind, and every pod."""
        for pod in self.pods:
            yield from (
                Client(Kind.POD, address, pod) for address in pod.addresses if address.version == version
            )
        gateway = next(one.gateway for one in self.local.pod_ranges if one.version == version)
        for address in (*self.local.addresses, gateway):
            if address.version == version:
                yield Client(Kind.NODE, address)
        yield from (Client(Kind.OUTSIDE, Address.parse(text)) for text in _OUTSIDE[version])

    def attempts(self) -> Iterator[Attempt]:
        """Every client at every frontend."""
        for port in self.ports:
            for frontend in port.frontends:
                for client in self.clients(port.version):
                    for target in self._targets(port, frontend, client):
                        yield Attempt(
                            client, port, frontend, first_packet(client, port.protocol, target, frontend.port)
                        )

    def _targets(self, port: ServicePort, frontend: Frontend, client: Client) -> Iterator[Address]:
        """The destination that the switch sees. A NodePort is at every node's address; for what comes by way of the
        node's own stack, that has made another address of it.
        """
        if frontend.address is not None:
            yield frontend.address
        elif client.kind is not Kind.POD:
            yield Address(port.version, NODE_PORT_ADDRESS[port.version])
        else:
            nodes: tuple[LocalNode | RemoteNode, ...] = (self.local, *self.peers)
            yield from (one for node in nodes for one in node.addresses if one.version == port.version)


def first_packet(
    client: Client, protocol: Protocol, target: Address, number: int, **more: int | str
) -> Packet:
    """The first packet of a connection, as it enters the switch."""
    names = ("ip_src", "ip_dst") if target.version == 4 else ("ipv6_src", "ipv6_dst")
    name = protocol.name.lower()
    values: dict[str, int | str] = dict(zip(names, (client.address.value, target.value), strict=True))
    if more.get("ip_frag") != 3:
        values |= {f"{name}_src": 40000, f"{name}_dst": number}
    if protocol is Protocol.TCP:
        values["tcp_flags"] = 2
    if client.pod is not None:
        frame = {"in_port": client.pod.ofport, "eth_src": client.pod.mac, "eth_dst": GATEWAY_MAC}
    else:
        frame = {"in_port": GATEWAY_PORT, "eth_src": GATEWAY_MAC, "eth_dst": ROUTER_MAC}
    return _CONSTRUCTORS[protocol](**frame, **values, **more)


# Random Services.


def _ranges(index: int) -> tuple[Range, ...]:
    return Range.parse(f"10.244.{index}.0/24"), Range.parse(f"fd00:10:244:{index:x}::/64")


def _addresses(index: int) -> tuple[Address, ...]:
    return Address.parse(f"172.30.0.{10 + index}"), Address.parse(f"fd00:30::{10 + index}")


def _pod(node: int, number: int) -> PodPort:
    four, six = _ranges(node)
    host = 4 + number
    return PodPort(
        *("default", f"pod-{node}-{number}", f"c{number}", "eth0", 16 + number),
        *(0x0A58 << 32 | four.network + host, four.network + host, six.network + host),
    )


def _address_of(pod: PodPort, version: int) -> Address:
    return next(one for one in pod.addresses if one.version == version)


@st.composite
def _endpoints(
    draw: st.DrawFn, version: int, pods: Sequence[PodPort], nodes: int
) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]:
    """Endpoints of all kinds, and those of them that are on this node."""
    here = [Endpoint(_address_of(pod, version), port, True) for pod in pods for port in (8080, 53)]
    own = [one for one in _addresses(1) if one.version == version]
    here += [Endpoint(address, 9100, False) for address in own]
    away = [
        Endpoint(_address_of(_pod(node, number), version), 8080, True)
        for node in range(2, nodes + 1)
        for number in (0, 1)
    ]
    away += [
        Endpoint(address, 9100, False)
        for node in range(2, nodes + 1)
        for address in _addresses(node)
        if address.version == version
    ]
    away.append(Endpoint(Address.parse(_ELSEWHERE[version]), 443, False))
    local = draw(st.lists(st.sampled_from(here), unique=True, max_size=4))
    other = draw(st.lists(st.sampled_from(away), unique=True, max_size=4))
    return tuple(sorted([*local, *other], key=str)), tuple(sorted(local, key=str))


@st.composite
def _frontends(
    draw: st.DrawFn, version: int, taken: set[tuple[object, ...]], protocol: Protocol
) -> tuple[Frontend, ...]:
    """Addresses and ports that no other Service has."""
    chosen: list[Frontend] = []
    kinds = draw(st.lists(st.sampled_from(["cluster", "node", "external"]), min_size=1, max_size=3))
    for kind in kinds:
        texts = {"cluster": _INTERNAL, "external": _EXTERNAL}.get(kind)
        address = None if texts is None else Address.parse(draw(st.sampled_from(texts[version])))
        number = draw(st.sampled_from(_NODE_PORTS if address is None else _PORTS))
        place = (version, protocol, address, number)
        if place in taken:
            continue
        taken.add(place)
        restricted = kind == "external" and draw(st.booleans())
        ranges = draw(st.lists(st.sampled_from(_OUTSIDE_RANGES[version]), unique=True)) if restricted else []
        chosen.append(Frontend(address, number, kind != "cluster", tuple(ranges), restricted))
    return tuple(chosen)


@st.composite
def service_cases(draw: st.DrawFn) -> ServiceCase:
    """A node of a few, its pods, and the Services that it serves."""
    nodes = draw(st.integers(1, 3))
    pods = tuple(_pod(1, number) for number in range(draw(st.integers(0, 3))))
    local = LocalNode(
        "node-1",
        _ranges(1),
        _addresses(1),
        _addresses(1)[0],
        service_ranges=SERVICE_RANGES,
        load_balancer_ranges=LOAD_BALANCER_RANGES,
    )
    peers = tuple(
        RemoteNode(f"node-{index}", _ranges(index), _addresses(index), _addresses(index)[0])
        for index in range(2, nodes + 1)
    )
    taken: set[tuple[object, ...]] = set()
    ports = []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        version, protocol = draw(st.sampled_from(VERSIONS)), draw(st.sampled_from(list(Protocol)))
        endpoints, local_endpoints = draw(_endpoints(version, pods, nodes))
        ports.append(
            ServicePort(
                Owner("Service", "default", f"service-{number}"),
                group_base(number, 0, version),
                version,
                protocol,
                draw(_frontends(version, taken, protocol)),
                endpoints,
                local_endpoints,
                elsewhere=draw(st.booleans()) and not endpoints,
                internal_local=draw(st.booleans()),
                external_local=draw(st.booleans()),
                affinity_seconds=draw(st.sampled_from([0, 0, 60])),
            )
        )
    compiled = service_flows(ports)
    flows = switch_flows(local, pods, peers) + tuple(one for one in compiled if isinstance(one, Flow))
    groups = tuple(one for one in compiled if isinstance(one, Group))
    return ServiceCase(local, pods, peers, tuple(ports), flows, groups)


# What must become of it.


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a connection comes out: the port, its destination, and the source that the endpoint sees. ``source_port``
    is the lowest of those it may get, 0 when it keeps its own.
    """

    ofport: int
    endpoint: Endpoint
    source: Address
    source_port: int = 0
    tunnel: Address | None = None


REJECTED, DROPPED = "rejected", "dropped"


def keeps_source(attempt: Attempt) -> bool:
    """Whether a client outside is to be seen as itself, which only this node's endpoints can."""
    return attempt.frontend.external and attempt.port.external_local and attempt.client.kind is Kind.OUTSIDE


def only_local(attempt: Attempt) -> bool:
    """Whether only this node's endpoints may serve the client."""
    return keeps_source(attempt) or (not attempt.frontend.external and attempt.port.internal_local)


def verdict(case: ServiceCase, attempt: Attempt) -> str | frozenset[Arrival]:
    """What may become of a first packet: refused with an answer, dropped, or one of several arrivals."""
    client, port, frontend = attempt.client, attempt.port, attempt.frontend
    if frontend.restricted and not any(client.address in known for known in frontend.source_ranges):
        return DROPPED
    endpoints = port.local_endpoints if only_local(attempt) else port.endpoints
    if not endpoints:
        return DROPPED if port.endpoints or port.elsewhere else REJECTED
    masquerade = client.kind is Kind.OUTSIDE and not keeps_source(attempt)
    return frozenset(arrival(case, client, one, masquerade=masquerade) for one in endpoints)


def arrival(case: ServiceCase, client: Client, endpoint: Endpoint, *, masquerade: bool) -> Arrival:
    """How a client reaches an endpoint, and as whom."""
    version = endpoint.address.version
    hairpin = Address(version, HAIRPIN_ADDRESS[version])
    if client.kind is not Kind.POD and not endpoint.pod:
        # By way of the node's stack: under an address whose answers come back to the switch, save where the client's
        # own must be seen.
        source = hairpin if masquerade or client.kind is Kind.NODE else client.address
        return Arrival(GATEWAY_PORT, endpoint, source)
    source, source_port = client.address, 0
    if masquerade:
        own = case.local.own_address(version)
        assert own is not None
        source, source_port = own, FIRST_MASQUERADE_PORT
    elif client.address == endpoint.address:
        source = hairpin
    for pod in case.pods:
        if endpoint.address in pod.addresses:
            return Arrival(pod.ofport, endpoint, source, source_port)
    for peer in case.peers:
        if endpoint.address in peer.addresses or any(endpoint.address in known for known in peer.pod_ranges):
            return Arrival(TUNNEL_PORT, endpoint, source, source_port, peer.tunnel_address)
    return Arrival(GATEWAY_PORT, endpoint, source, source_port)
