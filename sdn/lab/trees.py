# SPDX-License-Identifier: Apache-2.0
"""Processes of a lab that run from another source tree than the lab's own: an older build, or a newer one.

Which one that is can be changed while they run; at its next start a process runs from the new one, as after a package
was upgraded. Trees differ in our own code alone: the libraries are those of the environment that the lab runs in.
"""

from __future__ import annotations

from pathlib import Path

from sdn.lab.state import Folder

#: Stands for the CNI plugin, which is no process: it is executed for each request.
PLUGIN = "cni"


def environment(folder: Folder, process: str) -> dict[str, str]:
    """What a process is started with that has a tree of its own."""
    # Whatever folder the lab was started in, which may be a tree itself, comes not before it.
    return {"PYTHONPATH": str(_link(folder, process)), "PYTHONSAFEPATH": "1"}


def set_tree(folder: Folder, process: str, tree: Path | str) -> None:
    """The process runs from `tree`, a checkout's top folder, when it is started next."""
    new = folder / f"tree-new-{process.replace('/', '-')}"
    new.unlink(missing_ok=True)
    new.symlink_to(Path(tree).resolve(strict=True), target_is_directory=True)
    new.replace(_link(folder, process))


def plugin(folder: Folder) -> Path:
    """The CNI plugin of the tree that it was given."""
    return _link(folder, PLUGIN) / "agent" / "cni" / "sdn-cni"


def _link(folder: Folder, process: str) -> Path:
    return folder / f"tree-{process.replace('/', '-')}"
