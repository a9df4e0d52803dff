# SPDX-License-Identifier: Apache-2.0
"""Other nodes come, go and change: what the node does for them is done, but none of its own pods waits for it.

`nft` is a script that can be held up or made to refuse, and is the system's otherwise.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdn.v1 import types_pb2
from tests.node.controller import Controller
from tests.node.node import Node, PluginError, Underlay, wait_until

pytestmark = pytest.mark.root

IN_PLACE = "what other nodes need of this one is in place"
NFT = """#!/bin/sh
while [ -e {folder}/hold ]; do touch {folder}/held; sleep 0.05; done
[ -e {folder}/refuse ] && [ "$1" = -f ] && {{ echo "not now" >&2; exit 1; }}
exec {nft} "$@"
"""


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    with Controller(tmp_path) as controller:
        yield controller


@pytest.fixture
def node(underlay: Underlay, controller: Controller) -> Iterator[Node]:
    with Node(underlay, 1, [controller.target], add_timeout="20") as node:
        script = node.folder / "bin" / "nft"
        script.parent.mkdir()
        script.write_text(NFT.format(folder=script.parent, nft=shutil.which("nft")))
        script.chmod(0o755)
        node.start_agent()
        node.wait_able()
        yield node
        assert node.running("agent"), f"the agent has ended; its log:\n{node.log()[-6000:]}"


@contextmanager
def told(node: Node, word: str) -> Iterator[None]:
    """What the script for nft is told: "hold" or "refuse"."""
    path = node.folder / "bin" / word
    path.touch()
    try:
        yield
    finally:
        path.unlink()


def wait_until_held(node: Node) -> None:
    wait_until((node.folder / "bin" / "held").exists, "the set-up to be held up")


def other(number: int, mac: str = "") -> types_pb2.NodeInfo:
    """Another node, 172.31.0.N."""
    address = f"172.31.0.{number}"
    return types_pb2.NodeInfo(
        name=f"node-{number}", addresses=[address], tunnel_address=address, tunnel_mac=mac
    )


def known(node: Node) -> set[str]:
    """The words of the rules in force, which name the other nodes' addresses."""
    return set(node.exec("nft", "list", "table", "inet", "sdn").replace(",", " ").split())


def not_set_up(node: Node) -> bool:
    try:
        node.cni("STATUS")
    except PluginError as problem:
        return "not set up" in problem.message
    return False


@contextmanager
def nodes_that_come(node: Node, controller: Controller) -> Iterator[None]:
    """One after the other, faster than the node can be set up once."""
    end = threading.Event()

    def come() -> None:
        number = 0
        while not end.wait(0.005):
            number += 1
            controller.tell_peers(node.name, [other(100 + number % 100)])

    coming = threading.Thread(target=come)
    coming.start()
    try:
        yield
    finally:
        end.set()
        coming.join()


def test_a_pod_is_made_while_the_change_of_another_node_is_not_done_yet(
    node: Node, controller: Controller
) -> None:
    with node.pod("web") as pod:
        with told(node, "hold"):
            controller.tell_peers(node.name, [other(97)])
            wait_until_held(node)
            controller.tell_peers(node.name, [other(97), other(99)])
            time.sleep(1.0)  # twice as long as the agent takes to tell that it is not able
            node.cni("STATUS")
            node.cni("ADD", pod)
            assert "172.31.0.97" not in known(node)
        wait_until(lambda: {"172.31.0.97", "172.31.0.99"} <= known(node), "the other nodes to be known")
        node.cni("DEL", pod)


def test_a_pod_waits_for_the_nodes_own_change_but_not_for_nodes_that_come_meanwhile(
    node: Node, controller: Controller
) -> None:
    controller.ranges = ["10.241.77.0/24", "fd00:10:241:77::/64"]
    with node.pod("web") as pod, ThreadPoolExecutor(1) as beside:
        with told(node, "hold"):
            controller.end_session(node.name)
            wait_until(lambda: not_set_up(node), "the agent to hear of its new ranges")
            controller.tell_peers(node.name, [other(99)])
            adding = beside.submit(node.cni, "ADD", pod)
            time.sleep(1.0)
            assert not adding.done()
        with nodes_that_come(node, controller):
            adding.result(timeout=30)
        assert any(address.startswith("10.241.77.") for address in pod.addresses())
        node.cni("DEL", pod)


def test_what_nft_refuses_of_other_nodes_is_told_and_tried_again_and_pods_are_made_meanwhile(
    node: Node, controller: Controller
) -> None:
    with node.pod("web") as pod:
        with told(node, "refuse"):
            controller.tell_peers(node.name, [other(99)])
            wait_until(lambda: "nft: not now" in node.log(), "the failure to be told")
            node.cni("ADD", pod)
            assert "172.31.0.99" not in known(node)
        wait_until(lambda: "172.31.0.99" in known(node), "the other node to be known")
        node.wait_for_event(IN_PLACE)
        node.cni("DEL", pod)


def test_what_ovs_vswitchd_refuses_of_other_nodes_is_told_and_pods_are_made_meanwhile(
    node: Node, controller: Controller
) -> None:
    with node.pod("web") as pod:
        controller.tell_peers(node.name, [other(99, mac="none")])
        wait_until(lambda: "tnl/neigh/set" in node.log(), "the failure to be told")
        node.cni("ADD", pod)
        controller.tell_peers(node.name, [other(99, mac="0a:00:00:00:00:99")])
        wait_until(lambda: "0a:00:00:00:00:99" in node.appctl("tnl/neigh/show"), "its neighbour entry")
        node.wait_for_event(IN_PLACE)
        node.cni("DEL", pod)
