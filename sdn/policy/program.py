# SPDX-License-Identifier: Apache-2.0
"""All that one node's switch must hold, from what is: for a new switch, and to explain.

Cells are not kept anywhere: they follow from pods, groups and bodies, and there would be hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from sdn.policy.cells import Cell, CellKey, PeerCell, PeerKey, RuleCell, RuleKey, SubjectCell, SubjectKey
from sdn.policy.compiled import stage_of
from sdn.policy.groups import kin_posture, standing
from sdn.policy.networks import range_of
from sdn.policy.portcodes import port_match
from sdn.policy.postures import differences
from sdn.policy.values import PolicyRef

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Body, Owner
    from sdn.policy.members import LabelClass, Node, Pod

#: Numbers of rules, ascending, by stage and port code.
Numbers = Mapping[tuple[int, int], tuple[int, ...]]


def rules_of(kin: LabelClass) -> Iterator[Body]:
    """The rules in force whose subject the pods of a class are, once each."""
    return (body for group in kin.groups for body in group.subject_of if body.alive)


class Subjects:
    """Which rules pods are the subject of, for which ports: worked out once for all pods of a class."""

    def __init__(self) -> None:
        self._of: dict[LabelClass, tuple[Numbers, tuple[Body, ...]]] = {}

    def numbers(self, pod: Pod) -> Numbers:
        """For one pod."""
        if pod.kin is None:
            return {}
        known = self._of.get(pod.kin)
        if known is None:
            fixed: list[Body] = []
            varying: list[Body] = []
            for body in rules_of(pod.kin):
                (varying if body.content.ports.names else fixed).append(body)
            numbers = _numbers((body, body.fixed_codes()) for body in fixed)
            known = self._of[pod.kin] = numbers, tuple(varying)
        if not known[1]:
            return known[0]
        # Ports by name are the pod's own.
        merged = dict(known[0])
        for key, more in _numbers((body, body.subject_codes(pod)) for body in known[1]).items():
            merged[key] = tuple(sorted(merged.get(key, ()) + more))
        return merged


def _numbers(bodies: Iterable[tuple[Body, Iterable[int]]]) -> Numbers:
    found: dict[tuple[int, int], list[int]] = {}
    for body, ports in bodies:
        for port in ports:
            found.setdefault((body.content.stage, port), []).append(body.number)
    return {key: tuple(sorted(numbers)) for key, numbers in found.items()}


def subject_key(stage: int, ofport: int, port: int) -> SubjectKey:
    """From a stage's id and a port code."""
    return SubjectKey(stage_of(stage), ofport, port_match(port))


def policy_of(owner: Owner) -> PolicyRef:
    """The policy among a rule's owners."""
    return PolicyRef(owner[0], owner[1], owner[2])


def rule_cell(body: Body) -> RuleCell:
    """The cell of a body in force."""
    content, owner = body.content, body.owners[0]
    key = RuleKey(body.number)
    return RuleCell(key, stage_of(content.stage), content.action, policy_of(owner), owner[4], content.log)


def program(node: Node, book: AddressBook, by_number: Mapping[int, Body]) -> dict[CellKey, Cell]:
    """The cells of a node, in a fixed order."""
    cells: dict[CellKey, Cell] = {}
    kins = {pod.kin for pod in node.pods.values() if pod.kin is not None}
    numbers = sorted({body.number for kin in kins for body in rules_of(kin)})
    for number in numbers:
        rule = rule_cell(by_number[number])
        cells[rule.key] = rule
    _add_peers(cells, [by_number[number] for number in numbers], book)
    subjects = Subjects()
    known = {kin: kin_posture(kin) for kin in kins}
    for ofport in sorted(node.pods):
        pod = node.pods[ofport]
        if pod.kin is None:
            continue
        addresses, ref = pod.spec.addresses, pod.ref
        for (stage, port), conjunctions in sorted(subjects.numbers(pod).items()):
            subject = subject_key(stage, ofport, port)
            cells[subject] = SubjectCell(subject, addresses, conjunctions, ref)
        for key, cell in differences(ofport, None, standing(pod, known[pod.kin])):
            if cell is not None:
                cells[key] = cell
    return cells


def _add_peers(cells: dict[CellKey, Cell], bodies: list[Body], book: AddressBook) -> None:
    """The cells of the peers of rules, which ascend by number."""
    by_stage: dict[int, dict[int, list[Body]]] = {}
    for body in bodies:
        found = by_stage.setdefault(body.content.stage, {})
        for code in body.codes():
            there = found.get(code)
            if there is None:
                found[code] = [body]
            else:
                there.append(body)
    for stage_id in sorted(by_stage):
        stage = stage_of(stage_id)
        found = by_stage[stage_id]
        for code in sorted(found):
            there = found[code]
            key = PeerKey(stage, range_of(code))
            owner = book.holder(code) or policy_of(min(body.owners[0] for body in there))
            cells[key] = PeerCell(key, tuple([body.number for body in there]), owner)
