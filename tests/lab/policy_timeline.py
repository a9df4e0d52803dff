# SPDX-License-Identifier: Apache-2.0
"""Which states of the policies may have been in force when, and what a record of packets says about that.

A change is asked for at one time, confirmed by the switches at a later one, and some time after that it has reached
what they have cached. In between either state may decide. What neither allows must not pass, what both allow must not
be lost.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sdn.lab.waiting import patience
from tests.lab.policy_stream import Datagram, Way

#: A packet that was sent less than so many seconds (stretched) before a change was asked for may have met it.
_ON_THE_WAY = 0.5
#: Seconds (stretched) after a change was confirmed in which the former state may still decide: Open vSwitch compares
#: what it has cached with its flows at least every half second.
CACHED = 3.0
#: The same for most ways of most changes: it begins to compare at once when flows have changed.
PROMPT = 0.25
#: Whether a state allows a way.
Allows = Callable[[str, Way], bool]


@dataclass
class Change:
    """When a state was asked for, and confirmed by all switches. Not yet: infinity."""

    state: str
    asked: float
    confirmed: float = float("inf")

    @property
    def settled(self) -> float:
        """When nothing of the former state is left."""
        return self.confirmed + patience(CACHED)


class Lag(NamedTuple):
    """How long after a change was asked for, and confirmed, the last packet was sent that only the former state lets
    pass. Not above 0: none was.
    """

    asked: float
    confirmed: float


@dataclass
class Findings:
    sent: int = 0
    #: Of these, from one node to another.
    between: int = 0
    arrived: int = 0
    answered: int = 0
    #: When the last datagram of a way was sent, and the last one that was answered.
    tried: dict[Way, float] = field(default_factory=dict)
    last: dict[Way, float] = field(default_factory=dict)
    #: Datagrams that every state allowed and that did not arrive, or whose answers did not.
    lost: list[tuple[Way, Datagram]] = field(default_factory=list)
    #: Datagrams that arrived though no state allowed them.
    leaked: list[tuple[Way, Datagram]] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)

    def told(self) -> str:
        parts = [f"{self.sent} datagrams sent, {self.arrived} arrived, {self.answered} answered"]
        parts.append(f"{len(self.lost)} lost, {len(self.leaked)} leaked")
        if self.lags:
            parts.append(
                "the last datagram of a way that closed passed, after that was asked for:"
                f" {spread([lag.asked for lag in self.lags])}; after it was confirmed:"
                f" {spread([lag.confirmed for lag in self.lags])}"
            )
        return "; ".join(parts)


class Timeline:
    """The changes, in their order. The first is the state that was there before everything."""

    def __init__(self, state: str) -> None:
        self.changes = [Change(state, float("-inf"), float("-inf"))]

    def change(self, state: str, now: float) -> Change:
        made = Change(state, now)
        self.changes.append(made)
        return made

    def possible(self, first: float, last: float) -> set[str]:
        """States that may have decided anything in this span."""
        return {
            change.state
            for change, following in zip(self.changes, [*self.changes[1:], None], strict=True)
            if change.asked <= last and (following is None or first <= following.settled)
        }

    def around(self, when: float) -> str:
        """Where in the changes a time was."""
        number = max(number for number, change in enumerate(self.changes) if change.asked <= when)
        change = self.changes[number]
        if not number:
            return "before all changes"
        parts = [
            f"{when - moment:.3f} s after it was {word}"
            for word, moment in (("asked for", change.asked), ("confirmed", change.confirmed))
            if moment <= when
        ]
        return f"change {number} to {change.state}, {', '.join(parts)}"

    def changing(self, one: Datagram) -> bool:
        """Whether it was on the way while the switches changed, each in its own moment."""
        return any(
            change.asked <= one.received and one.sent <= change.confirmed + patience(PROMPT)
            for change in self.changes[1:]
        )

    def told(self, items: Iterable[tuple[Way, Datagram]]) -> str:
        """Where and when, for a person."""
        ways: dict[str, list[float]] = defaultdict(list)
        for way, one in items:
            where = "same node" if way.same_node else "other node"
            ways[f"{way.source} -> {way.destination} {way.address} {way.port} ({where})"].append(one.sent)
        most = sorted(ways.items(), key=lambda item: -len(item[1]))[:12]
        return "; ".join(
            f"{name}: {len(times)}, the first in {self.around(times[0])}, the last in {self.around(times[-1])}"
            for name, times in most
        )

    def judge(self, record: Mapping[Way, Sequence[Datagram]], allows: Allows) -> Findings:
        """What a stream's record says."""
        found = Findings()
        slack = patience(_ON_THE_WAY)
        for way, datagrams in record.items():
            for one in datagrams:
                found.sent += 1
                found.between += not way.same_node
                found.arrived += bool(one.received)
                found.answered += bool(one.answered)
                if one.received:
                    states = self.possible(one.sent, one.received)
                    if not any(allows(state, way) for state in states):
                        found.leaked.append((way, one))
                if not one.received or (one.steady and not one.answered):
                    states = self.possible(one.sent, one.sent + slack)
                    if all(allows(state, way) for state in states):
                        found.lost.append((way, one))
            found.tried[way] = max((one.sent for one in datagrams), default=float("-inf"))
            found.last[way] = max((one.sent for one in datagrams if one.answered), default=float("-inf"))
            found.lags += self._lags([one.sent for one in datagrams if one.received], way, allows)
        return found

    def _lags(self, passed: Sequence[float], way: Way, allows: Allows) -> Iterable[Lag]:
        for before, change, following in zip(
            self.changes, self.changes[1:], [*self.changes[2:], None], strict=False
        ):
            if allows(before.state, way) and not allows(change.state, way):
                end = float("inf") if following is None else following.asked
                last = max((sent for sent in passed if change.asked < sent < end), default=change.asked)
                yield Lag(last - change.asked, last - change.confirmed)


def spread(values: Sequence[float]) -> str:
    """p50, p99 and the largest, of seconds, as milliseconds."""
    ordered = sorted(values)
    percentile = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    middle = statistics.median(ordered)
    return f"p50 {middle * 1000:.0f} p99 {percentile * 1000:.0f} max {ordered[-1] * 1000:.0f} ms (n={len(ordered)})"
