# SPDX-License-Identifier: Apache-2.0
"""Which families a Service has: what it asks for against what the cluster has.

Source: Kubernetes, "IPv4/IPv6 dual-stack", section Services. A Service that asks for nothing has the cluster's
primary family; one that prefers two has as many as the cluster.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from controller.allocation.carried import SINGLE_STACK
from sdn.model import InvalidObjectError
from sdn.model.service import EXTERNAL_NAME, FAMILIES, ServiceSpec

_DUAL = "RequireDualStack"


def with_families(spec: ServiceSpec, cluster: Sequence[str], had: Sequence[str] = ()) -> ServiceSpec:
    """``spec`` with its ipFamilyPolicy and ipFamilies complete. ``cluster`` has the cluster's families, the primary
    one first. InvalidObjectError when it asks for what neither the cluster has nor itself ``had``.
    """
    if spec.type == EXTERNAL_NAME:
        return spec
    # Endpoints of such a Service are declared, and may be of any family.
    free = spec.headless and not spec.selector
    policy = spec.ip_family_policy or (_DUAL if free else SINGLE_STACK)
    for field, several in (("clusterIPs", spec.cluster_ips), ("ipFamilies", spec.ip_families)):
        if len(several) > 1 and policy == SINGLE_STACK and not free:
            raise InvalidObjectError(
                "spec.ipFamilyPolicy", f"must be PreferDualStack or RequireDualStack for two {field}"
            )
    families = list(spec.ip_families)
    for index, text in enumerate(spec.addresses[len(families) :], len(families)):
        family = f"IPv{ipaddress.ip_address(text).version}"
        if family not in (*cluster, *had):
            path = f"spec.clusterIPs[{index}]" if index else "spec.clusterIP"
            raise InvalidObjectError(path, f"{text}: the cluster has no {family} range for Services")
        families.append(family)
    if not free:
        _check_possible(policy, families, {*cluster, *had})
    families = families or [cluster[0]]
    if policy != SINGLE_STACK and len(families) == 1:
        families += [family for family in (FAMILIES if free else cluster) if family not in families]
    return replace(spec, ip_family_policy=policy, ip_families=tuple(families))


def _check_possible(policy: str, families: Sequence[str], possible: Collection[str]) -> None:
    if policy == _DUAL and len(possible) < 2:
        only = ", ".join(possible)
        raise InvalidObjectError(
            "spec.ipFamilyPolicy", f"{_DUAL} is not possible: the cluster has only {only} Services"
        )
    for index, family in enumerate(families):
        if family not in possible:
            raise InvalidObjectError(
                f"spec.ipFamilies[{index}]", f"the cluster has no {family} range for Services"
            )
