# SPDX-License-Identifier: Apache-2.0
"""Listening sockets: opened before anything else starts, so that a taken port is a clear error at start."""

from __future__ import annotations

import errno
import socket

from controller.addresses import split_address


class ListenError(Exception):
    """An address cannot be listened on; the text names it and says why."""


def listen(text: str, backlog: int = 1024) -> socket.socket:
    """A listening TCP socket. ListenError when the address is taken, not of this host, or not allowed."""
    host, port = split_address(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as problem:
        raise ListenError(f"{text}: {problem.strerror or problem}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as problem:
        listener.close()
        why = (
            "taken by another process"
            if problem.errno == errno.EADDRINUSE
            else problem.strerror or str(problem)
        )
        raise ListenError(f"{text}: {why}") from None
    return listener
