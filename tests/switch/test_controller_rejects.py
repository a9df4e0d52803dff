# SPDX-License-Identifier: Apache-2.0
"""A connection to a Service without endpoints is rejected at once, and a flood of them disturbs nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from os_ken.lib.packet import ethernet, icmp, icmpv6, ipv4, ipv6, packet, tcp

from controller.rejects import BURST, RATE
from sdn.pipeline.service import Protocol
from tests.switch.frames import captured
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until
from tests.switch.service_node import (
    ServiceNode,
    add_pod_ports,
    endpoint,
    frame,
    pod,
    send,
    service,
    service_node,
)

PODS = 2


@pytest.fixture
def switch() -> Iterator[PrivateSwitch]:
    for running in running_switch():
        add_pod_ports(running, PODS)
        yield running


@pytest.fixture
def node(switch: PrivateSwitch) -> Iterator[ServiceNode]:
    with service_node(switch) as running:
        running.put_pods(PODS)
        running.connect()
        yield running


def received(switch: PrivateSwitch, number: int) -> list[packet.Packet]:
    """What a pod was sent."""
    return [packet.Packet(data) for data in captured(switch.folder / f"p{number}.pcap")]


def wait_for_one(switch: PrivateSwitch, number: int) -> packet.Packet:
    wait_until(lambda: len(received(switch, number)) > 0, "the answer")
    (answer,) = received(switch, number)
    return answer


def test_a_syn_is_reset_from_the_address_that_it_was_for(switch: PrivateSwitch, node: ServiceNode) -> None:
    node.put(service(1, [], Protocol.TCP))
    send(switch, 0, "10.96.0.1", 80, 30000, Protocol.TCP)
    answer = wait_for_one(switch, 0)
    outer, header, reset = (answer.get_protocol(each) for each in (ethernet.ethernet, ipv4.ipv4, tcp.tcp))
    assert int(outer.dst.replace(":", ""), 16) == pod(0).mac
    assert (header.src, header.dst) == ("10.96.0.1", str(pod(0).addresses[0]))
    assert (reset.src_port, reset.dst_port, reset.ack) == (80, 30000, 2)
    assert reset.bits == tcp.TCP_RST | tcp.TCP_ACK


def test_a_datagram_is_unreachable_and_later_ones_are_served(
    switch: PrivateSwitch, node: ServiceNode
) -> None:
    node.put(service(1, []))
    send(switch, 0, "10.96.0.1", 80, 30000)
    error = wait_for_one(switch, 0).get_protocol(icmp.icmp)
    assert (error.type, error.code) == (3, 3)
    node.put(service(1, [endpoint(1)]))
    send(switch, 0, "10.96.0.1", 80, 30000)
    wait_until(lambda: len(received(switch, 1)) == 1, "the datagram to arrive")
    assert received(switch, 1)[0].get_protocol(ipv4.ipv4).dst == str(pod(1).addresses[0])


def test_an_address_that_no_service_has_is_rejected(switch: PrivateSwitch, node: ServiceNode) -> None:
    send(switch, 0, "10.96.7.7", 4711, 30000, Protocol.TCP)
    assert wait_for_one(switch, 0).get_protocol(ipv4.ipv4).src == "10.96.7.7"


def test_the_same_for_ipv6(switch: PrivateSwitch, node: ServiceNode) -> None:
    send(switch, 0, "fd00:10:96::77", 4711, 30000)
    answer = wait_for_one(switch, 0)
    header, error = answer.get_protocol(ipv6.ipv6), answer.get_protocol(icmpv6.icmpv6)
    assert (header.src, header.dst) == ("fd00:10:96::77", str(pod(0).addresses[1]))
    assert (error.type_, error.code) == (1, 4)


@pytest.mark.alone
def test_a_flood_of_them_slows_neither_echoes_nor_changes(switch: PrivateSwitch, node: ServiceNode) -> None:
    """The switch asks for signs of life and gives a silent controller up; a bundle waits for nobody."""
    node.put(service(1, [], Protocol.TCP))
    switch.vsctl("set", "controller", switch.bridge, "inactivity_probe=5000")
    before = node.synchronizer.connection
    flood = Flood(switch)
    slowest = 0.0
    try:
        end = time.monotonic() + 6
        number = 0
        while time.monotonic() < end:
            began = time.monotonic()
            node.put(service(2, [endpoint(number % PODS)], Protocol.TCP))
            slowest = max(slowest, time.monotonic() - began)
            number += 1
    finally:
        sent = flood.stop()
    answered = len(received(switch, 0))
    print(f"{sent} SYNs sent, {answered} answered; {number} changes, the slowest in {slowest * 1000:.0f} ms")
    assert node.synchronizer.connection is before, "the connection has held"
    assert 0 < answered < sent
    assert answered <= BURST + RATE * flood.seconds + 1


class Flood:
    """SYNs of pod 0 to Service 1, as many as one process can make the switch take."""

    def __init__(self, switch: PrivateSwitch) -> None:
        self._switch = switch
        self._frames = [frame(0, "10.96.0.1", 80, port, Protocol.TCP).hex() for port in range(30000, 30100)]
        self._sent = 0
        self._ended = threading.Event()
        self._began = time.monotonic()
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._switch.appctl("netdev-dummy/receive", "p0", *self._frames)
            self._sent += len(self._frames)

    def stop(self) -> int:
        """End it; gives the number of packets."""
        self._ended.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._began
        return self._sent
