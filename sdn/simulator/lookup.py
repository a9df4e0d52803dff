# SPDX-License-Identifier: Apache-2.0
"""Flow tables that find the flow of a packet without reading all flows: tuple space search.

Flows of a table whose matches look at the same bits of the same fields form a *subtable*: a dictionary from
those bits to the flow. A lookup costs one dictionary access for each subtable, and a pipeline of 100,000
flows has a dozen subtables a table, since flows are made by a handful of rules. Subtables are tried in the
order of their highest priority, so most are never reached. (Srinivasan, Suri and Varghese, "Packet
Classification using Tuple Space Search", 1999; Open vSwitch's classifier is the same idea.)

The index is kept as flows come and go, at a cost that does not depend on how many there are.

A table with conjunctive flows (:mod:`~sdn.simulator.conjunction`) is searched as Open vSwitch 3.1 searches it
(``classifier_lookup__``). The other flows, here as there, are "hard" and the conjunctive ones "soft". What follows from
that:

- A hard flow wins over conjunctive ones of its own priority.
- The second lookup, with conj_id set, goes over all hard flows of the table, of any priority and whether they match
  conj_id or not; only when none takes the packet the search goes on, below the priority of the conjunction. So in a
  table whose last flow takes everything, a satisfied conjunction ends the search also when nobody matches its number.
- It does not see a hard flow that stands below a conjunctive one of the same match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sdn.pipeline.actions import Conjunction, Goto
from sdn.pipeline.fields import CONJ_ID
from sdn.pipeline.flow import Flow, FlowKey
from sdn.pipeline.match import Match
from sdn.simulator.conjunction import Satisfied, is_conjunctive, refusal, satisfied

#: What a subtable looks at: (place of the field in the registry, mask).
Signature = tuple[tuple[int, int], ...]


class AmbiguousFlowsError(Exception):
    """Two flows of one table and one priority both take a packet: which one wins is undefined (OpenFlow 1.5,
    section 5.3). Conjunctive flows take none, and may overlap.
    """

    def __init__(self, first: Flow, second: Flow) -> None:
        self.flows = (first, second)
        super().__init__(
            f"table {first.table}, priority {first.priority}: both [{first.match}] of {first.owner} ({first.why}) and "
            f"[{second.match}] of {second.owner} ({second.why}) take the packet"
        )


def _signature(match: Match) -> Signature:
    return tuple((field.order, field.all_ones if mask is None else mask) for field, _, mask in match)


def _key(match: Match) -> tuple[int, ...]:
    return tuple(value for _, value, _ in match)


class _Subtable:
    """Flows that look at the same bits; for one key the flows stand from the highest priority down."""

    __slots__ = ("entries", "highest", "priorities", "signature")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.entries: dict[tuple[int, ...], list[Flow]] = {}
        self.priorities: dict[int, int] = {}
        self.highest = -1

    def add(self, flow: Flow) -> Flow | None:
        """Add or replace; the flow that was replaced."""
        flows = self.entries.setdefault(_key(flow.match), [])
        for place, other in enumerate(flows):
            if other.priority == flow.priority:
                flows[place] = flow
                return other
        flows.append(flow)
        flows.sort(key=lambda entry: -entry.priority)
        self.priorities[flow.priority] = self.priorities.get(flow.priority, 0) + 1
        self.highest = max(self.highest, flow.priority)
        return None

    def remove(self, key: FlowKey) -> Flow:
        values = _key(key.match)
        flows = self.entries[values]
        place = next((place for place, flow in enumerate(flows) if flow.priority == key.priority), None)
        if place is None:
            raise KeyError(key)
        flow = flows.pop(place)
        if not flows:
            del self.entries[values]
        self.priorities[key.priority] -= 1
        if not self.priorities[key.priority]:
            del self.priorities[key.priority]
            self.highest = max(self.priorities, default=-1)
        return flow


class _Best:
    """The best hard flow so far."""

    __slots__ = ("flow", "priority", "rival")

    def __init__(self) -> None:
        self.flow: Flow | None = None
        self.priority = -1
        # Another one of its priority: the two are a fault, unless a better one comes.
        self.rival: Flow | None = None

    def offer(self, flow: Flow) -> None:
        if flow.priority > self.priority:
            self.flow, self.priority, self.rival = flow, flow.priority, None
        elif flow.priority == self.priority:
            self.rival = flow

    def taken(self) -> Flow | None:
        """The flow that takes the packet. Raises AmbiguousFlowsError."""
        if self.flow is not None and self.rival is not None:
            raise AmbiguousFlowsError(self.flow, self.rival)
        return self.flow


class _Table:
    __slots__ = ("conjunctive", "ordered", "subtables")

    def __init__(self) -> None:
        self.subtables: dict[Signature, _Subtable] = {}
        # The subtables from the highest priority down; None when it has to be made again.
        self.ordered: list[_Subtable] | None = None
        # How many of the flows are conjunctive.
        self.conjunctive = 0

    def add(self, flow: Flow) -> Flow | None:
        signature = _signature(flow.match)
        subtable = self.subtables.get(signature)
        if subtable is None:
            subtable = self.subtables[signature] = _Subtable(signature)
        before = subtable.highest
        replaced = subtable.add(flow)
        if subtable.highest != before:
            self.ordered = None
        self.conjunctive += is_conjunctive(flow) - (replaced is not None and is_conjunctive(replaced))
        return replaced

    def remove(self, key: FlowKey) -> Flow:
        signature = _signature(key.match)
        subtable = self.subtables[signature]
        before = subtable.highest
        removed = subtable.remove(key)
        if not subtable.entries:
            del self.subtables[signature]
        if subtable.highest != before:
            self.ordered = None
        self.conjunctive -= is_conjunctive(removed)
        return removed

    def find(self, values: Sequence[int]) -> tuple[Flow | None, Satisfied | None]:
        ordered = self.ordered
        if ordered is None:
            ordered = self.ordered = sorted(self.subtables.values(), key=lambda entry: -entry.highest)
        if self.conjunctive:
            return _search(ordered, values)
        best: Flow | None = None
        rival: Flow | None = None
        for subtable in ordered:
            # Not "<=": an equal priority further on is the ambiguity that has to be found.
            if best is not None and subtable.highest < best.priority:
                break
            flows = subtable.entries.get(tuple([values[order] & mask for order, mask in subtable.signature]))
            if flows is None:
                continue
            if best is None or flows[0].priority > best.priority:
                best, rival = flows[0], None
            elif flows[0].priority == best.priority:
                rival = flows[0]
        if best is not None and rival is not None:
            raise AmbiguousFlowsError(best, rival)
        return best, None

    def __iter__(self) -> Iterator[Flow]:
        for subtable in self.subtables.values():
            for flows in subtable.entries.values():
                yield from flows


def _matching(ordered: Sequence[_Subtable], values: Sequence[int], best: _Best) -> Iterator[list[Flow]]:
    """By subtable the flows that meet the packet, while one of them may still be as good as the best hard flow."""
    for subtable in ordered:
        if subtable.highest < best.priority:
            return
        flows = subtable.entries.get(tuple([values[order] & mask for order, mask in subtable.signature]))
        if flows is not None:
            yield flows


def _search(ordered: Sequence[_Subtable], values: Sequence[int]) -> tuple[Flow | None, Satisfied | None]:
    """The flow that takes the packet in a table with conjunctive flows, and the conjunction that led to it."""
    hard = _Best()
    # Of each subtable the flows from the conjunctive one down that is considered now.
    soft: list[list[Flow]] = []
    for flows in _matching(ordered, values, hard):
        if is_conjunctive(flows[0]):
            soft.append(flows)
        else:
            hard.offer(flows[0])
    while True:
        soft = [flows for flows in soft if flows[0].priority > hard.priority]
        if not soft:
            return hard.taken(), None
        priority = max(flows[0].priority for flows in soft)
        for found in satisfied([flows[0] for flows in soft if flows[0].priority == priority]):
            flow = _search_by_number(ordered, values, found.id)
            if flow is not None:
                return flow, found
        # None of that priority: what stands below these flows, in their own subtables, comes next.
        below = [flows[1:] if flows[0].priority == priority else flows for flows in soft]
        soft = []
        for flows in below:
            if flows and is_conjunctive(flows[0]):
                soft.append(flows)
            elif flows:
                hard.offer(flows[0])


def _search_by_number(ordered: Sequence[_Subtable], values: Sequence[int], number: int) -> Flow | None:
    """The hard flow that takes the packet with this conj_id."""
    numbered = list(values)
    numbered[CONJ_ID.order] = number
    hard = _Best()
    for flows in _matching(ordered, numbered, hard):
        if not is_conjunctive(flows[0]):
            hard.offer(flows[0])
    return hard.taken()


class FlowTables:
    """All flows of a switch."""

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self._tables: dict[int, _Table] = {}
        self._count = 0
        for flow in flows:
            self.add(flow)

    def add(self, flow: Flow) -> Flow | None:
        """Add a flow. A flow with the same key is replaced and returned, as a switch does.

        Raises ValueError for what a switch refuses: a goto that does not go forward (OpenFlow 1.5, section 5.1), and
        conjunction actions that have no such clause, or are not alone.
        """
        for place, action in enumerate(flow.actions):
            if isinstance(action, Goto) and (action.table <= flow.table or place + 1 < len(flow.actions)):
                raise ValueError(
                    f"flow of {flow.owner} ({flow.why}): goto_table:{action.table} in table {flow.table} must be last "
                    "and lead to a later table"
                )
            if isinstance(action, Conjunction):
                if why := refusal(flow):
                    raise ValueError(f"flow of {flow.owner} ({flow.why}): {why}")
                break
        table = self._tables.get(flow.table)
        if table is None:
            table = self._tables[flow.table] = _Table()
        replaced = table.add(flow)
        self._count += replaced is None
        return replaced

    def remove(self, key: FlowKey) -> Flow:
        """Remove a flow and return it. Raises KeyError when there is none with this key."""
        try:
            removed = self._tables[key.table].remove(key)
        except KeyError:
            raise KeyError(f"table {key.table} has no flow priority={key.priority},{key.match}") from None
        self._count -= 1
        return removed

    def find(self, table: int, values: Sequence[int]) -> tuple[Flow | None, Satisfied | None]:
        """The flow of the table that takes a packet with these values (in the registry's order), None when none does;
        and the conjunction that led to it, None when none did.

        Raises AmbiguousFlowsError when two flows of one priority do.
        """
        entries = self._tables.get(table)
        return (None, None) if entries is None else entries.find(values)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Flow]:
        for number in sorted(self._tables):
            yield from self._tables[number]
