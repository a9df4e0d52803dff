# SPDX-License-Identifier: Apache-2.0
"""Pods as they come, change and go: the one place where a pod enters and leaves classes, nodes and addresses.

A change of labels alone moves a pod from one class to another, and touches the groups that take only one of them. Any
other change is an end and a beginning.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from sdn.policy.members import LabelClass, Node, Pod
from sdn.policy.named import look_again
from sdn.policy.values import PolicyPod

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.groups import PodGroup
    from sdn.policy.index import LabelIndex
    from sdn.policy.journal import Journal
    from sdn.policy.nodes import Nodes


class Pods:
    """All pods, by key."""

    def __init__(self, index: LabelIndex, nodes: Nodes, book: AddressBook, journal: Journal) -> None:
        self._index = index
        self._nodes = nodes
        self._book = book
        self._journal = journal
        self.by_key: dict[Hashable, Pod] = {}
        #: Pods whose port of the switch was given to another one before they were removed.
        self._waiting: dict[Hashable, PolicyPod] = {}

    def put(self, spec: PolicyPod) -> None:
        """A pod is so now."""
        pod = self.by_key.get(spec.key)
        if pod is None:
            self._displace(spec)
            self._begin(spec)
        elif _alike(pod.spec, spec):
            before = pod.spec.labels
            pod.spec = spec
            if before != spec.labels:
                self._relabel(pod)
        else:
            self.remove(spec.key)
            self._displace(spec)
            self._begin(spec)

    def remove(self, key: Hashable) -> None:
        """A pod is gone; one that is not known, too."""
        pod = self.by_key.pop(key, None)
        if pod is not None:
            self._end(pod)
            self._return(pod.node, pod.spec.ofport)
        else:
            self._forget_waiting(key)

    # A port of a switch is one pod's: the one that was put last. Another one that has it still waits, and may get it
    # back: events of a pod that ends and of the one that is given its port can come in either order.

    def _displace(self, spec: PolicyPod) -> None:
        self._forget_waiting(spec.key)
        node = self._nodes.node(spec.node)
        other = node.pods.get(spec.ofport)
        if other is not None:
            del self.by_key[other.spec.key]
            self._end(other)
            node.waiting.setdefault(spec.ofport, []).append(other.spec)
            self._waiting[other.spec.key] = other.spec

    def _return(self, node: Node, ofport: int) -> None:
        waiting = node.waiting.get(ofport)
        if waiting:
            spec = waiting[-1]
            self._forget_waiting(spec.key)
            self._begin(spec)

    def _forget_waiting(self, key: Hashable) -> None:
        spec = self._waiting.pop(key, None)
        if spec is not None:
            node = self._nodes.node(spec.node)
            waiting = node.waiting[spec.ofport]
            waiting.remove(spec)
            if not waiting:
                del node.waiting[spec.ofport]
                self._nodes.left(node)

    # Beginning and end.

    def _begin(self, spec: PolicyPod) -> None:
        node = self._nodes.node(spec.node)
        kin = self._index.class_of(spec.namespace, spec.labels)
        pod = self.by_key[spec.key] = Pod(spec, kin, node)
        self._note(pod, kin.groups, was=False)
        for code in pod.codes:
            self._journal.note_holder(code)
        self._journal.note_port(node, spec.ofport)
        self._book.add_pod(pod)
        node.pods[spec.ofport] = pod
        self._enter(pod, kin)
        self._look_again(pod, kin.groups)

    def _end(self, pod: Pod) -> None:
        kin, node = pod.kin, pod.node
        if kin is None:
            return
        self._note(pod, kin.groups, was=True)
        for code in pod.codes:
            self._journal.note_holder(code)
        self._journal.note_port(node, pod.spec.ofport)
        self._book.remove_pod(pod)
        del node.pods[pod.spec.ofport]
        pod.kin = None
        self._leave(pod, kin)
        self._look_again(pod, kin.groups)
        if not kin.pods:
            self._index.drop_class(kin)
        if not node.pods:
            self._nodes.left(node)

    def _relabel(self, pod: Pod) -> None:
        old = pod.kin
        if old is None:
            return
        new = self._index.class_of(pod.spec.namespace, pod.spec.labels)
        if new is old:
            return
        lost, gained = old.groups - new.groups, new.groups - old.groups
        self._journal.note_port(pod.node, pod.spec.ofport)
        self._note(pod, lost, was=True)
        self._note(pod, gained, was=False)
        pod.kin = new
        self._enter(pod, new)
        self._leave(pod, old)
        self._look_again(pod, lost | gained)
        if not old.pods:
            self._index.drop_class(old)

    def _note(self, pod: Pod, groups: Iterable[PodGroup], *, was: bool) -> None:
        """Before a pod enters or leaves groups."""
        journal = self._journal
        if journal.on:
            for group in groups:
                if group.peer_of:
                    for code in pod.codes:
                        journal.note_source(group, code)
                if group.subject_of:
                    journal.note_subject(group, pod, was)

    def _enter(self, pod: Pod, kin: LabelClass) -> None:
        kin.pods.add(pod)
        node = pod.node
        there = kin.nodes.get(node.index, 0)
        kin.nodes[node.index] = there + 1
        if not there:
            kin.mask |= node.bit
            for group in kin.groups:
                if group.subject_of and not group.span & node.bit:
                    self._journal.note_span(group)
                    group.span |= node.bit

    def _leave(self, pod: Pod, kin: LabelClass) -> None:
        kin.pods.discard(pod)
        node = pod.node
        there = kin.nodes.pop(node.index)
        if there > 1:
            kin.nodes[node.index] = there - 1
            return
        kin.mask &= ~node.bit
        for group in kin.groups:
            if group.subject_of and group.lost(node):
                self._journal.note_span(group)
                group.span &= ~node.bit

    def _look_again(self, pod: Pod, groups: Iterable[PodGroup]) -> None:
        """After a pod has entered or left groups: its ports' names may mean something to rules."""
        if pod.spec.named_ports:
            for group in groups:
                if group.named:
                    look_again(group.named, pod.codes)
            look_again(self._book.named(pod.spec.named_ports), pod.codes)


def _alike(one: PolicyPod, other: PolicyPod) -> bool:
    """Whether two say the same of a pod but for its labels."""
    return (
        one.ofport == other.ofport
        and one.node == other.node
        and one.addresses == other.addresses
        and one.namespace == other.namespace
        and one.name == other.name
        and one.named_ports == other.named_ports
    )
