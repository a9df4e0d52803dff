# SPDX-License-Identifier: Apache-2.0
"""The agent over gRPC: the verbs of CNI for shims in other languages, its state, health, reflection, log level.

Health (grpc.health.v1): the empty service name is SERVING as long as the agent answers; "sdn.v1.Agent" is
SERVING while an ADD can succeed: the node is set up and a controller is connected.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agent.attachments import Attachments
from agent.cni.request import Call
from agent.lines import Line, line_of, no_room
from agent.nodesetup.setup import NodeSetup
from agent.report import Reporter
from agent.server import Answer
from agent.settings import PROGRAM
from agent.state import State
from agent.wire import attachment, node_info
from sdn import logs
from sdn.v1 import agent_pb2, agent_pb2_grpc, inspection_pb2, inspection_pb2_grpc
from sdn.version import VERSION

log: Final = logs.get("agent.grpcserver")
AGENT: Final = "sdn.v1.Agent"
#: Verbs of a line that wait for their turn, each in a thread; what comes then is to be tried again.
WAITING: Final = 64
#: Threads for all that is no verb.
_OTHERS: Final = 4


class _Turns:
    """A line: so many verbs have their turn at once, and `WAITING` more have room to wait for it."""

    def __init__(self, parallel: int) -> None:
        self.turn = threading.Semaphore(parallel)
        self.room = threading.Semaphore(parallel + WAITING)


class AgentService(agent_pb2_grpc.AgentServicer):
    """`sdn.v1.Agent`. `parallel` verbs of each line (`agent.lines`) are worked on at once."""

    def __init__(
        self,
        answer: Answer,
        state: State,
        setup: NodeSetup,
        reporter: Reporter,
        attachments: Attachments,
        parallel: int,
    ) -> None:
        self._answer = answer
        self._lines = {line: _Turns(parallel) for line in Line}
        self._state = state
        self._setup = setup
        self._reporter = reporter
        self._attachments = attachments

    def _verb(
        self, verb: str, request: agent_pb2.CniRequest, context: grpc.ServicerContext
    ) -> agent_pb2.CniResponse:
        line = self._lines[line_of(verb)]
        if not line.room.acquire(blocking=False):
            # Whoever waits has a thread, and some must be left for health and the rest.
            code, output = no_room(verb, request.config)
            return agent_pb2.CniResponse(code=code, output=output)
        try:
            with line.turn:
                if not context.is_active():
                    return agent_pb2.CniResponse()  # Nobody is there to be answered any more.
                code, output = self._answer(
                    Call(
                        verb,
                        request.container_id,
                        request.netns,
                        request.ifname,
                        request.args,
                        request.path,
                        request.config,
                        context.is_active,
                    )
                )
        finally:
            line.room.release()
        return agent_pb2.CniResponse(code=code, output=output)

    def Add(self, request: agent_pb2.CniRequest, context: grpc.ServicerContext) -> agent_pb2.CniResponse:  # noqa: N802
        return self._verb("ADD", request, context)

    def Del(self, request: agent_pb2.CniRequest, context: grpc.ServicerContext) -> agent_pb2.CniResponse:  # noqa: N802
        return self._verb("DEL", request, context)

    def Check(self, request: agent_pb2.CniRequest, context: grpc.ServicerContext) -> agent_pb2.CniResponse:  # noqa: N802
        return self._verb("CHECK", request, context)

    def Status(self, request: agent_pb2.CniRequest, context: grpc.ServicerContext) -> agent_pb2.CniResponse:  # noqa: N802
        return self._verb("STATUS", request, context)

    def GC(self, request: agent_pb2.CniRequest, context: grpc.ServicerContext) -> agent_pb2.CniResponse:  # noqa: N802
        return self._verb("GC", request, context)

    def Version(self, request: agent_pb2.CniRequest, context: grpc.ServicerContext) -> agent_pb2.CniResponse:  # noqa: N802
        return self._verb("VERSION", request, context)

    def GetState(  # noqa: N802
        self, request: agent_pb2.GetStateRequest, context: grpc.ServicerContext
    ) -> agent_pb2.GetStateResponse:
        facts, assignment = self._setup.facts, self._setup.assignment
        changed_at = Timestamp()
        changed_at.FromDatetime(self._reporter.changed_at)
        ranges = assignment.pod_ranges if assignment is not None else []
        controller, address = self._reporter.controller
        return agent_pb2.GetStateResponse(
            node=node_info(facts, ranges) if facts is not None else None,
            attachments=[
                agent_pb2.AttachmentState(
                    attachment=attachment(record), programmed=self._attachments.is_programmed(record)
                )
                for record in self._state.attachments()
            ],
            connected=bool(address),
            controller=controller,
            controller_address=address,
            connection_changed_at=changed_at,
            ranges=[
                agent_pb2.RangeUsage(range=usage.range, used=usage.used, capacity=usage.capacity)
                for usage in self._attachments.usage()
            ],
        )


class DaemonService(inspection_pb2_grpc.DaemonServicer):
    """`sdn.v1.Daemon`."""

    def GetVersion(  # noqa: N802
        self, request: inspection_pb2.GetVersionRequest, context: grpc.ServicerContext
    ) -> inspection_pb2.GetVersionResponse:
        return inspection_pb2.GetVersionResponse(name=PROGRAM, version=VERSION)

    def SetLogLevel(  # noqa: N802
        self, request: inspection_pb2.SetLogLevelRequest, context: grpc.ServicerContext
    ) -> inspection_pb2.SetLogLevelResponse:
        previous = logs.levels()
        try:
            logs.set_levels(request.level)
        except ValueError as problem:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"level: {problem}")
        log.info("log level changed", level=request.level, previous=previous)
        return inspection_pb2.SetLogLevelResponse(previous=previous)


class GrpcServer:
    """Serves all of it on one unix socket, for root only."""

    def __init__(self, path: Path, service: AgentService, parallel: int) -> None:
        self._path = path
        self._health = health.HealthServicer()
        # Verbs wait for the switch; health and the rest must not wait for verbs.
        threads = len(Line) * (parallel + WAITING) + _OTHERS
        self._server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="grpc"))
        agent_pb2_grpc.add_AgentServicer_to_server(service, self._server)
        inspection_pb2_grpc.add_DaemonServicer_to_server(DaemonService(), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        daemon = inspection_pb2.DESCRIPTOR.services_by_name["Daemon"].full_name
        reflection.enable_server_reflection(
            (AGENT, daemon, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.set_able(False)

    def start(self) -> None:
        """Begin to serve. OSError when the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        try:
            self._server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError as problem:
            raise OSError(f"{self._path}: {problem}") from None
        self._server.start()
        self._path.chmod(0o600)
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("serving gRPC", socket=self._path)

    def set_able(self, able: bool) -> None:
        """Whether an ADD can succeed."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if able else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        self._health.set(AGENT, status)

    def close(self) -> None:
        """Take no more calls, finish those under way."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace=5).wait()
        self._path.unlink(missing_ok=True)
