# SPDX-License-Identifier: Apache-2.0
"""The heartbeats' process, as the controller has it.

A controller computes in many threads that share one interpreter, and an answer to a heartbeat would wait for its turn
among them: so others would take a busy controller for a dead one, and what it had would make them busier still. So the
heartbeats have a process of their own (controller/ha/pulseprocess.py), which stands for this one: it answers only while
this one runs, which it sees by itself when this one ends or is stopped, and by :meth:`Pulse.tick` when it hangs.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Final

from controller.ha.heartbeat import OnHeard, OnSilent
from controller.listening import listen
from sdn import logs

#: How often :meth:`Pulse.tick` is to be called.
TICK_SECONDS: Final = 0.5
#: A controller whose loop has not been at work for so long hangs. Others have its switches then: so it is long enough
#: for whatever keeps a busy one.
HUNG_SECONDS: Final = 30.0
#: The process ends by itself in this time.
END_SECONDS: Final = 2.0
#: The longest thing that is said.
READ_SIZE: Final = 1 << 16


class Pulse:
    """As :class:`controller.ha.heartbeat.Heartbeats`, in another process. ``address`` is where to listen, "host:port".
    ListenError. The callbacks are called in a thread of this, and must not block. A controller that does not
    :meth:`tick` for ``hung_seconds`` hangs.
    """

    def __init__(
        self,
        name: str,
        incarnation: str,
        address: str,
        on_silent: OnSilent,
        on_heard: OnHeard,
        hung_seconds: float = HUNG_SECONDS,
    ) -> None:
        self._on_silent = on_silent
        self._on_heard = on_heard
        listener = listen(address)
        #: The port listened on.
        self.port: int = listener.getsockname()[1]
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with listener, theirs:
            descriptors = (listener.fileno(), theirs.fileno())
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "controller.ha.pulseprocess", name, incarnation),
                    *map(str, descriptors),
                    str(hung_seconds),
                    logs.levels(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        #: When each peer was heard, as the process said last.
        self._heard_at: Mapping[str, float] = {}
        self._ready = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The process of the heartbeats."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Return when it answers others, or never will."""
        self._ready.wait()

    def peers(self, named: Mapping[str, tuple[str, str]]) -> None:
        """Whom to listen for from now on, as :meth:`controller.ha.heartbeat.Heartbeats.peers` takes it."""
        self._say({"peers": dict(named)})

    def tick(self) -> None:
        """This controller is at work. Called seldom enough, it does not answer for a while."""
        self._say({})

    def heard(self, name: str) -> float | None:
        """Seconds since a peer was heard, or a little more; None when it never was, or was not named."""
        at = self._heard_at.get(name)
        return None if at is None else max(0.0, time.monotonic() - at)

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        if self._closed:
            return
        self._closed = True
        self._ours.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # It was stopped, as this one was.
            self._process.wait()
        self._thread.join()
        self._ours.close()

    def _say(self, what: object) -> None:
        try:
            self._ours.send(json.dumps(what).encode(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._process.kill()  # It has not listened for minutes.
        except OSError:
            pass  # It has ended, or is ended: the thread sees to it.

    # The thread.

    def _run(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self._ours.recv(READ_SIZE):
                self._told(*json.loads(data))
        self._ready.set()
        if not self._closed:
            code = self._process.wait()
            raise RuntimeError(f"the process of the heartbeats has ended with {code}")

    def _told(self, what: str, *said: object) -> None:
        match what, *said:
            case ("ready",):
                self._ready.set()
            case "silent", str(name), str(incarnation), str(why):
                self._on_silent(name, incarnation, why)
            case "heard", str(name), str(incarnation):
                self._on_heard(name, incarnation)
            case "ages", dict(ages):
                now = time.monotonic()
                self._heard_at = {str(name): now - age for name, age in ages.items()}
