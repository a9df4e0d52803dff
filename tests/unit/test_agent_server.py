# SPDX-License-Identifier: Apache-2.0
"""The plugin's socket while the process has nothing left to give, and while more ask than can be answered."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.cni.request import Call
from agent.server import WAITING, Server

REQUEST = b"CNI1" + (18).to_bytes(4, "big") + (0).to_bytes(4, "big") + b"CNI_COMMAND=STATUS"
ANSWER = (0).to_bytes(4, "big") + b"fine"

#: Serves, and takes each descriptor that it may have (32); gives them back, and answers, when it is told to.
STARVED = """
import os, resource, sys, threading
from pathlib import Path
from agent.alone.switch import LocalSwitch, LocalSwitchError
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


@contextmanager
def asking(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(REQUEST)
        yield connection


def answer(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(100), b""))


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


def test_what_is_more_than_can_wait_is_not_taken_up_and_all_of_it_is_answered(tmp_path: Path) -> None:
    begun = threading.Semaphore(0)
    go_on = threading.Event()

    def late(_call: Call) -> tuple[int, bytes]:
        begun.release()
        go_on.wait(60)
        return 0, b"fine"

    server = Server(tmp_path / "agent.sock", late, 2)
    server.start()
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(WAITING + 50)]
    try:
        for connection in sockets:
            connection.settimeout(60)
            connection.connect(str(tmp_path / "agent.sock"))
            connection.sendall(REQUEST)
        for _ in range(2):
            assert begun.acquire(timeout=60)
        deadline = time.monotonic() + 60
        while taken_up(tmp_path) < WAITING + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert taken_up(tmp_path) == WAITING + 2
        go_on.set()
        assert [answer(connection) for connection in sockets] == [ANSWER] * len(sockets)
    finally:
        go_on.set()
        for connection in sockets:
            connection.close()
        server.close()


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
