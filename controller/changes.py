# SPDX-License-Identifier: Apache-2.0
"""What a synchronizer is asked for, from when it is said until it is in force or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

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


@dataclass(slots=True)
class Change:
    """A part's new entries; the first fields are the arguments of ``Synchronizer.submit``.

    ``fresh`` are addresses of a pod that begins with this change: what the switch tracks of those who had them before
    is forgotten before the change is in force, where that is still to be done.
    """

    part: Part
    compile: Compile | None
    done: Done | None = None
    gone: tuple[Address, ...] = ()
    fresh: tuple[Address, ...] = ()


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

    changes: list[Change] = field(default_factory=list)
    flushes: list[Flush] = field(default_factory=list)
    connection: SwitchConnection | None = None
    stopping: bool = False


def entries_of(compile: Compile | None) -> Entries:
    """A part's entries; None has none. CodecError when they cannot be encoded, and what ``compile`` raises."""
    if compile is None:
        return {}
    made = compile()
    return made if isinstance(made, Encoded) else encode(made)
