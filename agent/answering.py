# SPDX-License-Identifier: Apache-2.0
"""Answers to a controller's questions, one question at a time, beside the stream that they came by.

To read the switch's connections takes a second or two where there are many, and a controller asks whenever somebody
asks it. So only a few questions wait; of more each is refused at once, which the controller tells whoever asked. One
that nobody waits for any longer, since its time is up or its stream has ended, is left out. The datapath is refreshed
on a thread of its own: policies wait for it, and no question holds it up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from sdn import logs
from sdn.v1 import controller_pb2 as messages

log: Final = logs.get("agent.answering")

QUESTIONS: Final = ("count_connections", "list_connections", "refresh_datapath")
#: Questions that wait for the one that is answered.
WAITING: Final = 8
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
    """The threads that answer. Whoever asks again meanwhile waits, or is refused."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._questions = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._refreshes = ThreadPoolExecutor(1, thread_name_prefix="refreshes")
        self._room = threading.Semaphore(WAITING)
        #: Whether the last question was refused; for the one thread that asks.
        self._full = False
        #: One that asks the datapath to be refreshed waits already.
        self._refresh_waits = threading.Event()
        self._stop = threading.Event()

    def close(self) -> None:
        """Answer nothing any more."""
        self._stop.set()
        for pool in (self._questions, self._refreshes):
            pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, question: messages.ControllerMessage, stream: Stream) -> None:
        """Answer on the stream that the question came by; nobody waits for it on another one."""
        if question.HasField("refresh_datapath"):
            if self._refresh_waits.is_set():
                return  # One that waits does for all.
            self._refresh_waits.set()
            answered = self._refreshes.submit(self._refresh, question)
        elif self._room.acquire(blocking=False):
            self._full = False
            answered = self._questions.submit(self._take, question, stream, time.monotonic())
        else:
            if not self._full:
                log.warning("too many questions: refused until there is room", waiting=WAITING)
            self._full = True
            stream.send(_refused(question, f"{WAITING} questions wait for an answer already"))
            return
        answered.add_done_callback(_tell_defect)

    def _refresh(self, question: messages.ControllerMessage) -> None:
        self._refresh_waits.clear()
        for _ in self._answers(question):
            pass  # It is done by now, and nobody waits for an answer.

    def _take(self, question: messages.ControllerMessage, stream: Stream, asked_at: float) -> None:
        self._room.release()
        patience = _patience(question)
        if stream.waiting() is None or (patience and time.monotonic() - asked_at >= patience):
            log.debug("nobody waits for this answer any longer", question=question.WhichOneof("message"))
            return
        self._answer(question, stream)

    def _answer(self, question: messages.ControllerMessage, stream: Stream) -> None:
        for answer in self._answers(question):
            while (stream.waiting() or 0) >= _WAITING_ANSWERS:
                if self._stop.wait(_ROOM_SECONDS):
                    return
            if not stream.send(answer):
                return


def _patience(question: messages.ControllerMessage) -> float:
    """For how many seconds the controller waits for an answer to begin; 0: it does not say."""
    if question.HasField("count_connections"):
        return question.count_connections.patience_ms / 1000
    return question.list_connections.patience_ms / 1000


def _refused(question: messages.ControllerMessage, why: str) -> messages.AgentMessage:
    if question.HasField("count_connections"):
        counts = messages.ConnectionCounts(sequence=question.count_connections.sequence, error=why)
        return messages.AgentMessage(connection_counts=counts)
    none = messages.Connections(sequence=question.list_connections.sequence, error=why, last=True)
    return messages.AgentMessage(connections=none)


def _tell_defect(answered: Future[None]) -> None:
    """A question that made us fail; whoever asked waits in vain, until its time is up."""
    if not answered.cancelled() and (problem := answered.exception()) is not None:
        log.error("question not answered", exc_info=problem)
