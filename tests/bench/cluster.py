# SPDX-License-Identifier: Apache-2.0
"""A lab for a benchmark, or for a test of a real client, and what a client of one of its nodes needs to know."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdn.lab.lab import Lab
from sdn.lab.programs import agent_socket, node_folder
from sdn.lab.spec import LabSpec
from tests.bench import process

PLUGIN: Final = Path(__file__).resolve().parents[2] / "agent" / "cni" / "sdn-cni"


@dataclass(frozen=True)
class Node:
    """A node of a lab: its network namespace and its sockets."""

    name: str
    netns: str
    agent_socket: Path
    folder: Path

    @property
    def database(self) -> Path:
        """Socket of the node's ovsdb-server."""
        return self.folder / "db.sock"

    def configuration(self) -> dict[str, Any]:
        """Our plugin's part of a network configuration list on this node."""
        return {"type": PLUGIN.name, "agentSocket": str(self.agent_socket)}

    def conflist(self, *chained: dict[str, Any]) -> dict[str, Any]:
        """A network configuration list: our plugin first, then others."""
        return {"cniVersion": "1.0.0", "name": "sdn", "plugins": [self.configuration(), *chained]}


def node(lab: Lab, name: str) -> Node:
    """The node of this name. LabError if the lab has none."""
    machine = lab.spec.node(name)
    return Node(name, machine.netns, agent_socket(lab.folder, name), node_folder(lab.folder, name))


@contextmanager
def cluster(name: str, nodes: int) -> Iterator[Lab]:
    """A lab with one controller; nothing is left of it afterwards. Its processes have the caller's priority."""
    lab = Lab.up(LabSpec(name=name, nodes=nodes))
    try:
        if process.is_first():
            for one in lab.state().processes:
                if one.pid is not None:
                    process.go_first(one.pid)
        yield lab
    finally:
        lab.down()


def sdnctl(lab: Lab, *arguments: str) -> str:
    """Runs sdnctl against the lab's controller; what it printed. RuntimeError with what it complained of."""
    command = [str(Path(sys.executable).with_name("sdnctl")), *arguments, "--server", lab.server]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def listed_pods(lab: Lab) -> dict[str, tuple[str, ...]]:
    """The pods that `sdnctl get pods` shows, by namespace/name, with their addresses."""
    pods = json.loads(sdnctl(lab, "get", "pods", "-o", "json"))["items"]
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": tuple(
            address["ip"] for address in pod["status"].get("podIPs", [])
        )
        for pod in pods
    }
