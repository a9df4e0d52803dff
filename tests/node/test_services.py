# SPDX-License-Identifier: Apache-2.0
"""What Services need of a node and leave on it: routes, sets of NodePorts, health checks, counted connections."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from sdn.v1 import controller_pb2 as messages
from sdn.v1 import types_pb2
from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until
from tests.node.services import (
    BALANCED,
    HAIRPIN,
    NEXT_HOP,
    NODE_PORT,
    VERSIONS,
    address,
    elements,
    node_ports,
    routes,
    service,
)

pytestmark = pytest.mark.root


@VERSIONS
def test_addresses_of_services_lead_into_the_switch(node: Node, version: int) -> None:
    own = address(node, version)
    lines = routes(node, version).splitlines()
    wanted = {
        4: ["10.97.0.0/16", "172.31.0.192/28", NODE_PORT[4], HAIRPIN[4]],
        6: ["fd00:10:97::/112", "fd00:31::c0/124", NODE_PORT[6], HAIRPIN[6]],
    }
    for destination in wanted[version]:
        (line,) = [line for line in lines if line.split()[0] == destination]
        assert f"via {NEXT_HOP[version]} " in line
        assert f" src {own} " in line
        assert "onlink" in line
    assert f"default via {NEXT_HOP[version]}" in routes(node, version, "table", "88")
    assert "fwmark 0x200000/0x200000 lookup 88" in node.exec("ip", f"-{version}", "rule")
    assert node.exec("cat", "/proc/sys/net/ipv4/conf/sdn-gw0/rp_filter").strip() == "2"


def test_the_controller_is_not_flooded_with_packets(node: Node) -> None:
    assert node.vsctl("get", "controller", "br-int", "controller_rate_limit") == "1000"
    assert node.vsctl("get", "controller", "br-int", "controller_burst_limit") == "250"


def test_node_ports_outlive_agent_controller_and_switch(switch: Node, served: Controller) -> None:
    node = switch
    served.serve(service(node_port=30080), service("other", node_port=30090, cluster_ips=[]))
    both = {("tcp", 30080), ("udp", 30080), ("tcp", 30090), ("udp", 30090)}
    wait_until(lambda: node_ports(node) == both, "the sets")
    # An agent that starts without a controller takes nothing away.
    node.kill("agent")
    served.stop()
    try:
        node.start_agent()
        assert node_ports(node) == both
        # Somebody removes everything: it comes back as it was, still without a controller.
        node.exec("nft", "delete", "table", "inet", "sdn")
        node.exec("ip", "route", "flush", "table", "88")
        node.exec("ip", "rule", "del", "pref", "1088")
        node.kill("ovs-vswitchd")
        node.start_vswitchd()
        wait_until(lambda: "node-ports-4" in node.exec("nft", "list", "ruleset"), "the table")
        wait_until(lambda: node_ports(node) == both, "the sets again")
        wait_until(lambda: "1088" in node.exec("ip", "rule"), "the rule again")
        wait_until(lambda: "169.254.0.254" in routes(node, 4, "table", "88"), "the routes again")
        node.kill("agent")
    finally:
        served.start()
    # What went while the agent was away goes when it is back.
    del served.services["default", "other"]
    node.start_agent()
    wait_until(lambda: node_ports(node) == {("tcp", 30080), ("udp", 30080)}, "what is gone to go")


def test_node_ports_are_added_and_removed_one_by_one(node: Node, served: Controller) -> None:
    served.serve(service(node_port=30080))
    wait_until(lambda: len(node_ports(node)) == 2, "the first")
    table = node.exec("nft", "-a", "list", "table", "inet", "sdn").splitlines()[0]
    served.serve(service("four", node_port=30090))
    wait_until(lambda: ("tcp", 30090) in elements(node, "node-ports-6"), "the second")
    served.services["default", "four"].cluster_ips.pop()
    served.serve(served.services["default", "four"])  # IPv4 only, now
    wait_until(lambda: ("tcp", 30090) not in elements(node, "node-ports-6"), "IPv6 to be left out")
    assert ("tcp", 30090) in elements(node, "node-ports-4")
    served.withdraw("web")
    wait_until(lambda: ("tcp", 30080) not in node_ports(node), "the first to go")
    # The table is the same one (its handle is): nothing was written anew.
    assert node.exec("nft", "-a", "list", "table", "inet", "sdn").splitlines()[0] == table


def test_external_addresses_lead_into_the_switch(node: Node, served: Controller) -> None:
    """A foreign one by a route; one that is the node's own by translation; one of the pool by the pool's route."""
    foreign = ["198.51.100.7", "2001:db8::7"]
    served.serve(service(external_ips=[*foreign, node.ipv4], load_balancer_ips=[BALANCED[4], BALANCED[6]]))
    wait_until(lambda: "2001:db8::7" in routes(node, 6), "the routes")
    for version, external in zip((4, 6), foreign, strict=True):
        (line,) = [line for line in routes(node, version).splitlines() if line.split()[0] == external]
        assert f"via {NEXT_HOP[version]} " in line
        assert BALANCED[version] not in routes(node, version)
    assert elements(node, "own-addresses-4") == {(node.ipv4, "tcp", 80), (node.ipv4, "udp", 80)}
    assert elements(node, "own-addresses-6") == set()
    # Gone with the switch's port, and back with it.
    node.kill("ovs-vswitchd")
    node.start_vswitchd()
    node.exec("ip", "route", "flush", "198.51.100.7")
    node.exec("ip", "link", "set", "sdn-gw0", "alias", "x")
    wait_until(lambda: "198.51.100.7" in routes(node), "the route again")
    served.serve(service(external_ips=["198.51.100.8"]))
    wait_until(lambda: "198.51.100.8" in routes(node) and "198.51.100.7" not in routes(node), "the other")
    assert "2001:db8::7" not in routes(node, 6)
    assert elements(node, "own-addresses-4") == set()


def http(underlay: Underlay, url: str) -> tuple[int, dict[str, str], str]:
    """(status, headers, body) of a GET from outside; status 0: nobody listens."""
    done = underlay.exec("curl", "-s", "-i", "--globoff", "--max-time", "20", url, check=False)
    head, _, body = done.replace("\r", "").partition("\n\n")
    lines = head.splitlines()
    if not lines:
        return 0, {}, ""
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body


def test_load_balancers_are_told_whether_the_node_has_endpoints(
    node: Node, served: Controller, underlay: Underlay
) -> None:
    ports = {"external_local": True, "health_check_node_port": 30999}
    served.serve(service(local_endpoints=2, **ports))
    for host in (node.ipv4, f"[{node.ipv6}]"):
        url = f"http://{host}:30999/anything"
        wait_until(lambda: http(underlay, url)[0] == 200, "an answer")  # noqa: B023
        status, headers, body = http(underlay, url)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(body) == {
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": 2,
            "serviceProxyHealthy": True,
        }
    served.serve(service(local_endpoints=0, **ports))
    wait_until(lambda: http(underlay, f"http://{node.ipv4}:30999/")[0] == 503, "503")
    # No agent, no answer; with one that knows no controller, the last known answer.
    served.stop()
    try:
        node.kill("agent")
        assert http(underlay, f"http://{node.ipv4}:30999/")[0] == 0
        node.start_agent()
        assert http(underlay, f"http://{node.ipv4}:30999/")[0] == 503
    finally:
        served.start()
    served.withdraw("web")
    wait_until(lambda: http(underlay, f"http://{node.ipv4}:30999/")[0] == 0, "the port to be closed")


def test_connections_are_counted_by_endpoint_and_frontend(node: Node, served: Controller) -> None:
    """Made by the tracker of the node's own switch."""
    node.ofctl(
        "add-flow",
        "in_port=local,udp actions=ct(commit,zone=1,nat(dst=10.241.1.9:8053))",
    )
    for client in (1, 2, 3):
        frame = udp_frame("10.97.0.50", 4000 + client, 53)
        node.ofctl("packet-out", f"in_port=local,packet={frame},actions=table")
    counts = served.count_connections(
        node.name,
        messages.Destination(address="10.241.1.9", port=8053, protocol="UDP"),
        messages.Destination(address="10.241.1.9", port=8053, protocol="TCP"),
    )
    assert (counts.sequence, counts.error) == (77, "")
    (count,) = counts.counts
    assert count.connections == 3
    assert (count.frontend.address, count.frontend.port, count.frontend.protocol) == ("10.97.0.50", 53, "UDP")
    assert (count.endpoint.address, count.endpoint.port) == ("10.241.1.9", 8053)
    node.ofctl("del-flows")


def udp_frame(destination: str, source_port: int, port: int) -> str:
    """A frame from 10.241.1.2, in hexadecimal."""
    udp = struct.pack("!HHHH", source_port, port, 9, 0) + b"?"
    addresses = socket.inet_aton("10.241.1.2") + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    return (bytes.fromhex("0a58000000020a5800000001" + "0800") + header + udp).hex()


def test_rules_that_are_written_anew_keep_the_node_ports(node: Node, served: Controller) -> None:
    """Another node comes: the rules name it. At no moment are the sets without what they hold."""
    served.serve(service(node_port=30080))
    wait_until(lambda: len(node_ports(node)) == 2, "the sets")
    for number in range(60, 65):
        peer = types_pb2.NodeInfo(name="node-9", addresses=[f"172.31.0.{number}"])
        peer.tunnel_address = f"172.31.0.{number}"
        served.tell_peers(node.name, [peer])

        def rewritten() -> bool:
            assert len(node_ports(node)) == 2
            return f"172.31.0.{number}" in node.exec("nft", "list", "chain", "inet", "sdn", "leaving")  # noqa: B023

        wait_until(rewritten, "the rules to name the other node")
    served.tell_peers(node.name, [])
    wait_until(lambda: "172.31.0.64" not in node.exec("nft", "list", "ruleset"), "the other node to go")


def test_a_port_range_that_services_use_too_is_told(underlay: Underlay, controller: Controller) -> None:
    controller.nodes.pop("node-5", None)
    with Node(underlay, 5, [controller.target]) as node:
        node.exec("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=1024 65535")
        node.start_agent()
        node.wait_for_event(
            "the node's own connections may use ports of Services: raise net.ipv4.ip_local_port_range"
        )
