# SPDX-License-Identifier: Apache-2.0
"""The messages that make of the group that a switch holds the group that it should hold.

Where the switch can, an endpoint that comes or goes costs one small message, however many there are: single buckets
are inserted and removed, and the counters of the others go on (those of the group as a whole begin anew). To the
switch each such message is a copy of the group, so when very many buckets change at once the group is written again.

Many versions of Open vSwitch cannot, 3.1 among them (openvswitch/ovs-issues#357): they lay out the table by which they
spread connections from the buckets of the message alone, before they add those that the group has already. After one
bucket was inserted all new connections go to that one; after one was removed the group is spread in another way, by
which all datagrams of a client go to one endpoint. To them a group that changes is written again as a whole, which at
1,000 buckets takes the switch 2 ms instead of 1 ms. :func:`spreads_anew` tells the versions apart. Groups whose
selection is "hash" have no such table, and change by single buckets on every version.

Open vSwitch describes a group in one piece, so a group longer than a message could be written, in parts, but not be
read: Open vSwitch 3.1 then answers with lengths that have overflown, and, if other groups follow, it aborts (an
assertion in ``ofpmp_postappend``). A group of more than :data:`~sdn.openflow.groupimage.MAX_GROUP_BODY` bytes has no
image, and is refused here too: it is never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.groupimage import (
    GROUP_TYPES,
    MAX_GROUP_BODY,
    OFPG_BUCKET_FIRST,
    GroupCommand,
    encoded_buckets,
    group_mod,
    insert_encoded_buckets,
    remove_encoded_bucket,
)

#: Single buckets that are changed one by one; beyond, the group is written again. At 1,000 buckets inserting one takes
#: the switch about 1 ms, and writing all about 2 ms.
MAX_SINGLE_CHANGES: Final = 64
_SELECT: Final = GROUP_TYPES["select"]
#: Releases that spread anew, by the first right one of their series; all series that come after are right.
_RIGHT_SINCE: Final = {(3, 2): 6, (3, 3): 6, (3, 4): 4, (3, 5): 2}


def spreads_anew(software: str) -> bool:
    """Whether this version of Open vSwitch ("3.1.0") spreads connections over all buckets of a group after a single one
    was inserted or removed. A version that cannot be read counts as one that does not.
    """
    numbers = software.split("-")[0].split(".")
    if len(numbers) < 3 or not all(number.isdecimal() for number in numbers[:3]):
        return False
    major, minor, patch = map(int, numbers[:3])
    since = _RIGHT_SINCE.get((major, minor))
    return (major, minor) > max(_RIGHT_SINCE) or (since is not None and patch >= since)


def group_changes(
    group_id: int, installed: bytes | None, wanted: bytes | None, *, single_buckets: bool
) -> list[bytes]:
    """The messages, in order, that turn ``installed`` into ``wanted``: bodies of group images, None for no group.

    Nothing when they are equal. With ``single_buckets`` (see :func:`spreads_anew`), or if the group selects by "hash",
    buckets of a select group that are in one of the two only are removed or inserted; one whose actions or weight
    changed is removed and inserted. The group as a whole is modified without that, when its type or its selection
    differs, when more than MAX_SINGLE_CHANGES messages would be needed, and always when it is no select group, where
    the order of buckets has a meaning.
    Deleting takes every flow that uses the group with it. Raises CodecError when ``wanted`` is longer than
    MAX_GROUP_BODY.
    """
    if installed == wanted:
        return []
    if wanted is None:
        return [group_mod(GroupCommand.DELETE, group_id)]
    if len(wanted) > MAX_GROUP_BODY:
        raise CodecError(
            f"group {group_id} has {len(encoded_buckets(wanted))} buckets in {len(wanted)} bytes: "
            f"a switch can describe {MAX_GROUP_BODY}"
        )
    if installed is None:
        return [group_mod(GroupCommand.ADD, group_id, wanted)]
    rest = _without_buckets(wanted)
    singly_possible = wanted[0] == _SELECT and (single_buckets or _hashes_fields(rest[1]))
    if singly_possible and _without_buckets(installed) == rest:
        singly = list(_single_buckets(group_id, encoded_buckets(installed), encoded_buckets(wanted)))
        if len(singly) <= MAX_SINGLE_CHANGES:
            return singly
    return [group_mod(GroupCommand.MODIFY, group_id, wanted)]


def _hashes_fields(properties: bytes) -> bool:
    """Whether the selection method property names "hash" (and not "dp_hash"), NUL-padded to 16 bytes."""
    return b"hash".ljust(16, b"\0") in properties and b"dp_hash" not in properties


def _without_buckets(body: bytes) -> tuple[int, bytes]:
    """Type and properties."""
    return body[0], body[4 + (body[2] << 8 | body[3]) :]


def _single_buckets(group_id: int, installed: dict[int, bytes], wanted: dict[int, bytes]) -> Iterator[bytes]:
    """Buckets by number. Removed first, so that one with other actions can take its old number."""
    kept = {number for number, bucket in installed.items() if wanted.get(number) == bucket}
    for number in installed:
        if number not in kept:
            yield remove_encoded_bucket(group_id, _SELECT, number)
    after = OFPG_BUCKET_FIRST
    waiting: list[bytes] = []
    for number, bucket in wanted.items():
        if number in kept:
            if waiting:
                yield insert_encoded_buckets(group_id, _SELECT, b"".join(waiting), after)
            waiting, after = [], number
        else:
            waiting.append(bucket)
    if waiting:
        yield insert_encoded_buckets(group_id, _SELECT, b"".join(waiting), after)
