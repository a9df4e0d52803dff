# SPDX-License-Identifier: Apache-2.0
"""The stream of Services from a controller into the table, and to disk.

One stream at a time, to the first controller of the list that answers; each can tell all Services. When it breaks, what
is known stays in force. A new stream tells everything again: what is equal changes nothing, and what it has not told
when it is through (`synced`) is gone.

Messages that have piled up are taken together, so that ten thousand Services at the start are a few changes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Final

import grpc

from agent import channel
from agent.services.cache import ServiceCache
from agent.services.table import Key, Service, ServiceTable, from_message
from sdn import logs
from sdn.v1 import controller_pb2 as messages
from sdn.v1.controller_pb2_grpc import ControllerStub

log: Final = logs.get("agent.services.watch")
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
#: Messages taken together at most; the stream is not read further while that many wait.
_BATCH: Final = 500


class ServiceWatch:
    """Keeps the table up to date from whichever controller answers."""

    def __init__(self, controllers: list[str], node: str, table: ServiceTable, cache: ServiceCache) -> None:
        self._controllers = controllers
        self._node = node
        self._table = table
        self._cache = cache
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._call: grpc.Call | None = None
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="service-watch", daemon=True)

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
        with self._lock:
            if self._call is not None:
                self._call.cancel()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            for target in self._controllers:
                if self._stop.is_set():
                    return
                if self._stream(target):
                    pause = _FIRST_PAUSE
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _stream(self, target: str) -> bool:
        """One stream to its end; whether it told everything."""
        with channel.channel(target) as connection:
            if not channel.answers(connection):
                return False
            call = ControllerStub(connection).WatchServices(messages.WatchServicesRequest(node=self._node))
            with self._lock:
                self._call = call
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
        if not self._stop.is_set() and (synced or ended[0] != self._told):
            self._told = ended[0]
            log.warning("the stream of Services ended", controller=target, error=ended[0])
        return synced

    def _follow(self, incoming: queue.Queue[messages.ServiceUpdate | None], target: str) -> bool:
        """Take in what arrives until the end; whether everything was told."""
        told: set[Key] | None = set()
        ended = False
        while not ended:
            batch = _waiting(incoming)
            ended = batch[-1] is None
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
