# SPDX-License-Identifier: Apache-2.0
"""The unix socket that the plugin `sdn-cni` calls; its form is described there.

Only root may connect (0600). The socket is made beside its place and moved into it, so that it has its
permissions from the first moment, and one that a killed agent left behind is replaced.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from agent.cni.request import Call
from sdn import logs

log: Final = logs.get("agent.server")

Answer = Callable[[Call], tuple[int, bytes]]

MAGIC: Final = b"CNI1"
_MOST_VARIABLES: Final = 1 << 20
_MOST_CONFIG: Final = 1 << 24
_READ_SECONDS: Final = 30.0
_BACKLOG: Final = 512
#: Requests that are taken up and wait for their turn; more wait outside, unread.
WAITING: Final = 64
#: What accept says when the machine has no more to give, or a caller has gone: it passes.
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_PAUSE_SECONDS: Final = 0.1


class ProtocolError(Exception):
    """What came is not what the plugin sends."""


class Server:
    """Listens, reads requests, hands them to `answer` in a bounded number of threads."""

    def __init__(self, path: Path, answer: Answer, parallel: int) -> None:
        self._path = path
        self._answer = answer
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="cni")
        self._room = threading.Semaphore(parallel + WAITING)
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
        """Take no more requests, finish those under way."""
        self._stopping.set()
        self._path.unlink(missing_ok=True)
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._pool.shutdown(wait=True)
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
                self._pool.submit(self._serve, connection)
            except RuntimeError:  # closing: the plugin asks the next agent
                self._room.release()
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._converse(connection)
        except ProtocolError as problem:
            log.warning("request not understood", error=str(problem))
        except OSError as problem:
            # The runtime gave up on the plugin; it will call DEL.
            log.warning("the plugin went away", error=str(problem))
        finally:
            self._room.release()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(_READ_SECONDS)
        code, output = self._answer(read_call(connection))
        connection.sendall(code.to_bytes(4, "big") + output)


def read_call(connection: socket.socket) -> Call:
    """One request from a connection. ProtocolError."""
    header = _exactly(connection, 12)
    if header[:4] != MAGIC:
        raise ProtocolError(f"begins with {header[:4]!r}")
    sizes = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:], "big")
    if sizes[0] > _MOST_VARIABLES or sizes[1] > _MOST_CONFIG:
        raise ProtocolError(f"too long: {sizes[0]} bytes of variables, {sizes[1]} bytes of configuration")
    variables = {}
    for item in _exactly(connection, sizes[0]).split(b"\0"):
        name, _, value = item.partition(b"=")
        variables[name] = value.decode(errors="replace")
    return Call(
        verb=variables.get(b"CNI_COMMAND", ""),
        container_id=variables.get(b"CNI_CONTAINERID", ""),
        netns=variables.get(b"CNI_NETNS", ""),
        ifname=variables.get(b"CNI_IFNAME", ""),
        args=variables.get(b"CNI_ARGS", ""),
        path=variables.get(b"CNI_PATH", ""),
        config=_exactly(connection, sizes[1]),
    )


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ProtocolError(f"ended after {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)
