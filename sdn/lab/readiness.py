# SPDX-License-Identifier: Apache-2.0
"""When a lab is up: every daemon serves, every switch is connected to its controller and holds what it must.

A daemon that keeps dying, or does not get ready, is named together with the last that it wrote. What was stopped on
purpose is not waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from sdn.lab import controllers, etcd
from sdn.lab.errors import LabError
from sdn.lab.health import listens, serves
from sdn.lab.programs import agent_grpc_socket, controller_socket, programs
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder
from sdn.lab.supervision import Program, Supervisor, log_path, state_of
from sdn.lab.waiting import wait_until

_AT_MOST = 60.0


def wait(spec: LabSpec, folder: Folder, supervisor: Supervisor, step: Callable[[str], None]) -> None:
    """Wait for one stage after the other; LabError names what did not come, and why as far as can be seen."""
    all_programs = programs(spec, folder)
    switches = [p for p in all_programs if p.name.endswith(("/ovsdb-server", "/ovs-vswitchd"))]
    for program in switches:
        wait_until(
            lambda program=program: controlled(program, supervisor, folder),  # type: ignore[misc]
            f"{program.name} to run",
            _AT_MOST,
            because=lambda name=program.name: _why(folder, supervisor, name),  # type: ignore[misc]
        )
    step(f"{spec.nodes} switches run")
    started = _started(supervisor, [machine.name for machine in spec.controller_machines])
    for name in started:
        wait_until(
            lambda name=name: serves(controller_socket(folder, name)),  # type: ignore[misc]
            f"{name} to serve",
            _AT_MOST,
            because=lambda name=name: _why(folder, supervisor, name),  # type: ignore[misc]
        )
    step("controller serves" if spec.controllers == 1 else f"{len(started)} controllers serve")
    if spec.etcd > 1:
        _wait_members(spec, folder, supervisor, step)
    for node in spec.node_machines:
        wait_until(
            lambda name=node.name: serves(agent_grpc_socket(folder, name)),  # type: ignore[misc]
            f"{node.name}/agent to be ready for pods",
            _AT_MOST,
            because=lambda name=node.name: _why(folder, supervisor, f"{name}/agent"),  # type: ignore[misc]
        )
    step(f"{spec.nodes} agents are ready for pods")
    wait_until(
        lambda: not unsynchronized(spec, folder),
        "every switch to hold its flows",
        _AT_MOST,
        because=lambda: f"not yet: {', '.join(unsynchronized(spec, folder))}",
    )
    step(f"{spec.nodes} switches hold their flows")


def controlled(program: Program, supervisor: Supervisor, folder: Folder) -> bool:
    """Whether a daemon of Open vSwitch serves its control socket, whose name has the daemon's pid in it."""
    info = supervisor.processes().get(program.name, {})
    return listens(Path(state_of(program, info, folder).sockets["control"]))


def unsynchronized(spec: LabSpec, folder: Folder) -> list[str]:
    """Nodes whose switch is not connected, or does not hold what it must, as far as its owner knows."""
    known = controllers.switches(spec, folder)
    return sorted(
        node.name
        for node in spec.node_machines
        if node.name not in known or not (known[node.name].connected and known[node.name].synchronized)
    )


def _wait_members(spec: LabSpec, folder: Folder, supervisor: Supervisor, step: Callable[[str], None]) -> None:
    started = _started(supervisor, [machine.name for machine in spec.store_machines])

    def joined() -> bool:
        return {member.name for member in etcd.members(spec) if member.leader_id} >= set(started)

    wait_until(
        joined,
        "every etcd member to know a leader",
        _AT_MOST,
        because=lambda: "; ".join(f"{name}: {_why(folder, supervisor, name)}" for name in started),
    )
    step(f"{len(started)} etcd members are together")


def _started(supervisor: Supervisor, names: Sequence[str]) -> list[str]:
    """Those of these processes that nobody stopped."""
    infos = supervisor.processes()
    return [name for name in names if infos.get(name, {}).get("statename") != "STOPPED"]


def _why(folder: Folder, supervisor: Supervisor, name: str) -> str:
    with contextlib.suppress(LabError):
        state = supervisor.processes()[name]["statename"]
        return f"it is {state}; {log_tail(folder, name)}"
    return log_tail(folder, name)


def log_tail(folder: Folder, program: str, lines: int = 3) -> str:
    """The last lines that a process wrote, joined, for an error message."""
    try:
        text = log_path(folder, program).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "it wrote nothing"
    last = " | ".join(line.strip() for line in text.splitlines()[-lines:])[-600:]
    return f"its log ends with: {last}" if last else "it wrote nothing"
