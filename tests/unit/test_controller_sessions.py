# SPDX-License-Identifier: Apache-2.0
"""Questions to an agent over its session, and what becomes of them; and what policies said, on the same way."""

from __future__ import annotations

import asyncio

import pytest

from controller.errors import UnavailableError
from controller.services import questions
from controller.services.sessions import MAX_VERDICTS, AgentSession
from sdn.v1 import controller_pb2, types_pb2

ENDPOINT = controller_pb2.Destination(address="10.244.0.2", port=8080, protocol="TCP")


async def asked(session: AgentSession) -> controller_pb2.CountConnections:
    message = await session.next()
    assert message is not None
    return message.count_connections


def test_questions_are_answered_by_their_numbers() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        first, second = (
            asyncio.create_task(session.questions.count_connections([ENDPOINT], 60)) for _ in range(2)
        )
        numbers = [(await asked(session)).sequence for _ in range(2)]
        for number in reversed(numbers):
            count = controller_pb2.ConnectionCount(endpoint=ENDPOINT, connections=number)
            session.questions.counted(controller_pb2.ConnectionCounts(sequence=number, counts=[count]))
        answers = [(await task).counts[0].connections for task in (first, second)]
        assert answers == numbers
        session.questions.counted(controller_pb2.ConnectionCounts(sequence=numbers[0]))
        session.questions.counted(controller_pb2.ConnectionCounts(sequence=99))

    asyncio.run(run())


def test_an_agent_that_does_not_answer_cannot_or_goes_is_named() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        with pytest.raises(UnavailableError, match=r"the agent of Node node-1 did not answer within 0.01 s"):
            await session.questions.count_connections([ENDPOINT], 0.01)
        late = await asked(session)
        session.questions.counted(controller_pb2.ConnectionCounts(sequence=late.sequence))

        failing = asyncio.create_task(session.questions.count_connections([ENDPOINT], 60))
        question = await asked(session)
        session.questions.counted(
            controller_pb2.ConnectionCounts(sequence=question.sequence, error="no conntrack")
        )
        with pytest.raises(UnavailableError, match="the agent of Node node-1: no conntrack"):
            await failing

        leaving = asyncio.create_task(session.questions.count_connections([ENDPOINT], 60))
        await asked(session)
        session.questions.ended()
        with pytest.raises(UnavailableError, match="the agent of Node node-1 has gone"):
            await leaving

    asyncio.run(run())


def connection(number: int) -> controller_pb2.TrackedConnection:
    return controller_pb2.TrackedConnection(protocol=6, source_port=number)


def part(sequence: int, *numbers: int, **fields: object) -> controller_pb2.Connections:
    return controller_pb2.Connections(sequence=sequence, connections=map(connection, numbers), **fields)


async def listed(session: AgentSession, seconds: float = 60) -> list[int]:
    found = session.questions.list_connections(["10.244.1.0/24", "fd00::/64"], seconds)
    return [each.source_port async for each in found]


async def listing_asked(session: AgentSession) -> int:
    message = await session.next()
    assert message is not None
    assert list(message.list_connections.ranges) == ["10.244.1.0/24", "fd00::/64"]
    return message.list_connections.sequence


def test_connections_are_listed_as_their_parts_come() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        first, second = (asyncio.create_task(listed(session)) for _ in range(2))
        one, two = [await listing_asked(session) for _ in range(2)]
        assert one != two
        session.questions.listed(part(two, 10))
        session.questions.listed(part(one, 1, 2))
        session.questions.listed(part(one))
        session.questions.listed(part(two, last=True))
        assert await second == [10]
        session.questions.listed(part(one, 3, last=True))
        assert await first == [1, 2, 3]
        # Nobody waits for these.
        session.questions.listed(part(one, 4))
        session.questions.listed(part(99, 5, last=True))

    asyncio.run(run())


def test_a_listing_that_is_given_up_is_forgotten() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        listing = session.questions.list_connections([], 60)
        waiting = asyncio.ensure_future(anext(listing))
        await asyncio.sleep(0)
        session.questions.listed(part(1, 1, 2))
        assert (await waiting).source_port == 1
        await listing.aclose()
        assert session.questions._listings == {}

    asyncio.run(run())


def test_an_agent_that_lists_nothing_or_goes_is_named() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        with pytest.raises(UnavailableError, match=r"the agent of Node node-1 did not answer within 0.01 s"):
            await listed(session, 0.01)
        await listing_asked(session)

        failing = asyncio.create_task(listed(session))
        sequence = await listing_asked(session)
        session.questions.listed(part(sequence, 1))
        session.questions.listed(part(sequence, error="no conntrack", last=True))
        with pytest.raises(UnavailableError, match="the agent of Node node-1: no conntrack"):
            await failing

        leaving = asyncio.create_task(listed(session))
        sequence = await listing_asked(session)
        session.questions.listed(part(sequence, 1))
        session.questions.ended()
        with pytest.raises(UnavailableError, match="the agent of Node node-1 has gone"):
            await leaving

    asyncio.run(run())


def test_an_agent_that_lists_without_end_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MAX_LISTED", 10)

    async def run() -> None:
        session = AgentSession("node-1")
        listing = asyncio.create_task(listed(session))
        sequence = await listing_asked(session)
        for _ in range(6):
            session.questions.listed(part(sequence, 1, 2))
        with pytest.raises(UnavailableError, match="node-1 lists more than 10 connections"):
            await listing

    asyncio.run(run())


def verdict(number: int, suppressed: int = 0) -> types_pb2.VerdictRecord:
    return types_pb2.VerdictRecord(source_port=number, suppressed=suppressed)


def test_verdicts_that_wait_go_in_one_message_and_what_is_too_much_is_counted() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        session.send_verdicts([])
        session.send_verdicts([verdict(0)])
        session.send_verdicts([verdict(number) for number in range(1, MAX_VERDICTS + 3)])
        session.send_verdicts([verdict(7, suppressed=5)])
        session.send_peers()
        message = await session.next()
        assert message is not None
        assert [one.source_port for one in message.verdicts.records] == list(range(MAX_VERDICTS))
        message = await session.next()
        assert message is not None
        assert message.HasField("peers")
        late = [verdict(8, suppressed=1), verdict(9)]
        session.send_verdicts(late)
        message = await session.next()
        assert message is not None
        assert [one.suppressed for one in message.verdicts.records] == [1 + 3 + 6, 0]
        # What others have been given is theirs.
        assert [one.suppressed for one in late] == [1, 0]
        assert session.ended_by is None

    asyncio.run(run())


def test_verdicts_that_an_ended_session_did_not_send_are_counted() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        assert session.send_verdicts([verdict(0)])
        assert await session.next() is not None
        assert session.verdicts_unsent == 0
        assert session.send_verdicts([verdict(number, suppressed=1) for number in range(MAX_VERDICTS + 2)])
        session.end()
        assert not session.send_verdicts([verdict(1)])
        assert await session.next() is None
        assert session.verdicts_unsent == 2 * (MAX_VERDICTS + 2)

    asyncio.run(run())
