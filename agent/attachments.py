# SPDX-License-Identifier: Apache-2.0
"""What the verbs and the reconciliation share: one at a time per container, removal, who is confirmed, ranges'
use.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from agent import ipam, link, ports
from agent.netlink import Netlink
from agent.netns import Netns
from agent.nodesetup.setup import NodeSetup
from agent.ovsdb import Ovsdb, OvsdbUnavailable
from agent.report import Reporter
from agent.state import REMOVING, Record, State, StateError
from sdn import logs

log: Final = logs.get("agent.attachments")
_UNPLUG_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Usage:
    """How full a range is."""

    range: str
    used: int
    capacity: int


class Attachments:
    """The attachments of this node, as things that several threads work on."""

    def __init__(self, state: State, ovsdb: Ovsdb, setup: NodeSetup) -> None:
        self._state = state
        self._ovsdb = ovsdb
        self._setup = setup
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._sockets: queue.SimpleQueue[Netlink] = queue.SimpleQueue()
        self._confirmed: set[tuple[str, str]] = set()
        #: What is being removed, though its record does not say so: that could not be written.
        self._unnoted: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self.reporter: Reporter | None = None
        #: Called when a removal could not be finished.
        self.on_unfinished: Callable[[], None] = lambda: None

    @contextmanager
    def alone(self, container_id: str) -> Iterator[None]:
        """Nobody else works on this container within the context."""
        with self._guard:
            lock, users = self._locks.get(container_id, (threading.Lock(), 0))
            self._locks[container_id] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            self._leave(container_id)

    @contextmanager
    def alone_at_once(self, container_id: str) -> Iterator[bool]:
        """Like `alone`, without waiting; False within the context: somebody works on this container, or waits to."""
        lock = threading.Lock()
        with lock:
            with self._guard:
                mine = container_id not in self._locks
                if mine:
                    self._locks[container_id] = lock, 1
            try:
                yield mine
            finally:
                if mine:
                    self._leave(container_id)

    def _leave(self, container_id: str) -> None:
        with self._guard:
            lock, users = self._locks[container_id]
            if users == 1:
                del self._locks[container_id]
            else:
                self._locks[container_id] = lock, users - 1

    @contextmanager
    def netlink(self) -> Iterator[Netlink]:
        """A netlink socket in the node's namespace, kept for the next user."""
        try:
            socket = self._sockets.get_nowait()
        except queue.Empty:
            socket = Netlink()
        try:
            yield socket
        except BaseException:
            # An answer may be unread.
            socket.close()
            raise
        self._sockets.put(socket)

    def remove(self, record: Record, netns: Netns | None) -> None:
        """Take an attachment away and give its addresses back. Parts that are not there are no error.

        When the database cannot be reached, or the disk is full, the record stays, and its addresses stay taken;
        `agent.reconcile` finishes later. OvsdbRefused, OSError.
        """
        finished = False
        try:
            finished = self._remove(record, netns)
        finally:
            if not finished:
                self.on_unfinished()

    def _remove(self, record: Record, netns: Netns | None) -> bool:
        """Whether nothing of it is left."""
        try:
            record = self._state.set_phase(record, REMOVING)
        except StateError as problem:
            # What connects the pod goes all the same: a pod must be removable whatever the disk says.
            log.warning("removed without a note of it on disk", pod=record.pod, error=str(problem))
            with self._changed:
                self._unnoted.add(record.key)
        unplugged = self._ovsdb.begin(ports.unplug(record.host_interface), record.host_interface)
        with self.netlink() as node:
            link.remove(node, record, netns)
        with self._changed:
            self._confirmed.discard(record.key)
        if self.reporter is not None:
            # Before its addresses can be given to another pod, of which the controller must not hear first.
            self.reporter.detach(record.container_id, record.ifname)
        try:
            self._ovsdb.result(unplugged, _UNPLUG_SECONDS, f"remove port {record.host_interface}")
            self._state.release(record)
        except (OvsdbUnavailable, StateError) as problem:
            log.warning("removed later", pod=record.pod, container=record.container_id, error=str(problem))
            return False
        with self._changed:
            self._unnoted.discard(record.key)
        return True

    # --- confirmations

    def programmed(self, key: tuple[str, str]) -> None:
        """A controller has confirmed this attachment."""
        with self._changed:
            self._confirmed.add(key)
            self._changed.notify_all()

    def is_programmed(self, record: Record) -> bool:
        """Whether a controller has confirmed it since this agent started."""
        with self._changed:
            return record.key in self._confirmed

    def wait_programmed(self, record: Record, reporter: Reporter, seconds: float) -> bool:
        """Whether it is confirmed, or nobody is there who could."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while record.key not in self._confirmed and reporter.connected:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.5))
        return True

    # --- what is to be told

    def to_report(self) -> list[Record]:
        """What a controller must know of: all that is not being removed."""
        with self._changed:
            # Before the records: one that is released meanwhile is among those still, and not among these.
            unnoted = set(self._unnoted)
        records = self._state.attachments()
        return [record for record in records if record.phase != REMOVING and record.key not in unnoted]

    def leaving(self, record: Record) -> bool:
        """Whether it is being removed, or its removal has begun and is not finished."""
        with self._changed:
            return record.phase == REMOVING or record.key in self._unnoted

    def usage(self) -> list[Usage]:
        """How full each of the node's ranges is."""
        assignment = self._setup.assignment
        if assignment is None:
            return []
        records = self._state.attachments()
        return [
            Usage(
                str(network),
                sum(any(address.ip in network for address in record.addresses) for record in records),
                ipam.capacity(network),
            )
            for network in assignment.ranges()
        ]
