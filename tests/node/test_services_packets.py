# SPDX-License-Identifier: Apache-2.0
"""Packets to and from Services in the node's own stack: NodePorts, hairpin, answers that go back by the switch.

The switch's part is played by a few flows of the test's own; servers tell whom they see, or who they are.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until
from tests.node.services import (
    BALANCED,
    HAIRPIN,
    NODE_PORT,
    OUTSIDE,
    SERVICE,
    VERSIONS,
    address,
    node_ports,
    service,
)
from tests.node.test_node_setup import ASK, own_address, whoami

pytestmark = pytest.mark.root


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
