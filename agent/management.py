# SPDX-License-Identifier: Apache-2.0
"""A connection to the management socket of the node's own bridge: OpenFlow without being a controller.

Open vSwitch lets whoever may open the socket do everything, whatever role a controller has.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sdn.openflow import CodecError, Framer, barrier_request, decode_error, decode_header
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPT_BARRIER_REPLY,
    OFPT_ECHO_REPLY,
    OFPT_ECHO_REQUEST,
    OFPT_ERROR,
    OFPT_HELLO,
    OFPT_MULTIPART_REPLY,
)

_CONNECT_SECONDS: Final = 2.0
#: A switch that is busy with many flows answers late.
_ANSWER_SECONDS: Final = 60.0
_CHUNK: Final = 1 << 18
#: Bytes of one answer: a million flows of 500 bytes. Clearly more than may be kept of one (`agent.alone.image`), which
#: leaves out statistics: what is too much for that is to be told there.
_MAX_ANSWER: Final = 1 << 29


class LocalSwitchError(Exception):
    """The switch is not there, does not answer, or answers what cannot be understood."""


class Management(ABC):
    """One connection, until it breaks. For one thread. LocalSwitchError from everything.

    What the switch tells by itself, between answers too, goes to :meth:`notice`.
    """

    def __init__(self, path: Path, subscribe: Callable[[int], bytes]) -> None:
        """``path`` is the socket; ``subscribe`` makes the requests to be told of something, given a transaction id."""
        self._framer = Framer()
        self._pending: deque[bytes] = deque()
        self._xid = 0
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as problem:  # no descriptor is free
            raise LocalSwitchError(f"{path}: {problem}") from None
        try:
            self._socket.settimeout(_CONNECT_SECONDS)
            self._socket.connect(str(path))
            self.send(HEADER.pack(OFP_VERSION, OFPT_HELLO, HEADER.size, 0))
            hello = decode_header(self._receive(time.monotonic() + _ANSWER_SECONDS))
            if hello.type != OFPT_HELLO:
                raise LocalSwitchError(f"message type {hello.type} in place of a hello on {path}")
            self.send(subscribe(self.next_xid()))
            self.ask(b"")
        except OSError as problem:
            self.close()
            raise LocalSwitchError(f"{path}: {problem}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def notice(self, message: bytes) -> bool:
        """Take what the switch tells by itself; False: it is an answer. CodecError."""

    def wait(self, told: Callable[[], bool], seconds: float) -> None:
        """Take notices until they are what is waited for; so long at most."""
        deadline = time.monotonic() + seconds
        while not told() and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(_CHUNK)
            except TimeoutError:
                break
            except OSError as problem:
                raise LocalSwitchError(str(problem)) from None
            self._take(data)
        # Whatever comes outside of an answer is a notice, or nothing that concerns us.
        self._pending.clear()

    def next_xid(self) -> int:
        """A transaction id."""
        self._xid += 1
        return self._xid

    def send(self, data: bytes) -> None:
        """Whole messages."""
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.sendall(data)
        except OSError as problem:
            raise LocalSwitchError(str(problem)) from None

    def answers(self, requests: bytes) -> Iterator[bytes]:
        """The multipart replies to requests. LocalSwitchError for an error, or for more than is kept."""
        barrier = self.next_xid()
        self.send(requests + barrier_request(barrier))
        received = 0
        while True:
            message = self.next_answer()
            kind, xid = message[1], decode_header(message).xid
            received += len(message)
            if received > _MAX_ANSWER:
                raise LocalSwitchError(f"the switch describes more than {_MAX_ANSWER} bytes of entries")
            if kind == OFPT_BARRIER_REPLY and xid == barrier:
                return
            if kind == OFPT_ERROR:
                raise LocalSwitchError(f"the switch refused: {decode_error(message)}")
            if kind == OFPT_MULTIPART_REPLY:
                yield message

    def ask(self, requests: bytes) -> list[str]:
        """The errors that come in answer."""
        barrier = self.next_xid()
        self.send(requests + barrier_request(barrier))
        errors: list[str] = []
        while True:
            message = self.next_answer()
            if message[1] == OFPT_BARRIER_REPLY and decode_header(message).xid == barrier:
                return errors
            if message[1] == OFPT_ERROR:
                errors.append(str(decode_error(message)))

    def next_answer(self) -> bytes:
        """The next message that is no notice."""
        return self._receive(time.monotonic() + _ANSWER_SECONDS)

    def _receive(self, deadline: float) -> bytes:
        while not self._pending:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(_CHUNK)
            except OSError as problem:
                raise LocalSwitchError(str(problem) or "no answer") from None
            self._take(data)
        return self._pending.popleft()

    def _take(self, data: bytes) -> None:
        """Sort what has come: answers wait to be taken, notices go where they belong, signs of life are returned."""
        if not data:
            raise LocalSwitchError("the switch ended the connection")
        try:
            for message in self._framer.feed(data):
                if message[1] == OFPT_ECHO_REQUEST:
                    length, xid = decode_header(message)[2:]
                    self.send(HEADER.pack(OFP_VERSION, OFPT_ECHO_REPLY, length, xid) + message[HEADER.size :])
                elif not self.notice(message):
                    self._pending.append(message)
        except CodecError as problem:
            raise LocalSwitchError(f"the switch answers nonsense: {problem}") from None
