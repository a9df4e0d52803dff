# SPDX-License-Identifier: Apache-2.0
"""Which rules an address is a peer of, on which nodes: what cells of peers hold, for many nodes at once.

There are two ways to find the rules of an address on a node: from the address, by all rules that it is a peer of
anywhere, or from the node, by all rules that are there. "Everybody" is a peer of a rule in each namespace, and a
monitoring pod may be one; a node has the rules of its own pods. The way that is shorter is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sdn.policy.members import indexes

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Body
    from sdn.policy.nodes import Nodes

#: So many rules of an address are looked at in the time in which a node's are.
_RULES_A_NODE: Final = 300


class Peers:
    """See the module. What it found is true until something changes."""

    def __init__(self, nodes: Nodes, book: AddressBook) -> None:
        self._nodes = nodes
        self._book = book
        self._code = -1
        self._found: dict[int, dict[int, int]] = {}
        self._on: dict[int, dict[int, list[Body]]] = {}

    def numbers(self, stage: int, code: int, mask: int) -> list[tuple[int, tuple[int, ...]]]:
        """The nodes of a set by the numbers, ascending, that an address has there; those with equal ones together."""
        if not mask:
            return []
        if self._code != code and self._many(code, mask.bit_count() * _RULES_A_NODE):
            return [(1 << index, self._numbers_on(index, stage, code)) for index in indexes(mask)]
        numbers_of: dict[int, list[int]] = {}
        for number, span in self._spans(code).get(stage, {}).items():
            there = span & mask
            if there:
                numbers_of.setdefault(there, []).append(number)
        return [(part, tuple(sorted(numbers))) for part, numbers in _parts(mask, numbers_of)]

    def spans(self, code: int) -> list[tuple[int, int]]:
        """Where an address has a cell: stages, each with its nodes."""
        found = []
        for stage, spans in self._spans(code).items():
            whole = 0
            for span in spans.values():
                whole |= span
            if whole:
                found.append((stage, whole))
        return found

    def _spans(self, code: int) -> dict[int, dict[int, int]]:
        """The rules in force of an address: by stage and number, the nodes on which they are. Kept for one address."""
        if self._code != code:
            watched = self._nodes.watched
            self._code = code
            self._found = {}
            for bodies in self._routes(code):
                for body in bodies:
                    span = body.content.subject.span & watched
                    if span and body.alive:
                        found = self._found.get(body.content.stage)
                        if found is None:
                            found = self._found[body.content.stage] = {}
                        found[body.number] = span
        return self._found

    def _routes(self, code: int) -> Iterator[list[Body]]:
        """Rules by each way that leads from an address to them; some more than once."""
        book = self._book
        for pod in book.pods.get(code, ()):
            if pod.kin is not None:
                for group in pod.kin.groups:
                    if group.peer_of:
                        yield group.peer_of
        for source in book.collected.get(code, ()):
            yield source.peer_of
        yield book.declared.get(code, [])

    def _many(self, code: int, limit: int) -> bool:
        """Whether an address is a peer of more rules than so many."""
        count = 0
        for bodies in self._routes(code):
            count += len(bodies)
            if count > limit:
                return True
        return False

    def _numbers_on(self, index: int, stage: int, code: int) -> tuple[int, ...]:
        bodies = self._on.get(index)
        if bodies is None:
            bodies = self._on[index] = {}
            kins = {pod.kin for pod in self._nodes.by_index[index].pods.values() if pod.kin is not None}
            groups = {group for kin in kins for group in kin.groups if group.subject_of}
            for group in groups:
                for body in group.subject_of:
                    if body.alive:
                        bodies.setdefault(body.content.stage, []).append(body)
        return tuple(sorted(body.number for body in bodies.get(stage, ()) if body.reaches(code)))


def _parts(mask: int, numbers_of: dict[int, list[int]]) -> list[tuple[int, list[int]]]:
    """A set of nodes, cut into parts on which the same numbers are."""
    parts: list[tuple[int, list[int]]] = [(mask, [])]
    for span, numbers in numbers_of.items():
        cut: list[tuple[int, list[int]]] = []
        for part, there in parts:
            inside = part & span
            if inside == part:
                cut.append((part, there + numbers))
            elif inside:
                cut.append((inside, there + numbers))
                cut.append((part ^ inside, there))
            else:
                cut.append((part, there))
        parts = cut
    return parts
