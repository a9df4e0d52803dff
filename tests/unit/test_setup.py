# SPDX-License-Identifier: Apache-2.0
"""Set-up is quick when nothing is to be done, and says what to do when something is missing."""

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with nothing but what set-up reads, which everybody may enter and write."""
    tree = tmp_path / "tree"
    (tree / "deploy").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", tree / "scripts")
    (tree / "deploy" / "debian-packages.txt").write_text("# nothing\nbash\n")
    (tree / "requirements.lock").write_text("")
    (tree / "pyproject.toml").write_text("")
    for path in (tree, *tmp_path.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | stat.S_IXOTH)
    tmp_path.chmod(0o755)
    tree.chmod(0o777)
    return tree


def run(
    *command: str | Path, environ: Mapping[str, str] | None = None, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run as `user`, with stdout and stderr in one text."""
    return subprocess.run(
        command,
        env={**os.environ, **(environ or {})},
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def program(folder: Path, name: str, body: str) -> Path:
    """An executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_repeat_does_nothing_and_says_nothing() -> None:
    run(ROOT / "scripts" / "setup")
    done = run(ROOT / "scripts" / "setup")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.root
def test_what_needs_root_says_so_and_how(tree: Path) -> None:
    done = run(tree / "scripts" / "need-root", "make lab", user=NOBODY)
    assert done.returncode == 1
    assert "sudo make lab" in done.stdout
    assert run(tree / "scripts" / "need-root", "make lab").returncode == 0


@pytest.mark.root
def test_missing_packages_are_named_to_who_is_not_root(tree: Path) -> None:
    (tree / "deploy" / "debian-packages.txt").write_text("bash\nno-such-package  # said why\n")
    done = run(tree / "scripts" / "setup", user=NOBODY)
    assert done.returncode == 1
    assert "missing: no-such-package\n" in done.stdout
    assert "sudo make setup" in done.stdout


@pytest.mark.root
def test_an_unreachable_package_registry_is_told(tree: Path, tmp_path: Path) -> None:
    (tree / "deploy" / "debian-packages.txt").write_text("no-such-package\n")
    program(tmp_path / "bin", "apt-get", 'echo "Could not connect"; exit 100')
    done = run(tree / "scripts" / "setup", environ={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert "no package registry is reached" in done.stdout


@pytest.mark.root
def test_packages_are_installed_without_starting_their_services(tree: Path, tmp_path: Path) -> None:
    policy = Path("/usr/sbin/policy-rc.d")
    before = policy.read_bytes() if policy.exists() else None
    (tree / "deploy" / "debian-packages.txt").write_text("no-such-package\n")
    body = f'echo "apt-get $*"; {policy} x start; echo "start: $?"; [[ $* != *install* ]]'
    program(tmp_path / "bin", "apt-get", body)
    done = run(tree / "scripts" / "setup", environ={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert "--no-install-recommends no-such-package" in done.stdout
    assert "apt-get's own words are above" in done.stdout
    assert (policy.read_bytes() if policy.exists() else None) == before
    if before is None:
        assert "start: 101" in done.stdout


def test_an_unreachable_python_registry_is_told(tree: Path) -> None:
    (tree / "requirements.lock").write_text("sdn-no-such-distribution==1\n")
    unreachable = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
    done = run(tree / "scripts" / "setup", environ=unreachable)
    assert done.returncode == 1
    assert "Python packages cannot be installed" in done.stdout
    assert "sdn-no-such-distribution" in done.stdout
    assert not (tree / ".venv" / ".installed").exists()
