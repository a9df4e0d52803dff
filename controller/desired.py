# SPDX-License-Identifier: Apache-2.0
"""What one switch must hold, as bytes, and how that differs from what it holds.

The desired entries come in *parts*: the flows of the node itself, of one attachment, of one peer. A part is
replaced as a whole, and what changed by it is known at once, without looking at any other part.

Two parts may claim one entry for a moment (an address that has gone from one pod to the next): the latest
claim is in force, and when it is withdrawn the one before is again.

An entry's key is a flow's image key (bytes) or a group's number (int). No I/O, no threads, no knowledge of
what bytes mean.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from typing import TypeAlias

from sdn.openflow import CodecError, FlowCommand, GroupCommand, flow_image, flow_mod, group_image, group_mod
from sdn.pipeline.flow import Flow, Group

Part: TypeAlias = Hashable
Key: TypeAlias = bytes | int
#: Key to body, of flows and of groups.
Entries: TypeAlias = Mapping[Key, bytes]

#: Key and body together; what else is in a bundled flow-mod message fits beside it into 64 KiB.
LONGEST_FLOW = 65_000


def encode(entries: Iterable[Flow | Group]) -> dict[Key, bytes]:
    """Flows and groups as entries. CodecError names the one that cannot be encoded, or sent."""
    encoded: dict[Key, bytes] = {}
    for entry in entries:
        if isinstance(entry, Flow):
            key, body = flow_image(entry)
            if len(key) + len(body) > LONGEST_FLOW:
                raise CodecError(
                    f"a flow of {entry.owner} is too long for a message: {len(key) + len(body)} bytes"
                )
            encoded[key] = body
        else:
            group_id, body = group_image(entry)
            encoded[group_id] = body
    return encoded


class Desired:
    """The desired entries of one switch. Owned by one thread."""

    def __init__(self) -> None:
        self._parts: dict[Part, dict[Key, bytes]] = {}
        #: The body in force and the part that claims it.
        self._entries: dict[Key, tuple[bytes, Part]] = {}
        #: Earlier claims of entries that have more than one, oldest first.
        self._shadowed: dict[Key, list[Part]] = {}
        self.flows = 0
        self.groups = 0

    def replace(self, part: Part, entries: dict[Key, bytes]) -> set[Key]:
        """Give ``part`` these entries in place of what it had; empty removes it. Returns the keys that
        changed.
        """
        before = self._parts.pop(part, {})
        if entries:
            self._parts[part] = entries
        changed: set[Key] = set()
        for key in before.keys() - entries.keys():
            self._withdraw(key, part, changed)
        for key, body in entries.items():
            self._claim(key, part, body, changed)
        return changed

    def _claim(self, key: Key, part: Part, body: bytes, changed: set[Key]) -> None:
        current = self._entries.get(key)
        if current is None:
            self._count(key, 1)
        elif current[1] != part:
            claims = self._shadowed.setdefault(key, [])
            if part in claims:
                claims.remove(part)
            claims.append(current[1])
        self._entries[key] = (body, part)
        if current is None or current[0] != body:
            changed.add(key)

    def _withdraw(self, key: Key, part: Part, changed: set[Key]) -> None:
        body, claimant = self._entries[key]
        claims = self._shadowed.get(key, [])
        if claimant != part:
            claims.remove(part)
        elif claims:
            earlier = claims.pop()
            restored = self._parts[earlier][key]
            self._entries[key] = (restored, earlier)
            if restored != body:
                changed.add(key)
        else:
            del self._entries[key]
            self._count(key, -1)
            changed.add(key)
        if not claims:
            self._shadowed.pop(key, None)

    def _count(self, key: Key, by: int) -> None:
        if isinstance(key, int):
            self.groups += by
        else:
            self.flows += by

    def body(self, key: Key) -> bytes | None:
        """The body that the entry must have; None: it must not exist."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def part_of(self, key: Key) -> Part | None:
        """The part whose claim is in force."""
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def entries(self, part: Part) -> dict[Key, bytes]:
        """What a part claims."""
        return self._parts.get(part, {})

    def differing(self, installed: Entries) -> set[Key]:
        """The keys of entries that are missing from ``installed``, other there, or not desired."""
        wrong: set[Key] = {key for key in installed if key not in self._entries}
        wrong.update(key for key, (body, _) in self._entries.items() if installed.get(key) != body)
        return wrong

    def order(self, keys: Iterable[Key]) -> list[Key]:
        """The keys in an order of writing in which groups exist while flows use them: new and changed groups,
        flows, groups that go.
        """
        groups_first: list[Key] = []
        flows: list[Key] = []
        groups_last: list[Key] = []
        for key in keys:
            if not isinstance(key, int):
                flows.append(key)
            elif key in self._entries:
                groups_first.append(key)
            else:
                groups_last.append(key)
        return groups_first + flows + groups_last

    def messages(self, keys: Iterable[Key], installed_groups: Container[int]) -> Iterator[bytes]:
        """For each key the message that brings its entry to what it must be, made when it is asked for: the
        switch takes in the first ones while the last ones are not encoded yet.

        ``installed_groups`` says which groups the switch holds: those are modified, others added.
        """
        for key in keys:
            body = self.body(key)
            if isinstance(key, int):
                if body is None:
                    yield group_mod(GroupCommand.DELETE, key)
                else:
                    yield group_mod(
                        GroupCommand.MODIFY if key in installed_groups else GroupCommand.ADD, key, body
                    )
            elif body is None:
                yield flow_mod(FlowCommand.DELETE_STRICT, key, _NO_COOKIE)
            else:
                yield flow_mod(FlowCommand.ADD, key, body)


#: Of the body only the cookie is read when an entry is removed, and it is not compared.
_NO_COOKIE = bytes(16)
