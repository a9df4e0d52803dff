# SPDX-License-Identifier: Apache-2.0
"""Completion of the names that a controller knows: of nodes, pods and namespaces, as the shell asks for them.

A shell shows whatever is printed while it completes, so a controller that is away, or a line that means nothing
yet, simply has nothing to offer.
"""

from __future__ import annotations

import typer

from sdn.cli import context as asked
from sdn.cli import kinds
from sdn.cli.errors import CommandError
from sdn.lab.errors import LabError


def complete_kind(incomplete: str) -> list[str]:
    """Names of kinds."""
    return [name for name in kinds.known_names() if name.startswith(incomplete)]


def complete_described(incomplete: str) -> list[str]:
    """Names of kinds that can be described."""
    described = ("service", "policy", "networkpolicy", "clusternetworkpolicy")
    return [name for name in described if name.startswith(incomplete)]


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names of objects of the kind that the line has already."""
    kind = str(context.params.get("kind") or "")
    if kind.lower() in kinds.SWITCHES:
        return complete_node(context, incomplete)
    try:
        wanted = kinds.kind_called(kind)
    except CommandError:
        return []
    space = str(context.params.get("namespace") or "")
    return [
        name
        for each in kinds.members(wanted)
        if each.namespaced or not space
        for name in _names(context, each.kind, space, incomplete)
    ]


def complete_node(context: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes."""
    return _names(context, "Node", "", incomplete)


def complete_namespace(context: typer.Context, incomplete: str) -> list[str]:
    """Names of namespaces."""
    return _names(context, "Namespace", "", incomplete)


def complete_source(context: typer.Context, incomplete: str) -> list[str]:
    """Ends that open connections: pods, and nodes as node/NAME."""
    namespace = str(context.params.get("namespace") or "")
    pods = _names(context, "Pod", namespace, incomplete)
    return pods + _prefixed(context, "Node", "node/", incomplete)


def complete_destination(context: typer.Context, incomplete: str) -> list[str]:
    """Ends that connections go to: the same, and Services as service/NAMESPACE/NAME."""
    return complete_source(context, incomplete) + _prefixed(context, "Service", "service/", incomplete)


def _prefixed(context: typer.Context, kind: str, prefix: str, incomplete: str) -> list[str]:
    if not incomplete.startswith(prefix) and not prefix.startswith(incomplete):
        return []
    return [prefix + name for name in _names(context, kind, "", incomplete[len(prefix) :])]


def _names(context: typer.Context, kind: str, namespace: str, incomplete: str) -> list[str]:
    from sdn.cli.objects import fetch

    # The program's own options are read, but not yet acted on, while a shell completes.
    program = context.find_root().params
    asked.options.server = program.get("server")
    asked.options.lab = program.get("lab")
    try:
        documents = fetch(kind, namespace)
    except (CommandError, LabError):
        return []
    found = []
    for document in documents:
        metadata = document["metadata"]
        space = metadata.get("namespace", "")
        found.append(metadata["name"] if namespace or not space else f"{space}/{metadata['name']}")
    return [name for name in found if name.startswith(incomplete)]
