# SPDX-License-Identifier: Apache-2.0
"""`sdnctl policy`: what policies say, and have said, of connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import output, policy_check
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.completion import complete_namespace, complete_node
from sdn.cli.errors import CommandError
from sdn.cli.output import NONE, DataFormat

if TYPE_CHECKING:
    from sdn.v1.types_pb2 import VerdictRecord

app = typer.Typer(
    help="Policies: what they say, and have said, of connections.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: Titles of the columns, and how wide they are at least: nobody knows the rows that are still to come.
_COLUMNS = (
    ("TIME", 27),
    ("NODE", 10),
    ("ACTION", 12),
    ("DIRECTION", 9),
    ("POLICY", 36),
    ("RULE", 12),
    ("PROTOCOL", 8),
    ("SOURCE", 36),
    ("DESTINATION", 36),
    ("SUPPRESSED", 0),
)


app.command("check")(policy_check.check)


@app.command("log")
def log(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay, and print what comes.")] = False,
    node: Annotated[
        str,
        typer.Option("--node", metavar="NODE", help="Only of this node.", autocompletion=complete_node),
    ] = "",
    namespace: Annotated[
        str,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NAMESPACE",
            help="Only of policies in this namespace, and of the cluster's policies about pods in it.",
            autocompletion=complete_namespace,
        ),
    ] = "",
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="POLICY", help="Only of policies of this name; Kind/namespace/name, too."
        ),
    ] = "",
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show what policies that log said of connections: the last few verdicts, the oldest first.

    SUPPRESSED counts verdicts before the one shown, on the same node, that were too many to be recorded.
    """
    from sdn.v1 import inspection_pb2

    request = inspection_pb2.WatchVerdictsRequest(
        node=node, namespace=namespace, policy=policy, follow=follow
    )
    with inspection() as stub:
        records = stub.WatchVerdicts(request, timeout=None if follow else ANSWER_SECONDS)
        if not _print(records, form) and not follow:
            output.progress("no verdicts")
    if follow:
        raise CommandError("the controller ended the log")


def _print(records: Iterable[VerdictRecord], form: DataFormat) -> bool:
    """Print each as it comes; whether there was any."""
    from sdn.verdicts import document

    any_came = False
    for record in records:
        verdict = document(record)
        if form is DataFormat.JSON:
            output.as_json_line(verdict)
        elif form is DataFormat.YAML:
            output.line("---")
            output.as_yaml(verdict)
        else:
            if not any_came:
                _print_row([title for title, _ in _COLUMNS])
            _print_row(_row(verdict))
        any_came = True
    return any_came


def _row(verdict: dict[str, Any]) -> list[str]:
    return [
        verdict["time"],
        verdict["node"],
        f"would {verdict['action']}" if verdict["staged"] else verdict["action"],
        verdict["direction"],
        verdict["policy"],
        verdict["rule"] or NONE,
        verdict["protocol"],
        _end(verdict["source"], verdict["sourcePort"], verdict["sourcePod"]),
        _end(verdict["destination"], verdict["destinationPort"], verdict["destinationPod"]),
        str(verdict["suppressed"]) if verdict["suppressed"] else "",
    ]


def _end(address: str, port: int, pod: str) -> str:
    """shop/web(10.244.1.5:8080)."""
    if port:
        address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{pod}({address})" if pod else address


def _print_row(cells: list[str]) -> None:
    """One row, and out at once."""
    padded = [cell.ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)]
    print("   ".join(padded).rstrip(), flush=True)
