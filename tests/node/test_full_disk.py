# SPDX-License-Identifier: Apache-2.0
"""The agent while the disk of its state is full, at its start or from some moment on: a tmpfs that is filled up."""

from __future__ import annotations

import errno
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.alone.image import ImageError, ImageFile
from agent.nodesetup.facts import Assignment
from agent.state import State
from sdn.v1 import types_pb2
from tests.node.controller import Controller
from tests.node.node import Node, PluginError, Underlay, run, wait_until

pytestmark = pytest.mark.root

FLOW = "table=0,priority=7,actions=drop"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    with Controller(tmp_path) as controller:
        yield controller


@pytest.fixture
def node(underlay: Underlay, controller: Controller) -> Iterator[Node]:
    """A node whose agent has four megabytes."""
    with Node(underlay, 1, [controller.target], add_timeout="5") as node:
        (node.folder / "state").mkdir(mode=0o700)
        run("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "sdn-test-state", str(node.folder / "state"))
        try:
            node.start_agent()
            node.wait_able()
            yield node
            assert node.running("agent"), f"the agent has ended; its log:\n{node.log()[-6000:]}"
        finally:
            node.kill("agent")
            # The DNS server, which outlives it, may have files open there.
            run("umount", "--lazy", str(node.folder / "state"))


def fill(node: Node) -> None:
    """Leave not one byte."""
    step = 1 << 20
    with (node.folder / "state" / "ballast").open("ab", buffering=0) as ballast:
        while step:
            try:
                ballast.write(bytes(step))
            except OSError as problem:
                assert problem.errno == errno.ENOSPC
                step //= 2


def free(node: Node) -> None:
    (node.folder / "state" / "ballast").unlink()


def kept(node: Node) -> int:
    """How many flows the image of the switch has."""
    try:
        image = ImageFile(node.folder / "state").load()
    except ImageError:
        return 0
    return len(image.flows) if image is not None else 0


def test_pods_can_be_removed_and_no_new_ones_made(node: Node, controller: Controller) -> None:
    with node.pod("old") as old, node.pod("new") as new:
        node.cni("ADD", old)
        fill(node)
        node.cni("DEL", old)
        assert node.pod_links() == node.pod_ports() == set()
        assert old.addresses_if_any() == set()
        wait_until(lambda: controller.pods(node.name) == set(), "the controller to hear of it")
        with pytest.raises(PluginError, match="disk is full") as caught:
            node.cni("ADD", new)
        assert caught.value.code == 5
        assert node.pod_links() == set()
        free(node)

        def comes_and_goes() -> bool:
            node.cni("ADD", new)
            node.cni("DEL", new)
            time.sleep(0.2)  # each time the log of the agent's database grows, on this little disk
            return list(node.state().attachments) == []

        wait_until(comes_and_goes, "the rest of the old pod to go, while another comes and goes")


def test_what_a_controller_tells_is_in_force_and_on_disk_later(
    node: Node, controller: Controller, tmp_path: Path
) -> None:
    fill(node)
    peers = [types_pb2.NodeInfo(name="node-9", addresses=["172.31.0.99"], tunnel_address="172.31.0.99")]
    controller.tell_peers(node.name, peers)
    node.wait_for_event("what the controller assigned is not on disk")
    wait_until(lambda: "172.31.0.99" in node.exec("nft", "list", "ruleset"), "the other node to be known")
    assert peers_on_disk(node, tmp_path / "copy") == set()
    free(node)
    # It is looked at twice a minute; at once when an interface of the node's changes.
    node.exec("ip", "link", "set", "sdn-gw0", "down")
    wait_until(lambda: peers_on_disk(node, tmp_path / "copy") == {"node-9"}, "it to be on disk")


def peers_on_disk(node: Node, folder: Path) -> set[str]:
    """What an agent that starts now would find: names of other nodes."""
    shutil.copytree(node.folder / "state", folder, ignore=shutil.ignore_patterns("ballast"))
    state = State(folder)
    assignment = state.load("assignment", Assignment)
    state.close()
    shutil.rmtree(folder)
    return {peer.name for peer in assignment.peers} if assignment is not None else set()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_switch_that_is_started_anew_gets_its_flows_back_from_an_agent_that_starts_then(
    node: Node, controller: Controller, end: signal.Signals
) -> None:
    node.ofctl("add-flow", FLOW)
    wait_until(lambda: kept(node) == 1, "the image to be kept")
    controller.stop()
    node.kill("agent", end)
    fill(node)
    node.kill("ovs-vswitchd")
    node.start_vswitchd()
    node.start_agent()
    wait_until(lambda: "priority=7" in node.ofctl("dump-flows"), "the flow to be back")
    controller.start()
    node.wait_able()
    free(node)
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        node.cni("DEL", pod)
