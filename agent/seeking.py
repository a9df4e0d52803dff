# SPDX-License-Identifier: Apache-2.0
"""Whom a stream that needs one controller asks next, and when.

All that come into question are asked one after the other without a pause. Then there is one, and they are asked again.
Another owner ends the pause at once. So does a controller that answers again, but for a moment left to chance: all
nodes see it come back at the same time.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from agent.channel import Pause
from agent.owners import Owners, View

#: At the start, how long controllers may take to say who the owner is, and the owner to answer, before any is asked.
_FIRST_WORD_SECONDS: Final = 0.3
#: A controller that answers again is asked after so long at most.
_AGAIN_SECONDS: Final = 0.5

#: So many rounds in vain, and those are asked, too, from whom less is to be hoped.
_PATIENCE: Final = 2

#: Whom to ask, the best first, by what is known; the flag: that was tried in vain for some rounds.
Order = Callable[[View, bool], Sequence[str]]


class Seeker:
    """Used by one thread; `look` and `stop` by any."""

    def __init__(self, owners: Owners, order: Order) -> None:
        self._owners = owners
        self._order = order
        self._stopped = threading.Event()
        #: What is known has changed.
        self._news = threading.Event()
        self._pause = Pause()
        self._rounds = 0
        # Who was asked since the last pause, and since the owner was the same.
        self._asked: set[str] = set()
        self._began = False
        #: What was known when `next` chose.
        self.known = owners.view

    def look(self) -> None:
        """Something is new about the controllers."""
        self._news.set()

    def stop(self) -> None:
        """Ask nobody any more."""
        self._stopped.set()
        self._news.set()

    def next(self) -> str:
        """The controller to ask now; waits until there is one. Empty: it was stopped."""
        if not self._began:
            self._began = True
            self._listen()
        while not self._stopped.is_set():
            self._news.clear()
            before, self.known = self.known, self._owners.view
            if self.known.owner != before.owner:
                self._asked.clear()
                self._rounds = 0
            for controller in self._order(self.known, self._rounds >= _PATIENCE):
                if controller not in self._asked:
                    self._asked.add(controller)
                    return controller
            self._rounds += 1
            self._rest()
        return ""

    def good(self) -> None:
        """The last one served us well: the next pause is a short one."""
        self._pause.reset()
        self._rounds = 0

    def again(self) -> None:
        """The last one has taken us, and then it ended: it is asked again after a pause."""
        self._rest()

    def _listen(self) -> None:
        until = time.monotonic() + _FIRST_WORD_SECONDS
        while not self._stopped.is_set() and (left := until - time.monotonic()) > 0:
            self._news.clear()
            view = self._owners.view
            if view.answering and (not view.owner.controller or view.owner.address in view.answering):
                return
            self._news.wait(left)

    def _rest(self) -> None:
        self._asked.clear()
        until = time.monotonic() + self._pause.next()
        known = self.known
        while not self._stopped.is_set() and (left := until - time.monotonic()) > 0:
            self._news.wait(left)
            self._news.clear()
            view = self._owners.view
            if view.owner != known.owner:
                return
            if set(view.answering) - set(known.answering):
                until = min(until, time.monotonic() + random.uniform(0.0, _AGAIN_SECONDS))
            known = view
