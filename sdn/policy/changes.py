# SPDX-License-Identifier: Apache-2.0
"""The cells that differ between what was when changes were last taken and what is.

What was is in the journal. A rule's number is on a cell while three things are so: the rule is in force, its subject
has pods on the node, and the address (or the pod and port) belongs to it. Each number that came to a cell or left it is
found from the side that changed, for all nodes at once; then each cell is made anew. Cells that got their numbers back
as they were cancel out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from sdn.model.address import Range
from sdn.policy.cells import Cell, CellKey, PeerCell, PeerKey, RuleKey, SubjectCell
from sdn.policy.compiled import stage_of
from sdn.policy.domains import Domain
from sdn.policy.groups import PodGroup, Source, kin_posture, standing
from sdn.policy.members import Node, Pod, indexes
from sdn.policy.networks import code_of, range_of
from sdn.policy.peers import Peers
from sdn.policy.postures import UNTOUCHED, Standing, alike, differences
from sdn.policy.program import Subjects, policy_of, rule_cell, subject_key
from sdn.policy.values import Action, PolicyRef

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Bodies, Body
    from sdn.policy.journal import Journal
    from sdn.policy.nodes import Nodes


_NOBODY: Final[tuple[list[int], list[int]]] = ([], [])


class Changes(NamedTuple):
    """What changed for each node that is subscribed to, by its name.

    ``cells``: cells that are new or other, None for one that is gone; one that ended as it was is not there.
    ``shrunk``: connections with an end in these ranges may be denied now that were allowed before; others are not.
    """

    cells: dict[str, dict[CellKey, Cell | None]]
    shrunk: dict[str, frozenset[Range]]


class Comparison:
    """One look at what was and what is. It is used once."""

    def __init__(self, journal: Journal, nodes: Nodes, book: AddressBook, bodies: Bodies) -> None:
        self._journal = journal
        self._nodes = nodes
        self._book = book
        self._bodies = bodies
        self._watched = nodes.watched
        self._peers = Peers(nodes, book)
        self._subjects = Subjects()
        self._cells: dict[int, dict[CellKey, Cell | None]] = {}
        self._shrunk: dict[int, set[int]] = {}
        #: Addresses that came to a source, and that left it.
        self._moved: dict[Source, tuple[list[int], list[int]]] = {}
        #: Rules that nodes got (or know by another name), and that nodes lost.
        self._rules: dict[int, tuple[Body, int, int]] = {}
        #: Numbers that came or went, with the nodes on which they did, by stage and address.
        self._at_peers: dict[tuple[int, int], dict[int, int]] = {}
        #: The same by node and port of the switch, then by stage and port code.
        self._at_subjects: dict[tuple[int, int], dict[tuple[int, int], set[int]]] = {}
        #: Where the owner of a peer's cell may be another one, and on which nodes, by stage and address.
        self._renamed: dict[tuple[int, int], int] = {}

    def changes(self) -> Changes:
        """All differences; nodes in no order."""
        for body in self._affected():
            self._compare(body)
        self._rename_holders()
        self._emit_rules()
        self._emit_peers()
        self._emit_ports()
        self._lost_addresses()
        by_index = self._nodes.by_index
        return Changes(
            {by_index[index].name: cells for index, cells in self._cells.items()},
            {by_index[index].name: frozenset(map(range_of, codes)) for index, codes in self._shrunk.items()},
        )

    def _affected(self) -> set[Body]:
        """Rules whose cells may differ."""
        journal = self._journal
        affected = set(journal.bodies)
        for source, noted in journal.sources.items():
            came: list[int] = []
            went: list[int] = []
            for code, was in noted.items():
                if source.contains(code) != was:
                    (went if was else came).append(code)
            if came or went:
                self._moved[source] = came, went
                affected.update(source.peer_of)
        for group, span in journal.spans.items():
            if group.span != span:
                affected.update(group.subject_of)
        for group in journal.subjects:
            affected.update(group.subject_of)
        return affected

    def _compare(self, body: Body) -> None:
        """What one rule contributes."""
        content, journal, watched = body.content, self._journal, self._watched
        group = content.subject
        was_alive, owner = journal.bodies.get(body, (body.alive, body.owner))
        before = journal.spans.get(group, group.span) & watched if was_alive else 0
        now = group.span & watched if body.alive else 0
        came, gone, stay = now & ~before, before & ~now, now & before
        renamed = stay if owner != body.owner else 0
        if came or gone or renamed:
            self._rules[body.number] = body, came | renamed, gone
        stage, number = content.stage, body.number
        if came:
            self._flip(stage, number, body.codes(), came)
        if gone:
            self._flip(stage, number, self._codes_before(body), gone)
        if stay:
            for codes, on in zip(self._moved_of(body), (True, False), strict=True):
                self._flip(stage, number, codes, stay)
                if codes and _may_deny(body, on):
                    self._shrink(stay, codes)
            if renamed:
                for code in _nameless(body):
                    self._renamed[stage, code] = self._renamed.get((stage, code), 0) | stay
        for pod in self._pods_moved(group, was_alive, body.alive):
            if pod.node.bit & watched:
                at = self._at_subjects.setdefault((pod.node.index, pod.spec.ofport), {})
                for port in body.subject_codes(pod):
                    at.setdefault((stage, port), set()).symmetric_difference_update((number,))

    def _flip(self, stage: int, number: int, codes: Iterable[int], mask: int) -> None:
        for code in codes:
            at = self._at_peers.get((stage, code))
            if at is None:
                self._at_peers[stage, code] = {number: mask}
            else:
                at[number] = at.get(number, 0) ^ mask

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
        return code in content.networks or any(
            self._journal.was_in(source, code) for source in content.sources
        )

    def _pods_moved(self, group: PodGroup, was_alive: bool, alive: bool) -> Iterable[Pod]:
        """Pods that became subjects of a rule for this group, or ceased to be."""
        noted = self._journal.subjects.get(group, {})
        if was_alive and alive:
            return [pod for pod, was in noted.items() if was != group.has(pod)]
        if alive:
            return group.pods()
        if was_alive:
            pods = {pod for pod in group.pods() if noted.get(pod, True)}
            return pods.union(pod for pod, was in noted.items() if was)
        return ()

    def _shrink(self, mask: int, codes: Collection[int]) -> None:
        if codes:
            for index in indexes(mask):
                self._shrunk.setdefault(index, set()).update(codes)

    # Rules and peers.

    def _put(self, mask: int, key: CellKey, cell: Cell | None) -> None:
        for index in indexes(mask):
            there = self._cells.get(index)
            if there is None:
                there = self._cells[index] = {}
            there[key] = cell

    def _emit_rules(self) -> None:
        for number in sorted(self._rules):
            body, came, gone = self._rules[number]
            key = RuleKey(number)
            if came:
                self._put(came, key, rule_cell(body))
            self._put(gone, key, None)

    def _rename_holders(self) -> None:
        """Where a pod or a node came to an address, or left it, the cells of the address are another one's."""
        for code, holder in self._journal.holders.items():
            if holder != self._book.holder(code):
                for stage, mask in self._peers.spans(code):
                    key = stage, code
                    self._renamed[key] = self._renamed.get(key, 0) | mask & self._watched

    def _emit_peers(self) -> None:
        # By address, since the rules of one address are found together.
        for stage, code in sorted(
            {*self._at_peers, *self._renamed}, key=lambda one: (one[1] & 1, one[1], one[0])
        ):
            key = PeerKey(stage_of(stage), range_of(code))
            touched = 0
            for mask in self._at_peers.get((stage, code), {}).values():
                touched |= mask
            for part, numbers in self._peers.numbers(stage, code, touched):
                cell = PeerCell(key, numbers, self._owner(code, numbers)) if numbers else None
                self._put(part, key, cell)
            renamed = self._renamed.get((stage, code), 0) & ~touched
            for part, numbers in self._peers.numbers(stage, code, renamed):
                if not numbers:
                    continue
                owner = self._owner(code, numbers)
                if owner != self._owner_before(code, numbers):
                    self._put(part, key, PeerCell(key, numbers, owner))

    def _owner(self, code: int, numbers: tuple[int, ...]) -> PolicyRef:
        """Of a cell with these numbers."""
        by_number = self._bodies.by_number
        return self._book.holder(code) or policy_of(min(by_number[number].owners[0] for number in numbers))

    def _owner_before(self, code: int, numbers: tuple[int, ...]) -> PolicyRef:
        """Of a cell that had these numbers already."""
        holder = self._journal.holders[code] if code in self._journal.holders else self._book.holder(code)
        if holder is not None:
            return holder
        bodies = (self._bodies.by_number[number] for number in numbers)
        owners = (self._journal.bodies.get(body, (True, body.owner))[1] for body in bodies)
        return policy_of(min(owner for owner in owners if owner is not None))

    # Pods: subjects, isolation and guards.

    def _emit_ports(self) -> None:
        known: dict[tuple[int, int], Standing | None] = {}
        for (node, ofport), stood in self._journal.ports.items():
            if node.bit & self._watched:
                known[node.index, ofport] = stood
        ports = {*known, *self._at_subjects}
        postures = {kin: kin_posture(kin) for kin in self._journal.classes}
        for kin, posture in postures.items():
            if not alike(posture, self._journal.classes[kin]):
                ports.update(
                    (pod.node.index, pod.spec.ofport) for pod in kin.pods if pod.node.bit & self._watched
                )
        for at in sorted(ports):
            node, ofport = self._nodes.by_index[at[0]], at[1]
            pod = node.pods.get(ofport)
            before = now = None
            if pod is not None and pod.kin is not None:
                now = standing(pod, postures.get(pod.kin))
                before = standing(pod, self._journal.classes.get(pod.kin))
            before = known.get(at, before)
            self._emit_subjects(node, ofport, before, now)
            if before != now:
                for key, cell in differences(ofport, before, now):
                    self._put(node.bit, key, cell)
                if _exposed(before, now):
                    self._shrink(node.bit, _codes(before, now))

    def _emit_subjects(self, node: Node, ofport: int, before: Standing | None, now: Standing | None) -> None:
        flipped = self._at_subjects.get((node.index, ofport), {})
        keys = {key for key, numbers in flipped.items() if numbers}
        pod = node.pods.get(ofport)
        numbers = {} if pod is None else self._subjects.numbers(pod)
        if before is not None and now is not None and before[1:3] != now[1:3]:
            keys.update(numbers)
        for stage, port in sorted(keys):
            key, conjunctions = subject_key(stage, ofport, port), numbers.get((stage, port))
            cell = None
            if conjunctions is not None and now is not None:
                cell = SubjectCell(key, now.addresses, conjunctions, now.ref)
            self._put(node.bit, key, cell)
        for at in keys & flipped.keys():
            there = numbers.get(at, ())
            if any(_may_deny(self._bodies.by_number[one], one in there) for one in flipped[at]):
                self._shrink(node.bit, _codes(before, now))
                break

    def _lost_addresses(self) -> None:
        """A pod may always be reached from its own node; what is the node's no more may not."""
        for node, before in self._journal.nodes.items():
            self._shrink(node.bit & self._watched, before - node.own_codes())


def _may_deny(body: Body, on: bool) -> bool:
    """Whether a rule may have something denied that was allowed, where it came on, or went."""
    if body.staged:
        return False
    action = body.content.action
    return action is Action.PASS or (action is Action.DENY) == on


def _nameless(body: Body) -> list[int]:
    """Ranges and addresses of a rule that may be no pod's and no node's."""
    domains = (source for source in body.content.sources if isinstance(source, Domain))
    return [*body.content.networks, *(code for domain in domains for code in domain.codes())]


def _exposed(before: Standing | None, now: Standing | None) -> bool:
    """Whether a pod's connections may be denied that were allowed, but for rules.

    Where isolation ends the tier below is asked. A pod that is guarded may have got addresses that were another's, or
    its own node's, which no policy was asked for.
    """
    old = UNTOUCHED if before is None else before.posture
    new = UNTOUCHED if now is None else now.posture
    if old.isolated != new.isolated:
        return True
    return now is not None and new.guarded and (before is None or before[1:] != now[1:])


def _codes(*standings: Standing | None) -> set[int]:
    return {code_of(address) for one in standings if one is not None for address in one.addresses}
