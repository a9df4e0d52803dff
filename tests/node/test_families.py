# SPDX-License-Identifier: Apache-2.0
"""Either family may be absent, from the pods' ranges and from the network between the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("given", "prefix"),
    [("10.241.1.0/24", "0a:58:0a:f1:01:"), ("fd00:10:241:1::/64", "0a:59:")],
    ids=["IPv4 only", "IPv6 only"],
)
def test_pods_of_one_family(underlay: Underlay, tmp_path: Path, given: str, prefix: str) -> None:
    with Controller(tmp_path, [given]) as controller, Node(underlay, 1, [controller.target]) as node:
        node.start_agent()
        node.wait_able()
        with node.pod("web") as pod:
            result = node.cni("ADD", pod)
            assert [ip["address"] for ip in result["ips"]] == list(pod.addresses())
            assert len(result["routes"]) == 1
            assert result["interfaces"][1]["mac"].startswith(prefix)
            node.cni("CHECK", pod, prevResult=result)
            node.ofctl("add-flow", "actions=NORMAL")
            pod.exec("ping", "-c1", "-W10", result["ips"][0]["gateway"])
            node.cni("DEL", pod)
        assert node.pod_links() == node.pod_ports() == set()


def test_an_address_that_the_node_does_not_have_is_named(underlay: Underlay, controller: Controller) -> None:
    with Node(underlay, 2, [controller.target], node_addresses="172.31.0.200") as node:
        node.start_agent(wait=False)
        wait_until(lambda: "node_addresses: 172.31.0.200 is not on eth0" in node.log(), "the refusal")


def test_tunnels_over_ipv6_leave_less_room(underlay: Underlay, controller: Controller) -> None:
    controller.nodes.pop("node-2", None)
    with Node(underlay, 2, [controller.target], node_addresses="fd00:31::12") as node:
        node.start_agent()
        node.wait_able()
        assert node.state().node.tunnel_address == "fd00:31::12"
        assert node.state().node.mtu == 1500 - 70
        with node.pod("web") as pod:
            assert node.cni("ADD", pod)["interfaces"][1]["mtu"] == 1430
            node.cni("DEL", pod)
