# SPDX-License-Identifier: Apache-2.0
"""From the group that a real switch holds to the group that it should hold, by as few messages as can be."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdn.openflow import (
    MAX_GROUP_BODY,
    CodecError,
    FlowCommand,
    GroupCommand,
    bundle,
    bundle_commit,
    decode_group_stats,
    decode_software,
    desc_request,
    flow_image,
    flow_mod,
    group_changes,
    group_desc_request,
    group_image,
    group_mod,
    group_stats_request,
    insert_bucket,
    split_group_descs,
    spreads_anew,
)
from sdn.openflow.groupchanges import MAX_SINGLE_CHANGES
from sdn.pipeline.actions import Bucket, GroupAction, Output, Resubmit, set_field
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.switch.ovs import Connection, PrivateSwitch, SwitchError, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)
OWNER: Final = Owner("Service", "default", "web")
NUMBER: Final = 2048
#: Commands of the messages below.
ADD, MODIFY, DELETE, INSERT, REMOVE = 0, 1, 2, 3, 5


@pytest.fixture(scope="module")
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    with switch.connect() as connection:
        yield connection


def group(numbers: Sequence[int], weight: int = 1, method: str = "dp_hash", number: int = NUMBER) -> Group:
    """A Service's group: each endpoint is a bucket that says its number."""
    buckets = tuple(Bucket(each, (set_field(reg3=each), Resubmit(20)), weight) for each in numbers)
    return Group(number, "select", buckets, OWNER, "endpoints", method)


def body(numbers: Sequence[int], weight: int = 1, method: str = "dp_hash") -> bytes:
    return group_image(group(numbers, weight, method)).body


def commands(messages: Sequence[bytes]) -> list[int]:
    return [message[8] << 8 | message[9] for message in messages]


def write(connection: Connection, messages: Sequence[bytes]) -> None:
    """All of it in one bundle, as the synchronizer does."""
    for chunk in bundle(3, messages, 1000):
        connection.send(chunk)
    connection.transact(b"")
    connection.transact(bundle_commit(3, 999))


def read(connection: Connection) -> dict[int, bytes]:
    replies = [message.body[8:] for message in connection.transact(group_desc_request(1))]
    return dict(image for reply in replies for image in split_group_descs(reply))


def become(connection: Connection, wanted: bytes | None) -> list[int]:
    """Bring the switch there; what it took. It must then read back as what was wanted."""
    messages = group_changes(NUMBER, read(connection).get(NUMBER), wanted, single_buckets=True)
    write(connection, messages)
    assert read(connection) == ({} if wanted is None else {NUMBER: wanted})
    return commands(messages)


def test_to_a_switch_that_cannot_take_single_buckets_the_group_is_written_again(
    connection: Connection,
) -> None:
    installed = body([1, 2, 5])
    for wanted in (body([1, 2]), body([1, 2, 5, 6]), body([])):
        assert commands(group_changes(NUMBER, installed, wanted, single_buckets=False)) == [MODIFY]
    assert group_changes(NUMBER, installed, installed, single_buckets=False) == []


@pytest.mark.parametrize(
    ("software", "right"),
    [
        ("3.1.0", False),
        ("2.17.12", False),
        ("3.2.5", False),
        ("3.2.6", True),
        ("3.4.3", False),
        ("3.5.2", True),
        ("3.6.0", True),
        ("3.7.90-dirty", True),
        ("4.0.0", True),
        ("", False),
        ("unknown", False),
    ],
)
def test_versions_that_spread_anew_after_single_buckets_are_told_apart(software: str, right: bool) -> None:
    assert spreads_anew(software) is right


def test_a_switch_says_its_version(switch: PrivateSwitch, connection: Connection) -> None:
    (reply,) = connection.transact(desc_request(1))
    installed = subprocess.run(
        ["ovs-vswitchd", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert decode_software(reply.body[8:]) in installed.split()


def test_an_endpoint_that_comes_or_goes_is_one_message(switch: PrivateSwitch, connection: Connection) -> None:
    switch.clear()
    assert become(connection, body([1, 2, 5])) == [ADD]
    assert become(connection, body([1, 2, 5])) == []
    assert become(connection, body([1, 2, 4, 5])) == [INSERT]
    assert become(connection, body([1, 2, 3, 4, 5, 6])) == [INSERT, INSERT]
    assert become(connection, body([0, 1, 2, 3, 4, 5, 6])) == [INSERT]
    assert become(connection, body([0, 1, 3, 4, 5, 6])) == [REMOVE]
    assert become(connection, body([7, 8, 9])) == [REMOVE] * 6 + [INSERT]
    assert become(connection, body([])) == [REMOVE] * 3
    assert become(connection, body([1])) == [INSERT]
    assert become(connection, None) == [DELETE]
    assert become(connection, None) == []


def test_a_bucket_with_another_weight_is_replaced(switch: PrivateSwitch, connection: Connection) -> None:
    switch.clear()
    become(connection, body([1, 2]))
    assert become(connection, body([1, 2], weight=3)) == [REMOVE, REMOVE, INSERT]


def test_another_way_to_choose_is_another_group(switch: PrivateSwitch, connection: Connection) -> None:
    switch.clear()
    become(connection, body([1, 2]))
    assert become(connection, body([1, 2], method="hash")) == [MODIFY]
    hashed = Group(NUMBER, "select", (), OWNER, "", "hash", (FIELDS["ip_src"], FIELDS["eth_src"]))
    assert become(connection, group_image(hashed).body) == [MODIFY]
    assert become(connection, group_image(Group(NUMBER, "all", (), OWNER, "")).body) == [MODIFY]


def test_the_order_in_which_a_switch_holds_buckets_makes_no_difference(
    switch: PrivateSwitch, connection: Connection
) -> None:
    switch.clear()
    connection.transact(group_mod(GroupCommand.ADD, *group_image(group([5]))))
    for late in (9, 3, 7):
        connection.transact(insert_bucket(group([]), group([late]).buckets[0]))
    assert "bucket_id:5" in switch.ofctl("dump-groups").split("bucket=")[1]
    assert become(connection, body([9, 7, 5, 3])) == []
    assert become(connection, body([3, 5, 6, 7, 9])) == [INSERT]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | st.dictionaries(st.integers(0, 40), st.integers(1, 3), max_size=30), max_size=5))
def test_any_group_becomes_any_other(
    switch: PrivateSwitch, connection: Connection, wishes: list[dict[int, int] | None]
) -> None:
    for wish in wishes:
        if wish is None:
            become(connection, None)
            continue
        buckets = tuple(Bucket(number, (Output(1),), weight) for number, weight in wish.items())
        become(connection, group_image(Group(NUMBER, "select", buckets, OWNER, "")).body)
    become(connection, None)


@pytest.mark.parametrize("count", [1000, 1363])
def test_a_large_group_is_written_changed_and_read_back(
    switch: PrivateSwitch, connection: Connection, count: int
) -> None:
    switch.clear()
    everyone = range(1, count + 1)
    assert become(connection, body(everyone)) == [ADD]
    middle = [number for number in everyone if number != count // 2]
    for wanted, took in (
        (middle, [REMOVE]),
        (list(everyone), [INSERT]),
        (list(everyone)[10:], [REMOVE] * 10),
    ):
        assert become(connection, body(wanted)) == took
    # A copy of the group for each of so many buckets would keep the switch busy for a second.
    every_other = list(everyone)[::2]
    assert become(connection, body(every_other)) == [MODIFY]
    assert become(connection, None) == [DELETE]


def test_just_so_many_buckets_are_changed_one_by_one(switch: PrivateSwitch, connection: Connection) -> None:
    switch.clear()
    become(connection, body(range(200)))
    assert become(connection, body(range(MAX_SINGLE_CHANGES, 200))) == [REMOVE] * MAX_SINGLE_CHANGES
    assert become(connection, body(range(2 * MAX_SINGLE_CHANGES + 1, 200))) == [MODIFY]


def test_the_largest_group_is_the_largest_that_a_switch_can_describe(
    switch: PrivateSwitch, connection: Connection
) -> None:
    switch.clear()
    largest = body(range(1363))
    assert len(largest) <= MAX_GROUP_BODY < len(largest) + 48
    # A second group is what makes a switch fail that has one which is too large.
    connection.transact(group_mod(GroupCommand.ADD, *group_image(group([1], number=NUMBER + 1))))
    write(connection, group_changes(NUMBER, None, largest, single_buckets=True))
    assert read(connection)[NUMBER] == largest
    assert len(read(connection)) == 2
    with pytest.raises(
        CodecError, match=r"group 2048 of Service/default/web: 1364 buckets are more than fit"
    ):
        body(range(1364))
    # One more by hand: 48 bytes, behind the length of all.
    end = 4 + 1363 * 48
    more = body([2000])[4 : 4 + 48]
    too_large = largest[:2] + (1364 * 48).to_bytes(2, "big") + largest[4:end] + more + largest[end:]
    with pytest.raises(CodecError, match=r"group 2048 has 1364 buckets in 65516 bytes"):
        group_changes(NUMBER, largest, too_large, single_buckets=True)


def test_counters_of_the_other_endpoints_go_on_when_one_comes_or_goes(
    switch: PrivateSwitch, connection: Connection
) -> None:
    switch.clear()
    switch.add_port("p1", 1)
    become(connection, body([1, 2]))
    for flow in (
        Flow(0, 1, match(in_port=1), (GroupAction(NUMBER),), 1, OWNER, "to the Service"),
        Flow(20, 1, match(), (Output(2),), 1, OWNER, "to the endpoint"),
    ):
        connection.transact(flow_mod(FlowCommand.ADD, *flow_image(flow)))
    for _ in range(5):
        switch.appctl("netdev-dummy/receive", "p1", "in_port(1),eth(src=0a:58:00:00:00:01),eth_type(0x1234)")

    def packets() -> list[int]:
        switch.appctl("revalidator/wait")
        (reply,) = connection.transact(group_stats_request(1, NUMBER))
        (counters,) = decode_group_stats(reply.body[8:])
        return [bucket[0] for bucket in counters.buckets]

    before = packets()
    assert sum(before) == 5
    become(connection, body([1, 2, 3]))
    assert packets() == [*before, 0]
    become(connection, body([0, 1, 2, 3]))
    assert packets() == [0, *before, 0]


def test_a_bucket_that_is_not_there_is_refused(switch: PrivateSwitch, connection: Connection) -> None:
    """What a synchronizer sees whose picture of the switch is wrong: an error, and nothing changed."""
    switch.clear()
    become(connection, body([1, 2]))
    (message,) = group_changes(NUMBER, body([1, 2, 3]), body([1, 2]), single_buckets=True)
    with pytest.raises(SwitchError):
        connection.transact(message)
    assert read(connection) == {NUMBER: body([1, 2])}
