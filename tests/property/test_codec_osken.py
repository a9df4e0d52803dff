# SPDX-License-Identifier: Apache-2.0
"""Our encoder and os-ken's give the same bytes for every flow and group that os-ken can encode."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_v1_5_parser as parser

from sdn.openflow import (
    FlowCommand,
    GroupCommand,
    Role,
    RoleReason,
    RoleReply,
    RoleStatus,
    decode_role_reply,
    decode_role_status,
    flow_image,
    flow_mod,
    group_image,
    group_mod,
    role_request,
)
from sdn.pipeline.flow import Flow, Group
from tests.property import osken_oracle, strategies

EXAMPLES: Final = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _repaired_os_ken() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        osken_oracle.pad_nicira_actions(monkeypatch)
        yield


@EXAMPLES
@given(strategies.flows(groups=(1, 2, 0xFFFFFF00)))
def test_a_flow_mod_is_what_os_ken_encodes(flow: Flow) -> None:
    assume(osken_oracle.can_say(flow))
    for command in FlowCommand:
        ours = flow_mod(command, *flow_image(flow), xid=0x12345678)
        assert ours.hex() == osken_oracle.os_ken_flow_mod(flow, command, 0x12345678).hex()


@EXAMPLES
@given(strategies.groups())
def test_a_group_mod_is_what_os_ken_encodes(group: Group) -> None:
    assume(osken_oracle.can_say_group(group))
    for command in (GroupCommand.ADD, GroupCommand.MODIFY):
        ours = group_mod(command, *group_image(group), xid=7)
        assert ours.hex() == osken_oracle.os_ken_group_mod(group, command, 7).hex()


NUMBERS: Final = {bits: st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64)}


@EXAMPLES
@given(st.sampled_from(Role), NUMBERS[64], NUMBERS[16], NUMBERS[32])
def test_a_role_request_is_what_os_ken_encodes(role: Role, generation: int, short_id: int, xid: int) -> None:
    theirs = parser.OFPRoleRequest(osken_oracle.DATAPATH, int(role), short_id, generation)
    theirs.set_xid(xid)
    theirs.serialize()
    assert role_request(xid, role, generation, short_id).hex() == theirs.buf.hex()


@EXAMPLES
@given(st.sampled_from(Role), NUMBERS[64], NUMBERS[16], NUMBERS[32])
def test_a_role_reply_is_what_os_ken_decodes(role: Role, generation: int, short_id: int, xid: int) -> None:
    # They differ in their type only.
    message = bytearray(role_request(xid, role, generation, short_id))
    message[1] = 25
    theirs = parser.OFPRoleReply.parser(osken_oracle.DATAPATH, 6, 25, len(message), xid, bytes(message))
    ours = decode_role_reply(bytes(message))
    assert ours == RoleReply(xid, role, generation, short_id)
    assert (theirs.role, theirs.generation_id, theirs.short_id) == (ours.role, ours.generation, ours.short_id)


@EXAMPLES
@given(st.sampled_from(Role), st.sampled_from(RoleReason), NUMBERS[64], st.booleans())
def test_a_role_status_is_what_os_ken_decodes(
    role: Role, reason: RoleReason, generation: int, experimenter: bool
) -> None:
    body = struct.pack("!IB3xQ", role, reason, generation)
    if experimenter:
        body += struct.pack("!HHII", 0xFFFF, 12, 0x2320, 1)
    message = struct.pack("!BBHI", 6, 30, 8 + len(body), 0) + body
    theirs = parser.OFPRoleStatus.parser(osken_oracle.DATAPATH, 6, 30, len(message), 0, message)
    assert decode_role_status(message) == RoleStatus(role, reason, generation)
    assert (theirs.role, theirs.reason, theirs.generation_id) == (role, reason, generation)
