# SPDX-License-Identifier: Apache-2.0
"""Takes in the connections that switches make.

With TLS, the handshake takes place in the thread of its connection: a peer that dawdles holds up nobody else.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from controller.addresses import format_address
from controller.osken import HANDSHAKE_SECONDS
from sdn import logs

log = logs.get("controller.openflow")

#: Connections at one time; each costs a thread, which mostly waits for its end, and a few hundred kilobytes.
MAX_CONNECTIONS = 4096


class Listener:
    """Accepts connections and gives each a thread that runs ``serve(socket, address)``."""

    def __init__(
        self, listener: socket.socket, serve: Callable[[Any, Any], None], tls: ssl.SSLContext | None = None
    ) -> None:
        self._socket = listener
        self._serve = serve
        self._tls = tls
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._closing = False

    @property
    def port(self) -> int:
        """The port listened on."""
        number: int = self._socket.getsockname()[1]
        return number

    def accept_forever(self) -> None:
        """Accept until :meth:`close`."""
        while not self._closing:
            try:
                connection, address = self._socket.accept()
            except OSError as problem:
                if self._closing:
                    return
                # Out of descriptors, most likely: those who are connected go on, the others try again.
                log.error("cannot accept a connection", error=str(problem))
                time.sleep(1.0)
                continue
            if not self._places.acquire(blocking=False):
                log.error("connection refused", peer=format_address(address), reason="too many connections")
                connection.close()
                continue
            threading.Thread(
                target=self._run,
                args=(connection, address),
                name=f"openflow {format_address(address)}",
                daemon=True,
            ).start()

    def _run(self, connection: socket.socket, address: Any) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection.settimeout(HANDSHAKE_SECONDS)
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._serve(connection, address)
        except OSError as problem:
            log.warning("connection refused", peer=format_address(address), reason=str(problem))
        except Exception:  # a defect that one peer has found must not end the process for all others
            log.exception("connection failed", peer=format_address(address))
        finally:
            connection.close()
            self._places.release()

    def close(self) -> None:
        """Stop accepting. Connections that exist go on."""
        self._closing = True
        # Wakes the thread that waits in accept().
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
