# SPDX-License-Identifier: Apache-2.0
"""What a synchronizer is asked for, from when it is said until it is in force or refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from controller.connection import SwitchConnection
from controller.desired import Encoded, Entries, Part, encode
from controller.forgetting import Flush
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.topology import Address

#: Called in the synchronizer's thread: None, the part is in force; else why it is not. After a refusal it is
#: called once more with None should the switch take this version of the part later.
Done: TypeAlias = Callable[[str | None], None]
#: Computes a part's entries; run in the synchronizer's thread, so that the engine never waits for a compiler. What is
#: encoded already is used as it is, and may be used by many switches.
Compile: TypeAlias = Callable[[], Iterable[Flow | Group] | Encoded]

#: Why a part is not in force, or not known to be, where that says nothing about the part: the switch is another
#: controller's, who brings it into force. Nothing was refused.
NOT_OWNER: Final = "not the owner of the switch"

#: Changes that wait for a busy thread until versions of parts that nobody needs any more are left out.
MERGE_ABOVE: Final = 512


NEVER: Final = float("inf")


@dataclass(slots=True)
class Change:
    """A part's new entries; the first fields are the arguments of ``Synchronizer.submit``.

    ``fresh`` are addresses of a pod that begins with this change: what the switch tracks of those who had them before
    is forgotten before the change is in force, where that is still to be done. ``more`` are told what ``done`` is told.
    """

    part: Part
    compile: Compile | None
    done: Done | None = None
    gone: tuple[Address, ...] = ()
    fresh: tuple[Address, ...] = ()
    more: Sequence[Done] = ()

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody waits for new entries, such as a pod that is to begin."""
        return self.compile is not None and (self.done is not None or bool(self.more))

    @property
    def waiting(self) -> Iterator[Done]:
        """All who are to be told."""
        yield from self.more
        if self.done is not None:
            yield self.done


def unchanged() -> Encoded:
    """As ``compile`` of a change: the part stays what it is, only what is said of addresses counts."""
    raise AssertionError("the entries of a part that stays what it is are not asked for")


def merged(changes: Sequence[Change]) -> list[Change]:
    """The same with only the last version of each part, at its place. All are kept who wait for any, and what is said
    of addresses is, in its order: one may be gone, another pod's, and gone again.
    """
    last = {change.part: change for change in changes}
    waiting: defaultdict[Part, list[Done]] = defaultdict(list)
    for change in changes:
        waiting[change.part] += change.waiting
    kept: list[Change] = []
    #: The last one kept that says something of addresses.
    speaker: Change | None = None
    for change in changes:
        speaks = bool(change.gone or change.fresh)
        if last[change.part] is change:
            kept.append(replace(change, done=None, more=waiting[change.part]))
        elif not speaks:
            continue
        elif speaker is not None and speaker.compile is unchanged and _can_say(speaker, change):
            speaker.gone = (*dict.fromkeys(speaker.gone + change.gone),)
            speaker.fresh = (*dict.fromkeys(speaker.fresh + change.fresh),)
            continue
        else:
            kept.append(Change(change.part, unchanged, None, change.gone, change.fresh))
        if speaks:
            speaker = kept[-1]
    return kept


def _can_say(earlier: Change, later: Change) -> bool:
    """Whether one change can say both; it says first what is gone."""
    return frozenset(earlier.fresh).isdisjoint(later.gone)


@dataclass(slots=True)
class Refused:
    """A part that the switch did not take."""

    entries: Entries
    why: str
    #: Those who were told, to be told again should it be in force later.
    told: list[Done] = field(default_factory=list)


@dataclass(slots=True)
class Inbox:
    """What other threads hand over; guarded by the synchronizer's condition."""

    connection: SwitchConnection | None = None
    #: With which this controller owns the switch; None: it does not.
    generation: int | None = None
    #: The highest generation heard of, and the highest one with which the switch was lost to another controller.
    known: int = 0
    lost: int = -1
    #: How often it was given up: it may come back as it was before anybody looks.
    given_up: int = 0
    #: Nothing may be written to the switch by who owns it; and how often that was so.
    paused: bool = False
    pauses: int = 0
    changes: list[Change] = field(default_factory=list)
    #: When the changes are to be taken in, in the terms of time.monotonic().
    due: float = NEVER
    #: Somebody waits for some of them.
    is_waited_for: bool = False
    #: In their order.
    flushes: dict[Flush, None] = field(default_factory=dict)
    stopping: bool = False
    _merge_at: int = MERGE_ABOVE

    def add(self, changes: Iterable[Change], due: float = 0.0) -> None:
        """Take changes in. What waits grows with the parts and addresses that are concerned, not with time. ``due``:
        until then they may wait for others.
        """
        self.due = min(self.due, due)
        before = len(self.changes)
        self.changes += changes
        self.is_waited_for |= any(change.is_waited_for for change in self.changes[before:])
        if len(self.changes) > self._merge_at:
            self.changes = merged(self.changes)
            self._merge_at = max(MERGE_ABOVE, 2 * len(self.changes))

    def take(self) -> Inbox:
        """What is there now; changes are not there any more, nor flushes, if they can be made."""
        taken = replace(self)
        self.changes, self._merge_at, self.due = [], MERGE_ABOVE, NEVER
        self.is_waited_for = False
        if not self.held_up:
            self.flushes = {}
        return taken

    @property
    def held_up(self) -> bool:
        """Whether the switch is ours, and must not be written."""
        return self.paused and self.generation is not None


def entries_of(compile: Compile | None) -> Entries:
    """A part's entries; None has none. CodecError when they cannot be encoded, and what ``compile`` raises."""
    if compile is None:
        return {}
    made = compile()
    return made if isinstance(made, Encoded) else encode(made)
