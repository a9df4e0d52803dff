# SPDX-License-Identifier: Apache-2.0
"""`sdnctl describe`: an object with everything that is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import kinds, output, services, switches
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.completion import complete_described, complete_name, complete_namespace, complete_node
from sdn.cli.errors import UsageError
from sdn.cli.objects import as_document
from sdn.cli.output import NONE, DataFormat

if TYPE_CHECKING:
    from sdn.v1.inspection_pb2 import DescribeServiceResponse


def describe(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="service (svc).", autocompletion=complete_described),
    ],
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Which; NAMESPACE/NAME, too.", autocompletion=complete_name),
    ],
    namespace: Annotated[
        str,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NAMESPACE",
            help="Where it is; default if not given.",
            autocompletion=complete_namespace,
        ),
    ] = "",
    node: Annotated[
        str,
        typer.Option(
            "--node", metavar="NODE", help="Only what this node holds.", autocompletion=complete_node
        ),
    ] = "",
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show a Service with its endpoints, the flows and groups behind it on every node, and its events."""
    from sdn.v1 import inspection_pb2

    if kinds.kind_called(kind).kind != "Service":
        raise UsageError(f"only services can be described; for others: get {kind} {name} -o yaml")
    if "/" in name and not namespace:
        namespace, _, name = name.partition("/")
    request = inspection_pb2.DescribeServiceRequest(namespace=namespace or "default", name=name, node=node)
    with inspection() as stub:
        found = _found(stub.DescribeService(request, timeout=ANSWER_SECONDS))
    if form is DataFormat.JSON:
        output.as_json(found)
    elif form is DataFormat.YAML:
        output.as_yaml(found)
    else:
        _print(found)


def _found(answer: DescribeServiceResponse) -> dict[str, Any]:
    return {
        "service": as_document(answer.service),
        "endpoints": [
            {**switches.plain(endpoint), "connections": endpoint.connections} for endpoint in answer.endpoints
        ],
        "nodes": [
            {
                "node": node.node,
                "error": node.error,
                "connections": node.connections,
                "flows": switches.flow_documents(node.flows),
                "groups": switches.group_documents(node.groups),
            }
            for node in answer.nodes
        ],
        "events": [as_document(event) for event in answer.events],
    }


def _print(found: dict[str, Any]) -> None:
    lines = services.lines(found["service"])
    width = max(len(title) for title, _value in lines)
    for title, value in lines:
        output.line(f"{title}:{' ' * (width - len(title))}  {value}")
    output.heading("Endpoints")
    if found["endpoints"]:
        output.table(
            ("ADDRESS", "PORT", "NODE", "ZONE", "TARGET", "STATE", "CONNECTIONS"),
            [_endpoint_row(endpoint) for endpoint in found["endpoints"]],
        )
    else:
        output.line("none")
    for node in found["nodes"]:
        _print_node(node)
    output.heading("Events")
    if found["events"]:
        output.table(
            ("LAST SEEN", "TYPE", "REASON", "COUNT", "MESSAGE"), services.event_rows(found["events"])
        )
    else:
        output.line("none")


def _endpoint_row(endpoint: dict[str, Any]) -> list[str]:
    name = f"{endpoint['port_name']} " if endpoint["port_name"] else ""
    return [
        endpoint["address"],
        f"{name}{endpoint['port']}/{endpoint['protocol']}",
        endpoint["node"] or NONE,
        endpoint["zone"] or NONE,
        endpoint["target"] or NONE,
        services.state(endpoint),
        str(endpoint["connections"]),
    ]


def _print_node(node: dict[str, Any]) -> None:
    flows, groups = node["flows"], node["groups"]
    packets, size = sum(flow["packets"] for flow in flows), sum(flow["bytes"] for flow in flows)
    output.heading(
        f"Node {node['node']}: {node['connections']} connections, {len(flows)} flows "
        f"({packets} packets, {size} bytes), {len(groups)} groups"
    )
    if node["error"]:
        output.line(f"not all is known: {node['error']}")
    if flows:
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
    if flows and groups:
        output.line("")
    if groups:
        output.table(
            ("GROUP", "TYPE", "PACKETS", "BYTES", "WHY", "BUCKETS"),
            [
                [
                    str(group["group_id"]),
                    group["type"],
                    str(group["packets"]),
                    str(group["bytes"]),
                    group["why"] or NONE,
                    group["buckets"] or NONE,
                ]
                for group in groups
            ],
        )
