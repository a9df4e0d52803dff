# SPDX-License-Identifier: Apache-2.0
"""The questions that an agent answers: a few wait, more are refused, and none is answered that nobody waits for."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.answering import WAITING, Answering
from agent.attempt import Stream
from controller.errors import UnavailableError
from controller.services.questions import Questions
from sdn.v1 import controller_pb2 as messages

LONG = 60.0

Ask = Callable[..., messages.ControllerMessage]


class Datapath:
    """Answers by the sequence number when it is let."""

    def __init__(self) -> None:
        self.began: queue.Queue[int] = queue.Queue()
        self.refreshed = threading.Event()
        self._go = threading.Semaphore(0)

    def answers(self, question: messages.ControllerMessage) -> Iterator[messages.AgentMessage]:
        if question.HasField("refresh_datapath"):
            self.refreshed.set()
            return
        listed = question.HasField("list_connections")
        sequence = question.list_connections.sequence if listed else question.count_connections.sequence
        self.began.put(sequence)
        assert self._go.acquire(timeout=LONG)
        if listed:
            yield messages.AgentMessage(connections=messages.Connections(sequence=sequence, last=True))
        else:
            yield messages.AgentMessage(connection_counts=messages.ConnectionCounts(sequence=sequence))

    def let(self, count: int) -> None:
        self._go.release(count)


@pytest.fixture
def datapath() -> Datapath:
    return Datapath()


@pytest.fixture
def answering(datapath: Datapath) -> Iterator[Answering]:
    made = Answering(datapath.answers)
    yield made
    datapath.let(1000)
    made.close()


def count(sequence: int, patience_ms: int = 0) -> messages.ControllerMessage:
    return messages.ControllerMessage(
        count_connections=messages.CountConnections(sequence=sequence, patience_ms=patience_ms)
    )


def listing(sequence: int, patience_ms: int = 0) -> messages.ControllerMessage:
    return messages.ControllerMessage(
        list_connections=messages.ListConnections(sequence=sequence, patience_ms=patience_ms)
    )


def busy(answering: Answering, datapath: Datapath, stream: Stream) -> None:
    """Question 0 is being answered."""
    answering.ask(count(0), stream)
    assert datapath.began.get(timeout=LONG) == 0


def answered(stream: Stream, number: int) -> list[tuple[int, str]]:
    """Sequence numbers and errors of so many answers, as they came."""
    said = []
    sent = stream.messages()
    for _ in range(number):
        message = next(sent)
        counted = message.HasField("connection_counts")
        answer = message.connection_counts if counted else message.connections
        assert counted or message.connections.last
        said.append((answer.sequence, answer.error))
    return said


def test_more_questions_than_a_few_are_refused_at_once_and_not_answered(
    answering: Answering, datapath: Datapath
) -> None:
    stream = Stream()
    busy(answering, datapath, stream)
    for number in range(1, WAITING + 1):
        answering.ask(count(number), stream)
    answering.ask(count(100), stream)
    answering.ask(listing(101), stream)
    (first, why), (second, _) = answered(stream, 2)
    assert (first, second) == (100, 101)
    assert why == f"{WAITING} questions wait for an answer already"
    datapath.let(WAITING + 1)
    assert answered(stream, WAITING + 1) == [(number, "") for number in range(WAITING + 1)]
    # There is room again.
    datapath.let(1)
    answering.ask(listing(102), stream)
    assert answered(stream, 1) == [(102, "")]
    assert [datapath.began.get(timeout=LONG) for _ in range(WAITING + 1)] == [*range(1, WAITING + 1), 102]


@pytest.mark.parametrize("ask", [count, listing])
def test_a_question_that_nobody_waits_for_any_longer_is_left_out(
    answering: Answering, datapath: Datapath, ask: Ask
) -> None:
    stream, ended = Stream(), Stream()
    busy(answering, datapath, stream)
    answering.ask(ask(1, 20), stream)
    answering.ask(ask(2, 60_000), stream)
    answering.ask(ask(3), ended)
    answering.ask(ask(4), stream)
    ended.end()
    time.sleep(0.05)
    datapath.let(3)
    assert [sequence for sequence, _ in answered(stream, 3)] == [0, 2, 4]
    assert [datapath.began.get(timeout=LONG) for _ in range(2)] == [2, 4]


def test_the_datapath_is_refreshed_while_questions_wait(answering: Answering, datapath: Datapath) -> None:
    stream = Stream()
    busy(answering, datapath, stream)
    answering.ask(count(1), stream)
    answering.ask(
        messages.ControllerMessage(refresh_datapath=messages.RefreshDatapath()),
        stream,
    )
    assert datapath.refreshed.wait(LONG)
    datapath.let(2)
    assert answered(stream, 2) == [(0, ""), (1, "")]


def test_an_agent_is_told_for_how_long_it_is_waited_for() -> None:
    sent: list[messages.ControllerMessage] = []

    async def ask() -> None:
        questions = Questions("node-1", sent.append)
        with pytest.raises(UnavailableError):
            await questions.count_connections([], 0.05)
        with pytest.raises(UnavailableError):
            await anext(questions.list_connections([], 0.06))

    asyncio.run(ask())
    assert [sent[0].count_connections.patience_ms, sent[1].list_connections.patience_ms] == [50, 60]


def test_what_an_agent_refuses_is_told_to_whoever_asked(answering: Answering, datapath: Datapath) -> None:
    stream = Stream()
    busy(answering, datapath, stream)
    for number in range(WAITING):
        answering.ask(count(1000 + number), stream)

    async def ask() -> None:
        questions = Questions("node-1", lambda question: answering.ask(question, stream))
        counting = asyncio.ensure_future(questions.count_connections([], LONG))
        await asyncio.sleep(0)
        questions.counted(next(stream.messages()).connection_counts)
        with pytest.raises(UnavailableError, match="agent of Node node-1: 8 questions wait"):
            await counting

    asyncio.run(ask())
