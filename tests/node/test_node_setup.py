# SPDX-License-Identifier: Apache-2.0
"""The node's own set-up on the userspace datapath: uplink, gateway, what leaves the cluster, and what may not be heard.

The switch forwards like an ordinary one here (a NORMAL flow), so that what is seen is the node's doing.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, Pod, Underlay, wait_until

pytestmark = pytest.mark.root

WHOAMI = Path(__file__).with_name("whoami.py")
ASK = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[3]))
s.sendto(b"who am I", (address, port))
print(s.recv(2048).decode())
"""


@contextmanager
def whoami(netns: str, address: str, port: int = 7777) -> Iterator[subprocess.Popen[str]]:
    """A server in a namespace that tells everybody who they are."""
    command = ["ip", "netns", "exec", netns, sys.executable, str(WHOAMI), address, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        yield server
    finally:
        server.kill()
        server.communicate()


def seen_as(pod: Pod, address: str, port: int = 7777) -> str:
    """The source address that a server sees of a pod; asks again, since the first datagram may wait for a neighbour."""
    for _ in range(5):
        answer = pod.exec(sys.executable, "-c", ASK, address, str(port), "2", check=False).strip()
        if answer:
            return answer
    return "nobody"


@pytest.fixture
def pod(node: Node) -> Iterator[Pod]:
    node.ofctl("add-flow", "actions=NORMAL")
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        yield pod
        node.cni("DEL", pod)
    node.ofctl("del-flows")


def own_address(pod: Pod, version: int) -> str:
    separator = "." if version == 4 else ":"
    return next(a.partition("/")[0] for a in pod.addresses() if separator in a)


@pytest.mark.parametrize("version", [4, 6])
def test_what_leaves_the_cluster_has_the_nodes_address(
    node: Node, underlay: Underlay, pod: Pod, version: int
) -> None:
    outside = "172.31.0.1" if version == 4 else "fd00:31::1"
    with whoami(underlay.name, outside):
        assert seen_as(pod, outside) == (node.ipv4 if version == 4 else node.ipv6)


@pytest.mark.parametrize("version", [4, 6])
def test_pods_and_their_node_see_each_others_own_addresses(node: Node, pod: Pod, version: int) -> None:
    its = node.ipv4 if version == 4 else node.ipv6
    with whoami(node.netns, its):
        assert seen_as(pod, its) == own_address(pod, version)
    with whoami(pod.netns_name, own_address(pod, version)):
        answer = node.exec(sys.executable, "-c", ASK, own_address(pod, version), "7777", "10")
        assert answer.strip() == its


def test_the_uplink_keeps_nothing_of_its_own_and_nobody_is_answered_twice(
    node: Node, underlay: Underlay
) -> None:
    (uplink,) = json.loads(node.exec("ip", "-json", "addr", "show", "dev", "eth0"))
    assert uplink["addr_info"] == []
    for address in (node.ipv4, node.ipv6):
        answer = underlay.exec("ping", "-c3", "-i0.2", "-W5", address)
        assert "DUP" not in answer
        assert " 0% packet loss" in answer


def test_an_address_that_is_given_to_the_uplink_moves_to_br_phy(node: Node) -> None:
    node.exec("ip", "addr", "add", "172.31.0.77/24", "dev", "eth0")
    node.exec("ip", "route", "add", "192.0.2.0/24", "via", "172.31.0.1", "dev", "eth0")
    node.exec("ip", "link", "set", "eth0", "promisc", "on")  # the agent hears of changes of the interface
    node.exec("ip", "link", "set", "eth0", "alias", "x")

    def moved() -> bool:
        return (
            "172.31.0.77" in node.exec("ip", "addr", "show", "dev", "br-phy")
            and "172.31.0.77" not in node.exec("ip", "addr", "show", "dev", "eth0")
            and "br-phy" in node.exec("ip", "route", "show", "192.0.2.0/24")
        )

    wait_until(moved, "address and route to move")
    # Configured anew with one address, that one is the truth.
    assert node.ipv4 in node.exec("ip", "addr", "show", "dev", "br-phy")


def test_an_agent_that_lost_its_state_finds_the_nodes_addresses_on_br_phy(underlay: Underlay) -> None:
    with Node(underlay, 7, ["172.31.0.1:1"]) as node:
        node.start_agent()
        node.kill("agent")
        shutil.rmtree(node.folder / "state")
        node.start_agent(wait=False)
        node.wait_for_event("this node", after=2)
        assert node.ipv4 in node.exec("ip", "addr", "show", "dev", "br-phy")
        # It knows them for good: with the switch, br-phy goes, and everything that was on it.
        node.kill("ovs-vswitchd", signal.SIGTERM)
        node.start_vswitchd()
        wait_until(lambda: "172.31.0.1" in node.exec("ip", "route", "show", "default"), "the default route")


def test_a_pod_cannot_speak_to_the_nodes_stack_around_the_switch(node: Node, pod: Pod) -> None:
    """It writes the MAC of the node's end of its link into its frames; the switch forwards nothing."""
    node.ofctl("del-flows")
    node.ofctl("add-flow", "actions=drop")
    (name,) = node.pod_links()
    (link,) = json.loads(node.exec("ip", "-json", "link", "show", "dev", name))
    pod.exec("ip", "neigh", "replace", "10.241.1.1", "lladdr", link["address"], "dev", "eth0")
    pod.exec("ip", "-6", "neigh", "replace", "fd00:10:241:1::1", "lladdr", link["address"], "dev", "eth0")
    for address in (node.ipv4, node.ipv6):
        with whoami(node.netns, address) as server:
            assert server.stdout is not None
            for _ in range(3):
                pod.exec(sys.executable, "-c", ASK, address, "7777", "0.2", check=False)
            # Proof that it would have arrived: without the rule (and with IPv6 on the port) it does.
            if ":" not in address:
                node.exec("nft", "flush", "chain", "inet", "sdn", "pod-ports")
                pod.exec(sys.executable, "-c", ASK, address, "7777", "0.2", check=False)
                assert server.stdout.readline().strip() == own_address(pod, 4)
            server.kill()
            assert server.stdout.read() == ""
    node.exec("nft", "delete", "table", "inet", "sdn")
    wait_until(lambda: "pod-ports" in node.exec("nft", "list", "ruleset"), "the rules to come back")
    # ARP for the node's address, asked on the port itself, is answered by nobody.
    pod.exec("ip", "neigh", "flush", "dev", "eth0")
    assert "Unicast" not in pod.exec("arping", "-c2", "-w2", "-I", "eth0", node.ipv4, check=False)


def test_set_up_again_changes_nothing(node: Node) -> None:
    def picture() -> str:
        commands = [("ip", "addr"), ("ip", "route"), ("ip", "-6", "route"), ("nft", "list", "ruleset")]
        return "".join(node.exec(*command) for command in commands) + node.vsctl("show")

    before = picture()
    node.kill("agent")
    node.start_agent()
    node.wait_able()
    time.sleep(1)
    assert picture() == before


@pytest.mark.parametrize(("encapsulation", "mtu"), [("vxlan", 1450), ("gre", 1458)])
def test_the_mtu_follows_the_encapsulation(
    underlay: Underlay, controller: Controller, encapsulation: str, mtu: int
) -> None:
    controller.nodes.pop("node-3", None)
    with Node(underlay, 3, [controller.target], encapsulation=encapsulation) as node:
        node.start_agent()
        node.wait_able()
        assert node.state().node.mtu == mtu
        assert node.vsctl("get", "interface", "sdn-tun0", "type") == encapsulation
        (link,) = json.loads(node.exec("ip", "-json", "link", "show", "dev", "sdn-gw0"))
        assert link["mtu"] == mtu
        with node.pod("web") as pod:
            assert node.cni("ADD", pod)["interfaces"][1]["mtu"] == mtu
            node.cni("DEL", pod)
