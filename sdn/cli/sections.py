# SPDX-License-Identifier: Apache-2.0
"""Sections that every description of an object has: properties, tables under a title, flows, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdn.cli import output, services
from sdn.cli.output import NONE


def properties(lines: Sequence[tuple[str, str]]) -> None:
    """One a line, the values under each other."""
    width = max(len(title) for title, _value in lines)
    for title, value in lines:
        output.line(f"{title}:{' ' * (width - len(title))}  {value}")


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None
) -> None:
    """A table under a title. ``total``: how many there are, where not all have a row."""
    output.heading(title)
    if rows:
        output.table(columns, rows)
    else:
        output.line("none")
    if total is not None and total > len(rows):
        output.line(f"and {total - len(rows)} more")


def traffic(flows: Sequence[dict[str, Any]]) -> str:
    """4 flows (10 packets, 980 bytes)."""
    packets, size = sum(flow["packets"] for flow in flows), sum(flow["bytes"] for flow in flows)
    return f"{len(flows)} flows ({packets} packets, {size} bytes)"


def flow_table(flows: Sequence[dict[str, Any]]) -> None:
    """Flows of one object on one node."""
    output.table(
        ("TABLE", "PRIORITY", "PACKETS", "BYTES", "MATCH", "ACTIONS", "WHY"),
        [
            [
                flow["table"] or str(flow["table_number"]),
                str(flow["priority"]),
                str(flow["packets"]),
                str(flow["bytes"]),
                flow["match"] or "any",
                flow["actions"] or "drop",
                flow["why"] or NONE,
            ]
            for flow in flows
        ],
    )


def events(found: Sequence[dict[str, Any]]) -> None:
    """What happened to the object."""
    table("Events", ("LAST SEEN", "TYPE", "REASON", "COUNT", "MESSAGE"), services.event_rows(found))
