# SPDX-License-Identifier: Apache-2.0
"""Nodes whose switch is started anew while no controller can be reached: what was in force is in force again.

Datagrams a hundred times a second, within a node and between nodes, on ways that policies allow and on ways that they
deny, and requests to a Service.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.alone.image import ImageFile
from sdn.lab import faults
from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import wait_until
from tests.lab import labs
from tests.lab import policy_documents as documents
from tests.lab import service_objects as objects
from tests.lab.policy_stream import Datagram, Stream, Way
from tests.lab.service_clients import ask
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Request

pytestmark = pytest.mark.alone

CONTROLLERS = ("controller-1", "controller-2", "controller-3")
NODES = ("node-1", "node-2")
STREAM_PORT, SERVICE_PORT = 7000, 8080
RATE = 100
#: Seconds before the end in which a datagram may still be on its way to who counts it.
SLACK = 2.0
#: name, node, role, and whether only friends may reach it.
PODS = (
    ("open-1", "node-1", "friend", False),
    ("open-2", "node-2", "stranger", False),
    ("closed-1", "node-1", "friend", True),
    ("friend-2", "node-2", "friend", False),
    ("stranger-1", "node-1", "stranger", False),
)


@dataclass
class Cluster:
    """The lab, its pods, and the ways between them."""

    lab: Lab
    pods: dict[str, PodRecord]
    allowed: list[Way]
    denied: list[Way]

    def service(self) -> list[Request]:
        """To the Service, from a pod of each node."""
        return [
            Request(self.pods[name].netns, transport, objects.cluster_ip(self.lab, "web", family), 80)
            for name in ("stranger-1", "friend-2")
            for transport in ("tcp", "udp")
            for family in ("IPv4", "IPv6")
        ]

    def ports(self) -> dict[str, str]:
        """Every port of br-int with its number, by node."""
        return {node: _ports(self.lab, node) for node in NODES}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with labs.running("alone", nodes=2, controllers=3, store="etcd", etcd=1) as lab, Servers() as servers:
        pods = {name: lab.pod_add(name, node=node) for name, node, _, _ in PODS}
        told = [
            documents.pod(pods[name], {"role": role, "access": "closed" if closed else "open"})
            for name, _, role, closed in PODS
        ]
        for name in ("open-1", "open-2"):
            servers.everywhere(pods[name].netns, name, pods[name].addresses, [SERVICE_PORT])
        friends = {"from": [{"podSelector": documents.labelled(role="friend")}]}
        policy = documents.network_policy(
            "friends-only", "default", documents.labelled(access="closed"), ingress=[friends]
        )
        web = objects.service("web", objects.both(80, SERVICE_PORT), {"access": "open"})
        ready = [document for document in told if document["metadata"]["name"].startswith("open")]
        others = [document for document in told if document not in ready]
        for document in others:
            document["status"]["conditions"][0]["status"] = "False"
        documents.declare(lab, [*told, policy, web])
        yield Cluster(
            lab,
            pods,
            _ways(pods, [("friend-2", "closed-1"), ("open-1", "closed-1"), ("stranger-1", "open-2")]),
            _ways(pods, [("stranger-1", "closed-1"), ("open-2", "closed-1")]),
        )


def _ways(pods: dict[str, PodRecord], pairs: Sequence[tuple[str, str]]) -> list[Way]:
    return [
        Way(source, target, pods[source].netns, pods[target].netns, address, STREAM_PORT, same)
        for source, target in pairs
        for same in [pods[source].node == pods[target].node]
        for address in pods[target].addresses
    ]


def _ports(lab: Lab, node: str) -> str:
    shown = lab.run(
        node, "ovs-vsctl", "--timeout=10", "-f", "csv", "--columns=name,ofport", "list", "Interface"
    )
    return "\n".join(sorted(shown.stdout.split()))


def _flows(lab: Lab, node: str) -> list[str]:
    """The switch's flows but for those that it has learned."""
    shown = lab.run(node, "ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "--no-stats", "br-int").stdout
    flows = (line.strip() for line in shown.splitlines() if "actions=" in line)
    return sorted(flow for flow in flows if "_timeout" not in flow.partition("actions=")[0])


def _kept(lab: Lab, node: str) -> int:
    """How many flows the agent has on disk."""
    image = ImageFile(lab.folder / node / "agent").load()
    return len(image.flows) if image is not None else 0


def _wait_kept(lab: Lab) -> dict[str, list[str]]:
    """Wait until the agents have on disk what the switches hold, which they read with some delay; what that is."""
    held = {node: _flows(lab, node) for node in NODES}
    wait_until(
        lambda: all(_kept(lab, node) == len(held[node]) > 0 for node in NODES),
        "the agents to keep what the switches hold",
        60,
        because=lambda: str({node: (_kept(lab, node), len(held[node])) for node in NODES}),
    )
    return held


def _kill_switches(lab: Lab) -> float:
    """Both switches end at once and are started again by their supervisor; when they were killed."""
    pids = {node: lab.kill(f"{node}/ovs-vswitchd") for node in NODES}
    killed = time.monotonic()
    for node, pid in pids.items():
        lab.wait_restarted(f"{node}/ovs-vswitchd", pid)
    return killed


def _gap(datagrams: Sequence[Datagram], since: float) -> float:
    """Seconds between the last datagram that arrived before, and the first of those that arrive again."""
    arrived = [one.sent for one in datagrams if one.received]
    before = max(sent for sent in arrived if sent < since)
    return min(sent for sent in arrived if sent > since + 0.05) - before


def _assert_denied(stream: Stream, cluster: Cluster) -> None:
    leaked = [(way.source, one) for way in cluster.denied for one in stream.record[way] if one.received]
    sent = sum(len(stream.record[way]) for way in cluster.denied)
    assert sent > 100
    assert not leaked, f"{len(leaked)} of {sent} denied datagrams arrived: {leaked[:5]}"


def _lost(stream: Stream, ways: Sequence[Way], first: float, last: float) -> list[tuple[str, float]]:
    return [
        (f"{way.source}->{way.destination}", round(one.sent - first, 3))
        for way in ways
        for one in stream.record[way]
        if first < one.sent < last and not one.received
    ]


def test_switches_that_are_started_anew_without_any_controller_forward_again_and_lose_nothing_when_one_returns(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = cluster.lab
    held, ports = _wait_kept(lab), cluster.ports()
    assert all(answer.outcome == "answered" for answer in ask(*cluster.service()))
    service = cluster.service()
    faults.kill_for_good(lab, *CONTROLLERS)
    with Stream([*cluster.allowed, *cluster.denied], RATE, tmp_path / "alone") as stream:
        time.sleep(2)
        killed = _kill_switches(lab)
        for node in NODES:
            wait_until(
                lambda node=node: _flows(lab, node) == held[node], f"{node} to have its flows back", 60
            )
        time.sleep(3)
        settled = time.monotonic()
        # Answers and not only forwarding: endpoints on both nodes.
        answers = ask(*service)
        time.sleep(1 + SLACK)
        end = time.monotonic() - SLACK
    assert [answer.outcome for answer in answers] == ["answered"] * len(answers)
    for way in cluster.allowed:
        print(
            f"gap {way.source} -> {way.destination} {way.address}: {_gap(stream.record[way], killed):.2f} s"
            f" ({'one node' if way.same_node else 'between nodes'})"
        )
    assert _lost(stream, cluster.allowed, settled, end) == []
    _assert_denied(stream, cluster)
    assert cluster.ports() == ports, "ports have their numbers without a controller"

    with Stream([*cluster.allowed, *cluster.denied], RATE, tmp_path / "back") as stream:
        time.sleep(1)
        before, began = len(_compared(lab)), time.monotonic()
        for controller in CONTROLLERS:
            lab.start(controller)
        lab.wait_ready()
        time.sleep(3 + SLACK)
        end = time.monotonic() - SLACK
    assert _lost(stream, cluster.allowed, began, end) == []
    _assert_denied(stream, cluster)
    switches = lab.switches()
    assert {node: (switches[node].synchronized, switches[node].repaired) for node in NODES} == dict.fromkeys(
        NODES, (True, 0)
    )
    assert {node: _flows(lab, node) for node in NODES} == held
    # Once a switch, or more often where it changed hands again meanwhile.
    compared = _compared(lab)[before:]
    assert {item["node"] for item in compared} == set(NODES)
    assert {item["differing"] for item in compared} == {0}


def _compared(lab: Lab) -> list[dict[str, Any]]:
    """What the controllers have logged of each comparison with a switch, in the order of time."""
    logs = [lab.log(controller).read_text(encoding="utf-8") for controller in CONTROLLERS]
    lines = [json.loads(line) for log in logs for line in log.splitlines() if "switch compared" in line]
    return sorted(lines, key=lambda line: str(line["time"]))


def test_a_switch_whose_controllers_have_lost_their_store_forwards_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The controllers are there, and connect, but none of them may write."""
    lab = cluster.lab
    held = _wait_kept(lab)
    with faults.store_without_majority(lab):
        time.sleep(8)  # The leases have ended by now.
        with Stream([*cluster.allowed, *cluster.denied], RATE, tmp_path / "storeless") as stream:
            time.sleep(1)
            killed = _kill_switches(lab)
            for node in NODES:
                wait_until(
                    lambda node=node: _flows(lab, node) == held[node], f"{node} to have its flows back", 60
                )
            time.sleep(3)
        for way in cluster.allowed:
            print(f"gap {way.source} -> {way.destination}: {_gap(stream.record[way], killed):.2f} s")
        _assert_denied(stream, cluster)
    lab.wait_ready()
    assert {node: _flows(lab, node) for node in NODES} == held
