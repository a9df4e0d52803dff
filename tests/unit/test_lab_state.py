# SPDX-License-Identifier: Apache-2.0
"""The state folder: what is written down can be read back, and a cut-off removal can be repeated."""

import os
from pathlib import Path

import pytest

from sdn.lab import processes, state
from sdn.lab.errors import LabError
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder, LabRecord, PodRecord


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(state, "ROOT", tmp_path / "labs")
    return Folder("x")


def record() -> LabRecord:
    me = processes.identify(os.getpid())
    assert me is not None
    return LabRecord(
        spec=LabSpec(name="x"), id="0123", starter=me, complete=False, created="2026-01-01T00:00:00Z"
    )


def pod(name: str, namespace: str = "default") -> PodRecord:
    return PodRecord(
        name=name,
        namespace=namespace,
        uid="u",
        node="node-1",
        netns=f"x-pod-{namespace}-{name}",
        container_id="c" * 64,
    )


def test_a_folder_is_private_and_says_from_its_first_moment_what_it_is_for(folder: Folder) -> None:
    folder.create(record())
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.read() == record()
    assert state.names() == ["x"]


def test_a_name_is_taken_once(folder: Folder) -> None:
    folder.create(record())
    with pytest.raises(FileExistsError):
        folder.create(record())
    assert [path.name for path in state.ROOT.iterdir()] == ["x"], "a refused creation left something behind"


def test_a_missing_lab_is_told_with_how_to_make_one(folder: Folder) -> None:
    with pytest.raises(LabError, match="sdnctl lab up --name x"):
        folder.read()


def test_removal_leaves_nothing_and_can_be_repeated(folder: Folder) -> None:
    folder.create(record())
    folder.add_pod(pod("a"))
    (folder / "node-1").mkdir()
    (folder / "node-1" / "conf.db").write_text("x", encoding="ascii")
    folder.remove()
    folder.remove()
    assert not state.ROOT.exists()


def test_removal_spares_other_labs(folder: Folder) -> None:
    folder.create(record())
    other = Folder("other")
    other.create(record())
    folder.remove()
    assert state.names() == ["other"]


def test_pods_come_back_in_natural_order_and_a_name_is_taken_once(folder: Folder) -> None:
    folder.create(record())
    for name in ("web-10", "web-2", "web-1"):
        folder.add_pod(pod(name))
    folder.add_pod(pod("web-1", "another"))
    assert [p.full_name for p in folder.pods()] == [
        "another/web-1",
        "default/web-1",
        "default/web-2",
        "default/web-10",
    ]
    with pytest.raises(LabError, match="default/web-2 exists"):
        folder.add_pod(pod("web-2"))


def test_a_dot_in_a_name_does_not_mix_pods_up(folder: Folder) -> None:
    folder.create(record())
    folder.add_pod(pod("b.c", "a"))
    folder.add_pod(pod("c", "a-b"))
    folder.remove_pod(pod("c", "a-b"))
    assert [p.full_name for p in folder.pods()] == ["a/b.c"]
