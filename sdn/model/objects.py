# SPDX-License-Identifier: Apache-2.0
"""The kinds that users may declare, as typed values.

A declared object says what is wanted. What *is* (a node's registration, a pod's attachment) are facts, kept
elsewhere and shown in an object's ``status``; a ``status`` in a declaration is ignored, as Kubernetes ignores
it, but for the readiness of a Pod.

Services, EndpointSlices and policies are the network's own: each of their fields is typed. ``spec`` of a Pod or
Node is kept as given, whole: most of it (containers, taints) is not the network's business, and must come back from
``get`` as it was applied. The fields that the network reads are checked, and have a property.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import msgspec

from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.endpointslice import EndpointSlice
from sdn.model.meta import ObjectMeta
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.pod import Pod
from sdn.model.service import Service

#: The version of the kinds of Kubernetes' core group.
API_VERSION = "v1"


class Namespace(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A scope for names. Its labels are what namespace selectors look at."""

    KIND: ClassVar[str] = "Namespace"
    API_VERSION: ClassVar[str] = API_VERSION
    NAMESPACED: ClassVar[bool] = False

    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)


class Node(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A machine that runs pods. Declaring one is optional: it gives labels, and can fix the ranges of its
    pods."""

    KIND: ClassVar[str] = "Node"
    API_VERSION: ClassVar[str] = API_VERSION
    NAMESPACED: ClassVar[bool] = False

    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """Ranges that the node's pods shall have; empty: the controller chooses."""
        ranges = self.spec.get("podCIDRs")
        if ranges is None:
            ranges = [self.spec["podCIDR"]] if "podCIDR" in self.spec else []
        return tuple(ranges)


Object: TypeAlias = Namespace | Node | Pod | Service | EndpointSlice | NetworkPolicy | ClusterNetworkPolicy
Kind: TypeAlias = (
    type[Namespace]
    | type[Node]
    | type[Pod]
    | type[Service]
    | type[EndpointSlice]
    | type[NetworkPolicy]
    | type[ClusterNetworkPolicy]
)

_KINDS: tuple[Kind, ...] = (
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    NetworkPolicy,
    ClusterNetworkPolicy,
)
KINDS: dict[str, Kind] = {kind.KIND: kind for kind in _KINDS}
