# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's database: a live replica in memory, and transactions that change it.

One thread owns the replica (`ovs.db.idl` is not safe in more than one), follows the database and comes back
by itself when ovsdb-server does. Everybody else hands it functions: `read` to look, `change` to write, `wait`
to wait for something. A change is a function of the replica and is called again when the transaction has to
be tried again (another writer came between, the connection broke with the answer unread), so it looks first
at what is there and adds only what is missing.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from agent.ovslib import idl as idls
from agent.ovslib import jsonrpc, poller, stream
from agent.rows import COLUMNS
from sdn import logs

log: Final = logs.get("agent.ovsdb")
T = TypeVar("T")

_RETRY_SECONDS: Final = 0.25
#: For which whoever asks the replica waits.
_READ_SECONDS = 30.0


class OvsdbUnavailable(Exception):
    """ovsdb-server, or ovs-vswitchd behind it, did not do in time what was asked."""


class OvsdbRefused(Exception):
    """The database or the switch refused a change; the text is its own."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row is there ("create"), is there no more ("delete"), or has changed in some columns ("update"). Those of
    tables without names have an empty one. ``ports`` are the names of those that a bridge has got or lost; of ports
    that are no more their own rows tell.
    """

    event: str
    table: str
    name: str
    columns: frozenset[str]
    ports: frozenset[str] = frozenset()


OnChange: TypeAlias = Callable[[RowChange], None]


class _Idl(idls.Idl):  # type: ignore[misc]  # untyped library
    """The library's replica, which also knows rows by name."""

    def __init__(self, remote: str, helper: Any) -> None:
        self.by_name: dict[str, dict[str, Any]] = {"Bridge": {}, "Port": {}, "Interface": {}}
        self.on_change: OnChange = lambda _change: None
        super().__init__(remote, helper, probe_interval=5000)

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        table: Any = row._table
        names = self.by_name.get(table.name)
        columns = frozenset(updates._data) if event == idls.ROW_UPDATE else frozenset()
        ports = self._moved(row, updates) if table.name == "Bridge" and "ports" in columns else frozenset()
        self.on_change(RowChange(event, table.name, row.name if names is not None else "", columns, ports))
        if names is None:
            return
        name: str = row.name
        if event == idls.ROW_CREATE:
            names[name] = row
        elif event == idls.ROW_DELETE and names.get(name) is row:
            del names[name]

    def _moved(self, bridge: Any, before: Any) -> frozenset[str]:
        """The ports that a bridge has got or lost."""
        moved = set(bridge._data["ports"].as_list()) ^ set(before._data["ports"].as_list())
        rows = self.tables["Port"].rows
        return frozenset(rows[uuid].name for uuid in moved if uuid in rows)


class Replica:
    """What functions that are handed to the thread see."""

    def __init__(self, idl: Any) -> None:
        self._idl = idl
        self.transaction: Any = None

    def rows(self, table: str) -> list[Any]:
        return list(self._idl.tables[table].rows.values())

    def named(self, table: str, name: str) -> Any | None:
        """The Bridge, Port or Interface with this name."""
        row: Any = self._idl.by_name[table].get(name)
        if row is None:
            return None
        # After a reconnection the rows are new ones, and those that went meanwhile were never said to be deleted.
        return row if self._idl.tables[table].rows.get(row.uuid) is row else None

    @staticmethod
    def has_port(bridge: Any, port: Any) -> bool:
        """Whether this Port is one of this Bridge's. To make rows of all that it has would take long."""
        return port.uuid in bridge._data["ports"].as_list()

    def root(self) -> Any | None:
        """The one row of Open_vSwitch; None until somebody has initialized the database."""
        return next(iter(self._idl.tables["Open_vSwitch"].rows.values()), None)

    def insert(self, table: str) -> Any:
        """A new row. Its columns can be written; what is read of them is what was written."""
        return self.transaction.insert(self._idl.tables[table])


@dataclass(eq=False)
class _Change:
    apply: Callable[[Replica], None]
    key: str = ""
    done: Future[None] = field(default_factory=Future)
    transaction: Any = None
    #: The replica's sequence number when the change was tried last: it is tried again after another one.
    tried_at: int = -1
    again_at: float = 0.0


@dataclass(eq=False)
class _Wait:
    condition: Callable[[Replica], bool]
    done: Future[None] = field(default_factory=Future)


class Ovsdb:
    """The replica and its thread. Methods may be called from every other thread."""

    def __init__(self, remote: str) -> None:
        """`remote`: "unix:PATH" or "tcp:HOST:PORT"."""
        self._remote = remote
        self._calls: queue.SimpleQueue[Callable[[Replica], None]] = queue.SimpleQueue()
        self._changes: list[_Change] = []
        self._waits: list[_Wait] = []
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stop = threading.Event()
        #: Called in the replica's thread with each change of what is followed, whoever has made it; must not wait.
        self.on_change: OnChange = lambda _change: None
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovsdb", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wake()
        self._thread.join(timeout=5)

    @property
    def connected(self) -> bool:
        """Whether the replica follows a living ovsdb-server."""
        return self._connected.is_set()

    # --- for other threads

    def read(self, look: Callable[[Replica], T]) -> T:
        """What `look` finds in the replica. OvsdbUnavailable while there is none."""
        if not self.connected:
            raise OvsdbUnavailable(f"ovsdb-server does not answer on {self._remote}")
        done: Future[T] = Future()

        def call(replica: Replica) -> None:
            if not done.set_running_or_notify_cancel():
                return  # Nobody waits for it any more.
            try:
                done.set_result(look(replica))
            except Exception as problem:  # noqa: BLE001 - it belongs to the thread that asked
                done.set_exception(problem)

        self._calls.put(call)
        self._wake()
        return self._result(done, _READ_SECONDS, "read the database")

    def begin(self, apply: Callable[[Replica], None], key: str = "") -> Future[None]:
        """Commit a change; the result is there when the database has it.

        Changes with the same key are made one after the other, in the order in which they were begun; all others at
        once. A change that is cancelled before it was sent is not made.
        """
        change = _Change(apply, key)
        self._calls.put(lambda _replica: self._changes.append(change))
        self._wake()
        return change.done

    def change(self, what: str, apply: Callable[[Replica], None], seconds: float = 30.0) -> None:
        """Commit a change and wait for it. OvsdbUnavailable, OvsdbRefused."""
        self._result(self.begin(apply), seconds, what)

    def begin_wait(self, condition: Callable[[Replica], bool]) -> Future[None]:
        """The result is there when the condition holds; what the condition raises is its result."""
        wait = _Wait(condition)
        self._calls.put(lambda _replica: self._waits.append(wait))
        self._wake()
        return wait.done

    def wait(self, what: str, condition: Callable[[Replica], bool], seconds: float = 30.0) -> None:
        """Wait until the condition holds. OvsdbUnavailable when it does not in time."""
        self._result(self.begin_wait(condition), seconds, what)

    def _result(self, done: Future[T], seconds: float, what: str) -> T:
        try:
            return done.result(timeout=max(0.0, seconds))
        except TimeoutError:
            done.cancel()
            why = "" if self.connected else f": ovsdb-server does not answer on {self._remote}"
            raise OvsdbUnavailable(f"Open vSwitch did not {what} within {seconds:.0f} s{why}") from None

    def result(self, done: Future[None], seconds: float, what: str) -> None:
        """As `change` and `wait`, for what was begun with `begin` or `begin_wait`."""
        self._result(done, seconds, what)

    # --- the thread

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full of calls to wake up: one is enough

    def _idl(self) -> Any:
        helper = idls.SchemaHelper(schema_json=self._schema())
        for table, columns in COLUMNS.items():
            helper.register_columns(table, list(columns))
        idl = _Idl(self._remote, helper)
        idl.on_change = lambda change: self.on_change(change)
        # ovsdb-server is on the same machine and back within a second or so of its end.
        idl._session.reconnect.set_backoff(100, 1000)
        return idl

    def _schema(self) -> Any:
        """The server's own schema. Waits for a server."""
        told = False
        while not self._stop.is_set():
            error, channel = stream.Stream.open_block(stream.Stream.open(self._remote), 1000)
            if not error:
                connection = jsonrpc.Connection(channel)
                request = jsonrpc.Message.create_request("get_schema", ["Open_vSwitch"])
                error, reply = connection.transact_block(request)
                connection.close()
                if not error and reply.error is None:
                    return reply.result
            if not told:
                log.warning(
                    "ovsdb-server does not answer", remote=self._remote, error=os.strerror(error or 0)
                )
                told = True
            self._stop.wait(_RETRY_SECONDS)
        raise SystemExit

    def _run(self) -> None:
        idl = self._idl()
        replica = Replica(idl)
        while not self._stop.is_set():
            idl.run()
            self._note_connection(idl)
            while not self._calls.empty():
                self._calls.get_nowait()(replica)
            if self.connected:
                self._try_changes(idl, replica)
                self._try_waits(replica)
            self._block(idl)
        idl.close()

    def _note_connection(self, idl: Any) -> None:
        connected = idl.state == idl.IDL_S_MONITORING and idl._session.is_connected()
        if connected and not self.connected:
            log.info("following the database", remote=self._remote)
            self._connected.set()
        elif not connected and self.connected:
            log.warning("lost ovsdb-server", remote=self._remote)
            self._connected.clear()

    def _try_changes(self, idl: Any, replica: Replica) -> None:
        pending: list[_Change] = []
        keys: set[str] = set()
        for change in self._changes:
            if change.transaction is None:
                if change.done.cancelled():
                    continue
                too_early = change.tried_at == idl.change_seqno and time.monotonic() < change.again_at
                if too_early or change.key in keys:
                    pending.append(change)
                    keys |= {change.key} - {""}
                    continue
            try:
                settled = self._try(idl, replica, change)
            except Exception as problem:  # noqa: BLE001 - it belongs to the thread that asked
                if idl.txn is not None:
                    idl.txn.abort()
                settled = True
                _settle(change.done, problem)
            if not settled:
                pending.append(change)
                keys |= {change.key} - {""}
        self._changes = pending

    def _try(self, idl: Any, replica: Replica, change: _Change) -> bool:
        """Move a change forward; whether it is settled."""
        if change.transaction is None:
            change.tried_at = idl.change_seqno
            change.transaction = replica.transaction = idls.Transaction(idl)
            change.apply(replica)
        status = change.transaction.commit()
        if status == idls.Transaction.INCOMPLETE:
            return False
        transaction, change.transaction = change.transaction, None
        if status in (idls.Transaction.SUCCESS, idls.Transaction.UNCHANGED):
            _settle(change.done)
            return True
        if status == idls.Transaction.ERROR:
            error = str(transaction.get_error())
            # Two writers that insert the same name: the replica shows the other's row at the next attempt.
            if "constraint violation" not in error:
                raise OvsdbRefused(error)
        change.again_at = time.monotonic() + _RETRY_SECONDS
        return False

    def _try_waits(self, replica: Replica) -> None:
        pending = []
        for wait in self._waits:
            if wait.done.cancelled():
                continue
            try:
                if wait.condition(replica):
                    _settle(wait.done)
                else:
                    pending.append(wait)
            except Exception as problem:  # noqa: BLE001 - it belongs to the thread that asked
                _settle(wait.done, problem)
        self._waits = pending

    def _block(self, idl: Any) -> None:
        waiter = poller.Poller()
        idl.wait(waiter)
        waiter.fd_wait(self._wake_reader, poller.POLLIN)
        # While something waits to be tried again, or for a server to come back, look now and then.
        waiter.timer_wait(int(_RETRY_SECONDS * 1000) if self._changes or not self.connected else 5000)
        waiter.block()
        try:
            while os.read(self._wake_reader, 4096):
                pass
        except BlockingIOError:
            return


def _settle(done: Future[None], problem: Exception | None = None) -> None:
    if not done.set_running_or_notify_cancel():
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(problem)
