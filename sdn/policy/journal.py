# SPDX-License-Identifier: Apache-2.0
"""What was before the changes that nobody has taken yet, as far as it has changed.

Whoever is about to change something that cells depend on notes it first; only what was noted first since the last take
counts. From what was and what is, :mod:`sdn.policy.changes` finds the cells that differ. While no node is subscribed
to, nothing is noted.
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


class Journal:
    """See the module. Each attribute holds what was, by what it was of."""

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        #: Whether any node is subscribed to.
        self.on = False
        self.clear()

    def clear(self) -> None:
        """When everything was taken."""
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

    def note_source(self, source: Source, code: int) -> None:
        if self.on:
            noted = self.sources.get(source)
            if noted is None:
                noted = self.sources[source] = {}
            if code not in noted:
                noted[code] = source.contains(code)

    def note_subject(self, group: PodGroup, pod: Pod, was: bool) -> None:
        if self.on:
            noted = self.subjects.get(group)
            if noted is None:
                noted = self.subjects[group] = {}
            noted.setdefault(pod, was)

    def note_span(self, group: PodGroup) -> None:
        if self.on:
            self.spans.setdefault(group, group.span)

    def note_class(self, kin: LabelClass) -> None:
        if self.on and kin not in self.classes:
            self.classes[kin] = kin_posture(kin)

    def note_port(self, node: Node, ofport: int) -> None:
        if self.on and (node, ofport) not in self.ports:
            pod = node.pods.get(ofport)
            known = None if pod is None or pod.kin is None else self.classes.get(pod.kin)
            self.ports[node, ofport] = None if pod is None else standing(pod, known)

    def note_holder(self, code: int) -> None:
        if self.on and code not in self.holders:
            self.holders[code] = self._book.holder(code)

    def note_body(self, body: Body) -> None:
        if self.on and body not in self.bodies:
            self.bodies[body] = body.alive, body.owner

    def note_node(self, node: Node) -> None:
        if self.on and node not in self.nodes:
            self.nodes[node] = node.own_codes()

    def was_in(self, source: Source, code: int) -> bool:
        """Whether an address was in a source."""
        noted = self.sources.get(source)
        if noted is not None and code in noted:
            return noted[code]
        return source.contains(code)
