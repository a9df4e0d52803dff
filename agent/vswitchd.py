# SPDX-License-Identifier: Apache-2.0
"""ovs-vswitchd's control socket, as `ovs-appctl` speaks it (JSON-RPC, `ovs.unixctl`).

The socket's name holds the daemon's process id, which its pid file tells; so each command finds the daemon
that runs now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.ovslib import UnixctlClient, jsonrpc, stream

_CONNECT_MILLISECONDS: Final = 2000


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
        client = UnixctlClient(self._connect())
        try:
            error, refusal, output = client.transact(name, list(arguments))
        finally:
            client.close()
        if error:
            raise VswitchdUnavailable(f"ovs-vswitchd ended the connection during {name}")
        if refusal is not None:
            raise VswitchdRefused(f"{name} {' '.join(arguments)}: {refusal.strip()}")
        return str(output)

    def _connect(self) -> jsonrpc.Connection:
        pid = self.pid
        path = self._rundir / f"ovs-vswitchd.{pid}.ctl"
        if pid is None:
            raise VswitchdUnavailable(
                f"ovs-vswitchd does not run: {self._rundir}/ovs-vswitchd.pid is missing"
            )
        error, channel = stream.Stream.open_block(stream.Stream.open(f"unix:{path}"), _CONNECT_MILLISECONDS)
        if error or channel is None:
            raise VswitchdUnavailable(f"ovs-vswitchd does not answer on {path}")
        return jsonrpc.Connection(channel)
