# SPDX-License-Identifier: Apache-2.0
"""What gRPC's core would write on its own does not come between the lines of a daemon's log."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading

import pytest

_SETTINGS, _GOAWAY = 4, 7
_INTERNAL_ERROR = 2

# Calls, and is sent away with an error, on which the core has something to say.
_CLIENT = """
import sys
import {module}
import grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    try:
        channel.unary_unary("/sdn.v1.Nobody/Asks")(b"", timeout=1)
    except grpc.RpcError:
        print("refused")
"""


def _frame(kind: int, payload: bytes) -> bytes:
    """An HTTP/2 frame of the connection itself (RFC 9113, section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + bytes((kind, 0)) + bytes(4) + payload


def _send_away(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(_frame(_SETTINGS, b""))
        connection.sendall(_frame(_GOAWAY, struct.pack("!II", 0, _INTERNAL_ERROR)))
        while connection.recv(4096):
            pass


@pytest.mark.parametrize("module", ["agent.main", "controller.main", "sdn.cli.main"])
def test_nothing_is_said_of_a_connection_that_a_peer_ends(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_send_away, args=(listening,), daemon=True).start()
        target = f"127.0.0.1:{listening.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT.format(module=module), target],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert done.stdout == "refused\n"
    assert done.stderr == ""
