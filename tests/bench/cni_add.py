# SPDX-License-Identifier: Apache-2.0
"""CNI ADD and DEL of sdn-cni on a lab node, beside the reference `bridge` with `host-local`.

Each execution is timed as a container runtime sees it: from before the fork to after the exit of the
plugin, started inside the network namespace of its node, for a network namespace made before the clock
starts. Ours returns when the controller has confirmed that the pod's flows, both families, are in the
switch; the reference when the pod hangs on a Linux bridge. The pods of a round are deleted within it, so
the number of pods on a node is small and steady.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.bench import frame, netns
from tests.bench.cluster import PLUGIN, Node, cluster, node
from tests.bench.cni import REFERENCE, Plugin, kubernetes_args
from tests.bench.frame import Figure, Report

LAB: Final = "rc-cni"
REFERENCE_NODE: Final = "rc-cni-reference"
ROUNDS: Final = 100
QUICK_ROUNDS: Final = 3
WARM_UP: Final = 2


def run(quick: bool) -> Report:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with (
        tempfile.TemporaryDirectory(prefix="rc-host-local-") as data,
        netns.namespace(REFERENCE_NODE),
        cluster(LAB, nodes=1) as lab,
    ):
        ours_node = node(lab, "node-1")
        peer = {families: _reference(Path(data), families) for families in ("both families", "IPv4 only")}
        ours = Plugin(PLUGIN, {"cniVersion": "1.0.0", "name": "sdn", **ours_node.configuration()})
        times: dict[str, list[tuple[float, float]]] = {"ours": [], **{families: [] for families in peer}}
        for number in range(WARM_UP + rounds):
            turns = [
                ("ours", ours_node.netns, ours),
                *((name, REFERENCE_NODE, one) for name, one in peer.items()),
            ]
            # Another one goes first each round, so that a slow moment of the machine hits all alike.
            shift = number % len(turns)
            for name, where, plugin in turns[shift:] + turns[:shift]:
                measured = _add_and_delete(plugin, where, number)
                if number >= WARM_UP:
                    times[name].append(measured)
        starts = [_start(ours_node) for _ in range(rounds)]
    return Report(
        name="cni_add",
        ours="sdn-cni, confirmed by the controller, both families",
        peer="bridge with host-local",
        figures=(
            *_figures("ADD", 0, times, peer),
            *_figures("DEL", 1, times, peer),
            Figure("VERSION (the plugin's process)", "ms", tuple(starts)),
        ),
    )


def _reference(data: Path, families: str) -> Plugin:
    """The reference bridge as a node's only plugin, with the addresses of one or both families."""
    ranges = [[{"subnet": "10.99.0.0/16"}]]
    routes = [{"dst": "0.0.0.0/0"}]
    if families == "both families":
        ranges.append([{"subnet": "fd00:99::/64"}])
        routes.append({"dst": "::/0"})
    bridge = f"ref{len(ranges)}"
    ipam = {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": str(data)}
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": bridge, "type": "bridge", "bridge": bridge}
    return Plugin(REFERENCE / "bridge", config | {"isGateway": True, "ipam": ipam})


def _add_and_delete(plugin: Plugin, where: str, number: int) -> tuple[float, float]:
    """Milliseconds of ADD and of DEL for a pod of its own."""
    container = f"rc-cni-{plugin.executable.name}-{number}"
    args = kubernetes_args("bench", f"pod-{number}", container)
    with netns.namespace("rc-cni-pod") as path, netns.entered(where):
        added, _ = plugin.call("ADD", container, str(path), args)
        deleted, _ = plugin.call("DEL", container, str(path), args)
    return added * 1e3, deleted * 1e3


def _figures(
    verb: str, index: int, times: dict[str, list[tuple[float, float]]], peers: dict[str, Plugin]
) -> list[Figure]:
    ours = tuple(one[index] for one in times["ours"])
    return [
        Figure(f"{verb} (peer: {name})", "ms", ours, tuple(one[index] for one in times[name]), aim=1.0)
        for name in peers
    ]


def _start(where: Node) -> float:
    """Milliseconds of an execution that asks nothing of the agent: fork, interpreter, exit."""
    plugin = Plugin(PLUGIN, {"cniVersion": "1.0.0"})
    with netns.entered(where.netns):
        seconds, _ = plugin.call("VERSION", "", "")
    return seconds * 1e3


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
