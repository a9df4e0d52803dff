# SPDX-License-Identifier: Apache-2.0
"""Services on a real switch: groups that change by single buckets, flows that the switch learns by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from sdn.pipeline.actions import Bucket, Resubmit, set_field
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import Priority
from sdn.pipeline.service import Endpoint, Protocol, group_base
from sdn.pipeline.tables import ENDPOINT, SESSION_AFFINITY
from sdn.pipeline.topology import Address
from tests.switch.ovs import PrivateSwitch, leave_alone, running_switch, wait_until
from tests.switch.service_node import (
    ServiceNode,
    Waiter,
    add_pod_ports,
    endpoint,
    send,
    service,
    service_node,
)

PODS = 3
GROUP = group_base(1, 0, 4)


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


def many(count: int) -> list[Endpoint]:
    """Endpoints of other nodes."""
    first = Address.parse("10.244.100.0").value
    return [Endpoint(Address(4, first + number), 8080, True) for number in range(count)]


def reconnect(node: ServiceNode) -> None:
    before = node.synchronizer.connection
    node.switch.appctl("bridge/reconnect", node.switch.bridge)
    wait_until(
        lambda: node.synchronizer.status.synchronized and node.synchronizer.connection is not before,
        "the switch to come back",
    )


def messages(node: ServiceNode) -> list[bytes | int]:
    """What each message of the last bundle was about."""
    return list(node.synchronizer._writer.holdings.batch)


def test_one_endpoint_of_a_thousand_is_one_bucket_and_one_flow(node: ServiceNode) -> None:
    endpoints = many(1000)
    node.put(service(1, endpoints, Protocol.TCP))
    node.put(service(1, endpoints[:499] + endpoints[500:], Protocol.TCP))
    assert len(messages(node)) == 2
    assert messages(node)[0] == GROUP
    node.put(service(1, endpoints, Protocol.TCP))
    assert len(messages(node)) == 2
    assert node.switch.ofctl("dump-groups").count("bucket_id") == 1000


def test_groups_are_known_again_however_they_came_to_be(node: ServiceNode) -> None:
    """As large as a switch can describe, and grown and shrunk in the middle."""
    endpoints = many(1300)
    node.put(service(1, endpoints, Protocol.TCP))
    node.put(service(2, endpoints[:7], Protocol.TCP))
    node.put(service(1, endpoints[10:700] + endpoints[750:], Protocol.TCP))
    node.put(service(2, endpoints[3:9], Protocol.TCP))
    node.put(service(1, endpoints[5:], Protocol.TCP))
    node.put(service(2, endpoints[2:5], Protocol.TCP))
    sent = messages(node)
    reconnect(node)
    assert messages(node) is not sent
    assert messages(node) == sent, "nothing was written"
    assert node.synchronizer.status.repaired == 0


def test_a_group_that_no_switch_could_describe_is_refused_before_it_is_sent(node: ServiceNode) -> None:
    """Open vSwitch 3.1 would abort when asked for it."""
    owner = Owner("Service", "default", "huge")
    for count in (1500, 2000):
        buckets = tuple(Bucket(number, (set_field(reg3=number), Resubmit(1))) for number in range(count))
        group = Group(GROUP, "select", buckets, owner, "a test")
        waiter = Waiter()
        node.synchronizer.submit("huge", lambda group=group: [group], waiter.done)  # type: ignore[misc]
        why = waiter()
        assert why is not None
        assert str(owner) in why
    node.put(service(2, [endpoint(1)]))


def test_a_group_that_somebody_has_changed_is_mended_without_taking_it_away(
    unwatched: None, switch: PrivateSwitch, node: ServiceNode
) -> None:
    node.put(service(1, [endpoint(1), endpoint(2)], Protocol.TCP))
    bucket = re.search(r"bucket_id:(\d+)", switch.ofctl("dump-groups"))
    assert bucket is not None
    switch.ofctl("remove-buckets", f"group_id={GROUP},command_bucket_id={bucket[1]}")
    # Removing either of them meets a group that is not as expected.
    node.put(service(1, [endpoint(1)], Protocol.TCP))
    node.put(service(1, [endpoint(2)], Protocol.TCP))
    assert node.synchronizer.status.synchronized
    assert switch.ofctl("dump-groups").count("bucket_id") == 1
    # Nothing is left to be changed, and the flows that used it went with it.
    right = sorted(switch.dump_flows())
    switch.ofctl("del-groups", f"group_id={GROUP}")
    assert sorted(switch.dump_flows()) != right
    node.put(service(1, [endpoint(1), endpoint(2)], Protocol.TCP))
    node.put(service(1, [endpoint(2)], Protocol.TCP))
    assert sorted(switch.dump_flows()) == right


def learned(switch: PrivateSwitch) -> list[str]:
    return [line for line in switch.dump_flows() if f" table={SESSION_AFFINITY.number}," in line]


def test_flows_that_the_switch_has_learned_are_no_drift(
    unwatched: None, switch: PrivateSwitch, node: ServiceNode
) -> None:
    node.put(service(1, [endpoint(1)], Protocol.TCP, affinity_seconds=600))
    before = learned(switch)
    send(switch, 0, "10.96.0.1", 80, 30000, Protocol.TCP)
    wait_until(lambda: len(learned(switch)) > len(before), "the flow to be learned")
    with_client = learned(switch)
    table = f"table={SESSION_AFFINITY.number},priority={Priority.NORMAL.value}"
    switch.ofctl("add-flow", f"{table},cookie=0x900000000000042,ip,reg5=1,actions=drop")
    reconnect(node)
    assert learned(switch) == with_client, "what is nobody's goes, what was learned stays"
    assert node.synchronizer.status.repaired == 1


def test_what_was_learned_goes_with_its_endpoint(switch: PrivateSwitch, node: ServiceNode) -> None:
    before = learned(switch)
    node.put(service(1, [endpoint(1)], Protocol.TCP, affinity_seconds=600))
    send(switch, 0, "10.96.0.1", 80, 30000, Protocol.TCP)
    wait_until(lambda: len(learned(switch)) > len(before), "the flow to be learned")
    node.put(service(1, [endpoint(2)], Protocol.TCP, affinity_seconds=600))
    wait_until(lambda: learned(switch) == before, "the learned flow to go")


def test_what_was_learned_goes_when_its_endpoint_is_found_gone(switch: PrivateSwitch) -> None:
    with service_node(switch) as first:
        first.put_pods(PODS)
        first.connect()
        first.put(service(1, [endpoint(1)], Protocol.TCP, affinity_seconds=600))
        before = learned(switch)
        send(switch, 0, "10.96.0.1", 80, 30000, Protocol.TCP)
        wait_until(lambda: len(learned(switch)) > len(before), "the flow to be learned")
    with service_node(switch) as second:
        second.put_pods(PODS)
        waiting = second.put_later(service(1, [endpoint(2)], Protocol.TCP, affinity_seconds=600))
        second.connect()
        assert waiting() is None
        wait_until(lambda: learned(switch) == before, "the learned flow to go")


def test_what_is_refused_even_to_be_removed_holds_up_nobody(node: ServiceNode) -> None:
    """A match that the switch does not take is no match to remove by, either; the entry was never there."""
    no_prerequisite = match(eth_type=0x0800, ct_state="+trk", ct_nw_proto=Protocol.UDP)
    flow = Flow(ENDPOINT.number, 5, no_prerequisite, (), 7, Owner("Service", "default", "bad"), "a test")
    waiter = Waiter()
    node.synchronizer.submit("bad", lambda: [flow], waiter.done)
    why = waiter()
    assert why is not None
    assert "BAD_PREREQ" in why
    node.put(service(2, [endpoint(1)], Protocol.TCP))
