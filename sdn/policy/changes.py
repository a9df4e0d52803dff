# SPDX-License-Identifier: Apache-2.0
"""The cells that differ between what nodes were told and what is.

What was is in their notes (:mod:`sdn.policy.journal`). A rule's number is on a cell while three things are so: the rule
is in force, its subject has pods on the node, and the address (or the pod and port) belongs to it. Each number that
came to a cell or left it is found from the side that changed, for all nodes at once; then each cell is made anew. Cells
that got their numbers back as they were cancel out.

A comparison is made in steps. First comes what is looked at once for all nodes: rules and the other ends of
connections. It is true until something changes. Then any of the nodes can be told; pods are looked at there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from sdn.model.address import Range
from sdn.policy.cells import Cell, CellKey, PeerCell, PeerKey, RuleKey
from sdn.policy.compiled import stage_of
from sdn.policy.domains import Domain
from sdn.policy.groups import Source
from sdn.policy.members import indexes
from sdn.policy.networks import range_of
from sdn.policy.peers import Peers
from sdn.policy.podchanges import PodChanges, may_deny
from sdn.policy.portions import portions
from sdn.policy.program import policy_of, rule_cell
from sdn.policy.values import PolicyRef

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Bodies, Body
    from sdn.policy.journal import Notes
    from sdn.policy.nodes import Nodes


_NOBODY: Final[tuple[list[int], list[int]]] = ([], [])
#: What work counts, in the time in which a node is told of a cell that others have, too: to make a cell of that kind,
#: to tell a pod's cells, and to hand a node what it is told.
_A_PEER: Final = 12
_A_POD: Final = 128
_A_NODE: Final = 64


class Changes(NamedTuple):
    """What changed for nodes that are subscribed to, by name.

    ``cells``: cells that are new or other, None for one that is gone; one that ended as it was is not there.
    ``shrunk``: connections with an end in these ranges may be denied now that were allowed before; others are not.
    """

    cells: dict[str, dict[CellKey, Cell | None]]
    shrunk: dict[str, frozenset[Range]]


class Comparison:
    """One look at what was and what is, for the nodes of a set. Each node can be told once."""

    def __init__(self, notes: Notes, mask: int, nodes: Nodes, book: AddressBook, bodies: Bodies) -> None:
        self._notes = notes
        self._mask = mask
        self._nodes = nodes
        self._book = book
        self._bodies = bodies
        self._peers = Peers(nodes, book)
        self._pods = PodChanges(notes, mask, bodies)
        #: Addresses that came to a source, and that left it.
        self._moved: dict[Source, tuple[list[int], list[int]]] = {}
        #: Rules that nodes got (or know by another name), and that nodes lost.
        self._rules: dict[int, tuple[Body, int, int]] = {}
        #: Numbers that came or went, with the nodes on which they did, by stage and address.
        self._at_peers: dict[tuple[int, int], dict[int, int]] = {}
        #: Where the owner of a peer's cell may be another one, and on which nodes, by stage and address.
        self._renamed: dict[tuple[int, int], int] = {}
        #: What came of it: cells with the nodes that are told, and ranges that have shrunk.
        self._cells: list[tuple[int, CellKey, Cell | None]] = []
        self._shrunk: list[tuple[int, Collection[int]]] = []
        self._told = 0
        self._touched = 0
        self._steps = self._look()
        #: Whether nodes can be told.
        self.looked = False

    # What is the same for all nodes.

    def look(self, steps: int | None) -> int | None:
        """Go on for about so many steps, None: to the end. Gives how many are left; None: it is not at its end."""
        if self.looked:
            return steps
        left = steps
        for done in self._steps:
            if left is not None:
                left -= done
                if left < 0:
                    return None
        self.looked = True
        return left

    def _look(self) -> Iterator[int]:
        affected = set(self._notes.bodies)
        for source, noted in self._notes.sources.items():
            came: list[int] = []
            went: list[int] = []
            for some in portions(noted.items()):
                for code, was in some:
                    if source.contains(code) != was:
                        (went if was else came).append(code)
                yield len(some)
            if came or went:
                self._moved[source] = came, went
                affected.update(source.peer_of)
        for group, span in self._notes.spans.items():
            if group.span != span:
                affected.update(group.subject_of)
        for group in self._notes.subjects:
            affected.update(group.subject_of)
        for body in affected:
            yield from self._compare(body)
        yield from self._rename_holders()
        self._add_rules()
        yield from self._add_peers()
        yield from self._pods.look_at_ports()
        self._add_lost_addresses()
        self._touched |= self._pods.mask

    def _compare(self, body: Body) -> Iterator[int]:
        """What one rule contributes."""
        content, notes, mask = body.content, self._notes, self._mask
        group = content.subject
        was_alive, owner = notes.bodies.get(body, (body.alive, body.owner))
        before = notes.spans.get(group, group.span) & mask if was_alive else 0
        now = group.span & mask if body.alive else 0
        came, gone, stay = now & ~before, before & ~now, now & before
        renamed = stay if owner != body.owner else 0
        if came or gone or renamed:
            self._rules[body.number] = body, came | renamed, gone
        stage, number = content.stage, body.number
        if came:
            yield from self._flip(stage, number, body.codes(), came)
        if gone:
            yield from self._flip(stage, number, self._codes_before(body), gone)
        if stay:
            for codes, on in zip(self._moved_of(body), (True, False), strict=True):
                yield from self._flip(stage, number, codes, stay)
                if codes and may_deny(body, on):
                    self._shrink(stay, codes)
            if renamed:
                for code in _nameless(body):
                    self._renamed[stage, code] = self._renamed.get((stage, code), 0) | stay
        yield from self._pods.compare(body, was_alive)

    def _flip(self, stage: int, number: int, codes: Iterable[int], mask: int) -> Iterator[int]:
        for some in portions(codes):
            for code in some:
                at = self._at_peers.get((stage, code))
                if at is None:
                    self._at_peers[stage, code] = {number: mask}
                else:
                    at[number] = at.get(number, 0) ^ mask
            yield len(some)

    def _moved_of(self, body: Body) -> tuple[list[int], list[int]]:
        """Addresses that became peers of a rule, and that ceased to be."""
        content = body.content
        if len(content.sources) == 1 and not content.networks:
            return self._moved.get(content.sources[0], _NOBODY)
        came: list[int] = []
        went: list[int] = []
        for code in self._moved_to_or_from(body):
            is_peer = body.reaches(code)
            if self._reached(body, code) != is_peer:
                (came if is_peer else went).append(code)
        return came, went

    def _moved_to_or_from(self, body: Body) -> set[int]:
        """Addresses that came to one of the sources of a rule or left it."""
        moved = (each for source in body.content.sources for each in self._moved.get(source, _NOBODY))
        return {code for codes in moved for code in codes}

    def _codes_before(self, body: Body) -> set[int]:
        """The addresses and ranges of the peers that a rule had."""
        codes = set(body.codes())
        for code in self._moved_to_or_from(body):
            if self._reached(body, code):
                codes.add(code)
            else:
                codes.discard(code)
        return codes

    def _reached(self, body: Body, code: int) -> bool:
        """Whether this address, or exactly this range, was a peer of a rule's."""
        content = body.content
        return code in content.networks or any(self._notes.was_in(source, code) for source in content.sources)

    def _shrink(self, mask: int, codes: Collection[int]) -> None:
        if mask and codes:
            self._shrunk.append((mask, codes))
            self._touched |= mask

    # Rules and peers.

    def _add(self, mask: int, key: CellKey, cell: Cell | None) -> None:
        if mask:
            self._cells.append((mask, key, cell))
            self._told += mask.bit_count()
            self._touched |= mask

    def _add_rules(self) -> None:
        for number in sorted(self._rules):
            body, came, gone = self._rules[number]
            key = RuleKey(number)
            if came:
                self._add(came, key, rule_cell(body))
            self._add(gone, key, None)

    def _rename_holders(self) -> Iterator[int]:
        """Where a pod or a node came to an address, or left it, the cells of the address are another one's."""
        for some in portions(self._notes.holders.items()):
            for code, holder in some:
                if holder != self._book.holder(code):
                    for stage, mask in self._peers.spans(code):
                        key = stage, code
                        self._renamed[key] = self._renamed.get(key, 0) | mask & self._mask
            yield len(some) * _A_PEER

    def _add_peers(self) -> Iterator[int]:
        # By address, since the rules of one address are found together.
        places = sorted({*self._at_peers, *self._renamed}, key=lambda one: (one[1] & 1, one[1], one[0]))
        for some in portions(places):
            for stage, code in some:
                self._add_peer(stage, code)
            yield len(some) * _A_PEER

    def _add_peer(self, stage: int, code: int) -> None:
        key = PeerKey(stage_of(stage), range_of(code))
        touched = 0
        for mask in self._at_peers.get((stage, code), {}).values():
            touched |= mask
        for part, numbers in self._peers.numbers(stage, code, touched):
            cell = PeerCell(key, numbers, self._owner(code, numbers)) if numbers else None
            self._add(part, key, cell)
        renamed = self._renamed.get((stage, code), 0) & ~touched
        for part, numbers in self._peers.numbers(stage, code, renamed):
            if not numbers:
                continue
            owner = self._owner(code, numbers)
            if owner != self._owner_before(code, numbers):
                self._add(part, key, PeerCell(key, numbers, owner))

    def _owner(self, code: int, numbers: tuple[int, ...]) -> PolicyRef:
        """Of a cell with these numbers."""
        by_number = self._bodies.by_number
        return self._book.holder(code) or policy_of(min(by_number[number].owners[0] for number in numbers))

    def _owner_before(self, code: int, numbers: tuple[int, ...]) -> PolicyRef:
        """Of a cell that had these numbers already."""
        holder = self._notes.holders[code] if code in self._notes.holders else self._book.holder(code)
        if holder is not None:
            return holder
        bodies = (self._bodies.by_number[number] for number in numbers)
        owners = (self._notes.bodies.get(body, (True, body.owner))[1] for body in bodies)
        return policy_of(min(owner for owner in owners if owner is not None))

    def _add_lost_addresses(self) -> None:
        """A pod may always be reached from its own node; what is the node's no more may not."""
        for node, before in self._notes.nodes.items():
            self._shrink(node.bit & self._mask, before - node.own_codes())

    # What nodes are told.

    def portion(self, mask: int, steps: int) -> int:
        """Those nodes of a set that can be told in about so many steps, but at least one."""
        touched = self._touched & mask
        count = self._touched.bit_count()
        if not self._pods.wide:
            whole = self._told + count * _A_NODE + self._pods.ports * _A_POD
            if whole <= steps:
                return mask
        each = _A_NODE + self._told // max(1, count)
        chosen = 0
        while touched:
            bit = touched & -touched
            touched ^= bit
            chosen |= bit
            steps -= each + _A_POD * self._pods.count(self._nodes.by_index[bit.bit_length() - 1])
            if steps <= 0:
                break
        # Whoever is told nothing costs nothing.
        return chosen | mask & ~self._touched

    def changes(self, mask: int) -> Changes:
        """What the nodes of a set are told; in no order. All must have been looked at."""
        cells: dict[int, dict[CellKey, Cell | None]] = {}
        shrunk: dict[int, set[int]] = {}
        if mask & (mask - 1):
            for part, key, cell in self._cells:
                for index in indexes(part & mask):
                    there = cells.get(index)
                    if there is None:
                        there = cells[index] = {}
                    there[key] = cell
        elif own := {key: cell for part, key, cell in self._cells if part & mask}:
            cells[mask.bit_length() - 1] = own
        for part, codes in self._shrunk:
            for index in indexes(part & mask):
                shrunk.setdefault(index, set()).update(codes)
        by_index = self._nodes.by_index
        for index in indexes(self._pods.mask & mask):
            more, denied = self._pods.of(by_index[index])
            if more:
                cells.setdefault(index, {}).update(more)
            if denied:
                shrunk.setdefault(index, set()).update(denied)
        return Changes(
            {by_index[index].name: there for index, there in cells.items()},
            {by_index[index].name: frozenset(map(range_of, codes)) for index, codes in shrunk.items()},
        )


def _nameless(body: Body) -> list[int]:
    """Ranges and addresses of a rule that may be no pod's and no node's."""
    domains = (source for source in body.content.sources if isinstance(source, Domain))
    return [*body.content.networks, *(code for domain in domains for code in domain.codes())]
