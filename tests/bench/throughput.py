# SPDX-License-Identifier: Apache-2.0
"""iperf3 from pod to pod through our pipeline, beside the same datapath with one NORMAL flow.

The peer is a second bridge in the same switch process, with two namespaces that are set up as pods are
(tests/bench/normal_bridge.py), so that what differs is the pipeline. One TCP connection at a time, both
families, by turns. Between nodes there is no peer: the figure says what encapsulation costs beside the same
node.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Final

from sdn.lab.lab import Lab
from tests.bench import frame, iperf, process
from tests.bench.cluster import cluster, node
from tests.bench.frame import Figure, Report
from tests.bench.normal_bridge import normal_bridge

LAB: Final = "rc-iperf"
ROUNDS: Final = 10
QUICK_ROUNDS: Final = 1
SECONDS: Final = 3
QUICK_SECONDS: Final = 1
AIM: Final = 0.95


@dataclass(frozen=True)
class Transfer:
    """One run of iperf3: its rate, and what the switch paid for it."""

    megabits_a_second: float
    #: Milliseconds of processor time of ovs-vswitchd for each gigabit.
    switch_cpu: float


def run(quick: bool) -> Report:
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    figures = []
    with cluster(LAB, nodes=2) as lab:
        client, server = (lab.pod_add(name, "bench", "node-1") for name in ("client", "server"))
        remote = lab.pod_add("remote", "bench", "node-2")
        here = node(lab, "node-1")
        switch = lab.process("node-1/ovs-vswitchd").pid
        assert switch is not None
        with normal_bridge(here.netns, here.database, "netdev", client.mtu, "rc-iperf-normal") as normal:
            for ours, peer in zip(server.addresses, normal.addresses, strict=True):
                mine, theirs = frame.interleave(
                    partial(_transfer, switch, client.netns, server.netns, ours, seconds),
                    partial(_transfer, switch, normal.client, normal.server, peer, seconds),
                    rounds,
                )
                figures += _figures(f"TCP {_family(ours)}, same node", mine, theirs)
            notes = [_datapath(lab)]
        for address in remote.addresses:
            rates = tuple(iperf.megabits(client.netns, remote.netns, address, seconds) for _ in range(rounds))
            figures.append(Figure(f"TCP {_family(address)}, other node", "Mbit/s", rates, better="higher"))
    return Report(
        name="throughput",
        ours="pod to pod through the pipeline",
        peer="same datapath, one NORMAL flow",
        figures=tuple(figures),
        notes=tuple(notes),
    )


def _transfer(switch: int, client: str, server: str, address: str, seconds: int, _round: int) -> Transfer:
    before = process.cpu_seconds(switch)
    rate = iperf.megabits(client, server, address, seconds)
    used = process.cpu_seconds(switch) - before
    return Transfer(rate, used * 1e3 / (rate * seconds / 1e3))


def _figures(name: str, ours: tuple[Transfer, ...], peer: tuple[Transfer, ...]) -> list[Figure]:
    """The rate, with the aim; and what a loaded machine hides least, the switch's processor time."""
    rates, costs = [
        (tuple(read(one) for one in ours), tuple(read(one) for one in peer))
        for read in (attrgetter("megabits_a_second"), attrgetter("switch_cpu"))
    ]
    return [
        Figure(name, "Mbit/s", rates[0], rates[1], better="higher", aim=AIM),
        Figure(f"{name}, switch's CPU", "ms/Gbit", costs[0], costs[1]),
    ]


def _datapath(lab: Lab) -> str:
    """How the datapath found its way: what costs is a second pass, or a packet that its first cache does not know."""
    shown = lab.run("node-1", "ovs-appctl", "dpif-netdev/pmd-stats-show").stdout
    counters = {
        name.strip(): float(value)
        for name, _, value in (
            line.partition(":") for line in shown.partition("main thread:")[2].splitlines()
        )
        if value
    }
    passes = counters["packets received"] + counters["packet recirculations"]
    return (
        f"same node, both bridges: {counters['avg. datapath passes per packet']:.2f} datapath passes per packet, "
        f"{counters['emc hits'] / passes:.1%} of them found in the exact-match cache"
    )


def _family(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
