# SPDX-License-Identifier: Apache-2.0
"""The ends of a connection as people write them, and what policies see there: pods, or addresses that are no pods'.

A Service stands for its endpoints, since policies are asked after it was translated. A pod on its node's network is an
address of its node.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from controller.engine import Engine
from controller.errors import NotFoundError, PreconditionError
from controller.policies import policy_pod
from controller.records import AttachmentRecord
from sdn.model import InvalidObjectError, Pod, Service
from sdn.model.address import Address
from sdn.model.service import EXTERNAL_NAME, LOCAL, ServicePortSpec
from sdn.policy.values import PolicyPod, Protocol
from sdn.policy.verdict import End, end_text
from sdn.services.endpoints import ServiceEndpoint

#: Endpoints of a Service that are looked at.
MOST_ENDPOINTS: Final = 100

_POD, _NODE, _SERVICE = "pod/", "node/", "service/"
_FORMS = "NAMESPACE/POD, POD, pod/NAMESPACE/POD, node/NAME, an address"


@dataclass(frozen=True, slots=True)
class Place:
    """One end in one family. ``text``: as people name it. ``node``: where it is; empty: outside."""

    text: str
    end: End
    address: Address
    node: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes: a place in each family, and the port there."""

    places: tuple[Place, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Targets:
    """One target, or those of a Service, the first few. ``endpoints``: how many the Service has; 0: it is none."""

    chosen: tuple[Target, ...]
    endpoints: int = 0


class Ends:
    """Finds ends, as the cluster is now. Used once, in the asyncio thread."""

    def __init__(self, engine: Engine, namespace: str) -> None:
        """``namespace``: of names without one."""
        self._engine = engine
        self._cluster = engine.cluster
        self._namespace = namespace

    def source(self, text: str) -> tuple[Place, ...]:
        """Who opens the connection, in each family. InvalidObjectError, NotFoundError, PreconditionError."""
        if text.startswith(_SERVICE):
            raise InvalidObjectError(
                "source", f"{text!r}: a Service opens no connections; say one of its pods"
            )
        return self._places(text, "source", _FORMS)

    def targets(self, text: str, protocol: Protocol | None, port: int, node: str) -> Targets:
        """Where it goes. ``protocol`` None: ICMP, which has no ports. ``node`` is the source's: some Services have
        their clients kept to endpoints of that. InvalidObjectError, NotFoundError, PreconditionError.
        """
        if not text.startswith(_SERVICE):
            if protocol is not None and not port:
                raise InvalidObjectError(
                    "port", f"{protocol.name} needs the port that the connection goes to"
                )
            places = self._places(text, "destination", f"{_FORMS}, service/NAMESPACE/NAME")
            return Targets((Target(places, port),))
        if protocol is None:
            raise InvalidObjectError("protocol", "a Service passes on no ICMP; say one of its endpoints")
        space, _, name = text.removeprefix(_SERVICE).rpartition("/")
        return self._of_service(space or self._namespace, name, protocol, port, node)

    # Pods, nodes and addresses.

    def _places(self, text: str, field: str, forms: str) -> tuple[Place, ...]:
        address = _address(text)
        if address is not None:
            self._refuse_services(address, field)
            return (self._at(address),)
        parts = text.removeprefix(_POD).split("/") if text.count("/") == 2 else text.split("/")
        if not all(parts) or len(parts) > 2:
            raise InvalidObjectError(field, f"{text!r} is none of {forms}")
        if text.startswith(_NODE):
            return self._of_node(parts[1])
        return self._of_pod(parts[0] if len(parts) == 2 else self._namespace, parts[-1])

    def _at(self, address: Address) -> Place:
        """Whoever has an address: a pod, a node, or somebody outside."""
        text = str(address)
        record = self._cluster.attachment_at(text)
        if record is not None:
            return _at_pod(policy_pod(self._cluster, record), address)
        node = self._cluster.node_at(text)
        return Place(f"{_NODE}{node}" if node else text, address, address, node)

    def _refuse_services(self, address: Address, field: str) -> None:
        """Policies never see an address of Services, so nothing they say of it would be true."""
        network, text = self._engine.services, str(address)
        if not any(
            ipaddress.ip_address(text) in one
            for one in (*network.service_ranges, *network.load_balancer_ranges)
        ):
            return
        say = "none has it"
        for (namespace, name), value in self._cluster.objects["Service"].items():
            if isinstance(value, Service):
                given = self._engine.allocation.load_balancer_addresses(namespace, name)
                if text in value.spec.addresses or address in given:
                    say = f"say service/{namespace}/{name}"
                    break
        raise InvalidObjectError(
            field, f"{text} is an address of Services, whose endpoints are what policies see: {say}"
        )

    def _of_node(self, name: str) -> tuple[Place, ...]:
        record = self._cluster.nodes.get(name)
        if record is None:
            raise NotFoundError(f"Node {name} is not registered")
        addresses = sorted(map(Address.parse, record.addresses), key=lambda one: one.version)
        return tuple(Place(f"{_NODE}{name}", address, address, name) for address in addresses)

    def _of_pod(self, namespace: str, name: str) -> tuple[Place, ...]:
        declared = self._cluster.objects["Pod"].get((namespace, name))
        if isinstance(declared, Pod) and declared.host_network:
            if declared.node_name not in self._cluster.nodes:
                raise PreconditionError(f"Pod {namespace}/{name}: its node is not registered")
            return self._of_node(declared.node_name)
        attachments = self._cluster.attachments_of(namespace, name)
        if not attachments:
            if declared is None:
                raise NotFoundError(f"Pod {namespace}/{name} does not exist")
            raise PreconditionError(f"Pod {namespace}/{name} is not attached: it has no address yet")
        found: dict[int, Place] = {}
        for pod in (policy_pod(self._cluster, record) for record in _current(attachments)):
            for address in pod.addresses:
                found.setdefault(address.version, _at_pod(pod, address))
        return tuple(found[version] for version in sorted(found))

    # Services.

    def _of_service(self, namespace: str, name: str, protocol: Protocol, port: int, node: str) -> Targets:
        service = self._cluster.objects["Service"].get((namespace, name))
        if not isinstance(service, Service):
            raise NotFoundError(f"Service {namespace}/{name} does not exist")
        if service.spec.type == EXTERNAL_NAME:
            where = service.spec.external_name
            raise PreconditionError(
                f"Service {namespace}/{name} is another name for {where}, and has no endpoint"
            )
        wanted = _service_port(service, protocol, port)
        endpoints = self._engine.loadbalancing.index.endpoints((namespace, name))
        if node and service.spec.internal_traffic_policy == LOCAL:
            endpoints = tuple(endpoint for endpoint in endpoints if endpoint.node == node)
        served = [
            (endpoint, number)
            for endpoint in _in_use(endpoints)
            for port_name, its, number in endpoint.ports
            if (port_name, its.name) == (wanted.name, protocol.name)
        ]
        if not served:
            raise PreconditionError(f"Service {namespace}/{name} has no endpoint that could answer")
        served.sort(key=lambda one: (one[0].target, one[0].address.version, one[0].address.value))
        return Targets(
            tuple(Target((self._at(one.address),), number) for one, number in served[:MOST_ENDPOINTS]),
            len(served),
        )


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except ValueError:
        return None


def _current(attachments: list[AttachmentRecord]) -> list[AttachmentRecord]:
    """While a sandbox is replaced a pod has two sets of attachments: those of the newest container count."""
    newest = attachments[0].container_id
    return sorted(
        (record for record in attachments if record.container_id == newest),
        key=lambda record: record.interface_name,
    )


def _at_pod(pod: PolicyPod, address: Address) -> Place:
    return Place(end_text(pod), pod, address, pod.node)


def _service_port(service: Service, protocol: Protocol, port: int) -> ServicePortSpec:
    """The port of a Service that is meant; where it has only one of the protocol none need be said."""
    named = f"Service {service.metadata.namespace}/{service.metadata.name}"
    of_protocol = [one for one in service.spec.ports if (one.protocol or "TCP") == protocol.name]
    for one in of_protocol:
        if one.port == port or (not port and len(of_protocol) == 1):
            return one
    known = ", ".join(f"{one.port}/{one.protocol or 'TCP'}" for one in service.spec.ports) or "none"
    if not port and of_protocol:
        raise InvalidObjectError("port", f"which? {named} has {known}")
    raise InvalidObjectError("port", f"{named} has no port {port or ''}/{protocol.name}; it has {known}")


def _in_use(endpoints: tuple[ServiceEndpoint, ...]) -> list[ServiceEndpoint]:
    """Those that get connections: ready ones; without any, those that answer while they end."""
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    return ready or [endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating]
