# SPDX-License-Identifier: Apache-2.0
"""What the commands of `sdnctl lab` share: the option --name, the lab that it means, completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdn.cli.context import lab_name

if TYPE_CHECKING:
    from sdn.lab.lab import Lab


def complete_lab(incomplete: str) -> list[str]:
    from sdn.lab.state import names

    return [name for name in names() if name.startswith(incomplete)]


NAME = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="LAB",
        help="Which lab. [default: $SDN_LAB_NAME, the only one there is, or sdn]",
        autocompletion=complete_lab,
    ),
]


def opened(name: str | None) -> Lab:
    """The lab that is meant; LabError if there is none."""
    from sdn.lab.lab import Lab

    return Lab(lab_name(name))


def _asked(context: typer.Context) -> str | None:
    """The lab that --name names; commands whose NAME is a pod's keep it as `lab`."""
    parameters = context.params
    value = parameters["lab"] if "lab" in parameters else parameters.get("name")
    return value if isinstance(value, str) else None


def complete_process(context: typer.Context, incomplete: str) -> list[str]:
    from sdn.lab.errors import LabError

    try:
        found = opened(_asked(context)).process_names()
    except LabError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def complete_pod(context: typer.Context, incomplete: str) -> list[str]:
    from sdn.lab.errors import LabError

    try:
        found = [pod.full_name for pod in opened(_asked(context)).pods()]
    except LabError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def complete_node(context: typer.Context, incomplete: str) -> list[str]:
    from sdn.lab.errors import LabError

    try:
        found = [node.name for node in opened(_asked(context)).spec.node_machines]
    except LabError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def complete_target(context: typer.Context, incomplete: str) -> list[str]:
    from sdn.lab.errors import LabError

    try:
        found = [machine.name for machine in opened(_asked(context)).spec.machines]
    except LabError:
        return []
    return [name for name in found if name.startswith(incomplete)] + complete_pod(context, incomplete)
