# SPDX-License-Identifier: Apache-2.0
"""Every command in README.md and docs/ works: each fenced `sh` block is run, as it stands, beside a running lab.

The lab is the one that `make lab` brings up, run for real under a name of its own, so that a lab which the
developer has running is let alone. Two kinds of commands cannot be run from within the tests: `make test`, which is
what is running now, and targets that only select tests of this same run (ELSEWHERE). `make -n` shows that these exist
and do what is said.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, Block, blocks, commands, documents, inline_code

LAB = "sdn-docs"
SHELL = "sh"
ELSEWHERE = {
    "make test": "scripts/run-tests",
    "make test-kernel": "pytest -v tests/kernel",
    "make bench": "python -m tests.bench",
    "make lint": "scripts/lint",
    "make proto": "scripts/generate-proto",
}
"""Make targets that are not run here, and what `make -n` must print for them."""

BLOCKS = [block for document in documents() for block in blocks(document) if block.language == SHELL]
RUNNABLE = [
    block
    for block in BLOCKS
    if not set(commands(block.text)) <= {"make lab", "make lab-down", "make setup", *ELSEWHERE}
]


def environment() -> dict[str, str]:
    """A shell as the reader has it: the programs of .venv first in PATH, and the name of the lab to speak to."""
    return {**os.environ, "SDN_LAB_NAME": LAB, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """What `make lab` prints; its lab is running. Taken down afterwards, also when a test failed."""
    run("make lab-down")
    done = run("make lab")
    try:
        assert done.returncode == 0, done.stdout
        yield done.stdout
    finally:
        run("make lab-down")


@pytest.mark.root
@pytest.mark.lab
def test_make_lab_shows_that_pods_reach_each_other_and_how_to_go_on(lab: str) -> None:
    for word in ("node-1", "node-2", "node-3", "10.244.", "fd00:10:244:", "sdnctl"):
        assert word in lab


@pytest.mark.root
@pytest.mark.lab
def test_make_lab_is_safe_to_repeat(lab: str) -> None:
    done = run("make lab")
    assert done.returncode == 0, done.stdout


@pytest.mark.root
@pytest.mark.lab
@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.id)
def test_a_block_of_commands_works_as_it_stands(lab: str, block: Block) -> None:
    done = run(block.text)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}"


@pytest.mark.root
@pytest.mark.lab
def test_make_lab_down_leaves_nothing_behind(lab: str) -> None:
    done = run("make lab-down")
    assert done.returncode == 0, done.stdout
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert [line for line in left.splitlines() if line.startswith(f"{LAB}-")] == []
    assert not (Path("/run/sdn-lab") / LAB).exists()


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_target_that_is_not_run_here_exists_and_does_what_is_said(target: str) -> None:
    done = run(target.replace("make", "make -n", 1))
    assert done.returncode == 0, done.stdout
    assert ELSEWHERE[target] in done.stdout


def test_continuous_integration_runs_what_a_newcomer_runs() -> None:
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("exec make test")


def test_readme_has_both_commands_of_a_newcomer() -> None:
    readme = [
        command for block in BLOCKS if block.document.name == "README.md" for command in commands(block.text)
    ]
    assert readme[0] == "make lab"
    assert "make test" in readme


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_commands_stand_in_blocks_that_are_run(document: Path) -> None:
    for block in blocks(document):
        assert block.language in {SHELL, "text", "toml", "json", "yaml", "python", "proto"}, block.id
        if block.language == "text":
            assert not block.text.startswith("$ "), (
                f"{block.id}: a command belongs into a block of language sh"
            )
    run_here = {command for block in BLOCKS for command in commands(block.text)} | {"make setup", *ELSEWHERE}
    for code in inline_code(document):
        if code.startswith(("sdnctl ", "make ")):
            assert any(command.startswith(code) for command in run_here), (
                f"{document.name}: `{code}` is not run"
            )
