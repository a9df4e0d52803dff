# SPDX-License-Identifier: Apache-2.0
"""A lab comes and goes whole: beside others, repeatedly, and when it is cut off at any point."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.lab import building, etcd, faults, namespaces, processes, state
from sdn.lab.errors import LabError
from sdn.lab.lab import Lab, LabSpec
from sdn.lab.supervision import MARK
from tests.lab import labs

SDNCTL = [sys.executable, "-m", "sdn.cli.main"]
STEPS = [
    "underlay",
    "databases",
    "supervisord",
    "switches run",
    "controller serves",
    "agents are ready",
]
"""What `up` tells before or after each of its stages."""


def traces(name: str) -> list[str]:
    """Whatever is left of a lab on this machine."""
    left = [f"folder {path}" for path in (state.ROOT.glob(f"*{name}*") if state.ROOT.exists() else ())]
    left += [f"namespace {path.name}" for path in namespaces.FOLDER.glob(f"{name}-*")]
    left += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if f"/{name}-" in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in processes.myself_and_ancestors():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"{state.ROOT}/{name}/" in words or f" {name}-" in words:
                left.append(f"process {entry.name} {words}")
    return left


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A lab name of the test's own; whatever is left of it at the end goes."""
    chosen = labs.lab_name(f"x{abs(hash(request.node.name)) % 10000}")
    yield chosen
    building.down(chosen)


def test_two_labs_run_side_by_side_and_one_goes_without_the_other(name: str) -> None:
    with labs.running("beside", nodes=1) as first:
        stays = first.pod_add("stays")
        second = Lab.up(LabSpec(name=name, nodes=1))
        goes = second.pod_add("goes")
        # The same addresses in both: they share nothing.
        assert stays.addresses == goes.addresses
        assert labs.unreachable([*first.ping_matrix(attempts=5), *second.ping_matrix(attempts=5)]) == []
        second.down()
        assert traces(name) == []
        assert labs.unreachable(first.ping_matrix()) == []


def test_down_leaves_nothing_not_even_what_was_started_inside(name: str) -> None:
    lab = Lab.up(LabSpec(name=name, nodes=2))
    labs.add_pods(lab, 4)
    record = lab.record
    inside = [
        lab.popen("p-1", "sleep", "1000"),
        lab.popen("node-1", "sh", "-c", "trap '' TERM; sleep 1000 & wait"),
    ]
    lab.down()
    assert [process.wait(timeout=30) for process in inside] != []
    assert traces(name) == []
    assert processes.with_mark(f"{MARK}={record.id}") == []
    assert building.down(name) is False, "a second down has nothing to do"


@pytest.mark.parametrize("step", STEPS)
def test_down_cleans_up_after_an_up_that_was_killed(name: str, step: str) -> None:
    with subprocess.Popen(
        [*SDNCTL, "lab", "up", "--name", name, "--nodes", "2"], stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if step in line:
                up.send_signal(signal.SIGKILL)
                break
        up.stderr.read()
    assert up.returncode == -signal.SIGKILL, "it ended before it could be killed"
    with pytest.raises(LabError, match=f"sdnctl lab down --name {name}"):
        Lab.up(LabSpec(name=name))
    assert building.down(name) is True
    assert traces(name) == []


def test_an_up_that_is_interrupted_cleans_up_itself(name: str) -> None:
    # Tests that run in the background of a script are not to be interrupted, and what they start would inherit that.
    up_command = ["env", "--default-signal=INT", *SDNCTL, "lab", "up", "--name", name]
    with subprocess.Popen(up_command, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if "supervisord" in line:
                up.send_signal(signal.SIGINT)
                break
        rest = up.stderr.read()
    assert up.returncode == 130
    assert "Traceback" not in rest
    assert traces(name) == []


def test_an_up_that_fails_says_why_and_leaves_nothing(name: str) -> None:
    # The controller refuses node ranges wider than the cluster's range.
    spec = LabSpec(name=name, nodes=1, cluster_ranges=("10.99.0.0/28",))
    os.environ["SDN_LAB_TIMEOUT_FACTOR"] = "0.1"
    try:
        with pytest.raises(LabError, match=r"controller-1 to serve.*cluster_ranges"):
            Lab.up(spec)
    finally:
        del os.environ["SDN_LAB_TIMEOUT_FACTOR"]
    assert traces(name) == []


def test_a_namespace_of_somebody_else_is_told_and_left_alone(name: str) -> None:
    taken = f"{name}-node-2"
    namespaces.add(taken)
    try:
        with pytest.raises(LabError, match=f"ip netns del {taken}"):
            Lab.up(LabSpec(name=name))
        assert building.down(name) is False
        assert namespaces.exists(taken)
        assert traces(name) == [f"namespace {taken}", *[t for t in traces(name) if t.startswith("mount")]]
    finally:
        namespaces.delete(taken)


def test_down_refuses_while_up_is_at_work(name: str) -> None:
    with subprocess.Popen([*SDNCTL, "lab", "up", "--name", name], stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        up.stderr.readline()
        with pytest.raises(LabError, match=f"by process {up.pid}"):
            building.down(name)
        up.send_signal(signal.SIGKILL)


def test_a_lab_whose_supervisor_was_killed_can_be_taken_down(name: str) -> None:
    lab = Lab.up(LabSpec(name=name, nodes=1))
    pid = int((lab.folder / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert building.down(name) is True
    assert traces(name) == []


def test_down_lets_frozen_processes_end_in_an_orderly_way(name: str, tmp_path: Path) -> None:
    lab = Lab.up(LabSpec(name=name, nodes=1, controllers=2, store="etcd", etcd=3))
    faults.freeze(lab, "controller-2", etcd.leader(lab.spec))
    ended = tmp_path / "ended"
    # A program that the trap started would be asked to end, too.
    script = f"trap ': > {ended}; exit' TERM; echo ready; while :; do sleep 0.05; done"
    with lab.popen("controller-1", "bash", "-c", script, stdout=subprocess.PIPE) as inside:
        assert inside.stdout is not None
        inside.stdout.readline()
        inside.send_signal(signal.SIGSTOP)
        lab.down()
    assert ended.exists()
    assert traces(name) == []
