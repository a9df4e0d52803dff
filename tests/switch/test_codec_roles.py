# SPDX-License-Identifier: Apache-2.0
"""Roles at a real switch: what sdn/openflow/roles.py says of Open vSwitch is so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from sdn.openflow import (
    NO_GENERATION,
    BundleControl,
    CtTuple,
    ErrorMessage,
    FlowCommand,
    Framer,
    GroupCommand,
    Role,
    RoleReason,
    RoleReply,
    RoleStatus,
    bundle,
    bundle_commit,
    bundle_discard,
    ct_flush,
    decode_bundle_reply,
    decode_error,
    decode_role_reply,
    decode_role_status,
    desc_request,
    flow_desc_request,
    flow_image,
    flow_mod,
    group_desc_request,
    group_image,
    group_mod,
    group_stats_request,
    packet_out,
    role_request,
    tells_deposed,
)
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPT_BUNDLE_CONTROL,
    OFPT_ERROR,
    OFPT_MULTIPART_REPLY,
    OFPT_PACKET_IN,
    OFPT_ROLE_REPLY,
    OFPT_ROLE_REQUEST,
    OFPT_ROLE_STATUS,
)
from sdn.pipeline.actions import Output
from sdn.pipeline.fields import OFPP_CONTROLLER
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.topology import Address
from tests.switch.controllers import Accepted, Target, set_targets, whole
from tests.switch.ovs import Message, PrivateSwitch, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(running_switch)
OWNER: Final = Owner("Pod", "default", "web")
UDP: Final = (
    "in_port(1),eth(src=0a:58:00:00:00:01,dst=0a:58:00:00:00:02),eth_type(0x0800),"
    "ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)"
)


class Pair:
    """A switch and its two controllers."""

    def __init__(self, switch: PrivateSwitch) -> None:
        self.switch = switch
        self.targets = (Target(), Target())
        set_targets(switch, [target.text for target in self.targets])
        self.first, self.second = self.accept()

    def accept(self) -> tuple[Accepted, Accepted]:
        first, second = (target.accept() for target in self.targets)
        return first, second

    def close(self) -> None:
        for each in (self.first, self.second, *self.targets):
            each.close()


@pytest.fixture
def pair(switch: PrivateSwitch) -> Iterator[Pair]:
    switch.add_port("p1", 1)
    switch.add_port("p2", 2)
    running = Pair(switch)
    yield running
    running.close()


def add(*priorities: int) -> list[bytes]:
    flows = [Flow(0, each, match(in_port=1), (Output(2),), 5, OWNER, "test") for each in priorities]
    return [flow_mod(FlowCommand.ADD, *flow_image(flow)) for flow in flows]


def priorities(switch: PrivateSwitch) -> set[int]:
    return {int(line.partition("priority=")[2].partition(",")[0]) for line in switch.dump_flows()}


def said(messages: list[Message]) -> list[RoleReply | RoleStatus | ErrorMessage | BundleControl | int]:
    """What the messages say; of others their type."""
    result: list[RoleReply | RoleStatus | ErrorMessage | BundleControl | int] = []
    for message in messages:
        match message.type:
            case n if n == OFPT_ROLE_REPLY:
                result.append(decode_role_reply(whole(message)))
            case n if n == OFPT_ROLE_STATUS:
                assert message.xid == 0
                result.append(decode_role_status(whole(message)))
            case n if n == OFPT_ERROR:
                result.append(decode_error(whole(message)))
            case n if n == OFPT_BUNDLE_CONTROL:
                result.append(decode_bundle_reply(whole(message)).type)
            case n:
                result.append(n)
    return result


def ask(controller: Accepted, role: Role, generation: int = 0, xid: int = 1) -> tuple[Role, int] | str:
    """The role that the controller has then and the switch's generation; or what was refused."""
    (answer,) = said(controller.until_barrier(role_request(xid, role, generation)))
    if isinstance(answer, ErrorMessage):
        assert answer.xid == xid
        return str(answer).partition(" ")[0]
    assert isinstance(answer, RoleReply)
    assert answer.xid == xid
    return answer.role, answer.generation


def refused(messages: list[Message]) -> list[int]:
    """All are IS_SLAVE errors: the numbers of what was refused, in the order of the answers."""
    errors = [decode_error(whole(message)) for message in messages]
    assert {str(error).partition(" ")[0] for error in errors} <= {"BAD_REQUEST/IS_SLAVE"}
    assert all(map(tells_deposed, errors))
    return [error.xid for error in errors]


def deposed(generation: int) -> RoleStatus:
    return RoleStatus(Role.SLAVE, RoleReason.MASTER_REQUEST, generation)


def test_everybody_begins_as_equal_and_the_switch_has_seen_no_generation(pair: Pair) -> None:
    assert ask(pair.first, Role.NOCHANGE) == (Role.EQUAL, NO_GENERATION)
    assert ask(pair.second, Role.SLAVE, 0) == (Role.SLAVE, 0)


def test_the_highest_generation_wins_and_an_equal_one_is_not_stale(pair: Pair) -> None:
    assert ask(pair.first, Role.MASTER, 10) == (Role.MASTER, 10)
    assert ask(pair.first, Role.MASTER, 10) == (Role.MASTER, 10)
    assert ask(pair.second, Role.MASTER, 9) == "ROLE_REQUEST_FAILED/STALE"
    assert ask(pair.second, Role.SLAVE, 9) == "ROLE_REQUEST_FAILED/STALE"
    assert ask(pair.second, Role.NOCHANGE) == (Role.EQUAL, 10), "a refused request changes nothing"
    assert pair.second.until_barrier(add(3)[0]) == []
    assert ask(pair.second, Role.MASTER, 11) == (Role.MASTER, 11)
    assert said(pair.first.until_barrier(b"")) == [deposed(11)]
    assert ask(pair.first, Role.MASTER, 11) == (Role.MASTER, 11)
    assert said(pair.second.until_barrier(b"")) == [deposed(11)]


def test_generations_are_compared_as_signed_difference(pair: Pair) -> None:
    assert ask(pair.first, Role.MASTER, NO_GENERATION - 1) == (Role.MASTER, NO_GENERATION - 1)
    assert ask(pair.first, Role.MASTER, 1) == (Role.MASTER, 1)
    assert ask(pair.first, Role.MASTER, (1 << 63) + 2) == "ROLE_REQUEST_FAILED/STALE"


def test_a_slaves_generation_counts_and_takes_nothing_from_the_master(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    assert ask(pair.second, Role.SLAVE, 12) == (Role.SLAVE, 12)
    assert ask(pair.first, Role.NOCHANGE) == (Role.MASTER, 12)
    assert pair.first.until_barrier(add(1)[0]) == []
    assert ask(pair.first, Role.MASTER, 10) == "ROLE_REQUEST_FAILED/STALE"
    assert pair.first.until_barrier(add(2)[0]) == []
    assert priorities(pair.switch) == {1, 2}


def test_an_equal_controller_may_write_beside_the_master_and_is_told_nothing(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    assert pair.second.until_barrier(add(1)[0]) == []
    assert priorities(pair.switch) == {1}
    with pair.switch.connect() as local:
        local.send(role_request(1, Role.NOCHANGE))
        assert decode_role_reply(whole(local.receive())).role is Role.EQUAL


def test_each_message_of_a_slave_that_changes_something_is_refused(pair: Pair) -> None:
    ask(pair.second, Role.SLAVE)
    group = Group(7, "select", (), OWNER, "test")
    frame = bytes(12) + b"\x12\x34" + bytes(50)
    changes = (
        flow_mod(FlowCommand.ADD, *flow_image(Flow(0, 1, match(), (), 5, OWNER, "test")), xid=21)
        + group_mod(GroupCommand.ADD, *group_image(group), xid=22)
        + packet_out(23, OFPP_CONTROLLER, (Output(2),), frame)
    )
    assert refused(pair.second.until_barrier(changes)) == [21, 22, 23]
    assert pair.switch.dump_flows() == []


def test_each_message_of_a_slaves_bundle_is_refused_under_its_own_number(pair: Pair) -> None:
    ask(pair.second, Role.SLAVE)
    opened = b"".join(bundle(100, add(1, 2, 3), 100))
    assert refused(pair.second.until_barrier(opened)) == [100, 102, 103, 104, 101]
    assert refused(pair.second.until_barrier(bundle_commit(100, 105))) == [105]
    assert refused(pair.second.until_barrier(bundle_discard(100, 106))) == [106]
    assert pair.switch.dump_flows() == []


def test_who_is_deposed_in_the_middle_of_a_bundle_is_refused_the_rest(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    opening, first, second, closing = Framer().feed(b"".join(bundle(300, add(8, 9), 300)))
    assert said(pair.first.until_barrier(opening + first)) == [BundleControl.OPEN_REPLY]
    ask(pair.second, Role.MASTER, 11)
    status, *errors = pair.first.until_barrier(second + closing)
    assert said([status]) == [deposed(11)]
    assert refused(errors) == [303, 301]
    assert refused(pair.first.until_barrier(bundle_discard(300, 304))) == [304]
    assert pair.switch.dump_flows() == []


def test_who_is_deposed_between_close_and_commit_changes_nothing(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    opened = pair.first.until_barrier(b"".join(bundle(200, add(6, 7), 200)))
    assert said(opened) == [BundleControl.OPEN_REPLY, BundleControl.CLOSE_REPLY]
    ask(pair.second, Role.MASTER, 11)
    status, error = pair.first.until_barrier(bundle_commit(200, 204))
    assert said([status]) == [deposed(11)]
    assert refused([error]) == [204]
    assert pair.switch.dump_flows() == []
    # But it is there still, for who becomes the master again soon: a bundle must have a number of its own.
    assert ask(pair.first, Role.MASTER, 12) == (Role.MASTER, 12)
    assert said(pair.first.until_barrier(bundle_commit(200, 205))) == [BundleControl.COMMIT_REPLY]
    assert priorities(pair.switch) == {6, 7}


def test_a_slave_may_read_everything(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    pair.first.until_barrier(add(1)[0])
    ask(pair.second, Role.SLAVE, 10)
    questions = (flow_desc_request(1), group_desc_request(2), group_stats_request(3), desc_request(4))
    assert said(pair.second.until_barrier(b"".join(questions))) == [OFPT_MULTIPART_REPLY] * 4


def test_a_slave_may_flush_the_connection_tracker(pair: Pair) -> None:
    """Which nobody would expect: whoever must not has to see to it himself."""
    pair.switch.ofctl("add-flow", "ip,actions=ct(commit,zone=1),output:2")
    pair.switch.appctl("netdev-dummy/receive", "p1", UDP)
    assert "10.0.0.1" in pair.switch.appctl("dpctl/dump-conntrack")
    ask(pair.first, Role.MASTER, 10)
    ask(pair.second, Role.SLAVE, 10)
    source = CtTuple(source=Address.parse("10.0.0.1"))
    assert pair.second.until_barrier(ct_flush(1, None, source, None)) == []
    assert "10.0.0.1" not in pair.switch.appctl("dpctl/dump-conntrack")


def test_packets_go_to_the_master_and_not_to_a_slave(pair: Pair) -> None:
    pair.switch.ofctl("add-flow", "ip,actions=controller")
    ask(pair.first, Role.MASTER, 10)
    ask(pair.second, Role.SLAVE, 10)
    pair.switch.appctl("netdev-dummy/receive", "p1", UDP)
    assert said([pair.first.receive()]) == [OFPT_PACKET_IN]
    assert pair.second.until_barrier(b"") == []


def test_a_master_that_connects_again_is_equal_and_its_generation_counts(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    ask(pair.second, Role.SLAVE, 10)
    pair.first.close()
    pair.first = pair.targets[0].accept()
    assert pair.second.until_barrier(b"") == [], "nobody is told that there is no master"
    assert ask(pair.first, Role.NOCHANGE) == (Role.EQUAL, 10)
    assert ask(pair.first, Role.MASTER, 9) == "ROLE_REQUEST_FAILED/STALE"
    assert ask(pair.first, Role.MASTER, 10) == (Role.MASTER, 10)


def test_a_switch_that_is_started_again_has_forgotten_everything(pair: Pair) -> None:
    ask(pair.first, Role.MASTER, 10)
    ask(pair.second, Role.SLAVE, 10)
    pair.switch.restart_vswitchd()
    pair.first.close()
    pair.second.close()
    pair.first, pair.second = pair.accept()
    assert ask(pair.first, Role.NOCHANGE) == (Role.EQUAL, NO_GENERATION)
    assert ask(pair.second, Role.MASTER, 3) == (Role.MASTER, 3)
    assert ask(pair.first, Role.NOCHANGE) == (Role.EQUAL, 3)


def test_an_unknown_role_and_one_that_is_cut_short_are_refused_by_name(pair: Pair) -> None:
    unknown = HEADER.pack(OFP_VERSION, OFPT_ROLE_REQUEST, 24, 7) + (9).to_bytes(4, "big") + bytes(12)
    short = HEADER.pack(OFP_VERSION, OFPT_ROLE_REQUEST, 16, 8) + bytes(8)
    errors = [decode_error(whole(message)) for message in pair.first.until_barrier(unknown + short)]
    assert [str(error) for error in errors] == [
        "ROLE_REQUEST_FAILED/BAD_ROLE for message 0x7",
        "BAD_REQUEST/BAD_LEN for message 0x8",
    ]
    assert not any(map(tells_deposed, errors))
