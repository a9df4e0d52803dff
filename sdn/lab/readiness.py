# SPDX-License-Identifier: Apache-2.0
"""When a lab is up: every daemon serves, every switch is connected to the controller and holds what it must.

A daemon that keeps dying, or does not get ready, is named together with the last that it wrote.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from sdn.lab.errors import LabError
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
    for machine in spec.controller_machines:
        wait_until(
            lambda name=machine.name: serves(controller_socket(folder, name)),  # type: ignore[misc]
            f"{machine.name} to serve",
            _AT_MOST,
            because=lambda name=machine.name: _why(folder, supervisor, name),  # type: ignore[misc]
        )
    step("controller serves")
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


def listens(path: Path) -> bool:
    """Whether a process accepts connections on this unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def serves(path: Path) -> bool:
    """Whether a gRPC server on this unix socket calls itself healthy (grpc.health.v1, service "")."""
    if not listens(path):
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def unsynchronized(spec: LabSpec, folder: Folder) -> list[str]:
    """Nodes whose switch is not connected, or does not hold what it must, as far as the controller knows."""
    import grpc

    from sdn.v1 import inspection_pb2, inspection_pb2_grpc

    waiting = {node.name for node in spec.node_machines}
    with grpc.insecure_channel(f"unix:{controller_socket(folder)}") as channel:
        with contextlib.suppress(grpc.RpcError):  # a controller that is just being restarted
            answer = inspection_pb2_grpc.InspectionStub(channel).ListSwitches(
                inspection_pb2.ListSwitchesRequest(), timeout=5
            )
            waiting -= {switch.node for switch in answer.switches if switch.connected and switch.synchronized}
    return sorted(waiting)


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
