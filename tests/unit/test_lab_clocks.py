# SPDX-License-Identifier: Apache-2.0
"""A process whose clock can be set (libfaketime) works as any other one does."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdn.lab import clocks
from sdn.lab.state import Folder

SLEEP = """
import threading, time

for sleep in (time.sleep, threading.Event().wait):
    for seconds in (0.0, 0.00001, 0.3):
        began = time.monotonic()
        sleep(seconds)
        assert time.monotonic() - began >= seconds, f"{sleep} {seconds}"
"""
CLOCK = "import time; print(time.time())"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Folder:
    monkeypatch.setattr("sdn.lab.state.ROOT", tmp_path)
    (tmp_path / "clocks").mkdir()
    return Folder("clocks")


def run(folder: Folder, text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=clocks.environment(folder, "controller-1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_clock_is_ahead_as_far_as_it_was_set(folder: Folder) -> None:
    here = float(run(folder, CLOCK))
    clocks.set_clock(folder, "controller-1", 86_400)
    assert 86_300 < float(run(folder, CLOCK)) - here < 87_000
    clocks.set_clock(folder, "controller-1", -86_400)
    assert 86_300 < here - float(run(folder, CLOCK)) < 87_000


@pytest.mark.parametrize("ahead", [0, 86_400, -86_400])
def test_it_sleeps_whatever_its_clock_says(folder: Folder, ahead: float) -> None:
    clocks.set_clock(folder, "controller-1", ahead)
    run(folder, SLEEP)
