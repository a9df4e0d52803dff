# SPDX-License-Identifier: Apache-2.0
"""The kinds that users may declare, as typed values.

A declared object says what is wanted. What *is* (a node's registration, a pod's attachment) are facts, kept
elsewhere and shown in an object's ``status``; a ``status`` in a declaration is ignored, as Kubernetes ignores
it.

``spec`` of a Pod or Node is kept as given, whole: most of it (containers, taints) is not the network's
business, and must come back from ``get`` as it was applied. The fields that the network reads are checked,
and have a property.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import msgspec

API_VERSION = "v1"


class ObjectMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What every object has. ``namespace`` is empty for cluster-scoped kinds."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Namespace(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A scope for names. Its labels are what namespace selectors look at."""

    KIND: ClassVar[str] = "Namespace"
    NAMESPACED: ClassVar[bool] = False

    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)


class Node(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A machine that runs pods. Declaring one is optional: it gives labels, and can fix the ranges of its
    pods."""

    KIND: ClassVar[str] = "Node"
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


class Pod(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A group of containers with one network namespace. Its labels replace those that came with its
    attachment."""

    KIND: ClassVar[str] = "Pod"
    NAMESPACED: ClassVar[bool] = True

    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def node_name(self) -> str:
        """The node that the pod is bound to; empty: not said."""
        return str(self.spec.get("nodeName") or "")


Object: TypeAlias = Namespace | Node | Pod
Kind: TypeAlias = type[Namespace] | type[Node] | type[Pod]

KINDS: dict[str, Kind] = {kind.KIND: kind for kind in (Namespace, Node, Pod)}
