# SPDX-License-Identifier: Apache-2.0
"""The Services of the cluster, as values, and who is told when one changes.

    table.subscribe(callback)

calls `callback` at once with everything that is known, and from then on with each change, in order, without a gap.
Callbacks are called by the thread that brings the change: they note what is new and return; they must not call the
table. What comes first may be incomplete or old, until it is said to be confirmed.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.ipam import Address
from sdn.v1 import controller_pb2 as messages

#: (namespace, name)
Key = tuple[str, str]
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
_LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a Service. `protocol` is "TCP", "UDP" or "SCTP"; `name` may be empty; `node_port` 0: none."""

    name: str
    protocol: str
    port: int
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a Service. `ports`: the number behind each port of the Service, by the port's name."""

    address: Address
    hostname: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """One Service. What the fields mean is told with `ServiceState` in proto/sdn/v1/controller.proto.

    endpoints   of a headless Service, whose name stands for them; all others' are the switch's business, and may change
                many times a second without anything to do here
    """

    namespace: str
    name: str
    type: str = "ClusterIP"
    cluster_ips: tuple[Address, ...] = ()
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    external_name: str = ""
    ports: tuple[Port, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    external_local: bool = False
    health_check_node_port: int = 0
    local_endpoints: int = 0
    announce: bool = False

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def headless(self) -> bool:
        """It has no address of its own: its name stands for its endpoints."""
        return not self.cluster_ips and self.type != "ExternalName"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new: Services that came or changed, and the keys of those that are gone.

    confirmed   a controller has told everything since the agent started; before, it is as it was when the last agent
                ended
    """

    changed: tuple[Service, ...] = ()
    removed: tuple[Key, ...] = ()
    confirmed: bool = False


class ServiceTable:
    """All Services that are known. Safe in every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[Key, Service] = {}
        self._subscribers: list[Callable[[Changes], None]] = []
        self._confirmed = False

    def subscribe(self, callback: Callable[[Changes], None]) -> None:
        """Call `callback` with all that is known now, then with every change."""
        with self._lock:
            self._subscribers.append(callback)
            callback(Changes(tuple(self._services.values()), (), self._confirmed))

    def services(self) -> dict[Key, Service]:
        """All of them, a copy."""
        with self._lock:
            return dict(self._services)

    def apply(
        self, changed: Iterable[Service] = (), removed: Iterable[Key] = (), *, confirmed: bool = False
    ) -> Changes:
        """Take changes in; those that change nothing are left out of what is told, and of what is returned.

        confirmed  with these, everything is as a controller says
        """
        with self._lock:
            newly, self._confirmed = confirmed and not self._confirmed, confirmed or self._confirmed
            gone = tuple(key for key in removed if self._services.pop(key, None) is not None)
            new = []
            for service in changed:
                if self._services.get(service.key) != service:
                    self._services[service.key] = service
                    new.append(service)
            changes = Changes(tuple(new), gone, self._confirmed)
            if new or gone or newly:
                for callback in self._subscribers:
                    callback(changes)
        return changes


def from_message(state: messages.ServiceState) -> Service:
    """The wire's form as a value. ValueError for what is no address, and for ports that the node's stack would refuse
    (together with those of all other Services).
    """
    for port in state.ports:
        if port.protocol not in PROTOCOLS or not 0 < port.port <= _LAST_PORT or port.node_port > _LAST_PORT:
            raise ValueError(f"{port.protocol!r} {port.port} {port.node_port} is no port")
    listed = state.endpoints if not state.cluster_ips else ()
    return Service(
        namespace=state.namespace,
        name=state.name,
        type=state.type,
        cluster_ips=_addresses(state.cluster_ips),
        external_ips=_addresses(state.external_ips),
        load_balancer_ips=_addresses(state.load_balancer_ips),
        external_name=state.external_name,
        ports=tuple(Port(port.name, port.protocol, port.port, port.node_port) for port in state.ports),
        endpoints=tuple(
            Endpoint(ipaddress.ip_address(endpoint.address), endpoint.hostname, dict(endpoint.ports))
            for endpoint in listed
        ),
        external_local=state.external_local,
        health_check_node_port=state.health_check_node_port,
        local_endpoints=state.local_endpoints,
        announce=state.announce,
    )


def _addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    return tuple(ipaddress.ip_address(text) for text in texts)
