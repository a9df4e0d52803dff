# SPDX-License-Identifier: Apache-2.0
"""What all benchmarks share: rounds that alternate ours and the peer's, arithmetic, table, results file.

A figure alone says little on a machine that is shared or small, so every benchmark measures a peer's in the
same minutes and prints both with their ratio. Ours and the peer's rounds alternate, and who goes first
alternates too, so that a machine that grows slower during the run slows both alike. Quantiles are
interpolated between the two nearest samples, as `statistics.quantiles(method="inclusive")` does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from tests.bench import process

RESULTS: Final = Path(__file__).resolve().parents[2] / "results" / "bench.jsonl"

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Figure:
    """One thing measured, ours beside the peer's. Without a peer (`peer` empty) there is no comparison."""

    name: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    better: Literal["lower", "higher"] = "lower"
    aim: float | None = None
    """What the ratio should be at most (where lower is better) or at least (where higher is)."""

    def ratio(self, quantile: float = 0.5) -> float | None:
        """Ours divided by the peer's, at a quantile; None without a peer or where the peer's is zero."""
        if not self.ours or not self.peer:
            return None
        peer = percentile(self.peer, quantile)
        return percentile(self.ours, quantile) / peer if peer else None

    def met(self) -> bool | None:
        """Whether the median's ratio is at the aim or better; None where there is nothing to say."""
        ratio = self.ratio()
        if ratio is None or self.aim is None:
            return None
        return ratio <= self.aim if self.better == "lower" else ratio >= self.aim


@dataclass(frozen=True)
class Report:
    """What one benchmark found: figures, and lines of text that say where the time goes or what was seen."""

    name: str
    ours: str
    """What "ours" is, for the table's head."""
    peer: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = field(default=())


def percentile(values: Sequence[float], quantile: float) -> float:
    """The value below which the given share (0 to 1) of the values lies. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(f"a quantile is between 0 and 1, not {quantile}")
    ordered = sorted(values)
    position = (len(ordered) - 1) * quantile
    below, above = math.floor(position), math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def interleave(
    ours: Callable[[int], T], peer: Callable[[int], U], rounds: int
) -> tuple[tuple[T, ...], tuple[U, ...]]:
    """Calls both once a round with the round's number, taking turns in going first; what each gave."""
    mine: list[T] = []
    theirs: list[U] = []
    for number in range(rounds):
        if number % 2 == 0:
            mine.append(ours(number))
            theirs.append(peer(number))
        else:
            theirs.append(peer(number))
            mine.append(ours(number))
    return tuple(mine), tuple(theirs)


def summary(values: Sequence[float]) -> dict[str, float]:
    """The figures kept of a series; empty for an empty one."""
    if not values:
        return {}
    return {
        "count": len(values),
        "min": min(values),
        "p50": percentile(values, 0.5),
        "p90": percentile(values, 0.9),
        "p99": percentile(values, 0.99),
        "max": max(values),
    }


def table(report: Report) -> str:
    """The report as text: a line a figure, both medians and tails, the medians' ratio, the notes below."""
    head = ("figure", "unit", "ours p50", "tail", "peer p50", "tail", "ratio", "aim", "")
    rows = [_row(figure) for figure in report.figures]
    # Columns that no figure fills, as the peer's where there is none, are left out.
    filled = [column for column in range(len(head)) if any(row[column] for row in rows)]
    rows = [tuple(row[column] for column in filled) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{report.name}: {report.ours} / {report.peer}" if report.peer else f"{report.name}: {report.ours}"
    ]
    for row in rows:
        cells = (
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(("  " + "  ".join(cells)).rstrip())
    lines.extend(f"  {note}" for note in report.notes)
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    ratio, met = figure.ratio(), figure.met()
    aim = ""
    if figure.aim is not None:
        aim = f"{'≤' if figure.better == 'lower' else '≥'} {figure.aim:g}"
    return (
        figure.name,
        figure.unit,
        *_quantiles(figure.ours, figure.better),
        *_quantiles(figure.peer, figure.better),
        "" if ratio is None else f"{ratio:.2f}",
        aim,
        {True: "met", False: "MISSED", None: ""}[met],
    )


def _quantiles(values: Sequence[float], better: str) -> tuple[str, str]:
    """Median and the bad end's percentile: the slowest hundredth of times, the lowest hundredth of rates."""
    if not values:
        return "", ""
    tail = percentile(values, 0.99 if better == "lower" else 0.01)
    return _number(percentile(values, 0.5)), _number(tail) if len(values) > 1 else ""


def _number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}"


def machine() -> dict[str, Any]:
    """What a reader must know of the machine to read the figures."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    version = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=False)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "ovs": version.stdout.splitlines()[0].rpartition(" ")[2] if version.returncode == 0 else "",
        "python": platform.python_version(),
    }


def record(report: Report, *, quick: bool, path: Path = RESULTS) -> None:
    """Appends the report to the results file, one JSON object a line; makes the folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "benchmark": report.name,
        "quick": quick,
        "machine": machine(),
        "ours": report.ours,
        "peer": report.peer,
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "better": figure.better,
                "ours": summary(figure.ours),
                "peer": summary(figure.peer),
                "ratio": figure.ratio(),
                "aim": figure.aim,
                "met": figure.met(),
            }
            for figure in report.figures
        ],
        "notes": list(report.notes),
    }
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def main(run: Callable[[bool], Report], description: str | None, argv: Sequence[str] | None = None) -> int:
    """The command line of one benchmark: runs it, prints its table, appends to the results file.

    Missing an aim is not an error: benchmarks inform, tests decide.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it runs, not how fast")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file to append to (default %(default)s)"
    )
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("benchmarks make network namespaces and switches: run them as root", file=sys.stderr)
        return 2
    with nullcontext() if options.quick else process.before_others():
        report = run(options.quick)
    print(table(report), flush=True)
    record(report, quick=options.quick, path=options.results)
    return 0
