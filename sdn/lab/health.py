# SPDX-License-Identifier: Apache-2.0
"""Whether somebody serves a socket.

The kernel accepts connections on behalf of a process that does nothing, as long as its queue has room.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from sdn.lab import processes
from sdn.lab.waiting import patience


def listens(path: Path) -> bool:
    """Whether a process that is not frozen accepts connections on this unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Without a limit this would wait for room in the queue.
        probe.settimeout(patience(1))
        try:
            probe.connect(str(path))
        except OSError:
            return False
        # struct ucred of whoever listens (unix(7)).
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    process = processes.identify(pid)
    return process is None or not processes.frozen(process)


def serves(path: Path, seconds: float = 5) -> bool:
    """Whether a gRPC server on this unix socket calls itself healthy (grpc.health.v1, service ""), within `seconds`."""
    if not listens(path):
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=patience(seconds)
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
