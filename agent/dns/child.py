# SPDX-License-Identifier: Apache-2.0
"""The DNS server as the agent sees it: a process that is told of Services, and made anew when it ends.

    server = DnsServer(folder)
    server.start()
    server.assign(config)        # what to serve, or None; whenever it changes
    table.subscribe(server.take) # Services, as they change
    server.watch(patterns)       # of which names it is to report answers

One thread does everything that may wait (starting, writing into the pipe); those who tell it something only note it. A
process that is slow to read therefore delays nobody, and of a Service that changes meanwhile only the last state is
written. A new process is told everything that is known. What the process reports is handed on as it comes.

When the agent ends, its process goes on with the names that it knows, for LINGER_SECONDS; the next agent's takes over
when it serves. Both have the same addresses for a moment (SO_REUSEPORT), so a restart of the agent is not noticed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Final, TypeAlias

import msgspec

from agent.dns import feed, predecessor
from agent.dns.config import READY, DnsConfig
from agent.services.table import Changes, Key
from sdn import logs

log: Final = logs.get("agent.dns")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: A process that has lived so long did not fail at its start.
_LIVED_SECONDS: Final = 10.0
_END_SECONDS: Final = 5.0
#: Long enough for an agent to be replaced by another version.
LINGER_SECONDS: Final = 60.0

#: Takes a report, and calls back, in any thread, with whether the node's switch knows its addresses now.
Resolved: TypeAlias = Callable[[feed.Resolution, Callable[[bool], None]], None]


def _nobody(_resolution: feed.Resolution, done: Callable[[bool], None]) -> None:
    done(False)


class DnsServer:
    """Keeps the process. Every method may be called in every thread, and returns at once (but `close`)."""

    def __init__(self, folder: Path | None = None, resolved: Resolved = _nobody) -> None:
        """
        folder      holds the file that names the process to the next agent; without it, the process ends with us
        resolved    called with each report, in a thread of its own; must not wait
        """
        self._file = folder / "dns.json" if folder is not None else None
        self._resolved = resolved
        self._changed = threading.Condition()
        self._stopping = False
        self._config: DnsConfig | None = None
        # The frame of each Service, and those that the running process was not told yet (None: it is gone).
        self._frames: dict[Key, bytes] = {}
        self._untold: dict[Key, bytes | None] = {}
        self._complete = False
        self._complete_told = False
        # The last word on which names are to be reported, and answers to reports; not told yet.
        self._patterns: bytes | None = None
        self._patterns_told = False
        self._answers: list[bytes] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._running: DnsConfig | None = None
        self._started = 0.0
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Let go of the process."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=2 * _END_SECONDS)

    def assign(self, config: DnsConfig | None) -> None:
        """What to serve from now on; None: nothing."""
        if config is not None and self._file is not None:
            config = msgspec.structs.replace(config, linger_seconds=LINGER_SECONDS)
        with self._changed:
            self._config = config
            self._changed.notify()

    def take(self, changes: Changes) -> None:
        """Services that came, changed or went."""
        frames = {service.key: feed.told(feed.named(service)) for service in changes.changed}
        with self._changed:
            for key, frame in frames.items():
                if self._frames.get(key) != frame:
                    self._frames[key] = self._untold[key] = frame
            for key in changes.removed:
                if self._frames.pop(key, None) is not None:
                    self._untold[key] = None
            self._complete = self._complete or changes.confirmed
            self._changed.notify()

    def watch(self, patterns: Iterable[str]) -> None:
        """Answers about names that these patterns take are to be reported, from now on and all of them anew."""
        frame = feed.watched(patterns)
        with self._changed:
            self._patterns = frame
            self._patterns_told = False
            self._changed.notify()

    def complete(self) -> None:
        """All Services were told of, though no controller has confirmed it: what is unknown does not exist."""
        with self._changed:
            self._complete = True
            self._changed.notify()

    # --- the thread

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._stopping:
                    break
                config = self._config
            if self._running is not None and (config != self._running or self._dead()):
                lived = time.monotonic() - self._started
                if config == self._running:
                    pause = _FIRST_PAUSE if lived > _LIVED_SECONDS else min(pause * 2, _LONGEST_PAUSE)
                    code = self._process.returncode if self._process is not None else None
                    log.warning("the DNS server has ended; starting another", exit_code=code, pause=pause)
                    self._wait(pause)
                self._end()
            elif self._running is None:
                assert config is not None
                try:
                    self._begin(config)
                except OSError as problem:
                    # Out of memory or of processes, for a while.
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    log.warning("the DNS server cannot be started", error=str(problem), pause=pause)
                    self._wait(pause)
            else:
                self._tell()
        if self._process is not None:
            _close(self._process)

    def _has_work(self) -> bool:
        if self._stopping or self._config != self._running:
            return True
        if self._running is None:
            return False
        told = self._complete == self._complete_told and (self._patterns is None or self._patterns_told)
        return not told or bool(self._untold or self._answers) or self._dead()

    def _dead(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, timeout=seconds)

    def _begin(self, config: DnsConfig) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.dns", msgspec.json.encode(config).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._attend, args=(process,), name="dns-process", daemon=True).start()
        with self._changed:
            self._process = process
            self._running = config
            self._started = time.monotonic()
            self._untold = dict(self._frames)
            self._complete_told = self._patterns_told = False
            self._answers = []
        log.info("the DNS server is started", pid=process.pid, addresses=config.listen)

    def _attend(self, process: subprocess.Popen[bytes]) -> None:
        """Notice that it serves, what it reports, and that it has ended."""
        assert process.stdout is not None
        with process.stdout as said:
            while line := said.readline(feed.MOST_LINE):
                if line == READY:
                    if self._file is not None:
                        self._succeed(self._file, process.pid)
                    continue
                try:
                    resolution = feed.report(line)
                except ValueError as problem:
                    # It parses packets of anybody, and may have been made to say anything.
                    log.warning("the DNS server says what is no report", pid=process.pid, error=str(problem))
                    process.kill()
                    break
                self._resolved(resolution, partial(self._answer, process, resolution.number))
        process.wait()
        with self._changed:
            self._changed.notify()

    def _answer(self, process: subprocess.Popen[bytes], number: int, in_force: bool) -> None:
        """To a report; one of a process that has ended is not needed any more."""
        with self._changed:
            if process is self._process:
                self._answers.append(feed.settled(number, in_force))
                self._changed.notify()

    def _succeed(self, file: Path, pid: int) -> None:
        try:
            before = predecessor.succeed(file, pid)
        except OSError as problem:
            # The earlier process ends by itself, and so will this one.
            log.warning("the DNS server's process cannot be noted", file=file, error=str(problem))
        else:
            if before is not None:
                log.info("the DNS server of an earlier agent has a successor", pid=before)

    def _tell(self) -> None:
        with self._changed:
            untold, self._untold = self._untold, {}
            complete = self._complete and not self._complete_told
            self._complete_told = self._complete
            patterns = None if self._patterns_told else self._patterns
            self._patterns_told = True
            answers, self._answers = self._answers, []
        assert self._process is not None
        pipe = self._process.stdin
        assert pipe is not None
        try:
            _write(pipe, _frames(untold, complete))
            _write(pipe, (*(() if patterns is None else (patterns,)), *answers))
        except OSError as problem:
            # It has ended: the next process is told everything.
            log.debug("the DNS server does not listen", error=str(problem))
            self._process.kill()
            self._process.wait()

    def _end(self) -> None:
        process, self._process, self._running = self._process, None, None
        if process is None:
            return
        process.terminate()
        _close(process)
        try:
            process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    # What it was not told any more does not matter.
    with contextlib.suppress(OSError):
        process.stdin.close()


def _frames(untold: dict[Key, bytes | None], complete: bool) -> Iterator[bytes]:
    for key, frame in untold.items():
        yield feed.gone(key) if frame is None else frame
    if complete:
        yield feed.synced()


def _write(pipe: IO[bytes], frames: Iterable[bytes]) -> None:
    for frame in frames:
        pipe.write(frame)
    pipe.flush()
