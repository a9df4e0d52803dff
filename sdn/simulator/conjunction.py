# SPDX-License-Identifier: Apache-2.0
"""Conjunctive matches: which conjunctions the flows that a packet meets satisfy together (ovs-fields(7), "Conjunctive
Match Fields"; ``find_conjunctive_match`` of Open vSwitch's ``lib/classifier.c``).

A flow with ``conjunction`` actions takes no packet by itself. It says that the packet satisfies one clause of a
conjunction; when flows of one table and one priority satisfy all its clauses, the packet is looked up again with
``conj_id`` set to the conjunction's number. :mod:`~sdn.simulator.lookup` does the looking up.

As in Open vSwitch, and not as one might expect:

- A conjunction of more clauses than there are conjunctive flows of that priority that meet the packet is not
  satisfied, even when one of these flows stands for two of its clauses.
- A conjunction of 64 clauses is satisfied as soon as there are 64 such flows, whatever they stand for: the word of 64
  bits in which Open vSwitch notes the clauses that are missing starts out empty.

Undefined in Open vSwitch, where it depends on the order of its index, and defined here: of several conjunctions that
are satisfied the lowest number comes first, and a conjunction of which flows tell different numbers of clauses has as
many as any of them says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sdn.pipeline.actions import Conjunction
from sdn.pipeline.flow import Flow

#: What Open vSwitch takes (``decode_NXAST_RAW_CONJUNCTION``).
MIN_CLAUSES, MAX_CLAUSES = 2, 64


class Part(NamedTuple):
    """A flow that satisfies a clause of a conjunction, and its action that says so."""

    flow: Flow
    action: Conjunction


class Satisfied(NamedTuple):
    """A conjunction that is satisfied: its number, and every flow that satisfies a clause of it, by clause."""

    id: int
    parts: tuple[Part, ...]


def is_conjunctive(flow: Flow) -> bool:
    """Whether the flow stands for clauses; such a flow has nothing but ``conjunction`` actions."""
    return bool(flow.actions) and flow.actions[0].__class__ is Conjunction


def refusal(flow: Flow) -> str:
    """Why a switch refuses the flow's ``conjunction`` actions (NXBAC_BAD_CONJUNCTION), empty when it does not."""
    for action in flow.actions:
        if not isinstance(action, Conjunction):
            return "conjunction actions stand with no other actions"
        if not MIN_CLAUSES <= action.clauses <= MAX_CLAUSES:
            return f"conjunction {action.id} has {action.clauses} clauses, not {MIN_CLAUSES} to {MAX_CLAUSES}"
        if not 1 <= action.clause <= action.clauses:
            return f"conjunction {action.id} has no clause {action.clause} of {action.clauses}"
    return ""


def satisfied(flows: Sequence[Flow]) -> Iterator[Satisfied]:
    """The conjunctions that are satisfied by conjunctive flows of one table and priority, all of which meet the packet;
    from the lowest number up.
    """
    parts: dict[int, list[Part]] = {}
    for flow in flows:
        for action in flow.actions:
            if isinstance(action, Conjunction) and action.clauses <= len(flows):
                parts.setdefault(action.id, []).append(Part(flow, action))
    for number in sorted(parts):
        if _complete(part.action for part in parts[number]):
            yield Satisfied(number, tuple(sorted(parts[number], key=lambda part: part.action.clause)))


def _complete(actions: Iterable[Conjunction]) -> bool:
    clauses, seen = 0, set()
    for action in actions:
        clauses = max(clauses, action.clauses)
        seen.add(action.clause)
    return clauses == MAX_CLAUSES or len(seen) == clauses
