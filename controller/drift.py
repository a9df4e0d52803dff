# SPDX-License-Identifier: Apache-2.0
"""Notices what others change in a switch: told by the switch at once, and looked at again now and then.

The owner of a switch lets it tell of each flow and group that anybody else changes (:mod:`sdn.openflow.monitor`). A
flow that is told of and is not as desired becomes dirty, and is written with the next bundle, as any change is. Of a
group only that something has changed is believed; then all groups are read and compared. Flows of table
session_affinity that the switch has rightly learned by itself are no difference, as in :mod:`controller.comparison`.

What was missed all the same is found by *audits*: all groups, or all flows and groups, are read and compared from time
to time, rarely where the switch tells of changes, often where it does not. All switches of a controller share a budget
for that (:mod:`controller.budget`), so that a thousand are looked at less often than one.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.budget import AUDITS
from controller.connection import SwitchConnection
from controller.desired import Desired, Key
from controller.endpointflows import learn_cookies
from controller.holdings import Holdings
from controller.repairs import findings
from sdn.logs import Logger
from sdn.openflow import (
    OFPRR_GROUP_DELETE,
    OFPRR_HARD_TIMEOUT,
    OFPRR_IDLE_TIMEOUT,
    FlowEvent,
    FlowUpdate,
    canonical_key,
    split_flow_descs,
)
from sdn.pipeline.tables import SESSION_AFFINITY

#: Seconds between audits at the least: of groups, and of everything, where the switch tells of changes.
GROUPS_SECONDS: Final = 10.0
ALL_SECONDS: Final = 60.0
#: The same where it does not.
UNTOLD_GROUPS_SECONDS: Final = 1.0
UNTOLD_ALL_SECONDS: Final = 2.0
#: An audit of everything that takes long holds up the changes that come meanwhile: it is this many times as rare.
RARE: Final = 2000.0
#: Flows told of that may wait for a busy thread; when there are more, the whole switch is compared.
MOST_TOLD: Final = 20_000
#: Seconds until it is looked again which flows the switch may learn.
_LEARNING_SECONDS: Final = 1.0


#: Whether switches are to tell, and are audited; else others' changes stay until the next connection.
_watching = True


def set_watching(watching: bool) -> None:
    """Whether what others change is to be noticed while a switch is connected; for connections from now on."""
    global _watching
    _watching = watching


@dataclass(slots=True)
class Told:
    """What a switch has told of others' changes since it was looked at last."""

    flows: dict[bytes, FlowUpdate] = field(default_factory=dict)
    #: Groups may be others than they were.
    groups: bool = False
    #: More than that may be.
    everything: bool = False


class Drift:
    """Of one switch. ``look`` and what is below it are for one thread, the synchronizer's."""

    def __init__(self, log: Logger, wake: Callable[[], None]) -> None:
        """``wake`` is called, without a lock held, when there is something to look at."""
        self._log = log
        self._wake = wake
        self._lock = threading.Lock()
        self._told = Told()
        self._paused = False
        #: Cookies of flows that the switch rightly learns.
        self._learned: frozenset[bytes] = frozenset()
        self._learned_at = float("-inf")
        #: Flows of which it is not known yet whether they were rightly learned.
        self._puzzling: dict[bytes, FlowUpdate] = {}
        self._connection: SwitchConnection | None = None
        self._tells = False
        self._groups_at = self._all_at = 0.0

    # Called in the connection's thread.

    def flows(self, updates: Iterable[FlowUpdate]) -> None:
        """The switch tells of flows."""
        with self._lock:
            told = self._told
            before = len(told.flows)
            for update in updates:
                self._flow(update)
            if len(told.flows) > MOST_TOLD:
                told.flows.clear()
                told.everything = True
            news = told.everything or len(told.flows) > before
        if news:
            self._wake()

    def _flow(self, update: FlowUpdate) -> None:
        event, told = update.event, self._told
        if event == FlowEvent.ABBREVIATED:
            return
        if event == FlowEvent.PAUSED:
            # From here on our own changes are told as others' are.
            self._paused = True
        elif event == FlowEvent.RESUMED:
            self._paused = False
            told.everything = True
        elif self._paused or self._is_learned(update):
            return
        else:
            told.groups |= event == FlowEvent.REMOVED and update.reason == OFPRR_GROUP_DELETE
            # The last word about it, and in the order in which they were said.
            told.flows.pop(update.key, None)
            told.flows[update.key] = update

    def _is_learned(self, update: FlowUpdate) -> bool:
        """There may be very many of these."""
        if update.key[0] != SESSION_AFFINITY.number:
            return False
        if update.event == FlowEvent.REMOVED:
            return update.reason in (OFPRR_IDLE_TIMEOUT, OFPRR_HARD_TIMEOUT)
        return update.cookie in self._learned

    def groups(self) -> None:
        """The switch tells that somebody has changed a group."""
        with self._lock:
            self._told.groups = True
        self._wake()

    # The synchronizer's thread.

    def begin(self, connection: SwitchConnection) -> None:
        """The switch is ours: from now on it tells. ConnectionClosedError, CodecError."""
        if connection is self._connection:
            return
        self._clear()
        self._connection = None
        if not _watching:
            return
        self._connection = connection
        connection.on_flow_updates = self.flows
        connection.on_group_change = self.groups
        refused = connection.monitor()
        self._tells = not refused
        if refused:
            self._log.warning("the switch cannot tell of others' changes", error=refused)
        now = time.monotonic()
        groups, everything = self._at_least()
        self._groups_at = now + groups * random.uniform(0.5, 1.0)
        self._all_at = now + everything * random.uniform(0.5, 1.0)

    def end(self) -> None:
        """The switch is ours no longer, or away: whatever was told is of no interest."""
        connection, self._connection = self._connection, None
        AUDITS.leave((self, "groups"))
        AUDITS.leave((self, "all"))
        if connection is not None:
            connection.on_flow_updates = lambda _updates: None
            connection.on_group_change = lambda: None
        self._clear()

    def compared(self) -> None:
        """Everything is about to be read: what was told before will be found, too."""
        with self._lock:
            self._told = Told()
        self._puzzling.clear()

    def _clear(self) -> None:
        with self._lock:
            self._told = Told()
            self._paused = False
        self._puzzling.clear()
        self._learned, self._learned_at = frozenset(), float("-inf")

    def waiting(self) -> bool:
        """Whether something was told."""
        told = self._told
        return bool(told.flows) or told.groups or told.everything

    def due(self) -> float | None:
        """When something is to be looked at by itself, in the terms of time.monotonic()."""
        if self._connection is None:
            return None
        if self.waiting():
            return 0.0
        due = min(self._groups_at, self._all_at)
        return min(due, self._learned_at + _LEARNING_SECONDS) if self._puzzling else due

    def wants_comparison(self) -> bool:
        """Whether everything must be read and compared now; then call :meth:`was_compared` with what it took."""
        return self._connection is not None and (self._told.everything or time.monotonic() >= self._all_at)

    def was_compared(self, cost: float) -> None:
        """Everything was compared, in so many seconds of a CPU."""
        if self._connection is None:
            return
        _, at_least = self._at_least()
        pause = AUDITS.pause((self, "all"), cost, max(at_least, cost * RARE))
        self._all_at = time.monotonic() + pause
        self._groups_at = max(self._groups_at, time.monotonic() + self._at_least()[0])

    def _at_least(self) -> tuple[float, float]:
        return (GROUPS_SECONDS, ALL_SECONDS) if self._tells else (UNTOLD_GROUPS_SECONDS, UNTOLD_ALL_SECONDS)

    def look(self, connection: SwitchConnection, holdings: Holdings) -> None:
        """Mark what is not as it must be, of what was told, and of all groups where that is due. To be called before
        anything is written: flows that use a group want it there. ConnectionClosedError, CodecError.
        """
        if self._connection is None:
            return
        with self._lock:
            told, self._told = self._told, Told(everything=self._told.everything)
        self._mark(self._wrong_flows(told.flows.values(), holdings.desired), holdings)
        if told.groups or time.monotonic() >= self._groups_at:
            began = time.thread_time()
            holdings.compare_groups(connection)
            cost = time.thread_time() - began
            self._groups_at = time.monotonic() + AUDITS.pause((self, "groups"), cost, self._at_least()[0])

    def look_at_learned(self, connection: SwitchConnection, holdings: Holdings) -> None:
        """Mark flows of which it was puzzling whether the switch has rightly learned them. To be called when everything
        is written: with a flow that learns, the switch removes what was learned by it. ConnectionClosedError,
        CodecError.
        """
        now = time.monotonic()
        if not self._puzzling or now < self._learned_at + _LEARNING_SECONDS:
            return
        puzzling, self._puzzling = self._puzzling, {}
        self._learned_at = now
        self._learned = frozenset(
            cookie
            for key, body in holdings.desired.items()
            if isinstance(key, bytes)
            for cookie in learn_cookies(body)
        )
        if all(update.cookie in self._learned for update in puzzling.values()):
            return
        there: dict[bytes, bytes] = {}
        for body in connection.flow_descriptions(SESSION_AFFINITY.number):
            there.update(split_flow_descs(body))
        wrong: dict[Key, bytes | None] = {
            key: there[key]
            for key, update in puzzling.items()
            if update.cookie not in self._learned and key in there and holdings.desired.body(key) is None
        }
        self._mark(wrong, holdings)

    def _mark(self, wrong: Mapping[Key, bytes | None], holdings: Holdings) -> None:
        news = [
            key
            for key, body in wrong.items()
            if key not in holdings.dirty and not (body is not None and holdings.is_leftover(key, body))
        ]
        found = findings(holdings.desired, news, wrong.get)
        holdings.dirty.update(wrong)
        holdings.repaired(found)

    def _wrong_flows(self, updates: Iterable[FlowUpdate], desired: Desired) -> dict[Key, bytes | None]:
        """The flows that are not as they must be, each with its body as it is told, None where it is gone."""
        wrong: dict[Key, bytes | None] = {}
        for update in updates:
            key = update.key
            self._puzzling.pop(key, None)
            wanted = desired.body(key)
            if wanted is None:
                key = canonical_key(key)
                wanted = desired.body(key)
            if update.event == FlowEvent.REMOVED:
                if wanted is not None:
                    wrong[key] = None
            elif wanted is not None:
                if not update.is_body(wanted):
                    wrong[key] = update.body()
            elif key[0] == SESSION_AFFINITY.number:
                self._puzzling[update.key] = update
            else:
                wrong[update.key] = update.body()
        if len(self._puzzling) > MOST_TOLD:
            self._puzzling.clear()
            self._told.everything = True
        return wrong
