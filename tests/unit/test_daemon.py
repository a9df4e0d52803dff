# SPDX-License-Identifier: Apache-2.0
"""A daemon starts, is told things by signals, fails in the open and ends cleanly: seen on a real process."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdn import daemon

SAMPLE = Path(__file__).with_name("daemon_sample.py")


class Sample:
    """A running sample daemon; its log is read line by line, so that a test need not sleep."""

    def __init__(self, *argv: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SDN_")}
        self.process = subprocess.Popen(
            [sys.executable, str(SAMPLE), *argv], stderr=subprocess.PIPE, text=True, env=environ
        )
        self.seen: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.seen.append(json.loads(line))
            if self.seen[-1]["event"] == event:
                return self.seen[-1]
        raise AssertionError(f"no event {event!r} in {self.seen}")

    def end(self) -> int:
        assert self.process.stderr is not None
        self.seen += [json.loads(line) for line in self.process.stderr]
        return self.process.wait(60)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "parents" / "of" / "state"


@pytest.fixture
def start(state: Path) -> Iterator[Any]:
    """Starts sample daemons, and leaves none behind."""
    started: list[Sample] = []

    def start(*argv: str) -> Sample:
        started.append(Sample("--state-dir", str(state), *argv))
        return started[-1]

    yield start
    for sample in started:
        sample.process.kill()
        sample.process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("way", ["wait", "async"])
def test_asked_to_end_it_ends_cleanly(start: Any, way: str, number: signal.Signals) -> None:
    sample = start("--way", way)
    sample.until("ready")
    sample.process.send_signal(number)
    assert sample.until("ending")["reason"] == number.name
    assert sample.until("ended")["reason"] == number.name
    assert sample.end() == 0
    assert [line["event"] for line in sample.seen].count("told") == 1


def test_start_and_end_tell_version_settings_and_reason(start: Any) -> None:
    sample = start("--way", "return", "--label", "x")
    line = sample.until("starting")
    assert (line["program"], line["settings"]["label"]) == ("sdn-sample", "x")
    assert sample.until("ended")["reason"] == "its work is done"
    assert sample.end() == 0


def test_a_second_interrupt_ends_a_daemon_that_hangs(start: Any) -> None:
    sample = start("--way", "block")
    sample.until("ready")
    sample.process.send_signal(signal.SIGINT)
    sample.until("told")
    sample.process.send_signal(signal.SIGINT)
    assert sample.end() == 130


@pytest.mark.parametrize(
    ("way", "event"), [("raise", "failed"), ("raise-in-thread", "a thread ended by an exception")]
)
def test_an_uncaught_exception_is_one_line_and_ends_it_with_1(start: Any, way: str, event: str) -> None:
    sample = start("--way", way)
    line = sample.until(event)
    assert line["error"] == "RuntimeError: as asked for"
    assert "daemon_sample.py" in line["traceback"]
    assert sample.end() == 1
    assert sample.seen[-1]["exit_code"] == 1


def test_sighup_applies_the_level_and_names_what_needs_a_restart(start: Any, tmp_path: Path) -> None:
    toml = tmp_path / "sample.toml"
    toml.write_text("label = 'a'\n")
    sample = start("--config", str(toml))
    sample.until("ready")
    toml.write_text("label = 'b'\nlog_level = 'debug'\n")
    sample.process.send_signal(signal.SIGHUP)
    line = sample.until("settings reloaded")
    assert (line["log_level"], line["need_restart"]) == ("debug", ["label"])
    sample.until("tick")

    toml.write_text("labl = 'c'\n")
    sample.process.send_signal(signal.SIGHUP)
    assert "labl" in sample.until("settings not reloaded")["error"]
    sample.until("tick")
    sample.process.send_signal(signal.SIGTERM)
    assert sample.end() == 0


def test_wrong_settings_end_it_with_2_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SAMPLE, "--way", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sdn-sample: setting way (flag --way)")
    assert done.stderr.count("\n") == 1


def test_state_is_private_and_its_parents_are_not(start: Any, state: Path) -> None:
    sample = start("--way", "return")
    sample.until("ended")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE((state / "file").stat().st_mode) == 0o640


def test_state_that_was_open_to_others_is_closed(start: Any, state: Path) -> None:
    state.mkdir(parents=True)
    state.chmod(0o777)
    start("--way", "return").until("ended")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_two_daemons_never_share_a_state_folder_and_a_killed_one_holds_nothing(start: Any) -> None:
    first = start()
    first.until("ready")
    second = start()
    error = second.until("cannot start")["error"]
    assert f"in use by process {first.process.pid}" in error
    assert second.end() == 1
    first.process.kill()
    first.end()
    third = start("--way", "return")
    third.until("ready")
    assert third.end() == 0


def test_a_folder_is_held_though_its_disk_takes_nothing(tmp_path: Path) -> None:
    code = "import pathlib, sys; from sdn import daemon\n"
    code += "with daemon.hold(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = ["prlimit", "--fsize=0", sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(daemon.StartError, match="in use by process unknown"), daemon.hold(tmp_path):
            pass
        holder.communicate("")


def test_a_folder_that_cannot_be_held_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(daemon.StartError, match=str(tmp_path / "lock")), daemon.hold(tmp_path):
        pass


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(daemon.StartError, match=str(path)):
            daemon.private_folder(path)


def test_a_shared_folder_lets_the_group_in(tmp_path: Path) -> None:
    assert stat.S_IMODE(daemon.shared_folder(tmp_path / "run").stat().st_mode) == 0o750


def test_stop_keeps_its_first_reason_and_the_failure() -> None:
    stop = daemon.Stop()
    calls: list[str] = []
    stop.on_stop(lambda: calls.append("before"))
    assert not stop.wait(0)
    stop.set("SIGTERM")
    stop.set("a thread failed", exit_code=1)
    stop.on_stop(lambda: calls.append("after"))
    assert (stop.reason, stop.exit_code, stop.is_set(), calls) == ("SIGTERM", 1, True, ["before", "after"])
