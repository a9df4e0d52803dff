# SPDX-License-Identifier: Apache-2.0
"""A watch on etcd: a stream that is taken up again wherever a member answers, after the last revision seen.

A stream at a member that is stopped or cut off stays open and silent. So while a stream is open, its member is
asked for a linearizable read again and again: one that cannot answer has no majority, or is not there, and the
stream is taken up elsewhere.

So does one that begins after a revision which the store has not come to. Its data was wiped or restored then, and
all of a sudden its revisions are low: what such a read says of the cluster, its term and its revision tells that.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from etcd3 import etcdrpc

from controller.store.contract import AnotherStoreError, CompactedError, Event, StoreError
from controller.store.endpoints import ATTEMPT_SECONDS, Endpoints, Member, Turn

#: Pause before a broken stream is taken up at the next member.
RETRY_SECONDS = 0.1
#: A stream's member is asked so often whether it is there,
PROBE_SECONDS = 0.5
#: and left when it has not answered for so long.
SILENCE_SECONDS = 1.5
#: Events that a watch may lag behind before it is given up.
WATCH_BACKLOG = 100_000

_log = logging.getLogger(__name__)


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
        #: Of the linearizable read that was answered last: which cluster, and its term (Raft's), which only grows.
        self._cluster, self._term = 0, 0
        #: Whether the last such answer did not go with those before.
        self._strange = False
        #: Whether the stream could not be read since it was last.
        self._broken = False
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
        while not self._closed.is_set() and self._failed is None:
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
            except grpc.RpcError as error:
                # Taken up again at the next member, if it is not over.
                if self._endpoints.login.refuses(error):
                    self._endpoints.login.forget()
                if not self._broken and not self._closed.is_set() and self._failed is None:
                    self._broken = True
                    code, details = error.code().name.lower(), error.details()
                    _log.warning("%s: a watch is taken up again: %s: %s", self._endpoints.name, code, details)
            except ValueError as error:
                # gRPC's word for a channel that was closed; anything else is a defect.
                if not self._closed.is_set():
                    _log.exception("%s: a watch has failed", self._endpoints.name)
                    self._fail(StoreError(f"{self._endpoints.name}: a watch has failed: {error}"))
                return
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
            seen = self._after
            try:
                answer = Turn(member, self._endpoints.login, until).ask(member.kv.Range, probe)
                self._check_same(answer.header, seen)
                answered = time.monotonic()
            except AnotherStoreError as problem:
                self._fail(problem)
                self._call.cancel()
                return
            except (grpc.RpcError, StoreError, ValueError) as error:
                _log.debug("%s: a watch's member does not answer: %s", self._endpoints.name, error)
            if time.monotonic() - answered >= SILENCE_SECONDS:
                self._call.cancel()
                return

    def _check_same(self, header: Any, seen: int) -> None:
        """AnotherStoreError when the headers of two linearizable reads, asked for after the revision ``seen`` was here,
        are of another store than those before.
        """
        cluster, term, revision = header.cluster_id, header.raft_term, int(header.revision)
        # A member that has just started may not know its term.
        if cluster == (self._cluster or cluster) and not 0 < term < self._term and revision >= seen:
            self._cluster, self._term, self._strange = cluster, max(term, self._term), False
            return
        if self._strange:
            raise AnotherStoreError(
                f"{self._endpoints.name}: is another store than before, wiped or restored from a backup: cluster "
                f"{cluster:x}, term {term}, revision {revision}, after cluster {self._cluster:x}, term {self._term}, "
                f"revision {seen}"
            )
        self._strange = True

    def _take(self, response: Any) -> None:
        name = self._endpoints.name
        self._broken = False
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
            if (key := key_text(event.kv.key)) is not None:
                self._events.put(Event(key, value, event.kv.mod_revision))
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


def key_text(key: bytes) -> str | None:
    """A key as text. None: nobody of ours wrote it, which is logged."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        _log.error("the store has a key that is no text: left aside: %r", key)
        return None


def after_prefix(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``, as etcd's ranges want it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
