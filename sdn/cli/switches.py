# SPDX-License-Identifier: Apache-2.0
"""`sdnctl get switches`, `sdnctl flows` and `sdnctl groups`: what is in the switches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import output
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.completion import complete_node
from sdn.cli.errors import CommandError, UsageError
from sdn.cli.output import NONE, DataFormat, Format

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdn.v1.inspection_pb2 import FlowEntry, GroupEntry

_POLL_SECONDS = 1.0
_COLUMNS = ("NODE", "CONNECTED", "SYNCHRONIZED", "FLOWS", "ADDRESS")
_WIDE = ("DATAPATH ID", "GROUPS", "REPAIRED", "LAST REPAIR", "PIPELINE", "SINCE", "LAST ERROR")


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
    from sdn.v1 import inspection_pb2

    with inspection() as stub:
        answer = stub.ListSwitches(inspection_pb2.ListSwitchesRequest(), timeout=ANSWER_SECONDS)
    found = []
    for switch in answer.switches:
        if name in ("", switch.node):
            document = plain(switch)
            # As ovs-ofctl and os-ken write it; the JSON form of protobuf is a decimal text.
            document["datapath_id"] = f"{switch.datapath_id:016x}"
            for count in (
                *("desired_flows", "installed_flows", "desired_groups"),
                *("installed_groups", "repaired", "pipeline"),
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
                _last_repair(item) or NONE,
                str(item["pipeline"] or NONE),
                item.get("connected_since") or NONE,
                item["last_error"] or NONE,
            ]
        rows.append(row)
    if rows:
        output.table([*_COLUMNS, *(_WIDE if wide else ())], rows, header=header)
    else:
        output.progress("no switches")


def _last_repair(item: dict[str, Any]) -> str:
    """The last of what was repaired on a node; all that is known is in -o yaml."""
    repairs = item["last_repairs"]
    return f"{repairs[-1]['kind']} {repairs[-1]['what']}" if repairs else ""


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
    _check_owner(owner)
    found = fetch_flows(node, table, owner)
    if form in (DataFormat.JSON, DataFormat.YAML):
        value = {"node": node, "flows": found}
        (output.as_json if form is DataFormat.JSON else output.as_yaml)(value)
    elif found:
        print_flows(found)
    else:
        output.progress(f"no such flows on {node}")


def _check_owner(owner: str) -> None:
    if owner and "/" not in owner:
        raise UsageError(f"--owner {owner!r} is not Kind/namespace/name or Kind/name")


def groups(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="Name of the node.", autocompletion=complete_node)
    ],
    owner: Annotated[
        str,
        typer.Option(
            "--owner", metavar="OWNER", help="Only groups of this object, such as Service/default/web."
        ),
    ] = "",
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show the groups that a node's switch holds now: with buckets, owner and reason of each."""
    from sdn.v1 import inspection_pb2

    _check_owner(owner)
    with inspection() as stub:
        request = inspection_pb2.ListGroupsRequest(node=node, owner=owner)
        parts = stub.ListGroups(request, timeout=ANSWER_SECONDS)
        found = group_documents(group for part in parts for group in part.groups)
    if form in (DataFormat.JSON, DataFormat.YAML):
        value = {"node": node, "groups": found}
        (output.as_json if form is DataFormat.JSON else output.as_yaml)(value)
    elif found:
        print_groups(found)
    else:
        output.progress(f"no such groups on {node}")


def print_groups(found: list[dict[str, Any]]) -> None:
    """On a terminal, blocks with a line for each bucket; into a pipe, one line a group."""
    if not output.on_terminal():
        output.table(
            ("GROUP", "TYPE", "COUNT", "PACKETS", "BYTES", "OWNER", "WHY", "BUCKETS"),
            [
                [
                    str(group["group_id"]),
                    group["type"],
                    str(group["bucket_count"]),
                    str(group["packets"]),
                    str(group["bytes"]),
                    group["owner"] or "nobody",
                    group["why"] or NONE,
                    group["buckets"] or NONE,
                ]
                for group in found
            ],
        )
        return
    for group in found:
        output.group_block(
            f"group {group['group_id']}, {group['type']}, {group['packets']} packets, {group['bytes']} bytes",
            group["owner"] or "nobody",
            group["why"],
            group["buckets"].split(",bucket="),
        )


def fetch_flows(node: str, table: str = "", owner: str = "") -> list[dict[str, Any]]:
    """Flows in the order in which packets meet them: by table, then by priority."""
    from sdn.v1 import inspection_pb2

    request = inspection_pb2.ListFlowsRequest(node=node, table=table, owner=owner)
    with inspection() as stub:
        parts = stub.ListFlows(request, timeout=ANSWER_SECONDS)
        return flow_documents(flow for part in parts for flow in part.flows)


def flow_documents(entries: Iterable[FlowEntry]) -> list[dict[str, Any]]:
    """Flows as documents, in the order in which packets meet them."""
    found = map(flow_document, entries)
    return sorted(found, key=lambda flow: (flow["table_number"], -flow["priority"], flow["match"]))


def flow_document(flow: FlowEntry) -> dict[str, Any]:
    """One flow."""
    document = plain(flow)
    document["cookie"] = f"0x{flow.cookie:x}"
    document["packets"] = flow.packets
    document["bytes"] = flow.bytes
    return document


def group_documents(entries: Iterable[GroupEntry]) -> list[dict[str, Any]]:
    """Groups as documents, by number."""
    found = []
    for group in entries:
        document = plain(group)
        document["packets"] = group.packets
        document["bytes"] = group.bytes
        found.append(document)
    return sorted(found, key=lambda group: int(group["group_id"]))


def plain(message: Message) -> dict[str, Any]:
    """All fields of a message under their own names; 64-bit numbers are texts still."""
    from google.protobuf import json_format

    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


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
