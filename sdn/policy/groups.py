# SPDX-License-Identifier: Apache-2.0
"""Where the peers and subjects of rules come from: groups of pods by labels, and sets of addresses that are collected.

A :class:`Source` is shared by all rules that name it. It knows these rules, so that a change of its members leads to
them, and can say of any address whether it is among its members. Addresses are codes of :mod:`sdn.policy.networks`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from sdn.policy import postures
from sdn.policy.postures import Posture, Standing
from sdn.policy.selectors import Selector, plain

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Body
    from sdn.policy.index import Scope
    from sdn.policy.members import LabelClass, Node, Pod
    from sdn.policy.named import NamedEgress
    from sdn.policy.policies import Policy


class Source(ABC):
    """Some of the peers of rules."""

    __slots__ = ("named", "peer_of")

    def __init__(self) -> None:
        #: Rules whose peers these are, and rules with names of ports whose peers are among these.
        self.peer_of: list[Body] = []
        self.named: list[NamedEgress] = []

    @property
    @abstractmethod
    def content(self) -> object:
        """Which peers they are, in plain values: the same in every process."""

    @property
    def used(self) -> bool:
        """Whether any rule needs it."""
        return bool(self.peer_of or self.named)

    @abstractmethod
    def contains(self, code: int) -> bool:
        """Whether this address is one of the peers."""

    @abstractmethod
    def codes(self) -> Collection[int]:
        """The addresses of all peers, each once."""


class PodGroup(Source):
    """The pods that a selector takes in a scope: peers of some rules, subject of others, and what policies select."""

    __slots__ = ("_pods_at", "_posture", "classes", "policies", "scope", "selector", "span", "subject_of")

    def __init__(self, scope: Scope, selector: Selector, pods_at: Mapping[int, tuple[Pod, ...]]) -> None:
        super().__init__()
        self._pods_at = pods_at
        self._posture: Posture | None = None
        self.scope = scope
        self.selector = selector
        self.classes: set[LabelClass] = set()
        self.policies: list[Policy] = []
        self.subject_of: list[Body] = []
        #: The nodes that have such pods. Kept while it is the subject of rules.
        self.span = 0

    @property
    def content(self) -> object:
        where = self.scope.where
        return where if isinstance(where, str) else plain(where), plain(self.selector)

    @property
    def used(self) -> bool:
        return bool(self.peer_of or self.subject_of or self.policies or self.named)

    def contains(self, code: int) -> bool:
        classes = self.classes
        return any(pod.kin in classes for pod in self._pods_at.get(code, ()))

    def codes(self) -> Collection[int]:
        return {code for kin in self.classes for pod in kin.pods for code in pod.codes}

    def pods(self) -> Iterator[Pod]:
        """Its pods, each once."""
        return (pod for kin in self.classes for pod in kin.pods)

    def has(self, pod: Pod) -> bool:
        """Whether a pod is one of its pods."""
        return pod.kin in self.classes

    def begin_span(self) -> None:
        """Before it becomes the subject of a first rule."""
        self.span = 0
        for kin in self.classes:
            self.span |= kin.mask

    def lost(self, node: Node) -> bool:
        """Whether none of its pods is on a node."""
        if len(node.pods) < len(self.classes):
            return not any(pod.kin in self.classes for pod in node.pods.values())
        return not any(kin.mask & node.bit for kin in self.classes)

    # What policies without regard to rules make of its pods.

    @property
    def posture(self) -> Posture:
        if self._posture is None:
            self._posture = postures.merged(policy.posture for policy in self.policies)
        return self._posture

    def add_policy(self, policy: Policy) -> None:
        self.policies.append(policy)
        if self._posture is not None:
            self._posture = postures.merged((self._posture, policy.posture))

    def remove_policy(self, policy: Policy) -> None:
        self.policies.remove(policy)
        self._posture = None


class Collected(Source):
    """Addresses that somebody else collects: of nodes, of a domain's name, of pods that have a named port. One that is
    collected twice, as where two nodes share it, goes with the second removal.
    """

    __slots__ = ("_book", "_content", "_times")

    def __init__(self, content: object, book: AddressBook) -> None:
        super().__init__()
        self._content = content
        self._book = book
        self._times: dict[int, int] = {}

    @property
    def content(self) -> object:
        return self._content

    def contains(self, code: int) -> bool:
        return code in self._times

    def codes(self) -> Collection[int]:
        return self._times.keys()

    def add(self, code: int) -> None:
        times = self._times.get(code, 0)
        self._times[code] = times + 1
        if not times:
            self._book.collect(code, self)

    def remove(self, code: int) -> None:
        times = self._times.pop(code)
        if times > 1:
            self._times[code] = times - 1
        else:
            self._book.forget(code, self)

    def forget_all(self) -> None:
        """When no rule needs it any more."""
        for code in self._times:
            self._book.forget(code, self)
        self._times.clear()


def kin_posture(kin: LabelClass) -> Posture:
    """What policies make of the pods of a class."""
    return postures.merged(group.posture for group in kin.groups if group.policies)


def standing(pod: Pod, posture: Posture | None = None) -> Standing | None:
    """What a pod stands for at its port; with the posture of its class, where that is known already."""
    if pod.kin is None:
        return None
    spec = pod.spec
    return Standing(posture or kin_posture(pod.kin), spec.addresses, pod.ref, spec.key)
