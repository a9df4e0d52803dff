# SPDX-License-Identifier: Apache-2.0
"""One underlay for the folder; each file of tests has a controller and a node of its own, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until
from tests.node.services import NEXT_HOP, elements, node_ports, proxies, routes


@pytest.fixture(scope="session")
def underlay() -> Iterator[Underlay]:
    with Underlay() as underlay:
        yield underlay


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder: Path = tmp_path_factory.mktemp("controller")
    with Controller(folder) as controller:
        yield controller


@pytest.fixture(scope="module")
def running(underlay: Underlay, controller: Controller) -> Iterator[Node]:
    """A node with its agent; use `node`, which looks that the last test left it whole."""
    with Node(underlay, 1, [controller.target]) as node:
        node.start_agent()
        node.wait_able()
        yield node


@pytest.fixture
def node(running: Node) -> Iterator[Node]:
    """The file's node; a test must leave nothing behind on it."""
    yield running
    assert running.running("agent"), f"the agent has ended; its log:\n{running.log()[-6000:]}"
    assert running.pod_links() == set()
    assert running.pod_ports() == set()
    assert list(running.state().attachments) == []


@pytest.fixture
def served(node: Node, controller: Controller) -> Iterator[Controller]:
    """The controller, which tells of no Service; afterwards nothing of a Service may be left."""
    yield controller
    controller.withdraw(*[name for _namespace, name in list(controller.services)])

    def nothing_left() -> bool:
        listed = node_ports(node) | elements(node, "own-addresses-4") | elements(node, "own-addresses-6")
        return not listed and proxies(node) == "" and "198.51.100" not in routes(node)

    wait_until(nothing_left, "everything of the Services to go")


@pytest.fixture
def switch(node: Node) -> Iterator[Node]:
    """The node, whose switch answers for the next hop (told to the node's stack) and otherwise drops everything."""
    for version in (4, 6):
        node.exec(
            *("ip", "neigh", "replace", NEXT_HOP[version], "lladdr", "0a:58:00:00:00:02", "dev", "sdn-gw0")
        )
    yield node
    node.ofctl("del-flows")
    for version in (4, 6):
        node.exec("ip", "neigh", "del", NEXT_HOP[version], "dev", "sdn-gw0", check=False)
