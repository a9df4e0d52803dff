# SPDX-License-Identifier: Apache-2.0
"""Whether forwarding goes on: echo requests all the time, and a record of those without an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from sdn.lab import probe
from sdn.lab.errors import LabError
from sdn.lab.state import PodRecord

#: Between rounds, seconds.
INTERVAL = 0.1
#: How late an answer may come and still be one: the machine is loaded, and lateness is no loss.
LATENESS = 5.0


class Watch:
    """Pings every pod from every other one, both families, in rounds, until the `with` block ends."""

    def __init__(self, pods: Sequence[PodRecord]) -> None:
        self._probes = [
            probe.Probe(source.netns, address)
            for source in pods
            for target in pods
            if source != target
            for address in target.addresses
        ]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._problem: BaseException | None = None
        self.sent = 0
        #: When each request without an answer was sent (time.monotonic()), and its probe.
        self.lost: list[tuple[float, probe.Probe]] = []

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                begun = time.monotonic()
                outcomes = probe.ping(self._probes, attempts=1, timeout=LATENESS)
                self.sent += len(outcomes)
                self.lost += [
                    (begun, asked)
                    for asked, outcome in zip(self._probes, outcomes, strict=True)
                    if not outcome.reachable
                ]
                self._end.wait(INTERVAL)
        except (OSError, LabError) as problem:  # told in the test's own thread
            self._problem = problem

    def told(self) -> str:
        """What was lost, for a person: when since the first loss, from where, to what."""
        first = self.lost[0][0] if self.lost else 0.0
        ways = [f"{when - first:.1f} s {asked.netns} -> {asked.address}" for when, asked in self.lost[:40]]
        return f"{len(self.lost)} of {self.sent} requests were lost: {'; '.join(ways)}"

    def __enter__(self) -> Watch:
        # The first packets of all ways are not part of what is watched.
        unanswered = [o for o in probe.ping(self._probes, attempts=5) if not o.reachable]
        if unanswered:
            raise AssertionError(f"{len(unanswered)} ways do not work before anything was disturbed")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem
