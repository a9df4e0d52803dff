# SPDX-License-Identifier: Apache-2.0
"""Nodes: their bits in sets of nodes, who is subscribed to, and the groups of nodes that rules name as peers."""

from __future__ import annotations

from sdn.policy.addresses import AddressBook
from sdn.policy.groups import Collected
from sdn.policy.journal import Journal
from sdn.policy.members import Node
from sdn.policy.named import look_again
from sdn.policy.networks import code_of
from sdn.policy.selectors import Selector, fits, plain
from sdn.policy.values import PolicyNode


class NodeGroup(Collected):
    """The addresses of the nodes that a selector takes."""

    __slots__ = ("selector",)

    def __init__(self, selector: Selector, book: AddressBook) -> None:
        super().__init__(("labels of nodes", plain(selector)), book)
        self.selector = selector


class Nodes:
    """See the module."""

    def __init__(self, book: AddressBook, journal: Journal) -> None:
        self._book = book
        self._journal = journal
        self.by_name: dict[str, Node] = {}
        self.by_index: dict[int, Node] = {}
        #: The nodes that are subscribed to.
        self.watched = 0
        self._groups: dict[Selector, NodeGroup] = {}
        self._free: list[int] = []
        self._leaving: set[Node] = set()

    def node(self, name: str) -> Node:
        """The node with this name; it is made when it is not known yet."""
        node = self.by_name.get(name)
        if node is None:
            index = self._free.pop() if self._free else len(self.by_index)
            node = self.by_name[name] = self.by_index[index] = Node(name, index)
        return node

    def left(self, node: Node) -> None:
        """When a node may be needed no more; :meth:`purge` looks."""
        self._leaving.add(node)

    def purge(self) -> None:
        """Forgets nodes that nobody needs; their bits may be given anew."""
        for node in self._leaving:
            wanted = node.bit & self.watched
            if node.spec is None and not node.pods and not node.waiting and not wanted:
                del self.by_name[node.name]
                del self.by_index[node.index]
                self._free.append(node.index)
        self._leaving.clear()

    def subscribe(self, node: Node) -> None:
        self.watched |= node.bit

    def unsubscribe(self, node: Node) -> None:
        self.watched &= ~node.bit
        self.left(node)

    def put(self, spec: PolicyNode) -> None:
        """A node is as declared."""
        self._set(self.node(spec.name), spec)

    def remove(self, name: str) -> None:
        """A node is not declared any more. Its pods may be there still."""
        node = self.by_name.get(name)
        if node is not None:
            self._set(node, None)
            self.left(node)

    def _set(self, node: Node, spec: PolicyNode | None) -> None:
        before = node.spec
        if before == spec:
            return
        old = _codes(before)
        new = _codes(spec)
        self._journal.note_node(node)
        for code in old ^ new:
            self._journal.note_holder(code)
        node.spec = spec
        self._book.set_node(node, old, new)
        for group in self._groups.values():
            was = old if before is not None and fits(group.selector, before.labels) else frozenset()
            now = new if spec is not None and fits(group.selector, spec.labels) else frozenset()
            for code in was ^ now:
                self._journal.note_source(group, code)
            for code in now - was:
                group.add(code)
            for code in was - now:
                group.remove(code)
            look_again(group.named, was ^ now)

    def group(self, selector: Selector) -> NodeGroup:
        """The group of the nodes that a selector takes; it is made when nobody needed it before."""
        group = self._groups.get(selector)
        if group is None:
            group = self._groups[selector] = NodeGroup(selector, self._book)
            for node in self.by_index.values():
                if node.spec is not None and fits(selector, node.spec.labels):
                    for code in _codes(node.spec):
                        group.add(code)
        return group

    def release(self, group: NodeGroup) -> None:
        """When somebody may have been the last to need a group."""
        if not group.used and self._groups.get(group.selector) is group:
            del self._groups[group.selector]
            group.forget_all()


def _codes(spec: PolicyNode | None) -> frozenset[int]:
    return frozenset() if spec is None else frozenset(map(code_of, spec.addresses))
