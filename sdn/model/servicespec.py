# SPDX-License-Identifier: Apache-2.0
"""Reading and checking the ``spec`` of a Service, as a Kubernetes API server does.

First the fields, each by its type and its own form; then, on the spec with its defaults, what fields demand of
each other. Sources: Kubernetes API reference (v1 ServiceSpec), documentation "Service" and "IPv4/IPv6 dual-stack".
What needs the cluster (ranges, numbers that are taken) is the controller's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from typing import TypeVar

from sdn.model.names import (
    PROTOCOLS,
    InvalidObjectError,
    check_address,
    check_dns_label,
    check_dns_subdomain,
    check_label_key,
    check_labels,
    check_port,
    check_port_name,
    check_unicast_address,
)
from sdn.model.reading import Fields, check_choice
from sdn.model.service import (
    CLUSTER,
    CLUSTER_IP,
    EXTERNAL_NAME,
    FAMILIES,
    LOAD_BALANCER,
    LOCAL,
    MAX_AFFINITY_SECONDS,
    NO_CLUSTER_IP,
    NODE_PORT,
    SERVICE_TYPES,
    ClientIPConfig,
    ServicePortSpec,
    ServiceSpec,
    SessionAffinityConfig,
    defaulted_spec,
)

#: Ports of one Service that the switch can number.
MAX_SERVICE_PORTS = 512
#: The kubelet's port: an address of a node with it would be taken from the kubelet.
KUBELET_PORT = 10250
Key = TypeVar("Key", bound=Hashable)

_POLICIES = (CLUSTER, LOCAL)
_FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")


def read_service_spec(document: object) -> ServiceSpec:
    """The checked spec, as declared. InvalidObjectError names the field."""
    spec = _read(Fields("spec", document, "a Service's spec"))
    check_service_spec(defaulted_spec(spec))
    return spec


def _read(fields: Fields) -> ServiceSpec:
    spec = ServiceSpec(
        type=fields.choice("type", SERVICE_TYPES),
        selector=check_labels("spec.selector", fields.raw("selector")) or None,
        ports=tuple(
            _read_port(Fields(path, port, "a Service's port")) for path, port in fields.items("ports")
        ),
        cluster_ip=fields.text("clusterIP"),
        cluster_ips=fields.texts("clusterIPs"),
        ip_families=fields.texts("ipFamilies"),
        ip_family_policy=fields.choice("ipFamilyPolicy", _FAMILY_POLICIES),
        external_ips=fields.texts("externalIPs"),
        external_name=fields.text("externalName"),
        session_affinity=fields.choice("sessionAffinity", ("None", "ClientIP")),
        session_affinity_config=_read_affinity(fields),
        external_traffic_policy=fields.choice("externalTrafficPolicy", _POLICIES),
        internal_traffic_policy=fields.choice("internalTrafficPolicy", _POLICIES),
        health_check_node_port=fields.integer("healthCheckNodePort") or 0,
        load_balancer_ip=fields.text("loadBalancerIP"),
        load_balancer_class=fields.text("loadBalancerClass"),
        load_balancer_source_ranges=fields.texts("loadBalancerSourceRanges"),
        allocate_load_balancer_node_ports=fields.boolean("allocateLoadBalancerNodePorts"),
        publish_not_ready_addresses=fields.boolean("publishNotReadyAddresses") or False,
        traffic_distribution=fields.choice("trafficDistribution", _DISTRIBUTIONS),
    )
    fields.finish()
    return spec


def _read_port(fields: Fields) -> ServicePortSpec:
    number = fields.integer("port")
    if number is None:
        raise InvalidObjectError(fields.path("port"), "must be given")
    target = fields.raw("targetPort")
    port = ServicePortSpec(
        name=fields.text("name"),
        protocol=fields.choice("protocol", PROTOCOLS),
        app_protocol=fields.text("appProtocol"),
        port=check_port(fields.path("port"), number),
        target_port=fields.text("targetPort") if isinstance(target, str) else fields.integer("targetPort"),
        node_port=fields.integer("nodePort") or 0,
    )
    fields.finish()
    if port.name:
        check_dns_label(fields.path("name"), port.name)
    if isinstance(port.target_port, str) and port.target_port:
        check_port_name(fields.path("targetPort"), port.target_port)
    elif port.target_port:
        check_port(fields.path("targetPort"), int(port.target_port))
    if port.node_port:
        check_port(fields.path("nodePort"), port.node_port)
    if port.app_protocol:
        check_label_key(fields.path("appProtocol"), port.app_protocol)
    return port


def _read_affinity(spec: Fields) -> SessionAffinityConfig | None:
    config = spec.inner("sessionAffinityConfig", "a Service's sessionAffinityConfig")
    if config is None:
        return None
    client = config.inner("clientIP", "a Service's sessionAffinityConfig.clientIP")
    config.finish()
    if client is None:
        return SessionAffinityConfig()
    seconds = client.integer("timeoutSeconds")
    client.finish()
    if seconds is not None and not 1 <= seconds <= MAX_AFFINITY_SECONDS:
        raise InvalidObjectError(
            client.path("timeoutSeconds"), f"{seconds} must be 1 to {MAX_AFFINITY_SECONDS} seconds"
        )
    return SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=seconds))


def check_service_spec(spec: ServiceSpec) -> None:
    """What the fields of a spec with its defaults demand of each other. InvalidObjectError names the field."""
    _check_type(spec)
    _check_ports(spec)
    _check_families(spec)
    for index, text in enumerate(spec.external_ips):
        check_unicast_address(f"spec.externalIPs[{index}]", text)
    if spec.session_affinity == "None" and spec.session_affinity_config is not None:
        raise InvalidObjectError("spec.sessionAffinityConfig", "is only for sessionAffinity ClientIP")
    _check_policies(spec)
    _check_load_balancer(spec)


def _check_type(spec: ServiceSpec) -> None:
    if spec.type != EXTERNAL_NAME:
        if not spec.ports and not spec.headless:
            raise InvalidObjectError("spec.ports", "at least one port must be given")
        if spec.headless and spec.type != CLUSTER_IP:
            raise InvalidObjectError("spec.clusterIP", f"'None' is not possible for type {spec.type}")
        return
    if not spec.external_name:
        raise InvalidObjectError("spec.externalName", "must be given for type ExternalName")
    check_dns_subdomain("spec.externalName", spec.external_name.removesuffix("."))
    for field, given in (
        ("clusterIPs", spec.cluster_ips),
        ("ipFamilies", spec.ip_families),
        ("ipFamilyPolicy", spec.ip_family_policy),
    ):
        if given:
            raise InvalidObjectError(f"spec.{field}", "is not possible for type ExternalName")


def _check_ports(spec: ServiceSpec) -> None:
    if len(spec.ports) > MAX_SERVICE_PORTS:
        raise InvalidObjectError("spec.ports", f"{len(spec.ports)} ports; at most {MAX_SERVICE_PORTS}")
    names: dict[str, str] = {}
    numbers: dict[tuple[str, int], str] = {}
    node_ports: dict[tuple[str, int], str] = {}
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        if not port.name and len(spec.ports) > 1:
            raise InvalidObjectError(f"{path}.name", "must be given when there are several ports")
        if other := _other(names, port.name, path):
            raise InvalidObjectError(f"{path}.name", f"{port.name!r} is the name of {other}, too")
        if other := _other(numbers, (port.protocol, port.port), path):
            raise InvalidObjectError(f"{path}.port", f"{port.protocol} port {port.port} is {other}'s, too")
        if port.port == KUBELET_PORT and spec.type == LOAD_BALANCER:
            raise InvalidObjectError(f"{path}.port", f"{KUBELET_PORT} is the kubelet's port on every node")
        if not port.node_port:
            continue
        if spec.type not in (NODE_PORT, LOAD_BALANCER):
            raise InvalidObjectError(f"{path}.nodePort", f"is not possible for type {spec.type}")
        if other := _other(node_ports, (port.protocol, port.node_port), path):
            raise InvalidObjectError(
                f"{path}.nodePort", f"{port.protocol} node port {port.node_port} is {other}'s, too"
            )


def _other(seen: dict[Key, str], key: Key, path: str) -> str:
    """The path that had ``key`` before; empty: none, and from now on this one has it."""
    before = seen.setdefault(key, path)
    return before if before != path else ""


def _check_families(spec: ServiceSpec) -> None:
    if spec.type == EXTERNAL_NAME:
        return
    for index, family in enumerate(spec.ip_families):
        path = f"spec.ipFamilies[{index}]"
        check_choice(path, family, tuple(FAMILIES))
        if family in spec.ip_families[:index]:
            raise InvalidObjectError(path, f"{family} is given twice")
    if spec.cluster_ips and not spec.cluster_ip:
        raise InvalidObjectError("spec.clusterIPs", "must be empty when spec.clusterIP is not given")
    if spec.cluster_ips and spec.cluster_ips[0] != spec.cluster_ip:
        raise InvalidObjectError("spec.clusterIPs[0]", f"must be spec.clusterIP, {spec.cluster_ip!r}")
    if spec.cluster_ips == (NO_CLUSTER_IP,):
        if len(spec.ip_families) > 1 and spec.ip_family_policy == "SingleStack" and spec.selector:
            raise InvalidObjectError("spec.ipFamilyPolicy", "SingleStack does not go with two ipFamilies")
        return
    _check_cluster_ips(spec)
    for field, several in (("clusterIPs", spec.cluster_ips), ("ipFamilies", spec.ip_families)):
        if len(several) > 1 and spec.ip_family_policy == "SingleStack":
            raise InvalidObjectError("spec.ipFamilyPolicy", f"SingleStack does not go with two {field}")


def _check_cluster_ips(spec: ServiceSpec) -> None:
    versions: list[int] = []
    for index, text in enumerate(spec.cluster_ips):
        path = f"spec.clusterIPs[{index}]" if index else "spec.clusterIP"
        if text == NO_CLUSTER_IP:
            raise InvalidObjectError("spec.clusterIPs", "'None' must be the only one")
        version = check_unicast_address(path, text).version
        if version in versions:
            raise InvalidObjectError(path, f"a second IPv{version} address; one a family is possible")
        versions.append(version)
        if index < len(spec.ip_families) and FAMILIES[spec.ip_families[index]] != version:
            raise InvalidObjectError(
                path, f"{text!r} is no {spec.ip_families[index]} address, as spec.ipFamilies[{index}] says"
            )


def _check_policies(spec: ServiceSpec) -> None:
    if spec.external_traffic_policy and not spec.external:
        raise InvalidObjectError(
            "spec.externalTrafficPolicy",
            "is only for Services that are reached from outside: type NodePort or LoadBalancer, or externalIPs",
        )
    if spec.health_check_node_port:
        check_port("spec.healthCheckNodePort", spec.health_check_node_port)
        if not spec.needs_health_check_node_port:
            raise InvalidObjectError(
                "spec.healthCheckNodePort", "is only for type LoadBalancer with externalTrafficPolicy Local"
            )


def _check_load_balancer(spec: ServiceSpec) -> None:
    for field, given in (
        ("loadBalancerClass", spec.load_balancer_class),
        ("loadBalancerSourceRanges", spec.load_balancer_source_ranges),
        ("allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports is not None),
    ):
        if given and spec.type != LOAD_BALANCER:
            raise InvalidObjectError(f"spec.{field}", "is only for type LoadBalancer")
    if spec.load_balancer_class:
        check_label_key("spec.loadBalancerClass", spec.load_balancer_class)
    if spec.load_balancer_ip and spec.type == LOAD_BALANCER:
        check_address("spec.loadBalancerIP", spec.load_balancer_ip)
    for index, text in enumerate(spec.load_balancer_source_ranges):
        path = f"spec.loadBalancerSourceRanges[{index}]"
        if "/" not in text:
            raise InvalidObjectError(path, f"{text!r} is no range in CIDR notation")
        try:
            ipaddress.ip_network(text.strip(), strict=False)
        except ValueError as problem:
            raise InvalidObjectError(path, f"{text!r} is no range in CIDR notation: {problem}") from None
