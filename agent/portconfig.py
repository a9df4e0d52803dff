# SPDX-License-Identifier: Apache-2.0
"""What somebody forbids a port of br-int by OpenFlow (`ovs-ofctl mod-port`: no-receive, no-forward, no-packet-in) is
allowed again at once, and told.

Nobody here ever forbids a port anything, and no database knows of it: the switch alone does, which tells of each change
on its management socket. All ports are looked at when that is opened, and once in a while. That a port is down is the
kernel interface's own flag, and is put right with that (`agent.reconcile`, `agent.nodesetup.gateway`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.drift import CHANGED, Found
from agent.management import LocalSwitchError, Management
from sdn import logs
from sdn.openflow import (
    CodecError,
    PortConfig,
    PortDescription,
    decode_port_descs,
    decode_port_status,
    multipart_body,
    port_desc_request,
    port_mod,
    port_notice_requests,
)

log: Final = logs.get("agent.portconfig")

_AUDIT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 0.1


class PortConfigs:
    """Keeps the ports of a switch free of what they are forbidden. A thread of its own."""

    def __init__(self, socket: Path, found: Found) -> None:
        """``socket`` is the bridge's management socket; ``found`` is told what was put right."""
        self._socket = socket
        self._found = found
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="port-config", daemon=True)
        #: What was said last and is not said again.
        self._told = ""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with _Ports(self._socket) as ports:
                    self._told = ""
                    self._follow(ports)
            except (LocalSwitchError, CodecError) as problem:
                if str(problem) != self._told:
                    self._told = str(problem)
                    log.info("the switch's ports cannot be followed", error=self._told)
            self._stop.wait(_RETRY_SECONDS)

    def _follow(self, ports: _Ports) -> None:
        """Until the end. LocalSwitchError, CodecError."""
        audit_at = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= audit_at:
                self._put_right(ports, ports.all())
                audit_at = time.monotonic() + _AUDIT_SECONDS
            self._put_right(ports, ports.changed(_LOOK_SECONDS))

    def _put_right(self, ports: _Ports, looked_at: Iterable[PortDescription]) -> None:
        for port in looked_at:
            forbidden = port.config & ~PortConfig.DOWN
            if not forbidden:
                continue
            if refused := ports.allow(port, forbidden):
                # It has just gone, or another has its number, of which the switch tells as well.
                log.info("port not mended", port=port.name, config=str(forbidden), error=refused)
                continue
            log.warning("port mended", port=port.name, config=str(forbidden))
            self._found(CHANGED, f"port {port.name}: {forbidden}")


class _Ports(Management):
    """A connection on which the switch tells of ports."""

    def __init__(self, path: Path) -> None:
        self._changed: dict[int, PortDescription] = {}
        super().__init__(path, port_notice_requests)

    def notice(self, message: bytes) -> bool:
        port = decode_port_status(message)
        if port is not None:
            self._changed[port.number] = port
        return port is not None

    def changed(self, seconds: float) -> list[PortDescription]:
        """Those of which the switch has told since this was asked last, as they are now; waits for it so long."""
        self.wait(lambda: bool(self._changed), seconds)
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def all(self) -> list[PortDescription]:
        """All ports."""
        replies = self.answers(port_desc_request(self.next_xid()))
        return [port for reply in replies for port in decode_port_descs(multipart_body(reply))]

    def allow(self, port: PortDescription, forbidden: PortConfig) -> str:
        """Take these bits from a port's configuration. Why it cannot be done; empty: it is."""
        return "; ".join(self.ask(port_mod(port, 0, forbidden, self.next_xid())))
