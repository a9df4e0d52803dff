# SPDX-License-Identifier: Apache-2.0
"""Questions to an agent over its session, and what becomes of them."""

from __future__ import annotations

import asyncio

import pytest

from controller.errors import UnavailableError
from controller.services.sessions import AgentSession
from sdn.v1 import controller_pb2

ENDPOINT = controller_pb2.Destination(address="10.244.0.2", port=8080, protocol="TCP")


async def asked(session: AgentSession) -> controller_pb2.CountConnections:
    message = await session.next()
    assert message is not None
    return message.count_connections


def test_questions_are_answered_by_their_numbers() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        first, second = (asyncio.create_task(session.count_connections([ENDPOINT], 60)) for _ in range(2))
        numbers = [(await asked(session)).sequence for _ in range(2)]
        for number in reversed(numbers):
            count = controller_pb2.ConnectionCount(endpoint=ENDPOINT, connections=number)
            session.answered(controller_pb2.ConnectionCounts(sequence=number, counts=[count]))
        answers = [(await task).counts[0].connections for task in (first, second)]
        assert answers == numbers
        session.answered(controller_pb2.ConnectionCounts(sequence=numbers[0]))
        session.answered(controller_pb2.ConnectionCounts(sequence=99))

    asyncio.run(run())


def test_an_agent_that_does_not_answer_cannot_or_goes_is_named() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        with pytest.raises(UnavailableError, match=r"the agent of Node node-1 did not answer within 0.01 s"):
            await session.count_connections([ENDPOINT], 0.01)
        late = await asked(session)
        session.answered(controller_pb2.ConnectionCounts(sequence=late.sequence))

        failing = asyncio.create_task(session.count_connections([ENDPOINT], 60))
        question = await asked(session)
        session.answered(controller_pb2.ConnectionCounts(sequence=question.sequence, error="no conntrack"))
        with pytest.raises(UnavailableError, match="the agent of Node node-1: no conntrack"):
            await failing

        leaving = asyncio.create_task(session.count_connections([ENDPOINT], 60))
        await asked(session)
        session.closed()
        with pytest.raises(UnavailableError, match="the agent of Node node-1 has gone"):
            await leaving

    asyncio.run(run())
