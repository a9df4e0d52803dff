# SPDX-License-Identifier: Apache-2.0
"""Daemons are killed (-9) while pods are made: everything converges, nothing leaks, nothing is doubled."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from sdn.v1 import types_pb2
from tests.node.controller import Controller
from tests.node.node import Node, PluginError, Pod, Underlay, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def node(underlay: Underlay, controller: Controller) -> Iterator[Node]:
    controller.nodes.clear()
    controller.attachments.clear()
    with Node(underlay, 1, [controller.target]) as node:
        node.start_agent()
        node.wait_able()
        yield node


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Does the work while the context's body runs, and raises what it raised. Daemons are started by the body: the
    kernel ends them with the thread that started them.
    """
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


def used(node: Node) -> list[int]:
    return [usage.used for usage in node.state().ranges]


def test_an_agent_killed_at_any_point_of_an_add_leaks_nothing(node: Node, controller: Controller) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with node.pod("kept") as kept:
        result = node.cni("ADD", kept)
        for turn in range(12):
            with node.pod(f"p{turn}") as pod:
                killer = threading.Timer(chance.uniform(0.0, 0.06), node.kill, args=("agent",))
                killer.start()
                made = _try_add(node, pod)
                killer.join()
                node.start_agent()
                node.wait_able()
                # What a runtime does: after a failure DEL, after success another ADD must find it as it is.
                if made is not None:
                    assert node.cni("ADD", pod) == made
                    assert len(node.pod_links()) == len(node.pod_ports()) == 2
                node.cni("DEL", pod)
            assert node.pod_links() == {result["interfaces"][0]["name"]}
            wait_until(lambda: node.pod_ports() == node.pod_links(), "ports and links to agree")
            assert used(node) == [1, 1]
            wait_until(
                lambda: controller.pods(node.name) == {"default/kept"}, "the controller to know only one"
            )
        node.cni("CHECK", kept, prevResult=result)
        node.cni("DEL", kept)


def _try_add(node: Node, pod: Pod) -> dict[str, object] | None:
    try:
        return dict(node.cni("ADD", pod))
    except PluginError as error:
        assert error.code == 11, error
        return None


def test_a_pod_whose_add_was_cut_off_is_gone_when_the_agent_is_back(
    node: Node, controller: Controller
) -> None:
    controller.confirms.clear()
    try:
        with node.pod("web") as pod:
            adding = threading.Thread(target=_try_add, args=(node, pod))
            adding.start()
            wait_until(lambda: len(node.pod_ports()) == 1, "the port")
            node.kill("agent")
            assert len(node.pod_links()) == 1
            adding.join()
            node.start_agent()
            assert node.pod_links() == set()
            assert node.pod_ports() == set()
            assert used(node) == [0, 0]
    finally:
        controller.confirms.set()


def test_pods_that_went_while_the_agent_was_away_give_their_addresses_back(node: Node) -> None:
    with node.pod("gone") as gone, node.pod("kept") as kept:
        lost = node.cni("ADD", gone)["interfaces"][0]["name"]
        result = node.cni("ADD", kept)
        node.kill("agent")
        node.exec("ip", "link", "delete", lost)
        node.start_agent()
        assert used(node) == [1, 1]
        assert node.pod_ports() == {result["interfaces"][0]["name"]}
        node.cni("DEL", gone)
        node.cni("DEL", kept)


def test_what_bears_our_name_and_has_no_record_is_removed(node: Node) -> None:
    node.kill("agent")
    node.exec("ip", "link", "add", "sdn-p999", "type", "veth", "peer", "name", "stray")
    node.vsctl("add-port", "br-int", "sdn-p998")
    node.start_agent()
    assert node.pod_links() == set()
    assert node.pod_ports() == set()


def test_a_database_that_was_made_anew_gets_everything_again(node: Node) -> None:
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        port = node.vsctl("get", "interface", result["interfaces"][0]["name"], "ofport")
        node.vsctl("--", "del-br", "br-int", "--", "del-br", "br-phy")

        def back() -> bool:
            if "br-int" not in node.vsctl("list-br").split() or node.pod_ports() != node.pod_links():
                return False
            return node.vsctl("get", "interface", result["interfaces"][0]["name"], "ofport") == port

        wait_until(back, "the bridges and the port", seconds=90)
        node.wait_able()
        node.cni("CHECK", pod, prevResult=result)
        assert node.ipv4 in node.exec("ip", "addr", "show", "dev", "br-phy")
        node.cni("DEL", pod)


def test_ovsdb_server_killed_while_pods_are_made(node: Node) -> None:
    with node.pod("before") as before:
        result = node.cni("ADD", before)
        for turn in range(3):
            with node.pod(f"p{turn}") as pod:
                node.kill("ovsdb-server")
                with beside(partial(node.cni, "ADD", pod)):
                    time.sleep(0.7)
                    node.start_ovsdb()
                node.cni("CHECK", before, prevResult=result)
                node.kill("ovsdb-server")
                node.cni("DEL", pod)
                node.start_ovsdb()
            wait_until(lambda: len(node.pod_ports()) == 1, "the port of the removed pod to go")
            wait_until(lambda: used(node) == [1, 1], "the address of the removed pod to come back")
        node.cni("DEL", before)


@pytest.mark.parametrize("end", ["kill -9", "exit --cleanup"])
def test_after_vswitchd_ended_the_node_is_itself_again(node: Node, controller: Controller, end: str) -> None:
    peer = types_pb2.NodeInfo(name="node-9", addresses=["172.31.0.99"], tunnel_address="172.31.0.99")
    peer.tunnel_mac = "0a:00:00:00:00:99"
    controller.tell_peers(node.name, [peer])
    wait_until(lambda: "0a:00:00:00:00:99" in node.appctl("tnl/neigh/show"), "the peer's neighbour entry")
    routes = node.exec("ip", "route"), node.exec("ip", "-6", "route", "show", "default")
    with node.pod("web") as pod:
        node.ofctl("add-flow", "actions=NORMAL")
        result = node.cni("ADD", pod)
        if end == "exit --cleanup":  # it takes its taps along, and with them the node's address
            node.appctl(*end.split())
            wait_until(lambda: node.ipv4 not in node.exec("ip", "addr"), "br-phy to go")
        node.kill("ovs-vswitchd")
        with pytest.raises(PluginError) as caught:
            node.cni("STATUS")
        assert caught.value.code == 51
        node.start_vswitchd()
        wait_until(lambda: node.ipv4 in node.exec("ip", "addr"), "the node's address")
        wait_until(lambda: node.exec("ip", "route") == routes[0], "the node's routes")
        wait_until(lambda: node.exec("ip", "-6", "route", "show", "default") == routes[1], "the IPv6 default")
        wait_until(lambda: "0a:00:00:00:00:99" in node.appctl("tnl/neigh/show"), "the neighbour entry again")
        wait_until(lambda: "10.241.1.1" in node.exec("ip", "addr", "show", "dev", "sdn-gw0"), "the gateway")
        node.wait_able()
        node.cni("CHECK", pod, prevResult=result)
        node.ofctl("add-flow", "actions=NORMAL")
        pod.exec("ping", "-c1", "-W5", "10.241.1.1")
        pod.exec("ping", "-c1", "-W5", "fd00:31::1")
        node.cni("DEL", pod)


def test_vswitchd_killed_while_pods_are_made(node: Node) -> None:
    with node.pod("a") as first, node.pod("b") as second:
        node.kill("ovs-vswitchd")
        with beside(partial(node.cni, "ADD", first)):
            time.sleep(1.0)
            node.start_vswitchd()
        result = node.cni("ADD", first)
        node.wait_able()
        node.cni("CHECK", first, prevResult=result)
        node.cni("ADD", second)
        node.cni("DEL", first)
        node.cni("DEL", second)
        wait_until(lambda: node.pod_ports() == set(), "no ports")


def test_a_restarted_agent_takes_nothing_away_from_existing_pods(node: Node) -> None:
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        node.ofctl("add-flow", "actions=NORMAL")
        losses: list[str] = []
        ping = threading.Thread(target=lambda: losses.append(_ping(pod)))
        ping.start()
        for _ in range(2):
            time.sleep(0.5)
            node.kill("agent")
            node.start_agent()
        node.kill("agent", signal.SIGTERM)
        ping.join()
        assert " 0% packet loss" in losses[0], losses[0]
        node.start_agent()
        node.cni("DEL", pod)


def _ping(pod: Pod) -> str:
    return pod.exec("ping", "-c", "100", "-i", "0.05", "-W5", "10.241.1.1", check=False)
