# SPDX-License-Identifier: Apache-2.0
"""Servers for a benchmark: `python -m tests.bench.acceptor PORT,PORT NETNS ...` takes TCP connections to the ports in
each namespace and ends them at once.

A process of its own, so that the client that is timed does not share an interpreter with it. Prints a line when all
of them listen.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import sys
from typing import Final

from tests.bench import netns

BACKLOG: Final = 4096


def main() -> None:
    ports, namespaces = [int(port) for port in sys.argv[1].split(",")], sys.argv[2:]
    listeners: dict[int, socket.socket] = {}
    poll = select.epoll()
    for namespace, port in itertools.product(namespaces, ports):
        with netns.entered(namespace):
            listener = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
            )
        listener.setblocking(False)
        listeners[listener.fileno()] = listener
        poll.register(listener, select.EPOLLIN)
    print("listening", flush=True)
    while True:
        for number, _ in poll.poll():
            with contextlib.suppress(BlockingIOError):
                while True:
                    listeners[number].accept()[0].close()


if __name__ == "__main__":
    main()
