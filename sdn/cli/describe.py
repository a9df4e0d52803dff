# SPDX-License-Identifier: Apache-2.0
"""`sdnctl describe`: an object with everything that is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import describe_policy, kinds, output, sections, services, switches
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
        typer.Argument(
            metavar="KIND",
            help="service (svc), networkpolicy (netpol), clusternetworkpolicy (cnp), or policy (either).",
            autocompletion=complete_described,
        ),
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
    """Show a Service with its endpoints, or a policy with its pods, rules and counters; with the flows behind it on
    every node, and its events.
    """
    wanted = kinds.kind_called(kind)
    if "/" in name and not namespace:
        namespace, _, name = name.partition("/")
    if wanted.kind == "Service":
        found = _service(namespace or "default", name, node)
        show = _print
    elif wanted.kind in describe_policy.KINDS:
        found = describe_policy.fetch(wanted, namespace, name, node)
        show = describe_policy.show
    else:
        raise UsageError(
            f"only services and policies can be described; for others: get {kind} {name} -o yaml"
        )
    if form is DataFormat.JSON:
        output.as_json(found)
    elif form is DataFormat.YAML:
        output.as_yaml(found)
    else:
        show(found)


def _service(namespace: str, name: str, node: str) -> dict[str, Any]:
    from sdn.v1 import inspection_pb2

    request = inspection_pb2.DescribeServiceRequest(namespace=namespace, name=name, node=node)
    with inspection() as stub:
        return _found(stub.DescribeService(request, timeout=ANSWER_SECONDS))


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
    sections.properties(services.lines(found["service"]))
    sections.table(
        "Endpoints",
        ("ADDRESS", "PORT", "NODE", "ZONE", "TARGET", "STATE", "CONNECTIONS"),
        [_endpoint_row(endpoint) for endpoint in found["endpoints"]],
    )
    for node in found["nodes"]:
        _print_node(node)
    sections.events(found["events"])


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
    output.heading(
        f"Node {node['node']}: {node['connections']} connections, {sections.traffic(flows)}, {len(groups)} groups"
    )
    if node["error"]:
        output.line(f"not all is known: {node['error']}")
    if flows:
        sections.flow_table(flows)
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
