# SPDX-License-Identifier: Apache-2.0
"""What Services need of the node's own stack: routes into the switch, NodePorts, hairpin, answers that go back by it.

The switch's part is played by a few flows of the test's own; a server tells whom it sees.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sdn.v1 import controller_pb2 as messages
from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until
from tests.node.test_node_setup import ASK, own_address, whoami

pytestmark = pytest.mark.root

NODE_PORT = {4: "169.254.0.252", 6: "fd5d:17d0:17d0::fc"}
HAIRPIN = {4: "169.254.0.253", 6: "fd5d:17d0:17d0::fd"}
NEXT_HOP = {4: "169.254.0.254", 6: "fd5d:17d0:17d0::fe"}
SERVICE = {4: "10.97.0.50", 6: "fd00:10:97::50"}
BALANCED = {4: "172.31.0.193", 6: "fd00:31::c1"}
OUTSIDE = {4: "172.31.0.1", 6: "fd00:31::1"}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def address(node: Node, version: int) -> str:
    return node.ipv4 if version == 4 else node.ipv6


def service(name: str = "web", *, node_port: int = 0, **fields: object) -> messages.ServiceState:
    state = messages.ServiceState(
        namespace="default",
        name=name,
        type="NodePort" if node_port else "ClusterIP",
        cluster_ips=[SERVICE[4], SERVICE[6]],
        ports=[
            messages.ServicePortState(name="a", protocol="TCP", port=80, node_port=node_port),
            messages.ServicePortState(name="b", protocol="UDP", port=80, node_port=node_port),
        ],
    )
    state.MergeFrom(messages.ServiceState(**fields))
    return state


def elements(node: Node, name: str) -> set[tuple[object, ...]]:
    listed = json.loads(node.exec("nft", "-j", "list", "set", "inet", "sdn", name))["nftables"]
    held = next(item["set"] for item in listed if "set" in item)
    return {tuple(element["concat"]) for element in held.get("elem", [])}


def node_ports(node: Node) -> set[tuple[object, ...]]:
    return elements(node, "node-ports-4") | elements(node, "node-ports-6")


def routes(node: Node, version: int = 4, *more: str) -> str:
    return node.exec("ip", f"-{version}", "route", "show", "dev", "sdn-gw0", *more)


def proxies(node: Node) -> str:
    return node.exec("ip", "neigh", "show", "proxy") + node.exec("ip", "-6", "neigh", "show", "proxy")


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


def flow(
    node: Node, version: int, match: str, source: str, destination: str, *actions: str, transport: str = "udp"
) -> None:
    """Packets that match ("src" and "dst" are the family's) get new addresses (empty: kept); then the actions."""
    names = {4: ("nw_src", "nw_dst"), 6: ("ipv6_src", "ipv6_dst")}[version]
    for ours, theirs in zip(("src", "dst"), names, strict=True):
        match = match.replace(f",{ours}=", f",{theirs}=")
    new = zip((source, destination), names, strict=True)
    sets = [f"set_field:{text}->{name}" for text, name in new if text]
    kind = transport if version == 4 else f"{transport}6"
    node.ofctl("add-flow", f"{kind},{match} actions={','.join([*sets, *actions])}")


def ask(netns: str, server: str, port: int, seconds: float = 2, tries: int = 5) -> str:
    """Whom a server says it sees; "" for no answer. Asks again, since the first datagram may wait for a neighbour."""
    for _ in range(tries):
        command = ["ip", "netns", "exec", netns, sys.executable, "-c", ASK, server, str(port), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return ""


GATEWAY = "set_field:0a:58:00:00:00:01->eth_dst"


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


@VERSIONS
def test_a_node_port_leads_into_the_switch_with_the_clients_address(
    switch: Node, served: Controller, underlay: Underlay, version: int
) -> None:
    """From outside, and from the node itself."""
    node, own, outside = switch, address(switch, version), OUTSIDE[version]
    served.serve(service(node_port=30080))
    wait_until(lambda: len(node_ports(node)) == 2, "the sets")
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        its, mac = own_address(pod, version), result["interfaces"][1]["mac"]
        port = node.vsctl("get", "interface", result["interfaces"][0]["name"], "ofport")
        to_pod = f"set_field:{mac}->eth_dst", "set_field:7777->udp_dst", f"output:{port}"
        flow(node, version, f"in_port=1,dst={NODE_PORT[version]},tp_dst=30080", "", its, *to_pod)
        from_pod = GATEWAY, "set_field:30080->udp_src", "output:1"
        flow(node, version, f"in_port={port},src={its},tp_src=7777", NODE_PORT[version], "", *from_pod)
        node.ofctl("add-flow", f"priority=1,in_port={port},actions=NORMAL")
        node.ofctl("add-flow", "priority=1,in_port=1,actions=NORMAL")
        with whoami(pod.netns_name, its):
            assert ask(underlay.name, own, 30080) == outside
            assert ask(node.netns, own, 30080) == own
        node.cni("DEL", pod)


BULK_SERVER = """
import socket, sys
s = socket.create_server((sys.argv[1], 7777), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("listening", flush=True)
while True:
    c, _ = s.accept()
    while data := c.recv(1 << 16):
        c.sendall(data)
    c.close()
"""
BULK_CLIENT = """
import os, socket, sys, threading
data = os.urandom(4 << 20)
s = socket.create_connection((sys.argv[1], 30080), timeout=30)
def send():
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
back = bytearray()
while chunk := s.recv(1 << 16):
    back += chunk
print("same" if bytes(back) == data else f"{len(back)} other bytes")
"""


@VERSIONS
def test_tcp_through_a_node_port_arrives_whole(
    switch: Node, served: Controller, underlay: Underlay, version: int
) -> None:
    """Megabytes both ways, from outside and from the node itself: checksums and segments survive every translation."""
    node, own = switch, address(switch, version)
    served.serve(service(node_port=30080))
    wait_until(lambda: len(node_ports(node)) == 2, "the sets")
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        its, mac = own_address(pod, version), result["interfaces"][1]["mac"]
        port = node.vsctl("get", "interface", result["interfaces"][0]["name"], "ofport")
        to_pod = f"set_field:{mac}->eth_dst", "set_field:7777->tcp_dst", f"output:{port}"
        into = f"in_port=1,dst={NODE_PORT[version]},tp_dst=30080"
        flow(node, version, into, "", its, *to_pod, transport="tcp")
        from_pod = GATEWAY, "set_field:30080->tcp_src", "output:1"
        out = f"in_port={port},src={its},tp_src=7777"
        flow(node, version, out, NODE_PORT[version], "", *from_pod, transport="tcp")
        node.ofctl("add-flow", "priority=1,actions=NORMAL")
        command = ["ip", "netns", "exec", pod.netns_name, sys.executable, "-c", BULK_SERVER, its]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "listening\n"
                assert underlay.exec(sys.executable, "-c", BULK_CLIENT, own).strip() == "same"
                assert node.exec(sys.executable, "-c", BULK_CLIENT, own).strip() == "same"
            finally:
                server.kill()
        node.cni("DEL", pod)


@VERSIONS
def test_an_endpoint_on_the_node_sees_the_node_where_the_switch_hides_the_client(
    switch: Node, served: Controller, version: int
) -> None:
    """The node asks a Service whose endpoint is the node itself: a hostNetwork pod."""
    node, own = switch, address(switch, version)
    flow(
        node,
        version,
        f"in_port=1,dst={SERVICE[version]},tp_dst=80",
        HAIRPIN[version],
        own,
        *_back(7777, "dst"),
    )
    flow(
        node,
        version,
        f"in_port=1,dst={HAIRPIN[version]},tp_src=7777",
        SERVICE[version],
        own,
        *_back(80, "src"),
    )
    with whoami(node.netns, own):
        assert ask(node.netns, SERVICE[version], 80) == own


@VERSIONS
def test_an_endpoint_elsewhere_sees_the_node_where_the_switch_hides_the_client(
    switch: Node, served: Controller, underlay: Underlay, version: int
) -> None:
    node, own, outside = switch, address(switch, version), OUTSIDE[version]
    flow(
        node,
        version,
        f"in_port=1,dst={SERVICE[version]},tp_dst=80",
        HAIRPIN[version],
        outside,
        *_back(7777, "dst"),
    )
    flow(
        node,
        version,
        f"in_port=1,dst={HAIRPIN[version]},tp_src=7777",
        SERVICE[version],
        own,
        *_back(80, "src"),
    )
    with whoami(underlay.name, outside):
        assert ask(node.netns, SERVICE[version], 80) == own


@VERSIONS
def test_a_server_of_the_node_that_sees_the_client_answers_by_the_switch(
    switch: Node, served: Controller, underlay: Underlay, version: int
) -> None:
    """externalTrafficPolicy Local, the endpoint a hostNetwork pod, the Service's address routed to the node."""
    node, own, outside = switch, address(switch, version), OUTSIDE[version]
    balanced = BALANCED[version]
    flow(node, version, f"in_port=1,dst={balanced},tp_dst=80", "", own, *_back(7777, "dst"))
    flow(node, version, f"in_port=1,src={own},dst={outside},tp_src=7777", balanced, "", *_back(80, "src"))
    underlay.exec("ip", "route", "replace", balanced, "via", own)
    try:
        with whoami(node.netns, own):
            assert ask(underlay.name, balanced, 80) == outside
            # Who asks the node itself is answered straight.
            assert ask(underlay.name, own, 7777) == outside
    finally:
        underlay.exec("ip", "route", "del", balanced)


def _back(port: int, end: str) -> tuple[str, ...]:
    """To the node's stack with this port as the packet's source or destination."""
    return GATEWAY, f"set_field:{port}->udp_{end}", "in_port"


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
    served.services["default", "four"].cluster_ips.pop()
    served.serve(served.services["default", "four"])  # IPv4 only, now
    wait_until(lambda: ("tcp", 30090) not in elements(node, "node-ports-6"), "IPv6 to be left out")
    assert ("tcp", 30090) in elements(node, "node-ports-4")
    served.withdraw("web")
    wait_until(lambda: ("tcp", 30080) not in node_ports(node), "the first to go")
    # The table is the same one (its handle is): nothing was written anew.
    assert node.exec("nft", "-a", "list", "table", "inet", "sdn").splitlines()[0] == table


@VERSIONS
def test_clients_that_go_on_sending_udp_follow_a_node_port(
    switch: Node, served: Controller, underlay: Underlay, version: int
) -> None:
    """The same client's port all along: to the node's own server before and after, into the switch meanwhile."""
    node, own = switch, address(switch, version)
    program = UDP_CLIENT.format(family="AF_INET6" if version == 6 else "AF_INET", address=own)
    flow(node, version, f"in_port=1,dst={NODE_PORT[version]},tp_dst=30080", "", own, *_back(7777, "dst"))
    back = f"in_port=1,src={own},dst={OUTSIDE[version]},tp_src=7777"
    flow(node, version, back, NODE_PORT[version], "", *_back(30080, "src"))
    command = ["ip", "netns", "exec", underlay.name, sys.executable, "-c", program]
    with (
        named_server(node.netns, own, 30080, "node"),
        named_server(node.netns, own, 7777, "service"),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client,
    ):
        try:
            assert client.stdout is not None
            for expected in ("node", "service", "node"):
                if expected == "service":
                    served.serve(service(node_port=30080))
                    wait_until(lambda: len(node_ports(node)) == 2, "the sets")
                elif node_ports(node):
                    served.withdraw("web")
                    wait_until(lambda: not node_ports(node), "the sets to be empty")
                wait_until(lambda: client.stdout.readline().strip() == expected, f"answers by the {expected}")  # noqa: B023
        finally:
            client.kill()


UDP_CLIENT = """
import socket, time
s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
s.bind(("", 5555))
s.settimeout(0.2)
while True:
    try:
        s.sendto(b"?", ("{address}", 30080))
        print(s.recv(100).decode(), flush=True)
    except OSError:
        print("-", flush=True)
    time.sleep(0.05)
"""
NAMED_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    s.sendto(sys.argv[3].encode(), s.recvfrom(100)[1])
"""


@contextmanager
def named_server(netns: str, address: str, port: int, name: str) -> Iterator[None]:
    """A server that answers with its name."""
    command = ["ip", "netns", "exec", netns, sys.executable, "-c", NAMED_SERVER, address, str(port), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            yield
        finally:
            server.kill()


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
