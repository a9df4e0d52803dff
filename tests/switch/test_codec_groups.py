# SPDX-License-Identifier: Apache-2.0
"""Groups against a real switch: single buckets come and go, flows that use a group stay, counters are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from sdn.openflow import (
    FlowCommand,
    GroupCommand,
    decode_group_descs,
    decode_group_stats,
    flow_image,
    flow_mod,
    group_desc_request,
    group_image,
    group_mod,
    group_stats_request,
    insert_bucket,
    remove_bucket,
    split_group_descs,
)
from sdn.openflow.groupimage import OFPG_BUCKET_FIRST
from sdn.pipeline.actions import Bucket, GroupAction, Output
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.switch.ovs import Connection, PrivateSwitch, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("Service", "default", "web")


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    switch.clear()
    with switch.connect() as connection:
        yield connection


def group(*numbers: int) -> Group:
    buckets = tuple(Bucket(number, (Output(number),), weight=number) for number in numbers)
    return Group(7, "select", buckets, OWNER, "test", "dp_hash")


def bucket_numbers(connection: Connection) -> list[int]:
    (reply,) = connection.transact(group_desc_request(1, 7))
    return [bucket.bucket_id for each in decode_group_descs(reply.body[8:]) for bucket in each.buckets]


def test_single_buckets_are_inserted_and_removed(connection: Connection) -> None:
    one = group(10, 20)
    connection.transact(group_mod(GroupCommand.ADD, *group_image(one)))
    connection.transact(insert_bucket(one, Bucket(30, (Output(3),))))
    assert bucket_numbers(connection) == [10, 20, 30]
    connection.transact(insert_bucket(one, Bucket(5, (Output(5),)), after=OFPG_BUCKET_FIRST))
    connection.transact(insert_bucket(one, Bucket(15, (Output(5),)), after=10))
    assert bucket_numbers(connection) == [5, 10, 15, 20, 30]
    connection.transact(remove_bucket(one, 10))
    connection.transact(remove_bucket(one, 30))
    assert bucket_numbers(connection) == [5, 15, 20]


def test_buckets_inserted_one_by_one_give_the_image_of_the_whole(connection: Connection) -> None:
    connection.transact(group_mod(GroupCommand.ADD, *group_image(group(1))))
    connection.transact(insert_bucket(group(), group(2).buckets[0]))
    (reply,) = connection.transact(group_desc_request(1))
    assert list(split_group_descs(reply.body[8:])) == [group_image(group(1, 2))]


def test_modifying_a_group_keeps_the_flows_that_use_it_and_deleting_takes_them(
    switch: PrivateSwitch, connection: Connection
) -> None:
    connection.transact(group_mod(GroupCommand.ADD, *group_image(group(1, 2))))
    flow = Flow(0, 1, match(ip_dst="10.0.0.1"), (GroupAction(7),), 1, OWNER, "test")
    connection.transact(flow_mod(FlowCommand.ADD, *flow_image(flow)))
    connection.transact(group_mod(GroupCommand.MODIFY, *group_image(group(3))))
    assert bucket_numbers(connection) == [3]
    assert len(switch.dump_flows()) == 1
    connection.transact(group_mod(GroupCommand.DELETE, 7))
    assert switch.dump_flows() == []


def test_group_counters_say_how_many_flows_use_it(connection: Connection) -> None:
    connection.transact(group_mod(GroupCommand.ADD, *group_image(group(1, 2))))
    flow = Flow(0, 1, match(ip_dst="10.0.0.1"), (GroupAction(7),), 1, OWNER, "test")
    connection.transact(flow_mod(FlowCommand.ADD, *flow_image(flow)))
    (reply,) = connection.transact(group_stats_request(1))
    (counters,) = decode_group_stats(reply.body[8:])
    assert (counters.group_id, counters.references, counters.packets) == (7, 1, 0)
    assert counters.buckets == ((0, 0), (0, 0))
    assert counters.duration >= 0
