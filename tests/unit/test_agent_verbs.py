# SPDX-License-Identifier: Apache-2.0
"""What a runtime is told when a part of the node fails, and that nothing is left of a request that failed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.ovsdb import OvsdbRefused, OvsdbUnavailable
from agent.state import MAKING, READY, REMOVING, AddressUnavailable, Wanted
from tests.unit.attached_node import FULL, AttachedNode, namespace

pytestmark = pytest.mark.root

BROKEN = OSError(errno.EIO, "netlink is broken")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[AttachedNode]:
    with namespace() as path, namespace() as pod:
        node = AttachedNode(tmp_path, path, pod)
        yield node
        node.close()


def phases(node: AttachedNode) -> list[str]:
    return [record.phase for record in node.state.attachments()]


# --- ADD


def test_an_add_that_cannot_note_that_it_is_done_is_undone(node: AttachedNode) -> None:
    node.state.refuses = {READY}
    assert node.call("ADD", "web") == (5, f"pod default/web: {FULL}")
    assert phases(node) == []
    node.heal()
    node.add("web")


def test_an_add_on_a_full_disk_fails_to_write_and_leaves_nothing(node: AttachedNode) -> None:
    node.state.refuses = {"allocate"}
    assert node.call("ADD", "web") == (5, f"container c-web: {FULL}")
    assert phases(node) == []


@pytest.mark.parametrize(("disk", "left"), [(set(), REMOVING), ({REMOVING}, MAKING)])
def test_an_add_that_cannot_be_undone_tells_its_first_problem_and_is_undone_later(
    node: AttachedNode, disk: set[str], left: str
) -> None:
    node.controller.reason = "its name is taken"
    node.state.refuses = disk
    node.refuse()
    assert node.call("ADD", "web") == (101, "the controller refused pod default/web: its name is taken")
    assert phases(node) == [left]
    assert node.attachments.to_report() == []
    node.heal()
    node.reconciler.run()
    assert phases(node) == []


def test_an_add_where_an_earlier_pod_cannot_be_removed_yet_is_to_be_tried_again(node: AttachedNode) -> None:
    node.add("web")
    node.switch.problem = OvsdbUnavailable("no answer")
    node.switch.refuses = {record.host_interface for record in node.state.attachments()}
    assert node.call("DEL", "web") == (0, "")
    assert phases(node) == [REMOVING]
    assert node.call("ADD", "web") == (
        11,
        "pod default/web: what an earlier request left cannot be removed yet",
    )
    node.heal()
    node.add("web")


def test_an_add_that_nobody_waits_for_any_more_when_its_turn_comes_makes_nothing(node: AttachedNode) -> None:
    """The DEL that follows may have had its turn before: nobody would remove what is made then."""
    with ThreadPoolExecutor(1) as pool:
        with node.attachments.alone("c-web"):
            asked = threading.Event()
            gone = threading.Event()

            def awaited() -> bool:
                asked.set()
                return not gone.is_set()

            adding = pool.submit(node.call, "ADD", "web", awaited)
            asked.wait(0.5)
            gone.set()
        assert adding.result() == (11, "container c-web: nobody waits for it any more")
    assert phases(node) == []


# --- what fails without being a defect


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_what_the_kernel_refuses_is_no_defect(node: AttachedNode, verb: str) -> None:
    node.add("web")
    node.attachments.netlink_problem = BROKEN
    assert node.call(verb, "web", prevResult={}) == (5, f"container c-web: {BROKEN}")


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_the_switch_refuses_is_to_be_tried_again(node: AttachedNode, verb: str) -> None:
    node.add("web")
    node.refuse(*(record.host_interface for record in node.state.attachments()))
    assert node.call(verb, "web") == (11, "container c-web: not now")


def test_a_defect_is_told_as_one(node: AttachedNode) -> None:
    node.add("web")
    node.switch.problem = ZeroDivisionError("a defect")
    code, text = node.call("DEL", "web")
    assert code == 999
    assert "ZeroDivisionError" in text


def test_a_namespace_whose_path_has_a_zero_byte_is_refused(node: AttachedNode) -> None:
    """No environment can hold one, but a message can."""
    record = node.add("web")
    node.pod = "/run/netns/a\0b"
    for verb in ("ADD", "CHECK"):
        code, text = node.call(verb, "web", prevResult={})
        assert (code, text.partition(":")[0]) == (4, "CNI_NETNS")
    assert node.state.attachments() == [record]
    assert node.call("DEL", "web") == (0, "")
    assert phases(node) == []


def test_a_pipe_is_no_namespace_and_nobody_waits_for_it(node: AttachedNode, tmp_path: Path) -> None:
    record = node.add("web")
    node.pod = str(tmp_path / "pipe")
    os.mkfifo(node.pod)
    for verb in ("ADD", "CHECK"):
        refusal = f"CNI_NETNS: {node.pod}: is not a network namespace"
        assert node.call(verb, "web", prevResult={}) == (4, refusal)
    assert node.state.attachments() == [record]
    assert node.call("DEL", "web") == (0, "")
    assert phases(node) == []


def test_without_a_free_descriptor_the_runtime_is_not_told_that_its_namespace_is_wrong(
    node: AttachedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.add("web")
    none_free = OSError(errno.EMFILE, "Too many open files")

    def no_descriptor(*_: object) -> int:
        raise none_free

    with monkeypatch.context() as patch:
        patch.setattr("agent.netns.os.open", no_descriptor)
        for verb in ("ADD", "CHECK", "DEL"):
            assert node.call(verb, "web", prevResult={}) == (5, f"container c-web: {none_free}")
    assert node.call("DEL", "web") == (0, "")


# --- DEL


@pytest.mark.parametrize("disk", [{REMOVING}, {"release"}, {REMOVING, "release"}])
def test_a_pod_can_be_removed_whatever_the_disk_says(node: AttachedNode, disk: set[str]) -> None:
    record = node.add("web")
    node.link(record)
    node.state.refuses = disk
    assert node.call("DEL", "web") == (0, "")
    assert record.host_interface not in node.links()
    assert node.attachments.to_report() == []
    assert len(phases(node)) == ("release" in disk), "its addresses are another's only when that is on disk"
    node.heal()
    node.reconciler.run()
    assert phases(node) == []
    assert node.attachments.to_report() == []
    assert [node.add("web")] == node.attachments.to_report()


def test_what_is_half_removed_is_not_made_whole_again(node: AttachedNode) -> None:
    """Its port is not plugged again: the runtime was told that it goes, or tries again."""
    record = node.add("web")
    node.link(record)
    node.state.refuses = {REMOVING}
    node.attachments.netlink_problem = BROKEN
    assert node.call("DEL", "web")[0] == 5
    node.attachments.netlink_problem = None
    node.reconciler.run()
    assert phases(node) == []
    assert record.host_interface not in node.links()


def test_the_controller_hears_of_the_end_before_another_pod_can_have_the_address(node: AttachedNode) -> None:
    record = node.add("web")
    outcomes: list[str] = []

    def take_over(_key: tuple[str, str]) -> None:
        address = record.addresses[0]
        wanted = Wanted("c-b", "eth0", "pods", "/x", "default", "b", "", 1400, 1.0, addresses=(address.ip,))
        try:
            node.state.allocate(wanted, [address.network])
        except AddressUnavailable as problem:
            outcomes.append(str(problem))
        else:
            outcomes.append("given to another one")

    node.controller.detached = take_over
    assert node.call("DEL", "web") == (0, "")
    assert outcomes == [f"{record.addresses[0].ip} is used by pod default/web"]
    assert phases(node) == []


# --- GC


def test_gc_goes_on_after_what_it_cannot_remove_and_tells_of_it(node: AttachedNode) -> None:
    records = {name: node.add(name) for name in ("a", "b", "c", "d")}
    node.refuse(records["b"].host_interface, records["c"].host_interface)
    code, text = node.call("GC", **{"cni.dev/valid-attachments": []})
    assert (code, text) == (11, "pod default/b: not now; pod default/c: not now")
    assert {record.pod_name for record in node.state.attachments()} == {"b", "c"}
    node.heal()
    assert node.call("GC", **{"cni.dev/valid-attachments": []}) == (0, "")
    assert phases(node) == []


# --- what is put right later


@pytest.mark.parametrize("at_start", [True, False])
def test_what_cannot_be_put_right_keeps_nothing_else_from_it(node: AttachedNode, at_start: bool) -> None:
    records = [node.add(name) for name in ("a", "b", "c")]
    for record in records:
        node.state.set_phase(record, REMOVING)
    node.refuse(records[0].host_interface)
    with pytest.raises(OvsdbRefused):
        node.reconciler.undo_unfinished() if at_start else node.reconciler.run()
    assert [record.pod_name for record in node.state.attachments()] == ["a"]
    node.heal()
    node.reconciler.run()
    assert phases(node) == []
