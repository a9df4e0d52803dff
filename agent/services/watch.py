# SPDX-License-Identifier: Apache-2.0
"""The stream of Services from a controller into the table, and to disk.

One stream at a time; every controller can tell all Services. The one that owns the node's switch is asked first, then
the others that answer, in an order of the node's own. When the stream breaks, the next one is asked at once; what is
known stays in force. A stream at a controller that has lost the switch moves with it, since that controller may be dead
and not known to be yet; one at any other stays where it is.

A new stream tells everything again: what is equal changes nothing, and what it has not told when it is through
(`synced`) is gone.

Messages that have piled up are taken together, so that ten thousand Services at the start are a few changes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

import grpc

from agent import channel
from agent.owners import Owners, View
from agent.seeking import Seeker
from agent.services.cache import ServiceCache
from agent.services.table import Key, Service, ServiceTable, from_message
from sdn import logs
from sdn.v1 import controller_pb2 as messages
from sdn.v1.controller_pb2_grpc import ControllerStub

log: Final = logs.get("agent.services.watch")
#: Messages taken together at most; the stream is not read further while that many wait.
_BATCH: Final = 500
#: Different problems that are told before a stream tells everything.
_TOLD_PROBLEMS: Final = 50


class ServiceWatch:
    """Keeps the table up to date from whichever controller answers."""

    def __init__(self, owners: Owners, node: str, table: ServiceTable, cache: ServiceCache) -> None:
        self._owners = owners
        self._node = node
        self._table = table
        self._cache = cache
        self._seeker = Seeker(owners, _order)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._call: grpc.Call | None = None
        # Where the stream is, and whether that controller owned the switch when it was last looked at.
        self._target = ""
        self._at_owner = False
        self._heard = False  # anything on the stream
        self._told: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="service-watch", daemon=True)
        owners.subscribe(self._look_where)

    def load(self) -> int:
        """Take what is on disk into the table; how many Services that are. Before `start`."""
        services = self._cache.load()
        self._table.apply(services)
        return len(services)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the stream; everything stays as it is."""
        self._stop.set()
        self._seeker.stop()
        with self._lock:
            if self._call is not None:
                self._call.cancel()
        self._thread.join(timeout=5)

    def _look_where(self) -> None:
        """Something is new about the controllers: leave one that has lost the switch, or does not even answer."""
        with self._lock:
            self._leave_if_better()
        self._seeker.look()

    def _leave_if_better(self) -> None:
        view = self._owners.view
        was, self._at_owner = self._at_owner, view.owner.address == self._target
        deposed = was and not self._at_owner and bool(view.owner.controller)
        silent = not self._heard and bool(view.answering) and self._target not in view.answering
        if self._call is not None and (deposed or silent):
            self._call.cancel()

    def _run(self) -> None:
        while target := self._seeker.next():
            began = time.monotonic()
            if self._stream(target) and time.monotonic() - began > channel.SETTLED_SECONDS:
                self._seeker.good()

    def _stream(self, target: str) -> bool:
        """One stream to its end; whether it told everything."""
        with self._owners.connection(target) as connection:
            try:
                call = ControllerStub(connection).WatchServices(
                    messages.WatchServicesRequest(node=self._node)
                )
            except ValueError:
                return False  # nobody names this controller any more
            with self._lock:
                self._call = call
                self._target = target
                self._at_owner = self._heard = False
                self._leave_if_better()
            if self._stop.is_set():
                call.cancel()
            incoming: queue.Queue[messages.ServiceUpdate | None] = queue.Queue(_BATCH)
            ended: list[str] = []
            reader = threading.Thread(
                target=_read, args=(call, incoming, ended), name="service-stream", daemon=True
            )
            reader.start()
            synced = self._follow(incoming, target)
            reader.join()
            with self._lock:
                self._call = None
                self._target = ""
        self._owners.lost(target)
        self._log_end(target, ended[0], synced=synced)
        return synced

    def _log_end(self, target: str, why: str, *, synced: bool) -> None:
        if self._stop.is_set():
            return
        if synced:
            self._told.clear()
        if (target, why) not in self._told and len(self._told) < _TOLD_PROBLEMS:
            self._told.add((target, why))
            log.warning("the stream of Services ended", controller=target, error=why)

    def _follow(self, incoming: queue.Queue[messages.ServiceUpdate | None], target: str) -> bool:
        """Take in what arrives until the end; whether everything was told."""
        told: set[Key] | None = set()
        ended = False
        while not ended:
            batch = _waiting(incoming)
            ended = batch[-1] is None
            self._heard = True
            changed: dict[Key, messages.ServiceState] = {}
            removed: set[Key] = set()
            for update in batch:
                kind = update.WhichOneof("update") if update is not None else None
                if update is None:
                    break
                if kind == "service":
                    key = (update.service.namespace, update.service.name)
                    changed[key] = update.service
                    removed.discard(key)
                    if told is not None:
                        told.add(key)
                elif kind == "removed":
                    key = (update.removed.namespace, update.removed.name)
                    changed.pop(key, None)
                    removed.add(key)
                    if told is not None:
                        told.discard(key)
                elif kind == "synced" and told is not None:
                    removed |= self._table.services().keys() - told
                    log.info("all Services are known", controller=target, services=len(told))
                    told = None
            self._take(changed, removed, confirmed=told is None)
        return told is None

    def _take(
        self, changed: dict[Key, messages.ServiceState], removed: Iterable[Key], *, confirmed: bool
    ) -> None:
        services: list[Service] = []
        for key, state in changed.items():
            try:
                services.append(from_message(state))
            except ValueError as problem:
                log.error("a Service cannot be understood", service="/".join(key), error=str(problem))
        changes = self._table.apply(services, removed, confirmed=confirmed)
        if changes.changed or changes.removed:
            self._cache.save([changed[service.key] for service in changes.changed], changes.removed)


def _order(view: View, patient: bool) -> Sequence[str]:
    """Whom to ask for a stream."""
    return view.answering or view.known


def _read(
    call: Iterable[messages.ServiceUpdate],
    incoming: queue.Queue[messages.ServiceUpdate | None],
    ended: list[str],
) -> None:
    """Hand on what arrives, then None. `ended` gets the reason first."""
    reason = "the controller ended the stream"
    try:
        for update in call:
            incoming.put(update)
    except grpc.RpcError as error:
        reason = channel.problem(error)
    ended.append(reason)
    incoming.put(None)


def _waiting(
    incoming: queue.Queue[messages.ServiceUpdate | None],
) -> list[messages.ServiceUpdate | None]:
    """Everything that has arrived, at least one item; nothing follows None."""
    batch = [incoming.get()]
    while batch[-1] is not None:
        try:
            batch.append(incoming.get_nowait())
        except queue.Empty:
            break
    return batch
