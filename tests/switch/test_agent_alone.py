# SPDX-License-Identifier: Apache-2.0
"""A switch that is started anew gets back what it held, from a keeper that runs beside a real one."""

from __future__ import annotations

import errno
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.alone import keeper as keepers
from agent.alone.image import FILE, ImageFile, SwitchImage
from agent.alone.keeper import Keeper
from agent.alone.switch import LocalSwitch, RefusedError
from agent.management import LocalSwitchError
from sdn.openflow import (
    FlowCommand,
    GroupCommand,
    bundle,
    bundle_commit,
    flow_image,
    flow_mod,
    group_image,
    group_mod,
)
from sdn.openflow.groupimage import encoded_buckets
from sdn.pipeline.actions import Bucket, Output
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from tests.switch.controllers import Target, set_targets
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until

pytestmark = pytest.mark.switch

switch = pytest.fixture(running_switch)

GROUP = "group_id=7,type=select,bucket=bucket_id:1,actions=output:1,bucket=bucket_id:2,actions=output:2"
FLOWS = (
    "table=0,priority=100,in_port=1,cookie=0x5,actions=goto_table:9",
    "table=0,priority=100,in_port=2,tcp,cookie=0x6,actions=ct(commit,zone=3,nat(dst=10.0.0.1:80),table=9)",
    "table=9,priority=10,ip,nw_dst=10.0.0.0/8,cookie=0x7,actions=group:7",
    "table=9,priority=9,udp,cookie=0x8,actions=learn(table=10,idle_timeout=100,cookie=0x9,eth_type=0x800,NXM_OF_IP_SRC[]),output:2",
)
DATAPATH = 0xA1


@dataclass
class Node:
    """A keeper, and what the agent around it would say."""

    folder: Path
    switch: PrivateSwitch
    attended: bool = True
    confirmed: bool = True
    datapath_id: int = DATAPATH
    #: How often controllers were asked to connect anew.
    reconnected: int = 0
    #: How often the agent was asked whether all is confirmed.
    asked: int = 0
    keeper: Keeper | None = field(default=None)

    def start(self) -> None:
        self.keeper = Keeper(
            self.folder,
            self.switch.folder / f"{self.switch.bridge}.mgmt",
            datapath_id=lambda: self.datapath_id,
            attended=lambda: self.attended,
            confirmed=self.is_confirmed,
            reconnect=self.reconnect,
        )
        self.keeper.start()

    def is_confirmed(self) -> bool:
        confirmed = self.confirmed
        self.asked += 1
        return confirmed

    def reconnect(self) -> None:
        self.switch.appctl("bridge/reconnect", self.switch.bridge)
        self.reconnected += 1

    def wait_put_back(self) -> None:
        """Until the switch got back what was kept, and controllers were asked to connect anew: that breaks off whoever
        else asks the switch just then (`ovs-appctl bridge/reconnect` ends all of its connections).
        """
        wait_until(lambda: self.reconnected == 1, "the switch to get back what was kept")

    def kept(self) -> set[str]:
        """What is on disk: the tables and priorities of flows, the numbers of groups."""
        image = ImageFile(self.folder).load()
        if image is None:
            return set()
        flows = {f"{key[0]}/{key[2] << 8 | key[3]}" for key in image.flows}
        return flows | {f"group {number}" for number in image.groups}


@pytest.fixture
def node(switch: PrivateSwitch, tmp_path: Path) -> Iterator[Node]:
    """Not started; the switch has ports and is full."""
    for number in (1, 2):
        switch.add_port(f"p{number}", number)
    fill(switch)
    found = Node(tmp_path, switch)
    yield found
    if found.keeper is not None:
        found.keeper.close()


def fill(switch: PrivateSwitch) -> None:
    switch.ofctl("add-group", GROUP)
    for flow in FLOWS:
        switch.ofctl("add-flow", flow)


def held(switch: PrivateSwitch) -> tuple[list[str], str]:
    groups = switch.ofctl("dump-groups").split("\n", 1)[1]
    return sorted(switch.dump_flows()), groups


ALL = {"0/100", "9/10", "9/9", "group 7"}


def test_a_switch_that_was_started_anew_gets_back_flows_and_groups(node: Node) -> None:
    before = held(node.switch)
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.attended = node.confirmed = False
    node.switch.restart_vswitchd()
    node.wait_put_back()
    assert held(node.switch) == before


def test_what_changes_is_kept_and_what_the_switch_has_learned_is_not(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    wait_until(lambda: "3/3" in node.kept(), "a flow's change to be kept")
    node.switch.ofctl("add-group", "group_id=8,type=all")
    wait_until(lambda: "group 8" in node.kept(), "a group's change to be kept")
    node.switch.ofctl("add-flow", "table=10,priority=10,idle_timeout=100,actions=drop")
    node.switch.ofctl("add-flow", "table=4,priority=4,actions=drop")
    wait_until(lambda: "4/4" in node.kept(), "a later change to be kept")
    assert node.kept() == ALL | {"3/3", "4/4", "group 8"}


def test_what_the_switch_learns_costs_no_reading(node: Node) -> None:
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        node.switch.ofctl("add-flow", "table=10,priority=10,idle_timeout=100,actions=drop")
        assert not local.changed(1.0)
        node.switch.ofctl("add-flow", "table=4,priority=4,actions=drop")
        assert local.changed(60.0)


def test_nothing_is_kept_that_no_controller_has_confirmed(node: Node) -> None:
    node.confirmed = False
    node.start()
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(2.5)
    assert node.kept() == set()
    node.confirmed = True
    wait_until(lambda: node.kept() == {*ALL, "3/3"}, "the image to be kept")


def damage(switch: PrivateSwitch) -> None:
    switch.ofctl("del-flows", "table=9")
    switch.ofctl("add-flow", "table=0,priority=9,actions=drop")


def test_what_is_changed_while_no_controller_is_there_is_not_kept(node: Node) -> None:
    before = held(node.switch)
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.attended = node.confirmed = False
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        damage(node.switch)
        assert local.changed(60.0)
        assert not local.changed(2.5), "time for the keeper to read the switch"
    assert node.kept() == ALL
    node.switch.restart_vswitchd()
    node.wait_put_back()
    assert held(node.switch) == before


def test_what_is_changed_while_no_controller_is_there_is_not_kept_at_the_end(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.attended = node.confirmed = False
    damage(node.switch)
    assert node.keeper is not None
    node.keeper.close()
    assert node.kept() == ALL


def test_what_controllers_confirm_when_they_are_back_is_kept_again(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.attended = node.confirmed = False
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(2.5), "time for the keeper to read the switch"
    assert node.kept() == ALL
    node.attended = node.confirmed = True
    wait_until(lambda: node.kept() == {*ALL, "3/3"}, "what is confirmed now to be kept")


def test_what_was_confirmed_just_before_the_controllers_went_is_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    monkeypatch.setattr(keepers, "_QUIET_SECONDS", 600.0)
    monkeypatch.setattr(keepers, "_LONGEST_SECONDS", 600.0)
    before = node.asked
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    wait_until(lambda: node.asked > before, "the change to be noticed")
    node.attended = node.confirmed = False
    assert node.keeper is not None
    node.keeper.close()
    assert node.kept() == {*ALL, "3/3"}


class Disk:
    """Takes images, or is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.refused = 0
        self._write = ImageFile._replace
        monkeypatch.setattr(ImageFile, "_replace", lambda file, data: self._replace(file, data))
        monkeypatch.setattr(keepers, "_DISK_SECONDS", 0.5)

    def _replace(self, file: ImageFile, data: bytes) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self._write(file, data)


def test_what_a_full_disk_has_refused_is_kept_later_though_nothing_changes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    disk.full = True
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    wait_until(lambda: disk.refused > 1, "the disk to refuse it, and again")
    assert node.kept() == ALL
    disk.full = False
    wait_until(lambda: node.kept() == {*ALL, "3/3"}, "the image to be kept")


def test_what_a_full_disk_has_refused_is_put_back_and_kept_when_there_is_room(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch never gets back less than it held; and no controller need confirm again what one has confirmed."""
    disk = Disk(monkeypatch)
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    disk.full = True
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    before = held(node.switch)
    wait_until(lambda: disk.refused > 0, "the disk to refuse it")
    node.attended = node.confirmed = False
    node.switch.restart_vswitchd()
    node.wait_put_back()
    assert held(node.switch) == before
    disk.full = False
    wait_until(lambda: node.kept() == {*ALL, "3/3"}, "the image to be kept")


def test_an_image_that_cannot_be_read_for_a_moment_is_put_back_after_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    before, read, failed = held(node.switch), Path.read_bytes, []

    def fails(path: Path) -> bytes:
        if path.name == FILE and len(failed) < 2:
            failed.append(path)
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    node.attended = node.confirmed = False
    node.switch.restart_vswitchd()
    node.wait_put_back()
    assert held(node.switch) == before
    assert len(failed) == 2


def test_a_full_disk_is_not_tried_all_the_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(keepers, "_DISK_SECONDS", 600.0)
    disk.full = True
    node.start()
    wait_until(lambda: disk.refused > 0, "the disk to refuse it")
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
        assert local.changed(60.0)
        assert not local.changed(3.0)
    assert disk.refused == 1


def test_what_was_confirmed_up_to_the_end_is_kept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    monkeypatch.setattr(keepers, "_QUIET_SECONDS", 600.0)
    monkeypatch.setattr(keepers, "_LONGEST_SECONDS", 600.0)
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
        assert local.changed(60.0), "the switch tells all of its followers at once"
    assert node.keeper is not None
    node.keeper.close()
    assert node.kept() == {*ALL, "3/3"}


def changes_while_it_is_read(node: Node, monkeypatch: pytest.MonkeyPatch, *flows: str) -> None:
    """From now on, one of these flows is added during each reading, until all are."""
    left, read = list(flows), LocalSwitch.read

    def reads(local: LocalSwitch, datapath_id: int) -> SwitchImage | None:
        image = read(local, datapath_id)
        if not left:
            return image
        node.switch.ofctl("add-flow", left.pop())
        return None

    monkeypatch.setattr(LocalSwitch, "read", reads)


def test_what_is_confirmed_while_the_switch_is_read_at_the_end_is_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    monkeypatch.setattr(keepers, "_QUIET_SECONDS", 600.0)
    monkeypatch.setattr(keepers, "_LONGEST_SECONDS", 600.0)
    changes_while_it_is_read(
        node, monkeypatch, "table=4,priority=4,actions=drop", "table=5,priority=5,actions=drop"
    )
    node.switch.ofctl("add-flow", "table=3,priority=3,actions=drop")
    assert node.keeper is not None
    node.keeper.close()
    assert node.kept() == {*ALL, "3/3", "4/4", "5/5"}


def test_what_the_switch_was_changed_during_is_read_again_soon(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the pause is after a reading that was not in vain."""
    monkeypatch.setattr(keepers, "_PAUSE_FACTOR", 1e9)
    changes_while_it_is_read(node, monkeypatch, "table=3,priority=3,actions=drop")
    node.start()
    wait_until(lambda: node.kept() == {*ALL, "3/3"}, "the image to be kept")


def test_a_switch_that_cannot_be_read_is_not_read_all_the_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may hold too much: its connection is made anew each time."""
    begun: list[float] = []

    def fails(_local: LocalSwitch, _datapath_id: int) -> SwitchImage | None:
        begun.append(time.monotonic())
        raise LocalSwitchError("it describes too much")

    monkeypatch.setattr(LocalSwitch, "read", fails)
    monkeypatch.setattr(keepers, "_PAUSE_FACTOR", 1e9)
    node.start()
    wait_until(lambda: len(begun) == 1, "the switch to be read")
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(3.5), "time for the keeper to read the switch again"
    assert len(begun) == 1


def test_nothing_is_kept_at_the_end_that_no_controller_has_confirmed(node: Node) -> None:
    node.confirmed = False
    node.start()
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(1.0), "time for the keeper to follow the switch"
    assert node.keeper is not None
    node.keeper.close()
    assert node.kept() == set()


def test_an_empty_switch_is_no_image(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.switch.clear()
    node.switch.restart_vswitchd()
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(2.0), "an attended switch waits for its controller"
    assert node.kept() == ALL


def test_an_attended_switch_gets_it_back_when_its_controller_does_nothing(node: Node) -> None:
    before = held(node.switch)
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.switch.restart_vswitchd()
    node.wait_put_back()
    assert held(node.switch) == before


def test_a_controller_that_was_connected_meanwhile_connects_anew_and_finds_what_was_put_back(
    node: Node,
) -> None:
    target = Target()
    set_targets(node.switch, [target.text])
    with target.accept():
        node.switch.clear()  # The first controller of a bridge has emptied it.
        fill(node.switch)
        node.start()
        wait_until(lambda: node.kept() == ALL, "the image to be kept")
        node.attended = False
        node.switch.restart_vswitchd()
    with target.accept() as first, pytest.raises(ConnectionError):
        while True:
            first.receive()
    with target.accept():
        assert len(node.switch.dump_flows()) == len(FLOWS)
    target.close()


def test_what_a_controller_has_written_stays(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.attended = node.confirmed = False
    node.switch.restart_vswitchd()
    node.switch.ofctl("add-flow", "table=0,priority=7,actions=drop")
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(3 * keepers.ALONE_SECONDS)
    assert node.reconnected == 0
    assert len(node.switch.dump_flows()) == 1


def test_a_damaged_image_is_not_written(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    file = node.folder / FILE
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    node.attended = node.confirmed = False
    node.switch.restart_vswitchd()
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(3 * keepers.ALONE_SECONDS)
    assert node.switch.dump_flows() == []


def test_another_switchs_image_is_not_written(node: Node) -> None:
    node.start()
    wait_until(lambda: node.kept() == ALL, "the image to be kept")
    node.datapath_id += 1
    node.attended = node.confirmed = False
    node.switch.restart_vswitchd()
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        assert not local.changed(3 * keepers.ALONE_SECONDS)
    assert node.switch.dump_flows() == []


def test_an_image_is_of_one_moment(node: Node) -> None:
    """Bundles change two flows and a group together, all the time: in no image do they differ."""
    node.switch.clear()
    group = Group(7, "all", (), Owner("Service", "default", "web"), "test")
    ending = threading.Event()

    def change() -> None:
        with node.switch.connect() as other:
            for number in itertools.count():
                buckets = tuple(Bucket(index, (Output(1),)) for index in range(number % 5))
                _, body = group_image(replace(group, buckets=buckets))
                command = GroupCommand.MODIFY if number else GroupCommand.ADD
                messages = [flow_mod(FlowCommand.ADD, *flow_image(_flow(table, number))) for table in (0, 20)]
                for chunk in bundle(number, [messages[0], group_mod(command, 7, body), messages[1]], 1):
                    other.send(chunk)
                other.receive()
                other.receive()
                other.send(bundle_commit(number, 9))
                other.receive()
                if ending.wait(0.002 * (number % 4)):
                    return

    changing = threading.Thread(target=change)
    changing.start()
    found: set[int] = set()
    try:
        with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
            deadline = time.monotonic() + 60
            while len(found) < 50 and time.monotonic() < deadline:
                image = local.read(1)
                if image is None or not image.flows:
                    continue
                (first, second) = (int.from_bytes(body[8:16], "big") for body in image.flows.values())
                assert first == second
                assert buckets_of(image) == [first % 5]
                found.add(first)
    finally:
        ending.set()
        changing.join()
    assert len(found) == 50


def _flow(table: int, number: int) -> Flow:
    return Flow(table, 5, match(), (), number, Owner("Node", "", "n"), "test")


def buckets_of(image: SwitchImage) -> list[int]:
    """How many buckets each group has."""
    return [len(encoded_buckets(body)) for body in image.groups.values()]


def test_a_bundle_that_is_refused_leaves_the_switch_as_it_is(node: Node) -> None:
    with LocalSwitch(node.switch.folder / f"{node.switch.bridge}.mgmt") as local:
        image = local.read(DATAPATH)
        assert image is not None
        before = held(node.switch)
        with pytest.raises(RefusedError, match="GROUP_EXISTS"):
            local.write(image)
        assert held(node.switch) == before
        node.switch.clear()
        local.write(image)
        assert held(node.switch) == before
