# SPDX-License-Identifier: Apache-2.0
"""`sdnctl get`, `apply` and `delete`: declared objects and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import kinds, output, switches
from sdn.cli.client import ANSWER_SECONDS, connected, inspection
from sdn.cli.completion import complete_kind, complete_name, complete_namespace
from sdn.cli.errors import CommandError, UsageError
from sdn.cli.output import Format

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct

    from sdn.v1.inspection_pb2_grpc import InspectionStub

_NAMESPACE = Annotated[
    str,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        help="Only this namespace; all if not given.",
        autocompletion=complete_namespace,
    ),
]
_FILES = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", metavar="FILE", help="YAML or JSON, any number of objects; - is stdin."),
]


def get(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="nodes (no), pods (po), namespaces (ns), services (svc), endpointslices, networkpolicies (netpol), "
            "clusternetworkpolicies (cnp), policies (both), events (ev) or switches (sw).",
            autocompletion=complete_kind,
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Only this one; NAMESPACE/NAME, too, where it is in a namespace.",
            autocompletion=complete_name,
        ),
    ] = "",
    namespace: _NAMESPACE = "",
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="All namespaces, as without -n.")
    ] = False,
    selector: Annotated[
        str, typer.Option("-l", "--selector", help="Only objects whose labels fit, such as app=web,tier!=db.")
    ] = "",
    form: Annotated[Format, typer.Option("-o", "--output", help="How to print.")] = Format.TABLE,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Stay, and print what changes.")] = False,
) -> None:
    """Show objects, as they are now or as they change."""
    if all_namespaces and namespace:
        raise UsageError("say either --namespace or --all-namespaces")
    if kind.lower() in kinds.SWITCHES:
        if namespace or selector:
            raise UsageError("switches have neither namespaces nor labels")
        switches.show(name, form, watch)
        return
    wanted = kinds.kind_called(kind)
    if "/" in name and not namespace:
        namespace, _, name = name.partition("/")
    if namespace and not wanted.namespaced:
        raise UsageError(f"{wanted.names[0]} are in no namespace")
    if watch:
        _watch(kinds.one_kind_called(kind), namespace, name, selector, form)
        return
    documents = _documents(wanted, namespace, name, selector)
    if name and not documents:
        raise CommandError(
            f"there is no {wanted.names[1]} {name!r}{f' in namespace {namespace}' if namespace else ''}"
        )
    _print(wanted, documents, form, single=bool(name))


def fetch(kind: str, namespace: str = "", name: str = "", selector: str = "") -> list[dict[str, Any]]:
    """Objects as the controller knows them now."""
    from sdn.v1 import inspection_pb2

    request = inspection_pb2.GetRequest(kind=kind, namespace=namespace, name=name, label_selector=selector)
    with inspection() as stub:
        return [as_document(item) for item in stub.Get(request, timeout=ANSWER_SECONDS).objects]


def _documents(kind: kinds.Kind, namespace: str, name: str, selector: str) -> list[dict[str, Any]]:
    """Objects of one kind or of several. Of several, those of the cluster go with each namespace, since they hold in
    it, too; a name that is not said to be in a namespace may be one of them, or in default.
    """
    if not kind.kinds:
        return fetch(kind.kind, namespace, name, selector)
    found: list[dict[str, Any]] = []
    for each in kinds.members(kind):
        if each.namespaced:
            found += fetch(each.kind, namespace or ("default" if name else ""), "", selector)
        elif not (namespace and name):
            found += fetch(each.kind, "", "", selector)
    # Not asked for by name: a controller refuses a name that the one kind does not have.
    named = [document for document in found if name in ("", kinds.field(document, "metadata.name"))]
    return sorted(named, key=kind.order)


def _print(kind: kinds.Kind, documents: list[dict[str, Any]], form: Format, single: bool) -> None:
    if form is Format.NAME:
        for document in documents:
            output.line(kinds.name_of(document))
    elif form in (Format.JSON, Format.YAML):
        # One that was asked for by name is itself; several are a List, as kubectl prints them.
        value: Any = {"apiVersion": "v1", "kind": "List", "items": documents}
        if single and len(documents) == 1:
            value = documents[0]
        (output.as_json if form is Format.JSON else output.as_yaml)(value)
    elif documents:
        output.table(*kinds.rows(kind, documents, wide=form is Format.WIDE))
    else:
        output.progress(f"no {kind.names[0]}")


def _watch(kind: kinds.Kind, namespace: str, name: str, selector: str, form: Format) -> None:
    from sdn.v1 import inspection_pb2

    request = inspection_pb2.WatchRequest(
        kind=kind.kind, namespace=namespace, name=name, label_selector=selector
    )
    header = True
    with inspection() as stub:
        for event in stub.Watch(request):
            what = inspection_pb2.WatchEvent.Type.Name(event.type).removeprefix("TYPE_")
            if what == "BOOKMARK":
                continue
            document = as_document(event.object)
            if form is Format.JSON:
                output.as_json_line({"type": what, "object": document})
            elif form is Format.YAML:
                output.line("---")
                output.as_yaml({"type": what, "object": document})
            elif form is Format.NAME:
                output.line(f"{what.lower()} {kinds.name_of(document)}")
            else:
                titles, rows = kinds.rows(kind, [document], wide=form is Format.WIDE)
                output.stream_row(["EVENT", *titles], [what, *rows[0]], header=header)
                header = False
    raise CommandError("the controller ended the watch")


def apply(
    filename: _FILES = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Have everything checked, store nothing.")
    ] = False,
) -> None:
    """Declare objects: create what is not there, change what is.

    Every file is read, and every object checked by the controller, before the first is stored.
    """
    from sdn.cli import manifests
    from sdn.v1 import inspection_pb2

    objects = manifests.read(_given(filename))
    with inspection() as stub:
        _check_all(stub, objects)
        for place, document in objects:
            outcome = "checked"
            if not dry_run:
                request = inspection_pb2.ApplyRequest(object=_struct(document, place))
                answer = stub.Apply(request, timeout=ANSWER_SECONDS)
                document = as_document(answer.object)
                outcome = (
                    inspection_pb2.ApplyResponse.Outcome.Name(answer.outcome).removeprefix("OUTCOME_").lower()
                )
            output.line(f"{kinds.name_of(document)} {outcome}{' (dry run)' if dry_run else ''}")


def _check_all(stub: InspectionStub, objects: list[tuple[str, dict[str, Any]]]) -> None:
    """Nothing is stored when any object is refused; all that is wrong is told at once."""
    import grpc

    from sdn.v1 import inspection_pb2

    refused = []
    for place, document in objects:
        try:
            request = inspection_pb2.ApplyRequest(object=_struct(document, place), dry_run=True)
            stub.Apply(request, timeout=ANSWER_SECONDS)
        except grpc.RpcError as problem:
            if problem.code() not in (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.FAILED_PRECONDITION,
                grpc.StatusCode.ALREADY_EXISTS,
            ):
                raise
            refused.append(f"{place}: {' '.join((problem.details() or '').split())}")
    if refused:
        for line in refused[:-1]:
            output.progress(f"sdnctl: {line}")
        raise CommandError(f"{refused[-1]}; nothing was applied")


def delete(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[KIND",
            help="nodes, pods, namespaces, services, endpointslices, networkpolicies or clusternetworkpolicies.",
            autocompletion=complete_kind,
        ),
    ] = "",
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...]", help="Which; NAMESPACE/NAME, too.", autocompletion=complete_name),
    ] = None,
    namespace: Annotated[
        str,
        typer.Option("-n", "--namespace", metavar="NAMESPACE", help="Where they are; default if not given."),
    ] = "",
    filename: _FILES = None,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there counts as deleted.")
    ] = False,
) -> None:
    """Remove declared objects, by name or as they stand in a file."""
    from sdn.cli import manifests

    if bool(filename) == bool(kind):
        raise UsageError("say either what to delete, KIND NAME, or in which file it stands, -f FILE")
    targets: list[tuple[str, str, str]] = []
    if filename:
        for place, document in manifests.read(filename):
            wanted = kinds.one_kind_called(str(document.get("kind") or ""))
            metadata = document.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
                raise UsageError(f"{place}: metadata.name is missing")
            space = metadata.get("namespace") or namespace or "default"
            targets.append((wanted.kind, space if wanted.namespaced else "", metadata["name"]))
    else:
        wanted = kinds.one_kind_called(kind)
        if not names:
            raise UsageError(f"which of the {wanted.names[0]}? say its NAME")
        for name in names:
            space, _, short = name.rpartition("/")
            targets.append(
                (wanted.kind, (space or namespace or "default") if wanted.namespaced else "", short)
            )
    _delete(targets, ignore_not_found)


def _delete(targets: list[tuple[str, str, str]], ignore_not_found: bool) -> None:
    import grpc

    from sdn.v1 import inspection_pb2

    missing = []
    with inspection() as stub:
        for kind, namespace, name in targets:
            called = "/".join(part for part in (kind.lower(), namespace, name) if part)
            try:
                stub.Delete(
                    inspection_pb2.DeleteRequest(kind=kind, namespace=namespace, name=name),
                    timeout=ANSWER_SECONDS,
                )
            except grpc.RpcError as problem:
                if problem.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                if not ignore_not_found:
                    missing.append(called)
                continue
            output.line(f"{called} deleted")
    if missing:
        raise CommandError(f"not found: {', '.join(missing)}")


def complete_node(incomplete: str) -> list[str]:
    """Nodes' names for the shell; nothing when the controller cannot be asked."""
    import grpc

    from sdn.v1 import inspection_pb2, inspection_pb2_grpc

    try:
        with connected() as channel:
            answer = inspection_pb2_grpc.InspectionStub(channel).Get(
                inspection_pb2.GetRequest(kind="Node"), timeout=1
            )
    except (CommandError, grpc.RpcError):
        return []
    found = [str(kinds.field(as_document(item), "metadata.name")) for item in answer.objects]
    return [name for name in found if name.startswith(incomplete)]


def _given(files: list[str] | None) -> list[str]:
    if not files:
        raise UsageError("say which file: -f FILE, or -f - for stdin")
    return files


_FIRST = ("apiVersion", "kind", "metadata", "spec", "status")


def as_document(item: Struct) -> dict[str, Any]:
    """An object as people know it: the usual fields first, and whole numbers whole (a Struct knows only floats)."""
    from google.protobuf import json_format

    document = _whole(json_format.MessageToDict(item))
    return {
        key: document[key] for key in (*_FIRST, *sorted(document.keys() - set(_FIRST))) if key in document
    }


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _struct(document: dict[str, Any], place: str) -> Struct:
    from google.protobuf import struct_pb2

    message = struct_pb2.Struct()
    try:
        message.update(document)
    except (ValueError, TypeError, AttributeError) as problem:
        raise UsageError(f"{place}: {problem}") from None
    return message
