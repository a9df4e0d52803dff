# SPDX-License-Identifier: Apache-2.0
"""What we write into a real Open vSwitch is what it gives back: byte for byte, value for value, line for
line.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdn.openflow import (
    FlowCommand,
    GroupCommand,
    bundle,
    bundle_commit,
    bundle_discard,
    decode_flow_descs,
    decode_group_descs,
    flow_desc_request,
    flow_image,
    flow_mod,
    format_flow,
    format_group,
    group_desc_request,
    group_image,
    group_mod,
    split_flow_descs,
    split_group_descs,
)
from sdn.openflow.actionread import Unknown
from sdn.openflow.groupimage import delete_all_groups
from sdn.pipeline.flow import Flow, Group
from tests.property import strategies
from tests.switch.ovs import Connection, PrivateSwitch, SwitchError, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)

EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def connection(switch: PrivateSwitch):  # type: ignore[no-untyped-def]
    with switch.connect() as connection:
        yield connection


def write(connection: Connection, messages: Sequence[bytes]) -> None:
    """One bundle, in the two strokes that it takes."""
    for chunk in bundle(7, messages, 1000):
        connection.send(chunk)
    try:
        connection.transact(b"")
    except SwitchError:
        connection.transact(bundle_discard(7, 998))
        raise
    connection.transact(bundle_commit(7, 999))


def read_bodies(connection: Connection, request: bytes) -> list[bytes]:
    return [message.body[8:] for message in connection.transact(request) if message.type == 19]


@EXAMPLES
@given(st.lists(strategies.flows(), min_size=1, max_size=12, unique_by=lambda flow: flow.key))
def test_a_flow_reads_back_as_the_bytes_that_were_written(
    switch: PrivateSwitch, connection: Connection, flows: list[Flow]
) -> None:
    switch.clear()
    write(connection, [flow_mod(FlowCommand.ADD, *flow_image(flow)) for flow in flows])
    desired = dict(map(flow_image, flows))
    bodies = read_bodies(connection, flow_desc_request(1))
    installed = dict(image for body in bodies for image in split_flow_descs(body))
    assert installed == desired

    decoded = {flow_image(flow)[0]: flow for flow in flows}
    for body in bodies:
        for (key, _), seen in zip(split_flow_descs(body), decode_flow_descs(body), strict=True):
            flow = decoded[key]
            assert (seen.table, seen.priority, seen.match, seen.cookie) == (
                flow.table,
                flow.priority,
                flow.match,
                flow.cookie,
            )
            assert seen.actions == flow.actions
            assert (seen.idle_timeout, seen.hard_timeout) == (flow.idle_timeout, flow.hard_timeout)
            assert not seen.unknown_fields
            assert format_flow(seen) == format_flow(flow)
    for ours, theirs in zip(sorted(map(format_flow, flows)), sorted(switch.dump_flows()), strict=True):
        assert ours == theirs

    write(connection, [flow_mod(FlowCommand.DELETE_STRICT, key, body) for key, body in installed.items()])
    assert switch.dump_flows() == []


@EXAMPLES
@given(st.lists(strategies.groups(), min_size=1, max_size=6, unique_by=lambda group: group.group_id))
def test_a_group_reads_back_as_the_bytes_that_were_written(
    switch: PrivateSwitch, connection: Connection, groups: list[Group]
) -> None:
    switch.clear()
    write(connection, [group_mod(GroupCommand.ADD, *group_image(group)) for group in groups])
    bodies = read_bodies(connection, group_desc_request(1))
    installed = dict(image for body in bodies for image in split_group_descs(body))
    assert installed == dict(map(group_image, groups))
    by_id = {group.group_id: group for group in groups}
    for seen in (group for body in bodies for group in decode_group_descs(body)):
        group = by_id[seen.group_id]
        assert (seen.type, seen.selection_method) == (group.type, group.selection_method)
        assert seen.selection_fields == group.selection_fields
        assert not any(isinstance(action, Unknown) for bucket in seen.buckets for action in bucket.actions)
        assert [(b.bucket_id, b.actions, b.watch_port) for b in seen.buckets] == [
            (b.bucket_id, b.actions, b.watch_port) for b in group.buckets
        ]
        assert format_group(seen) == format_group(group)
    lines = [line.strip() for line in switch.ofctl("dump-groups").splitlines()[1:] if line.strip()]
    for ours, theirs in zip(sorted(map(format_group, groups)), sorted(lines), strict=True):
        assert ours == theirs
    write(connection, [delete_all_groups()])
    assert read_bodies(connection, group_desc_request(1)) == [b""]
