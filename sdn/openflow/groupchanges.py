# SPDX-License-Identifier: Apache-2.0
"""The messages that make of the group that a switch holds the group that it should hold.

An endpoint that comes or goes costs one small message, however many there are: single buckets are inserted and
removed, and the counters of the others go on (those of the group as a whole begin anew). To the switch each such
message is a copy of the group, so when very many buckets change at once the group is written again. A group that is
new, and too large for one message, is added with as many buckets as fit, the rest is inserted behind. Within one
bundle all of it happens at once.

Open vSwitch describes a group in one piece, so a group longer than a message (:data:`MAX_GROUP_BODY`) could be written
but not be read: Open vSwitch 3.1 then answers with lengths that have overflown, and, if other groups follow, it aborts
(an assertion in ``ofpmp_postappend``). Such a group is refused here, and never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.groupimage import (
    GROUP_TYPES,
    OFPG_BUCKET_FIRST,
    OFPG_BUCKET_LAST,
    GroupCommand,
    encoded_buckets,
    group_mod,
    insert_encoded_buckets,
    remove_encoded_bucket,
    with_buckets,
)

#: Buckets of one message, in bytes: what is left of the 65,535 when a bundle has wrapped the message.
_MOST: Final = 60_000
#: Single buckets that are changed one by one; beyond, the group is written again. At 1,000 buckets inserting one takes
#: the switch about 1 ms, and writing all about 2 ms.
MAX_SINGLE_CHANGES: Final = 64
_SELECT: Final = GROUP_TYPES["select"]
#: The longest body (:class:`~sdn.openflow.groupimage.GroupImage`) of a group that a switch can describe: a multipart
#: reply has 16 bytes of headers, and a group's description 16 where the image has 4.
MAX_GROUP_BODY: Final = 0xFFFF - 16 - 16 + 4


def group_changes(group_id: int, installed: bytes | None, wanted: bytes | None) -> list[bytes]:
    """The messages, in order, that turn ``installed`` into ``wanted``: bodies of group images, None for no group.

    Nothing when they are equal. Buckets of a select group that are in one of the two only are removed or inserted; one
    whose actions or weight changed is removed and inserted. The group as a whole is modified when its type or its
    selection differs, when more than MAX_SINGLE_CHANGES messages would be needed, and always when it is no select
    group, where the order of buckets has a meaning. Deleting takes every flow that uses the group with it. Raises
    CodecError when ``wanted`` is longer than MAX_GROUP_BODY.
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
        return list(_whole(GroupCommand.ADD, group_id, wanted))
    if wanted[0] == _SELECT and _without_buckets(installed) == _without_buckets(wanted):
        singly = list(_single_buckets(group_id, encoded_buckets(installed), encoded_buckets(wanted)))
        if len(singly) <= MAX_SINGLE_CHANGES:
            return singly
    return list(_whole(GroupCommand.MODIFY, group_id, wanted))


def _without_buckets(body: bytes) -> tuple[int, bytes]:
    """Type and properties."""
    return body[0], body[4 + (body[2] << 8 | body[3]) :]


def _whole(command: GroupCommand, group_id: int, body: bytes) -> Iterator[bytes]:
    buckets = list(encoded_buckets(body).values())
    parts = list(_parts(buckets))
    yield group_mod(command, group_id, with_buckets(body, parts[0] if parts else b""))
    for part in parts[1:]:
        yield insert_encoded_buckets(group_id, body[0], part, OFPG_BUCKET_LAST)


def _parts(buckets: list[bytes]) -> Iterator[bytes]:
    """Buckets joined, as many at a time as fit into a message."""
    part: list[bytes] = []
    size = 0
    for bucket in buckets:
        if part and size + len(bucket) > _MOST:
            yield b"".join(part)
            part, size = [], 0
        part.append(bucket)
        size += len(bucket)
    if part:
        yield b"".join(part)


def _single_buckets(group_id: int, installed: dict[int, bytes], wanted: dict[int, bytes]) -> Iterator[bytes]:
    """Buckets by number. Removed first, so that one with other actions can take its old number."""
    kept = {number for number, bucket in installed.items() if wanted.get(number) == bucket}
    for number in installed:
        if number not in kept:
            yield remove_encoded_bucket(group_id, _SELECT, number)
    after = OFPG_BUCKET_FIRST
    waiting: list[tuple[int, bytes]] = []
    for number, bucket in wanted.items():
        if number in kept:
            yield from _inserted(group_id, waiting, after)
            waiting, after = [], number
        else:
            waiting.append((number, bucket))
    yield from _inserted(group_id, waiting, after)


def _inserted(group_id: int, buckets: list[tuple[int, bytes]], after: int) -> Iterator[bytes]:
    """Buckets that stand together, behind the one numbered ``after``."""
    remaining = dict(buckets)
    for part in _parts(list(remaining.values())):
        yield insert_encoded_buckets(group_id, _SELECT, part, after)
        size = 0
        while size < len(part):
            after, bucket = next(iter(remaining.items()))
            del remaining[after]
            size += len(bucket)
