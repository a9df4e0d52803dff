# SPDX-License-Identifier: Apache-2.0
"""The unix socket that the plugin `sdn-cni` calls; its form is described there.

Only root may connect (0600). The socket is made beside its place and moved into it, so that it has its
permissions from the first moment, and one that a killed agent left behind is replaced.

A request is read as soon as it comes, and then waits in the line of its verb (`agent.lines`): while it waits it has a
connection, but no thread.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from agent.cni.request import Call
from agent.lines import Line, line_of, no_room
from sdn import logs

log: Final = logs.get("agent.server")

Answer = Callable[[Call], tuple[int, bytes]]

MAGIC: Final = b"CNI1"
_MOST_VARIABLES: Final = 1 << 20
_MOST_CONFIG: Final = 1 << 24
#: How long a plugin may take to send a request, and to take its answer.
_PEER_SECONDS: Final = 30.0
_BACKLOG: Final = 512
#: Threads that read requests. A plugin sends all of its own at once, unless somebody stops it.
_READERS: Final = 8
#: Requests of a line that wait for their turn; what comes then is to be tried again.
WAITING: Final = 200
#: What accept says when the machine has no more to give, or a caller has gone: it passes.
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_PAUSE_SECONDS: Final = 0.1


class ProtocolError(Exception):
    """What came is not what the plugin sends."""


class _Turns:
    """A line: so many requests have their turn at once, and `WAITING` more have room to wait for it."""

    def __init__(self, line: Line, parallel: int) -> None:
        self.pool = ThreadPoolExecutor(parallel, thread_name_prefix=f"cni-{line.value}")
        self.room = threading.Semaphore(parallel + WAITING)


class Server:
    """Listens, reads requests, hands them to `answer` in a bounded number of threads, `parallel` of each line."""

    def __init__(self, path: Path, answer: Answer, parallel: int) -> None:
        self._path = path
        self._answer = answer
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="cni-read")
        self._lines = {line: _Turns(line, parallel) for line in Line}
        #: Connections that may be open; more wait outside.
        self._room = threading.Semaphore(_READERS + len(self._lines) * (parallel + WAITING))
        self._stopping = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

    def start(self) -> None:
        """Begin to serve. OSError when the socket cannot be made."""
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        self._listener.bind(str(new))
        new.chmod(0o600)
        self._listener.listen(_BACKLOG)
        new.rename(self._path)
        threading.Thread(target=self._accept, name="cni-accept", daemon=True).start()
        log.info("serving the plugin", socket=self._path)

    def close(self) -> None:
        """Take no more requests, finish those under way. ADDs that still wait are the next agent's."""
        self._stopping.set()
        self._path.unlink(missing_ok=True)
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._readers.shutdown(wait=True)
        for turns in self._lines.values():
            turns.pool.shutdown(wait=True)
        self._listener.close()

    def _accept(self) -> None:
        passed = True
        while not self._stopping.is_set():
            # Those under way give it back, at the end too.
            self._room.acquire()
            try:
                connection, _address = self._listener.accept()
            except OSError as problem:
                self._room.release()
                if self._stopping.is_set():
                    return
                if problem.errno not in _PASSING:
                    raise
                if passed:
                    log.warning("no request can be taken", error=str(problem))
                passed = False
                self._stopping.wait(_PAUSE_SECONDS)
                continue
            passed = True
            try:
                self._readers.submit(self._receive, connection)
            except RuntimeError:  # closing: the plugin asks the next agent
                self._end(connection)

    def _receive(self, connection: socket.socket) -> None:
        try:
            call = read_call(connection)
        except ProtocolError as problem:
            log.warning("request not understood", error=str(problem))
            self._end(connection)
        except OSError as problem:
            log.warning("the plugin went away", error=str(problem))
            self._end(connection)
        else:
            line = line_of(call.verb)
            if self._lines[line].room.acquire(blocking=False):
                self._lines[line].pool.submit(self._serve, connection, call, line)
            else:
                self._reply(connection, no_room(call.verb, call.config))

    def _serve(self, connection: socket.socket, call: Call, line: Line) -> None:
        answer = None
        try:
            if line is not Line.MAKING or not self._stopping.is_set():
                answer = self._answer(call)
        finally:
            self._reply(connection, answer)
            self._lines[line].room.release()

    def _reply(self, connection: socket.socket, answer: tuple[int, bytes] | None) -> None:
        """None: the plugin is to ask the next agent."""
        try:
            if answer is not None:
                code, output = answer
                connection.settimeout(_PEER_SECONDS)
                connection.sendall(code.to_bytes(4, "big") + output)
        except OSError as problem:
            # The runtime gave up on the plugin; it will call DEL.
            log.warning("the plugin went away", error=str(problem))
        finally:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        connection.close()
        self._room.release()


def read_call(connection: socket.socket) -> Call:
    """One request from a connection. ProtocolError; OSError when its plugin has gone, or takes too long."""
    until = time.monotonic() + _PEER_SECONDS
    header = _exactly(connection, 12, until)
    if header[:4] != MAGIC:
        raise ProtocolError(f"begins with {header[:4]!r}")
    sizes = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:], "big")
    if sizes[0] > _MOST_VARIABLES or sizes[1] > _MOST_CONFIG:
        raise ProtocolError(f"too long: {sizes[0]} bytes of variables, {sizes[1]} bytes of configuration")
    variables = {}
    for item in _exactly(connection, sizes[0], until).split(b"\0"):
        name, _, value = item.partition(b"=")
        variables[name] = value.decode(errors="replace")
    return Call(
        verb=variables.get(b"CNI_COMMAND", ""),
        container_id=variables.get(b"CNI_CONTAINERID", ""),
        netns=variables.get(b"CNI_NETNS", ""),
        ifname=variables.get(b"CNI_IFNAME", ""),
        args=variables.get(b"CNI_ARGS", ""),
        path=variables.get(b"CNI_PATH", ""),
        config=_exactly(connection, sizes[1], until),
        awaited=partial(_is_open, connection),
    )


def _exactly(connection: socket.socket, size: int, until: float) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        connection.settimeout(max(until - time.monotonic(), 0.001))
        part = connection.recv(size - len(parts))
        if not part:
            raise ProtocolError(f"ended after {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)


def _is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed it."""
    peer = select.poll()
    peer.register(connection, 0)  # that it has closed is told unasked
    return not peer.poll(0)
