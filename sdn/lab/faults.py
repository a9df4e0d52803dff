# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with the processes of a lab: killed and gone, frozen, a clock that jumps, a store without a
majority.

Names are those of `lab status`: controller-1, etcd-2, node-1/agent. A frozen process is one that the scheduler forgot,
or a virtual machine that is paused: its connections stay open and answer nothing, and when it goes on it has not
noticed that time has passed.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence

from sdn.lab import clocks, etcd, processes
from sdn.lab.errors import LabError
from sdn.lab.lab import Lab
from sdn.lab.processes import Identity
from sdn.lab.waiting import wait_until

#: How long a signal may take to have its effect, seconds.
_EFFECT = 10.0


def kill_for_good(lab: Lab, *names: str) -> None:
    """Kill processes (kill -9), all at once, and keep them ended until `lab.start`.

    None of them does anything more once the first is dead. No error for one that does not run.
    """
    for name in names:
        lab.process(name)

    def ended() -> bool:
        states = {name: info["statename"] for name, info in lab.supervisor.processes().items()}
        # One that was just being started, or ended by itself, may come up once more.
        running = [name for name in names if states[name] not in ("STOPPED", "STOPPING")]
        _kill(lab, running)
        return not running and all(states[name] == "STOPPED" for name in names)

    wait_until(ended, f"{', '.join(names)} to be dead", _EFFECT)


def _kill(lab: Lab, names: Sequence[str]) -> None:
    running = [process for name in names if (process := _identity(lab, name)) is not None]
    # The supervisor asks a process to end when it is told not to start it again. Frozen, it cannot hear that.
    for process in running:
        processes.send(process, signal.SIGSTOP)
    for name in names:
        lab.supervisor.give_up(name)
    for process in running:
        processes.send(process, signal.SIGKILL)


def freeze(lab: Lab, *names: str) -> None:
    """Stop processes where they are (SIGSTOP), until `thaw`. LabError for one that does not run."""
    found = [_running(lab, name) for name in names]
    for process in found:
        processes.send(process, signal.SIGSTOP)
    wait_until(
        lambda: all(processes.frozen(process) for process in found), f"{', '.join(names)} to stand", _EFFECT
    )


def thaw(lab: Lab, *names: str) -> None:
    """Let frozen processes go on (SIGCONT). No error for one that is not frozen, or not there any more."""
    for name in names:
        process = _identity(lab, name)
        if process is not None:
            processes.send(process, signal.SIGCONT)


@contextlib.contextmanager
def frozen(lab: Lab, *names: str) -> Iterator[None]:
    """Processes are frozen for the time of the `with` block."""
    try:
        freeze(lab, *names)
        yield
    finally:
        thaw(lab, *names)


@contextlib.contextmanager
def store_without_majority(lab: Lab) -> Iterator[tuple[str, ...]]:
    """The leader of the store and as many members more are frozen that nothing can be written; their names."""
    names = etcd.enough_to_stop_writes(lab.spec)
    with frozen(lab, *names):
        yield names
    etcd.wait_leader(lab.spec)


def set_clock(lab: Lab, name: str, seconds: float) -> None:
    """A process's wall clock jumps to `seconds` ahead of the machine's (behind, if below 0), also when it is started
    again. It is one of those that the lab was given as `own_clocks`.
    """
    if name not in lab.spec.own_clocks:
        raise LabError(f"{name} of lab {lab.name} has no clock of its own; name it in own_clocks")
    clocks.set_clock(lab.folder, name, seconds)


def _running(lab: Lab, name: str) -> Identity:
    process = _identity(lab, name)
    if process is None:
        raise LabError(f"{name} does not run just now ({lab.process(name).state})")
    return process


def _identity(lab: Lab, name: str) -> Identity | None:
    pid = lab.process(name).pid
    return processes.identify(pid) if pid is not None else None
