# SPDX-License-Identifier: Apache-2.0
"""The plugin's socket: who waits for whom, while more ask than can be answered, and while the process has nothing left
to give.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.cni.request import Call
from agent.server import WAITING, Server

PATIENCE = 60.0
PARALLEL = 2
ANSWER = (0).to_bytes(4, "big") + b"fine"

#: Serves, and takes each descriptor that it may have (32); gives them back, and answers, when it is told to.
STARVED = """
import os, resource, sys, threading
from pathlib import Path
from agent.alone.switch import LocalSwitch
from agent.management import LocalSwitchError
from agent.server import Server

go_on = threading.Event()
server = Server(Path(sys.argv[1]), lambda _call: (0, b"fine" if go_on.wait(60) else b""), 2)
server.start()
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    LocalSwitch(Path("/nowhere"))
except LocalSwitchError as problem:
    print(problem, flush=True)
sys.stdin.readline()
for descriptor in taken:
    os.close(descriptor)
go_on.set()
sys.stdin.readline()
server.close()
"""


@pytest.fixture
def starved(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Serves on tmp_path/agent.sock, without a free descriptor."""
    command = [sys.executable, "-c", STARVED, str(tmp_path / "agent.sock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def told(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def request(verb: str) -> bytes:
    variables = f"CNI_COMMAND={verb}".encode()
    return b"CNI1" + len(variables).to_bytes(4, "big") + (2).to_bytes(4, "big") + variables + b"{}"


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        yield connection


@contextmanager
def asking(path: Path, verb: str = "STATUS") -> Iterator[socket.socket]:
    with connected(path) as connection:
        connection.sendall(request(verb))
        yield connection


def answer(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1000), b""))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Agent:
    """Serves; each ADD waits for `go_on`, and all else is answered at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.sock"
        self.go_on = threading.Event()
        self.at_work = threading.Semaphore(0)
        self.awaited: list[bool] = []
        self.server = Server(self.path, self.answer, PARALLEL)
        self.server.start()

    def answer(self, call: Call) -> tuple[int, bytes]:
        if call.verb == "ADD":
            self.at_work.release()
            self.go_on.wait(PATIENCE)
            self.awaited.append(call.awaited())
        return 0, b"fine"

    def begin(self, stack: ExitStack, count: int) -> list[socket.socket]:
        """So many ADDs, all of them taken up; as many as may are at work."""
        begun = [stack.enter_context(asking(self.path, "ADD")) for _ in range(count)]
        for _ in range(PARALLEL):
            assert self.at_work.acquire(timeout=PATIENCE)
        wait_until(lambda: taken_up(self.path.parent) >= min(count, PARALLEL + WAITING))
        return begun


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.go_on.set()
    agent.server.close()


def test_a_process_without_a_free_descriptor_answers_when_it_has_one(
    starved: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert starved.stdout is not None
    assert starved.stdout.readline() == "/nowhere: [Errno 24] Too many open files\n"
    # The kernel keeps a descriptor for whoever waits in accept, so the first one is let in.
    with asking(tmp_path / "agent.sock") as first, asking(tmp_path / "agent.sock") as second:
        second.settimeout(0.5)
        with pytest.raises(TimeoutError):
            second.recv(1)
        told(starved, "\n")
        second.settimeout(60)
        assert answer(first) == answer(second) == ANSWER
    told(starved, "\n")
    assert starved.wait(60) == 0


def test_what_is_more_than_can_wait_is_to_be_tried_again_and_all_else_is_answered(agent: Agent) -> None:
    with ExitStack() as stack:
        begun = agent.begin(stack, PARALLEL + WAITING + 1)
        (refused,), _, _ = select.select(begun, [], [], PATIENCE)
        told = answer(refused)
        assert int.from_bytes(told[:4], "big") == 11
        assert json.loads(told[4:])["msg"] == "ADD: too many requests are waiting for this node's agent"
        agent.go_on.set()
        others = [answer(connection) for connection in begun if connection is not refused]
        assert others == [ANSWER] * (PARALLEL + WAITING)
        with asking(agent.path, "ADD") as after:
            assert answer(after) == ANSWER


@pytest.mark.parametrize("verb", ["DEL", "GC", "CHECK", "STATUS", "VERSION"])
def test_what_removes_or_looks_waits_for_nothing_that_is_made(agent: Agent, verb: str) -> None:
    with ExitStack() as stack:
        begun = agent.begin(stack, PARALLEL + 20)
        with asking(agent.path, verb) as other:
            assert answer(other) == ANSWER
        agent.go_on.set()
        assert [answer(connection) for connection in begun] == [ANSWER] * len(begun)


def test_a_plugin_that_has_gone_does_not_wait_any_more(agent: Agent) -> None:
    with ExitStack() as stack:
        first, *_others = agent.begin(stack, PARALLEL)
        first.close()
        agent.go_on.set()
        wait_until(lambda: len(agent.awaited) == PARALLEL)
        assert sorted(agent.awaited) == [False, True]


def test_a_plugin_that_says_nothing_more_waits_all_the_same(agent: Agent) -> None:
    with asking(agent.path, "ADD") as connection:
        connection.shutdown(socket.SHUT_WR)
        agent.go_on.set()
        assert answer(connection) == ANSWER
        assert agent.awaited == [True]


def test_at_the_end_what_waits_to_be_made_is_left_to_the_next_agent(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    with ExitStack() as stack:
        begun = agent.begin(stack, PARALLEL + 3)
        closing = threading.Thread(target=agent.server.close)
        closing.start()
        wait_until(lambda: not agent.path.exists())
        agent.go_on.set()
        closing.join()
        assert sorted(answer(connection) for connection in begun) == [b""] * 3 + [ANSWER] * PARALLEL


def test_a_request_that_does_not_end_is_given_up(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.server._PEER_SECONDS", 0.5)
    with connected(agent.path) as connection:
        connection.sendall(b"CNI1" + (1 << 20).to_bytes(4, "big") + bytes(4))

        def ended() -> bool:
            try:
                connection.sendall(b"x")
            except BrokenPipeError:
                return True
            return False

        wait_until(ended)


def taken_up(folder: Path) -> int:
    """How many connections of the socket in this folder are accepted: this process has them open."""
    ours = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            ours.add(os.readlink(descriptor))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # Number 6 is the inode, number 7 the path that the listener was bound to, which those that it accepts have, too.
    inodes = [f"socket:[{line[6]}]" for line in lines if len(line) > 7 and line[7].startswith(f"{folder}/")]
    return sum(inode in ours for inode in inodes) - 1
