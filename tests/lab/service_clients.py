# SPDX-License-Identifier: Apache-2.0
"""Who answers, and whom does he see? Clients in many network namespaces, one process.

    python -S -m tests.lab.service_clients load      one plan on stdin, one line of JSON on stdout for each request
    python -S -m tests.lab.service_clients try       listeners and requests on stdin, the answers on stdout, the end

Those who answer are in service_servers.py.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from sdn.lab.waiting import patience
from tests.lab.service_servers import Server
from tests.lab.service_sockets import BUFFER, TREE, Answer, Listener, Request, family_of, opened

#: Requests that are on their way at the same time; a switch's first look at a connection is slow.
WINDOW = 48
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def ask(*requests: Request, window: int = WINDOW) -> list[Answer]:
    """All of them, `window` at a time; the answers in their order."""
    answers: dict[int, Answer] = dict(asking(enumerate(requests), window))
    return [answers[number] for number in range(len(requests))]


def asking(requests: Iterable[tuple[int, Request]], window: int = WINDOW) -> Iterator[tuple[int, Answer]]:
    """Each request's number and answer, in the order in which they end. `requests` is read as places become free."""
    source = iter(requests)
    flights: dict[socket.socket, _Flight] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(flights) < window and (item := next(source, None)) is not None:
                    number, request = item
                    yield from _begun(_Flight(number, request), flights, selector)
                if not flights:
                    return
                soonest = min(flight.deadline for flight in flights.values())
                for key, _ in selector.select(max(0.0, soonest - time.monotonic())):
                    flight = flights[key.fileobj]  # type: ignore[index]
                    answer = flight.proceed(selector)
                    if answer is not None:
                        yield from _ended(flight, answer, flights, selector)
                now = time.monotonic()
                for flight in [flight for flight in flights.values() if flight.deadline <= now]:
                    yield from _ended(flight, flight.answer("silence"), flights, selector)
        finally:
            for channel in flights:
                channel.close()


class _Flight:
    """A request on its way."""

    _tokens = itertools.count()

    def __init__(self, number: int, request: Request, attempt: int = 1) -> None:
        self.number = number
        self.request = request
        self.attempt = attempt
        self.token = f"{os.getpid()}.{next(self._tokens)}"
        self.began = time.monotonic()
        self.deadline = self.began + patience(request.timeout)
        self.channel = opened(request.netns, request.transport, family_of(request.address))
        self.connected = False
        self.received = b""
        self.own: Sequence[Any] = ("", 0)

    def begin(self) -> Answer | None:
        """Send it, or begin to connect; an answer if that failed at once."""
        request = self.request
        self.channel.setblocking(False)
        try:
            if request.source:
                self.channel.bind((request.source, 0))
            self.channel.connect((request.address, request.port))
        except BlockingIOError:
            return None
        except OSError as problem:
            return self.failed(problem.errno or 0)
        return self._send()

    def proceed(self, selector: selectors.BaseSelector) -> Answer | None:
        """The socket can be read, or written to."""
        if not self.connected:
            number = self.channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                return self.failed(number)
            answer = self._send()
            if answer is None:
                selector.modify(self.channel, selectors.EVENT_READ)
            return answer
        try:
            data = self.channel.recv(BUFFER)
        except BlockingIOError:
            return None
        except OSError as problem:
            return self.failed(problem.errno or 0)
        if self.request.transport == "udp":
            return self._read(data) if len(data) >= self.request.size else None
        if not data:
            return self.answer("broken", error="closed before it answered")
        self.received += data
        return self._read(self.received) if self.received.endswith(b"\n") else None

    def _send(self) -> Answer | None:
        line = f"{self.token}\n".encode()
        if self.request.transport == "udp":
            line = line.ljust(self.request.size, b".")
        self.connected = True
        try:
            self.own = self.channel.getsockname()
            self.channel.send(line)
        except OSError as problem:
            return self.failed(problem.errno or 0)
        return None

    def _read(self, data: bytes) -> Answer | None:
        said = json.loads(data)
        if said["token"] != self.token:
            return None
        return self.answer("answered", name=said["name"], source=said["source"], source_port=said["port"])

    def failed(self, number: int) -> Answer:
        """The kernel's word for it."""
        if number == errno.ECONNREFUSED:
            outcome = "refused"
        elif number in _UNREACHABLE or number == errno.EACCES:
            outcome = "unreachable"
        elif number in (errno.ETIMEDOUT,):
            outcome = "silence"
        elif number in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
            outcome = "broken"
        else:
            outcome = "error"
        return self.answer(outcome, error=os.strerror(number))

    def answer(self, outcome: str, **fields: Any) -> Answer:
        return Answer(
            outcome,
            own=str(self.own[0]),
            own_port=int(self.own[1]),
            attempts=self.attempt,
            began=self.began,
            ended=time.monotonic(),
            token=self.token,
            **fields,
        )


def _begun(
    flight: _Flight, flights: dict[socket.socket, _Flight], selector: selectors.BaseSelector
) -> Iterator[tuple[int, Answer]]:
    answer = flight.begin()
    flights[flight.channel] = flight
    selector.register(
        flight.channel, selectors.EVENT_READ if flight.connected else selectors.EVENT_WRITE, flight
    )
    if answer is not None:
        yield from _ended(flight, answer, flights, selector)


def _ended(
    flight: _Flight,
    answer: Answer,
    flights: dict[socket.socket, _Flight],
    selector: selectors.BaseSelector,
) -> Iterator[tuple[int, Answer]]:
    del flights[flight.channel]
    selector.unregister(flight.channel)
    flight.channel.close()
    if answer.outcome == "silence" and flight.attempt < flight.request.attempts:
        yield from _begun(_Flight(flight.number, flight.request, flight.attempt + 1), flights, selector)
    else:
        yield flight.number, answer


class Conversation:
    """One connection, or one UDP socket, that is asked again and again."""

    def __init__(self, request: Request, source_port: int = 0) -> None:
        self._request = request
        self._numbers = itertools.count()
        self._channel = opened(request.netns, request.transport, family_of(request.address))
        self._channel.settimeout(patience(request.timeout))
        if source_port:
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source_port or request.source:
            self._channel.bind((request.source, source_port))
        try:
            self._channel.connect((request.address, request.port))
        except BaseException:
            self._channel.close()
            raise

    def ask(self) -> dict[str, Any]:
        """The server's answer. TimeoutError, or ConnectionError as the kernel tells it."""
        token = f"{os.getpid()}.c{next(self._numbers)}"
        line = f"{token}\n".encode()
        self._channel.send(line.ljust(self._request.size, b".") if self._request.transport == "udp" else line)
        received = b""
        while True:
            data = self._channel.recv(BUFFER)
            if not data:
                raise ConnectionResetError("closed before it answered")
            received = data if self._request.transport == "udp" else received + data
            if self._request.transport == "udp" or received.endswith(b"\n"):
                said: dict[str, Any] = json.loads(received)
                if said["token"] == token:
                    return said

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Load:
    """A process that asks all the time: each request in turn, again and again, until told to end."""

    def __init__(self, requests: Sequence[Request], window: int, output: Path) -> None:
        self._output = output
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "tests.lab.service_clients", "load"],
                stdin=subprocess.PIPE,
                stdout=stdout,
                text=True,
                cwd=TREE,
            )
        assert self._process.stdin is not None
        plan = {"requests": [asdict(one) for one in requests], "window": window}
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()

    def end(self) -> list[tuple[Request, Answer]]:
        """Let what is on its way come to its end; everything that was asked, in the order in which it ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(patience(60)) != 0:
            raise OSError(f"the load's process ended with {self._process.returncode}")
        found = []
        with self._output.open(encoding="utf-8") as lines:
            for line in lines:
                request, answer = json.loads(line)
                found.append((Request(**request), Answer(**answer)))
        return found

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _load(control: int) -> None:
    """Carry out one plan; the end of stdin ends it."""
    plan = json.loads(_first_line(control))
    requests = [Request(**fields) for fields in plan["requests"]]
    os.set_blocking(control, False)

    def until_told() -> Iterator[tuple[int, Request]]:
        for number in itertools.cycle(range(len(requests))):
            with suppress(BlockingIOError):
                if not os.read(control, BUFFER):
                    return
            yield number, requests[number]

    for number, answer in asking(until_told(), plan["window"]):
        sys.stdout.write(json.dumps([asdict(requests[number]), asdict(answer)]) + "\n")


def _try() -> None:
    """Serve and ask in one process: for a machine on which starting one takes seconds."""
    plan = json.load(sys.stdin)
    server = Server()
    for fields in plan["listeners"]:
        server.add(Listener(**fields))
    reading, writing = os.pipe()
    serving = threading.Thread(target=server.run, args=(reading,))
    serving.start()
    try:
        answers = ask(*(Request(**fields) for fields in plan["requests"]), window=plan["window"])
    finally:
        os.close(writing)
        serving.join()
    print(json.dumps([asdict(answer) for answer in answers]))


def _first_line(control: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(control, 1)
        if not data:
            raise EOFError("stdin ended before the plan did")
        line += data
    return line


def main() -> None:
    verb = sys.argv[1]
    if verb == "load":
        _load(sys.stdin.fileno())
    elif verb == "try":
        _try()
    else:
        raise SystemExit(f"{verb}: load or try")


if __name__ == "__main__":
    main()
