# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' frame counts right: a wrong quantile or ratio would be believed for years."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import frame
from tests.bench.frame import Figure, Report

TIMES = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=2, max_size=200)


@given(TIMES)
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for percent in (1, 50, 90, 99):
        assert frame.percentile(values, percent / 100) == pytest.approx(cuts[percent - 1])


def test_percentiles_of_one_value_are_that_value_and_of_none_an_error() -> None:
    assert frame.percentile([7.0], 0.99) == 7.0
    assert (frame.percentile([1.0, 3.0], 0.0), frame.percentile([1.0, 3.0], 1.0)) == (1.0, 3.0)
    with pytest.raises(ValueError, match="no values"):
        frame.percentile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        frame.percentile([1.0], 50)


def test_rounds_alternate_and_so_does_who_goes_first() -> None:
    calls: list[str] = []

    def measure(who: str) -> float:
        calls.append(who)
        return float(len(calls))

    ours, peer = frame.interleave(lambda _: measure("ours"), lambda _: measure("peer"), 4)
    assert calls == ["ours", "peer", "peer", "ours", "ours", "peer", "peer", "ours"]
    assert ours == (1.0, 4.0, 5.0, 8.0)
    assert peer == (2.0, 3.0, 6.0, 7.0)


def test_the_ratio_is_ours_divided_by_the_peers_median() -> None:
    figure = Figure("ADD", "ms", ours=(10.0, 20.0, 90.0), peer=(40.0, 50.0, 10.0))
    assert figure.ratio() == pytest.approx(0.5)
    assert figure.ratio(1.0) == pytest.approx(90 / 50)
    assert Figure("ADD", "ms", ours=(1.0,)).ratio() is None
    assert Figure("ADD", "ms", ours=(1.0,), peer=(0.0,)).ratio() is None


@pytest.mark.parametrize(
    ("better", "ours", "met"),
    [("lower", 10.0, True), ("lower", 10.1, False), ("higher", 10.0, True), ("higher", 9.9, False)],
)
def test_an_aim_is_met_at_its_value_or_better(better: str, ours: float, met: bool) -> None:
    figure = Figure(
        "x", "s", ours=(ours,), peer=(10.0,), aim=1.0, better="lower" if better == "lower" else "higher"
    )
    assert figure.met() is met


def test_the_table_shows_both_medians_the_bad_tail_and_the_ratio() -> None:
    times = Figure("ADD", "ms", ours=(1.0, 2.0, 3.0), peer=(4.0, 4.0, 4.0), aim=1.0)
    rates = Figure("TCP", "Mbit/s", ours=(1000.0, 900.0), peer=(1000.0, 1000.0), better="higher", aim=0.96)
    lone = Figure("memory", "MB", ours=(123.4,))
    text = frame.table(Report("demo", "sdn-cni", "bridge", (times, rates, lone), notes=("so it is",)))
    lines = text.splitlines()
    assert lines[0] == "demo: sdn-cni / bridge"
    assert lines[2].split() == ["ADD", "ms", "2.00", "2.98", "4.00", "4.00", "0.50", "≤", "1", "met"]
    assert lines[3].split() == ["TCP", "Mbit/s", "950", "901", "1000", "1000", "0.95", "≥", "0.96", "MISSED"]
    assert lines[4].split() == ["memory", "MB", "123"]
    assert lines[5] == "  so it is"


def test_the_table_of_a_report_without_a_peer_has_no_column_for_it() -> None:
    lines = frame.table(
        Report("memory", "sdn-controller", "", (Figure("empty", "MB", ours=(64.0,)),))
    ).splitlines()
    assert lines[0] == "memory: sdn-controller"
    assert [line.split() for line in lines[1:]] == [
        ["figure", "unit", "ours", "p50"],
        ["empty", "MB", "64.0"],
    ]


def test_results_are_appended_as_one_json_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.jsonl"
    report = Report("demo", "a", "b", (Figure("ADD", "ms", ours=(1.0, 3.0), peer=(4.0,)),))
    frame.record(report, quick=True, path=path)
    frame.record(report, quick=False, path=path)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["quick"], second["quick"]) == (True, False)
    assert first["figures"][0]["ours"]["p50"] == 2.0
    assert first["figures"][0]["ratio"] == 0.5
    assert first["machine"]["cores"] >= 1
