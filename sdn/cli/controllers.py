# SPDX-License-Identifier: Apache-2.0
"""`sdnctl controllers`: which controllers there are, what each owns, and handing it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import output
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.output import NONE, Format

if TYPE_CHECKING:
    from sdn.v1.inspection_pb2 import ControllerStatus

app = typer.Typer(help="The controllers: who is there, what each owns.", no_args_is_help=False)
_COLUMNS = (
    "NAME",
    "STATUS",
    "SWITCHES",
    "WANTED",
    "LEASE",
    "LAG",
    "HEARD",
    "GRPC",
    "OPENFLOW",
    "VERSION",
)
#: In a column: it was asked and did not answer; and it does not say so, or is not there to be asked.
_UNANSWERED, _UNSAID = "?", "-"


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    form: Annotated[Format, typer.Option("-o", "--output", help="How to print.")] = Format.TABLE,
) -> None:
    """Show the controllers as the one that is asked sees them.

    SWITCHES is how many each owns, WANTED how many it should. LEASE is for how many seconds it still counts on its
    lease: at 0 it writes nothing. LAG is how many revisions of the store it has not taken in yet. HEARD is how long ago
    the one that answers heard it. "?": it did not answer; "-": it does not say. Settings that all must have alike, and
    one has not, are named below.
    """
    if context.invoked_subcommand is not None:
        return
    from sdn.v1 import inspection_pb2

    with inspection() as stub:
        answer = stub.ListControllers(inspection_pb2.ListControllersRequest(), timeout=ANSWER_SECONDS)
    if form in (Format.JSON, Format.YAML):
        value = {
            "controllers": [_plain(one) for one in answer.controllers],
            "answered_by": answer.answered_by,
        }
        (output.as_json if form is Format.JSON else output.as_yaml)(value)
    elif form is Format.NAME:
        for one in answer.controllers:
            output.line(f"controller/{one.name}")
    else:
        output.table(_COLUMNS, [_row(one, answer.answered_by) for one in answer.controllers])
        for one in answer.controllers:
            for setting, text in sorted(one.differing_settings.items()):
                output.line(f"{one.name} has {setting} {text}, unlike {answer.answered_by}")


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="The controller that hands over all its switches.")],
) -> None:
    """Let a controller hand over its switches, and take none, until it is resumed or started again."""
    warning = _drain(name, True)
    output.line(f"controller/{name} draining")
    if warning:
        output.line(f"warning: {warning}")


@app.command()
def resume(name: Annotated[str, typer.Argument(help="The controller that was drained.")]) -> None:
    """Let a controller take switches again."""
    _drain(name, False)
    output.line(f"controller/{name} resumed")


def _drain(name: str, draining: bool) -> str:
    """Gives what there is to be known of it."""
    from sdn.v1 import inspection_pb2

    with inspection() as stub:
        request = inspection_pb2.DrainControllerRequest(name=name, draining=draining)
        answer = stub.DrainController(request, timeout=ANSWER_SECONDS)
    return str(answer.warning)


def _status(one: ControllerStatus) -> str:
    if not one.alive:
        return "gone"
    if one.down_by:
        return f"down (found by {one.down_by})"
    return "draining" if one.draining else "up"


def _said(one: ControllerStatus, field: str, text: str) -> str:
    """What a controller said of itself, if it did."""
    return text if one.HasField(field) else _UNANSWERED if one.unanswering else _UNSAID


def _row(one: ControllerStatus, answered_by: str) -> list[str]:
    heard = f"{one.heard_ms} ms" if one.HasField("heard_ms") else "self" if one.name == answered_by else NONE
    return [
        one.name,
        _status(one),
        str(one.switches),
        str(one.preferred),
        _said(one, "lease_left_ms", f"{one.lease_left_ms / 1000:.1f}s"),
        _said(one, "lag", str(one.lag)),
        heard,
        one.grpc_address or NONE,
        one.openflow_target or NONE,
        one.version or NONE,
    ]


def _plain(one: ControllerStatus) -> dict[str, Any]:
    from sdn.cli.switches import plain

    return {**plain(one), "switches": one.switches, "preferred": one.preferred, "status": _status(one)}
