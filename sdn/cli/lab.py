# SPDX-License-Identifier: Apache-2.0
"""`sdnctl lab`: a cluster on this machine, brought up, looked at, disturbed and taken down."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from sdn.cli import lab_pods, lab_views, output
from sdn.cli.context import lab_name
from sdn.cli.errors import ExitCode
from sdn.cli.lab_choices import Datapath, Encapsulation, Store, Underlay
from sdn.cli.lab_common import NAME, complete_process, complete_target, opened
from sdn.cli.output import DataFormat

app = typer.Typer(
    help="Run a whole cluster on this machine: nodes in network namespaces, each with its Open vSwitch and agent.",
    no_args_is_help=True,
)
app.add_typer(lab_pods.app, name="pod")

_FORM = Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")]
_PROCESS = Annotated[
    str,
    typer.Argument(
        metavar="PROCESS", help="Such as node-1/agent, see `lab status`.", autocompletion=complete_process
    ),
]


@app.command("up")
def up(
    name: NAME = None,
    nodes: Annotated[int, typer.Option(help="Number of nodes.")] = 3,
    controllers: Annotated[int, typer.Option(help="Number of controllers; several need --store etcd.")] = 1,
    encap: Annotated[
        Encapsulation, typer.Option(help="How packets travel between nodes.")
    ] = Encapsulation.GENEVE,
    datapath: Annotated[
        Datapath, typer.Option(help="What Open vSwitch forwards with: in user space, or the kernel's module.")
    ] = Datapath.NETDEV,
    store: Annotated[
        Store, typer.Option(help="Where the controllers keep what was declared.")
    ] = Store.SQLITE,
    etcd: Annotated[int, typer.Option(help="Number of etcd members, with --store etcd.")] = 1,
    mtu: Annotated[int, typer.Option(help="MTU of the underlay, bytes.")] = 1500,
    cluster_range: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="Pods' addresses, one range a family. [default: 10.244.0.0/16 and fd00:10:244::/48]",
        ),
    ] = None,
    node_prefix_ipv4: Annotated[
        int | None, typer.Option(help="Prefix length of a node's IPv4 range.", show_default="24")
    ] = None,
    node_prefix_ipv6: Annotated[
        int | None, typer.Option(help="Prefix length of a node's IPv6 range.", show_default="64")
    ] = None,
    underlay: Annotated[
        Underlay, typer.Option(help="Family of the tunnels' outer addresses.")
    ] = Underlay.IPV4,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was made if it fails.")] = False,
) -> None:
    """Bring a lab up, and return when it is ready for pods."""
    from sdn.lab.lab import Lab
    from sdn.lab.spec import LabSpec

    ranges: Any = {"cluster_ranges": tuple(cluster_range)} if cluster_range else {}
    spec = LabSpec(
        name=lab_name(name),
        nodes=nodes,
        controllers=controllers,
        encapsulation=encap.value,
        datapath=datapath.value,
        store=store.value,
        etcd=etcd,
        mtu=mtu,
        node_prefix_ipv4=node_prefix_ipv4,
        node_prefix_ipv6=node_prefix_ipv6,
        underlay=underlay.value,
        **ranges,
    )
    Lab.up(spec, output.progress, keep=keep)
    several = f"{controllers} controllers" if controllers > 1 else "1 controller"
    output.line(f"lab {spec.name} is up: {nodes} nodes, {several}, {encap.value}, {datapath.value}")


@app.command("down")
def down(name: NAME = None) -> None:
    """Take a lab down; nothing of it is left behind. Safe to repeat."""
    from sdn.lab import building

    chosen = lab_name(name)
    if building.down(chosen, output.progress):
        output.line(f"lab {chosen} is gone")
    else:
        output.line(f"there is no lab {chosen}")


@app.command("list")
def list_labs(form: _FORM = DataFormat.TABLE) -> None:
    """List the labs of this machine."""
    lab_views.show_labs(form)


@app.command("status")
def status(name: NAME = None, form: _FORM = DataFormat.TABLE) -> None:
    """Show every process with its pid, namespace and sockets, and every pod with its node and addresses."""
    lab_views.show_status(opened(name), form)


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    target: Annotated[
        str,
        typer.Argument(
            metavar="POD",
            help="NAME or NAMESPACE/NAME of a pod; or node-1, controller-1, outside, underlay.",
            autocompletion=complete_target,
        ),
    ],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run there.")],
    name: NAME = None,
) -> None:
    """Run a command inside a pod or a machine of the lab; its exit code is the command's."""
    arguments, variables = opened(name).command(target, *command)
    os.execvpe(arguments[0], arguments, variables)


@app.command("logs")
def logs(
    process: _PROCESS,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay, and print what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many of the last lines.")] = 50,
    name: NAME = None,
) -> None:
    """Show what a process wrote."""
    file = str(opened(name).log(process))
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), file])


@app.command("stop")
def stop(process: _PROCESS, name: NAME = None) -> None:
    """End a process, and do not start it again."""
    opened(name).stop(process)
    output.line(f"{process} is stopped")


@app.command("start")
def start(process: _PROCESS, name: NAME = None) -> None:
    """Start a process that was stopped."""
    opened(name).start(process)
    output.line(f"{process} runs")


@app.command("restart")
def restart(process: _PROCESS, name: NAME = None) -> None:
    """End a process in an orderly way, and start it again."""
    opened(name).restart(process)
    output.line(f"{process} runs again")


@app.command("ping-matrix")
def ping_matrix(
    name: NAME = None,
    attempts: Annotated[int, typer.Option(help="Requests before a way counts as unreachable.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.")] = 1.0,
    form: _FORM = DataFormat.TABLE,
) -> None:
    """Try who reaches whom, IPv4 and IPv6: pods to pods, pods to nodes, nodes to pods.

    Ends with 1 when anything is unreachable.
    """
    lab = opened(name)
    reaches = lab.ping_matrix(attempts=attempts, timeout=timeout)
    lab_views.show_reaches(reaches, form)
    if not all(reach.reachable for reach in reaches):
        raise typer.Exit(ExitCode.FAILED)


@app.command("demo")
def demo(name: NAME = None) -> None:
    """Bring a lab up if it is not, make pods, show who reaches whom, and the flows behind one path."""
    from sdn.cli import lab_demo

    lab_demo.run(lab_name(name))
