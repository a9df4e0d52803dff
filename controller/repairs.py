# SPDX-License-Identifier: Apache-2.0
"""What of a node was found to be not as it must be, and was put right: how much, and the last of it in words."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controller.desired import Desired, Key, Part
from sdn.logs import Logger
from sdn.openflow import CodecError, decode_flow, decode_group, format_flow, format_group
from sdn.pipeline.tables import TABLES

#: Repairs that are kept in words.
KEPT: Final = 10
#: Longer texts are cut: a group may have a thousand buckets.
MAX_TEXT: Final = 400
_NAMES: Final = {table.number: table.name for table in TABLES}


class Kind(enum.StrEnum):
    """How something was not as it must be."""

    MISSING = "missing"
    CHANGED = "changed"
    #: It is nobody's.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that was put right. ``what`` says what it was, as it was found, or what was missing."""

    at: datetime
    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An entry that is not as it must be; ``body`` as it was found, or as it must be where it is missing."""

    kind: Kind
    key: Key
    body: bytes
    part: Part | None


class Repairs:
    """Counts and remembers. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last: deque[Repair] = deque(maxlen=KEPT)

    @property
    def count(self) -> int:
        """All, since the controller was started."""
        with self._lock:
            return self._count

    def last(self) -> tuple[Repair, ...]:
        """The last ones, the oldest first."""
        with self._lock:
            return tuple(self._last)

    def add(self, kind: str, what: str, count: int = 1) -> None:
        """``count`` things were put right, of which ``what`` names one, or all."""
        with self._lock:
            self._count += count
            self._last.append(Repair(datetime.now(UTC), kind, what[:MAX_TEXT]))

    def entries(self, log: Logger, findings: Iterable[Finding], owner_of: Callable[[Part], str]) -> int:
        """Entries of the switch are put right; the first of them are named in the log. How many there are."""
        count = 0
        for count, finding in enumerate(findings, 1):
            if count <= KEPT:
                what = entry_text(finding.key, finding.body)
                owner = owner_of(finding.part) if finding.part is not None else "nobody"
                log.warning("entry repaired", kind=finding.kind.value, owner=owner, entry=what)
                self.add(finding.kind, f"{_kind_of(finding.key)} of {owner}: {what}", 1)
        if count > KEPT:
            with self._lock:
                self._count += count - KEPT
            log.warning("more entries repaired", count=count - KEPT)
        return count


def findings(
    desired: Desired, wrong: Iterable[Key], installed: Callable[[Key], bytes | None]
) -> list[Finding]:
    """What is not right about these entries; those that neither exist nor must are left out."""
    found: list[Finding] = []
    for key in wrong:
        there, wanted = installed(key), desired.body(key)
        if wanted is not None:
            kind = Kind.MISSING if there is None else Kind.CHANGED
            found.append(Finding(kind, key, wanted if there is None else there, desired.part_of(key)))
        elif there is not None:
            found.append(Finding(Kind.UNKNOWN, key, there, None))
    return found


def _kind_of(key: Key) -> str:
    if isinstance(key, int):
        return "group"
    return f"flow in table {_NAMES.get(key[0], key[0])}"


def entry_text(key: Key, body: bytes) -> str:
    """An entry for people; its bytes where even the codec does not understand them."""
    try:
        if isinstance(key, int):
            return format_group(decode_group(key, body))
        return format_flow(decode_flow(key, body))
    except CodecError:
        return f"{key if isinstance(key, int) else key.hex()} {body.hex()}"
