# SPDX-License-Identifier: Apache-2.0
"""What was before the changes that nodes were not told of yet, as far as it has changed.

Whoever is about to change something that cells depend on notes it first. Nodes that were told everything up to the same
change have :class:`Notes` together, where only what was noted first counts; a change is noted in all that there are.
From what was and what is, :mod:`sdn.policy.changes` finds the cells that differ. While no node is subscribed to,
nothing is noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdn.policy.groups import PodGroup, Source, kin_posture, standing
from sdn.policy.postures import Posture, Standing
from sdn.policy.values import PolicyRef

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Body, Owner
    from sdn.policy.members import LabelClass, Node, Pod


class Notes:
    """Each attribute holds what was, by what it was of."""

    __slots__ = ("bodies", "classes", "holders", "nodes", "ports", "sources", "spans", "subjects")

    def __init__(self) -> None:
        #: Whether an address was in a source.
        self.sources: dict[Source, dict[int, bool]] = {}
        #: Whether a pod was in a group that is the subject of rules, and on which nodes the group was.
        self.subjects: dict[PodGroup, dict[Pod, bool]] = {}
        self.spans: dict[PodGroup, int] = {}
        self.classes: dict[LabelClass, Posture] = {}
        #: By node and port of the switch.
        self.ports: dict[tuple[Node, int], Standing | None] = {}
        self.holders: dict[int, PolicyRef | None] = {}
        #: Whether a rule was there, and whose it was.
        self.bodies: dict[Body, tuple[bool, Owner | None]] = {}
        #: Nodes' own addresses, gateways among them.
        self.nodes: dict[Node, frozenset[int]] = {}

    def __bool__(self) -> bool:
        """Whether anything has changed."""
        return bool(
            self.sources
            or self.ports
            or self.classes
            or self.bodies
            or self.subjects
            or self.spans
            or self.holders
            or self.nodes
        )

    def was_in(self, source: Source, code: int) -> bool:
        """Whether an address was in a source."""
        noted = self.sources.get(source)
        if noted is not None and code in noted:
            return noted[code]
        return source.contains(code)


class Journal:
    """See the module."""

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        #: Whether any node is subscribed to.
        self.on = False
        self.notes: list[Notes] = []
        #: How many changes there were.
        self.clock = 0

    def note_source(self, source: Source, code: int) -> None:
        for notes in self.notes:
            noted = notes.sources.get(source)
            if noted is None:
                noted = notes.sources[source] = {}
            if code not in noted:
                noted[code] = source.contains(code)

    def note_subject(self, group: PodGroup, pod: Pod, was: bool) -> None:
        for notes in self.notes:
            noted = notes.subjects.get(group)
            if noted is None:
                noted = notes.subjects[group] = {}
            noted.setdefault(pod, was)

    def note_span(self, group: PodGroup) -> None:
        for notes in self.notes:
            notes.spans.setdefault(group, group.span)

    def note_class(self, kin: LabelClass) -> None:
        for notes in self.notes:
            if kin not in notes.classes:
                notes.classes[kin] = kin_posture(kin)

    def note_port(self, node: Node, ofport: int) -> None:
        for notes in self.notes:
            if (node, ofport) not in notes.ports:
                pod = node.pods.get(ofport)
                known = None if pod is None or pod.kin is None else notes.classes.get(pod.kin)
                notes.ports[node, ofport] = None if pod is None else standing(pod, known)

    def note_holder(self, code: int) -> None:
        for notes in self.notes:
            if code not in notes.holders:
                notes.holders[code] = self._book.holder(code)

    def note_body(self, body: Body) -> None:
        for notes in self.notes:
            if body not in notes.bodies:
                notes.bodies[body] = body.alive, body.owner

    def note_node(self, node: Node) -> None:
        for notes in self.notes:
            if node not in notes.nodes:
                notes.nodes[node] = node.own_codes()
