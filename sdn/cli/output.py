# SPDX-License-Identifier: Apache-2.0
"""Printing: columns for people, JSON and YAML for programs.

On a terminal columns are coloured and cut to its width; into a pipe they are whole and plain, so that grep finds
everything on its line.
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: What a missing value looks like in a column.
NONE = "<none>"


class Format(enum.StrEnum):
    """Values of `-o` for objects."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class DataFormat(enum.StrEnum):
    """Values of `-o` for what is no object."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def line(text: str) -> None:
    print(text)


def progress(text: str) -> None:
    """A line about what is being done; never part of the answer, so on stderr."""
    print(text, file=sys.stderr, flush=True)


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def as_json_line(value: Any) -> None:
    """One document on one line, and out at once: for streams."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def as_yaml(value: Any) -> None:
    import yaml

    print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False), end="")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, header: bool = True, gap: int = 2
) -> None:
    """Columns under their names, as wide as they must be, `gap` spaces apart on a terminal."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, show_header=header, header_style="bold", padding=(0, gap, 0, 0))
    for name in columns:
        shown.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in rows:
        shown.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    if on_terminal():
        _console().print(shown)
        return
    # Not through rich: it pads lines to the full width and may cut cells, which no script wants.
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row in ([columns] if header else []) + list(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("   ".join(cells).rstrip())


def on_terminal() -> bool:
    """Whether a person looks on."""
    return sys.stdout.isatty()


def flow_block(first: str, owner: str, why: str, match: str, actions: str) -> None:
    """One flow on three lines, for eyes."""
    from rich.text import Text

    _block_head(first, owner, why)
    _console().print(Text(f"      {match}"), soft_wrap=True)
    _console().print(Text(f"      → {actions}", style="green"), soft_wrap=True)


def group_block(first: str, owner: str, why: str, buckets: Sequence[str]) -> None:
    """One group, its buckets on a line each, for eyes."""
    from rich.text import Text

    _block_head(first, owner, why)
    for bucket in buckets:
        _console().print(Text(f"      → {bucket}", style="green"), soft_wrap=True)


def _block_head(first: str, owner: str, why: str) -> None:
    from rich.text import Text

    head = Text.assemble(
        "  ", (first, "dim"), "  ", (owner, "cyan"), ("" if not why else f"  {why}", "italic")
    )
    _console().print(head, soft_wrap=True)


def heading(text: str) -> None:
    """A title between parts of a longer answer."""
    print()
    _console().print(text, style="bold", highlight=False, soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def _style(cell: str) -> str:
    good = ("True", "yes", "Ready", "Running", "RUNNING", "running", "all")
    bad = ("False", "no", "NotReady", "FATAL", "BACKOFF", "EXITED", "broken")
    return "green" if cell in good else "red" if cell in bad else ""


def joined(values: Sequence[str] | None) -> str:
    return ",".join(values) if values else NONE


def labels(values: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or NONE


def age(seconds: float) -> str:
    """A span as kubectl writes it: 45s, 12m, 5h, 3d."""
    whole = int(max(0, seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def stream_row(columns: Sequence[str], row: Sequence[str], *, header: bool) -> None:
    """One row of a table that goes on, whose later cells nobody knows: widths are fixed."""
    widths = [max(len(title), 10 if title in ("EVENT", "STATUS", "AGE") else 24) for title in columns]
    for cells in ([columns] if header else []) + [row]:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        print("   ".join(padded).rstrip(), flush=True)
