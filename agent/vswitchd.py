# SPDX-License-Identifier: Apache-2.0
"""ovs-vswitchd's control socket, as `ovs-appctl` speaks it (JSON-RPC 1.0, one request a connection).

The socket's name holds the daemon's process id, which its pid file tells; so each command finds the daemon
that runs now.

The library `ovs` is not used for it: its parser takes minutes for the megabytes that a table of connections has.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

_CONNECT_SECONDS: Final = 2.0
#: ovs-vswitchd works on one command at a time, beside everything else.
_ANSWER_SECONDS: Final = 120.0
_CHUNK: Final = 1 << 20


class VswitchdUnavailable(Exception):
    """ovs-vswitchd does not run or does not answer."""


class VswitchdRefused(Exception):
    """ovs-vswitchd answered a command with an error; the text is its own."""


class Vswitchd:
    """The daemon whose pid file is in a folder (OVS_RUNDIR)."""

    def __init__(self, rundir: Path) -> None:
        self._rundir = rundir

    @property
    def pid(self) -> int | None:
        """Its process id, None when the pid file is missing. A killed daemon leaves the file behind."""
        try:
            return int((self._rundir / "ovs-vswitchd.pid").read_text())
        except (OSError, ValueError):
            return None

    def running(self) -> bool:
        """Whether somebody listens on the control socket. A busy daemon counts as running."""
        try:
            self._connect().close()
        except VswitchdUnavailable:
            return False
        return True

    def command(self, name: str, *arguments: str) -> str:
        """`ovs-appctl NAME ARGUMENTS`: what it printed."""
        with self._connect() as channel:
            try:
                channel.settimeout(_ANSWER_SECONDS)
                channel.sendall(json.dumps({"id": 0, "method": name, "params": arguments}).encode())
                reply = _reply(channel)
            except OSError as problem:
                raise VswitchdUnavailable(f"ovs-vswitchd did not answer {name}: {problem}") from None
        if reply is None:
            raise VswitchdUnavailable(f"ovs-vswitchd ended the connection during {name}")
        refusal = reply.get("error")
        if refusal is not None:
            raise VswitchdRefused(f"{name} {' '.join(arguments)}: {str(refusal).strip()}")
        return str(reply.get("result") or "")

    def _connect(self) -> socket.socket:
        pid = self.pid
        path = self._rundir / f"ovs-vswitchd.{pid}.ctl"
        if pid is None:
            raise VswitchdUnavailable(
                f"ovs-vswitchd does not run: {self._rundir}/ovs-vswitchd.pid is missing"
            )
        try:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as problem:  # no descriptor is free
            raise VswitchdUnavailable(f"ovs-vswitchd cannot be asked: {problem}") from None
        channel.settimeout(_CONNECT_SECONDS)
        try:
            channel.connect(str(path))
        except OSError as problem:
            channel.close()
            raise VswitchdUnavailable(f"ovs-vswitchd does not answer on {path}: {problem}") from None
        return channel


def _reply(channel: socket.socket) -> dict[str, Any] | None:
    """The one reply that comes, None when the other end closes before."""
    data = bytearray()
    while chunk := channel.recv(_CHUNK):
        data += chunk
        if data.rstrip().endswith(b"}"):
            try:
                reply = json.loads(data)
            except ValueError:
                continue  # the end of a piece only looked like the end
            return reply if isinstance(reply, dict) else None
    return None
