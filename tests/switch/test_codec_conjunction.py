# SPDX-License-Identifier: Apache-2.0
"""Conjunctive matches in a real switch: what is written reads back as the same bytes, packets go by it, and one flow's
conjunctions are exchanged without touching the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from sdn.openflow import (
    CodecError,
    FlowCommand,
    barrier_request,
    bundle,
    bundle_commit,
    decode_error,
    decode_flow_descs,
    flow_desc_request,
    flow_image,
    flow_mod,
    format_flow,
    split_flow_descs,
)
from sdn.openflow.actionwire import encode_actions
from sdn.openflow.image import MAX_IMAGE
from sdn.openflow.wire import HEADER, OFP_VERSION, OFPT_ERROR, OFPT_MULTIPART_REPLY
from sdn.pipeline.actions import Action, Conjunction, Goto, Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.pipeline.owner import Owner
from sdn.simulator.packet import Packet, tcp
from sdn.simulator.switch import SimulatedSwitch
from tests.switch.frames import captured, frame
from tests.switch.ovs import Connection, PrivateSwitch, running_switch, wait_until

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("NetworkPolicy", "shop", "web")
WEB, DATABASE = 0x80000001, 2
PORTS: Final = (1, 2, 3)


def flow(number: int, what: Match, *actions: Action, priority: int = 100) -> Flow:
    return Flow(5, priority, what, actions, number, OWNER, "test")


#: Clients and what they may reach: a server's ports 80 (WEB, out at port 2) and 5432 (DATABASE, port 3).
CLIENT: Final = flow(1, match(ip_src="10.0.0.1"), Conjunction(WEB, 1, 2), Conjunction(DATABASE, 1, 2))
FLOWS: Final = (
    Flow(0, 1, Match(), (Goto(5),), 9, OWNER, "test"),
    CLIENT,
    flow(2, match(ip_src="10.0.1.0/24"), Conjunction(WEB, 1, 2)),
    flow(3, match(eth_type=0x800, tcp_dst=80), Conjunction(WEB, 2, 2)),
    flow(4, match(eth_type=0x800, tcp_dst=5432), Conjunction(DATABASE, 2, 2)),
    flow(5, match(conj_id=WEB), Output(2)),
    flow(6, match(conj_id=DATABASE), Output(3)),
)


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    switch.clear()
    if "p1" not in switch.vsctl("list-ports", "br0"):
        for port in PORTS:
            switch.add_port(f"p{port}", port, tx_pcap=str(capture(switch, port)))
    with switch.connect() as connection:
        yield connection


def capture(switch: PrivateSwitch, port: int) -> Path:
    return switch.folder / f"p{port}.pcap"


def write(connection: Connection, flows: Sequence[Flow]) -> None:
    messages = [flow_mod(FlowCommand.ADD, *flow_image(each)) for each in flows]
    for chunk in bundle(7, messages, 1000):
        connection.send(chunk)
    connection.transact(b"")
    connection.transact(bundle_commit(7, 999))


def bodies(connection: Connection) -> list[bytes]:
    answers = connection.transact(flow_desc_request(1))
    return [answer.body[8:] for answer in answers if answer.type == OFPT_MULTIPART_REPLY]


def images(connection: Connection) -> dict[bytes, bytes]:
    return dict(image for body in bodies(connection) for image in split_flow_descs(body))


def request(source: str, port: int) -> Packet:
    return tcp(in_port=1, eth_src=1, eth_dst=2, ip_src=source, ip_dst="10.0.0.9", tcp_dst=port)


def sent(switch: PrivateSwitch, packet: Packet) -> tuple[int, ...]:
    """Where a packet comes out. Something that comes out at once shows that it had its time."""
    before = {port: len(captured(capture(switch, port))) for port in PORTS}
    switch.appctl("netdev-dummy/receive", "p1", frame(packet).hex())
    known = request("10.0.1.7", 80)
    switch.appctl("netdev-dummy/receive", "p1", frame(known).hex())
    wait_until(
        lambda: frame(known) in captured(capture(switch, 2))[before[2] :], "the packet that is sent after it"
    )
    return tuple(port for port in PORTS if frame(packet) in captured(capture(switch, port))[before[port] :])


def test_conjunctions_read_back_as_the_bytes_and_lines_that_were_written(
    switch: PrivateSwitch, connection: Connection
) -> None:
    write(connection, FLOWS)
    assert images(connection) == dict(map(flow_image, FLOWS))
    seen = [each for body in bodies(connection) for each in decode_flow_descs(body)]
    assert {each.cookie: each.actions for each in seen} == {each.cookie: each.actions for each in FLOWS}
    assert sorted(map(format_flow, FLOWS)) == sorted(map(format_flow, seen)) == sorted(switch.dump_flows())
    assert (
        "cookie=0x1, table=5, priority=100,ip,nw_src=10.0.0.1 "
        "actions=conjunction(2147483649,1/2),conjunction(2,1/2)"
    ) in switch.dump_flows()


def test_packets_go_where_the_conjunction_that_they_satisfy_says(
    switch: PrivateSwitch, connection: Connection
) -> None:
    write(connection, FLOWS)
    simulated = SimulatedSwitch(FLOWS)
    for source, port, out in (
        ("10.0.0.1", 80, (2,)),
        ("10.0.0.1", 5432, (3,)),
        ("10.0.0.1", 22, ()),
        ("10.0.1.8", 80, (2,)),
        ("10.0.1.8", 5432, ()),
        ("10.0.2.1", 80, ()),
    ):
        packet = request(source, port)
        assert sent(switch, packet) == simulated.run(packet).ports == out


def test_the_conjunctions_of_one_flow_are_exchanged_in_a_bundle(
    switch: PrivateSwitch, connection: Connection
) -> None:
    write(connection, FLOWS)
    assert sent(switch, request("10.0.0.1", 80)) == (2,)
    for actions in (
        (Conjunction(DATABASE, 1, 2),),
        (Conjunction(WEB, 1, 2), Conjunction(7, 3, 4), Conjunction(DATABASE, 1, 2)),
        (Conjunction(WEB, 1, 2),),
        # From the front to the back, which is another flow as bytes and the same one for packets.
        (Conjunction(DATABASE, 1, 2), Conjunction(WEB, 1, 2)),
    ):
        write(connection, [replace(CLIENT, actions=actions)])
        wanted = [replace(CLIENT, actions=actions) if each is CLIENT else each for each in FLOWS]
        assert images(connection) == dict(map(flow_image, wanted))
        numbers = {action.id for action in actions}
        switch.appctl("revalidator/wait")
        assert sent(switch, request("10.0.0.1", 80)) == ((2,) if WEB in numbers else ())
        assert sent(switch, request("10.0.0.1", 5432)) == ((3,) if DATABASE in numbers else ())


def test_a_switch_keeps_order_and_duplicates(switch: PrivateSwitch, connection: Connection) -> None:
    one, other = Conjunction(9, 2, 2), Conjunction(3, 1, 2)
    jumbled = flow(1, Match(), one, other, one, Conjunction(3, 2, 64))
    write(connection, [jumbled])
    assert images(connection) == dict([flow_image(jumbled)])


@pytest.mark.parametrize(
    ("clause", "clauses", "others"),
    [
        (0, 1, ()),
        (0, 65, ()),
        (2, 2, ()),
        (0, 0, ()),
        (0, 2, (Output(2),)),
    ],
)
def test_a_switch_refuses_what_our_encoder_and_simulator_refuse(
    connection: Connection, clause: int, clauses: int, others: tuple[Action, ...]
) -> None:
    # As on the wire, where the first clause is 0.
    action = struct.pack("!HHIHBBI", 0xFFFF, 16, 0x2320, 34, clause, clauses, 7) + encode_actions(others)
    key, body = flow_image(flow(1, Match()))
    body += struct.pack("!HH4x", 4, 8 + len(action)) + action
    connection.send(flow_mod(FlowCommand.ADD, key, body))
    connection.send(barrier_request(5))
    error, _ = connection.receive(), connection.receive()
    assert error.type == OFPT_ERROR
    # OFPET_EXPERIMENTER, NXBAC_BAD_CONJUNCTION.
    whole = HEADER.pack(OFP_VERSION, error.type, 8 + len(error.body), error.xid) + error.body
    assert decode_error(whole).type == 0xFFFF
    with pytest.raises(ValueError, match="conjunction"):
        SimulatedSwitch([flow(1, Match(), Conjunction(7, clause + 1, clauses), *others)])
    if not others:
        with pytest.raises(CodecError, match="conjunction 7"):
            flow_image(flow(1, Match(), Conjunction(7, clause + 1, clauses)))


def test_as_many_conjunctions_as_a_switch_can_describe(switch: PrivateSwitch, connection: Connection) -> None:
    actions = [Conjunction(number, 1, 2) for number in range(4089)]
    largest = flow(1, Match(), *actions[:-1])
    assert sum(map(len, flow_image(largest))) <= MAX_IMAGE
    # In a bundle, which makes the message longer still.
    write(connection, [largest])
    assert images(connection) == dict([flow_image(largest)])
    with pytest.raises(CodecError, match="more than a switch can describe"):
        flow_image(flow(1, Match(), *actions))
    # The switch takes one more, and says nothing of the flow any more.
    key, body = flow_image(flow(1, Match()))
    body += struct.pack("!HH4x", 4, 8 + 16 * len(actions)) + encode_actions(tuple(actions))
    connection.transact(flow_mod(FlowCommand.ADD, key, body))
    assert images(connection) == {}
    connection.transact(flow_mod(FlowCommand.DELETE_STRICT, key, body))
