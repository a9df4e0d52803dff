# SPDX-License-Identifier: Apache-2.0
"""The codec's edges: what cannot be encoded is refused by name, and nothing of the flow language was forgotten."""

from __future__ import annotations

from typing import Final

import pytest

from sdn.openflow import (
    CodecError,
    FlowCommand,
    FlowImage,
    barrier_request,
    bundle,
    decode_header,
    flow_image,
    flow_mod,
    format_actions,
    format_match,
    group_image,
)
from sdn.openflow.actionwire import ENCODERS, encode_actions
from sdn.openflow.text import _NXM_NAMES, _TEXT_ORDER
from sdn.pipeline.actions import (
    ACTIONS,
    CONTROLLER,
    IN_PORT,
    Action,
    Bucket,
    Conjunction,
    Ct,
    Goto,
    Output,
    SetField,
    set_field,
)
from sdn.pipeline.fields import FIELDS, OFPP_LOCAL
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import Match, match
from sdn.pipeline.owner import Owner

OWNER: Final = Owner("Pod", "shop", "web")


def flow(*actions: Action, what: Match | None = None) -> Flow:
    return Flow(3, 100, what or Match(), actions, 0xABC, OWNER, "test")


def test_every_action_of_the_flow_language_can_be_encoded() -> None:
    assert set(ENCODERS) == set(ACTIONS)


def test_every_field_of_the_flow_language_has_its_place_in_text() -> None:
    assert set(_TEXT_ORDER) - {"words"} == set(FIELDS)
    assert set(_NXM_NAMES) == set(FIELDS)


def test_an_image_tells_table_priority_and_cookie() -> None:
    image = FlowImage(*flow_image(flow()))
    assert (image.table, image.priority, image.cookie) == (3, 100, 0xABC)


def test_the_images_of_flows_that_a_switch_takes_for_one_have_one_key() -> None:
    one = flow(Output(1), what=match(ip_dst="10.0.0.0/8"))
    other = flow(Output(2), what=match(ip_dst="10.0.0.0/8"))
    assert flow_image(one)[0] == flow_image(other)[0]
    assert flow_image(one)[1] != flow_image(other)[1]


def test_a_complete_mask_is_no_mask() -> None:
    field = FIELDS["reg1"]
    assert flow_image(flow(what=Match(((field, 5, 0xFFFFFFFF),)))) == flow_image(flow(what=match(reg1=5)))
    assert encode_actions((SetField(field, 5, 0xFFFFFFFF),)) == encode_actions((SetField(field, 5),))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (flow(what=Match(((FIELDS["tcp_dst"], 65536, None),))), "too large for its field"),
        (flow(what=Match(((FIELDS["reg0"], -1, None),))), "too large for its field"),
        (flow(what=Match(((FIELDS["reg0"], 1, 1 << 32),))), "does not fit into reg0"),
        (flow(what=Match(((FIELDS["reg0"], 1, None), (FIELDS["reg0"], 2, None)))), "occurs twice"),
        (flow(SetField(FIELDS["eth_dst"], 1 << 48)), "does not fit into eth_dst"),
        (flow(SetField(FIELDS["in_port"], 0x10000)), "in_port cannot be set"),
        (flow(Output(-1)), "argument out of range|format requires"),
        (flow(Goto(4), Output(1)), "only a flow's last action"),
        (flow(Ct(zone=70000)), "argument out of range|format requires"),
        (flow(Conjunction(7, 0, 2)), "conjunction 7 has clause 0 of 2"),
        (flow(Conjunction(7, 3, 2)), "conjunction 7 has clause 3 of 2"),
        (flow(Conjunction(7, 1, 1)), "conjunction 7 has clause 1 of 1"),
        (flow(Conjunction(7, 1, 65)), "conjunction 7 has clause 1 of 65"),
        (flow(Conjunction(1 << 32, 1, 2)), "argument out of range|format requires"),
        (flow(*[Conjunction(number, 1, 2) for number in range(4089)]), "more than a switch can describe"),
        (flow(Ct(zone_field=(FIELDS["reg0"], 20))), "bits 20..35 of a field of 32 bits"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_the_flow_and_its_owner(bad: Flow, why: str) -> None:
    with pytest.raises(CodecError, match=why) as refused:
        flow_image(bad)
    assert "flow of Pod/shop/web in table 3, priority 100" in str(refused.value)


def test_what_cannot_be_encoded_in_a_group_is_refused_with_the_group_and_its_owner() -> None:
    bad = Group(9, "all", (Bucket(1, (Goto(4),)),), OWNER, "test")
    with pytest.raises(CodecError, match="group 9 of Pod/shop/web: goto_table is an instruction"):
        group_image(bad)


def test_a_flow_that_does_not_fit_into_a_message_is_refused() -> None:
    key, body = flow_image(flow(*[set_field(ipv6_dst="fd00::1")] * 2000, what=match(eth_type=0x86DD)))
    # As no flow of ours, but perhaps one of somebody else's.
    longer = body + body[16:]
    with pytest.raises(CodecError, match="does not fit into a message"):
        flow_mod(FlowCommand.ADD, key, longer)
    # What was written by somebody else can still be removed.
    assert len(flow_mod(FlowCommand.DELETE_STRICT, key, longer)) < 100


def test_a_message_that_just_fits_alone_is_refused_by_the_bundle() -> None:
    message = bytes(65530)
    with pytest.raises(CodecError, match="does not fit into a bundle"):
        list(bundle(1, [message], 1))


def test_a_bundle_gives_its_messages_the_xids_it_promises() -> None:
    messages = [flow_mod(FlowCommand.ADD, *flow_image(flow(Output(port)))) for port in range(5)]
    stream = b"".join(bundle(1, messages, 0xFFFFFFFE))
    xids = []
    while stream:
        header = decode_header(stream[: int.from_bytes(stream[2:4], "big")])
        xids.append((header.type, header.xid))
        if header.type == 34:  # the wrapped message carries the wrapper's xid
            assert stream[20:24] == stream[4:8]
        stream = stream[header.length :]
    added = [(34, number) for number in (0, 1, 2, 3, 4)]
    assert xids == [(33, 0xFFFFFFFE), *added, (33, 0xFFFFFFFF)]


def test_a_bundle_of_many_messages_comes_in_chunks_cut_between_messages() -> None:
    message = flow_mod(FlowCommand.ADD, *flow_image(flow(Output(1))))
    chunks = list(bundle(1, [message] * 20_000, 1))
    assert len(chunks) > 3
    assert all(chunk[0] == 6 and chunk[1] in (33, 34) for chunk in chunks)


def test_a_barrier_is_a_bare_header() -> None:
    assert decode_header(barrier_request(7)) == (6, 20, 8, 7)


def test_text_names_reserved_ports() -> None:
    assert format_actions((IN_PORT, CONTROLLER, Output(OFPP_LOCAL), Output(7))) == (
        "IN_PORT,CONTROLLER:65535,LOCAL,output:7"
    )
    assert format_match(match(in_port=OFPP_LOCAL)) == "in_port=LOCAL"
