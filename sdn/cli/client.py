# SPDX-License-Identifier: Apache-2.0
"""Calls to a controller, with what can go wrong turned into the errors of this program."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sdn.cli import context
from sdn.cli.errors import CommandError, UnreachableError

if TYPE_CHECKING:
    import grpc

    from sdn.v1 import inspection_pb2_grpc

#: How long a server may take to accept a connection, and to answer a question.
CONNECT_MILLISECONDS = 5000
ANSWER_SECONDS = 60.0


@contextlib.contextmanager
def connected() -> Iterator[grpc.Channel]:
    """A channel to the controller. Inside, a failed call becomes a CommandError: refused, or UnreachableError."""
    import grpc

    where = context.server()
    settings = [
        # A proxy of the environment is for the web.
        ("grpc.enable_http_proxy", 0),
        # The whole of a switch's flows may come in one answer.
        ("grpc.max_receive_message_length", -1),
        # gRPC's only bound for the time that a connection may take to be accepted.
        ("grpc.min_reconnect_backoff_ms", CONNECT_MILLISECONDS),
    ]
    with grpc.insecure_channel(where, options=settings) as channel:
        try:
            yield channel
        except grpc.RpcError as problem:
            raise _told(problem, where, channel) from None


@contextlib.contextmanager
def inspection() -> Iterator[inspection_pb2_grpc.InspectionStub]:
    """The Inspection service of the controller."""
    with connected() as channel:
        from sdn.v1 import inspection_pb2_grpc

        yield inspection_pb2_grpc.InspectionStub(channel)


def _told(problem: grpc.RpcError, where: str, channel: grpc.Channel) -> CommandError:
    import grpc

    code = problem.code()
    details = " ".join((problem.details() or "").split())
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(f"the controller at {where} did not answer in time")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return CommandError(
            f"the server at {where} does not know this request; is it a controller, and as new as sdnctl?"
        )
    if code == grpc.StatusCode.UNAVAILABLE and not _answers(channel):
        return UnreachableError(f"no controller answers at {where} ({details})")
    return CommandError(details or code.name.lower().replace("_", " "))


def _answers(channel: grpc.Channel) -> bool:
    """Tells "the server says that something is unavailable" from "the server is"."""
    import grpc

    from sdn.v1 import inspection_pb2, inspection_pb2_grpc

    try:
        inspection_pb2_grpc.DaemonStub(channel).GetVersion(inspection_pb2.GetVersionRequest(), timeout=2)
    except grpc.RpcError as problem:
        return problem.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return True
