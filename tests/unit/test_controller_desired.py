# SPDX-License-Identifier: Apache-2.0
"""The desired entries of a switch, held against an obvious model of the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.desired import Desired, Key
from sdn.openflow import decode_header
from sdn.openflow.wire import OFPT_FLOW_MOD, OFPT_GROUP_MOD

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
        assert changed == {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
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
    group = b"\x01\x00\x00\x00"
    desired.replace("node", {bytes(12): bytes(16), 1: group, 2: group})
    keys = desired.order([3, bytes(12), bytes([1]) + bytes(11), 1, 2])
    assert keys == [1, 2, bytes(12), bytes([1]) + bytes(11), 3]
    messages = list(desired.messages(keys, {2, 3}))
    kinds = [decode_header(message).type for message in messages]
    assert kinds == [OFPT_GROUP_MOD] * 2 + [OFPT_FLOW_MOD] * 2 + [OFPT_GROUP_MOD]
    commands = [
        int.from_bytes(message[8:10], "big")
        for key, message in zip(keys, messages, strict=True)
        if isinstance(key, int)
    ]
    assert commands == [0, 1, 2]


def test_an_address_that_moves_from_one_pod_to_the_next_is_never_missing() -> None:
    desired = Desired()
    key = bytes(12)
    desired.replace("pod-a", {key: b"a" * 16})
    assert desired.replace("pod-b", {key: b"b" * 16}) == {key}
    assert desired.replace("pod-a", {}) == set()
    assert desired.body(key) == b"b" * 16
    assert desired.part_of(key) == "pod-b"
