# SPDX-License-Identifier: Apache-2.0
"""Connections that stay, with data on the way in both directions all the time; one process holds both ends.

A connection is cut when nothing that is sent at either end arrives at the other any more. Ends are told of nothing: a
TCP socket goes on trying, and so it is tried for as long as a stream is watched.

    python -S -m tests.lab.policies.streams FILE    one plan on stdin; opens its streams, says so, and when FILE is
                                                    there waits until those are cut that shall be, and tells what flows

Needs nothing but the standard library and sdn.lab.namespaces.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sdn.lab.waiting import patience
from tests.lab.service_sockets import family_of, opened

#: Seconds between two pieces of data in the same direction.
_INTERVAL = 0.01
#: Streams end on ports of their own, beside those on which pods answer.
_ports = itertools.count(9000)
#: A full buffer, and what ICMP or the kernel's patience says of the other end: nothing is sent, nothing arrives.
_NOTHING = (BlockingIOError, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Flowed:
    """Bytes that arrived."""

    at_server: int
    at_client: int

    @property
    def both(self) -> bool:
        """Whether data went both ways."""
        return self.at_server > 0 and self.at_client > 0


@dataclass(frozen=True)
class Plan:
    """From the namespace ``client`` to ``address``:``port`` in the namespace ``server``, by tcp, udp or sctp."""

    client: str
    server: str
    transport: str
    address: str
    port: int


class Stream:
    """One connection. UDP is one when its first datagram was answered."""

    def __init__(self, plan: Plan) -> None:
        self.transport = plan.transport
        version = family_of(plan.address)
        listener = opened(plan.server, plan.transport, version)
        self._client = opened(plan.client, plan.transport, version)
        try:
            listener.settimeout(patience(10))
            self._client.settimeout(patience(10))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((plan.address, plan.port))
            if plan.transport == "udp":
                self._server = _answered(listener, self._client, (plan.address, plan.port))
            else:
                listener.listen()
                self._client.connect((plan.address, plan.port))
                self._server, _ = listener.accept()
                listener.close()
        except BaseException:
            listener.close()
            self._client.close()
            raise
        for end in (self._server, self._client):
            end.setblocking(False)

    def send(self, *, ask: bool) -> None:
        """A piece of data from the server, and, if it shall `ask`, from the client."""
        if ask:
            with suppress(*_NOTHING):
                self._client.send(b"asked" * 20)
        with suppress(*_NOTHING):
            self._server.send(b"answered" * 20)

    def arrived(self) -> Flowed:
        """What has arrived since this was asked last."""
        return Flowed(_received(self._server), _received(self._client))

    def close(self) -> None:
        """Leave both ends."""
        for end in (self._client, self._server):
            end.close()


class Traffic:
    """Data on the way in all of these streams, for the time of a `with` block, whatever the caller does meanwhile."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        #: Whether clients send; servers always do.
        self.asking = True
        self._arrived = [Flowed(0, 0)] * len(streams)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: What ended the thread.
        self._problem: Exception | None = None

    def _run(self) -> None:
        try:
            self._carry()
        except Exception as problem:  # noqa: BLE001 - told to whoever asks what flows
            self._problem = problem

    def _carry(self) -> None:
        while not self._end.wait(_INTERVAL):
            for stream in self._streams:
                stream.send(ask=self.asking)
            with self._lock:
                more = [stream.arrived() for stream in self._streams]
                self._arrived = [
                    Flowed(before.at_server + now.at_server, before.at_client + now.at_client)
                    for before, now in zip(self._arrived, more, strict=True)
                ]

    def flow(self, seconds: float) -> list[Flowed]:
        """What arrives in each stream from now on, within so many seconds (stretched). Of a thread that has ended this
        raises why: where nobody sends, nothing flows.
        """
        with self._lock:
            for stream in self._streams:
                stream.arrived()
            self._arrived = [Flowed(0, 0)] * len(self._streams)
        time.sleep(patience(seconds))
        if self._problem is not None:
            raise self._problem
        assert self._thread.is_alive()
        with self._lock:
            return self._arrived

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def _received(end: socket.socket) -> int:
    count = 0
    with suppress(*_NOTHING):
        while data := end.recv(1 << 16):
            count += len(data)
    return count


def _answered(listener: socket.socket, client: socket.socket, address: tuple[str, int]) -> socket.socket:
    """The server's socket, connected with the client's: datagrams may be lost, so it is tried some times."""
    client.connect(address)
    client.settimeout(patience(1))
    listener.settimeout(patience(1))
    for _ in range(10):
        client.send(b"first")
        with suppress(TimeoutError):
            _, sender = listener.recvfrom(100)
            listener.sendto(b"first", sender)
            client.recv(100)
            listener.connect(sender)
            return listener
    raise TimeoutError(f"no datagram to {address} was answered")


def free_port() -> int:
    """A port on which no stream of this run has ended yet."""
    return next(_ports)


@contextmanager
def streaming(plan: Plan) -> Iterator[Stream]:
    """A stream for the time of the `with` block."""
    made = Stream(plan)
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    """See the module. The plan: ``streams``, each as of :class:`Plan`, ``cut``: whether each shall be cut, ``within``
    and ``watched``: seconds (stretched) until it must be so, and for which it is looked at then.
    """
    plan = json.load(sys.stdin)
    with ExitStack() as stack:
        streams = [stack.enter_context(streaming(Plan(**fields))) for fields in plan["streams"]]
        traffic = stack.enter_context(Traffic(streams))
        before = traffic.flow(plan["watched"])
        print(json.dumps([asdict(one) for one in before]), flush=True)
        go = Path(sys.argv[1])
        while not go.exists():
            time.sleep(0.1)
        deadline = time.monotonic() + patience(plan["within"])
        while time.monotonic() < deadline:
            found = traffic.flow(plan["watched"])
            if all(one == Flowed(0, 0) for one, shall in zip(found, plan["cut"], strict=True) if shall):
                break
        after = traffic.flow(plan["watched"])
        print(json.dumps([asdict(one) for one in after]), flush=True)


if __name__ == "__main__":
    main()
