# SPDX-License-Identifier: Apache-2.0
"""One switch's socket: whole OpenFlow messages in and out, and nobody waits who must not.

Two threads use a transport. The receiving thread reads, cuts the stream into messages and hands each one on;
it also answers echoes, and so may never wait for the socket to take something: :meth:`Transport.send` puts
the message aside when the socket is full. The synchronizer's thread writes bundles of megabytes with
:meth:`Transport.write`, which does wait. Were the receiver to wait for the writer, switch and controller
could each wait for the other to read first: Open vSwitch stops reading while a hundred replies of its own are
unread.

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

HEADER = struct.Struct("!BBHI")
#: Bytes of echo replies and handshake that may wait for a peer that does not read.
MAX_PENDING = 1 << 18
#: Bytes that may wait for it when more are offered that it could do without.
MAX_OFFERED = 1 << 16
#: A peer that takes no byte for this long while something is to be written is given up.
STALL_SECONDS = 60.0
#: Greatest version number believed; TLS, HTTP and SSH all begin with greater bytes.
MAX_VERSION = 15
_READ_SIZE = 1 << 18
#: struct linger (socket(7)): what waits to be sent is thrown away when the socket is closed.
_NO_LINGER = struct.pack("ii", 1, 0)

#: version, type, xid, the whole message with its header
MessageHandler = Callable[[int, int, int, bytes], None]


class ProtocolError(Exception):
    """The peer does not speak OpenFlow as it must; the connection ends."""


class ConnectionClosedError(Exception):
    """The connection is gone: whatever was asked will not be answered."""


class Transport:
    """Messages over one connected socket; takes the socket over, and sets it non-blocking."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        # OpenSSL's connection object must not be used by two threads at once; a plain socket may.
        self._tls = threading.Lock() if isinstance(connection, ssl.SSLSocket) else None
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._pending_lock = threading.Lock()
        #: Held while bytes are written, so that messages are never mixed. Guards ``_rest``.
        self._write_lock = threading.Lock()
        self._rest = memoryview(b"")
        self._closed = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)

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
        written = False
        if self._write_lock.acquire(blocking=False):
            try:
                written = self._flush()
            except OSError:
                self.close()
            finally:
                self._write_lock.release()
        # Whoever holds the lock flushes before it goes on; what is left then the receiver sends when it can.
        if not written:
            self._wake()

    def write(self, chunks: Iterable[bytes]) -> None:
        """Send chunks, each made of whole messages; waits as long as the peer keeps taking them.

        ConnectionClosedError when the connection ends meanwhile, or the peer takes nothing for STALL_SECONDS.
        """
        with self._write_lock:
            for chunk in chunks:
                self._write_whole(self._flush)
                self._rest = memoryview(chunk)
                self._write_whole(self._write_rest)

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
        except OSError:
            pass  # The peer is gone: said below, as for every other end of the connection.
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
        """Read until the connection ends, giving each message to ``handle``.

        ``on_idle`` is called whenever nothing at all arrived for ``idle_seconds``. Returns when the peer
        closed or :meth:`close` was called; ProtocolError, also one raised by ``handle`` or ``on_idle``, ends
        the reading.

        Each system call gives the interpreter away, and to have it back takes its turn among all threads that have
        work. With a thousand switches that is the most that an echo costs, so none is made that is known to be in vain.
        """
        buffer = bytearray()
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        wake = self._wake_reader.fileno()
        last = time.monotonic()
        readable = True
        while not self._closed.is_set():
            data = self._read() if readable else None
            if data:
                last = time.monotonic()
                buffer += data
                self._cut(buffer, handle)
                # TLS may have taken in more than it has given.
                readable = len(data) == _READ_SIZE or self._tls is not None
                continue
            if data is not None:
                return
            waiting_to_write = self._try_flush()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if waiting_to_write else 0))
            ready = poll.poll(max(0.0, last + idle_seconds - time.monotonic()) * 1000)
            readable = any(found != wake for found, _ in ready)
            if any(found == wake for found, _ in ready):
                self._drain_wake()
            if time.monotonic() - last >= idle_seconds:
                last = time.monotonic()
                on_idle()

    def _read(self) -> bytes | None:
        """What has arrived; None when nothing has, empty when the connection ended."""
        try:
            if self._tls is None:
                return self._socket.recv(_READ_SIZE)
            with self._tls:
                return self._socket.recv(_READ_SIZE)
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

    def _try_flush(self) -> bool:
        """Send what was put aside if nobody else is writing; True when some is left that waits for the
        peer.
        """
        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            return not self._flush()
        except OSError:
            self.close()
            return False
        finally:
            self._write_lock.release()

    # The end.

    def close(self) -> None:
        """End the connection; both threads notice. May be called from any thread, any number of times."""
        self._closed.set()
        with contextlib.suppress(OSError):  # The peer was quicker.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._wake()

    def abort(self) -> None:
        """End the connection as :meth:`close` does, and let nothing arrive any more that is still on its way: what the
        peer has not acknowledged is not sent again. May be called from any thread.
        """
        with contextlib.suppress(OSError):  # The peer was quicker.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def release(self) -> None:
        """Give the descriptors back, once the receiving thread has ended."""
        self.close()
        self._socket.close()
        self._wake_reader.close()
        self._wake_writer.close()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def _wake(self) -> None:
        # Full: the receiver is being woken already. Closed: it has ended.
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)


def select_one(connection: socket.socket, events: int, seconds: float) -> None:
    """Wait at most ``seconds`` for one socket to become ready; poll, since select() knows only 1,024
    descriptors.
    """
    poll = select.poll()
    poll.register(connection, events)
    poll.poll(seconds * 1000)
