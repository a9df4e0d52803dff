# SPDX-License-Identifier: Apache-2.0
"""Nodes, pods and what pods have in common: the members of a cluster as the engine's indexes hold them.

Pods of one namespace with equal labels are taken by the same selectors, so selectors are asked once for all of them: a
:class:`LabelClass`. Sets of nodes are integers with a bit for each node: a thousand nodes are 160 bytes, and two such
sets are compared in no time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdn.policy.networks import code_of
from sdn.policy.values import PolicyNode, PolicyPod, PolicyRef

if TYPE_CHECKING:
    from sdn.policy.bodies import Body
    from sdn.policy.groups import PodGroup
    from sdn.policy.index import Namespace


class Node:
    """A node that was declared, is subscribed to, or has pods. ``bit`` stands for it in sets of nodes."""

    __slots__ = ("bit", "index", "name", "pods", "spec", "waiting")

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.bit = 1 << index
        self.spec: PolicyNode | None = None
        #: By port of the switch.
        self.pods: dict[int, Pod] = {}
        #: Pods whose port was given to another one before they were removed.
        self.waiting: dict[int, list[PolicyPod]] = {}

    def own_codes(self) -> frozenset[int]:
        """Its addresses, and its gateways'."""
        if self.spec is None:
            return frozenset()
        return frozenset(map(code_of, (*self.spec.addresses, *self.spec.gateways)))


class LabelClass:
    """The pods of a namespace that have the same labels, and the groups that take them."""

    __slots__ = ("groups", "labels", "mask", "namespace", "nodes", "order", "order_of", "pods")

    def __init__(self, namespace: Namespace, labels: Mapping[str, str]) -> None:
        self.namespace = namespace
        self.labels = labels
        self.groups: set[PodGroup] = set()
        self.pods: set[Pod] = set()
        #: How many of the pods each node has, by its index; ``mask`` has the bits of those nodes.
        self.nodes: dict[int, int] = {}
        self.mask = 0
        #: Its rules in the order in which they are asked, as of a version (see :mod:`sdn.policy.decisions`).
        self.order: tuple[tuple[Body, ...], ...] = ()
        self.order_of = -1


class Pod:
    """One attachment. ``codes`` are its addresses; ``kin`` is None once it is gone; ``ref`` is its name where it owns
    flows.
    """

    __slots__ = ("codes", "kin", "node", "ref", "spec")

    def __init__(self, spec: PolicyPod, kin: LabelClass, node: Node) -> None:
        self.spec = spec
        self.kin: LabelClass | None = kin
        self.node = node
        self.codes = tuple(map(code_of, spec.addresses))
        self.ref = PolicyRef("Pod", spec.namespace, spec.name)


def indexes(mask: int) -> list[int]:
    """The indexes of the nodes in a set."""
    if not mask & (mask - 1):
        return [mask.bit_length() - 1] if mask else []
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found
