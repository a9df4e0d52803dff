# SPDX-License-Identifier: Apache-2.0
"""The agent over gRPC while its verbs wait for something: all the rest answers."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.cni.request import Call
from agent.grpcserver import WAITING, AgentService, GrpcServer
from agent.state import State
from sdn.v1 import agent_pb2, agent_pb2_grpc, inspection_pb2, inspection_pb2_grpc

PARALLEL = 2
CONFIG = b'{"cniVersion": "0.4.0"}'
#: A call that waits for a thread waits for ever: this is how long the test does.
PATIENCE = 60.0


class Agent:
    """Serves; every verb waits for `go_on`."""

    def __init__(self, folder: Path) -> None:
        self.go_on = threading.Event()
        self.at_work = threading.Semaphore(0)
        self.most = 0
        self.awaited: list[bool] = []
        self._now = 0
        self._lock = threading.Lock()
        nothing: Any = SimpleNamespace(
            facts=None,
            assignment=None,
            changed_at=datetime.now(UTC),
            controller=("", ""),
            usage=list,
            is_programmed=lambda _record: False,
        )
        self._state = State(folder)
        service = AgentService(self.answer, self._state, nothing, nothing, nothing, PARALLEL)
        self._server = GrpcServer(folder / "grpc.sock", service, PARALLEL)
        self._server.start()
        self.channel = grpc.insecure_channel(f"unix:{folder}/grpc.sock")
        self.verbs = agent_pb2_grpc.AgentStub(self.channel)

    def answer(self, call: Call) -> tuple[int, bytes]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.at_work.release()
        self.go_on.wait()
        with self._lock:
            self._now -= 1
            self.awaited.append(call.awaited())
        return 0, call.container_id.encode()

    def begin(self, count: int) -> list[Any]:
        """So many ADDs; as many as may are at work when this returns."""
        begun = [
            self.verbs.Add.future(agent_pb2.CniRequest(container_id=f"c{n}", config=CONFIG))
            for n in range(count)
        ]
        for _ in range(PARALLEL):
            assert self.at_work.acquire(timeout=PATIENCE)
        return begun

    def close(self) -> None:
        self.go_on.set()
        self.channel.close()
        self._server.close()
        self._state.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.close()


@pytest.mark.parametrize("count", [2 * (PARALLEL + 4), PARALLEL + WAITING + 20])
def test_health_state_and_log_level_wait_for_no_verb(agent: Agent, count: int) -> None:
    begun = agent.begin(count)
    health = health_pb2_grpc.HealthStub(agent.channel)
    for _ in range(50):
        time.sleep(0.01)  # Not all verbs have come before the first of these.
        checked = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
    assert not agent.verbs.GetState(agent_pb2.GetStateRequest(), timeout=PATIENCE).connected
    daemon = inspection_pb2_grpc.DaemonStub(agent.channel)
    assert daemon.GetVersion(inspection_pb2.GetVersionRequest(), timeout=PATIENCE).name == "sdn-agent"
    agent.go_on.set()
    assert {one.result(timeout=PATIENCE).code for one in begun} <= {0, 11}


def test_verbs_wait_for_their_turn_and_are_all_answered(agent: Agent) -> None:
    begun = agent.begin(PARALLEL + WAITING)
    agent.go_on.set()
    answers = [one.result(timeout=PATIENCE) for one in begun]
    assert [(answer.code, answer.output) for answer in answers] == [
        (0, f"c{number}".encode()) for number in range(PARALLEL + WAITING)
    ]
    assert agent.most == PARALLEL


def test_what_is_more_than_can_wait_is_to_be_tried_again(agent: Agent) -> None:
    begun = agent.begin(PARALLEL + WAITING + 3)
    first = [one.result(timeout=PATIENCE) for one in itertools.islice(as_they_end(begun), 3)]
    assert {answer.code for answer in first} == {11}
    assert json.loads(first[0].output) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "ADD: too many requests are waiting for this node's agent",
    }
    agent.go_on.set()
    assert sorted(one.result(timeout=PATIENCE).code for one in begun) == [0] * (PARALLEL + WAITING) + [11] * 3
    assert agent.verbs.Del(agent_pb2.CniRequest(), timeout=PATIENCE).code == 0


def test_what_removes_or_looks_waits_for_nothing_that_is_made(agent: Agent) -> None:
    """Nor is it refused since others are too many: a runtime may not ask for it again."""
    begun = agent.begin(PARALLEL + WAITING + 3)
    refused = [one.result(timeout=PATIENCE).code for one in itertools.islice(as_they_end(begun), 3)]
    assert refused == [11] * 3
    removing = [
        agent.verbs.Del.future(agent_pb2.CniRequest(container_id=f"d{n}", config=CONFIG))
        for n in range(PARALLEL)
    ]
    looking = [agent.verbs.Check.future(agent_pb2.CniRequest(config=CONFIG)) for _ in range(PARALLEL)]
    for _ in (*removing, *looking):
        assert agent.at_work.acquire(timeout=PATIENCE)
    agent.go_on.set()
    assert [one.result(timeout=PATIENCE).code for one in (*removing, *looking)] == [0] * 2 * PARALLEL
    assert sorted(one.result(timeout=PATIENCE).code for one in begun) == [0] * (PARALLEL + WAITING) + refused


def as_they_end(begun: list[Any]) -> Iterator[Any]:
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for one in begun:
        one.add_done_callback(ended.put)
    while True:
        yield ended.get(timeout=PATIENCE)


def test_a_verb_whose_caller_has_gone_before_its_turn_is_not_done(agent: Agent) -> None:
    for one in agent.begin(PARALLEL + 3):
        one.cancel()
    # The server has heard of it when it answers what was said later.
    agent.verbs.GetState(agent_pb2.GetStateRequest(), timeout=PATIENCE)
    agent.go_on.set()
    answer = agent.verbs.Del(agent_pb2.CniRequest(container_id="after"), timeout=PATIENCE)
    assert answer.output == b"after"
    assert agent.at_work.acquire(timeout=0)
    assert not agent.at_work.acquire(timeout=0), "only the last one was done beside those at work"
    deadline = time.monotonic() + PATIENCE
    while len(agent.awaited) <= PARALLEL and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(agent.awaited) == [False] * PARALLEL + [True]
