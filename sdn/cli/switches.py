# SPDX-License-Identifier: Apache-2.0
"""`sdnctl get switches` and `sdnctl flows`: what is in the switches."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sdn.cli import output
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.completion import complete_node
from sdn.cli.errors import CommandError, UsageError
from sdn.cli.output import NONE, DataFormat, Format

_POLL_SECONDS = 1.0
_COLUMNS = ("NODE", "CONNECTED", "SYNCHRONIZED", "FLOWS", "ADDRESS")
_WIDE = ("DATAPATH ID", "GROUPS", "REPAIRED", "SINCE", "LAST ERROR")


def show(name: str, form: Format, watch: bool) -> None:
    """The switches, or the one of a node."""
    found = _fetch(name)
    _print(found, form, single=bool(name))
    if not watch:
        return
    while True:
        time.sleep(_POLL_SECONDS)
        before, found = found, _fetch(name)
        # Only those that changed, as for objects.
        changed = [item for item in found if item not in before]
        if changed:
            _print(changed, form, single=bool(name), header=False)


def _fetch(name: str) -> list[dict[str, Any]]:
    from google.protobuf import json_format

    from sdn.v1 import inspection_pb2

    with inspection() as stub:
        answer = stub.ListSwitches(inspection_pb2.ListSwitchesRequest(), timeout=ANSWER_SECONDS)
    found = []
    for switch in answer.switches:
        if name in ("", switch.node):
            document = json_format.MessageToDict(
                switch, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            # As ovs-ofctl and os-ken write it; the JSON form of protobuf is a decimal text.
            document["datapath_id"] = f"{switch.datapath_id:016x}"
            for count in (
                *("desired_flows", "installed_flows", "desired_groups"),
                *("installed_groups", "repaired"),
            ):
                document[count] = int(document[count])
            found.append(document)
    if name and not found:
        raise CommandError(f"there is no switch of a node {name!r}")
    return sorted(found, key=lambda item: str(item["node"]))


def _print(found: list[dict[str, Any]], form: Format, single: bool, header: bool = True) -> None:
    if form in (Format.JSON, Format.YAML):
        value: Any = found[0] if single and found else {"switches": found}
        (output.as_json if form is Format.JSON else output.as_yaml)(value)
        return
    if form is Format.NAME:
        for item in found:
            output.line(f"switch/{item['node']}")
        return
    wide = form is Format.WIDE
    rows = []
    for item in found:
        row = [
            item["node"],
            "yes" if item["connected"] else "no",
            "yes" if item["synchronized"] else "no",
            f"{item['installed_flows']}/{item['desired_flows']}",
            item["address"] or NONE,
        ]
        if wide:
            row += [
                item["datapath_id"],
                f"{item['installed_groups']}/{item['desired_groups']}",
                str(item["repaired"]),
                item.get("connected_since") or NONE,
                item["last_error"] or NONE,
            ]
        rows.append(row)
    if rows:
        output.table([*_COLUMNS, *(_WIDE if wide else ())], rows, header=header)
    else:
        output.progress("no switches")


def flows(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="Name of the node.", autocompletion=complete_node)
    ],
    table: Annotated[str, typer.Option("--table", metavar="NAME", help="Only this table.")] = "",
    owner: Annotated[
        str,
        typer.Option(
            "--owner", metavar="OWNER", help="Only flows of this object, such as Pod/default/web-1."
        ),
    ] = "",
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show the flows that a node's switch holds now: table by table, with the owner and the reason of each."""
    if owner and "/" not in owner:
        raise UsageError(f"--owner {owner!r} is not Kind/namespace/name or Kind/name")
    found = fetch_flows(node, table, owner)
    if form in (DataFormat.JSON, DataFormat.YAML):
        value = {"node": node, "flows": found}
        (output.as_json if form is DataFormat.JSON else output.as_yaml)(value)
    elif found:
        print_flows(found)
    else:
        output.progress(f"no such flows on {node}")


def fetch_flows(node: str, table: str = "", owner: str = "") -> list[dict[str, Any]]:
    """Flows in the order in which packets meet them: by table, then by priority."""
    from google.protobuf import json_format

    from sdn.v1 import inspection_pb2

    found = []
    request = inspection_pb2.ListFlowsRequest(node=node, table=table, owner=owner)
    with inspection() as stub:
        for part in stub.ListFlows(request, timeout=ANSWER_SECONDS):
            for flow in part.flows:
                document = json_format.MessageToDict(
                    flow, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
                document["cookie"] = f"0x{flow.cookie:x}"
                document["packets"] = flow.packets
                document["bytes"] = flow.bytes
                found.append(document)
    return sorted(found, key=lambda flow: (flow["table_number"], -flow["priority"], flow["match"]))


def print_flows(found: list[dict[str, Any]]) -> None:
    """On a terminal, blocks under the names of the tables; into a pipe, one line a flow."""
    if not output.on_terminal():
        output.table(
            ("TABLE", "PRIORITY", "PACKETS", "MATCH", "ACTIONS", "OWNER", "WHY"),
            [
                [
                    flow["table"] or str(flow["table_number"]),
                    str(flow["priority"]),
                    str(flow["packets"]),
                    flow["match"] or "any",
                    flow["actions"] or "drop",
                    flow["owner"] or "nobody",
                    flow["why"] or NONE,
                ]
                for flow in found
            ],
        )
        return
    last = None
    for flow in found:
        here = f"table {flow['table_number']}: {flow['table'] or '?'}"
        if here != last:
            output.heading(here)
            last = here
        output.flow_block(
            f"priority {flow['priority']}, {flow['packets']} packets",
            flow["owner"] or "nobody",
            flow["why"],
            flow["match"] or "any",
            flow["actions"] or "drop",
        )
