# SPDX-License-Identifier: Apache-2.0
"""Records against reality: what a crash, a reboot or somebody's hand has left is put right.

- A record that was being made or removed when the agent ended, or that a request could not finish with: the attachment
  is removed.
- A record whose link is gone (the pod's namespace went, or the node was booted): released.
- A record whose link is there and whose port is not (the database was made anew): the port is plugged again.
- A port that is not on br-int, or has settings that are not ours; a link that is down or has another MTU: mended.
- A port or a link that bears our name and has no record, and any port of br-int that is nobody's: removed.

Run at start, before the first request, and from then on whenever the database comes back, soon after something could
not be finished, and once in a while, however many pods come and go meanwhile. A pod that a request works on is left to
it, and looked at soon again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from agent import link, ports
from agent.attachments import Attachments
from agent.drift import CHANGED, MISSING, UNKNOWN, Found
from agent.netlink import Netlink
from agent.netns import Netns, NetnsError
from agent.ovsdb import Ovsdb, OvsdbRefused, OvsdbUnavailable
from agent.state import HOST_PREFIX, MAKING, READY, Record, State
from sdn import logs

log: Final = logs.get("agent.reconcile")
_EVERY_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 2.0
#: Among the names of ports: all of them. No name of a port is empty.
_ALL: Final = ""


class Reconciler:
    """Compares and repairs. `run` may be called beside requests, which it does not disturb."""

    def __init__(
        self,
        state: State,
        ovsdb: Ovsdb,
        attachments: Attachments,
        found: Found = lambda _kind, _what: None,
    ) -> None:
        """`found` is told what was not as it must be."""
        self._found = found
        self._state = state
        self._ovsdb = ovsdb
        self._attachments = attachments
        self._stop = threading.Event()
        self._poked = threading.Event()
        self._lock = threading.Lock()
        self._touched: set[str] = set()
        #: When all is compared again at the latest, whatever else is looked at until then.
        self._due = time.monotonic() + _EVERY_SECONDS

    def start(self) -> None:
        threading.Thread(target=self._keep, name="reconcile", daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._poked.set()

    def poke(self) -> None:
        """Look at all of it again now."""
        self.look_at(set())

    def retry(self) -> None:
        """Something was left to be finished: look at all of it again soon."""
        with self._lock:
            self._due = min(self._due, time.monotonic() + _RETRY_SECONDS)
        self._poked.set()

    def look_at(self, names: set[str]) -> None:
        """These ports may not be as they must be any more; none: all. Looked at now, in the thread of this."""
        with self._lock:
            self._touched |= names or {_ALL}
        self._poked.set()

    def undo_unfinished(self) -> None:
        """At start, when no request is under way: whatever is neither in use nor gone is removed."""
        self._each([record for record in self._state.attachments() if record.phase != READY], self._undo)

    def run(self) -> None:
        """All of it once. OvsdbUnavailable; OvsdbRefused, OSError: some of it could not be put right."""
        problem: OvsdbRefused | OSError | None = None
        try:
            self._orphans()
        except (OvsdbRefused, OSError) as found:
            problem = found
        self._each(self._state.attachments(), self._put_right)
        if problem is not None:
            raise problem

    @staticmethod
    def _each(records: Sequence[Record], do: Callable[[Record], None]) -> None:
        """One that fails keeps none of the others from it."""
        failed: list[OvsdbRefused | OSError] = []
        for record in records:
            try:
                do(record)
            except (OvsdbRefused, OSError) as problem:
                log.warning(
                    "not put right yet", pod=record.pod, container=record.container_id, error=str(problem)
                )
                failed.append(problem)
        if failed:
            raise failed[0]

    def _undo(self, record: Record) -> None:
        log.info("undone", pod=record.pod, container=record.container_id, phase=record.phase)
        self._remove(record)

    def _put_right(self, record: Record) -> None:
        with self._attachments.alone_at_once(record.container_id) as alone:
            if not alone:
                self._put_off(record)
                return
            now = self._state.attachment(*record.key)
            if now is None or now.created_at != record.created_at:
                return
            if now.phase == READY and not self._attachments.leaving(now):
                self._ready(now)
            else:
                # Nobody works on it: an ADD could not undo it, or a DEL could not finish.
                self._remove(now)

    def _put_off(self, record: Record) -> None:
        """A request works on the pod. An ADD may wait for long, for a controller, and all others would with it."""
        if record.phase != MAKING:
            # The request may be about another interface. That of an ADD is whole when it ends, or to be finished.
            self.retry()

    def _run_some(self, names: set[str]) -> None:
        """Some ports. OvsdbUnavailable, OvsdbRefused, OSError."""
        records = {record.host_interface: record for record in self._state.attachments()}
        strange = names - records.keys()
        # That of an attachment that was just removed is gone.
        if self._ovsdb.read(lambda replica: any(replica.named("Port", name) for name in strange)):
            self._orphans()
        touched = [records[name] for name in names & records.keys()]
        self._each([record for record in touched if record.phase == READY], self._ready_again)

    def _ready_again(self, record: Record) -> None:
        with self._attachments.alone_at_once(record.container_id) as alone:
            if not alone:
                self._put_off(record)
                return
            now = self._state.attachment(*record.key)
            if now is None or now.created_at != record.created_at or now.phase != READY:
                return
            if not self._attachments.leaving(now):
                self._ready(now)

    def _ready(self, record: Record) -> None:
        """A pod's interface on the node and its port, as they must be."""
        name = record.host_interface
        with self._attachments.netlink() as node:
            bent = link.mend_outer(node, record)
        if bent is None:
            log.info("released, its link is gone", pod=record.pod, container=record.container_id)
            self._remove(record)
            return
        if bent:
            log.warning("interface mended", pod=record.pod, interface=name, reason=bent)
            self._found(CHANGED, f"interface {name} of Pod {record.pod}: {bent}")
        wrong = self._ovsdb.read(lambda replica: ports.misconfigured(replica, record))
        if wrong is None:
            return
        if wrong:
            log.warning("port mended", pod=record.pod, port=name, reason=wrong)
        else:
            log.warning("plugged again, its port was gone", pod=record.pod, port=name)
        self._ovsdb.change("plug a port again", ports.plug(record))
        what = f"port {name} of Pod {record.pod}"
        self._found(CHANGED if wrong else MISSING, f"{what}: {wrong}" if wrong else what)

    def _remove(self, record: Record) -> None:
        try:
            netns = Netns(record.netns)
        except NetnsError:
            netns = None  # it is gone, and with it everything inside
        try:
            self._attachments.remove(record, netns)
        finally:
            if netns is not None:
                netns.close()

    def _orphans(self) -> None:
        """What bears our name is listed first and the records after: what is made meanwhile has its record by then."""
        with self._attachments.netlink() as node:
            links = _ours(node)
        plugged = self._ovsdb.read(ports.claimed)
        known = {record.host_interface for record in self._state.attachments()}
        if stray := sorted(plugged - known):
            log.warning("ports without a record removed", ports=stray)
            self._ovsdb.change("remove ports without a record", ports.unplug(*stray))
            for name in stray:
                self._found(UNKNOWN, f"port {name}, which is no pod's")
        for name in sorted(set(links) - known):
            log.warning("link without a record removed", interface=name)
            with self._attachments.netlink() as node:
                link.delete(node, name)

    def _keep(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                due = self._due
            self._poked.wait(max(0.0, due - time.monotonic()))
            self._poked.clear()
            if self._stop.is_set():
                return
            with self._lock:
                touched, self._touched = self._touched, set()
                everything = _ALL in touched or time.monotonic() >= self._due
                if everything:
                    self._due = time.monotonic() + _EVERY_SECONDS
            try:
                if everything:
                    self.run()
                elif touched:
                    self._run_some(touched)
            except (OvsdbUnavailable, OvsdbRefused, OSError) as problem:
                log.warning("reconciliation waits", error=str(problem))
                self.retry()


def _ours(node: Netlink) -> list[str]:
    names = (str(message.get_attr("IFLA_IFNAME")) for message in node.links())
    return [name for name in names if name.startswith(HOST_PREFIX)]
