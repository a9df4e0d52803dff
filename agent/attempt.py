# SPDX-License-Identifier: Apache-2.0
"""One stream to one controller: what is to be sent on it, and whether it still belongs where it is."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from agent.owners import View
from sdn.v1 import controller_pb2 as messages


class Stream:
    """What is to be sent on one stream."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[messages.AgentMessage | None] = queue.SimpleQueue()
        self._ended = False

    def send(self, message: messages.AgentMessage) -> bool:
        """Queue a message; False: the stream has ended."""
        if not self._ended:
            self._queue.put(message)
        return not self._ended

    def waiting(self) -> int | None:
        """How many messages wait to be sent; None: the stream has ended."""
        return None if self._ended else self._queue.qsize()

    def end(self) -> None:
        self._ended = True
        self._queue.put(None)

    def messages(self) -> Iterator[messages.AgentMessage]:
        while (message := self._queue.get()) is not None:
            yield message


@dataclass(eq=False)
class Attempt:
    """One stream, from the choice of its controller on.

    generation  of the owner as it was known then
    name        the controller's own, once it has welcomed us
    moved       ended from here, because the stream belongs elsewhere
    """

    target: str
    generation: int
    call: grpc.Call | None = None
    name: str = ""
    welcomed: bool = False
    moved: bool = False

    def misplaced(self, view: View) -> bool:
        """Whether the stream belongs elsewhere, by what is known now."""
        owner = view.owner
        if owner.controller and owner.generation > self.generation:
            return owner.address != self.target and owner.controller != self.name
        if self.welcomed or owner.controller:
            return False
        return bool(view.answering) and self.target not in view.answering
