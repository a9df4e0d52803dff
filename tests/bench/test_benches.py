# SPDX-License-Identifier: Apache-2.0
"""Every benchmark that is listed runs: nobody finds out on the day of a release that one has rotted."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHMARKS, main


def test_every_benchmark_is_listed_and_every_listed_one_is_there() -> None:
    there = {
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if not path.stem.startswith("test_") and "frame.main(run, __doc__)" in path.read_text()
    }
    assert there == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_quick_run_prints_its_figures(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "bench.jsonl"
    assert main([name, "--quick", "--results", str(results)]) == 0
    assert f"{name}: " in capsys.readouterr().out
    assert len(results.read_text().splitlines()) == 1


def test_an_unknown_name_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["flows"])
    assert refused.value.code == 2
    assert "no such benchmark: flows" in capsys.readouterr().err


def test_every_benchmark_says_what_it_measures() -> None:
    for name in BENCHMARKS:
        assert importlib.import_module(f"tests.bench.{name}").__doc__
