# SPDX-License-Identifier: Apache-2.0
"""Other builds than the one under test, as source trees: the former one, and one with a changed pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdn", "agent", "controller")
#: Any commit can be named in this variable, to be the former build.
FORMER = "SDN_TEST_FORMER"


def former(folder: Path) -> tuple[Path, str]:
    """The last release, or the commit before, and what it is called. Where the history does not reach so far (a shallow
    clone, a tree without Git) it is today's code under another version: then only what the parts say of themselves is
    another.
    """
    for revision in (os.environ.get(FORMER, ""), _last_tag(), "HEAD~1"):
        if revision and _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"):
            tree = folder / "former"
            tree.mkdir()
            archive = subprocess.run(
                ["git", "-C", str(ROOT), "archive", revision, *PACKAGES], capture_output=True, check=True
            )
            subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
            return tree, f"{revision} ({_git('rev-parse', '--short', revision)})"
        if revision == os.environ.get(FORMER):
            raise ValueError(f"{FORMER}: there is no commit {revision!r}")
    tree = _copy(folder / "former")
    _replace(tree / "sdn" / "version.py", 'VERSION: Final = "', 'VERSION: Final = "0.0.0+')
    return tree, "today's code as version 0.0.0: there is no history here"


def changed_pipeline(folder: Path) -> tuple[Path, int]:
    """Today's code with one table more, in the middle, so that most flows of a switch are others; and the version of
    its pipeline.
    """
    tree = _copy(folder / "changed")
    tables = tree / "sdn" / "pipeline" / "tables.py"
    declared = """    Declaration(
        "spare",
        "policy",
        Feature.POLICY,
        "nothing",
        "egress_admin",
        "Everything goes on.",
    ),
"""
    _replace(
        tables,
        '    Declaration(\n        "egress_admin",',
        declared + '    Declaration(\n        "egress_admin",',
    )
    _replace(tables, '"load_balancing",\n        "services",', '"load_balancing",\n        "services",')
    _replace(tables, "    EGRESS_ADMIN,\n", "    SPARE,\n    EGRESS_ADMIN,\n")
    text = tables.read_text(encoding="utf-8")
    # What load balancing does not know passes the new table.
    head, found, rest = text.partition('        "load_balancing",\n        "services",')
    assert found
    tables.write_text(head + found + rest.replace('"egress_admin",', '"spare",', 1), encoding="utf-8")
    version = tree / "sdn" / "pipeline" / "version.py"
    before = next(
        line
        for line in version.read_text(encoding="utf-8").splitlines()
        if line.startswith("PIPELINE_VERSION")
    )
    number = int(before.partition("=")[2]) + 1
    _replace(version, before, f"PIPELINE_VERSION = {number}")
    return tree, number


def _copy(tree: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise AssertionError(f"{path.name} does not say {old!r} any more")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _last_tag() -> str:
    return _git("describe", "--tags", "--abbrev=0", "HEAD~1")


def _git(*arguments: str) -> str:
    """What Git answers; nothing where it refuses, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
