# SPDX-License-Identifier: Apache-2.0
"""Bundles against a real switch: all or nothing, errors that name their message, replacing without losing counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from sdn.openflow import (
    BundleControl,
    FlowCommand,
    bundle,
    bundle_commit,
    bundle_discard,
    decode_bundle_reply,
    decode_error,
    decode_flow_descs,
    flow_desc_request,
    flow_image,
    flow_mod,
)
from sdn.openflow.wire import HEADER, OFP_VERSION, OFPT_BUNDLE_CONTROL, OFPT_ERROR
from sdn.pipeline.actions import Action, DecTtl, GroupAction, Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.pipeline.owner import Owner
from tests.switch.ovs import Connection, Message, PrivateSwitch, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("Pod", "default", "web")
PACKET: Final = "in_port(1),eth(src=0a:58:00:00:00:01,dst=0a:58:00:00:00:02),eth_type(0x1234)"


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    switch.clear()
    with switch.connect() as connection:
        yield connection


def flow(priority: int, *actions: Action, what: Match | None = None, cookie: int = 5, idle: int = 0) -> Flow:
    return Flow(0, priority, what or Match(), actions, cookie, OWNER, "test", idle)


def add(*flows: Flow) -> list[bytes]:
    return [flow_mod(FlowCommand.ADD, *flow_image(each)) for each in flows]


def whole(message: Message) -> bytes:
    return HEADER.pack(OFP_VERSION, message.type, 8 + len(message.body), message.xid) + message.body


def stroke(connection: Connection, messages: Sequence[bytes], first_xid: int = 100) -> list[Message]:
    """Open, add, close; every answer up to the close's, errors included."""
    for chunk in bundle(9, messages, first_xid):
        connection.send(chunk)
    answers = []
    while True:
        answers.append(connection.receive())
        if answers[-1].type == OFPT_BUNDLE_CONTROL and answers[-1].xid == first_xid + 1:
            return answers


def test_nothing_is_in_force_before_the_commit(switch: PrivateSwitch, connection: Connection) -> None:
    answers = stroke(connection, add(flow(1), flow(2, Output(3))))
    replies = [decode_bundle_reply(whole(answer)) for answer in answers]
    assert [reply.type for reply in replies] == [BundleControl.OPEN_REPLY, BundleControl.CLOSE_REPLY]
    assert {reply.bundle_id for reply in replies} == {9}
    assert switch.dump_flows() == []
    (answer,) = connection.transact(bundle_commit(9, 102))
    assert decode_bundle_reply(whole(answer)).type is BundleControl.COMMIT_REPLY
    assert len(switch.dump_flows()) == 2


def test_a_discarded_bundle_leaves_nothing(switch: PrivateSwitch, connection: Connection) -> None:
    stroke(connection, add(flow(1)))
    (answer,) = connection.transact(bundle_discard(9, 102))
    assert decode_bundle_reply(whole(answer)).type is BundleControl.DISCARD_REPLY
    assert switch.dump_flows() == []


def test_a_refused_message_is_named_by_its_xid(switch: PrivateSwitch, connection: Connection) -> None:
    # A TTL that no packet of this match has: the switch refuses the action.
    good, bad = add(flow(1)), add(flow(2, DecTtl()))
    answers = stroke(connection, [*good, *bad, *good], first_xid=0xFFFFFFFC)
    errors = [decode_error(whole(answer)) for answer in answers if answer.type == OFPT_ERROR]
    # 0xFFFFFFFC opens, the next closes, then come the messages: the second has 0xFFFFFFFF.
    assert [str(error) for error in errors] == ["BAD_ACTION/MATCH_INCONSISTENT for message 0xffffffff"]
    connection.transact(bundle_discard(9, 5))


def test_why_a_bundle_is_committed_only_after_its_close_was_answered(
    switch: PrivateSwitch, connection: Connection
) -> None:
    """Open vSwitch goes on with a bundle from which it refused a message: a blind commit would apply half."""
    answers = stroke(connection, [*add(flow(1)), *add(flow(2, DecTtl()))])
    assert [answer.type for answer in answers].count(OFPT_ERROR) == 1
    connection.transact(bundle_commit(9, 5))
    assert len(switch.dump_flows()) == 1


def test_a_failed_commit_changes_nothing(switch: PrivateSwitch, connection: Connection) -> None:
    """A group that does not exist is noticed only at the commit: then the whole bundle is undone."""
    stroke(connection, add(flow(1, Output(1)), flow(2, GroupAction(77))))
    connection.send(bundle_commit(9, 102))
    errors: list[str] = []
    while len(errors) < 2:
        answer = connection.receive()
        assert answer.type == OFPT_ERROR
        errors.append(str(decode_error(whole(answer))))
    assert sorted(errors) == [
        "BAD_ACTION/BAD_OUT_GROUP for message 0x67",
        "BUNDLE_FAILED/MSG_FAILED for message 0x66",
    ]
    assert switch.dump_flows() == []


def test_an_added_flow_replaces_its_twin_and_keeps_its_counters(
    switch: PrivateSwitch, connection: Connection
) -> None:
    switch.add_port("p1", 1)
    before = flow(7, Output(2), what=match(in_port=1), cookie=1)
    after = flow(7, Output(3), what=match(in_port=1), cookie=2, idle=60)
    stroke(connection, add(before))
    connection.transact(bundle_commit(9, 102))
    for _ in range(3):
        switch.appctl("netdev-dummy/receive", "p1", PACKET)
    stroke(connection, add(after))
    connection.transact(bundle_commit(9, 103))

    switch.appctl("revalidator/wait")
    (reply,) = connection.transact(flow_desc_request(1))
    (seen,) = decode_flow_descs(reply.body[8:])
    assert (seen.actions, seen.cookie, seen.idle_timeout) == (after.actions, 2, 60)
    assert seen.packets == 3
    assert seen.bytes is not None
    assert seen.bytes > 0


def test_the_switch_gives_only_the_flows_that_were_asked_for(
    switch: PrivateSwitch, connection: Connection
) -> None:
    flows = [
        flow(1, what=match(ip_dst="10.0.0.1"), cookie=0x0100),
        flow(1, what=match(ip_dst="10.0.0.2"), cookie=0x0201),
        Flow(3, 1, match(ip_dst="10.0.0.1"), (), 0x0300, OWNER, "test"),
    ]
    stroke(connection, add(*flows))
    connection.transact(bundle_commit(9, 102))

    def cookies(request: bytes) -> list[int]:
        return sorted(
            seen.cookie
            for reply in connection.transact(request)
            for seen in decode_flow_descs(reply.body[8:])
        )

    assert cookies(flow_desc_request(1)) == [0x100, 0x201, 0x300]
    assert cookies(flow_desc_request(1, table=3)) == [0x300]
    assert cookies(flow_desc_request(1, match=match(ip_dst="10.0.0.1"))) == [0x100, 0x300]
    assert cookies(flow_desc_request(1, cookie=0x0200, cookie_mask=0xFF00)) == [0x201]
