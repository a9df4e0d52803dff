# SPDX-License-Identifier: Apache-2.0
"""The desired entries of a switch, held against an obvious model of the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.desired import Desired, Key, encode
from sdn.openflow import GroupCommand, decode_header, group_image
from sdn.openflow.wire import OFPT_FLOW_MOD, OFPT_GROUP_MOD
from sdn.pipeline.actions import Bucket, Output
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner

FLOW = Flow(0, 5, match(in_port=1), (), 7, Owner("Service", "default", "web"), "a test")
PARTS = st.sampled_from(["node", "pod-a", "pod-b"])
FLOW_KEYS = st.sampled_from([bytes([0, 0, 0, n]) + bytes(8) for n in range(4)])
ENTRIES = st.dictionaries(FLOW_KEYS | st.integers(1, 2), st.sampled_from([b"x" * 16, b"y" * 16]), max_size=5)


class Obvious:
    """Parts in the order in which they last claimed each key; the last one counts."""

    def __init__(self) -> None:
        self.claims: dict[Key, list[tuple[str, bytes]]] = {}

    def replace(self, part: str, entries: dict[Key, bytes]) -> None:
        for key in list(self.claims):
            mine_is_last = bool(self.claims[key]) and self.claims[key][-1][0] == part
            if key not in entries or not mine_is_last:
                self.claims[key] = [claim for claim in self.claims[key] if claim[0] != part]
        for key, body in entries.items():
            claims = [claim for claim in self.claims.get(key, []) if claim[0] != part]
            self.claims[key] = [*claims, (part, body)]

    @property
    def now(self) -> dict[Key, bytes]:
        return {key: claims[-1][1] for key, claims in self.claims.items() if claims}


@given(st.lists(st.tuples(PARTS, ENTRIES), max_size=12))
def test_every_change_says_exactly_which_entries_changed(changes: list[tuple[str, dict[Key, bytes]]]) -> None:
    desired, obvious = Desired(), Obvious()
    for part, entries in changes:
        before = obvious.now
        obvious.replace(part, entries)
        after = obvious.now
        changed = desired.replace(part, dict(entries))
        differing = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed == {key: before.get(key) for key in differing}
        assert {key: desired.body(key) for key in before.keys() | after.keys()} == {
            key: after.get(key) for key in before.keys() | after.keys()
        }
        assert desired.groups == sum(isinstance(key, int) for key in after)
        assert desired.flows == len(after) - desired.groups


@given(ENTRIES, ENTRIES)
def test_the_difference_is_what_is_missing_other_or_foreign(
    wanted: dict[Key, bytes], installed: dict[Key, bytes]
) -> None:
    desired = Desired()
    desired.replace("node", wanted)
    assert desired.differing(installed) == {
        key for key in wanted.keys() | installed.keys() if wanted.get(key) != installed.get(key)
    }


def test_groups_are_made_before_flows_and_removed_after() -> None:
    desired = Desired()
    flows = [bytes(12), bytes([1]) + bytes(11)]
    first, other = (group_image(group(1, *ports)).body for ports in ([1], [1, 2]))
    desired.replace("node", {flows[0]: bytes(16), 1: first, 2: other, 4: other})
    keys, lazy = desired.messages([3, *flows, 1, 2, 4], {2: first, 3: first, 4: other}, single_buckets=True)
    messages = list(lazy)
    assert keys == [1, 2, *flows, 3], "what the switch holds already needs no message"
    kinds = [decode_header(message).type for message in messages]
    assert kinds == [OFPT_GROUP_MOD] * 2 + [OFPT_FLOW_MOD] * 2 + [OFPT_GROUP_MOD]
    commands = [
        GroupCommand(int.from_bytes(message[8:10], "big"))
        for key, message in zip(keys, messages, strict=True)
        if isinstance(key, int)
    ]
    assert commands == [GroupCommand.ADD, GroupCommand.INSERT_BUCKET, GroupCommand.DELETE]


def group(number: int, *ports: int) -> Group:
    """A select group with a bucket for each port."""
    buckets = tuple(Bucket(port, (Output(port),)) for port in ports)
    return Group(number, "select", buckets, Owner("Service", "default", "web"), "a test")


def test_a_group_that_needs_several_messages_is_known_by_each_of_them() -> None:
    """A refusal names a message by its place; it must lead to the group."""
    desired = Desired()
    desired.replace("web", {7: group_image(group(7, 2, 4, 5)).body})
    installed = {7: group_image(group(7, 1, 2, 3)).body}
    keys, messages = desired.messages([7], installed, single_buckets=True)
    assert keys == [7] * len(list(messages))
    assert len(keys) == 3, "two removed, two inserted together"


def test_entries_that_switches_share_are_not_copied() -> None:
    encoded = encode([FLOW])
    desired = Desired()
    desired.replace("web", encoded)
    assert desired.entries("web") is encoded
    assert desired.replace("web", encoded) == {}


def test_an_address_that_moves_from_one_pod_to_the_next_is_never_missing() -> None:
    desired = Desired()
    key = bytes(12)
    desired.replace("pod-a", {key: b"a" * 16})
    assert desired.replace("pod-b", {key: b"b" * 16}) == {key: b"a" * 16}
    assert desired.replace("pod-a", {}) == {}
    assert desired.body(key) == b"b" * 16
    assert desired.part_of(key) == "pod-b"
