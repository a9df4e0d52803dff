# SPDX-License-Identifier: Apache-2.0
"""Members in processes of their own, which can be stopped and killed.

Run as a program, this is such a process: it listens for others, stands in the store until it is killed, and prints
what it is told; and, when it did not run for a while, whether it may write at the first moment when it runs again.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.ha.heartbeat import Heartbeats
from controller.ha.membership import Membership
from controller.listening import listen
from controller.records import MemberRecord
from controller.store import open_store

#: A pause of the process that is longer than what a busy machine makes.
GAP_SECONDS = 1.5


def member(name: str, incarnation: str, peers_address: str = "") -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=incarnation,
        grpc_address="192.0.2.1:50051",
        openflow_target="tcp:192.0.2.1:6653",
        peers_address=peers_address,
        version="1",
        pipeline=1,
        started_at="2026-01-31T09:15:02Z",
    )


class RemoteMember:
    """The process of a member whose peers' address is ``peers_address``; it stands when this is made."""

    def __init__(
        self, url: str, name: str, incarnation: str, lease_seconds: float, peers_address: str
    ) -> None:
        arguments = (url, name, incarnation, str(lease_seconds), peers_address)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *arguments],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self.next()[0] == "started"

    def next(self) -> tuple[str, bool]:
        """What it prints next: "lost", "regained" or "ran again", and whether it may write at that moment."""
        assert self._process.stdout is not None
        what, may_write = json.loads(self._process.stdout.readline())
        return what, may_write

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _main(url: str, name: str, incarnation: str, lease_seconds: str, peers_address: str) -> None:
    lock = threading.Lock()

    def tell(what: str, may_write: bool) -> None:
        with lock:
            print(json.dumps([what, may_write]), flush=True)

    Heartbeats(name, incarnation, listen(peers_address), lambda *_: None, lambda *_: None)
    membership = Membership(open_store(url), member(name, incarnation, peers_address), float(lease_seconds))
    membership.on_lost = lambda: tell("lost", membership.may_write())
    membership.on_regained = lambda _: tell("regained", membership.may_write())
    membership.start()
    tell("started", membership.may_write())
    before = time.monotonic()
    while True:
        time.sleep(0.005)
        now, may_write = time.monotonic(), membership.may_write()
        if now - before > GAP_SECONDS:
            tell("ran again", may_write)
        before = now


if __name__ == "__main__":
    _main(*sys.argv[1:])
