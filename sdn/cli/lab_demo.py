# SPDX-License-Identifier: Apache-2.0
"""`sdnctl lab demo`, which is `make lab`: the main job shown once, from nothing to packets between nodes."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from sdn.cli import context, lab_path, lab_views, output, switches
from sdn.cli.errors import CommandError
from sdn.cli.output import DataFormat

if TYPE_CHECKING:
    from sdn.lab.lab import Lab
    from sdn.lab.state import PodRecord

NAMESPACE = "demo"
_NODES = 3
_PODS_PER_NODE = ("blue", "green")


def run(name: str) -> None:
    """Safe to repeat: what is there already is used as it is."""
    from sdn.lab.errors import LabError
    from sdn.lab.lab import Lab, LabSpec
    from sdn.lab.state import names

    begun = time.monotonic()
    if name in names() and Lab(name).state().state == "running":
        output.progress(f"lab {name} is up already, and used as it is")
        lab = Lab(name)
    else:
        output.progress(f"bringing up lab {name}: {_NODES} nodes, 1 controller, an underlay between them")
        lab = Lab.up(LabSpec(name=name, nodes=_NODES), output.progress)
    context.options.lab = name
    pods = _pods(lab)
    output.heading("Who reaches whom (4: by IPv4, 6: by IPv6)")
    reaches = lab.ping_matrix()
    lab_views.show_reaches(reaches, DataFormat.TABLE)
    _path(lab, pods)
    _how_to_go_on(lab, pods)
    output.progress(f"done in {time.monotonic() - begun:.1f} s")
    failed = sum(not reach.reachable for reach in reaches)
    if failed:
        raise CommandError(
            f"{failed} of {len(reaches)} ways do not work; `sdnctl lab status --name {name}` may tell why"
        )
    if not reaches:
        raise LabError(f"lab {name} has no pods")


def _pods(lab: Lab) -> list[PodRecord]:
    """The demo's pods, two on each node; those that are missing are made."""
    there = {pod.full_name for pod in lab.pods()}
    missing = [
        (f"{colour}-{node.name.rpartition('-')[2]}", node.name, colour)
        for node in lab.spec.node_machines
        for colour in _PODS_PER_NODE
        if f"{NAMESPACE}/{colour}-{node.name.rpartition('-')[2]}" not in there
    ]

    def make(pod: tuple[str, str, str]) -> None:
        name, node, colour = pod
        lab.pod_add(name, NAMESPACE, node, {"app": colour})

    if missing:
        output.progress(f"making {len(missing)} pods by executing the CNI plugin")
        begun = time.monotonic()
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(make, missing))
        output.progress(f"{len(missing)} pods made in {time.monotonic() - begun:.1f} s")
    pods = [pod for pod in lab.pods() if pod.namespace == NAMESPACE]
    output.table(
        ("POD", "NODE", "ADDRESSES"),
        [(pod.full_name, pod.node, output.joined(pod.addresses)) for pod in pods],
    )
    return pods


def _path(lab: Lab, pods: list[PodRecord]) -> None:
    """The flows that a packet from the first pod to one on another node meets."""
    source = pods[0]
    target = next((pod for pod in pods if pod.node != source.node), None)
    if target is None:
        return
    output.heading(f"The flows behind one path: ping from {source.full_name} to {target.full_name}")
    for node, packet, flows in lab_path.hops(lab, source, target):
        output.line("")
        output.line(f"On {node}, a packet comes in: {packet}")
        switches.print_flows(flows)


def _how_to_go_on(lab: Lab, pods: list[PodRecord]) -> None:
    from sdn.lab.state import names

    pod = pods[0].full_name
    other = pods[-1].addresses[0]
    program = _program()
    # A lab that is the only one needs no naming.
    named = "" if names() == [lab.name] else f" --name {lab.name}"
    asked = "" if names() == [lab.name] else f" --lab {lab.name}"
    commands = (
        (f"{program} lab exec{named} {pod} -- ping -c3 {other}", "run anything inside a pod"),
        (f"{program} lab pod add mine{named} --node node-2", "make a pod"),
        (f"{program}{asked} get pods -o wide", "what the controller knows of pods"),
        (f"{program}{asked} get switches", "is what runs what was asked for?"),
        (f"{program}{asked} flows node-1 --owner Pod/{pod}", "the flows of one pod, and why they are"),
        (f"{program} lab status{named}", "processes, sockets, pods"),
        (f"{program} lab exec{named} node-1 -- ovs-vsctl show", "the node's switch, with its own tools"),
        (f"{program} lab down{named}", "take it down; nothing is left behind"),
    )
    output.heading("The lab keeps running. How to go on:")
    width = max(len(command) for command, _ in commands)
    for command, meaning in commands:
        output.line(f"  {command:<{width}}   {meaning}")


def _program() -> str:
    """This program as it can be typed in this folder: by its name if the shell finds it, else by its path."""
    own = Path(sys.argv[0])
    found = shutil.which(own.name)
    if found is not None and Path(found).resolve() == own.resolve():
        return own.name
    with contextlib.suppress(ValueError):
        return str(own.absolute().relative_to(Path.cwd()))
    return str(own.absolute())
