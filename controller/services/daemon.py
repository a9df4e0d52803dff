# SPDX-License-Identifier: Apache-2.0
"""What every daemon of this network answers about itself."""

from __future__ import annotations

from typing import Any

import grpc

from sdn import logs
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from sdn.version import VERSION

log = logs.get("controller.daemon")

Context = grpc.aio.ServicerContext[Any, Any]


class DaemonService(inspection_pb2_grpc.DaemonServicer):
    """``name`` is the program's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def GetVersion(  # noqa: N802 - named in the .proto
        self, request: inspection_pb2.GetVersionRequest, context: Context
    ) -> inspection_pb2.GetVersionResponse:
        return inspection_pb2.GetVersionResponse(name=self._name, version=VERSION)

    async def SetLogLevel(  # noqa: N802
        self, request: inspection_pb2.SetLogLevelRequest, context: Context
    ) -> inspection_pb2.SetLogLevelResponse:
        previous = logs.levels()
        try:
            logs.set_levels(request.level)
        except ValueError as problem:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"level: {problem}")
        log.info("log level set", new=request.level, previous=previous)
        return inspection_pb2.SetLogLevelResponse(previous=previous)
