# SPDX-License-Identifier: Apache-2.0
"""A watch on etcd: a stream that is taken up again wherever a member answers, after the last revision seen.

A stream at a member that is stopped or cut off stays open and silent. So while a stream is open, its member is
asked for a linearizable read again and again: one that cannot answer has no majority, or is not there, and the
stream is taken up elsewhere.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from etcd3 import etcdrpc

from controller.store.contract import CompactedError, Event, StoreError
from controller.store.endpoints import ATTEMPT_SECONDS, Endpoints, Member, Turn

#: Pause before a broken stream is taken up at the next member.
RETRY_SECONDS = 0.1
#: A stream's member is asked so often whether it is there,
PROBE_SECONDS = 0.5
#: and left when it has not answered for so long.
SILENCE_SECONDS = 1.5
#: Events that a watch may lag behind before it is given up.
WATCH_BACKLOG = 100_000


class EtcdWatch:
    """Reads its stream in a thread of its own; ``forget`` is told when it is closed."""

    def __init__(
        self, endpoints: Endpoints, prefix: str, after: int, forget: Callable[[EtcdWatch], None]
    ) -> None:
        self._endpoints = endpoints
        self._number = endpoints.current
        self._prefix = prefix.encode()
        self._after = after
        self._forget = forget
        self._events: queue.SimpleQueue[Event | StoreError | None] = queue.SimpleQueue()
        self._started = threading.Event()
        self._closed = threading.Event()
        self._failed: StoreError | None = None
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name=f"watch {prefix}", daemon=True)
        self._thread.start()

    def wait_started(self, seconds: float) -> None:
        """Until the stream is open. CompactedError, StoreError."""
        if not self._started.wait(seconds):
            raise StoreError(f"{self._endpoints.name}: a watch was not opened in time")
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        refused = 0
        while not self._closed.is_set():
            before = self._after
            try:
                self._read_stream(self._endpoints.members[self._number])
            except _NotPermittedError as problem:
                # Perhaps by a token that has run out; of that, a watch is not told.
                refused = refused + 1 if self._after == before else 1
                if refused > 1:
                    self._fail(StoreError(str(problem)))
                    return
                self._endpoints.login.forget()
            except StoreError as problem:
                self._fail(problem)
                return
            except (grpc.RpcError, ValueError) as error:
                # Broken, or closed with the store; taken up again at the next member, if it is not over.
                if isinstance(error, grpc.RpcError) and self._endpoints.login.refuses(error):
                    self._endpoints.login.forget()
            self._number = (self._number + 1) % len(self._endpoints.members)
            self._closed.wait(RETRY_SECONDS)

    def _fail(self, problem: StoreError) -> None:
        self._failed = problem
        self._events.put(problem)
        self._started.set()

    def _read_stream(self, member: Member) -> None:
        over = threading.Event()
        create = etcdrpc.WatchCreateRequest(
            key=self._prefix,
            range_end=after_prefix(self._prefix),
            # From what was seen already: etcd says "compacted" of a removal in the first revision that it still
            # knows as little as of those before.
            start_revision=max(self._after, 1),
            progress_notify=True,
        )

        def requests() -> Iterator[Any]:
            yield etcdrpc.WatchRequest(create_request=create)
            # The stream ends with its requests.
            self._guard(member, over)

        turn = Turn(member, self._endpoints.login, time.monotonic() + ATTEMPT_SECONDS)
        self._call = turn.open(member.watch.Watch, requests())
        try:
            for response in self._call:
                self._take(response)
        finally:
            over.set()

    def _guard(self, member: Member, over: threading.Event) -> None:
        """Until the stream is over; ends it when its member does not answer any more."""
        probe = etcdrpc.RangeRequest(key=self._prefix, count_only=True)
        answered = time.monotonic()
        while not over.wait(PROBE_SECONDS) and not self._closed.is_set():
            until = time.monotonic() + SILENCE_SECONDS - PROBE_SECONDS
            with contextlib.suppress(grpc.RpcError, StoreError, ValueError):
                Turn(member, self._endpoints.login, until).ask(member.kv.Range, probe)
                answered = time.monotonic()
            if time.monotonic() - answered >= SILENCE_SECONDS:
                self._call.cancel()
                return

    def _take(self, response: Any) -> None:
        name = self._endpoints.name
        if response.compact_revision:
            raise CompactedError(
                f"{name}: changes are known from revision {response.compact_revision} on, not from {self._after}"
            )
        if response.canceled:
            text = f"{name}: a watch was ended: {response.cancel_reason}"
            if "permission" in response.cancel_reason or "auth" in response.cancel_reason:
                raise _NotPermittedError(text)
            raise StoreError(text)
        events = [event for event in response.events if event.kv.mod_revision > self._after]
        if self._events.qsize() + len(events) > WATCH_BACKLOG:
            raise StoreError(f"{name}: a watch's reader fell {WATCH_BACKLOG} changes behind; list again")
        for event in events:
            value = None if event.type == event.DELETE else event.kv.value
            self._events.put(Event(event.kv.key.decode(), value, event.kv.mod_revision))
        if events:
            self._after = events[-1].kv.mod_revision
        elif not response.events and not response.created:
            # Progress: all up to here was seen. Only etcd's own notices are that; an answer to a question for
            # progress would not be (etcd before 3.4.25).
            self._after = max(self._after, response.header.revision)
        self._started.set()

    def next(self, timeout: float | None = None) -> Event | None:
        if self._closed.is_set() and self._events.empty():
            return None
        try:
            item = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, StoreError):
            raise item
        return item

    def close(self) -> None:
        self._closed.set()
        if self._call is not None:  # It may not have been opened yet.
            self._call.cancel()
        self._events.put(None)
        self._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _NotPermittedError(Exception):
    pass


def after_prefix(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``, as etcd's ranges want it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
