# SPDX-License-Identifier: Apache-2.0
"""Which pipeline a switch holds, and which controllers own switches while builds with different ones run."""

from __future__ import annotations

import msgspec
import pytest

from controller.ha.members import Members
from controller.pipelineversion import NO_VERSION, version_in
from controller.records import DownRecord, MemberRecord, encode, member_key
from controller.store import Entry
from sdn.openflow import flow_image
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.tables import CLASSIFICATION
from sdn.pipeline.version import PIPELINE_VERSION, version_flow

NODE = Owner("Node", "", "node-1")


@pytest.mark.parametrize("version", [1, PIPELINE_VERSION, 0x1234567890])
def test_a_version_is_found_among_other_entries(version: int) -> None:
    other = Flow(CLASSIFICATION.number, 50, match(in_port=1), (), 1, NODE, "test")
    keys = [7, flow_image(other)[0], flow_image(version_flow(NODE, version))[0]]
    assert version_in(keys) == version


def test_of_a_switch_that_says_none_there_is_none() -> None:
    elsewhere = Flow(1, 50, match(metadata=3), (), 1, NODE, "test")
    masked = Flow(CLASSIFICATION.number, 50, match(metadata="0x3/0x3"), (), 1, NODE, "test")
    assert version_in([]) == NO_VERSION
    assert version_in([4, flow_image(elsewhere)[0], flow_image(masked)[0]]) == NO_VERSION


def test_there_is_no_version_zero_whose_flow_packets_would_meet() -> None:
    assert PIPELINE_VERSION > 0


def record(name: str, pipeline: int, **fields: object) -> Entry:
    made = MemberRecord(
        name=name,
        incarnation=f"{name}-1",
        grpc_address="",
        openflow_target="",
        peers_address="",
        version="",
        pipeline=pipeline,
        started_at="",
    )
    return Entry(member_key(name), encode(msgspec.structs.replace(made, **fields)), 5)


def members(*entries: Entry) -> Members:
    found = Members(None)
    for entry in entries:
        found.member_stored(entry.key.rpartition("/")[2], entry)
    return found


def test_only_those_with_the_highest_pipeline_take_switches_and_all_keep_theirs() -> None:
    found = members(record("a", 1), record("b", 2), record("c", 2))
    assert found.takers() == {"b": "b-1", "c": "c-1"}
    assert found.keepers() == {"a": "a-1", "b": "b-1", "c": "c-1"}


def test_who_hands_over_counts_as_gone() -> None:
    found = members(record("a", 1), record("b", 2, draining=True))
    assert found.takers() == found.keepers() == {"a": "a-1"}


def test_for_a_newer_one_that_is_not_heard_older_ones_do_not_wait() -> None:
    found = members(record("a", 1), record("b", 2), record("c", 3))
    found.mark("c", DownRecord(incarnation="c-1", by="a", at=""))
    assert found.takers() == {"b": "b-1"}
    assert found.keepers() == {"a": "a-1", "b": "b-1"}
    found.mark("c", None)
    assert found.takers() == {"c": "c-1"}
    assert found.keepers() == {"a": "a-1", "b": "b-1", "c": "c-1"}


def test_a_newer_one_that_is_not_heard_is_no_reason_to_keep_what_is_to_be_handed_over() -> None:
    found = members(record("a", 1), record("b", 3), record("c", 3))
    found.mark("c", DownRecord(incarnation="c-1", by="a", at=""))
    assert found.takers(without="b") == {"a": "a-1"}


def test_of_two_newer_ones_the_other_takes_what_the_silent_one_had() -> None:
    found = members(record("a", 1), record("b", 3), record("c", 3))
    found.mark("c", DownRecord(incarnation="c-1", by="a", at=""))
    assert found.takers() == {"b": "b-1"}
