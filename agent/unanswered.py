# SPDX-License-Identifier: Apache-2.0
"""What a controller was told of attachments and has not answered, and who waits for it.

Messages are of one stream and go with it; who waits stays, until the full state of a later stream is answered. An
answer counts for an attachment only if the attachment was not made anew, or removed, since the message was sent.

Not for several threads: whoever uses it has a lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from sdn.v1 import controller_pb2 as messages

#: (container, interface)
Key = tuple[str, str]

#: How a controller that does not list the wrong items of a full state names them.
_ITEM: Final = re.compile(r"\battachments\[(\d{1,9})\]")


class Rejected(Exception):
    """The controller refused an attachment; the text is its reason."""


class Confirmation:
    """Whether a controller confirmed an attachment."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()

    def wait(self, seconds: float) -> bool:
        """True once it is in force; False when that did not happen in time. Rejected when it was refused."""
        try:
            self._future.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return False
        return True

    def settle(self, reason: str | None) -> None:
        """It is in force (None), or refused. Only the first word counts."""
        if self._future.done():
            return
        if reason is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(Rejected(reason))


@dataclass
class Outcome:
    """What an answer of the controller's means.

    confirmed   attachments that are in force
    settled     who waited, and why in vain (None: not in vain)
    standing    attachments that are wrong and that nobody waits for, and why
    void        nothing of the full state is in force
    """

    confirmed: list[Key] = field(default_factory=list)
    settled: list[tuple[Confirmation, str | None]] = field(default_factory=list)
    standing: dict[Key, str] = field(default_factory=dict)
    void: bool = False


class Unanswered:
    """Who waits, by attachment; and which attachments each message under way is about."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Confirmation] = {}
        self._sent: dict[int, set[Key]] = {}
        # The last full state: its sequence number, and its items in order.
        self._listed: tuple[int, list[Key]] = 0, []

    def expect(self, key: Key) -> Confirmation:
        """An attachment is new. What was said before was about another one."""
        self.forget(key)
        confirmation = self._waiting[key] = Confirmation()
        return confirmation

    def forget(self, key: Key) -> None:
        """An attachment is gone."""
        self._waiting.pop(key, None)
        for keys in self._sent.values():
            keys.discard(key)

    def sent(self, sequence: int, key: Key | None = None) -> None:
        """A message about one attachment, or none, is under way."""
        self._sent[sequence] = {key} if key is not None else set()

    def listed(self, sequence: int, keys: Iterable[Key]) -> None:
        """The full state is under way."""
        self._listed = sequence, list(keys)
        self._sent[sequence] = set(self._listed[1])

    def ended(self) -> None:
        """The stream is over: nothing that was sent on it is answered."""
        self._sent.clear()
        self._listed = 0, []

    def is_full_state(self, sequence: int) -> bool:
        """Whether this is the number of the last full state."""
        return sequence == self._listed[0]

    def programmed(self, sequence: int) -> Outcome:
        """A message is in force."""
        outcome = Outcome()
        for key in self._sent.pop(sequence, ()):
            self._confirm(key, outcome)
        return outcome

    def rejected(self, answer: messages.Rejected) -> Outcome:
        """A message was refused. Of a full state, all but the wrong items are in force; when it cannot be told which
        those are, all go on to wait.
        """
        outcome = Outcome()
        keys = self._sent.pop(answer.sequence, set())
        sequence, listed = self._listed
        if answer.sequence != sequence:
            for key in keys:
                self._refuse(key, answer.reason, outcome)
            return outcome
        wrong = _wrong(answer, listed)
        outcome.void = not wrong
        for key in keys if wrong else ():
            if key in wrong:
                self._refuse(key, wrong[key], outcome)
            else:
                self._confirm(key, outcome)
        return outcome

    def _confirm(self, key: Key, outcome: Outcome) -> None:
        outcome.confirmed.append(key)
        if (confirmation := self._waiting.pop(key, None)) is not None:
            outcome.settled.append((confirmation, None))

    def _refuse(self, key: Key, why: str, outcome: Outcome) -> None:
        if (confirmation := self._waiting.pop(key, None)) is not None:
            outcome.settled.append((confirmation, why))
        else:
            outcome.standing[key] = why


def _wrong(answer: messages.Rejected, listed: Sequence[Key]) -> Mapping[Key, str]:
    """The wrong items of a full state, and why."""
    found = {item.index: item.reason or answer.reason for item in answer.wrong}
    if not found:
        found = {int(number): answer.reason for number in _ITEM.findall(answer.reason)}
    return {listed[index]: why for index, why in found.items() if index < len(listed)}
