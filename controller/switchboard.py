# SPDX-License-Identifier: Apache-2.0
"""Which connection belongs to which node's synchronizer, by datapath id.

The engine says which datapath ids belong to nodes; os-ken's threads bring connections. A switch that no
registered node claims is closed, with its id in the log: it would be programmed by nobody, and forwards what
it held before.
"""

from __future__ import annotations

import threading
import time

from controller.connection import SwitchConnection
from controller.synchronizer import Synchronizer
from sdn import logs

log = logs.get("controller.openflow")

#: An unknown switch connects again every second or so; it is logged once in this many seconds.
LOG_UNKNOWN_EVERY = 60.0
_UNKNOWN_REMEMBERED = 1024


class Switchboard:
    """Safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._synchronizers: dict[int, Synchronizer] = {}
        #: Connections in use, and whose they were when they came.
        self._connections: dict[SwitchConnection, Synchronizer] = {}
        self._unknown: dict[int, float] = {}

    def claim(self, datapath_id: int, synchronizer: Synchronizer) -> None:
        """Connections of this switch go to ``synchronizer`` from now on."""
        with self._lock:
            self._synchronizers[datapath_id] = synchronizer
            self._unknown.pop(datapath_id, None)

    def release(self, datapath_id: int) -> None:
        """No node claims this switch any longer: its connection is closed."""
        with self._lock:
            self._synchronizers.pop(datapath_id, None)
            connections = [known for known in self._connections if known.datapath_id == datapath_id]
        for connection in connections:
            connection.close()

    def connected(self, connection: SwitchConnection) -> None:
        """A switch has finished the handshake."""
        with self._lock:
            synchronizer = self._synchronizers.get(connection.datapath_id)
            if synchronizer is not None:
                self._connections[connection] = synchronizer
        if synchronizer is None:
            self._refuse(connection)
            return
        log.info(
            "switch connected",
            node=synchronizer.node,
            datapath_id=f"{connection.datapath_id:016x}",
            address=connection.address,
        )
        synchronizer.connected(connection)

    def disconnected(self, connection: SwitchConnection) -> None:
        """A connection that finished the handshake has ended."""
        connection.ended()
        with self._lock:
            synchronizer = self._connections.pop(connection, None)
        if synchronizer is not None:
            log.info(
                "switch disconnected",
                node=synchronizer.node,
                datapath_id=f"{connection.datapath_id:016x}",
                address=connection.address,
            )
            synchronizer.disconnected(connection)

    def close(self) -> None:
        """Close every connection; the switches go on forwarding."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def _refuse(self, connection: SwitchConnection) -> None:
        now = time.monotonic()
        with self._lock:
            if len(self._unknown) >= _UNKNOWN_REMEMBERED:
                self._unknown.clear()
            logged = self._unknown.get(connection.datapath_id)
            again = logged is None or now - logged >= LOG_UNKNOWN_EVERY
            if again:
                self._unknown[connection.datapath_id] = now
        if again:
            log.warning(
                "unknown switch refused",
                datapath_id=f"{connection.datapath_id:016x}",
                address=connection.address,
                reason="no registered node claims this datapath id",
            )
        connection.close()
