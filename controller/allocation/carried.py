# SPDX-License-Identifier: Apache-2.0
"""What a Service that is declared again keeps, though the declaration does not say it.

A declaration names what its author cares about; addresses and ports that were chosen for him are in the stored
Service only. They stay for as long as they make sense, so applying the same file twice changes nothing. What
must stay is checked. Source: Kubernetes, "Service" (fields that the API server fills in) and "IPv4/IPv6 dual-stack".
"""

from __future__ import annotations

from msgspec.structs import replace

from sdn.model import InvalidObjectError
from sdn.model.service import EXTERNAL_NAME, NO_CLUSTER_IP, ServicePortSpec, ServiceSpec

SINGLE_STACK = "SingleStack"


def carried(spec: ServiceSpec, before: ServiceSpec) -> ServiceSpec:
    """``spec`` as declared, with what it keeps of the complete ``before``. InvalidObjectError for a change that
    is not possible.
    """
    if EXTERNAL_NAME in (spec.type, before.type):
        return spec
    policy = spec.ip_family_policy or before.ip_family_policy
    most = 1 if policy == SINGLE_STACK else 2
    addresses = _longer(spec.cluster_ips or _alone(spec.cluster_ip), before.cluster_ips, most)
    families = _longer(spec.ip_families, before.ip_families, most)
    _check_same("spec.clusterIP", addresses, before.cluster_ips)
    _check_same("spec.ipFamilies", families, before.ip_families)
    ports = spec.ports
    if spec.uses_node_ports and before.uses_node_ports:
        ports = _with_node_ports(spec.ports, before.ports)
    health_check = spec.health_check_node_port
    if spec.needs_health_check_node_port and before.needs_health_check_node_port:
        health_check = health_check or before.health_check_node_port
        if before.health_check_node_port not in (0, health_check):
            raise InvalidObjectError(
                "spec.healthCheckNodePort",
                f"{health_check} cannot take the place of {before.health_check_node_port}: it is kept while "
                "the Service needs one",
            )
    return replace(
        spec,
        ip_family_policy=policy,
        cluster_ip=addresses[0] if addresses else "",
        cluster_ips=addresses,
        ip_families=families,
        ports=ports,
        health_check_node_port=health_check,
    )


def _alone(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _longer(given: tuple[str, ...], had: tuple[str, ...], most: int) -> tuple[str, ...]:
    """What is given; where that is only the beginning of what it had, all that it had, ``most`` at most."""
    return had[:most] if had[: len(given)] == given else given


def _check_same(path: str, now: tuple[str, ...], had: tuple[str, ...]) -> None:
    """One may come or go at the end, the others stay."""
    for index, (one, other) in enumerate(zip(now, had, strict=False)):
        if one != other:
            where = path if path == "spec.clusterIP" and not index else f"{path.removesuffix('s')}s[{index}]"
            raise InvalidObjectError(
                where,
                f"{one} cannot take the place of {other}: it is kept for the Service's life"
                + ("; delete the Service first" if NO_CLUSTER_IP not in (one, other) else ""),
            )


def _with_node_ports(
    ports: tuple[ServicePortSpec, ...], before: tuple[ServicePortSpec, ...]
) -> tuple[ServicePortSpec, ...]:
    """Ports without a node port get the one that the port of their name had, unless another port has it now."""
    used = {(port.protocol or "TCP", port.node_port) for port in ports if port.node_port}
    had = {port.name: port.node_port for port in before}
    done = []
    for port in ports:
        kept = had.get(port.name, 0)
        key = port.protocol or "TCP", kept
        if not port.node_port and kept and key not in used:
            used.add(key)
            done.append(replace(port, node_port=kept))
        else:
            done.append(port)
    return tuple(done)
