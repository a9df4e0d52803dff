# SPDX-License-Identifier: Apache-2.0
"""Who has an address, and which rules name it: everything that the engine must find by an address.

Addresses and ranges are codes of :mod:`sdn.policy.networks`. Mostly one pod has an address; while a sandbox is replaced
or events are on their way there can be two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from sdn.policy.values import NamedPort, PolicyRef

if TYPE_CHECKING:
    from sdn.policy.bodies import Body
    from sdn.policy.groups import Source
    from sdn.policy.members import Node, Pod
    from sdn.policy.named import NamedEgress

Member = TypeVar("Member")


class AddressBook:
    """See the module."""

    def __init__(self) -> None:
        self.pods: dict[int, tuple[Pod, ...]] = {}
        self.nodes: dict[int, tuple[Node, ...]] = {}
        #: Sources that collect addresses, by each.
        self.collected: dict[int, list[Source]] = {}
        #: Rules that name exactly this range.
        self.declared: dict[int, list[Body]] = {}
        #: Pods by the names of their ports, and rules for whatever pods have such a name.
        self.pods_with_name: dict[str, set[Pod]] = {}
        self.by_name: dict[str, list[NamedEgress]] = {}

    def holder(self, code: int) -> PolicyRef | None:
        """The object that has an address: the first pod, else the first node."""
        pods = self.pods.get(code)
        if pods is not None:
            return pods[0].ref if len(pods) == 1 else min(pod.ref for pod in pods)
        nodes = self.nodes.get(code)
        return None if nodes is None else PolicyRef("Node", "", min(node.name for node in nodes))

    def add_pod(self, pod: Pod) -> None:
        for code in pod.codes:
            _add(self.pods, code, pod)
        for name in {port.name for port in pod.spec.named_ports}:
            self.pods_with_name.setdefault(name, set()).add(pod)

    def remove_pod(self, pod: Pod) -> None:
        for code in pod.codes:
            _remove(self.pods, code, pod)
        for name in {port.name for port in pod.spec.named_ports}:
            self.pods_with_name[name].discard(pod)
            if not self.pods_with_name[name]:
                del self.pods_with_name[name]

    def set_node(self, node: Node, before: Iterable[int], after: Iterable[int]) -> None:
        for code in before:
            _remove(self.nodes, code, node)
        for code in after:
            _add(self.nodes, code, node)

    def collect(self, code: int, source: Source) -> None:
        self.collected.setdefault(code, []).append(source)

    def forget(self, code: int, source: Source) -> None:
        _take(self.collected, code, source)

    def declare(self, code: int, body: Body) -> None:
        self.declared.setdefault(code, []).append(body)

    def withdraw(self, code: int, body: Body) -> None:
        _take(self.declared, code, body)

    def named(self, ports: Iterable[NamedPort]) -> list[NamedEgress]:
        """Rules for whatever pods have one of these names."""
        return [each for name in {port.name for port in ports} for each in self.by_name.get(name, ())]


def _add(places: dict[int, tuple[Member, ...]], code: int, member: Member) -> None:
    there = places.get(code)
    places[code] = (member,) if there is None else (*there, member)


def _remove(places: dict[int, tuple[Member, ...]], code: int, member: Member) -> None:
    left = tuple(one for one in places[code] if one is not member)
    if left:
        places[code] = left
    else:
        del places[code]


def _take(places: dict[int, list[Member]], code: int, member: Member) -> None:
    there = places[code]
    there.remove(member)
    if not there:
        del places[code]
