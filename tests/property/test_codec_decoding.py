# SPDX-License-Identifier: Apache-2.0
"""Decoding: the inverse of encoding for what is well formed, CodecError and nothing else for what is not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sdn.openflow import (
    CodecError,
    Framer,
    canonical_key,
    decode_bundle_reply,
    decode_error,
    decode_flow,
    decode_flow_descs,
    decode_group,
    decode_group_descs,
    decode_group_stats,
    decode_header,
    decode_packet_in,
    decode_port_descs,
    decode_port_status,
    decode_role_reply,
    decode_role_status,
    flow_image,
    format_flow,
    format_group,
    group_image,
    multipart_body,
    multipart_more,
    split_flow_descs,
    split_group_descs,
)
from sdn.pipeline.fields import Field
from sdn.pipeline.flow import Flow, Group
from tests.property import strategies

EXAMPLES: Final = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Duration 1.5 s, idle 0.25 s, 7 packets, 700 bytes, as the statistics of a flow description.
STATISTICS: Final = struct.pack(
    "!HHHBBIIHBBIIHBBQHBBQ4x",
    *(0, 4 + 4 * 12),
    *(0x8002, 0 << 1, 8, 1, 500_000_000),
    *(0x8002, 1 << 1, 8, 0, 250_000_000),
    *(0x8002, 4 << 1, 8, 7),
    *(0x8002, 5 << 1, 8, 700),
)


def describe(flow: Flow) -> bytes:
    """A flow description, laid out by the specification and not by the code under test."""
    key, body = flow_image(flow)
    match, instructions = key[4:], body[16:]
    length = 24 + len(match) + len(STATISTICS) + len(instructions)
    return struct.pack("!H2x", length) + key[:4] + body[:16] + match + STATISTICS + instructions


def describe_group(group: Group) -> bytes:
    """A group description."""
    group_id, image = group_image(group)
    kind, buckets_length = struct.unpack_from("!BxH", image)
    return struct.pack("!HBxIH6x", 16 + len(image) - 4, kind, group_id, buckets_length) + image[4:]


@EXAMPLES
@given(st.lists(strategies.flows(groups=(5,)), max_size=4))
def test_a_described_flow_decodes_to_the_flow(flows: list[Flow]) -> None:
    body = b"".join(map(describe, flows))
    assert list(split_flow_descs(body)) == list(map(flow_image, flows))
    for flow, seen in zip(flows, decode_flow_descs(body), strict=True):
        assert (seen.table, seen.priority, seen.match, seen.actions, seen.cookie) == (
            flow.table,
            flow.priority,
            flow.match,
            flow.actions,
            flow.cookie,
        )
        assert (seen.packets, seen.bytes, seen.duration, seen.idle) == (7, 700, 1.5, 0.25)
        assert format_flow(seen) == format_flow(flow)
        alone = decode_flow(*flow_image(flow))
        assert (alone.match, alone.actions, alone.packets) == (flow.match, flow.actions, None)


@EXAMPLES
@given(st.lists(strategies.groups(), max_size=4))
def test_a_described_group_decodes_to_the_group(groups: list[Group]) -> None:
    body = b"".join(map(describe_group, groups))
    assert list(split_group_descs(body)) == list(map(group_image, groups))
    for group, seen in zip(groups, decode_group_descs(body), strict=True):
        assert (seen.group_id, seen.type, seen.selection_method) == (
            group.group_id,
            group.type,
            group.selection_method,
        )
        assert [bucket.actions for bucket in seen.buckets] == [bucket.actions for bucket in group.buckets]
        assert format_group(seen) == format_group(group)


@EXAMPLES
@given(strategies.flows(), st.randoms())
def test_a_match_printed_in_another_order_has_the_same_canonical_key(flow: Flow, random: Random) -> None:
    key = flow_image(flow)[0]
    assert canonical_key(key) == key
    fields = [encode_one(field, value, mask) for field, value, mask in flow.match]
    random.shuffle(fields)
    content = b"".join(fields)
    other = struct.pack("!HH", 1, 4 + len(content)) + content
    assert canonical_key(key[:4] + other + bytes(-len(other) % 8)) == key


def encode_one(field: Field, value: int, mask: int | None) -> bytes:
    """One match field on its own, a register as a register."""
    width = (field.bits + 7) // 8
    length = width if mask is None else 2 * width
    head = struct.pack("!HBB", field.oxm_class, field.oxm_field << 1 | (mask is not None), length)
    return head + value.to_bytes(width, "big") + (b"" if mask is None else mask.to_bytes(width, "big"))


def consume_flows(data: bytes) -> None:
    for flow in decode_flow_descs(data):
        format_flow(flow)


def consume_groups(data: bytes) -> None:
    for group in decode_group_descs(data):
        format_group(group)


#: Everything that meets bytes of a switch.
DECODERS: Final[list[Callable[[bytes], object]]] = [
    consume_flows,
    consume_groups,
    lambda data: list(split_flow_descs(data)),
    lambda data: list(split_group_descs(data)),
    lambda data: list(decode_group_stats(data)),
    lambda data: decode_packet_in(struct.pack("!BBHI", 6, 10, 8 + len(data), 1) + data),
    lambda data: format_flow(decode_flow(data[:40], data[40:])),
    lambda data: format_group(decode_group(1, data)),
    lambda data: list(Framer().feed(data)),
    canonical_key,
    decode_header,
    decode_error,
    decode_bundle_reply,
    decode_role_reply,
    lambda data: decode_role_reply(struct.pack("!BBHI", 6, 25, 8 + len(data), 1) + data),
    decode_role_status,
    lambda data: decode_role_status(struct.pack("!BBHI", 6, 30, 8 + len(data), 1) + data),
    decode_port_status,
    lambda data: decode_port_status(struct.pack("!BBHI", 6, 12, 8 + len(data), 0) + data),
    lambda data: list(decode_port_descs(data)),
    multipart_body,
    multipart_more,
]


def only_codec_error(decoder: Callable[[bytes], object], data: bytes) -> None:
    try:
        decoder(data)
    except CodecError as error:
        assert -1 <= error.offset <= len(data) + 8


@EXAMPLES
@given(data=st.binary(max_size=400), decoder=st.sampled_from(DECODERS))
@example(data=b"", decoder=canonical_key)
def test_random_bytes_raise_codec_error_or_decode(data: bytes, decoder: Callable[[bytes], object]) -> None:
    only_codec_error(decoder, data)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A good message with a few bytes changed, cut off, or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "zero", "cut", "insert"])):
            case "change":
                data[at] = draw(st.integers(0, 255))
            case "zero":
                data[at] = 0
            case "cut":
                del data[at:]
            case _:
                data[at:at] = draw(st.binary(max_size=9))
    return bytes(data)


@EXAMPLES
@given(data=st.data())
def test_a_damaged_flow_description_raises_codec_error_or_decodes(data: st.DataObject) -> None:
    flows = data.draw(st.lists(strategies.flows(), min_size=1, max_size=2))
    body = data.draw(damaged(b"".join(map(describe, flows))))
    only_codec_error(consume_flows, body)
    only_codec_error(lambda each: list(split_flow_descs(each)), body)


@EXAMPLES
@given(data=st.data())
def test_a_damaged_group_description_raises_codec_error_or_decodes(data: st.DataObject) -> None:
    groups = data.draw(st.lists(strategies.groups(), min_size=1, max_size=2))
    body = data.draw(damaged(b"".join(map(describe_group, groups))))
    only_codec_error(consume_groups, body)


def test_connection_tracking_nested_a_thousand_times_is_shown_as_unknown() -> None:
    action = b""
    for _ in range(1000):
        # A ct with an empty nat (so that the place of nat is taken) and a ct inside.
        nat = struct.pack("!HHIH6x", 0xFFFF, 16, 0x2320, 36)
        inner = nat + action
        action = struct.pack("!HHIHHIHB3xH", 0xFFFF, 24 + len(inner), 0x2320, 35, 0, 0, 0, 255, 0) + inner
    instructions = struct.pack("!HH4x", 4, 8 + len(action)) + action
    flow = decode_flow(bytes(4) + struct.pack("!HH4x", 1, 4), bytes(16) + instructions)
    assert len(flow.actions) == 1
    assert format_flow(flow).startswith("priority=0 actions=unknown_action(")


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_messages_come_whole_however_the_stream_is_cut(bodies: list[bytes], data: st.DataObject) -> None:
    messages = [struct.pack("!BBHI", 6, 0, 8 + len(body), 1) + body for body in bodies]
    stream = b"".join(messages)
    framer = Framer()
    got: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got.extend(framer.feed(stream[:size]))
        stream = stream[size:]
    assert got == messages


def test_a_message_shorter_than_its_header_ends_the_stream() -> None:
    with pytest.raises(CodecError, match="header says 7 bytes"):
        list(Framer().feed(struct.pack("!BBHI", 6, 0, 7, 1)))
