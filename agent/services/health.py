# SPDX-License-Identifier: Apache-2.0
"""healthCheckNodePort: a load balancer asks every node over HTTP whether it has endpoints of a Service.

With externalTrafficPolicy Local a node without endpoints drops the Service's traffic, so load balancers must leave it
out. Every request on the port, whatever its method and path, is answered as kube-proxy does: 200 with endpoints on the
node and 503 without, the number of them in X-Load-Balancing-Endpoint-Weight, and a JSON document that names the
Service (kubernetes, pkg/proxy/healthcheck/service_health.go).

One thread with an event loop serves all ports, on the node's own addresses.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from agent.ipam import Address
from agent.nodesetup.frontends import Health
from sdn import logs

log: Final = logs.get("agent.services.health")
_REQUEST_SECONDS: Final = 10.0
_REQUEST_BYTES: Final = 16384
_BACKLOG: Final = 128
#: Connections at once, of all ports. A checker sends its request with the connection, so of more the one that has been
#: open longest is ended: whoever opens many and says nothing does not keep checkers out.
_PARALLEL: Final = 256
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78


def answer(health: Health) -> bytes:
    """The whole answer to a request."""
    document = {
        "service": {"namespace": health.namespace, "name": health.name},
        "localEndpoints": health.local_endpoints,
        "serviceProxyHealthy": True,
    }
    body = json.dumps(document, indent="\t").encode()
    status = "200 OK" if health.local_endpoints > 0 else "503 Service Unavailable"
    head = (
        f"HTTP/1.1 {status}\r\n"
        "Content-Type: application/json\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"X-Load-Balancing-Endpoint-Weight: {health.local_endpoints}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


class HealthServers:
    """The ports that are served. Methods may be called from one other thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="health-checks", daemon=True)
        self._answers: dict[int, bytes] = {}
        self._servers: dict[tuple[Address, int], asyncio.Server] = {}
        self._told: set[tuple[Address, int]] = set()
        #: The longest open ones first.
        self._open: dict[asyncio.StreamWriter, None] = {}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._call(self._serve((), {}))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def serve(self, addresses: Iterable[Address], wanted: Mapping[int, Health]) -> None:
        """Serve these ports on these addresses, and no others."""
        self._call(self._serve(tuple(addresses), dict(wanted)))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _serve(self, addresses: tuple[Address, ...], wanted: dict[int, Health]) -> None:
        self._answers = {port: answer(health) for port, health in wanted.items()}
        sockets = {(address, port) for address in addresses for port in wanted}
        for place in self._servers.keys() - sockets:
            self._servers.pop(place).close()
            log.info("health checks end", address=place[0], port=place[1])
        for place in sockets - self._servers.keys():
            try:
                self._servers[place] = await asyncio.start_server(
                    self._connection, sock=_listen(*place), backlog=_BACKLOG, limit=_REQUEST_BYTES
                )
            except OSError as problem:
                # Somebody else has the port; tried again with the next look.
                if place not in self._told:
                    service = wanted[place[1]]
                    log.error(
                        "health checks cannot be answered",
                        service=f"{service.namespace}/{service.name}",
                        address=place[0],
                        port=place[1],
                        error=str(problem),
                    )
                self._told.add(place)
            else:
                self._told.discard(place)
                log.info("health checks are answered", address=place[0], port=place[1])
        self._told &= sockets

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _PARALLEL:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = None
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                port = int(writer.get_extra_info("sockname")[1])
                if port in self._answers:
                    writer.write(self._answers[port])
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # whoever asked went away, or asks no HTTP
        finally:
            self._open.pop(writer, None)


def _listen(address: Address, port: int) -> socket.socket:
    """A socket on an address that may be gone for a moment, as br-phy's are while ovs-vswitchd starts anew."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 4:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        listener.bind((str(address), port))
    except BaseException:
        listener.close()
        raise
    return listener
