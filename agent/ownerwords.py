# SPDX-License-Identifier: Apache-2.0
"""What several controllers say of a node's owner, reckoned up to one view. Values only; not for several threads.

The word with the highest generation holds, whoever says it. A lower one is believed only when nobody has held to the
higher one for a while: then the controllers' store is another one than it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.targets import is_controller, spread
from sdn import logs
from sdn.v1 import controller_pb2 as messages

log: Final = logs.get("agent.owners")

#: Generations that go back are no mistake after so many seconds without a word of the higher one.
_HOLDS_SECONDS: Final = 5.0
#: Controllers that are followed at most, those of the settings among them.
MOST_CONTROLLERS: Final = 32


@dataclass(frozen=True)
class Owner:
    """The controller that owns a node's switch. `controller` is its name; empty: nobody owns it, as far as we know."""

    controller: str = ""
    address: str = ""
    generation: int = 0


@dataclass(frozen=True)
class View:
    """What is known of the controllers at one moment.

    known             where they serve, in this node's order
    answering         those of them that answer; the owner first, then in this node's order
    openflow_targets  of the controllers that the switch is connected to; empty: nobody told
    """

    owner: Owner = Owner()
    known: tuple[str, ...] = ()
    answering: tuple[str, ...] = ()
    openflow_targets: tuple[str, ...] = ()


class Words:
    """The last word of each controller that answers. Times are seconds of a clock that never goes back."""

    def __init__(self, node: str, controllers: Sequence[str]) -> None:
        """`controllers`: those that are known whatever anybody says."""
        self._node = node
        self._configured = tuple(controllers)
        # None: it answers, but says nothing of owners.
        self._words: dict[str, messages.Owner | None] = {}
        self._owner = Owner()
        self._held_at = 0.0
        self._targets: tuple[str, ...] = ()
        self._named: tuple[str, ...] = ()

    def heard(self, controller: str, word: messages.Owner | None, now: float) -> None:
        """A controller has said something; None: that it knows nothing of owners."""
        self._words[controller] = word
        if word is None:
            return
        self._reckon(now)
        # Who else says it may be late.
        leader = self._words.get(self._owner.address) or word
        late = word.generation < self._owner.generation
        if word.openflow_targets and not late and (leader is word or leader.generation < word.generation):
            self._targets = tuple(sorted(set(word.openflow_targets)))

    def silent(self, controller: str, now: float) -> None:
        """A controller is not heard any more. What it said last goes on to hold until others say otherwise."""
        word = self._words.pop(controller, None)
        if word is not None and word.generation >= self._owner.generation:
            self._held_at = now

    def wordless(self, controller: str) -> bool:
        """Whether a controller answers, but says nothing of owners."""
        return controller in self._words and self._words[controller] is None

    def view(self) -> View:
        """All of it."""
        known = self._known()
        first = self._owner.address if self._owner.controller else ""
        answering = [controller for controller in known if controller in self._words]
        return View(
            self._owner,
            tuple(known),
            tuple(sorted(answering, key=lambda controller: controller != first)),
            self._targets,
        )

    def _reckon(self, now: float) -> None:
        words = [word for word in self._words.values() if word is not None]
        highest = max(words, key=lambda word: (word.generation, bool(word.controller)))
        owner = Owner(highest.controller, highest.address, highest.generation)
        higher = owner.generation > self._owner.generation
        if owner.generation == self._owner.generation:
            self._held_at = now
            higher = bool(owner.controller) and not self._owner.controller
        if higher:
            self._owner = owner
            self._held_at = now
        elif now - self._held_at > _HOLDS_SECONDS:
            log.warning("the owner's generation has gone back", before=self._owner, now=owner)
            self._owner = owner
            self._held_at = now

    def _known(self) -> list[str]:
        words = [word for word in self._words.values() if word is not None]
        if words:
            # While nobody speaks, nobody is forgotten.
            named = sorted({address for word in words for address in word.controllers})
            self._named = tuple(address for address in named if is_controller(address))
        wanted = dict.fromkeys(self._configured)
        if self._owner.controller and is_controller(self._owner.address):
            wanted[self._owner.address] = None
        wanted |= dict.fromkeys(self._named)
        return spread(self._node, list(wanted)[:MOST_CONTROLLERS])
