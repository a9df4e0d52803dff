# SPDX-License-Identifier: Apache-2.0
"""A little DNS server for tests, over UDP and TCP, that answers as it is told; also as a program of its own:

    python -m tests.unit.dns_upstream ADDRESS PORT

serves for ever: `www.example.com` A 192.0.2.80 and AAAA 2001:db8::80, `big.example.com` TXT too long for a datagram,
NXDOMAIN for all else.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Answering = Callable[[dns.message.Message, bool], list[bytes]]


def example(query: dns.message.Message, tcp: bool) -> list[bytes]:
    """What example.com's servers say."""
    response = dns.message.make_response(query, recursion_available=True)
    name = str(query.question[0].name).lower()
    records = {
        "www.example.com.": {"A": ["192.0.2.80"], "AAAA": ["2001:db8::80"]},
        "big.example.com.": {"TXT": [f'"{n:03}{"x" * 200}"' for n in range(20)]},
    }
    if name not in records:
        response.set_rcode(dns.rcode.NXDOMAIN)
    for kind, data in records.get(name, {}).items():
        if dns.rdatatype.from_text(kind) == query.question[0].rdtype:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *data))
    most = 65535 if tcp else max(512, query.payload)
    return [response.to_wire(max_size=most, prefer_truncation=True)]


def _bound(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A port of UDP and the same of TCP. ``port`` 0: any; what is free of the one may be somebody's of the other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for last in (False,) * 9 + (True,):
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        streams = socket.socket(family, socket.SOCK_STREAM)
        streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            datagrams.bind((address, port))
            streams.bind(datagrams.getsockname()[:2])
        except OSError:
            datagrams.close()
            streams.close()
            if port or last:
                raise
        else:
            return datagrams, streams
    raise AssertionError("the last attempt raises")


class Upstream:
    """`queries` are those that came, with whether it was over TCP."""

    def __init__(self, address: str, port: int, answering: Answering) -> None:
        self._udp, self._tcp = _bound(address, port)
        self.address, self.port = self._udp.getsockname()[:2]
        self._tcp.listen()
        self._answering = answering
        self._stop = threading.Event()
        self.queries: list[tuple[dns.message.Message, bool]] = []
        self.threads = [
            threading.Thread(target=part, daemon=True) for part in (self._datagrams, self._streams)
        ]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        # Wakes both threads.
        self._tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(self._udp.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (self.address, self.port))
        for thread in self.threads:
            thread.join(10)
        self._tcp.close()
        self._udp.close()

    def _datagrams(self) -> None:
        while True:
            raw, sender = self._udp.recvfrom(65535)
            if self._stop.is_set():
                return
            for answer in self._answers(raw, tcp=False):
                self._udp.sendto(answer, sender)

    def _streams(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                size = int.from_bytes(stream.read(2), "big")
                for answer in self._answers(stream.read(size), tcp=True):
                    stream.write(len(answer).to_bytes(2, "big") + answer)

    def _answers(self, raw: bytes, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(raw)
        self.queries.append((query, tcp))
        return self._answering(query, tcp)


@contextmanager
def serving(answering: Answering = example) -> Iterator[Upstream]:
    """On a free port of 127.0.0.1."""
    upstream = Upstream("127.0.0.1", 0, answering)
    try:
        yield upstream
    finally:
        upstream.close()


if __name__ == "__main__":
    server = Upstream(sys.argv[1], int(sys.argv[2]), example)
    print("serving", flush=True)
    server.threads[0].join()
