# SPDX-License-Identifier: Apache-2.0
"""Direct links between controllers: each knows within a fraction of a second when another one is gone.

Each controller connects to each other one, sends a byte every :data:`BEAT_SECONDS`, and gets it back. What it knows
of another comes from its own connection alone, so that it does not matter in which order they learn of each other.

- A connection that breaks is tried again at once. When nobody listens any longer, or another incarnation, the peer is
  gone; when the peer answers within :data:`DOUBT_SECONDS`, nothing is told.
- A peer that is not heard for :data:`SILENCE_SECONDS` is silent, whatever the connection looks like: it was stopped,
  its machine is gone, the network is cut. So is one that was never heard, from when it was named.
- Time in which this process itself did not run does not count: it neither asked nor listened then. After a long
  one everybody has the full time again.

All this happens in one thread, in a process of its own (controller/ha/pulse.py). The callbacks are called in this
thread, must not block, and must not call :meth:`Heartbeats.close`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from controller.ha import wire
from controller.ha.answering import Answering
from controller.ha.wire import Greeting
from sdn import logs

log = logs.get("controller.heartbeat")

BEAT_SECONDS: Final = 0.1
SILENCE_SECONDS: Final = 0.3
#: A peer that was silent and is heard again, the same one, was only slow: to take over what it has makes it, and all
#: others, slower still. So it gets twice the time, each time, up to this; after some minutes all is forgiven. One that
#: was silent for longer than this was away, and would have been found with the longest patience, too: it gets no more.
#: One whose process has ended is found at once all the same, since its connection breaks.
LONGEST_SILENCE_SECONDS: Final = 2.4
FORGIVEN_SECONDS: Final = 300.0
#: Whoever has not been heard for so long is sent beats more often: what follows a lost packet makes the kernel send it
#: again, long before its timer does.
ANXIOUS_SECONDS: Final = 0.15
ANXIOUS_BEAT_SECONDS: Final = 0.03
#: After a connection has broken: until then the peer must have answered on another one.
DOUBT_SECONDS: Final = 0.05
#: The loop was so much later than planned: this process did not run.
STALL_SECONDS: Final = 0.05
#: Pause after an attempt to connect that failed at once.
RETRY_SECONDS: Final = 0.1
#: An attempt to connect is given up and begun anew: the kernel would ask again only after a second.
CONNECT_SECONDS: Final = 0.3
#: A greeting is waited for: a peer that was stopped answers it when it goes on.
GREETING_SECONDS: Final = 1.0
#: After one of these nobody is there; other errors may be the network's, or this host's own.
_DEFINITE: Final = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)

OnSilent: TypeAlias = Callable[[str, str, str], None]
OnHeard: TypeAlias = Callable[[str, str], None]


class _Peer:
    """Another controller, and the connection to it."""

    def __init__(self, name: str, incarnation: str, address: str, now: float) -> None:
        self.greeting = Greeting(name, incarnation)
        self.address = address
        self.connection: socket.socket | None = None
        self.linked = False
        self.received = b""
        #: Whether it was told last that the peer is heard, or that it is silent; None: neither yet.
        self.told: bool | None = None
        #: When it was heard, on the clock; None: never.
        self.heard_at: float | None = None
        #: When it was heard, or named, later by the time in which this process did not run.
        self.quiet_since = now
        #: For how long it may be quiet, and when it was last found to have been only slow.
        self.patience = SILENCE_SECONDS
        self.was_slow_at = now
        self.was_quiet = False
        #: Set while a connection that has broken is tried again.
        self.doubt_until: float | None = None
        #: Why there is no connection.
        self.why = "it did not answer"
        #: When an attempt to connect is given up, and when the next one is made.
        self.give_up_at = now
        self.dial_at = now
        #: When the next beat out of turn may be sent.
        self.anxious_at = now

    def extend(self, now: float, late: float) -> None:
        """This process did not run for ``late`` seconds."""
        self.quiet_since = now if late >= SILENCE_SECONDS else min(now, self.quiet_since + late)
        self.give_up_at += late
        if self.doubt_until is not None:
            self.doubt_until += late

    def due(self) -> float:
        """When this peer must be looked at again, if nothing happens."""
        times = [self.dial_at] if self.connection is None else []
        if self.connection is not None and not self.linked:
            times.append(self.give_up_at)
        if self.told is not False:
            times.append(self.quiet_since + self.patience)
            if self.linked:
                times.append(max(self.anxious_at, self.quiet_since + ANXIOUS_SECONDS))
        if self.doubt_until is not None:
            times.append(self.doubt_until)
        return min(times, default=float("inf"))


class Heartbeats:
    """``listener`` is the socket to listen on, which is closed with this.

    ``on_silent`` gets name, incarnation and why of a peer that fell silent, ``on_heard`` name and incarnation of one
    that is heard, the first time, too.
    """

    def __init__(
        self,
        name: str,
        incarnation: str,
        listener: socket.socket,
        on_silent: OnSilent,
        on_heard: OnHeard,
    ) -> None:
        self._name = name
        me = Greeting(name, incarnation)
        self._greeting = me.encode()
        self._on_silent = on_silent
        self._on_heard = on_heard
        listener.setblocking(False)
        #: The port listened on.
        self.port: int = listener.getsockname()[1]
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._woken)
        self._answering = Answering(self._selector, listener, me)
        self._named: Mapping[str, tuple[str, str]] = {}
        #: Those that were left out since the thread has looked last, be they named again by now.
        self._left_out: set[str] = set()
        self._naming = threading.Lock()
        #: Replaced, never changed, by the thread: others may read it.
        self._peers: Mapping[str, _Peer] = {}
        self._closed = False
        self._now = self._beat_at = self._look_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._thread.start()

    def peers(self, named: Mapping[str, tuple[str, str]]) -> None:
        """Whom to listen for from now on: incarnation and "IP address:port" by name; this controller itself is left
        out.

        One that is named anew, also with another incarnation or address, counts as never heard. Of those that are
        not named any longer nothing is told.
        """
        others = {name: peer for name, peer in named.items() if name != self._name}
        with self._naming:
            self._left_out |= self._named.keys() - others.keys()
            self._named = others
        self._wake()

    def heard(self, name: str) -> float | None:
        """Seconds since a peer was heard; None when it never was, or was not named."""
        peer = self._peers.get(name)
        if peer is None or peer.heard_at is None:
            return None
        return time.monotonic() - peer.heard_at

    def pause(self, paused: bool) -> None:
        """Whether whoever asks for this controller is left without an answer."""
        self._answering.paused = paused

    def close(self) -> None:
        """Close all connections, and wait until the thread has ended."""
        self._closed = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # there is no room: enough are waiting; or it is closed
            self._wake_writer.send(b"\0")

    # The thread.

    def _run(self) -> None:
        while not self._closed:
            try:
                self._pass()
            except Exception:  # a defect must not leave a controller that others take for dead
                log.exception("heartbeats failed")
                time.sleep(BEAT_SECONDS)
        self._answering.close()
        for peer in self._peers.values():
            self._hang_up(peer)
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _pass(self) -> None:
        wait = max(0.0, min(self._beat_at, self._look_at) - time.monotonic())
        ready = self._selector.select(wait)
        now = time.monotonic()
        late = now - self._now - wait
        self._now = now
        if late > STALL_SECONDS:
            for peer in self._peers.values():
                peer.extend(now, late)
            self._look_at = now
        # What has arrived comes first: nobody is silent whose bytes wait here.
        for key, _ in ready:
            key.data(now)
        if now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            for peer in self._peers.values():
                if peer.linked:
                    self._beat(peer)
            self._answering.tidy(now)
        if now >= self._look_at:
            for peer in self._peers.values():
                self._look(peer)
            self._look_at = min((peer.due() for peer in self._peers.values()), default=float("inf"))

    def _woken(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        with self._naming:
            named, left_out, self._left_out = self._named, self._left_out, set()
        former, peers = dict(self._peers), {}
        for name, (incarnation, address) in named.items():
            peer = former.get(name) if name not in left_out else None
            if peer is not None and (peer.greeting.incarnation, peer.address) == (incarnation, address):
                peers[name] = former.pop(name)
            else:
                peers[name] = _Peer(name, incarnation, address, now)
        self._peers = peers
        for peer in former.values():
            self._hang_up(peer)
        self._look_at = now

    # Connections to others.

    def _look(self, peer: _Peer) -> None:
        now = self._now
        if peer.doubt_until is not None and now >= peer.doubt_until:
            self._silent(peer, peer.why)
        elif peer.told is not False and now >= peer.quiet_since + peer.patience:
            # A connection that looks well would go on only when the kernel sends again, seconds later perhaps.
            heard = f"nothing was heard for {peer.patience * 1000:.0f} ms"
            peer.was_quiet = peer.told is True
            why = heard if peer.linked else f"{heard}: {peer.why}"
            if peer.linked:
                self._hang_up(peer)
                peer.dial_at = now
            self._silent(peer, why)
        elif peer.linked and now >= max(peer.anxious_at, peer.quiet_since + ANXIOUS_SECONDS):
            peer.anxious_at = now + ANXIOUS_BEAT_SECONDS
            self._beat(peer)
        if peer.connection is not None and not peer.linked and now >= peer.give_up_at:
            self._hang_up(peer)
            peer.dial_at, peer.why = now, "it did not answer"
        if peer.connection is None and now >= peer.dial_at:
            self._dial(peer)

    def _dial(self, peer: _Peer) -> None:
        peer.dial_at = self._now + RETRY_SECONDS
        try:
            family, target = wire.endpoint(peer.address)
            connection = socket.socket(family, socket.SOCK_STREAM)
        except (ValueError, OSError) as problem:
            peer.why = str(problem)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = connection.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            connection.close()
            self._broken(peer, code)
            return
        peer.connection = connection
        peer.linked, peer.received = False, b""
        peer.give_up_at = self._now + CONNECT_SECONDS
        self._selector.register(
            connection, selectors.EVENT_WRITE, lambda _: self._connected(peer, connection)
        )

    def _connected(self, peer: _Peer, connection: socket.socket) -> None:
        if peer.connection is not connection:
            return  # hung up since
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if code or wire.send(connection, self._greeting) < len(self._greeting):
                self._broken(peer, code)
                return
        except OSError as problem:
            self._broken(peer, problem.errno or 0)
            return
        peer.give_up_at = self._now + GREETING_SECONDS
        self._selector.modify(connection, selectors.EVENT_READ, lambda _: self._read(peer, connection))

    def _read(self, peer: _Peer, connection: socket.socket) -> None:
        if peer.connection is not connection:
            return
        try:
            data = wire.receive(connection)
        except OSError as problem:
            self._broken(peer, problem.errno or 0)
            return
        if data is None:
            return
        if not data:
            self._broken(peer, errno.ECONNRESET)
            return
        if not peer.linked:
            try:
                parsed = wire.parse(peer.received + data)
            except ValueError as problem:
                self._gone(peer, f"another program answers: {problem}")
                return
            if parsed is None:
                peer.received += data
                return
            greeting, data = parsed
            if greeting != peer.greeting:
                self._gone(
                    peer, f"{greeting.name} answers in its place, in incarnation {greeting.incarnation}"
                )
                return
            peer.linked, peer.received = True, b""
            self._look_at = self._now
            self._beat(peer)
            if not peer.linked:
                return
        if data.strip(wire.BEAT):
            self._gone(peer, "it sent what no controller sends")
            return
        self._heard(peer)

    def _beat(self, peer: _Peer) -> None:
        assert peer.connection is not None, "there is nobody to send it to"
        try:
            wire.send(peer.connection, wire.BEAT)
        except OSError as problem:
            self._broken(peer, problem.errno or 0)

    def _hang_up(self, peer: _Peer) -> None:
        if peer.connection is not None:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            peer.connection, peer.linked = None, False

    def _broken(self, peer: _Peer, code: int) -> None:
        """A connection, or an attempt to connect, has ended with an error of the system."""
        why = os.strerror(code).lower() if code else "the connection ended"
        if peer.told and peer.doubt_until is None:
            self._hang_up(peer)
            peer.doubt_until, peer.why = self._now + DOUBT_SECONDS, why
            self._look_at = self._now
            self._dial(peer)
        elif code in _DEFINITE:
            self._gone(peer, why)
        else:
            self._hang_up(peer)
            peer.why = why
            # While there is doubt there is little time.
            peer.dial_at = self._now + (RETRY_SECONDS if peer.doubt_until is None else DOUBT_SECONDS / 5)
            self._look_at = self._now

    def _gone(self, peer: _Peer, why: str) -> None:
        """This incarnation is not there. One that was never heard may be about to listen."""
        self._hang_up(peer)
        peer.why, peer.dial_at, self._look_at = why, self._now + RETRY_SECONDS, self._now
        if peer.told:
            self._silent(peer, why)

    def _silent(self, peer: _Peer, why: str) -> None:
        peer.told, peer.doubt_until = False, None
        name, incarnation = peer.greeting.name, peer.greeting.incarnation
        self._tell(lambda: self._on_silent(name, incarnation, why))

    def _heard(self, peer: _Peer) -> None:
        quiet = self._now - peer.quiet_since
        peer.heard_at = peer.quiet_since = self._now
        peer.doubt_until = None
        if peer.was_quiet:
            peer.was_quiet = False
            if quiet <= LONGEST_SILENCE_SECONDS:
                peer.was_slow_at = self._now
                peer.patience = min(2 * peer.patience, LONGEST_SILENCE_SECONDS)
        elif peer.patience > SILENCE_SECONDS and self._now > peer.was_slow_at + FORGIVEN_SECONDS:
            peer.patience = SILENCE_SECONDS
        if not peer.told:
            peer.told = True
            self._tell(lambda: self._on_heard(peer.greeting.name, peer.greeting.incarnation))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # whoever is told must not end what is told to all others
            log.exception("a change of a peer was not taken in")
