# SPDX-License-Identifier: Apache-2.0
"""Group descriptions: what the switch answers when asked for its groups (OpenFlow 1.5, section 7.3.5.10).

As for flows, :func:`split_group_descs` only cuts, :func:`decode_group_descs` understands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sdn.openflow.actionread import DecodedAction, decode_actions
from sdn.openflow.errors import CodecError
from sdn.openflow.groupimage import (
    GROUP_TYPES,
    HASH_FIELDS,
    OFPGBPT_WATCH_PORT,
    OFPGBPT_WEIGHT,
    GroupImage,
    split_buckets,
)
from sdn.openflow.oxm import decode_oxms
from sdn.openflow.wire import NTR_VENDOR_ID, NTRT_SELECTION_METHOD
from sdn.pipeline.fields import Field
from sdn.pipeline.flow import GroupType

_FIXED: Final = struct.Struct("!HBxIH6x")
_PROPERTY: Final = struct.Struct("!HH")
_SELECT: Final = GROUP_TYPES["select"]
_TYPE_NAMES: Final[dict[int, GroupType]] = {number: name for name, number in GROUP_TYPES.items()}


@dataclass(frozen=True, slots=True)
class DecodedBucket:
    """One bucket; ``weight`` and ``watch_port`` are None where the switch gives none."""

    bucket_id: int
    actions: tuple[DecodedAction, ...]
    weight: int | None = None
    watch_port: int | None = None


@dataclass(frozen=True, slots=True)
class DecodedGroup:
    """One group as the switch holds it. ``unknown_properties`` are raw."""

    group_id: int
    type: GroupType
    buckets: tuple[DecodedBucket, ...]
    selection_method: str = ""
    selection_fields: tuple[Field, ...] = ()
    unknown_properties: tuple[bytes, ...] = ()


def split_group_descs(body: bytes) -> Iterator[GroupImage]:
    """Cut the body of a group description reply into images; buckets of select groups come in the order of their
    numbers, whatever order the switch holds them in. Raises CodecError.
    """
    position, end = 0, len(body)
    while position < end:
        if end - position < _FIXED.size:
            raise CodecError("group description is cut short", position)
        length, kind, group_id, buckets_length = _FIXED.unpack_from(body, position)
        if length < _FIXED.size or length % 8 or position + length > end:
            raise CodecError(f"group description says {length} bytes, {end - position} are left", position)
        if _FIXED.size + buckets_length > length:
            raise CodecError(f"buckets say {buckets_length} bytes in a group of {length}", position)
        start = position + _FIXED.size
        end_of_buckets = start + buckets_length
        buckets = _ordered(body, start, end_of_buckets) if kind == _SELECT else body[start:end_of_buckets]
        head = struct.pack("!BxH", kind, buckets_length)
        yield GroupImage(group_id, head + buckets + body[end_of_buckets : position + length])
        position += length


def decode_group_descs(body: bytes) -> Iterator[DecodedGroup]:
    """The groups in the body of a group description reply. Raises CodecError."""
    return (decode_group(group_id, image) for group_id, image in split_group_descs(body))


def decode_group(group_id: int, image: bytes) -> DecodedGroup:
    """A group from its image. Raises CodecError."""
    if len(image) < 4:
        raise CodecError("group image is cut short", 0)
    kind, buckets_length = image[0], image[2] << 8 | image[3]
    end = 4 + buckets_length
    if end > len(image):
        raise CodecError(f"buckets say {buckets_length} bytes, {len(image) - 4} are left", 2)
    if kind not in _TYPE_NAMES:
        raise CodecError(f"unknown group type {kind}", 0)
    method = ""
    fields: tuple[Field, ...] = ()
    unknown: list[bytes] = []
    for number, offset, length in _split_properties(image, end, len(image)):
        raw = image[offset : offset + length]
        selection = _selection_method(number, raw)
        if selection is None:
            unknown.append(raw)
        else:
            method, fields = selection
    buckets = tuple(_decode_buckets(image, 4, end))
    return DecodedGroup(group_id, _TYPE_NAMES[kind], buckets, method, fields, tuple(unknown))


def _ordered(data: bytes, start: int, end: int) -> bytes:
    """Buckets in the order of their numbers."""
    found = list(split_buckets(data, start, end))
    ordered = sorted(found)
    if ordered == found:
        return data[start:end]
    return b"".join([data[at : at + length] for _, at, length in ordered])


def _decode_buckets(data: bytes, start: int, end: int) -> Iterator[DecodedBucket]:
    for bucket_id, position, length in split_buckets(data, start, end):
        actions_length = data[position + 2] << 8 | data[position + 3]
        properties = position + 8 + actions_length
        if properties > position + length:
            raise CodecError(f"actions say {actions_length} bytes in a bucket of {length}", position)
        known: dict[int, int] = {}
        for number, offset, size in _split_properties(data, properties, position + length):
            if number == OFPGBPT_WEIGHT and size == 8:
                known[number] = data[offset + 4] << 8 | data[offset + 5]
            elif number == OFPGBPT_WATCH_PORT and size == 8:
                known[number] = int.from_bytes(data[offset + 4 : offset + 8], "big")
        yield DecodedBucket(
            bucket_id,
            decode_actions(data, position + 8, properties),
            known.get(OFPGBPT_WEIGHT),
            known.get(OFPGBPT_WATCH_PORT),
        )


def _split_properties(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Properties (section 7.1.4): type, offset, length without padding."""
    position = start
    while position < end:
        if end - position < _PROPERTY.size:
            raise CodecError("property is cut short", position)
        number, length = _PROPERTY.unpack_from(data, position)
        if length < _PROPERTY.size or position + length > end:
            raise CodecError(f"property says {length} bytes, {end - position} are left", position)
        yield number, position, length
        position += (length + 7) & ~7


def _selection_method(number: int, raw: bytes) -> tuple[str, tuple[Field, ...]] | None:
    """The selection method's name and the fields that it looks at whole, if the property says just that: no
    parameter, nothing hashed in part.
    """
    if number != 0xFFFF or len(raw) < 40:
        return None
    vendor, subtype, name, parameter = struct.unpack_from("!II4x16sQ", raw, 4)
    if vendor != NTR_VENDOR_ID or subtype != NTRT_SELECTION_METHOD or parameter:
        return None
    text = bytes(name).rstrip(b"\0")
    if not text.replace(b"_", b"").isalnum():
        return None
    terms, others = decode_oxms(raw, 40, len(raw))
    if others or any(field not in HASH_FIELDS or value != field.all_ones for field, value, _ in terms):
        return None
    return text.decode("ascii"), tuple(field for field, _, _ in terms)
