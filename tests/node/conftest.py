# SPDX-License-Identifier: Apache-2.0
"""One underlay for the folder; each file of tests has a controller and a node of its own, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, Underlay


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
