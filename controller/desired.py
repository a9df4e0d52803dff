# SPDX-License-Identifier: Apache-2.0
"""What one switch must hold, as bytes, and how that differs from what it holds.

The desired entries come in *parts*: the flows of the node itself, of one attachment, of one peer, of one
Service. A part is replaced as a whole, and what changed by it is known at once, without looking at any other
part.

Two parts may claim one entry for a moment (an address that has gone from one pod to the next): the latest
claim is in force, and when it is withdrawn the one before is again.

An entry's key is a flow's image key (bytes) or a group's number (int). No I/O, no threads, no knowledge of
what bytes mean. The entries of a part are kept as they were given and never changed, so that many switches
can hold the same ones: of 10,000 Services a switch has only an index of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from sdn.openflow import (
    MAX_GROUP_BODY,
    CodecError,
    FlowCommand,
    flow_image,
    flow_mod,
    group_changes,
    group_image,
)
from sdn.pipeline.flow import Flow, Group

Part: TypeAlias = Hashable
#: The part of the node itself: the pipeline that all other parts are written for.
NODE_PART: Final = ("node",)
Key: TypeAlias = bytes | int
#: Key to body, of flows and of groups.
Entries: TypeAlias = Mapping[Key, bytes]


class Encoded(dict[Key, bytes]):
    """Entries made by :func:`encode`. They may be shared by switches: nobody changes them."""

    __slots__ = ()


def encode(entries: Iterable[Flow | Group]) -> Encoded:
    """Flows and groups as entries. CodecError names the one that cannot be encoded, or is more than a switch can
    describe.
    """
    encoded = Encoded()
    for entry in entries:
        if isinstance(entry, Flow):
            key, body = flow_image(entry)
            encoded[key] = body
        else:
            group_id, body = group_image(entry)
            if len(body) > MAX_GROUP_BODY:
                raise CodecError(
                    f"group {group_id} of {entry.owner} is too long to be described by a switch: "
                    f"{len(entry.buckets)} buckets, {len(body)} bytes of {MAX_GROUP_BODY}"
                )
            encoded[group_id] = body
    return encoded


class _Claim:
    """A part and what it claims; one object, so that an entry's claimant costs one reference."""

    __slots__ = ("entries", "part")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.entries: Entries = _NOTHING


_NOTHING: Entries = Encoded()


class Desired:
    """The desired entries of one switch. Owned by one thread."""

    def __init__(self) -> None:
        self._claims: dict[Part, _Claim] = {}
        #: The claim in force.
        self._entries: dict[Key, _Claim] = {}
        #: Earlier claims of entries that have more than one, oldest first.
        self._shadowed: dict[Key, list[_Claim]] = {}
        self.flows = 0
        self.groups = 0

    def replace(self, part: Part, entries: Entries) -> dict[Key, bytes | None]:
        """Give ``part`` these entries in place of what it had; empty removes it. Returns the keys that
        changed, each with the body that was in force before, None where there was none.
        """
        claim = self._claims.get(part)
        if claim is None:
            claim = _Claim(part)
        before = claim.entries
        changed: dict[Key, bytes | None] = {}
        if entries is before:
            return changed
        for key in before:
            if key not in entries:
                self._withdraw(key, claim, changed)
        claim.entries = entries
        if entries:
            self._claims[part] = claim
        else:
            self._claims.pop(part, None)
        for key, body in entries.items():
            current = self._entries.get(key)
            if current is claim:
                former = before[key]
                if former != body:
                    changed[key] = former
            elif current is None:
                self._entries[key] = claim
                self._count(key, 1)
                changed[key] = None
            else:
                self._shadow(key, claim, current)
                former = current.entries[key]
                if former != body:
                    changed[key] = former
        return changed

    def _shadow(self, key: Key, claim: _Claim, current: _Claim) -> None:
        claims = self._shadowed.setdefault(key, [])
        if claim in claims:
            claims.remove(claim)
        claims.append(current)
        self._entries[key] = claim

    def _withdraw(self, key: Key, claim: _Claim, changed: dict[Key, bytes | None]) -> None:
        """Called while the claim still has its former entries."""
        current = self._entries[key]
        claims = self._shadowed.get(key)
        if current is not claim:
            assert claims is not None, "whoever claims an entry and is not in force is shadowed"
            claims.remove(claim)
        elif claims:
            earlier = claims.pop()
            self._entries[key] = earlier
            if earlier.entries[key] != claim.entries[key]:
                changed[key] = claim.entries[key]
        else:
            del self._entries[key]
            self._count(key, -1)
            changed[key] = claim.entries[key]
        if claims is not None and not claims:
            del self._shadowed[key]

    def _count(self, key: Key, by: int) -> None:
        if isinstance(key, int):
            self.groups += by
        else:
            self.flows += by

    def body(self, key: Key) -> bytes | None:
        """The body that the entry must have; None: it must not exist."""
        claim = self._entries.get(key)
        return None if claim is None else claim.entries[key]

    def part_of(self, key: Key) -> Part | None:
        """The part whose claim is in force."""
        claim = self._entries.get(key)
        return None if claim is None else claim.part

    def entries(self, part: Part) -> Entries:
        """What a part claims."""
        claim = self._claims.get(part)
        return _NOTHING if claim is None else claim.entries

    def items(self) -> Iterator[tuple[Key, bytes]]:
        """All entries."""
        return ((key, claim.entries[key]) for key, claim in self._entries.items())

    def differing_groups(self, installed: Mapping[int, bytes]) -> set[int]:
        """The numbers of groups that are missing from ``installed``, other there, or not desired."""
        wrong = {key for key in installed if key not in self._entries}
        if len(installed) - len(wrong) < self.groups:
            wrong.update(key for key in self._entries if isinstance(key, int) and key not in installed)
        wrong.update(key for key, body in installed.items() if key not in wrong and self.body(key) != body)
        return wrong

    def differing(self, installed: Entries) -> set[Key]:
        """The keys of entries that are missing from ``installed``, other there, or not desired."""
        get = installed.get
        wrong = {key for key, claim in self._entries.items() if get(key) != claim.entries[key]}
        missing = sum(key not in installed for key in wrong)
        # Most often there is nothing else: then it is not looked for.
        if len(installed) > len(self._entries) - missing:
            wrong |= installed.keys() - self._entries.keys()
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

    def messages(
        self, keys: Iterable[Key], installed_groups: Mapping[int, bytes], *, single_buckets: bool
    ) -> tuple[list[Key], Iterator[bytes]]:
        """The messages that bring the entries of ``keys`` to what they must be, and for each of them the key
        that it is about. A group that the switch holds may take several, or none.

        Messages of flows are made when they are asked for: the switch takes in the first ones while the last
        ones are not encoded yet. ``installed_groups`` are the groups that the switch holds; for
        ``single_buckets`` see :func:`sdn.openflow.group_changes`.
        """
        ordered = self.order(keys)
        about: list[Key] = []
        groups: dict[int, list[bytes]] = {}
        for key in ordered:
            if isinstance(key, int):
                groups[key] = group_changes(
                    key, installed_groups.get(key), self.body(key), single_buckets=single_buckets
                )
                about += [key] * len(groups[key])
            else:
                about.append(key)
        return about, self._messages(ordered, groups)

    def _messages(self, keys: Iterable[Key], groups: Mapping[int, list[bytes]]) -> Iterator[bytes]:
        for key in keys:
            if isinstance(key, int):
                yield from groups[key]
                continue
            body = self.body(key)
            if body is None:
                yield flow_mod(FlowCommand.DELETE_STRICT, key, _NO_COOKIE)
            else:
                yield flow_mod(FlowCommand.ADD, key, body)


#: Of the body only the cookie is read when an entry is removed, and it is not compared.
_NO_COOKIE = bytes(16)
