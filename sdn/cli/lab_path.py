# SPDX-License-Identifier: Apache-2.0
"""The flows that one packet meets on its way between two pods of a lab.

Each switch is asked itself, by its own `ofproto/trace`, which flows the packet would hit; the controller's listing then
says whose they are and why they are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sdn.cli import switches
from sdn.cli.errors import CommandError
from sdn.pipeline.registers import GATEWAY_MAC, ROUTER_MAC, TUNNEL_PORT

if TYPE_CHECKING:
    from sdn.lab.lab import Lab
    from sdn.lab.state import PodRecord

#: " 1. ip,in_port=17,nw_src=10.244.2.3, priority 100, cookie 0x29c9265ed89a9ad"
_STEP = re.compile(
    r"\s*(?P<table>\d+)\. (?:(?P<match>.*), )?priority (?P<priority>\d+)(?:, cookie (?P<cookie>0x[0-9a-f]+))?"
)


def hops(lab: Lab, source: PodRecord, target: PodRecord) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """For each switch on the way of an IPv4 echo request: the node, the packet there, the flows that it meets."""
    if source.node == target.node:
        raise CommandError(f"{source.full_name} and {target.full_name} are on one node")
    own, peer = lab.spec.node(source.node), lab.spec.node(target.node)
    ends = f"icmp,nw_src={source.addresses[0]},nw_dst={target.addresses[0]}"
    from_pod = f"in_port={_ofport(source)},{ends},dl_src={source.mac},dl_dst={_mac(GATEWAY_MAC)},nw_ttl=64"
    yield source.node, from_pod, _met(lab, source.node, from_pod)
    outer = f"tun_src={own.ipv4},tun_dst={peer.ipv4}"
    inner = f"{ends},dl_src={_mac(ROUTER_MAC)},dl_dst={_mac(GATEWAY_MAC)},nw_ttl=63"
    from_tunnel = f"in_port={TUNNEL_PORT},{outer},{inner}"
    yield target.node, from_tunnel, _met(lab, target.node, from_tunnel)


def _met(lab: Lab, node: str, packet: str) -> list[dict[str, Any]]:
    done = lab.run(node, "ovs-appctl", "ofproto/trace", "br-int", packet)
    if done.returncode != 0:
        raise CommandError(f"{node}: the switch cannot trace {packet}: {' '.join(done.stderr.split())}")
    return steps(done.stdout, switches.fetch_flows(node))


def steps(trace: str, flows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The flows of a listing that a trace went through, in its order. Other bridges in it are left out."""
    found = []
    for line in _of_first_bridge(trace):
        step = _STEP.match(line)
        if step is None:
            continue
        candidates = [
            flow
            for flow in flows
            if (flow["table_number"], flow["priority"]) == (int(step["table"]), int(step["priority"]))
            and int(flow["cookie"], 16) == int(step["cookie"] or "0", 16)
        ]
        wanted = set((step["match"] or "").split(","))
        # The flows of one object differ in their matches only.
        candidates.sort(key=lambda flow: len(wanted ^ set(flow["match"].split(","))))
        found += candidates[:1]
    return found


def _of_first_bridge(trace: str) -> Iterator[str]:
    """A packet that went through the connection tracker comes back to its bridge under a new heading."""
    first = here = None
    for line in trace.splitlines():
        if line.startswith("bridge("):
            here = line
            first = first or here
        if here is not None and here == first:
            yield line


def _ofport(pod: PodRecord) -> int:
    from sdn.cli.objects import fetch

    for document in fetch("Pod", pod.namespace, pod.name):
        for attachment in document["status"].get("attachments", []):
            if attachment["containerID"] == pod.container_id:
                return int(attachment["ofport"])
    raise CommandError(f"the controller knows no port of pod {pod.full_name}")


def _mac(value: int) -> str:
    return ":".join(f"{byte:02x}" for byte in value.to_bytes(6, "big"))
