# SPDX-License-Identifier: Apache-2.0
"""`sdnctl lab pod`: pods without a container runtime; the lab executes the CNI plugin as one would."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sdn.cli import output
from sdn.cli.errors import UsageError
from sdn.cli.lab_common import NAME, complete_node, complete_pod, opened
from sdn.cli.output import DataFormat

app = typer.Typer(help="Make, remove and list pods of a lab.", no_args_is_help=True)

_RETRY = Annotated[
    float,
    typer.Option("--retry", metavar="SECONDS", help="How long to try again while the agent asks for it."),
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the pod.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Kubernetes namespace.")] = "default",
    node: Annotated[
        str | None,
        typer.Option(help="Where. [default: the node with the fewest pods]", autocompletion=complete_node),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("-l", "--label", metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    retry: _RETRY = 30,
    lab: NAME = None,
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Make a pod: a network namespace, wired by executing the CNI plugin."""
    labels = {}
    for text in label or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--label {text!r} is not KEY=VALUE")
        labels[key] = value
    pod = opened(lab).pod_add(name, namespace, node, labels, retry_seconds=retry)
    _print([pod], form, single=True)


@app.command("del")
def delete(
    name: Annotated[
        str, typer.Argument(metavar="POD", help="NAME or NAMESPACE/NAME.", autocompletion=complete_pod)
    ],
    namespace: Annotated[
        str | None,
        typer.Option("-n", "--namespace", help="Kubernetes namespace, when the name is not unique."),
    ] = None,
    retry: _RETRY = 30,
    lab: NAME = None,
) -> None:
    """Remove a pod: the plugin is executed, then the network namespace goes."""
    found = opened(lab)
    pod = found.pod(name, namespace)
    found.pod_delete(pod.name, pod.namespace, retry_seconds=retry)
    output.line(f"pod/{pod.full_name} deleted")


@app.command("list")
def list_pods(
    lab: NAME = None,
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """List the pods of a lab, as the runtime knows them; `sdnctl get pods` asks the controller."""
    _print(list(opened(lab).folder.pods()), form)


def _print(pods: list[Any], form: DataFormat, single: bool = False) -> None:
    import msgspec

    if form is DataFormat.TABLE:
        output.table(
            ("NAMESPACE", "NAME", "NODE", "ADDRESSES", "MAC", "NETNS"),
            [
                (
                    pod.namespace,
                    pod.name,
                    pod.node,
                    output.joined(pod.addresses),
                    pod.mac or output.NONE,
                    pod.netns,
                )
                for pod in pods
            ],
        )
        return
    value = [msgspec.to_builtins(pod) for pod in pods]
    shown = value[0] if single else value
    (output.as_json if form is DataFormat.JSON else output.as_yaml)(shown)
