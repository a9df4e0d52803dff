# SPDX-License-Identifier: Apache-2.0
"""CNI ADD and DEL of sdn-cni on a lab node, beside the reference `bridge` with `host-local`.

Each execution is timed as a container runtime sees it: from before the fork to after the exit of the
plugin, started inside the network namespace of its node, for a network namespace made before the clock
starts. Ours returns when the controller has confirmed that the pod's flows, both families, are in the
switch; the reference when the pod hangs on a Linux bridge. The pods of a round are deleted within it, so
the number of pods on a node is small and steady.

"Without the plugin's process" is the same request over the agent's socket, from a process that runs
already: what is missing from it is the start of the plugin's interpreter. The steps within the agent are
those of its log.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sdn.lab.lab import Lab
from tests.bench import frame, netns
from tests.bench.cluster import PLUGIN, Node, cluster, node
from tests.bench.cni import REFERENCE, CniError, Plugin, kubernetes_args
from tests.bench.frame import Figure, Report

LAB: Final = "rc-cni"
REFERENCE_NODE: Final = "rc-cni-reference"
POD: Final = "rc-cni-pod"
ROUNDS: Final = 100
QUICK_ROUNDS: Final = 3
WARM_UP: Final = 2
STEPS: Final = ("record", "link", "pod", "port", "confirmed", "ready")

#: Executes one verb for one pod: verb, container, CNI_NETNS, CNI_ARGS; the milliseconds that it took.
Client = Callable[[str, str, str, str], float]


def run(quick: bool) -> Report:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with (
        tempfile.TemporaryDirectory(prefix="rc-host-local-") as data,
        netns.namespace(REFERENCE_NODE),
        cluster(LAB, nodes=1) as lab,
    ):
        here = node(lab, "node-1")
        ours = Plugin(PLUGIN, {"cniVersion": "1.0.0", "name": "sdn", **here.configuration()})
        clients: dict[str, tuple[str, Client]] = {
            "ours": (here.netns, _executed(ours)),
            "socket": (here.netns, _asked(here, ours)),
            "both families": (REFERENCE_NODE, _executed(_reference(Path(data), ipv6=True))),
            "IPv4 only": (REFERENCE_NODE, _executed(_reference(Path(data), ipv6=False))),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        for number in range(WARM_UP + rounds):
            turns = list(clients.items())
            # Another one goes first each round, so that a slow moment of the machine hits all alike.
            shift = number % len(turns)
            for name, (where, client) in turns[shift:] + turns[:shift]:
                measured = _add_and_delete(client, where, f"{name.replace(' ', '-')}-{number}")
                if number >= WARM_UP:
                    times[name].append(measured)
        steps = _steps(lab)
    return Report(
        name="cni_add",
        ours="sdn-cni, confirmed by the controller, both families",
        peer="bridge with host-local",
        figures=(*_figures("ADD", 0, times), *_figures("DEL", 1, times)),
        notes=("ADD within the agent, median ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in steps),),
    )


def _reference(data: Path, *, ipv6: bool) -> Plugin:
    """The reference bridge as a node's only plugin, with the addresses of one or both families."""
    ranges = [[{"subnet": "10.99.0.0/16"}]]
    routes = [{"dst": "0.0.0.0/0"}]
    if ipv6:
        ranges.append([{"subnet": "fd00:99::/64"}])
        routes.append({"dst": "::/0"})
    bridge = f"ref{len(ranges)}"
    ipam = {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": str(data)}
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": bridge, "type": "bridge", "bridge": bridge}
    return Plugin(REFERENCE / "bridge", config | {"isGateway": True, "ipam": ipam})


def _executed(plugin: Plugin) -> Client:
    def client(verb: str, container: str, path: str, args: str) -> float:
        seconds, _ = plugin.call(verb, container, path, args)
        return seconds * 1e3

    return client


def _asked(where: Node, plugin: Plugin) -> Client:
    """The same request over the agent's socket (agent/cni/sdn-cni says how), without a process of its own."""
    config = json.dumps(dict(plugin.config)).encode()

    def client(verb: str, container: str, path: str, args: str) -> float:
        variables = "\0".join(
            f"CNI_{name}={value}"
            for name, value in {
                "COMMAND": verb,
                "CONTAINERID": container,
                "NETNS": path,
                "IFNAME": "eth0",
                "ARGS": args,
                "PATH": str(PLUGIN.parent),
            }.items()
        ).encode()
        lengths = len(variables).to_bytes(4, "big") + len(config).to_bytes(4, "big")
        started = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(where.agent_socket))
            agent.sendall(b"CNI1" + lengths + variables + config)
            answer = b"".join(iter(lambda: agent.recv(65536), b""))
        milliseconds = (time.perf_counter() - started) * 1e3
        if answer[:4] != bytes(4):
            raise CniError(
                f"{verb} {container} over the agent's socket: {answer[4:].decode(errors='replace')}"
            )
        return milliseconds

    return client


def _add_and_delete(client: Client, where: str, container: str) -> tuple[float, float]:
    """Milliseconds of ADD and of DEL for a pod of its own."""
    args = kubernetes_args("bench", container.lower(), container)
    with netns.namespace(POD) as path, netns.entered(where):
        return client("ADD", container, str(path), args), client("DEL", container, str(path), args)


def _figures(verb: str, index: int, times: dict[str, list[tuple[float, float]]]) -> list[Figure]:
    def series(name: str) -> tuple[float, ...]:
        return tuple(one[index] for one in times[name])

    return [
        *(
            Figure(f"{verb} (peer: {families})", "ms", series("ours"), series(families), aim=1.0)
            for families in ("both families", "IPv4 only")
        ),
        Figure(f"{verb} without the plugin's process", "ms", series("socket")),
    ]


def _steps(lab: Lab) -> list[tuple[str, float]]:
    """Median milliseconds of each step of ADD, by the agent's log."""
    found: dict[str, list[float]] = {step: [] for step in STEPS}
    for line in lab.log("node-1/agent").read_text().splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "pod attached":
            for step in STEPS:
                found[step].append(float(event[f"{step}_ms"]))
    return [(step, frame.percentile(values, 0.5)) for step, values in found.items()]


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
