# SPDX-License-Identifier: Apache-2.0
"""A store outside the process: etcd 3.4 or later, one endpoint or several.

Only the generated messages of the package ``etcd3`` are used. Its client is not: it gives up a failed
endpoint for five minutes, the only one included, and a watch whose stream breaks ends silently.

Here is what reads; ``endpoints.py`` finds a member that answers, ``etcdwrites.py`` writes once, whatever
answers are lost, ``etcdwatch.py`` and ``etcdleases.py`` are what they say.

A revision is etcd's own. One etcd may serve other purposes too: all keys of ours begin with ``/sdn/`` or
``/sdn-writers/`` (see etcdwrites.py). Compacting concerns everybody's history.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
from etcd3 import etcdrpc

from controller.store.access import StoreAccess
from controller.store.contract import (
    Check,
    CompactedError,
    Entry,
    Operation,
    Snapshot,
    StoreError,
    check_compaction,
    check_operations,
)
from controller.store.endpoints import Endpoints, Login, Turn
from controller.store.etcdleases import EtcdLeases
from controller.store.etcdwatch import EtcdWatch, after_prefix, key_text
from controller.store.etcdwrites import EtcdWriter, conflict, transaction

#: Seconds that a call may take in all: an election takes one or two.
CALL_SECONDS = 5.0
#: Entries that are asked for at once; and the part of them that is after there was no answer in time, since they may
#: be large.
PAGE = 1_000
SMALLER = 4
#: Lists that are begun again because history was forgotten meanwhile.
LIST_ATTEMPTS = 3


class EtcdStore:
    """``endpoints`` are "host:port". StoreError from the constructor when none of them answers, AccessError
    when ``access`` is wrong."""

    def __init__(self, endpoints: Sequence[str], access: StoreAccess | None = None) -> None:
        access = access or StoreAccess()
        access.check_files()
        name = f"store etcd://{','.join(endpoints)}"
        login = Login(access)
        self._endpoints = Endpoints(name, endpoints, access, login)
        self._lease_endpoints = Endpoints(name, endpoints, access, login, apart=True)
        self._leases = EtcdLeases(self._lease_endpoints)
        self._writer = EtcdWriter(self._endpoints, CALL_SECONDS)
        self._watches: set[EtcdWatch] = set()
        try:
            self.get("/sdn/")
        except StoreError:
            self.close()
            raise

    def get(self, key: str) -> Entry | None:
        response = self._read(etcdrpc.RangeRequest(key=key.encode()))
        return Entry(key, response.kvs[0].value, response.kvs[0].mod_revision) if response.kvs else None

    def list_prefix(self, prefix: str) -> Snapshot:
        for _ in range(LIST_ATTEMPTS - 1):
            with contextlib.suppress(CompactedError):
                return self._list(prefix.encode())
        return self._list(prefix.encode())

    def _list(self, start: bytes) -> Snapshot:
        end = after_prefix(start)
        entries: list[Entry] = []
        revision, limit = 0, PAGE

        def ask(turn: Turn) -> Any:
            nonlocal limit
            # Page after page as of the first one's revision.
            request = etcdrpc.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
            try:
                return turn.ask(turn.member.kv.Range, request)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    limit = max(1, limit // SMALLER)
                raise

        while True:
            page = self._endpoints.ask(ask, CALL_SECONDS, attempts=True)
            revision = revision or int(page.header.revision)
            entries.extend(
                Entry(key, pair.value, pair.mod_revision)
                for pair in page.kvs
                if (key := key_text(pair.key)) is not None
            )
            if not page.more:
                return Snapshot(tuple(entries), revision)
            start = page.kvs[-1].key + b"\0"

    def _read(self, request: Any) -> Any:
        return self._endpoints.ask(lambda turn: turn.ask(turn.member.kv.Range, request), CALL_SECONDS)

    def write(self, operations: Sequence[Operation]) -> int:
        check_operations(operations)
        if all(isinstance(operation, Check) for operation in operations):
            return self._check(operations)
        return self._writer.write(operations)

    def _check(self, operations: Sequence[Operation]) -> int:
        request = transaction(operations)
        answer = self._endpoints.ask(lambda turn: turn.ask(turn.member.kv.Txn, request), CALL_SECONDS)
        if not answer.succeeded:
            raise conflict(operations, answer)
        return int(answer.header.revision)

    def watch(self, prefix: str, after: int) -> EtcdWatch:
        if after > 0:
            # A watch's stream would say it only later.
            self._read(etcdrpc.RangeRequest(key=prefix.encode(), count_only=True, revision=after))
        watch = EtcdWatch(self._endpoints, prefix, after, self._watches.discard)
        self._watches.add(watch)
        try:
            watch.wait_started(CALL_SECONDS)
        except StoreError:
            watch.close()
            raise
        return watch

    def revision(self) -> int:
        return int(self._read(etcdrpc.RangeRequest(key=b"/sdn/", count_only=True)).header.revision)

    def compact(self, revision: int) -> None:
        check_compaction(revision)
        request = etcdrpc.CompactionRequest(revision=revision)
        with contextlib.suppress(CompactedError):  # Somebody else did.
            self._endpoints.ask(lambda turn: turn.ask(turn.member.kv.Compact, request), CALL_SECONDS)

    def grant(self, seconds: float) -> int:
        return self._leases.grant(seconds)

    def renew(self, lease: int) -> float:
        return self._leases.renew(lease)

    def revoke(self, lease: int) -> None:
        self._leases.revoke(lease)

    def close(self) -> None:
        for watch in list(self._watches):
            watch.close()
        with contextlib.suppress(StoreError):  # The mark goes by itself, later.
            self._writer.close()
        self._endpoints.close()
        self._lease_endpoints.close()
