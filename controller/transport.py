# SPDX-License-Identifier: Apache-2.0
"""One switch's socket: whole OpenFlow messages in and out, and nobody waits who must not.

Two threads use a transport. One of few that read all connections (:mod:`controller.reading`) reads, cuts the
stream into messages and hands each one on; it also answers echoes, and so may never wait for the socket to
take something: :meth:`Transport.send` puts the message aside when the socket is full. The synchronizer's thread
writes bundles of megabytes with :meth:`Transport.write`, which does wait. Were the reader to wait for the writer,
switch and controller could each wait for the other to read first: Open vSwitch stops reading while a hundred replies
of its own are unread.

A peer is not trusted: a message shorter than its header ends the connection, what may be put aside is
bounded, and a peer that takes nothing for :data:`STALL_SECONDS` or says nothing although asked is given up.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from controller.lanes import aside
from controller.reading import Reader

HEADER = struct.Struct("!BBHI")
#: Bytes of echo replies and handshake that may wait for a peer that does not read.
MAX_PENDING = 1 << 18
#: Bytes that may wait for it when more are offered that it could do without.
MAX_OFFERED = 1 << 16
#: A peer that takes no byte for this long while something is to be written is given up.
STALL_SECONDS = 60.0
#: Greatest version number believed; TLS, HTTP and SSH all begin with greater bytes.
MAX_VERSION = 15
#: Bytes that are read of one connection before others have their turn; more than a record of TLS (RFC 8446, 5.1).
_PORTION = 1 << 16
#: struct linger (socket(7)): what waits to be sent is thrown away when the socket is closed.
_NO_LINGER = struct.pack("ii", 1, 0)

#: version, type, xid, the whole message with its header
MessageHandler = Callable[[int, int, int, bytes], None]


def _nobody(_version: int, _kind: int, _xid: int, _message: bytes) -> None:
    pass


class ProtocolError(Exception):
    """The peer does not speak OpenFlow as it must; the connection ends."""


class ConnectionClosedError(Exception):
    """The connection is gone: whatever was asked will not be answered."""


class Transport:
    """Messages over one connected socket; takes the socket over, and sets it non-blocking. ``reader`` reads it."""

    def __init__(self, connection: socket.socket, reader: Reader) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._reader = reader
        # OpenSSL's connection object must not be used by two threads at once; a plain socket may.
        self._tls = threading.Lock() if isinstance(connection, ssl.SSLSocket) else None
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._pending_lock = threading.Lock()
        #: Held while bytes are written, so that messages are never mixed. Guards ``_rest``.
        self._write_lock = threading.Lock()
        self._rest = memoryview(b"")
        self._closed = threading.Event()
        #: What has arrived of a message that is not whole yet, and who is given each message.
        self._arrived = bytearray()
        self._handle: MessageHandler = _nobody

    # Writing.

    def send(self, message: bytes) -> None:
        """Send a small message; never waits. A peer that lets too much pile up is disconnected."""
        with self._pending_lock:
            self._pending.append(message)
            self._pending_bytes += len(message)
            too_much = self._pending_bytes > MAX_PENDING
        if too_much:
            self.close()
        else:
            self._send_pending()

    def offer(self, message: bytes) -> bool:
        """Send a small message that may be lost; never waits. False: the peer is behind, and it was dropped."""
        with self._pending_lock:
            if self._pending_bytes + len(message) > MAX_OFFERED:
                return False
            self._pending.append(message)
            self._pending_bytes += len(message)
        self._send_pending()
        return True

    def _send_pending(self) -> None:
        """Send what was put aside, unless somebody writes: who does so looks again when he has done."""
        while self._pending or self._rest:
            if not self._write_lock.acquire(blocking=False):
                return
            try:
                written = self._flush()
            except OSError:
                self.close()
                return
            finally:
                self._write_lock.release()
            if not written:
                self._reader.when_writable(self)
                return

    def write(self, chunks: Iterable[bytes]) -> None:
        """Send chunks, each made of whole messages; waits as long as the peer keeps taking them.

        ConnectionClosedError when the connection ends meanwhile, or the peer takes nothing for STALL_SECONDS.
        """
        try:
            with self._write_lock:
                for chunk in chunks:
                    self._write_whole(self._flush)
                    self._rest = memoryview(chunk)
                    self._write_whole(self._write_rest)
        finally:
            if not self.closed:
                self._send_pending()

    def _write_whole(self, step: Callable[[], bool]) -> None:
        """Repeat ``step`` until it says that all is written."""
        deadline = time.monotonic() + STALL_SECONDS
        left = len(self._rest)
        try:
            while not self._closed.is_set():
                if step():
                    return
                if len(self._rest) != left:
                    left = len(self._rest)
                    deadline = time.monotonic() + STALL_SECONDS
                elif time.monotonic() > deadline:
                    break
                with aside():
                    select_one(self._socket, select.POLLOUT, 1.0)
        except (OSError, ValueError):
            pass  # The peer is gone, or the descriptor: said below, as for every other end of the connection.
        self.close()
        raise ConnectionClosedError("the connection to the switch ended while writing")

    def _flush(self) -> bool:
        """Write what was put aside; True when all of it is written. The caller holds the write lock."""
        while True:
            if not self._write_rest():
                return False
            with self._pending_lock:
                if not self._pending:
                    return True
                message = self._pending.popleft()
                self._pending_bytes -= len(message)
            self._rest = memoryview(message)

    def _write_rest(self) -> bool:
        while self._rest:
            try:
                if self._tls is None:
                    sent = self._socket.send(self._rest)
                else:
                    with self._tls:
                        sent = self._socket.send(self._rest[:16384])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            self._rest = self._rest[sent:]
        return True

    # Reading.

    def receive(self, handle: MessageHandler, idle_seconds: float, on_idle: Callable[[], None]) -> None:
        """Have the connection read until it ends, giving each message to ``handle``, which may wait for nothing.

        ``on_idle`` is called whenever nothing at all arrived for ``idle_seconds``. Returns when the peer
        closed or :meth:`close` was called; ProtocolError, also one raised by ``handle`` or ``on_idle``, ends
        the reading.
        """
        self._handle = handle
        try:
            self._reader.read(self, idle_seconds, on_idle)
        finally:
            # Whoever handles messages has this object, most often; and half a message is of no use any more.
            self._handle = _nobody
            self._arrived.clear()

    def fileno(self) -> int:
        return self._socket.fileno()

    def arrived(self) -> bool | None:
        """Read a portion, and hand on the messages that are whole. None: nothing had arrived; False: the connection has
        ended. ProtocolError.
        """
        if self.closed:
            return False
        if not (data := self._read()):
            return None if data is None else False
        self._arrived += data
        self._cut(self._arrived, self._handle)
        return True

    def writable(self) -> None:
        """Send what was put aside."""
        self._send_pending()

    def _read(self) -> bytes | None:
        """What has arrived; None when nothing has, empty when the connection ended."""
        try:
            if self._tls is None:
                return self._socket.recv(_PORTION)
            with self._tls:
                return self._socket.recv(_PORTION)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            return b""

    def _cut(self, buffer: bytearray, handle: MessageHandler) -> None:
        offset, end = 0, len(buffer)
        while end - offset >= HEADER.size:
            version, kind, length, xid = HEADER.unpack_from(buffer, offset)
            if not 0 < version <= MAX_VERSION:
                raise ProtocolError(f"a first byte of {version:#04x} begins no OpenFlow message")
            if length < HEADER.size:
                raise ProtocolError(f"a message of type {kind} declares a length of {length} bytes")
            if end - offset < length:
                break
            handle(version, kind, xid, bytes(memoryview(buffer)[offset : offset + length]))
            offset += length
        del buffer[:offset]

    # The end.

    def close(self) -> None:
        """End the connection; both threads notice. May be called from any thread, any number of times."""
        self._closed.set()
        # Whoever reads or writes is woken by it.
        with contextlib.suppress(OSError):  # The peer was quicker.
            self._socket.shutdown(socket.SHUT_RDWR)

    def abort(self) -> None:
        """End the connection as :meth:`close` does, and let nothing arrive any more that is still on its way: what the
        peer has not acknowledged is not sent again. May be called from any thread.
        """
        with contextlib.suppress(OSError):  # The peer was quicker.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def release(self) -> None:
        """Give the descriptor back, once nothing is read any more."""
        self.close()
        self._socket.close()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()


def select_one(connection: socket.socket, events: int, seconds: float) -> None:
    """Wait at most ``seconds`` for one socket to become ready; poll, since select() knows only 1,024
    descriptors.
    """
    poll = select.poll()
    poll.register(connection, events)
    poll.poll(seconds * 1000)
