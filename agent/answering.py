# SPDX-License-Identifier: Apache-2.0
"""Answers to a controller's questions, one question at a time, beside the stream that they came by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from sdn import logs
from sdn.v1 import controller_pb2 as messages

log: Final = logs.get("agent.answering")

QUESTIONS: Final = ("count_connections", "list_connections", "refresh_datapath")
#: Of an answer in many messages so many may wait to be sent; more is made when there is room, looked for this often.
_WAITING_ANSWERS: Final = 2
_ROOM_SECONDS: Final = 0.02

#: Answers a question of the controller's, message by message; it may take seconds.
Answers = Callable[[messages.ControllerMessage], Iterator[messages.AgentMessage]]


class Stream(Protocol):
    """Where answers go."""

    def waiting(self) -> int | None:
        """How many messages wait to be sent; None: the stream has ended."""

    def send(self, message: messages.AgentMessage) -> bool:
        """Queue a message; False: the stream has ended."""


class Answering:
    """The thread that answers. Whoever asks again meanwhile waits."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="answers")
        #: One that asks the datapath to be refreshed waits already.
        self._refresh_waits = threading.Event()
        self._stop = threading.Event()

    def close(self) -> None:
        """Answer nothing any more."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, question: messages.ControllerMessage, stream: Stream) -> None:
        """Answer on the stream that the question came by; nobody waits for it on another one."""
        if question.HasField("refresh_datapath"):
            if self._refresh_waits.is_set():
                return  # One that waits does for all.
            self._refresh_waits.set()
        self._pool.submit(self._answer, question, stream).add_done_callback(_tell_defect)

    def _answer(self, question: messages.ControllerMessage, stream: Stream) -> None:
        if question.HasField("refresh_datapath"):
            self._refresh_waits.clear()
        for answer in self._answers(question):
            while (stream.waiting() or 0) >= _WAITING_ANSWERS:
                if self._stop.wait(_ROOM_SECONDS):
                    return
            if not stream.send(answer):
                return


def _tell_defect(answered: Future[None]) -> None:
    """A question that made us fail; whoever asked waits in vain, until its time is up."""
    if not answered.cancelled() and (problem := answered.exception()) is not None:
        log.error("question not answered", exc_info=problem)
