# SPDX-License-Identifier: Apache-2.0
"""The process of the heartbeats (controller/ha/pulse.py has the other end).

It stands for the controller that has started it. It answers others only while that one runs: not while it is stopped
(SIGSTOP, a debugger), nor when it has not said for a while that it is at work. When that one ends, however it does, so
does this at once, and others find nobody here.

Messages of JSON go both ways: in come whom to listen for, and empty ones while the controller is at work; out go who is
silent, who is heard, and now and then how long ago each was.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from controller.ha.heartbeat import Heartbeats
from controller.ha.pulse import READ_SIZE
from sdn import logs

#: How often it is looked whether the controller is stopped.
LOOK_SECONDS: Final = 0.05
AGES_SECONDS: Final = 1.0
#: Before what computes: each time this runs for microseconds only.
_NICE: Final = -10

log = logs.get("controller.heartbeat")


class _Controller:
    """The socket to the controller, and whether the controller runs."""

    def __init__(self, theirs: socket.socket, pid: int, hung_seconds: float) -> None:
        self._socket = theirs
        self._status = Path(f"/proc/{pid}/stat")
        self._hung_seconds = hung_seconds
        self._at_work = time.monotonic()
        #: What it has not taken yet, since it does not run.
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()

    def wait(self) -> Mapping[str, Any]:
        """What it says, if it says something within a moment. EOFError when it has ended."""
        self._send()
        if not select.select([self._socket], [], [], LOOK_SECONDS)[0]:
            return {}
        data = self._socket.recv(READ_SIZE)
        if not data:
            raise EOFError
        self._at_work = time.monotonic()
        said: Mapping[str, Any] = json.loads(data)
        return said

    def runs(self) -> bool:
        # The state follows the name, which may have any characters (proc(5)).
        state = self._status.read_bytes().rpartition(b") ")[2][:1]
        return state not in b"Tt" and time.monotonic() - self._at_work < self._hung_seconds

    def tell(self, *what: object) -> None:
        """In any thread."""
        self._waiting.append(json.dumps(what).encode())
        self._send()

    def _send(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError, ConnectionError):
            while self._waiting:
                self._socket.send(self._waiting[0], socket.MSG_DONTWAIT)
                self._waiting.popleft()


def main(name: str, incarnation: str, listener: str, theirs: str, hung_seconds: str, levels: str) -> None:
    """Run until the controller ends."""
    # Whoever ends the controller with all that it has started ends this by it: until then it stands for it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logs.setup(levels)
    with contextlib.suppress(OSError):  # not allowed: it does without
        os.nice(_NICE)
    controller = _Controller(socket.socket(fileno=int(theirs)), os.getppid(), float(hung_seconds))
    heartbeats = Heartbeats(
        name,
        incarnation,
        socket.socket(fileno=int(listener)),
        lambda *silent: controller.tell("silent", *silent),
        lambda *heard: controller.tell("heard", *heard),
    )
    controller.tell("ready")
    try:
        _serve(controller, heartbeats)
    except EOFError:
        pass
    except OSError as problem:
        # It may end between two looks at it; anything else is to be known.
        log.warning("heartbeats end", error=logs.error_text(problem))
    # At once: with the sockets others see that nobody is here.
    os._exit(0)


def _serve(controller: _Controller, heartbeats: Heartbeats) -> None:
    named: Mapping[str, tuple[str, str]] = {}
    paused, ages_at = False, 0.0
    while True:
        said = controller.wait()
        if "peers" in said:
            named = {name: (incarnation, address) for name, (incarnation, address) in said["peers"].items()}
            heartbeats.peers(named)
        if paused == controller.runs():
            paused = not paused
            log.warning("the controller is stopped, or hangs" if paused else "the controller goes on")
            heartbeats.pause(paused)
        now = time.monotonic()
        if now >= ages_at and not paused:
            ages_at = now + AGES_SECONDS
            ages = {name: heartbeats.heard(name) for name in named}
            controller.tell("ages", {name: age for name, age in ages.items() if age is not None})


if __name__ == "__main__":
    main(*sys.argv[1:])
