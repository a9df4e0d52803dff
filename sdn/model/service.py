# SPDX-License-Identifier: Apache-2.0
"""Service: one name and one set of addresses for a changing set of endpoints.

Fields and meanings are those of ``v1 Service`` (Kubernetes API reference). What a declaration left out is empty,
0 or None until :func:`defaulted` fills in what an API server fills in without looking at the cluster; addresses,
node ports and families are chosen by the controller. ``status`` is not part of the value: it says what *is*.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from sdn.model.meta import ObjectMeta
from sdn.model.wire import wire_name

CLUSTER_IP = "ClusterIP"
NODE_PORT = "NodePort"
LOAD_BALANCER = "LoadBalancer"
EXTERNAL_NAME = "ExternalName"
SERVICE_TYPES = (CLUSTER_IP, NODE_PORT, LOAD_BALANCER, EXTERNAL_NAME)

#: The clusterIP of a headless Service.
NO_CLUSTER_IP = "None"
#: Values of the traffic policies.
CLUSTER = "Cluster"
LOCAL = "Local"
#: Families as ``ipFamilies`` and ``addressType`` spell them, with their IP versions.
FAMILIES = {"IPv4": 4, "IPv6": 6}
#: sessionAffinityConfig.clientIP.timeoutSeconds when it is not given, and at most: three hours, one day.
DEFAULT_AFFINITY_SECONDS = 10800
MAX_AFFINITY_SECONDS = 86400


class ServicePortSpec(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """A member of ``spec.ports``. ``target_port`` is a number, or the name of a port of the pods' containers;
    None: as ``port``. ``node_port`` 0: none yet.
    """

    name: str = ""
    protocol: str = ""
    app_protocol: str = ""
    port: int
    target_port: int | str | None = None
    node_port: int = 0


class ClientIPConfig(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """How long a client stays with its endpoint after its last connection, in seconds."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """What ``sessionAffinity`` needs to know more."""

    client_ip: ClientIPConfig | None = None


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """What a Service shall be."""

    type: str = ""
    selector: dict[str, str] | None = None
    ports: tuple[ServicePortSpec, ...] = ()
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    session_affinity: str = ""
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str = ""
    health_check_node_port: int = 0
    load_balancer_ip: str = ""
    load_balancer_class: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool | None = None
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""

    @property
    def headless(self) -> bool:
        """No address of its own: its name stands for its endpoints."""
        return self.cluster_ip == NO_CLUSTER_IP or self.cluster_ips == (NO_CLUSTER_IP,)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The cluster addresses that it has so far; none when it is headless."""
        if self.headless:
            return ()
        return self.cluster_ips or ((self.cluster_ip,) if self.cluster_ip else ())

    @property
    def external(self) -> bool:
        """Whether clients outside of the cluster may reach it, so that externalTrafficPolicy applies."""
        return self.type in (NODE_PORT, LOAD_BALANCER) or (
            self.type in ("", CLUSTER_IP) and bool(self.external_ips)
        )

    @property
    def uses_node_ports(self) -> bool:
        """Whether its ports shall have node ports."""
        return self.type == NODE_PORT or (
            self.type == LOAD_BALANCER and self.allocate_load_balancer_node_ports is not False
        )

    @property
    def needs_health_check_node_port(self) -> bool:
        """Whether load balancers ask each node if it has endpoints."""
        return self.type == LOAD_BALANCER and self.external_traffic_policy == LOCAL

    @property
    def affinity_seconds(self) -> int:
        """How long a client stays with its endpoint; 0: sessionAffinity is None."""
        if self.session_affinity != "ClientIP":
            return 0
        config = self.session_affinity_config
        seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
        return DEFAULT_AFFINITY_SECONDS if seconds is None else seconds


class Service(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name, omit_defaults=True):
    """A Service of a namespace."""

    KIND: ClassVar[str] = "Service"
    API_VERSION: ClassVar[str] = "v1"
    NAMESPACED: ClassVar[bool] = True

    metadata: ObjectMeta
    spec: ServiceSpec

    @property
    def headless(self) -> bool:
        """See :attr:`ServiceSpec.headless`."""
        return self.spec.headless

    @property
    def affinity_seconds(self) -> int:
        """See :attr:`ServiceSpec.affinity_seconds`."""
        return self.spec.affinity_seconds


def defaulted(service: Service) -> Service:
    """The Service with every default that does not depend on the cluster. Doing it twice changes nothing.

    Source: Kubernetes API reference, the fields' descriptions of v1 ServiceSpec and ServicePort.
    """
    return msgspec.structs.replace(service, spec=defaulted_spec(service.spec))


def defaulted_spec(spec: ServiceSpec) -> ServiceSpec:
    """:func:`defaulted` for the spec alone."""
    kind = spec.type or CLUSTER_IP
    affinity = spec.session_affinity or "None"
    config = spec.session_affinity_config
    if affinity == "ClientIP":
        seconds = spec.affinity_seconds or DEFAULT_AFFINITY_SECONDS
        if config is None or config.client_ip is None or config.client_ip.timeout_seconds is None:
            config = SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=seconds))
    internal = spec.internal_traffic_policy
    if not internal and kind != EXTERNAL_NAME:
        internal = CLUSTER
    external = spec.external_traffic_policy
    if not external and spec.external:
        external = CLUSTER
    allocate = spec.allocate_load_balancer_node_ports
    if allocate is None and kind == LOAD_BALANCER:
        allocate = True
    return msgspec.structs.replace(
        spec,
        type=kind,
        ports=tuple(_defaulted_port(port) for port in spec.ports),
        cluster_ips=spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ()),
        session_affinity=affinity,
        session_affinity_config=config,
        internal_traffic_policy=internal,
        external_traffic_policy=external,
        allocate_load_balancer_node_ports=allocate,
    )


def _defaulted_port(port: ServicePortSpec) -> ServicePortSpec:
    target = port.port if port.target_port in (None, 0, "") else port.target_port
    return msgspec.structs.replace(port, protocol=port.protocol or "TCP", target_port=target)
