# SPDX-License-Identifier: Apache-2.0
"""Processes are told apart from later ones with their pid, and ended without harm to others."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sdn.lab import processes
from sdn.lab.processes import Identity
from sdn.lab.waiting import wait_until

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], env={"LAB_TEST_MARK": str(os.getpid())})
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> Identity:
    found = processes.identify(pid)
    assert found is not None
    return found


def test_a_process_is_itself_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    who = identity(sleeper.pid)
    assert processes.alive(who)
    sleeper.kill()
    sleeper.wait()
    assert not processes.alive(who)


def test_a_zombie_counts_as_ended(sleeper: subprocess.Popen[bytes]) -> None:
    who = identity(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify(sleeper.pid) is None
    assert not processes.alive(who)


def test_no_signal_reaches_another_process_that_has_the_pid_now(sleeper: subprocess.Popen[bytes]) -> None:
    earlier = msgspec.structs.replace(identity(sleeper.pid), started=1)
    assert not processes.send(earlier, signal.SIGKILL)
    assert sleeper.poll() is None


def test_marked_processes_are_found_by_their_environment(sleeper: subprocess.Popen[bytes]) -> None:
    assert processes.with_mark(f"LAB_TEST_MARK={os.getpid()}") == [identity(sleeper.pid)]
    assert processes.with_mark("LAB_TEST_MARK=another") == []


def test_a_process_in_the_middle_of_exec_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its turn is away: who takes it for one without a mark leaves it behind."""
    entry = tmp_path / "4711"
    entry.mkdir()
    (entry / "environ").write_bytes(b"")
    (entry / "exe").symlink_to("/usr/bin/python3")
    looks = 0

    def stat(pid: int) -> list[str]:
        nonlocal looks
        assert pid == 4711
        looks += 1
        if looks == 200:
            (entry / "environ").write_bytes(b"MARK=1\0")
        return ["R", *["0"] * 49]

    monkeypatch.setattr(processes, "_stat", stat)
    assert processes._environment(entry) == b"MARK=1\0"


def test_a_process_without_an_environment_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_EXEC_SECONDS", 600.0)
    with subprocess.Popen(["/bin/sleep", "600"], env={}) as process:
        wait_until(
            lambda: Path(f"/proc/{process.pid}/exe").readlink().name != Path(sys.executable).name, "exec", 10
        )
        assert processes.with_mark("LAB_TEST_MARK=1") == []
        process.kill()


def test_a_process_that_ignores_the_request_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        who = identity(process.pid)
        assert processes.end(lambda: [who] if processes.alive(who) else [], grace=0.2) == []
        assert process.wait() == -signal.SIGKILL


def test_those_that_serve_others_are_killed_when_the_others_are_gone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        first, last = identity(other.pid), identity(sleeper.pid)
        seen: list[bool] = []

        def find() -> list[Identity]:
            if not processes.alive(first):
                seen.append(processes.alive(last))
            return [process for process in (last, first) if processes.alive(process)]

        assert processes.end(find, grace=0.2, last=[last]) == []
        assert other.wait() == -signal.SIGKILL
        assert seen[0], "it ended before the one that it serves"
        assert sleeper.wait() == -signal.SIGKILL


def test_a_process_is_seen_frozen_and_going_on(sleeper: subprocess.Popen[bytes]) -> None:
    who = identity(sleeper.pid)
    assert not processes.frozen(who)
    processes.send(who, signal.SIGSTOP)
    wait_until(lambda: processes.frozen(who), "it to stand", 10)
    assert not processes.frozen(msgspec.structs.replace(who, started=1)), "another one has the pid"
    processes.send(who, signal.SIGCONT)
    wait_until(lambda: not processes.frozen(who), "it to go on", 10)
    sleeper.kill()
    sleeper.wait()
    assert not processes.frozen(who)


def test_whoever_ends_others_spares_himself_and_his_callers() -> None:
    assert {os.getpid(), os.getppid()} <= processes.myself_and_ancestors()
