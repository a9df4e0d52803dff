# SPDX-License-Identifier: Apache-2.0
"""`sdnctl version` and `log-level`: what every daemon answers, be it a controller or, with --server, an agent."""

from __future__ import annotations

from typing import Annotated

import typer

from sdn.cli import output
from sdn.cli.client import ANSWER_SECONDS, connected
from sdn.cli.output import DataFormat
from sdn.version import VERSION


def version(
    client: Annotated[bool, typer.Option("--client", help="Only sdnctl's own; ask no server.")] = False,
    form: Annotated[DataFormat, typer.Option("-o", "--output", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show the versions of sdnctl and of the controller."""
    value = {"client": VERSION}
    if form is DataFormat.TABLE:
        output.line(f"sdnctl {VERSION}")
    if not client:
        from sdn.v1 import inspection_pb2, inspection_pb2_grpc

        with connected() as channel:
            stub = inspection_pb2_grpc.DaemonStub(channel)
            answer = stub.GetVersion(inspection_pb2.GetVersionRequest(), timeout=ANSWER_SECONDS)
        value |= {"server": answer.version, "serverName": answer.name}
        if form is DataFormat.TABLE:
            output.line(f"{answer.name} {answer.version}")
    if form is DataFormat.JSON:
        output.as_json(value)
    elif form is DataFormat.YAML:
        output.as_yaml(value)


def log_level(
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="debug, info, warning or error.")],
) -> None:
    """Change what the controller logs, until the next change or restart."""
    from sdn.v1 import inspection_pb2, inspection_pb2_grpc

    with connected() as channel:
        stub = inspection_pb2_grpc.DaemonStub(channel)
        answer = stub.SetLogLevel(inspection_pb2.SetLogLevelRequest(level=level), timeout=ANSWER_SECONDS)
    output.line(f"log level {level} (was {answer.previous})")
