# SPDX-License-Identifier: Apache-2.0
"""Some tests run beside others, and the run is one: its order, counts, file of results and exit code."""

import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
MEET = """
import time
from pathlib import Path

def meet(own: str, other: str) -> None:
    Path(own).touch()
    deadline = time.monotonic() + 60
    while not Path(other).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""

UNTIL_THERE = """
import time, pathlib
def test_unit():
    for name in {}:
        while not pathlib.Path(name).exists() or not pathlib.Path(name).read_text(): time.sleep(0.01)
    assert False
"""
"""A test that waits for what others write down, and fails."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a test in each of some folders."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --import-mode=importlib\npythonpath = .\nmarkers =\n    alone\n"
    )
    (tmp_path / "meeting.py").write_text(MEET)
    write(tmp_path, "unit", "def test_unit(): pass")
    # The order is that of tests/conftest.py, which has the kernel's behind others.
    (tmp_path / "tests" / "conftest.py").write_text(
        "import pytest\nORDER = ('unit', 'node', 'lab', 'kernel', 'bench')\n"
        "@pytest.hookimpl(tryfirst=True)\ndef pytest_collection_modifyitems(items):\n"
        "    items.sort(key=lambda item: ORDER.index(item.path.parent.name))\n"
    )
    write(tmp_path, "lab", "def test_lab(): pass")
    write(tmp_path, "kernel", "def test_kernel(): pass")
    return tmp_path


def write(tree: Path, folder: str, text: str) -> None:
    path = tree / "tests" / folder / f"test_{folder}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.beside", "-p", "no:cacheprovider", "-v"),
            *("--junitxml=results.xml", *arguments),
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Names of tests in the order in which they are told, each with what became of it."""
    lines = [line.split() for line in done.stdout.splitlines() if "::" in line and "%]" in line]
    return [f"{words[0].rpartition('::')[2]} {words[1]}" for words in lines]


def results(tree: Path) -> dict[str, list[str]]:
    """Of the file of results: by test, what went wrong with it."""
    cases = ElementTree.parse(tree / "results.xml").iter("testcase")
    return {case.attrib["name"]: [each.tag for each in case] for case in cases}


def test_both_run_at_the_same_time_and_are_told_as_one_run(tree: Path) -> None:
    write(tree, "unit", "from meeting import meet\ndef test_unit(): meet('unit', 'kernel')")
    write(tree, "kernel", "from meeting import meet\ndef test_kernel(): meet('kernel', 'unit')")
    done = run(tree)
    assert done.returncode == 0, done.stdout
    assert told(done) == ["test_unit PASSED", "test_kernel PASSED", "test_lab PASSED"]
    assert "3 passed" in done.stdout.splitlines()[-1]
    assert results(tree) == {"test_unit": [], "test_kernel": [], "test_lab": []}
    assert "test_kernel PASSED" in (tree / "results" / "kernel.log").read_text()


def test_what_measures_runs_when_the_others_have_ended(tree: Path) -> None:
    ending = "import time, pathlib\ndef test_kernel(): time.sleep(2); pathlib.Path('ended').touch()"
    write(tree, "kernel", ending)
    asks = "import pathlib, pytest\n{}def test_{}(): assert pathlib.Path('ended').exists()\n"
    write(tree, "bench", asks.format("", "bench"))
    write(tree, "unit", asks.format("@pytest.mark.alone\n", "alone") + "def test_unit(): pass")
    done = run(tree)
    assert done.returncode == 0, done.stdout
    names = [line.split()[0] for line in told(done)]
    assert names[:3] == ["test_unit", "test_kernel", "test_lab"]
    assert set(names[3:]) == {"test_alone", "test_bench"}


def test_labs_run_beside_both(tree: Path) -> None:
    test = (
        "import os\nfrom meeting import meet\ndef test_{}():\n"
        "    assert os.getpriority(os.PRIO_PROCESS, 0) == {}\n    meet('{}', '{}')\n    meet('{}', '{}')\n"
    )
    write(tree, "unit", test.format("unit", 0, "unit", "kernel", "unit", "lab"))
    write(tree, "kernel", test.format("kernel", 5, "kernel", "lab", "kernel", "unit"))
    write(tree, "lab", test.format("lab", 0, "lab", "unit", "lab", "kernel"))
    done = run(tree)
    assert done.returncode == 0, done.stdout
    assert told(done) == ["test_unit PASSED", "test_kernel PASSED", "test_lab PASSED"]
    assert results(tree) == {"test_unit": [], "test_kernel": [], "test_lab": []}
    for log in ("kernel.log", "lab.log"):
        assert f"1 tests run beside the first 1 (results/{log})" in done.stdout


def test_nodes_run_with_labs(tree: Path) -> None:
    for folder in ("node", "lab"):
        notes = f"pathlib.Path('{folder}').write_text(str(os.getpid()))"
        write(tree, folder, f"import os, pathlib\ndef test_{folder}(): {notes}")
    done = run(tree)
    assert told(done) == ["test_unit PASSED", "test_kernel PASSED", "test_node PASSED", "test_lab PASSED"]
    assert (tree / "node").read_text() == (tree / "lab").read_text()


def test_a_failure_beside_fails_the_run_and_is_shown(tree: Path) -> None:
    write(
        tree,
        "kernel",
        "import pytest\n"
        "@pytest.mark.parametrize('what', ['IPv4 tcp, a to b', 'good'])\n"
        "def test_kernel(what): print('seen'); assert what == 'good', 'wrong answer'",
    )
    done = run(tree)
    assert done.returncode == 1
    assert "wrong answer" in done.stdout
    assert "seen" in done.stdout
    assert "1 failed, 3 passed" in done.stdout.splitlines()[-1]
    assert results(tree)["test_kernel[IPv4 tcp, a to b]"] == ["failure"]
    assert results(tree)["test_kernel[good]"] == []


def test_when_the_process_beside_dies_the_tests_that_it_owes_are_errors(tree: Path) -> None:
    write(
        tree,
        "kernel",
        "import os\ndef test_first(): pass\ndef test_dies(): os.kill(os.getpid(), 9)\ndef test_never(): pass",
    )
    done = run(tree)
    assert done.returncode != 0
    assert "2 errors" in done.stdout.splitlines()[-1]
    assert "3 passed" in done.stdout.splitlines()[-1]
    assert results(tree)["test_never"] == ["error"]


def test_an_exit_code_that_no_test_explains_fails_the_run(tree: Path) -> None:
    (tree / "tests" / "kernel" / "conftest.py").write_text(
        f"import os\ndef pytest_sessionfinish():\n    if os.getppid() != {os.getpid()}: os._exit(5)"
    )
    done = run(tree)
    assert done.returncode != 0
    assert "exited with 5" in done.stdout


def test_a_run_that_stops_leaves_nothing_running(tree: Path) -> None:
    write(
        tree,
        "kernel",
        "import os, time, pathlib\n"
        "def test_kernel(): pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(300)",
    )
    write(tree, "unit", UNTIL_THERE.format("('pid',)"))
    began = time.monotonic()
    done = run(tree, "-x")
    assert done.returncode != 0
    assert time.monotonic() - began < 200
    assert not Path(f"/proc/{(tree / 'pid').read_text()}").exists()


def test_all_of_those_beside_are_ended_with_the_run(tree: Path) -> None:
    pid = "import os, time, pathlib\n"
    sleeps = "    pathlib.Path('{0}').write_text(str(os.getpid())); time.sleep(300)"
    write(tree, "kernel", pid + "def test_kernel():\n" + sleeps.format("kernel.pid"))
    write(tree, "lab", pid + "def test_lab():\n" + sleeps.format("lab.pid"))
    write(tree, "unit", UNTIL_THERE.format("('kernel.pid', 'lab.pid')"))
    done = run(tree, "-x")
    assert "1 failed" in done.stdout.splitlines()[-1], done.stdout
    for name in ("kernel.pid", "lab.pid"):
        assert not Path(f"/proc/{(tree / name).read_text()}").exists()


@pytest.mark.parametrize("folder", ["unit", "kernel", "lab"])
def test_a_run_of_one_folder_is_as_without_it(tree: Path, folder: str) -> None:
    done = run(tree, f"tests/{folder}")
    assert done.returncode == 0, done.stdout
    assert told(done) == [f"test_{folder} PASSED"]
    assert not (tree / "results").exists()


def test_what_is_not_chosen_does_not_run_beside_either(tree: Path) -> None:
    write(tree, "kernel", "def test_chosen(): pass\ndef test_other(): assert False")
    done = run(tree, "-k", "test_unit or test_chosen")
    assert done.returncode == 0, done.stdout
    assert told(done) == ["test_unit PASSED", "test_chosen PASSED"]
