# SPDX-License-Identifier: Apache-2.0
"""A controller that starts with many Services in its store, and an empty switch that it programs."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import frame, process
from tests.bench.frame import Figure
from tests.bench.services_node import WAIT_SECONDS, Node
from tests.switch.ovs import wait_until

_TOOL: Final = ("ovs-ofctl", "-O", "OpenFlow15", "-vconsole:err", "--bundle")


@dataclass(frozen=True)
class Start:
    """The start of a controller."""

    #: Seconds until it serves, and until it has compiled what the switch must hold.
    ready: float
    compiled: float
    #: Its processor seconds until both.
    ready_cpu: float
    compiled_cpu: float


@dataclass(frozen=True)
class Filled:
    """An empty switch was filled: seconds, and processor seconds of who wrote and of the switch."""

    seconds: float
    writer_cpu: float
    switch_cpu: float
    entries: int


def measure(
    node: Node, folder: Path, rounds: int
) -> tuple[Start, tuple[tuple[Filled, ...], tuple[Filled, ...]]]:
    """Starts the controller anew and fills the switch in turns, ours first."""
    flows, groups = folder / "flows", folder / "groups"
    # What ovs-ofctl prints it also reads; flows learned by the switch are not the controller's to write.
    flows.write_text("\n".join(node.switch.dump_flows()) + "\n")
    groups.write_text("\n".join(_groups(node)) + "\n")
    node.disconnect()
    start = _start(node)
    filled = frame.interleave(lambda _: _ours(node), lambda _: _peer(node, flows, groups), rounds)
    return start, filled


def wait_synchronized(node: Node) -> None:
    """Until the switch holds all that it must."""
    wait_until(lambda: node.status().synchronized, "the switch to be synchronized", WAIT_SECONDS)


def proportional_megabytes(pid: int) -> float:
    """Memory of a process, shared pages divided among those that share them (Pss, proc(5))."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))) / 1e3


def group_to(node: Node, address: str) -> str:
    """The group of the Service with this ClusterIP, as ovs-ofctl prints and reads it."""
    frontend = next(
        line
        for line in node.switch.dump_flows()
        if f"nw_dst={address}," in line or f"nw_dst={address} " in line
    )
    number = re.findall(r"group:(\d+)", frontend)[-1]
    return next(line for line in _groups(node) if line.startswith(f"group_id={number},"))


def _groups(node: Node) -> list[str]:
    return [line.strip() for line in node.switch.ofctl("dump-groups").splitlines() if "group_id=" in line]


def _start(node: Node) -> Start:
    desired = node.status().desired_flows
    node.controller.terminate()
    began = time.perf_counter()
    node.controller.start()
    ready, ready_cpu = time.perf_counter() - began, process.cpu_seconds(node.controller.pid)
    wait_until(lambda: node.status().desired_flows >= desired, "all to be compiled", WAIT_SECONDS)
    return Start(ready, time.perf_counter() - began, ready_cpu, process.cpu_seconds(node.controller.pid))


def _ours(node: Node) -> Filled:
    """From the switch's being told of its controller until all is confirmed."""
    node.switch.clear()
    pids = (node.controller.pid, node.switch.vswitchd_pid)
    busy = [process.cpu_seconds(pid) for pid in pids]
    began = time.perf_counter()
    node.connect(node.controller.openflow_port)
    wait_synchronized(node)
    seconds = time.perf_counter() - began
    writer, switch = (process.cpu_seconds(pid) - was for pid, was in zip(pids, busy, strict=True))
    status = node.status()
    held = len(node.switch.dump_flows()), len(_groups(node))
    if held != (status.desired_flows, status.desired_groups):
        raise AssertionError(f"the switch holds {held} flows and groups, not {status}")
    node.disconnect()
    return Filled(seconds, writer, switch, sum(held))


def _peer(node: Node, flows: Path, groups: Path) -> Filled:
    node.switch.clear()
    busy, switch_busy = process.children_cpu_seconds(), process.cpu_seconds(node.switch.vswitchd_pid)
    began = time.perf_counter()
    for command, file in (("add-groups", groups), ("add-flows", flows)):
        subprocess.run([*_TOOL, command, node.switch.management, str(file)], check=True)
    return Filled(
        time.perf_counter() - began,
        process.children_cpu_seconds() - busy,
        process.cpu_seconds(node.switch.vswitchd_pid) - switch_busy,
        entries=len(flows.read_text().splitlines()) + len(groups.read_text().splitlines()),
    )


def figures(start: Start, filled: tuple[tuple[Filled, ...], tuple[Filled, ...]]) -> list[Figure]:
    """Programming beside ovs-ofctl; the controller's start by itself."""
    ours, peer = (
        tuple(zip(*((one.seconds, one.writer_cpu, one.switch_cpu) for one in series), strict=True))
        for series in filled
    )
    return [
        Figure("an empty switch programmed", "s", ours[0], peer[0], aim=1.5),
        Figure("an empty switch programmed: writer's CPU", "s", ours[1], peer[1]),
        Figure("an empty switch programmed: switch's CPU", "s", ours[2], peer[2]),
        Figure("controller's start until it serves", "s", (start.ready,)),
        Figure("controller's start until it serves: CPU", "s", (start.ready_cpu,)),
        Figure("controller's start until all is compiled", "s", (start.compiled,)),
        Figure("controller's start until all is compiled: CPU", "s", (start.compiled_cpu,)),
    ]


def notes(start: Start, filled: tuple[tuple[Filled, ...], tuple[Filled, ...]]) -> list[str]:
    """How much was programmed."""
    ours, peer = filled
    return [
        f"programmed: {ours[0].entries} flows and groups by the controller, {peer[0].entries} by ovs-ofctl"
    ]
