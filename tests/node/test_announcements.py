# SPDX-License-Identifier: Apache-2.0
"""LoadBalancer addresses on the link to the outside: who answers for them, who is told, and that it ends at once."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until
from tests.node.services import BALANCED, VERSIONS, proxies, service

pytestmark = pytest.mark.root

LISTEN = """
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.bind(("br0", 0))
print("listening", flush=True)
while True:
    print(s.recv(2048).hex(), flush=True)
"""
#: An ARP request with one address as sender and target.
ARP = "ffffffffffff{mac}08060001080006040001{mac}{address}000000000000{address}"


@contextmanager
def listening(underlay: Underlay) -> Iterator[subprocess.Popen[str]]:
    """Prints every frame that reaches the bridge between the nodes, in hexadecimal."""
    command = ["ip", "netns", "exec", underlay.name, sys.executable, "-c", LISTEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            yield listener
        finally:
            listener.kill()


def announced(listener: subprocess.Popen[str], mac: str, address: str) -> None:
    """Read on until the address was announced for the MAC."""
    assert listener.stdout is not None
    packed = ipaddress.ip_address(address).packed.hex()
    bare = mac.replace(":", "")
    for line in listener.stdout:
        if "." in address and line.startswith(ARP.format(mac=bare, address=packed)):
            return
        # Type 136, code 0; then flags (router, override), target, and its link-layer address as option.
        if line.startswith(f"333300000001{bare}86dd") and f"a0000000{packed}0201{bare}" in line:
            return
    raise AssertionError("the listener ended")


def asks(underlay: Underlay, address: str) -> str:
    """Who the underlay thinks has an address: a MAC, or "" for nobody."""
    underlay.exec("ip", "neigh", "flush", "dev", "br0")
    underlay.exec("ping", "-c1", "-W1", address, check=False)
    words = underlay.exec("ip", "neigh", "show", address, "dev", "br0").split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


@VERSIONS
def test_an_announced_address_is_claimed_answered_for_and_given_up_at_once(
    node: Node, controller: Controller, underlay: Underlay, version: int
) -> None:
    mac, address = node.state().node.tunnel_mac, BALANCED[version]
    balancer = service(load_balancer_ips=[address], type="LoadBalancer")
    with listening(underlay) as listener:
        controller.serve(balancer)
        assert asks(underlay, address) == ""
        controller.serve(service(load_balancer_ips=[address], type="LoadBalancer", announce=True))
        for _ in range(3):
            announced(listener, mac, address)
    wait_until(lambda: asks(underlay, address) == mac, "an answer")
    # An agent that is killed, and one that finds no controller, go on answering.
    node.kill("agent")
    assert asks(underlay, address) == mac
    controller.stop()
    try:
        node.start_agent()
        assert asks(underlay, address) == mac
    finally:
        controller.start()
    # So does a switch that was started anew.
    node.kill("ovs-vswitchd")
    node.start_vswitchd()
    wait_until(lambda: asks(underlay, address) == mac, "an answer after the restart")
    # Another node has taken over.
    controller.serve(balancer)
    wait_until(lambda: proxies(node) == "", "the entry to go")
    assert asks(underlay, address) == ""
    controller.withdraw("web")


def test_what_is_known_from_disk_only_is_not_claimed(
    node: Node, controller: Controller, underlay: Underlay
) -> None:
    """Another node may have taken over while this one's agent was away."""
    mac, address = node.state().node.tunnel_mac, BALANCED[4]
    controller.serve(service(load_balancer_ips=[address], type="LoadBalancer", announce=True))
    wait_until(lambda: address in proxies(node), "the entry")
    node.kill("agent")
    controller.stop()
    claim = ARP.format(mac=mac.replace(":", ""), address=ipaddress.ip_address(address).packed.hex())
    try:
        with listening(underlay) as listener:
            node.start_agent()
            assert asks(underlay, address) == mac
            time.sleep(1)
            listener.kill()
            assert listener.stdout is not None
            assert not [line for line in listener.stdout if line.startswith(claim)]
        with listening(underlay) as listener:
            controller.start()
            announced(listener, mac, address)
    finally:
        controller.stop()
        controller.start()
    controller.withdraw("web")
    wait_until(lambda: proxies(node) == "", "the entry to go")
