# SPDX-License-Identifier: Apache-2.0
"""Connections whose endpoint goes: the switch forgets those that would never end, within the same change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from os_ken.lib.packet import ethernet, icmpv6, ipv6
from os_ken.lib.packet.packet import Packet

from sdn.pipeline.registers import GATEWAY_MAC
from sdn.pipeline.service import Protocol
from tests.switch.ovs import PrivateSwitch, leave_alone, running_switch, wait_until
from tests.switch.service_node import (
    ServiceNode,
    add_pod_ports,
    connections,
    endpoint,
    frame,
    pod,
    send,
    service,
    service_node,
)

PODS = 4
PORTS = range(20000, 20016)


unwatched = pytest.fixture(leave_alone)


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


def address(number: int) -> str:
    return str(pod(number).addresses[0])


def mac(value: int) -> str:
    return ":".join(f"{byte:02x}" for byte in value.to_bytes(6, "big"))


def connect(switch: PrivateSwitch, number: int, protocol: Protocol = Protocol.UDP) -> set[str]:
    """Pod 0 connects to a Service from many ports; gives the endpoints that it got."""
    for port in PORTS:
        send(switch, 0, f"10.96.0.{number}", 80, port + 100 * number, protocol)
    return {each[3] for each in connections(switch) if each[2] == number}


def test_udp_goes_with_its_endpoint_and_leaves_the_others_alone(
    switch: PrivateSwitch, node: ServiceNode
) -> None:
    node.put(service(1, [endpoint(1), endpoint(2)]))
    assert connect(switch, 1) == {address(1), address(2)}
    before = connections(switch)
    node.put(service(1, [endpoint(2)]))
    assert connections(switch) == {each for each in before if each[3] == address(2)}
    connect(switch, 1)
    after = connections(switch)
    assert {each[3] for each in after} == {address(2)}
    assert len(after) == len(PORTS)


def test_tcp_is_left_to_close_unless_its_pod_is_gone(switch: PrivateSwitch, node: ServiceNode) -> None:
    node.put(service(1, [endpoint(1), endpoint(2)], Protocol.TCP))
    assert connect(switch, 1, Protocol.TCP) == {address(1), address(2)}
    before = connections(switch)
    node.put(service(1, [endpoint(2)], Protocol.TCP))
    assert connections(switch) == before
    node.put(service(1, [endpoint(2)], Protocol.TCP), gone=(pod(1).addresses[0],))
    assert connections(switch) == {each for each in before if each[3] == address(2)}


def test_a_switch_survives_that_a_pod_goes_that_was_pinged_over_ipv6(
    switch: PrivateSwitch, node: ServiceNode
) -> None:
    """Open vSwitch's userspace datapath aborts when a flush meets an entry of ICMPv6."""
    node.put(service(1, [endpoint(1)]))
    gone = pod(1).addresses[1]
    connect(switch, 1)
    send(switch, 0, str(gone), 80, 30000)
    echo = Packet()
    for header in (
        ethernet.ethernet(mac(GATEWAY_MAC), mac(pod(0).mac), 0x86DD),
        ipv6.ipv6(src=str(pod(0).addresses[1]), dst=str(gone), nxt=58),
        icmpv6.icmpv6(icmpv6.ICMPV6_ECHO_REQUEST, 0, data=icmpv6.echo(7, 1, b"?")),
    ):
        echo.add_protocol(header)
    echo.serialize()
    switch.appctl("netdev-dummy/receive", "p0", bytes(echo.data).hex())

    def tracked() -> set[str]:
        lines = switch.appctl("dpctl/dump-conntrack").splitlines()
        return {line.partition(",")[0] for line in lines if f"reply=(src={gone}," in line}

    wait_until(lambda: tracked() == {"udp", "icmpv6"}, "the connections to be known")
    connection, pid = node.synchronizer.connection, switch.vswitchd_pid
    node.put(service(1, [endpoint(2)]), gone=pod(1).addresses)
    assert tracked() == {"icmpv6"}
    assert not connections(switch)
    assert node.synchronizer.connection is connection
    assert Path(f"/proc/{pid}/cmdline").read_bytes()


def test_an_endpoint_of_two_services_keeps_the_connections_of_the_other(
    switch: PrivateSwitch, node: ServiceNode
) -> None:
    node.put(service(1, [endpoint(1), endpoint(2)]))
    node.put(service(2, [endpoint(1)]))
    connect(switch, 1)
    connect(switch, 2)
    before = connections(switch)
    node.put(service(1, [endpoint(2)]))
    assert connections(switch) == {each for each in before if (each[2], each[3]) != (1, address(1))}
    assert {each[3] for each in connections(switch) if each[2] == 2} == {address(1)}
    # And with the Service itself.
    node.remove(service(2, []))
    assert {each[2] for each in connections(switch)} == {1}


def test_an_endpoint_that_is_back_keeps_what_it_has(switch: PrivateSwitch, node: ServiceNode) -> None:
    node.put(service(1, [endpoint(1)]))
    connect(switch, 1)
    before = connections(switch)
    assert len(before) == len(PORTS)
    # Both arrive before the synchronizer has looked at either, or else the second flush must not hit it.
    waiters = [node.put_later(service(1, each)) for each in ([], [endpoint(1)])]
    assert [waiter() for waiter in waiters] == [None, None]
    connect(switch, 1)
    wait_until(lambda: node.synchronizer._writer._stale.due() is None, "the second flush")
    assert len(connections(switch)) == len(PORTS)


def test_what_a_cached_flow_has_made_meanwhile_goes_with_the_second_flush(
    unwatched: None, switch: PrivateSwitch, node: ServiceNode
) -> None:
    node.put(service(1, [endpoint(1)]))
    node.put(service(1, [endpoint(2)]))
    # As a packet would that met a flow of the datapath's before it was revalidated.
    switch.ofctl(
        "add-flow", "table=0,priority=999,udp,tp_src=9,actions=ct(commit,zone=1,nat(dst=10.244.1.3:8080))"
    )
    send(switch, 0, "10.96.0.1", 80, 9)
    assert {each[3] for each in connections(switch)} == {address(1)}
    # By itself an entry stays for half a minute and more.
    wait_until(lambda: connections(switch) == set(), "the second flush", 15)


def test_a_restarted_controller_finds_what_became_stale_while_it_was_away(switch: PrivateSwitch) -> None:
    with service_node(switch) as first:
        first.put_pods(PODS)
        first.connect()
        first.put(service(1, [endpoint(1), endpoint(2)]))
        first.put(service(2, [endpoint(1)]))
        connect(switch, 1)
        connect(switch, 2)
    before = connections(switch)
    assert len(before) == 2 * len(PORTS)
    with service_node(switch) as second:
        second.put_pods(PODS)
        waiting = [second.put_later(service(1, [endpoint(2)])), second.put_later(service(2, [endpoint(1)]))]
        # set-controller would empty the table: the second one listens where the first one did.
        second.connect()
        assert [waiter() for waiter in waiting] == [None, None]
        assert connections(switch) == {each for each in before if (each[2], each[3]) != (1, address(1))}


def test_a_gone_pod_is_forgotten_when_the_switch_comes_back(switch: PrivateSwitch) -> None:
    with service_node(switch) as first:
        first.put_pods(PODS)
        first.connect()
        first.put(service(1, [endpoint(1)], Protocol.TCP))
        connect(switch, 1, Protocol.TCP)
    assert len(connections(switch)) == len(PORTS)
    with service_node(switch) as second:
        second.put_pods(PODS)
        waiting = second.put_later(service(1, [], Protocol.TCP), gone=(pod(1).addresses[0],))
        second.connect()
        assert waiting() is None
        assert connections(switch) == set()


def test_many_endpoints_that_go_at_once_are_all_forgotten(switch: PrivateSwitch, node: ServiceNode) -> None:
    """More than are flushed in one go, of a table that gets empty: a single flush would pass entries over."""
    endpoints = [endpoint(1, port) for port in range(9000, 9100)]
    node.put(service(1, endpoints))
    frames = [frame(0, "10.96.0.1", 80, port, Protocol.UDP).hex() for port in range(20000, 20400)]
    for first in range(0, len(frames), 50):
        switch.appctl("netdev-dummy/receive", "p0", *frames[first : first + 50])
    wait_until(lambda: len(connections(switch)) == len(frames), "the connections")
    node.put(service(1, []))
    # The last of them may need the second flush; by itself an entry stays for half a minute and more.
    wait_until(lambda: connections(switch) == set(), "the connections to be forgotten", 15)
