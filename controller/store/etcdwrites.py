# SPDX-License-Identifier: Apache-2.0
"""Writing to etcd once, when answers may be lost and requests may come late.

A write that was not answered may have happened, or may yet happen: a member that was stopped hands on what lay
in its buffers when it runs again. So each write sets a *mark* in the same transaction, under the condition
that the mark is still what the write before has left. Whatever comes late, or twice, then fails. The mark that
is found instead tells whether this write is the one that happened. Compare-and-swap so stays true over a
change of leader, and a write that was given up never happens behind the next one's back.

A mark is one small key per open store, below :data:`MARKS`, under a lease: nothing of a store that was killed
stays. A mark never comes again under the same key.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
from etcd3 import etcdrpc

from controller.store.contract import (
    ANY,
    Check,
    ConflictError,
    Delete,
    LeaseGoneError,
    Operation,
    Put,
    StoreError,
    UncertainError,
)
from controller.store.endpoints import Endpoints, RefusedError, Turn, is_unanswered
from controller.store.etcdleases import grant, revoke

#: Outside of what is listed and watched.
MARKS = "/sdn-writers/"
#: A mark is replaced by a new one after half of this, and goes with its lease after all of it.
MARK_SECONDS = 600.0


class _MarkMovedError(Exception):
    """The mark is not what it was: an earlier write came through after all, or the mark has gone."""


class _Mark:
    def __init__(self, key: bytes, lease: int, revision: int) -> None:
        self.key = key
        self.lease = lease
        #: At which it was written last, as far as is known.
        self.revision = revision
        self.made = time.monotonic()
        #: Whether something was sent under it that may still come.
        self.in_doubt = False


class EtcdWriter:
    """Writes through ``endpoints``, one after the other, each within ``seconds``."""

    def __init__(self, endpoints: Endpoints, seconds: float) -> None:
        self._endpoints = endpoints
        self._seconds = seconds
        #: One write at a time: a later one would wipe out the mark of one that is in doubt.
        self._writing = threading.Lock()
        self._mark: _Mark | None = None
        self._values = itertools.count(1)

    def write(self, operations: Sequence[Operation]) -> int:
        end = time.monotonic() + self._seconds
        if not self._writing.acquire(timeout=self._seconds):
            raise StoreError(f"{self._endpoints.name}: earlier writes took all the time")
        try:
            # The same in every attempt, and in no other write: whoever finds it knows that this write happened.
            attempt = _Attempt(operations, str(next(self._values)).encode())
            while True:
                mark = self._ready_mark(end)
                try:
                    return self._endpoints.ask(functools.partial(attempt.send, mark), end - time.monotonic())
                except _MarkMovedError:
                    if mark.revision:
                        continue
                    self._mark = None
                    if attempt.in_doubt:
                        raise self._uncertain("its mark was removed") from None
                except (ConflictError, LeaseGoneError, RefusedError) as refusal:
                    if mark.in_doubt and (revision := self._settle(mark, attempt, end)):
                        return revision
                    raise self._translate(operations, refusal) from None
                except StoreError as problem:
                    if attempt.in_doubt:
                        raise self._uncertain(str(problem)) from None
                    raise
        finally:
            self._writing.release()

    def _translate(self, operations: Sequence[Operation], refusal: StoreError) -> StoreError:
        if isinstance(refusal, RefusedError) and refusal.code is grpc.StatusCode.NOT_FOUND:
            for operation in operations:
                if isinstance(operation, Put) and operation.lease:
                    return LeaseGoneError(operation.lease)
        return refusal

    def _uncertain(self, why: str) -> UncertainError:
        return UncertainError(f"{self._endpoints.name}: a write may have happened or not: {why}")

    def _ready_mark(self, end: float) -> _Mark:
        mark = self._mark
        if mark is not None and (mark.in_doubt or time.monotonic() - mark.made < MARK_SECONDS / 2):
            return mark
        key = f"{MARKS}{uuid.uuid4()}".encode()
        lease = grant(self._endpoints, MARK_SECONDS, max(0.0, end - time.monotonic()))
        request = etcdrpc.TxnRequest(
            # Else one that comes late would hide what the mark says by then.
            compare=[_compare(key, 0)],
            success=[_put(key, b"0", lease)],
            failure=[_range(key)],
        )
        answer = self._endpoints.ask(
            lambda turn: turn.ask(turn.member.kv.Txn, request), max(0.0, end - time.monotonic())
        )
        revision = (
            answer.header.revision
            if answer.succeeded
            else answer.responses[0].response_range.kvs[0].mod_revision
        )
        self._mark = _Mark(key, lease, int(revision))
        return self._mark

    def _settle(self, mark: _Mark, attempt: _Attempt, end: float) -> int:
        """Make sure that nothing sent under the mark comes any more. The revision of ``attempt``, if that has
        happened, else 0. UncertainError, StoreError."""
        request = etcdrpc.TxnRequest(
            compare=[_compare(mark.key, mark.revision)],
            success=[_put(mark.key, attempt.value + b" refused", mark.lease)],
            failure=[_range(mark.key)],
        )
        try:
            answer = self._endpoints.ask(
                lambda turn: turn.ask(turn.member.kv.Txn, request), max(0.0, end - time.monotonic())
            )
        except StoreError as problem:
            if attempt.in_doubt:
                raise self._uncertain(str(problem)) from None
            raise
        if answer.succeeded:
            mark.revision, mark.in_doubt = int(answer.header.revision), False
            return 0
        found = answer.responses[0].response_range.kvs
        if not found:
            self._mark = None
            if attempt.in_doubt:
                raise self._uncertain("its mark was removed")
            return 0
        mark.revision, mark.in_doubt = int(found[0].mod_revision), False
        return mark.revision if found[0].value == attempt.value else 0

    def close(self) -> None:
        """Remove the mark. StoreError: it goes by itself later."""
        if self._mark is not None:
            revoke(self._endpoints, self._mark.lease, 0.5)


class _Attempt:
    """One write, sent as often as it takes."""

    def __init__(self, operations: Sequence[Operation], value: bytes) -> None:
        self._operations = operations
        self.value = value
        #: Whether it was sent and may have happened, or may still.
        self.in_doubt = False

    def send(self, mark: _Mark, turn: Turn) -> int:
        """The write's revision. ConflictError; _MarkMovedError when it has to be sent again, with what
        ``mark`` then says (revision 0: it has gone)."""
        request = transaction(self._operations)
        request.compare.append(_compare(mark.key, mark.revision))
        request.success.append(_put(mark.key, self.value, mark.lease))
        request.failure.append(_range(mark.key))
        before = self.in_doubt, mark.in_doubt
        self.in_doubt = mark.in_doubt = True
        try:
            answer = turn.ask(turn.member.kv.Txn, request)
        except grpc.RpcError as error:
            if not is_unanswered(error):
                self.in_doubt, mark.in_doubt = before
            raise
        except StoreError:  # Not logged in, so not sent.
            self.in_doubt, mark.in_doubt = before
            raise
        if answer.succeeded:
            mark.revision, mark.in_doubt = int(answer.header.revision), False
            return mark.revision
        found = answer.responses[-1].response_range.kvs
        if not found:
            mark.revision, (self.in_doubt, mark.in_doubt) = 0, before
            raise _MarkMovedError
        if found[0].mod_revision != mark.revision:
            mark.revision, mark.in_doubt, self.in_doubt = int(found[0].mod_revision), False, False
            if found[0].value == self.value:
                return mark.revision
            raise _MarkMovedError
        self.in_doubt, mark.in_doubt = before
        raise conflict(self._operations, answer)


def transaction(operations: Sequence[Operation]) -> Any:
    """All operations if all conditions hold; else what is there instead, in their order."""
    request = etcdrpc.TxnRequest()
    for operation in operations:
        key = operation.key.encode()
        if operation.expect != ANY:
            request.compare.append(_compare(key, operation.expect))
        request.failure.append(_range(key))
        match operation:
            case Put(_, value, _, lease):
                request.success.append(_put(key, value, lease))
            case Delete():
                request.success.append(
                    etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=key))
                )
            case Check():
                pass
    return request


def conflict(operations: Sequence[Operation], answer: Any) -> ConflictError:
    """Which condition an answer to :func:`transaction` shows to have failed."""
    for operation, read in zip(operations, answer.responses, strict=False):
        found = read.response_range.kvs
        actual = int(found[0].mod_revision) if found else 0
        if operation.expect not in (ANY, actual):
            return ConflictError(operation.key, operation.expect, actual)
    raise StoreError("etcd: a transaction failed although all its conditions hold")


def _compare(key: bytes, revision: int) -> Any:
    return etcdrpc.Compare(
        result=etcdrpc.Compare.EQUAL, target=etcdrpc.Compare.MOD, key=key, mod_revision=revision
    )


def _put(key: bytes, value: bytes, lease: int) -> Any:
    return etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=key, value=value, lease=lease))


def _range(key: bytes) -> Any:
    return etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=key))
