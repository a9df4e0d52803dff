# SPDX-License-Identifier: Apache-2.0
"""Cohorts: nodes that were told everything up to the same change, each with notes of what was then.

Nearly always there is one, and what a change comes to is told to all its nodes at once. What is too much for that
waits, and is told to some nodes at a time; those that were told make a cohort of their own. Changes go on meanwhile:
they are noted in every cohort, so whoever was told early is told of them alone, and whoever waits is told of all
together. Nothing is lost, since every node is told the difference to what it was told last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdn.policy.changes import Changes, Comparison
from sdn.policy.journal import Notes

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Bodies
    from sdn.policy.journal import Journal
    from sdn.policy.nodes import Nodes


class Cohort:
    """``since``: the change before which its nodes were told; ``waits``: some of it was left for later."""

    __slots__ = ("compared_at", "comparison", "in_vain", "mask", "notes", "since", "waits")

    def __init__(self, since: int) -> None:
        self.mask = 0
        self.notes = Notes()
        self.since = since
        self.waits = False
        #: The look at what is to be told, true until the next change; and how many in a row did not come to their end.
        self.comparison: Comparison | None = None
        self.compared_at = since
        self.in_vain = 0


class Cohorts:
    """All nodes that are subscribed to."""

    def __init__(self, journal: Journal, nodes: Nodes, book: AddressBook, bodies: Bodies) -> None:
        self._journal = journal
        self._nodes = nodes
        self._book = book
        self._bodies = bodies
        #: Those that were told longest ago come first.
        self._cohorts: list[Cohort] = []

    def join(self, bit: int) -> None:
        """A node knows everything."""
        self._take_out(bit)
        self._let_in(bit)
        self._sort()

    def leave(self, bit: int) -> None:
        """A node is told no more."""
        self._take_out(bit)
        self._sort()

    def _take_out(self, mask: int) -> None:
        for cohort in self._cohorts:
            cohort.mask &= ~mask

    def _let_in(self, mask: int) -> None:
        last = self._cohorts[-1] if self._cohorts else None
        if last is None or last.notes:
            last = Cohort(self._journal.clock)
            self._cohorts.append(last)
        last.mask |= mask

    def _sort(self) -> None:
        """After nodes have gone from one cohort to another."""
        self._cohorts = [cohort for cohort in self._cohorts if cohort.mask]
        self._journal.notes = [cohort.notes for cohort in self._cohorts]
        self._journal.on = bool(self._cohorts)

    @property
    def oldest(self) -> int:
        """What ended before this change is needed by nobody."""
        return min((cohort.since for cohort in self._cohorts if cohort.notes), default=self._journal.clock)

    @property
    def waiting(self) -> bool:
        """Whether anything was left for later."""
        return any(cohort.waits for cohort in self._cohorts)

    def waits(self, bit: int) -> bool:
        """Whether there may be something that a node was not told."""
        return any(cohort.mask & bit and cohort.notes for cohort in self._cohorts)

    # Telling. A node that is told is in the last cohort from then on.

    def take(self, mask: int) -> list[Changes]:
        """Tell nodes everything."""
        return [
            self._tell(cohort, self._looked(cohort, cohort.mask & mask), cohort.mask & mask)
            for cohort in list(self._cohorts)
            if cohort.mask & mask and cohort.notes
        ]

    def take_new(self, steps: int) -> list[Changes]:
        """Tell what came since this was asked last; what needs more steps waits."""
        return [
            self._go_on(cohort, steps) for cohort in list(self._cohorts) if cohort.notes and not cohort.waits
        ]

    def take_waiting(self, steps: int) -> list[Changes]:
        """Go on with what waits for longest; it may be that nobody is told yet."""
        for cohort in self._cohorts:
            if cohort.waits:
                return [self._go_on(cohort, steps)]
        return []

    def _looked(self, cohort: Cohort, mask: int) -> Comparison:
        comparison = cohort.comparison
        if comparison is None or cohort.compared_at != self._journal.clock or not comparison.looked:
            comparison = self._compare(cohort, mask)
            comparison.look(None)
        return comparison

    def _go_on(self, cohort: Cohort, steps: int) -> Changes:
        comparison = cohort.comparison
        if comparison is None or cohort.compared_at != self._journal.clock:
            in_vain = comparison is not None and not comparison.looked
            cohort.in_vain = cohort.in_vain + 1 if in_vain else 0
            comparison = cohort.comparison = self._compare(cohort, cohort.mask)
            cohort.compared_at = self._journal.clock
        cohort.waits = True
        # Where changes never let it come to its end, more is done at a time.
        left = comparison.look(max(1, steps) << min(cohort.in_vain, 16))
        if left is None:
            return Changes({}, {})
        return self._tell(cohort, comparison, comparison.portion(cohort.mask, min(left, steps)))

    def _compare(self, cohort: Cohort, mask: int) -> Comparison:
        return Comparison(cohort.notes, mask, self._nodes, self._book, self._bodies)

    def _tell(self, cohort: Cohort, comparison: Comparison, mask: int) -> Changes:
        changes = comparison.changes(mask)
        cohort.mask &= ~mask
        self._let_in(mask)
        self._sort()
        return changes
