# SPDX-License-Identifier: Apache-2.0
"""A group's image and the group-mod messages made from it (OpenFlow 1.5, section 7.3.4.3).

As with flows, the image is laid out as the switch describes a group: the group's number is the key, and the
body is type (1), zero (1), length of the buckets (2), buckets, properties. Buckets of a select group carry
their weight, always, and stand in the order of their numbers, since their order means nothing and single ones
come and go; a selection method is a property under the experimenter id of Netronome, as Open vSwitch takes it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sdn.openflow.actionwire import encode_actions
from sdn.openflow.errors import CodecError
from sdn.openflow.oxm import WIDTH, header
from sdn.openflow.wire import (
    HEADER,
    MAX_MESSAGE,
    NTR_VENDOR_ID,
    NTRT_SELECTION_METHOD,
    OFP_VERSION,
    OFPG_ALL,
    OFPT_GROUP_MOD,
    padded,
)
from sdn.pipeline.actions import Bucket
from sdn.pipeline.fields import FIELDS, REGISTERS, Field
from sdn.pipeline.flow import Group, GroupType

GROUP_TYPES: Final[dict[GroupType, int]] = {"all": 0, "select": 1, "indirect": 2, "fast_failover": 3}

_BUCKET: Final = struct.Struct("!HHI")
_WEIGHT: Final = struct.Struct("!HHH2x")
_WATCH: Final = struct.Struct("!HHI")
_METHOD: Final = struct.Struct("!HHII4x16sQ")
_TYPE_BUCKETS: Final = struct.Struct("!BxH")
_GROUP_MOD: Final = struct.Struct("!HBxIH2xI")

#: Fields that can be hashed, in the order in which Open vSwitch gives them back. Those are left out whose values are no
#: whole bytes, or shorter when set than when matched (in_port).
HASH_FIELDS: Final[tuple[Field, ...]] = tuple(
    FIELDS[name]
    for name in (
        *(
            "tun_id",
            "tun_src",
            "tun_dst",
            "tun_ipv6_src",
            "tun_ipv6_dst",
            "metadata",
            "pkt_mark",
            "ct_zone",
            "ct_mark",
        ),
        *(
            "ct_label",
            "ct_nw_proto",
            "ct_nw_src",
            "ct_nw_dst",
            "ct_ipv6_src",
            "ct_ipv6_dst",
            "ct_tp_src",
            "ct_tp_dst",
        ),
        *(register.name for register in REGISTERS),
        *("eth_src", "eth_dst", "eth_type", "ip_src", "ip_dst", "ipv6_src", "ipv6_dst", "nw_proto", "nw_ttl"),
        *("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"),
        *("tcp_src", "tcp_dst", "udp_src", "udp_dst", "sctp_src", "sctp_dst"),
        *("icmp_type", "icmp_code", "icmpv6_type", "icmpv6_code", "nd_target", "nd_sll", "nd_tll"),
    )
)
_HASH_ORDER: Final = {field: place for place, field in enumerate(HASH_FIELDS)}

#: The longest body of a group's image that fits into one message: a group_mod has 24 bytes of headers where the image
#: has 4, and a bundle wraps it in 16. See :mod:`~sdn.openflow.groupchanges` for what becomes of longer groups.
MAX_GROUP_BODY: Final = 0xFFFF - 16 - 24 + 4

OFPGBPT_WEIGHT: Final = 0
OFPGBPT_WATCH_PORT: Final = 1
OFPGPT_EXPERIMENTER: Final = 0xFFFF
#: Bucket numbers with a meaning (section 7.3.4.3); endpoints' numbers stay below.
OFPG_BUCKET_MAX: Final = 0xFFFFFF00
OFPG_BUCKET_FIRST: Final = 0xFFFFFFFD
OFPG_BUCKET_LAST: Final = 0xFFFFFFFE
OFPG_BUCKET_ALL: Final = 0xFFFFFFFF


class GroupImage(NamedTuple):
    """See the module. Unpacks as ``group_id, body``: images make a ``dict[int, bytes]``."""

    group_id: int
    body: bytes


class GroupCommand(enum.IntEnum):
    """What a group-mod does. ``MODIFY`` replaces all buckets of a group that exists; flows that use it are
    not touched.
    """

    ADD = 0
    MODIFY = 1
    DELETE = 2
    INSERT_BUCKET = 3
    REMOVE_BUCKET = 5


def group_image(group: Group) -> GroupImage:
    """The image of a group, exactly as the switch will describe it. Raises CodecError naming the group."""
    try:
        ordered = group.buckets
        if group.type == "select":
            ordered = tuple(sorted(ordered, key=lambda bucket: bucket.bucket_id))
        buckets = b"".join([_encode_bucket(bucket, group.type) for bucket in ordered])
        properties = _encode_method(group.selection_method, group.selection_fields)
        if 4 + len(buckets) + len(properties) > MAX_GROUP_BODY:
            raise CodecError(f"{len(ordered)} buckets are more than fit into a message")
        body = _TYPE_BUCKETS.pack(GROUP_TYPES[group.type], len(buckets)) + buckets + properties
    except (struct.error, OverflowError, KeyError, CodecError) as error:
        raise CodecError(f"group {group.group_id} of {group.owner}: {error}") from error
    return GroupImage(group.group_id, body)


def _encode_bucket(bucket: Bucket, group_type: GroupType) -> bytes:
    actions = encode_actions(bucket.actions)
    properties = b""
    if group_type == "select":
        properties += _WEIGHT.pack(OFPGBPT_WEIGHT, _WEIGHT.size, bucket.weight)
    if bucket.watch_port is not None:
        properties += _WATCH.pack(OFPGBPT_WATCH_PORT, _WATCH.size, bucket.watch_port)
    length = _BUCKET.size + len(actions) + len(properties)
    return _BUCKET.pack(length, len(actions), bucket.bucket_id) + actions + properties


def _encode_method(name: str, fields: tuple[Field, ...]) -> bytes:
    if not name and not fields:
        return b""
    if fields and name != "hash":
        raise CodecError(f"fields are for the selection method hash, not {name or 'the default'!r}")
    encoded = name.encode("ascii")
    if len(encoded) > 15:
        raise CodecError(f"selection method {name!r} is longer than 15 characters")
    for field in fields:
        if field not in _HASH_ORDER:
            raise CodecError(f"{field.name} cannot be hashed")
    # Every field with a mask of ones in place of a value.
    hashed = b"".join(
        [
            (header(field) << WIDTH[field] * 8 | field.all_ones).to_bytes(4 + WIDTH[field], "big")
            for field in sorted(set(fields), key=lambda field: _HASH_ORDER[field])
        ]
    )
    length = _METHOD.size + len(hashed)
    head = _METHOD.pack(OFPGPT_EXPERIMENTER, length, NTR_VENDOR_ID, NTRT_SELECTION_METHOD, encoded, 0)
    return (head + hashed).ljust(padded(length), b"\0")


def group_mod(command: GroupCommand, group_id: int, body: bytes = b"", xid: int = 0) -> bytes:
    """The message that adds or replaces the group with this image, or deletes it (with every flow that uses
    it).

    For single buckets see :func:`insert_bucket` and :func:`remove_bucket`. Raises CodecError when it is too
    long.
    """
    if command is GroupCommand.DELETE:
        return _message(command, 0, group_id, b"", b"", OFPG_BUCKET_ALL, xid)
    kind, buckets_length = _TYPE_BUCKETS.unpack_from(body)
    return _message(
        command,
        kind,
        group_id,
        body[4 : 4 + buckets_length],
        body[4 + buckets_length :],
        OFPG_BUCKET_ALL,
        xid,
    )


def delete_all_groups(xid: int = 0) -> bytes:
    """The message that empties the group table."""
    return group_mod(GroupCommand.DELETE, OFPG_ALL, xid=xid)


def insert_bucket(group: Group, bucket: Bucket, after: int = OFPG_BUCKET_LAST, xid: int = 0) -> bytes:
    """Insert one bucket into a group that the switch holds: behind the bucket numbered ``after``, or at
    OFPG_BUCKET_FIRST or OFPG_BUCKET_LAST. ``group`` gives number and type, its own buckets are not looked
    at."""
    encoded = _encode_bucket(bucket, group.type)
    return insert_encoded_buckets(group.group_id, GROUP_TYPES[group.type], encoded, after, xid)


def remove_bucket(group: Group, bucket_id: int, xid: int = 0) -> bytes:
    """Remove one bucket by its number from a group that the switch holds (OFPG_BUCKET_ALL removes every
    one).
    """
    return remove_encoded_bucket(group.group_id, GROUP_TYPES[group.type], bucket_id, xid)


def encoded_buckets(body: bytes) -> dict[int, bytes]:
    """The buckets of an image by their numbers, in its order, each as its bytes. Raises CodecError."""
    if len(body) < 4:
        raise CodecError("group image is cut short", 0)
    end = 4 + (body[2] << 8 | body[3])
    if end > len(body):
        raise CodecError(f"buckets say {end - 4} bytes, {len(body) - 4} are left", 2)
    return {number: body[at : at + length] for number, at, length in split_buckets(body, 4, end)}


def split_buckets(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Cut ``data[start:end]`` into buckets: number, offset, length. Raises CodecError."""
    position = start
    while position < end:
        if end - position < _BUCKET.size:
            raise CodecError("bucket is cut short", position)
        length, _, bucket_id = _BUCKET.unpack_from(data, position)
        if length < _BUCKET.size or length % 8 or position + length > end:
            raise CodecError(f"bucket says {length} bytes, {end - position} are left", position)
        yield bucket_id, position, length
        position += length


def insert_encoded_buckets(group_id: int, kind: int, buckets: bytes, after: int, xid: int = 0) -> bytes:
    """As :func:`insert_bucket`, for any number of buckets as their bytes, in a group of the type ``kind``."""
    return _message(GroupCommand.INSERT_BUCKET, kind, group_id, buckets, b"", after, xid)


def remove_encoded_bucket(group_id: int, kind: int, bucket_id: int, xid: int = 0) -> bytes:
    """As :func:`remove_bucket`, for a group of the type ``kind``."""
    return _message(GroupCommand.REMOVE_BUCKET, kind, group_id, b"", b"", bucket_id, xid)


def _message(
    command: GroupCommand,
    kind: int,
    group_id: int,
    buckets: bytes,
    properties: bytes,
    bucket_id: int,
    xid: int,
) -> bytes:
    length = HEADER.size + _GROUP_MOD.size + len(buckets) + len(properties)
    if length > MAX_MESSAGE:
        raise CodecError(f"a group of {length} bytes does not fit into a message")
    return b"".join(
        (
            HEADER.pack(OFP_VERSION, OFPT_GROUP_MOD, length, xid),
            _GROUP_MOD.pack(command, kind, group_id, len(buckets), bucket_id),
            buckets,
            properties,
        )
    )
