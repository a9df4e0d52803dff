# SPDX-License-Identifier: Apache-2.0
"""A real agent among several controllers: its session and its switch follow them, and no pod suffers from it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.node.cluster import Cluster, cluster
from tests.node.node import Node, PluginError, Underlay, wait_until

pytestmark = pytest.mark.root

RELAY = Path(__file__).with_name("relay.py")
TARGETS = {f"tcp:172.31.0.1:{port}" for port in (6653, 6654, 6655)}


@contextmanager
def relay(underlay: Underlay, address: str, path: str) -> Iterator[subprocess.Popen[str]]:
    """A controller's address in the underlay, port 7000."""
    command = ["ip", "netns", "exec", underlay.name, sys.executable, str(RELAY), address, "7000", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, "a", "b", "c") as controllers:
        yield controllers


@pytest.fixture
def node(underlay: Underlay, three: Cluster) -> Iterator[Node]:
    """Its agent knows of one controller only, and that is not the owner."""
    three.give("node-1", "a")
    with Node(underlay, 1, [three["b"].target]) as node:
        node.start_agent()
        node.wait_able()
        yield node


def at(node: Node) -> str:
    """Name of the controller that has the session."""
    return node.state().controller


def wait_at(node: Node, name: str) -> None:
    wait_until(lambda: at(node) == name, f"the session to be at {name}")


def rows(node: Node) -> dict[str, str]:
    """br-int's controllers: targets and rows. No other bridge has any, and rows that are not in use are gone."""
    listed = node.vsctl("--format=json", "--columns=_uuid,target", "list", "controller")
    return {target: uuid for (_kind, uuid), target in json.loads(listed)["data"]}


@contextmanager
def watched(node: Node) -> Iterator[Callable[[], list[int]]]:
    """How many controllers br-int had with each change of them, the first number being how many it has before."""
    command = ["ovsdb-client", "monitor", f"unix:{node.folder}/db.sock", "Open_vSwitch", "Bridge"]
    with subprocess.Popen(
        [*command, "name,controller", "--format=json"], stdout=subprocess.PIPE, text=True
    ) as monitor:
        lines: list[str] = []

        def follow() -> None:
            assert monitor.stdout is not None
            lines.extend(iter(monitor.stdout.readline, ""))

        reader = threading.Thread(target=follow, daemon=True)
        reader.start()

        def numbers() -> list[int]:
            found: list[int] = []
            for line in lines:
                for row in json.loads(line)["data"]:
                    _uuid, action, name, controllers = row
                    if name == "br-int" and action in ("initial", "new", "insert"):
                        found.append(len(controllers[1]) if controllers[0] == "set" else 1)
            return found

        try:
            yield numbers
        finally:
            monitor.kill()
            reader.join()


def test_the_agent_finds_its_owner_and_names_it(node: Node, three: Cluster) -> None:
    state = node.state()
    assert (state.connected, state.controller, state.controller_address) == (True, "a", three["a"].target)
    three.give("node-1", "c", told_by="b")
    wait_at(node, "c")
    assert node.state().controller_address == three["c"].target
    for controller in three.controllers.values():
        controller.stop()
    wait_until(lambda: not node.state().connected, "the agent to notice")
    assert node.state().controller == node.state().controller_address == ""
    with pytest.raises(PluginError) as caught:
        node.cni("STATUS")
    assert all(controller.target in caught.value.message for controller in three.controllers.values())


def test_the_switch_is_connected_to_all_controllers_and_never_to_none(node: Node, three: Cluster) -> None:
    before = rows(node)
    assert set(before) == TARGETS
    set_up = node.log().count('"event":"the node is set up"')
    node.ofctl("add-flow", "cookie=0x77,priority=7,actions=drop")
    with watched(node) as numbers:
        wait_until(lambda: numbers() == [3], "the first look")
        three.lose("c")
        wait_until(lambda: len(rows(node)) == 2, "two controllers")
        left = rows(node)
        assert left == {target: before[target] for target in left}
        three.lose("b")
        wait_until(lambda: len(rows(node)) == 1, "one controller")
        three.find("b", "c")
        wait_until(lambda: set(rows(node)) == TARGETS, "all controllers again")
        assert rows(node)["tcp:172.31.0.1:6653"] == before["tcp:172.31.0.1:6653"]
        assert numbers() == [3, 2, 1, 3]
    assert "cookie=0x77" in node.ofctl("dump-flows")
    # Nobody had to wait for the node to be set up again.
    node.wait_able()
    assert node.log().count('"event":"the node is set up"') == set_up
    # What is on disk is the latest.
    node.kill("agent")
    node.vsctl("remove", "bridge", "br-int", "controller", rows(node)["tcp:172.31.0.1:6655"])
    for controller in three.controllers.values():
        controller.stop()
    node.start_agent()
    wait_until(lambda: set(rows(node)) == TARGETS, "all controllers, without any")


def test_a_new_owner_changes_nothing_of_the_node(node: Node, three: Cluster) -> None:
    before = rows(node)
    set_up = node.log().count('"event":"the node is set up"')
    for owner in "bcab":
        three.give("node-1", owner)
        wait_at(node, owner)
        assert node.cni("STATUS") is None
    node.wait_able()
    assert rows(node) == before
    assert node.log().count('"event":"the node is set up"') == set_up


def test_rows_of_controllers_are_mended(node: Node, three: Cluster) -> None:
    for uuid in rows(node).values():
        node.vsctl("set", "controller", uuid, "max_backoff=60000", "inactivity_probe=0")
        node.vsctl("set", "controller", uuid, "connection_mode=in-band", "controller_rate_limit=5000")
    three.lose("c")
    wait_until(lambda: len(rows(node)) == 2, "two controllers")

    def values(column: str) -> set[str]:
        return {node.vsctl("get", "controller", uuid, column) for uuid in rows(node).values()}

    assert values("max_backoff") == {"1000"}
    assert values("inactivity_probe") == {"5000"}
    assert values("connection_mode") == {"out-of-band"}
    assert values("controller_rate_limit") == {"1000"}


def test_an_add_under_way_is_confirmed_by_the_new_owner(node: Node, three: Cluster) -> None:
    three["a"].confirms.clear()
    with node.pod("web") as pod, ThreadPoolExecutor(1) as pool:
        adding = pool.submit(node.cni, "ADD", pod)
        wait_until(lambda: three["a"].pods("node-1") == {"default/web"}, "the pod to be told of")
        assert not adding.done()
        three.give("node-1", "b", told_by="c")
        result = adding.result()
        assert at(node) == "b"
        assert three["b"].pods("node-1") == {"default/web"}
        assert node.pod_ports() == node.pod_links() == {result["interfaces"][0]["name"]}
        assert [usage.used for usage in node.state().ranges] == [1, 1]
        node.cni("CHECK", pod, prevResult=result)
        node.cni("DEL", pod)


def test_one_wrong_attachment_fails_no_other_add(node: Node, three: Cluster) -> None:
    three["a"].confirms.clear()
    three["b"].wrong = {"default/bad"}
    with node.pod("good") as good, node.pod("bad") as bad, ThreadPoolExecutor(2) as pool:
        adding, failing = pool.submit(node.cni, "ADD", good), pool.submit(node.cni, "ADD", bad)
        wait_until(lambda: len(three["a"].pods("node-1")) == 2, "both pods to be told of")
        three.give("node-1", "b")
        result = adding.result()
        with pytest.raises(PluginError, match="is not what it should be") as caught:
            failing.result()
        assert caught.value.code == 101
        assert node.pod_ports() == node.pod_links() == {result["interfaces"][0]["name"]}
        node.cni("DEL", good)


def test_pods_are_made_while_owners_change_and_die(node: Node, three: Cluster) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ending = threading.Event()

    def disturb() -> None:
        down = ""
        while not ending.wait(chance.uniform(0.02, 0.25)):
            if down:
                three[down].start()
                three.find(down)
                down = ""
            owner = three.owner("node-1")
            other = chance.choice([name for name in "abc" if name != owner])
            if chance.random() < 0.5:
                down = owner
                three[down].stop()
                three.lose(down)
            three.give("node-1", other)
        if down:
            three[down].start()
            three.find(down)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    results: dict[str, str] = {}
    with ExitStack() as stack:
        try:
            for number in range(40):
                pod = stack.enter_context(node.pod(f"p{number}"))
                results[pod.name] = node.cni("ADD", pod)["interfaces"][0]["name"]
                if number % 3 == 0:
                    node.cni("DEL", pod)
                    del results[pod.name]
        finally:
            ending.set()
            disturbing.join()
        assert node.pod_ports() == node.pod_links() == set(results.values())
        wait_at(node, three.owner("node-1"))
        owner = three[three.owner("node-1")]
        held = {f"default/{name}" for name in results}
        wait_until(lambda: owner.pods("node-1") == held, "the owner to know every pod")
        assert [usage.used for usage in node.state().ranges] == [len(results)] * 2
        wait_until(lambda: all(held.programmed for held in node.state().attachments), "all confirmations")


@pytest.mark.parametrize("way", ["hangs", "is cut off"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_a_controller_that_is_silent_is_left(
    underlay: Underlay, three: Cluster, way: str, told: bool
) -> None:
    """With a word of another one at once; without, it is noticed by itself."""
    with ExitStack() as stack:
        relays = {}
        for number, (name, controller) in enumerate(three.controllers.items()):
            address = f"172.31.0.{2 + number}"
            underlay.exec("ip", "addr", "add", f"{address}/24", "dev", "br0")
            stack.callback(underlay.exec, "ip", "addr", "del", f"{address}/24", "dev", "br0", check=False)
            relays[name] = stack.enter_context(
                relay(underlay, address, controller.socket.removeprefix("unix:"))
            )
            controller.target = f"{address}:7000"
        three.give("node-1", "a")
        node = stack.enter_context(Node(underlay, 1, [c.target for c in three.controllers.values()]))
        node.start_agent()
        node.wait_able()
        assert at(node) == "a"
        if way == "hangs":
            relays["a"].send_signal(signal.SIGSTOP)
        else:
            underlay.exec("ip", "addr", "del", "172.31.0.2/24", "dev", "br0")
        began = time.monotonic()
        if told:
            three.lose("a")
            three.give("node-1", "b")
            wait_at(node, "b")
            with node.pod("web") as pod:
                node.cni("ADD", pod)
                node.cni("DEL", pod)
        else:
            wait_until(lambda: not node.state().connected, "the agent to notice")
        print(f"after {time.monotonic() - began:.1f} s")
        # It comes back, and is the owner again.
        if way == "hangs":
            relays["a"].send_signal(signal.SIGCONT)
        else:
            underlay.exec("ip", "addr", "add", "172.31.0.2/24", "dev", "br0")
        three.find("a")
        three.give("node-1", "a")
        began = time.monotonic()
        wait_at(node, "a")
        print(f"back after {time.monotonic() - began:.1f} s")
