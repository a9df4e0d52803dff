# SPDX-License-Identifier: Apache-2.0
"""The cells of pods that differ between what nodes were told and what is: subjects, isolation and guards.

A rule or a posture that is another for few pods leads to them. Where it is another for many, all pods of a node are
looked at when the node is told: so the work for thousands of pods can be done node by node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from sdn.policy.cells import Cell, CellKey, SubjectCell
from sdn.policy.groups import kin_posture, standing
from sdn.policy.networks import code_of
from sdn.policy.portions import portions
from sdn.policy.postures import UNTOUCHED, Posture, Standing, alike, differences
from sdn.policy.program import Subjects, subject_key
from sdn.policy.values import Action

if TYPE_CHECKING:
    from sdn.policy.bodies import Bodies, Body
    from sdn.policy.journal import Notes
    from sdn.policy.members import LabelClass, Node, Pod

#: So many pods are few.
_FEW: Final = 256

#: Numbers of rules that came or went, by stage and port code.
_Flips: TypeAlias = dict[tuple[int, int], set[int]]


class PodChanges:
    """Of the nodes of a set; a part of :class:`sdn.policy.changes.Comparison`. Each node can be told once."""

    def __init__(self, notes: Notes, mask: int, bodies: Bodies) -> None:
        self._notes = notes
        self._all = mask
        self._bodies = bodies
        self._subjects = Subjects()
        #: Nodes that have such pods, and those of which all pods are looked at.
        self.mask = 0
        self.wide = 0
        #: How many pods are known to be looked at.
        self.ports = 0
        #: By the index of the node and the port of the switch.
        self._flips: defaultdict[int, dict[int, _Flips]] = defaultdict(dict)
        self._stood: defaultdict[int, dict[int, Standing | None]] = defaultdict(dict)
        self._look_at: defaultdict[int, set[int]] = defaultdict(set)
        #: Rules that came or went for many pods: on which nodes, and the pods that were looked at already.
        self._turned: list[tuple[int, Body, Mapping[Pod, bool]]] = []
        #: Classes of pods as they are now, where they may be others than before; and those of many pods that are.
        self._postures: dict[LabelClass, Posture] = {}
        self._changed: set[LabelClass] = set()

    def compare(self, body: Body, was_alive: bool) -> Iterator[int]:
        """Find pods that became subjects of a rule, or ceased to be."""
        for some in portions(self._moved(body, was_alive)):
            for pod in some:
                node = pod.node
                if node.bit & self._all:
                    self.mask |= node.bit
                    self.ports += 1
                    flips = self._flips[node.index].setdefault(pod.spec.ofport, {})
                    _flip(flips, body, body.subject_codes(pod))
            yield len(some)

    def _moved(self, body: Body, was_alive: bool) -> Collection[Pod]:
        """Such pods; without those for which whole nodes are looked at."""
        group = body.content.subject
        noted = self._notes.subjects.get(group, {})
        if was_alive and body.alive:
            return [pod for pod, was in noted.items() if was != group.has(pod)]
        if not was_alive and not body.alive:
            return ()
        pods = list(islice(group.pods(), _FEW + 1))
        if len(pods) > _FEW:
            where = group.span & self._all
            self._turned.append((where, body, noted))
            self.wide |= where
            self.mask |= where
            return [pod for pod, was in noted.items() if (group.has(pod) if body.alive else was)]
        if body.alive:
            return pods
        before = {pod for pod in pods if noted.get(pod, True)}
        return before.union(pod for pod, was in noted.items() if was)

    def look_at_ports(self) -> Iterator[int]:
        """Find pods that came or went, and those of classes of which policies make something else."""
        for some in portions(self._notes.ports.items()):
            for (node, ofport), stood in some:
                if node.bit & self._all:
                    self._stood[node.index][ofport] = stood
                    self._add_port(node, ofport)
            yield len(some)
        for classes in portions(self._notes.classes.items()):
            for kin, before in classes:
                now = self._postures[kin] = kin_posture(kin)
                if alike(now, before):
                    continue
                if len(kin.pods) > _FEW:
                    self._changed.add(kin)
                    self.wide |= kin.mask & self._all
                    self.mask |= kin.mask & self._all
                else:
                    for pod in kin.pods:
                        if pod.node.bit & self._all:
                            self._add_port(pod.node, pod.spec.ofport)
            yield len(classes) * 4

    def _add_port(self, node: Node, ofport: int) -> None:
        self.mask |= node.bit
        self.ports += 1
        self._look_at[node.index].add(ofport)

    def count(self, node: Node) -> int:
        """How many pods are looked at on a node, at most."""
        if node.bit & self.wide:
            return len(node.pods)
        return len(self._look_at.get(node.index, ())) + len(self._flips.get(node.index, ()))

    def of(self, node: Node) -> tuple[dict[CellKey, Cell | None], set[int]]:
        """What a node is told of its pods, and the addresses whose connections may be denied."""
        flips = self._flips.pop(node.index, {})
        ports = self._look_at.pop(node.index, set()) | flips.keys()
        if node.bit & self.wide:
            self._look_at_all(node, ports, flips)
        stood = self._stood.pop(node.index, {})
        cells: dict[CellKey, Cell | None] = {}
        denied: set[int] = set()
        for ofport in sorted(ports):
            pod = node.pods.get(ofport)
            before = now = None
            if pod is not None and pod.kin is not None:
                now = standing(pod, self._postures.get(pod.kin))
                before = standing(pod, self._notes.classes.get(pod.kin))
            before = stood.get(ofport, before)
            shrunk = self._add_subjects(cells, pod, ofport, flips.get(ofport, {}), before, now)
            if before != now:
                cells.update(differences(ofport, before, now))
                shrunk = shrunk or _exposed(before, now)
            if shrunk:
                denied |= _codes(before, now)
        return cells, denied

    def _look_at_all(self, node: Node, ports: set[int], flips: dict[int, _Flips]) -> None:
        turned = [
            (body, noted, None if body.content.ports.names else body.fixed_codes())
            for where, body, noted in self._turned
            if where & node.bit
        ]
        for ofport, pod in node.pods.items():
            if pod.kin in self._changed:
                ports.add(ofport)
            for body, noted, fixed in turned:
                if pod not in noted and body.content.subject.has(pod):
                    ports.add(ofport)
                    codes = body.subject_codes(pod) if fixed is None else fixed
                    _flip(flips.setdefault(ofport, {}), body, codes)

    def _add_subjects(
        self,
        cells: dict[CellKey, Cell | None],
        pod: Pod | None,
        ofport: int,
        flips: _Flips,
        before: Standing | None,
        now: Standing | None,
    ) -> bool:
        """What a port is the subject of; gives whether rules may deny there what was allowed."""
        keys = {key for key, numbers in flips.items() if numbers}
        numbers = {} if pod is None else self._subjects.numbers(pod)
        if before is not None and now is not None and before[1:3] != now[1:3]:
            keys.update(numbers)
        for stage, port in sorted(keys):
            key, conjunctions = subject_key(stage, ofport, port), numbers.get((stage, port))
            cell = None
            if conjunctions is not None and now is not None:
                cell = SubjectCell(key, now.addresses, conjunctions, now.ref)
            cells[key] = cell
        for at in keys & flips.keys():
            there = numbers.get(at, ())
            if any(may_deny(self._bodies.by_number[one], one in there) for one in flips[at]):
                return True
        return False


def _flip(flips: _Flips, body: Body, codes: Collection[int]) -> None:
    number, stage = body.number, body.content.stage
    for code in codes:
        at = flips.get((stage, code))
        if at is None:
            flips[stage, code] = {number}
        else:
            at.symmetric_difference_update((number,))


def may_deny(body: Body, on: bool) -> bool:
    """Whether a rule may have something denied that was allowed, where it came on, or went."""
    if body.staged:
        return False
    action = body.content.action
    return action is Action.PASS or (action is Action.DENY) == on


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
