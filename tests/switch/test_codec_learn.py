# SPDX-License-Identifier: Apache-2.0
"""What a real switch learns from packets by our ``learn`` action, and when it forgets it: what session affinity is
built on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from sdn.openflow import (
    DecodedFlow,
    FlowCommand,
    bundle,
    bundle_commit,
    decode_flow_descs,
    flow_desc_request,
    flow_image,
    flow_mod,
)
from sdn.pipeline.actions import Learn, LearnMatch, Output, Resubmit, set_field
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import tcp
from tests.switch.frames import frame
from tests.switch.ovs import Connection, PrivateSwitch, running_switch, wait_until

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("Service", "default", "web")
LEARNED_TABLE: Final = 8
LEARN: Final = Learn(
    LEARNED_TABLE,
    100,
    0x77,
    match=(LearnMatch(FIELDS["eth_type"], 0x800), LearnMatch(FIELDS["reg5"]), LearnMatch(FIELDS["ip_src"])),
    load=(set_field(reg3=9),),
    idle_timeout=600,
)


def teacher(learn: Learn = LEARN, cookie: int = 1) -> Flow:
    actions = (set_field(reg5=2049), Resubmit(LEARNED_TABLE), learn, Output(2))
    return Flow(0, 10, match(eth_type=0x800), actions, cookie, OWNER, "teaches")


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    switch.clear()
    if "p1" not in switch.vsctl("list-ports", "br0"):
        switch.add_port("p1", 1)
        switch.add_port("p2", 2)
    with switch.connect() as connection:
        connection.transact(flow_mod(FlowCommand.ADD, *flow_image(teacher())))
        yield connection


def learned(connection: Connection) -> list[DecodedFlow]:
    replies = connection.transact(flow_desc_request(1, table=LEARNED_TABLE))
    return sorted(
        (flow for reply in replies for flow in decode_flow_descs(reply.body[8:])),
        key=lambda flow: str(flow.match),
    )


def send(switch: PrivateSwitch, *clients: str) -> None:
    for client in clients:
        packet = tcp(
            eth_src=1, eth_dst=2, ip_src=client, ip_dst="10.96.0.1", tcp_src=1000, tcp_dst=80, tcp_flags=2
        )
        switch.appctl("netdev-dummy/receive", "p1", frame(packet).hex())


def test_each_client_is_learned_once_with_cookie_and_timeout(
    switch: PrivateSwitch, connection: Connection
) -> None:
    send(switch, "10.244.1.5", "10.244.1.6", "10.244.1.5")
    wait_until(lambda: len(learned(connection)) == 2, "both clients learned")
    one, other = learned(connection)
    assert (one.priority, one.cookie, one.idle_timeout, one.hard_timeout) == (100, 0x77, 600, 0)
    assert str(one.match) == "eth_type=0x800,ip_src=10.244.1.5,reg5=0x801"
    assert one.actions == other.actions == (set_field(reg3=9),)


def test_what_was_learned_goes_with_the_flow_that_taught_it(
    switch: PrivateSwitch, connection: Connection
) -> None:
    send(switch, "10.244.1.5")
    wait_until(lambda: len(learned(connection)) == 1, "the client learned")
    message = flow_mod(FlowCommand.DELETE_STRICT, *flow_image(teacher()))
    for chunk in bundle(1, [message], 100):
        connection.send(chunk)
    connection.transact(b"")
    assert len(learned(connection)) == 1
    connection.transact(bundle_commit(1, 200))
    assert learned(connection) == []


@pytest.mark.parametrize("command", [FlowCommand.ADD, FlowCommand.MODIFY_STRICT])
def test_what_was_learned_stays_while_a_flow_teaches_the_same(
    switch: PrivateSwitch, connection: Connection, command: FlowCommand
) -> None:
    send(switch, "10.244.1.5")
    wait_until(lambda: len(learned(connection)) == 1, "the client learned")
    connection.transact(flow_mod(command, *flow_image(teacher())))
    connection.transact(
        flow_mod(command, *flow_image(replace(teacher(), actions=(*teacher().actions, Output(3)))))
    )
    assert len(learned(connection)) == 1
    # With another cookie it is another's.
    connection.transact(flow_mod(command, *flow_image(teacher(replace(LEARN, cookie=0x78)))))
    assert learned(connection) == []


def test_a_learned_flow_counts_in_the_next_packet_and_follows_what_is_taught_anew(
    switch: PrivateSwitch, connection: Connection
) -> None:
    send(switch, "10.244.1.5")
    wait_until(lambda: len(learned(connection)) == 1, "the client learned")
    connection.transact(
        flow_mod(FlowCommand.ADD, *flow_image(teacher(replace(LEARN, load=(set_field(reg3=10),)))))
    )
    assert [flow.actions for flow in learned(connection)] == [(set_field(reg3=9),)]
    send(switch, "10.244.1.5")
    wait_until(lambda: learned(connection)[0].actions == (set_field(reg3=10),), "the client learned anew")
