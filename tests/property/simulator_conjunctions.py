# SPDX-License-Identifier: Apache-2.0
"""Random conjunctive flows among other random flows: conjunctions that packets satisfy, in part or whole, flows for
their numbers or none, and plain flows above and below.

No packet satisfies two conjunctions of one priority: which of them Open vSwitch takes is undefined, and nothing to
compare. So the first clause of each is about a port of arrival of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from hypothesis import strategies as st

from sdn.pipeline.actions import Action, Conjunction
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.simulator.packet import Packet
from tests.property.simulator_strategies import (
    KINDS,
    OWNER,
    PLAIN_PORTS,
    PORTS,
    TABLES,
    Case,
    actions_of,
    cases,
    is_kind,
    matches,
    packets,
    pool,
)

#: Numbers of conjunctions. With 0 the second lookup is as the first.
_NUMBERS = (1, 2, 0x80000001, 0)
#: Priorities of conjunctive flows: above, among and below those of the others.
_PRIORITIES = range(60, 0, -3)
#: Numbers, as priority and as cookie, of flows that are not in the case without conjunctions.
_FIRST = 20


@st.composite
def conjunctive_cases(draw: st.DrawFn, packets_each: int = 8) -> Case:
    """A case of flows of all sorts, conjunctive ones among them, and packets that are alike, for which they are."""
    one, other = draw(packets()), draw(packets())
    alike = st.sampled_from([one, one, other]).flatmap(_alike)
    case = draw(cases(packets_each // 2))
    numbers = count(_FIRST)
    flows = list(case.flows)
    for priority in draw(st.lists(st.sampled_from(_PRIORITIES), min_size=1, max_size=3, unique=True)):
        table = max(0, draw(st.integers(-2, TABLES - 1)))
        flows += draw(_conjunctive(numbers, table, priority, draw(st.sampled_from([one, one, other]))))
    arriving = (*case.packets, one, *(draw(alike) for _ in range(packets_each - packets_each // 2 - 1)))
    return replace(case, flows=tuple(draw(st.permutations(flows))), packets=arriving)


def _alike(seen: Packet) -> st.SearchStrategy[Packet]:
    """The packet, perhaps from or for another machine."""
    macs = pool(FIELDS["eth_dst"])
    changes = [seen, *(seen.with_(eth_dst=mac) for mac in macs), *(seen.with_(eth_src=mac) for mac in macs)]
    if seen["in_port"] in PLAIN_PORTS:
        changes += [seen.with_(in_port=port) for port in PLAIN_PORTS]
    return st.sampled_from(changes)


@st.composite
def _conjunctive(
    draw: st.DrawFn, numbers: Iterator[int], table: int, priority: int, seen: Packet
) -> Sequence[Flow]:
    """Conjunctions of one table and priority that this packet, as it arrives, satisfies now and then."""
    kinds = [kind for kind in KINDS if is_kind(seen, kind)]
    ids = draw(st.lists(st.sampled_from(_NUMBERS), min_size=1, max_size=3, unique=True))
    clauses = {each: draw(st.sampled_from([2, 2, 2, 3])) for each in ids}
    others = draw(st.permutations([port for port in PORTS if port != seen["in_port"]]))
    flows: list[Flow] = []
    kind_of: dict[Match, str] = {}

    def add(kind: str, what: Match, actions: Sequence[Action], at: int | None = None) -> None:
        number = next(numbers)
        kind_of[what] = kind
        flows.append(
            Flow(
                *(table, number if at is None else at, what, tuple(actions), number, OWNER, f"flow {number}")
            )
        )

    for number, port in zip(ids, [seen["in_port"], *others], strict=False):
        kind = draw(st.sampled_from(kinds))
        says = [1]
        if not draw(st.integers(0, 3)):
            says.append(2)
        what = match(**draw(matches(kind, seen, 1)) | {"in_port": port})
        add(kind, what, [Conjunction(number, clause, clauses[number]) for clause in says], priority)
    for clause in range(2, max(clauses.values()) + 1):
        possible = [number for number in ids if clauses[number] >= clause]
        for _ in range(draw(st.integers(1, 2))):
            kind = draw(st.sampled_from(kinds))
            chosen = draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
            actions = [Conjunction(number, clause, clauses[number]) for number in chosen]
            add(kind, match(**draw(matches(kind, seen, 1))), actions, priority)
    # Plain flows of the same match, above or below.
    for what in draw(st.lists(st.sampled_from(list(kind_of)), max_size=2, unique=True)):
        add(kind_of[what], what, draw(actions_of(kind_of[what], table)))
    for number in ids:
        for _ in range(draw(st.sampled_from([1, 1, 2, 0]))):
            kind = draw(st.sampled_from(kinds))
            what = match(**draw(matches(kind, seen, 1)) | {"conj_id": number})
            add(kind, what, draw(actions_of(kind, table)))
    return flows
