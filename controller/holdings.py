# SPDX-License-Identifier: Apache-2.0
"""What one switch must hold, what it is known to hold, and how the one becomes the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from controller.comparison import COOKIE, read_back, read_groups, report_foreign
from controller.connection import SwitchConnection
from controller.desired import Desired, Entries, Key, Part
from controller.endpointflows import learn_cookies
from controller.pipelineversion import NO_VERSION, version_in
from controller.repairs import Finding, Repairs, findings
from sdn.logs import Logger
from sdn.openflow import spreads_anew
from sdn.pipeline.tables import SESSION_AFFINITY

#: Keys that may pile up while no switch is there, beside twice as many as there are entries.
_SLACK: Final = 10_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a switch was found to hold, and the keys of what is not as it must be."""

    installed: Entries
    wrong: Set[Key]


class Holdings:
    """Owned by the synchronizer's thread."""

    def __init__(
        self,
        log: Logger,
        repairs: Repairs | None = None,
        owner_of: Callable[[Part], str] = str,
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """``repairs`` remembers what was not as it must be; ``owner_of`` says for people whose a part is; ``ours``
        whether the switch still is.
        """
        self._log = log
        self._ours = ours
        self.repairs = repairs or Repairs()
        self._owner_of = owner_of
        self.desired = Desired()
        #: Keys whose entry in the switch is not confirmed to be as desired.
        self.dirty: set[Key] = set()
        #: The connection over which the switch was compared last: it holds what it must but for ``dirty``.
        self.compared: SwitchConnection | None = None
        #: It was compared at all, and nobody else has written since.
        self.known = False
        #: What each message of the last bundle was about.
        self.batch: list[Key] = []
        #: Cookies of flows that the switch could learn until lately, the newest last.
        self._learned_before: dict[bytes, None] = {}
        #: The version of the pipeline that the switch holds.
        self.pipeline = NO_VERSION
        self._installed_groups: dict[int, bytes] = {}
        #: The switch can take single buckets into a group (sdn/openflow/groupchanges.py).
        self._single_buckets = False

    def forget(self) -> None:
        """Somebody else writes the switch, or did: nothing of what it holds is known."""
        self.compared = None
        self.known = False
        self.dirty.clear()
        self._installed_groups.clear()

    def thin(self) -> None:
        """No switch is there: forget which entries have changed when they are many more than there are. They are found
        when it is back.
        """
        if len(self.dirty) > 2 * (self.desired.flows + self.desired.groups) + _SLACK:
            self.forget()

    def compare(self, connection: SwitchConnection) -> Comparison:
        """Read the switch back; what differs becomes dirty. ConnectionClosedError, CodecError."""
        began = time.monotonic()
        self._single_buckets = spreads_anew(connection.software())
        installed, wrong = read_back(connection, self.desired)
        # Of those that are right our own bytes are kept: other switches share them.
        self._installed_groups = {
            key: body if key in wrong else self.desired.body(key) or body
            for key, body in installed.items()
            if isinstance(key, int)
        }
        foreign = {
            key: installed[key]
            for key in wrong - self.dirty
            if self.desired.body(key) is None and not self.is_leftover(key, installed[key])
        }
        # What was not written yet is no surprise; on the first comparison nothing was.
        drifted = (
            {key for key in wrong - self.dirty if self.desired.body(key) is not None} if self.known else set()
        )
        changed = {key for key in drifted if key in installed}
        if foreign:
            report_foreign(self._log, foreign)
        if drifted:
            self._log.warning("entries differed", missing=len(drifted) - len(changed), changed=len(changed))
        self.repaired(findings(self.desired, drifted | foreign.keys(), installed.get))
        audit = connection is self.compared and not wrong
        self.dirty = wrong
        self.pipeline = version_in(installed)
        self.compared = connection
        self.known = True
        (self._log.debug if audit else self._log.info)(
            "switch compared",
            address=connection.address,
            installed=len(installed),
            desired=self.desired.flows + self.desired.groups,
            differing=len(wrong),
            pipeline=self.pipeline,
            seconds=round(time.monotonic() - began, 4),
        )
        return Comparison(installed, wrong)

    def compare_groups(self, connection: SwitchConnection) -> None:
        """Read the groups back; those that differ become dirty. ConnectionClosedError, CodecError."""
        installed = read_groups(connection)
        wrong = self.desired.differing_groups(installed)
        there: dict[Key, bytes] = dict(installed.items())
        found = findings(self.desired, wrong - self.dirty, there.get)
        self._installed_groups = {
            key: body if key in wrong else self.desired.body(key) or body for key, body in installed.items()
        }
        self.dirty |= wrong
        self.repaired(found)

    def changed(self, former: Iterable[bytes | None]) -> None:
        """Entries that had these bodies are others now."""
        for body in former:
            if body is not None:
                for cookie in learn_cookies(body):
                    self._learned_before.pop(cookie, None)
                    self._learned_before[cookie] = None
        while len(self._learned_before) > _SLACK:
            del self._learned_before[next(iter(self._learned_before))]

    def is_leftover(self, key: Key, body: bytes) -> bool:
        """Whether a flow that is not desired was learned by one that was: the switch removes those, but for what it
        learns of packets that are under way just then.
        """
        return (
            isinstance(key, bytes)
            and key[0] == SESSION_AFFINITY.number
            and body[COOKIE] in self._learned_before
        )

    def repaired(self, found: Sequence[Finding]) -> None:
        """These are dirty, and that was not to be expected; unless the switch is another's, who has written them: it
        says so before anything of that is seen.
        """
        if self._ours():
            self.repairs.entries(self._log, found, self._owner_of)

    def write(self, connection: SwitchConnection) -> None:
        """Write what is dirty, as one atomic bundle. ConnectionClosedError, CodecError; BundleRefusedError,
        DeposedError: it is dirty still.
        """
        began = time.monotonic()
        self.batch, messages = self.desired.messages(
            self.dirty, self._installed_groups, single_buckets=self._single_buckets
        )
        if self.batch:
            connection.commit(messages, len(self.batch))
        for key in self.dirty:
            if isinstance(key, int):
                body = self.desired.body(key)
                if body is None:
                    self._installed_groups.pop(key, None)
                else:
                    self._installed_groups[key] = body
        written = version_in(key for key in self.dirty if self.desired.body(key) is not None)
        self.pipeline = written or self.pipeline
        self.dirty.clear()
        seconds = round(time.monotonic() - began, 4)
        self._log.debug("bundle committed", entries=len(self.batch), seconds=seconds)

    def installed(self) -> tuple[int, int]:
        """How many of the desired flows and groups are known to be there."""
        if not self.known:
            return 0, 0
        missing = [key for key in self.dirty if self.desired.body(key) is not None]
        groups = sum(isinstance(key, int) for key in missing)
        return self.desired.flows - (len(missing) - groups), self.desired.groups - groups
