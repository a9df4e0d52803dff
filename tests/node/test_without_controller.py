# SPDX-License-Identifier: Apache-2.0
"""What the agent does when the controller is silent, refuses, or is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, PluginError, Underlay, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def node(underlay: Underlay, controller: Controller) -> Iterator[Node]:
    """A node that waits two seconds only."""
    controller.confirms.set()
    controller.refuses = ""
    node = Node(underlay, 1, [controller.target], add_timeout="2")
    controller.nodes.clear()
    with node:
        node.start_agent()
        node.wait_able()
        yield node


def nothing_is_left(node: Node) -> None:
    assert node.pod_links() == set()
    assert node.pod_ports() == set()
    assert list(node.state().attachments) == []


def test_add_is_undone_with_code_11_when_nobody_confirms(node: Node, controller: Controller) -> None:
    controller.confirms.clear()
    with node.pod("web") as pod:
        with pytest.raises(PluginError, match="no controller confirmed pod default/web") as caught:
            node.cni("ADD", pod)
        assert caught.value.code == 11
        assert pod.addresses_if_any() == set()
        nothing_is_left(node)
        wait_until(lambda: controller.pods(node.name) == set(), "the controller to forget the pod")
        controller.confirms.set()
        node.cni("ADD", pod)
        node.cni("DEL", pod)


def test_add_is_undone_when_the_controller_refuses(node: Node, controller: Controller) -> None:
    controller.refuses = "pod default/web: there is another one"
    with node.pod("web") as pod:
        with pytest.raises(PluginError, match="there is another one") as caught:
            node.cni("ADD", pod)
        assert caught.value.code == 101
        nothing_is_left(node)


def test_without_a_controller_add_says_try_again_and_the_rest_works(
    node: Node, controller: Controller
) -> None:
    with node.pod("old") as old, node.pod("new") as new:
        result = node.cni("ADD", old)
        controller.stop()
        try:
            wait_until(lambda: not node.state().connected, "the agent to notice")
            with pytest.raises(PluginError) as caught:
                node.cni("STATUS")
            assert caught.value.code == 50
            with pytest.raises(PluginError) as caught:
                node.cni("ADD", new)
            assert caught.value.code == 11
            node.cni("CHECK", old, prevResult=result)
            assert node.cni("ADD", old) == result
            assert node.pod_links() == {result["interfaces"][0]["name"]}
            node.cni("DEL", old)
            nothing_is_left(node)
        finally:
            controller.start()
        node.wait_able()
        wait_until(lambda: controller.pods(node.name) == set(), "the controller to hear of the removal")


def test_an_add_that_waits_is_confirmed_by_the_controller_that_comes(
    node: Node, controller: Controller
) -> None:
    controller.stop()
    wait_until(lambda: not node.state().connected, "the agent to notice")
    starter = threading.Timer(0.5, controller.start)
    starter.start()
    try:
        with node.pod("web") as pod:
            node.cni("ADD", pod)
            assert controller.pods(node.name) == {"default/web"}
            node.cni("DEL", pod)
    finally:
        starter.join()


def test_an_agent_that_starts_without_a_controller_serves_what_it_had(
    node: Node, controller: Controller
) -> None:
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        controller.stop()
        try:
            node.kill("agent")
            node.start_agent()
            wait_until(lambda: "sdn-gw0" in node.exec("ip", "-br", "link"), "the gateway port")
            node.cni("CHECK", pod, prevResult=result)
            assert node.cni("ADD", pod) == result
            assert list(node.state().node.pod_ranges) == ["10.241.1.0/24", "fd00:10:241:1::/64"]
        finally:
            controller.start()
        node.wait_able()
        wait_until(lambda: node.state().attachments[0].programmed, "the pod to be confirmed again")
        assert controller.pods(node.name) == {"default/web"}
        node.cni("DEL", pod)


def test_the_next_controller_of_the_list_is_tried(
    underlay: Underlay, controller: Controller, tmp_path: Path
) -> None:
    controller.nodes.clear()
    with Node(underlay, 2, ["127.0.0.1:1", f"unix:{tmp_path}/nobody", controller.target]) as node:
        node.start_agent()
        node.wait_able()


def test_a_second_node_of_the_same_name_is_told_so(underlay: Underlay, controller: Controller) -> None:
    controller.nodes.clear()
    with Node(underlay, 1, [controller.target]) as first, Node(underlay, 2, [controller.target]) as second:
        second.name = first.name
        first.start_agent()
        first.wait_able()
        second.start_agent()
        wait_until(lambda: "another node is registered as node-1" in second.log(), "the refusal in the log")
        assert not second.state().connected
        assert first.state().connected
