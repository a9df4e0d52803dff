# SPDX-License-Identifier: Apache-2.0
"""`sdnctl policy check`: whether policies allow a connection, and why."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdn.cli import output, switches
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.completion import complete_destination, complete_namespace, complete_source
from sdn.cli.errors import ExitCode, NoAnswerError
from sdn.cli.output import DataFormat

if TYPE_CHECKING:
    from sdn.v1.inspection_pb2 import CheckPolicyRequest, CheckPolicyResponse


class Protocol(enum.StrEnum):
    """Values of --protocol."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ICMP = "icmp"


class Family(enum.StrEnum):
    """Values of --family."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Who opens the connection: NAMESPACE/POD, POD, node/NAME, or an address.",
            autocompletion=complete_source,
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DST",
            help="Whom it is for: the same, or service/NAMESPACE/NAME.",
            autocompletion=complete_destination,
        ),
    ],
    port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="PORT",
            min=0,
            max=65535,
            help="The port that it goes to; of a Service, the Service's.",
        ),
    ] = 0,
    protocol: Annotated[
        Protocol, typer.Option("--protocol", help="Its protocol.", case_sensitive=False)
    ] = Protocol.TCP,
    family: Annotated[
        Family | None,
        typer.Option(
            "--family", help="Only this family; each that both have if not given.", case_sensitive=False
        ),
    ] = None,
    namespace: Annotated[
        str,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NAMESPACE",
            help="Of names without one; default if not given.",
            autocompletion=complete_namespace,
        ),
    ] = "",
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Say whether policies allow a connection, in each family, and why: what the pod at each end says.

    It is read off the declared objects, not off the switches. The exit code is 0 when all is allowed, 1 when
    anything is denied, and 2 when there is nothing to check, as where a pod does not exist.
    """
    from sdn.v1 import inspection_pb2

    answer = _ask(
        inspection_pb2.CheckPolicyRequest(
            source=source,
            destination=destination,
            namespace=namespace,
            protocol=protocol.value,
            port=port,
            family=family.value if family is not None else "",
        )
    )
    found = _found(answer)
    if form is DataFormat.JSON:
        output.as_json(found)
    elif form is DataFormat.YAML:
        output.as_yaml(found)
    else:
        _print(destination, found)
    if not found["allowed"]:
        raise typer.Exit(ExitCode.FAILED)


def _ask(request: CheckPolicyRequest) -> CheckPolicyResponse:
    import grpc

    with inspection() as stub:
        try:
            return stub.CheckPolicy(request, timeout=ANSWER_SECONDS)
        except grpc.RpcError as problem:
            if problem.code() not in (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.FAILED_PRECONDITION,
            ):
                raise
            raise NoAnswerError(problem.details() or "") from None


def _found(answer: CheckPolicyResponse) -> dict[str, Any]:
    return {
        "allowed": all(verdict.allowed for verdict in answer.verdicts),
        "verdicts": [switches.plain(verdict) for verdict in answer.verdicts],
        "endpoint_total": answer.endpoint_total,
    }


def _print(destination: str, found: dict[str, Any]) -> None:
    total = found["endpoint_total"]
    if total:
        shown = len({(one["destination_address"], one["port"]) for one in found["verdicts"]})
        some = f" (these are {shown} of them)" if shown < total else ""
        output.line(f"{destination} has {total} endpoint{'' if total == 1 else 's'}{some}")
    for verdict in found["verdicts"]:
        port = f" {verdict['port']}" if verdict["port"] else ""
        output.line(
            f"{verdict['family']}: {'allowed' if verdict['allowed'] else 'denied'}: "
            f"{_end(verdict['source'], verdict['source_address'])} to "
            f"{_end(verdict['destination'], verdict['destination_address'])}, {verdict['protocol']}{port}"
        )
        output.line(f"  {verdict['reason']}")
        if verdict["would_deny"]:
            output.line(f"  Staged policies would deny it: {', '.join(verdict['would_deny'])}.")


def _end(name: str, address: str) -> str:
    return address if name == address else f"{name} ({address})"
