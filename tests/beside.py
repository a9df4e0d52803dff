# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: tests that mostly wait run beside others, in processes of their own.

Those of the kernel's datapath take many minutes, nearly all of them of one emulated processor that shares nothing with
the machine it runs on; labs, and nodes, wait for the better part of their time. So in a run of several folders
(scripts/run-tests loads this by `-p tests.beside`) a second pytest runs the former and a third one the latter, while
this one runs the rest. The kernel's give way to others wherever both want the same core (`nice`). What is marked
`alone`, and figures (ALONE_FOLDERS), waits until both have ended, and has the machine to itself.

The run stays one: the others hand over their reports, which are told, counted and written here, each when it is that
test's turn. What they print themselves, such as how far the guest is, goes to results/kernel.log and results/lab.log.
A run that has only tests of one kind is as without this plugin.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

KERNEL, LAB = "kernel", "lab"
"""What runs beside the others: the tests of the folder with that name, and with LAB those of NODES."""

NODES = "node"

ALONE = "alone"
"""The marker of tests beside which nothing runs."""

ALONE_FOLDERS = frozenset(("bench",))

_PIPE = "SDN_TESTS_REPORTS_TO"
"""Tells another pytest the number of the file descriptor that its reports go to."""

_NICENESS = 5
"""Of the kernel's tests, and of the emulated machine that they start."""

_PATIENCE = 60.0
"""Seconds in which another pytest must end when it is interrupted: it ends a guest."""


def pytest_configure(config: pytest.Config) -> None:
    pipe = os.environ.pop(_PIPE, None)
    if pipe is not None:
        config.pluginmanager.register(_Reporting(config, int(pipe)))
    elif not config.option.collectonly and not config.option.usepdb:
        config.pluginmanager.register(_Receiving(config))


def folder_of(item: pytest.Item) -> str:
    """The folder below tests/ that a test is in; "": none."""
    tests = item.config.rootpath / "tests"
    parts = item.path.relative_to(tests).parts if item.path.is_relative_to(tests) else ()
    return parts[0] if len(parts) > 1 else ""


def place_of(item: pytest.Item) -> str:
    """Which pytest runs a test, KERNEL or LAB; "": this one beside them, ALONE: this one when they have ended."""
    folder = folder_of(item)
    if folder == KERNEL:
        return KERNEL
    if folder in ALONE_FOLDERS or item.get_closest_marker(ALONE):
        return ALONE
    return LAB if folder in (LAB, NODES) else ""


class _Reporting:
    """In another pytest: each report as a line of JSON, and the name of each test that is over."""

    def __init__(self, config: pytest.Config, pipe: int) -> None:
        self._config = config
        self._pipe = pipe
        os.set_inheritable(pipe, False)
        # A shell's background jobs ignore it, and so does what they start; here it is what ends this process.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        niceness = _NICENESS if folder_of(item) == KERNEL else 0
        if os.getpriority(os.PRIO_PROCESS, 0) != niceness and os.geteuid() == 0:
            os.setpriority(os.PRIO_PROCESS, 0, niceness)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._send(
            {"report": self._config.hook.pytest_report_to_serializable(config=self._config, report=report)}
        )

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._send({"over": nodeid})

    def _send(self, message: dict[str, object]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._pipe, data) :]


class _Receiving:
    """In the pytest that a person started."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._others: list[_Other] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Put first what this process runs meanwhile, then what others do, and start those."""
        places: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            places[place_of(item)].append(item)
        beside = [place for place in (KERNEL, LAB) if places[place]]
        if session.testsfailed or len(beside) + bool(places[""]) < 2:
            return
        session.items[:] = [item for place in ("", KERNEL, LAB, ALONE) for item in places[place]]
        for place in beside:
            other = _Other(self._config, place, [item.nodeid for item in places[place]])
            self._others.append(other)
            self._say(f"{len(places[place])} tests run beside the first {len(places[''])} ({other.log})")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Tell what another pytest tells of a test that it runs, instead of running it."""
        for other in self._others:
            if item.nodeid in other.names:
                hook = item.ihook
                hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
                for report in other.reports(item):
                    hook.pytest_runtest_logreport(report=report)
                hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
                return True
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Also of a run that was interrupted, or that stops at its first failure: nothing goes on behind it."""
        for other in self._others:
            other.interrupt()
        for other in self._others:
            code = other.wait()
            if code is not None and code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                self._say(f"the pytest beside this one exited with {code}: see {other.log}")
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _say(self, line: str) -> None:
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(line)


class _Other:
    """Another pytest, which runs the tests named `names`, and what it has told of them."""

    def __init__(self, config: pytest.Config, place: str, names: Sequence[str]) -> None:
        self.names = frozenset(names)
        self.log = Path("results") / f"{place}.log"
        self._config = config
        self._reports: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._over: set[str] = set()
        self._ended = False
        self._interrupted = False
        self._changed = threading.Condition()
        log = config.rootpath / self.log
        log.parent.mkdir(exist_ok=True)
        reading, writing = os.pipe()
        with tempfile.NamedTemporaryFile("w", prefix="sdn-tests-", delete=False) as chosen:
            chosen.writelines(f"{name}\n" for name in names)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    # Should this process die without a word, the other one is ended.
                    *("setpriv", "--pdeathsig", "TERM"),
                    *(sys.executable, "-m", "pytest", "-p", "tests.beside", "-p", "no:cacheprovider", "-v"),
                    f"@{chosen.name}",
                ],
                cwd=config.rootpath,
                env={**os.environ, _PIPE: str(writing)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
            )
        os.close(writing)
        threading.Thread(target=self._read, args=(reading, Path(chosen.name)), daemon=True).start()

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """All reports of a test, once it is over; one that says so when it will never be."""
        with self._changed:
            self._changed.wait_for(lambda: item.nodeid in self._over or self._ended)
            told = self._reports[item.nodeid]
            whole = item.nodeid in self._over
        hook = self._config.hook
        reports = [hook.pytest_report_from_serializable(config=self._config, data=data) for data in told]
        if not whole:
            log = self._config.rootpath / self.log
            end = log.read_text(encoding="utf-8", errors="replace")[-6000:]
            what = f"the pytest beside this one ended before its time; the end of {self.log}:\n{end}"
            reports.append(
                pytest.TestReport(
                    item.nodeid, item.location, {}, outcome="failed", longrepr=what, when="setup"
                )
            )
        return reports

    def interrupt(self) -> None:
        """Let it end, if it has tests left."""
        with self._changed:
            self._interrupted = not self._ended and not self.names <= self._over
        if self._interrupted:
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> int | None:
        """Its exit code, when it has ended; None: it was interrupted."""
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return None if self._interrupted else code

    def _read(self, pipe: int, chosen: Path) -> None:
        with open(pipe, encoding="utf-8") as lines:
            for line in lines:
                message = json.loads(line)
                with self._changed:
                    if "report" in message:
                        self._reports[message["report"]["nodeid"]].append(message["report"])
                    else:
                        self._over.add(message["over"])
                    self._changed.notify_all()
        chosen.unlink()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
