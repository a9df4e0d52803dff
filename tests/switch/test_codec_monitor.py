# SPDX-License-Identifier: Apache-2.0
"""Flow monitors and forwarded group requests at a real switch: what sdn/openflow/monitor.py says of it is so."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from sdn.openflow import (
    OFPRR_GROUP_DELETE,
    FlowCommand,
    FlowEvent,
    FlowUpdate,
    GroupCommand,
    Role,
    barrier_request,
    bundle,
    bundle_commit,
    flow_image,
    flow_mod,
    flow_monitor_end,
    flow_monitor_request,
    forward_group_changes,
    group_image,
    group_mod,
    is_flow_monitor,
    multipart_body,
    role_request,
    split_flow_updates,
)
from sdn.openflow.wire import OFPT_MULTIPART_REPLY, OFPT_REQUESTFORWARD
from sdn.pipeline.actions import Bucket, Output
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.switch.controllers import Accepted, Target, set_targets, whole
from tests.switch.ovs import Message, PrivateSwitch, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(running_switch)
OWNER: Final = Owner("Pod", "default", "web")


class Told:
    """The controller's end; what the switch says is taken in a thread."""

    def __init__(self, connection: Accepted) -> None:
        self.connection = connection
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._xid = 100
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                self._messages.put(self.connection.receive())
        except (OSError, ValueError):
            return

    def ask(self, data: bytes = b"") -> list[Message]:
        """Send this; what comes until a barrier's answer."""
        self._xid += 1
        self.connection.send(data + barrier_request(self._xid))
        messages = []
        while (message := self._messages.get(timeout=60)).type != 21 or message.xid != self._xid:
            messages.append(message)
        return messages

    def updates(self, data: bytes = b"") -> list[FlowUpdate]:
        found: list[FlowUpdate] = []
        for message in self.ask(data):
            if message.type == OFPT_MULTIPART_REPLY and message.xid == 0:
                assert is_flow_monitor(whole(message))
                found += split_flow_updates(multipart_body(whole(message)))
        return found

    def forwarded(self, data: bytes = b"") -> int:
        return sum(message.type == OFPT_REQUESTFORWARD for message in self.ask(data))


@pytest.fixture
def owner(switch: PrivateSwitch) -> Iterator[Told]:
    """The master, who has a monitor."""
    switch.add_port("p1", 1)
    switch.add_port("p2", 2)
    target = Target()
    set_targets(switch, [target.text])
    told = Told(target.accept())
    told.ask(role_request(1, Role.MASTER, 5))
    (answer,) = told.ask(forward_group_changes(2, True) + flow_monitor_request(3, 1))
    assert (answer.type, answer.xid, answer.body[8:]) == (OFPT_MULTIPART_REPLY, 3, b"")
    yield told
    told.connection.close()
    target.close()


def flow(priority: int, output: int = 2) -> Flow:
    return Flow(0, priority, match(in_port=1), (Output(output),), 5, OWNER, "test")


def test_what_others_do_to_flows_is_told_whole(switch: PrivateSwitch, owner: Told) -> None:
    key, body = flow_image(flow(7))
    switch.ofctl("add-flow", "table=0,cookie=5,priority=7,in_port=1,actions=output:2")
    (added,) = owner.updates()
    assert (added.event, added.key) == (FlowEvent.ADDED, key)
    assert added.is_body(body)
    assert added.body() == body
    switch.ofctl("mod-flows", "--strict", "table=0,priority=7,in_port=1,actions=output:1")
    (modified,) = owner.updates()
    assert (modified.event, modified.key, modified.is_body(body)) == (FlowEvent.MODIFIED, key, False)
    assert modified.is_body(flow_image(flow(7, 1))[1])
    switch.ofctl(
        "add-flow", "table=0,cookie=5,priority=7,idle_timeout=9,hard_timeout=10,in_port=1,actions=output:2"
    )
    (again,) = owner.updates()
    assert (again.event, again.timeouts) == (FlowEvent.ADDED, bytes([0, 9, 0, 10]))
    assert not again.is_body(body)
    switch.ofctl("del-flows", "table=0")
    (removed,) = owner.updates()
    assert (removed.event, removed.key) == (FlowEvent.REMOVED, key)


def test_own_changes_are_told_in_one_word(switch: PrivateSwitch, owner: Told) -> None:
    messages = [flow_mod(FlowCommand.ADD, *flow_image(flow(priority))) for priority in range(1, 2000)]
    updates = owner.updates(b"".join(bundle(9, messages, 1000)) + bundle_commit(9, 5000))
    assert [update.event for update in updates] == [FlowEvent.ABBREVIATED]
    assert len(switch.dump_flows()) == 1999
    updates = owner.updates(flow_mod(FlowCommand.DELETE_STRICT, *flow_image(flow(7))))
    assert [update.event for update in updates] == [FlowEvent.ABBREVIATED]


def test_groups_that_others_change_are_told(switch: PrivateSwitch, owner: Told) -> None:
    group = group_image(Group(7, "select", (Bucket(1, (Output(1),)),), OWNER, "test"))
    assert owner.forwarded(group_mod(GroupCommand.ADD, *group)) == 0
    for command in (
        ("add-group", "group_id=9,type=select,bucket=output:1"),
        ("mod-group", "group_id=9,type=select,bucket=output:2"),
        ("insert-buckets", "group_id=7,command_bucket_id=last,bucket=bucket_id:5,actions=output:2"),
    ):
        switch.ofctl(*command)
        assert owner.forwarded() == 1, command
    switch.ofctl("add-flow", "table=0,priority=61,in_port=1,actions=group:7")
    (added,) = owner.updates()
    switch.ofctl("del-groups")
    answers = owner.ask()
    assert [message.type for message in answers] == [OFPT_REQUESTFORWARD, OFPT_MULTIPART_REPLY]
    (removed,) = split_flow_updates(multipart_body(whole(answers[1])))
    assert (removed.event, removed.reason, removed.key) == (FlowEvent.REMOVED, OFPRR_GROUP_DELETE, added.key)


def test_a_monitor_can_be_ended_also_by_a_slave_and_begun_again(switch: PrivateSwitch, owner: Told) -> None:
    owner.ask(role_request(5, Role.SLAVE, 5))
    answers = owner.ask(forward_group_changes(6, False) + flow_monitor_end(7, 1))
    assert [(answer.type, answer.xid) for answer in answers] == [(OFPT_MULTIPART_REPLY, 7)]
    switch.ofctl("add-flow", "priority=3,actions=drop")
    switch.ofctl("add-group", "group_id=9,type=select,bucket=output:1")
    assert owner.ask() == []
    owner.ask(role_request(8, Role.MASTER, 6))
    (answer,) = owner.ask(forward_group_changes(9, True) + flow_monitor_request(10, 1))
    assert (answer.type, answer.xid) == (OFPT_MULTIPART_REPLY, 10)
    switch.ofctl("del-flows")
    assert [update.event for update in owner.updates()] == [FlowEvent.REMOVED]


def test_many_changes_at_once_are_all_told(switch: PrivateSwitch, owner: Told) -> None:
    """As many messages. Where the reader is slower than the switch, the rest comes between PAUSED and RESUMED."""
    count = 20_000
    lines = "\n".join(f"table=5,priority={number + 1},actions=drop" for number in range(count))
    switch.ofctl("add-flows", "-", stdin=lines)
    seen: set[bytes] = set()
    while len(seen) < count:
        seen.update(update.key for update in owner.updates() if update.event == FlowEvent.ADDED)
    assert len(seen) == count
