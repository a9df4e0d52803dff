# SPDX-License-Identifier: Apache-2.0
"""When records are compared with reality: in time, however many pods come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.ovsdb import OvsdbUnavailable
from agent.state import MAKING, REMOVING, Record
from tests.unit.attached_node import AttachedNode, namespace

pytestmark = pytest.mark.root

PATIENCE = 60.0
#: A port of nobody's, as one that has just come or gone is.
ANOTHER = {"sdn-p999"}


@pytest.fixture
def every() -> float:
    """Seconds after which all is compared, without anything that asks for it."""
    return 3600.0


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float) -> Iterator[AttachedNode]:
    monkeypatch.setattr("agent.reconcile._EVERY_SECONDS", every)
    with namespace() as path, namespace() as pod:
        node = AttachedNode(tmp_path, path, pod)
        yield node
        node.reconciler.close()
        for thread in threading.enumerate():
            if thread.name == "reconcile":
                thread.join()
        node.close()


def left(node: AttachedNode, meanwhile: Callable[[], object] = lambda: None, stays: int = 0) -> list[str]:
    """Pods of which something is left, when all but so many are gone or no patience is."""
    deadline = time.monotonic() + PATIENCE
    while len(node.state.attachments()) > stays and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.02)
    return [record.pod for record in node.state.attachments()]


def half_removed(node: AttachedNode) -> None:
    """A pod that something has begun to remove."""
    node.state.set_phase(node.add("web"), REMOVING)


@pytest.mark.parametrize("every", [0.5])
def test_pods_that_come_and_go_do_not_put_off_what_is_to_be_finished(node: AttachedNode) -> None:
    node.reconciler.start()
    for _ in range(2):
        half_removed(node)
        assert left(node, lambda: node.reconciler.look_at(ANOTHER)) == []


def test_all_is_looked_at_when_the_database_is_back_also_while_a_port_is_to_be_looked_at(
    node: AttachedNode,
) -> None:
    half_removed(node)
    node.reconciler.look_at(ANOTHER)
    node.reconciler.poke()
    node.reconciler.start()
    assert left(node) == []


@pytest.mark.parametrize("disk", [set(), {"release"}])
def test_what_a_del_leaves_is_removed_as_soon_as_it_can_be(node: AttachedNode, disk: set[str]) -> None:
    """By itself: nothing else happens on the node."""
    node.reconciler.start()
    record = node.add("web")
    node.state.refuses = disk
    if not disk:
        node.switch.problem = OvsdbUnavailable("no answer")
        node.switch.refuses = {record.host_interface}
    assert node.call("DEL", "web") == (0, "")
    assert [pod.phase for pod in node.state.attachments()] == [REMOVING]
    node.heal()
    assert left(node) == []


def test_what_can_be_finished_does_not_wait_for_what_is_being_made(node: AttachedNode) -> None:
    node.state.set_phase(node.add("made"), MAKING)
    half_removed(node)
    with node.attachments.alone("c-made"):
        node.reconciler.poke()
        node.reconciler.start()
        assert left(node, stays=1) == ["default/made"]


@pytest.mark.parametrize("everything", [False, True])
def test_a_pod_that_a_request_works_on_keeps_no_others_port_from_being_put_right(
    node: AttachedNode, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    """It may wait for a controller to confirm another interface of the pod. That pod is looked at when it is over."""
    worked_on, other = (node.add(name).host_interface for name in ("web", "db"))
    looked: list[str] = []

    def mend(_netlink: object, record: Record) -> str:
        looked.append(record.host_interface)
        return ""

    def wait_looked(name: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while name not in looked:
            assert time.monotonic() < deadline, f"{name} was never looked at"
            time.sleep(0.02)

    monkeypatch.setattr("agent.link.mend_outer", mend)
    with node.attachments.alone("c-web"):
        node.reconciler.look_at(set() if everything else {worked_on})
        node.reconciler.start()
        while node.reconciler._touched:
            time.sleep(0.02)
        node.reconciler.look_at({other})
        wait_looked(other)
        assert worked_on not in looked
    wait_looked(worked_on)


def test_what_cannot_be_looked_for_keeps_nothing_from_being_finished(
    node: AttachedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_netlink: object) -> dict[str, int]:
        raise OSError("no links today")

    monkeypatch.setattr("agent.reconcile._ours", fails)
    half_removed(node)
    node.reconciler.poke()
    node.reconciler.start()
    assert left(node) == []


def test_a_port_that_cannot_be_put_right_keeps_no_other_from_it(
    node: AttachedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {node.add(name).host_interface for name in ("web", "db")}
    for fails in names:
        looked: list[str] = []

        def mend(_netlink: object, record: Record, fails: str = fails, looked: list[str] = looked) -> str:
            looked.append(record.host_interface)
            if record.host_interface == fails:
                raise OSError("it has just gone")
            return ""

        monkeypatch.setattr("agent.link.mend_outer", mend)
        with pytest.raises(OSError, match="just gone"):
            node.reconciler._run_some(names)
        assert set(looked) == names
