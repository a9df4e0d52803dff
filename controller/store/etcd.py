# SPDX-License-Identifier: Apache-2.0
"""A store outside the process: etcd 3.4 or later, one endpoint or several.

Only the generated messages of the package ``etcd3`` are used. Its client is not: it gives up a failed
endpoint for five minutes, the only one included, and a watch whose stream breaks ends silently.

Every call has a time limit and goes to the endpoint that answered last; when that does not answer, to the
next. A write whose answer was lost may have happened or not. So each write sets a mark of its own in the same
transaction: the mark is read back, and only what did not happen is tried again. Compare-and-swap stays true
over a change of leader. A watch takes up its stream again after the last revision that it has seen, wherever
it finds an endpoint, and misses nothing.

A revision is etcd's own. One etcd may serve other purposes too: all keys of ours begin with ``/sdn/`` or
``/sdn-writers/`` (the marks).
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from etcd3 import etcdrpc

from controller.store.contract import (
    ANY,
    CompactedError,
    ConflictError,
    Delete,
    Entry,
    Event,
    Operation,
    Put,
    Snapshot,
    StoreError,
    check_operations,
)

#: Seconds that one endpoint gets for an answer; a change of leader takes less than one.
CALL_SECONDS = 3.0
#: Rounds over all endpoints before a call fails.
ROUNDS = 2
#: Pause of a watch that finds no endpoint.
WATCH_RETRY_SECONDS = 0.5
WATCH_BACKLOG = 100_000

#: Where each open store keeps the mark of its last write; outside of what is listed and watched.
_MARKS = "/sdn-writers/"

T = TypeVar("T")

_TRY_NEXT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class EtcdStore:
    """``endpoints`` are "host:port". StoreError from the constructor when none of them answers."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._name = f"store etcd://{','.join(endpoints)}"
        self._channels = [grpc.insecure_channel(endpoint, _CHANNEL_OPTIONS) for endpoint in endpoints]
        self._current = 0
        self._mark_key = f"{_MARKS}{uuid.uuid4()}".encode()
        self._marks = itertools.count(1)
        #: One write at a time: a later one would wipe out the mark of one that is in doubt.
        self._writing = threading.Lock()
        self._watches: set[EtcdWatch] = set()
        try:
            self.get("/sdn/")
        except StoreError:
            self.close()
            raise

    def get(self, key: str) -> Entry | None:
        response = self._read(etcdrpc.RangeRequest(key=key.encode()))
        return _entry(response.kvs[0]) if response.kvs else None

    def list_prefix(self, prefix: str) -> Snapshot:
        start = prefix.encode()
        response = self._read(etcdrpc.RangeRequest(key=start, range_end=_after_prefix(start)))
        return Snapshot(tuple(map(_entry, response.kvs)), response.header.revision)

    def _read(self, request: Any) -> Any:
        return self._anywhere(lambda channel: etcdrpc.KVStub(channel).Range(request, timeout=CALL_SECONDS))

    def write(self, operations: Sequence[Operation]) -> int:
        check_operations(operations)
        # The same in every attempt, and in no other write: whoever finds it knows that this write happened.
        mark = str(next(self._marks)).encode()
        request = _transaction(operations)
        put = etcdrpc.PutRequest(key=self._mark_key, value=mark)
        request.success.append(etcdrpc.RequestOp(request_put=put))
        in_doubt = False

        def attempt(channel: grpc.Channel) -> int:
            nonlocal in_doubt
            if in_doubt and (revision := self._marked(channel, mark)):
                return revision
            before, in_doubt = in_doubt, True
            response = etcdrpc.KVStub(channel).Txn(request, timeout=CALL_SECONDS)
            if response.succeeded:
                return int(response.header.revision)
            if before and (revision := self._marked(channel, mark)):
                return revision  # An earlier attempt came through late, and this one met its result.
            raise self._conflict(operations, response)

        with self._writing:
            return self._anywhere(attempt)

    def _marked(self, channel: grpc.Channel, mark: bytes) -> int:
        """The revision of the write with this mark; 0 when it did not happen."""
        request = etcdrpc.RangeRequest(key=self._mark_key)
        found = etcdrpc.KVStub(channel).Range(request, timeout=CALL_SECONDS).kvs
        return int(found[0].mod_revision) if found and found[0].value == mark else 0

    def _conflict(self, operations: Sequence[Operation], response: Any) -> ConflictError:
        for operation, read in zip(operations, response.responses, strict=True):
            found = read.response_range.kvs
            actual = found[0].mod_revision if found else 0
            if operation.expect not in (ANY, actual):
                return ConflictError(operation.key, operation.expect, actual)
        raise StoreError(f"{self._name}: a transaction failed although all its conditions hold")

    def _anywhere(self, call: Callable[[grpc.Channel], T]) -> T:
        """Call one endpoint after the other until one answers."""
        problem = "no endpoint"
        for _ in range(ROUNDS * len(self._channels)):
            current = self._current
            try:
                return call(self._channels[current])
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE and "compacted" in (error.details() or ""):
                    raise CompactedError(f"{self._name}: changes asked for are no longer known") from None
                problem = f"{error.code().name.lower()}: {error.details()}"
                if error.code() not in _TRY_NEXT:
                    break
                self._current = (current + 1) % len(self._channels)
            except ValueError as error:  # gRPC's word for a channel that was closed
                raise StoreError(f"{self._name}: closed") from error
        raise StoreError(f"{self._name}: {problem}")

    def watch(self, prefix: str, after: int) -> EtcdWatch:
        if after > 0:
            # A watch's stream would say it only later.
            self._read(etcdrpc.RangeRequest(key=prefix.encode(), count_only=True, revision=after))
        watch = EtcdWatch(self._name, self._channels, self._current, prefix, after, self._watches.discard)
        self._watches.add(watch)
        try:
            watch.wait_started()
        except StoreError:
            watch.close()
            raise
        return watch

    def close(self) -> None:
        for watch in list(self._watches):
            watch.close()
        with contextlib.suppress(grpc.RpcError, ValueError):  # One small key more or less does no harm.
            request = etcdrpc.DeleteRangeRequest(key=self._mark_key)
            etcdrpc.KVStub(self._channels[self._current]).DeleteRange(request, timeout=0.5)
        for channel in self._channels:
            channel.close()


class EtcdWatch:
    """A watch on an EtcdStore; reads its stream in a thread of its own."""

    def __init__(
        self,
        store: str,
        channels: Sequence[grpc.Channel],
        current: int,
        prefix: str,
        after: int,
        forget: Callable[[EtcdWatch], None],
    ) -> None:
        self._store = store
        self._channels = channels
        self._current = current
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

    def wait_started(self) -> None:
        """Until the stream is open. CompactedError, StoreError."""
        if not self._started.wait(CALL_SECONDS * ROUNDS * len(self._channels)):
            raise StoreError(f"{self._store}: a watch was not opened in time")
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._read_stream(self._channels[self._current])
            except (grpc.RpcError, ValueError):
                # Broken, or closed with the store; taken up again at the next endpoint, if it is not over.
                self._current = (self._current + 1) % len(self._channels)
                self._closed.wait(WATCH_RETRY_SECONDS)
            except StoreError as problem:
                self._failed = problem
                self._events.put(problem)
                self._started.set()
                return

    def _read_stream(self, channel: grpc.Channel) -> None:
        create = etcdrpc.WatchCreateRequest(
            key=self._prefix, range_end=_after_prefix(self._prefix), start_revision=self._after + 1
        )

        def requests() -> Iterator[Any]:
            yield etcdrpc.WatchRequest(create_request=create)
            # The stream ends with its requests.
            self._closed.wait()

        self._call = etcdrpc.WatchStub(channel).Watch(requests())
        for response in self._call:
            if response.compact_revision:
                raise CompactedError(
                    f"{self._store}: changes are known from revision {response.compact_revision} on, "
                    f"not from {self._after}"
                )
            if response.canceled:
                raise StoreError(f"{self._store}: a watch was ended: {response.cancel_reason}")
            if self._events.qsize() + len(response.events) > WATCH_BACKLOG:
                raise StoreError(
                    f"{self._store}: a watch's reader fell {WATCH_BACKLOG} changes behind; list again"
                )
            for event in response.events:
                deleted = event.type == 1
                self._after = event.kv.mod_revision
                value = None if deleted else event.kv.value
                self._events.put(Event(event.kv.key.decode(), value, event.kv.mod_revision))
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
        with contextlib.suppress(AttributeError):  # It may not have been opened yet.
            self._call.cancel()
        self._events.put(None)
        self._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _transaction(operations: Sequence[Operation]) -> Any:
    """All operations if all conditions hold; else what is there instead."""
    compare = [
        etcdrpc.Compare(
            result=etcdrpc.Compare.EQUAL,
            target=etcdrpc.Compare.MOD,
            key=operation.key.encode(),
            mod_revision=operation.expect,
        )
        for operation in operations
        if operation.expect != ANY
    ]
    success = []
    for operation in operations:
        key = operation.key.encode()
        match operation:
            case Put(_, value):
                success.append(etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=key, value=value)))
            case Delete():
                request = etcdrpc.DeleteRangeRequest(key=key)
                success.append(etcdrpc.RequestOp(request_delete_range=request))
    failure = [_range_operation(operation.key) for operation in operations]
    return etcdrpc.TxnRequest(compare=compare, success=success, failure=failure)


def _range_operation(key: str) -> Any:
    return etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=key.encode()))


def _after_prefix(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``, as etcd's ranges want it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _entry(pair: Any) -> Entry:
    return Entry(pair.key.decode(), pair.value, pair.mod_revision)
