# SPDX-License-Identifier: Apache-2.0
"""A range that is used up is named, and nothing of a pod that found no address stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, PluginError, Underlay

pytestmark = pytest.mark.root


@pytest.fixture
def small(underlay: Underlay, tmp_path: Path) -> Iterator[Node]:
    """A node with five addresses: a /29 without network, gateway and broadcast."""
    ranges = ["10.241.1.0/29", "fd00:10:241:1::/64"]
    with Controller(tmp_path, ranges) as controller, Node(underlay, 1, [controller.target]) as node:
        node.start_agent()
        node.wait_able()
        yield node


def test_an_exhausted_range_is_named_and_an_address_that_comes_back_is_given_again(small: Node) -> None:
    with ExitStack() as stack:
        pods = [stack.enter_context(small.pod(f"p{number}")) for number in range(6)]
        given = [small.cni("ADD", pod)["ips"][0]["address"] for pod in pods[:5]]
        assert given == [f"10.241.1.{host}/29" for host in range(2, 7)]
        with pytest.raises(PluginError, match=r"10\.241\.1\.0/29 of node node-1 is exhausted") as caught:
            small.cni("ADD", pods[5])
        assert caught.value.code == 100
        with pytest.raises(PluginError, match=r"10\.241\.1\.0/29") as caught:
            small.cni("STATUS")
        assert caught.value.code == 50
        assert len(small.pod_links()) == len(small.pod_ports()) == len(small.state().attachments) == 5
        small.cni("DEL", pods[2])
        assert small.cni("ADD", pods[5])["ips"][0]["address"] == given[2]
        for pod in pods:
            small.cni("DEL", pod)
        assert small.pod_links() == small.pod_ports() == set()
