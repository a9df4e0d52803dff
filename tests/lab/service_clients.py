# SPDX-License-Identifier: Apache-2.0
"""Who answers, and whom does he see? Servers and clients in many network namespaces, few processes.

A socket belongs for ever to the namespace that it was opened in, so one process serves in all pods and on all nodes,
and one asks from all of them: a thousand requests cost a thousand sockets, not a thousand processes.

    python -S -m tests.lab.service_clients serve     listeners as JSON lines on stdin, until its end
    python -S -m tests.lab.service_clients load      one plan on stdin, one line of JSON on stdout for each request
    python -S -m tests.lab.service_clients try       listeners and requests on stdin, the answers on stdout, the end

A server answers each line (TCP, SCTP) or datagram (UDP) with one JSON object: its name, the client's address and port
as it sees them, and the token that it was asked with. Needs nothing but the standard library and sdn.lab.namespaces.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sdn.lab import namespaces
from sdn.lab.waiting import patience

TREE = Path(__file__).parents[2]
TRANSPORTS = ("tcp", "udp", "sctp")
#: Requests that are on their way at the same time; a switch's first look at a connection is slow.
WINDOW = 48
_IPPROTO_SCTP = 132
_SO_RCVBUFFORCE = 33
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_BUFFER = 1 << 16


@dataclass(frozen=True)
class Listener:
    """Answer as `name` on `address`:`port` inside the namespace `netns`."""

    netns: str
    name: str
    transport: str
    address: str
    port: int


@dataclass(frozen=True)
class Request:
    """Ask once, with a connection and a source port of its own, from inside the namespace `netns`."""

    netns: str
    transport: str
    address: str
    port: int
    #: Bytes of a datagram, for both ways; short ones suffice to hold what is said.
    size: int = 0
    #: Own address to ask from; empty: the kernel chooses.
    source: str = ""
    #: Seconds (stretched) to wait for an answer, and how many times that is tried.
    timeout: float = 2.0
    attempts: int = 3


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    #: "answered", "refused" (TCP reset or ICMP port unreachable at once), "unreachable" (other ICMP errors), "silence"
    #: (nothing came), "broken" (the connection ended without an answer), "error" (the request could not be sent).
    outcome: str
    #: Who answered, and whom he saw.
    name: str = ""
    source: str = ""
    source_port: int = 0
    #: The client's own end.
    own: str = ""
    own_port: int = 0
    attempts: int = 1
    #: When the last attempt began, and ended (time.monotonic(), the same for all processes of a machine).
    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    #: What the last attempt said, by which a server knows it again.
    token: str = ""

    @property
    def seconds(self) -> float:
        """How long the last attempt took."""
        return self.ended - self.began


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(netns: str, transport: str, family: socket.AddressFamily) -> socket.socket:
    """A socket of the namespace."""
    with namespaces.entered(netns):
        if transport == "udp":
            return socket.socket(family, socket.SOCK_DGRAM)
        return socket.socket(family, socket.SOCK_STREAM, _IPPROTO_SCTP if transport == "sctp" else 0)


# Servers.


class Server:
    """All listeners of this process, in one loop."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, list[socket.socket]] = {}
        self._connections: dict[str, set[socket.socket]] = {}
        #: Who received the datagram with which token.
        self._received: dict[str, str] = {}

    def add(self, listener: Listener) -> None:
        """Listen from now on. OSError if the address cannot be had."""
        family = family_of(listener.address)
        channel = opened(listener.netns, listener.transport, family)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if listener.transport == "udp":
                channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
            channel.bind((listener.address, listener.port))
            if listener.transport != "udp":
                channel.listen(4096)
        except BaseException:
            channel.close()
            raise
        channel.setblocking(False)
        kind = "datagram" if listener.transport == "udp" else "listener"
        self._selector.register(channel, selectors.EVENT_READ, (kind, listener.name))
        self._listeners.setdefault(listener.name, []).append(channel)

    def remove(self, name: str) -> None:
        """Close all that belongs to `name`, connections too."""
        for channel in (*self._listeners.pop(name, ()), *self._connections.pop(name, ())):
            self._close(channel)

    def run(self, control: int) -> None:
        """Serve until the file `control` ends; its lines are orders, each acknowledged by a line on stdout."""
        os.set_blocking(control, False)
        self._selector.register(control, selectors.EVENT_READ, ("control", ""))
        orders = b""
        while True:
            for key, _ in self._selector.select():
                kind, name = key.data
                if kind == "control":
                    data = os.read(control, _BUFFER)
                    if not data:
                        return
                    *lines, orders = (orders + data).split(b"\n")
                    for line in lines:
                        print(json.dumps(self._obey(json.loads(line))), flush=True)
                elif kind == "datagram":
                    self._datagrams(key.fileobj, name)  # type: ignore[arg-type]
                elif kind == "listener":
                    self._accept(key.fileobj, name)  # type: ignore[arg-type]
                else:
                    self._lines(key.fileobj, name)  # type: ignore[arg-type]

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        problems = []
        for fields in order.get("listen", ()):
            try:
                self.add(Listener(**fields))
            except OSError as problem:
                problems.append(f"{fields}: {problem}")
        for name in order.get("close", ()):
            self.remove(name)
        found = {token: self._received[token] for token in order.get("seen", ()) if token in self._received}
        return {"problems": problems, "seen": found}

    def _datagrams(self, channel: socket.socket, name: str) -> None:
        for _ in range(64):
            try:
                data, sender = channel.recvfrom(_BUFFER)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier answer
                continue
            token = data.partition(b"\n")[0]
            self._received[token.decode(errors="replace")] = name
            said = _said(name, sender, token)
            with suppress(OSError):  # a client that went, or a full buffer: datagrams may be lost
                channel.sendto(said.ljust(len(data)), sender)

    def _accept(self, listener: socket.socket, name: str) -> None:
        for _ in range(64):
            try:
                channel, _ = listener.accept()
            except (BlockingIOError, ConnectionError, OSError):
                return
            channel.setblocking(False)
            self._connections.setdefault(name, set()).add(channel)
            self._selector.register(channel, selectors.EVENT_READ, ("connection", name))

    def _lines(self, channel: socket.socket, name: str) -> None:
        try:
            data = channel.recv(_BUFFER)
            sender = channel.getpeername()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._connections.get(name, set()).discard(channel)
            self._close(channel)
            return
        with suppress(OSError):  # a client that does not read
            for line in data.splitlines():
                channel.send(_said(name, sender, line) + b"\n")

    def _close(self, channel: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(channel)
        channel.close()


def _said(name: str, sender: Sequence[Any], token: bytes) -> bytes:
    plain = {"name": name, "source": sender[0], "port": sender[1], "token": token.decode(errors="replace")}
    return json.dumps(plain).encode()


class Servers:
    """A server process for the time of a `with` block, told from here where to listen."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-m", "tests.lab.service_clients", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TREE,
        )

    def listen(self, *listeners: Listener) -> None:
        """Listen; OSError tells what could not be had."""
        self._order({"listen": [asdict(one) for one in listeners]})

    def everywhere(self, netns: str, name: str, addresses: Iterable[str], ports: Iterable[int]) -> None:
        """Listen on all these addresses and ports, for TCP and UDP."""
        ports = list(ports)
        self.listen(
            *(
                Listener(netns, name, transport, address, port)
                for address in addresses
                for port in ports
                for transport in ("tcp", "udp")
            )
        )

    def close(self, *names: str) -> None:
        """Close all listeners and connections of these names."""
        self._order({"close": names})

    def seen(self, *tokens: str) -> dict[str, str]:
        """Who received the datagrams with these tokens, whether his answer arrived or not."""
        found: dict[str, str] = self._order({"seen": tokens})["seen"]
        return found

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise OSError(f"the server process ended with {self._process.wait(10)}")
        told: dict[str, Any] = json.loads(answer)
        if told["problems"]:
            raise OSError("; ".join(told["problems"]))
        return told

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


# Clients.


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
            data = self.channel.recv(_BUFFER)
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
            data = self._channel.recv(_BUFFER)
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
                if not os.read(control, _BUFFER):
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
    if verb == "serve":
        Server().run(sys.stdin.fileno())
    elif verb == "load":
        _load(sys.stdin.fileno())
    elif verb == "try":
        _try()
    else:
        raise SystemExit(f"{verb}: serve, load or try")


if __name__ == "__main__":
    main()
