# SPDX-License-Identifier: Apache-2.0
"""A gRPC server for tests of the command line: it answers what the test has put there, through a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from sdn.v1 import inspection_pb2 as pb
from sdn.v1 import inspection_pb2_grpc as services
from sdn.v1 import types_pb2

#: Calls sdnctl with arguments; its exit code, and what it wrote to stdout and stderr.
Sdnctl = Callable[..., tuple[int, str, str]]


class Cluster(services.InspectionServicer, services.DaemonServicer):
    """Holds objects by kind/namespace/name; refuses those without metadata.name, as a controller does."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.switches: list[pb.Switch] = []
        self.controllers = pb.ListControllersResponse()
        #: What DrainController says of it, and what it was asked for, the last time.
        self.drain_warning = ""
        self.drain = pb.DrainControllerRequest()
        self.flows: list[pb.FlowEntry] = []
        self.groups: list[pb.GroupEntry] = []
        self.described: dict[tuple[str, str], pb.DescribeServiceResponse] = {}
        #: Descriptions of policies by kind, namespace, name.
        self.policies: dict[tuple[str, str, str], pb.DescribePolicyResponse] = {}
        #: What CheckPolicy answers, or refuses with; and what it was asked for, the last time.
        self.checked: pb.CheckPolicyResponse | tuple[grpc.StatusCode, str] = pb.CheckPolicyResponse()
        self.check = pb.CheckPolicyRequest()
        self.verdicts: list[types_pb2.VerdictRecord] = []
        #: Asked for, the last one.
        self.watched = pb.WatchVerdictsRequest()
        self.level = "info"

    def declare(self, *documents: dict[str, Any]) -> None:
        """Put objects there as if they had been applied."""
        for document in documents:
            self.objects[key_of(document)] = document

    def Apply(self, request: pb.ApplyRequest, context: grpc.ServicerContext) -> pb.ApplyResponse:  # noqa: N802
        document = json_format.MessageToDict(request.object)
        metadata = document.get("metadata", {})
        if "name" not in metadata:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "metadata.name: is required")
        key = key_of(document)
        before = self.objects.get(key)
        if not request.dry_run:
            self.objects[key] = document
        outcome = pb.ApplyResponse.OUTCOME_CONFIGURED
        if before is None:
            outcome = pb.ApplyResponse.OUTCOME_CREATED
        elif before == document:
            outcome = pb.ApplyResponse.OUTCOME_UNCHANGED
        return pb.ApplyResponse(outcome=outcome, object=request.object)

    def Delete(self, request: pb.DeleteRequest, context: grpc.ServicerContext) -> pb.DeleteResponse:  # noqa: N802
        key = (request.kind, request.namespace, request.name)
        if self.objects.pop(key, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.kind} {request.name} does not exist")
        return pb.DeleteResponse()

    def Get(self, request: pb.GetRequest, context: grpc.ServicerContext) -> pb.GetResponse:  # noqa: N802
        answer = pb.GetResponse(revision=7)
        for document in self._fitting(request):
            answer.objects.add().update(document)
        if request.name and not answer.objects and request.kind.endswith("Policy"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.kind} {request.name} does not exist")
        return answer

    def Watch(  # noqa: N802
        self, request: pb.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchEvent]:
        for document in self._fitting(request):
            event = pb.WatchEvent(type=pb.WatchEvent.TYPE_ADDED)
            event.object.update(document)
            yield event
        yield pb.WatchEvent(type=pb.WatchEvent.TYPE_BOOKMARK)

    def ListSwitches(  # noqa: N802
        self, request: pb.ListSwitchesRequest, context: grpc.ServicerContext
    ) -> pb.ListSwitchesResponse:
        return pb.ListSwitchesResponse(switches=self.switches)

    def ListControllers(  # noqa: N802
        self, request: pb.ListControllersRequest, context: grpc.ServicerContext
    ) -> pb.ListControllersResponse:
        return self.controllers

    def DrainController(  # noqa: N802
        self, request: pb.DrainControllerRequest, context: grpc.ServicerContext
    ) -> pb.DrainControllerResponse:
        self.drain = request
        return pb.DrainControllerResponse(warning=self.drain_warning)

    def ListFlows(  # noqa: N802
        self, request: pb.ListFlowsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListFlowsResponse]:
        if request.node != "node-1":
            context.abort(grpc.StatusCode.UNAVAILABLE, f"the switch of {request.node} is not connected")
        for flow in self.flows:
            if request.owner in ("", flow.owner) and request.table in ("", flow.table):
                yield pb.ListFlowsResponse(flows=[flow])

    def ListGroups(  # noqa: N802
        self, request: pb.ListGroupsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListGroupsResponse]:
        if request.node != "node-1":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Node {request.node} is not registered")
        for group in self.groups:
            if request.owner in ("", group.owner):
                yield pb.ListGroupsResponse(groups=[group])

    def DescribeService(  # noqa: N802
        self, request: pb.DescribeServiceRequest, context: grpc.ServicerContext
    ) -> pb.DescribeServiceResponse:
        found = self.described.get((request.namespace, request.name))
        if found is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Service {request.namespace}/{request.name} does not exist"
            )
        answer = pb.DescribeServiceResponse()
        answer.CopyFrom(found)
        if request.node:
            kept = [node for node in found.nodes if node.node == request.node]
            del answer.nodes[:]
            answer.nodes.extend(kept)
        return answer

    def DescribePolicy(  # noqa: N802
        self, request: pb.DescribePolicyRequest, context: grpc.ServicerContext
    ) -> pb.DescribePolicyResponse:
        found = self.policies.get((request.kind, request.namespace, request.name))
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.kind} {request.name} does not exist")
        answer = pb.DescribePolicyResponse()
        answer.CopyFrom(found)
        if request.node:
            kept = [node for node in found.nodes if node.node == request.node]
            del answer.nodes[:]
            answer.nodes.extend(kept)
        return answer

    def CheckPolicy(  # noqa: N802
        self, request: pb.CheckPolicyRequest, context: grpc.ServicerContext
    ) -> pb.CheckPolicyResponse:
        self.check = request
        if isinstance(self.checked, tuple):
            context.abort(*self.checked)
        return self.checked

    def WatchVerdicts(  # noqa: N802
        self, request: pb.WatchVerdictsRequest, context: grpc.ServicerContext
    ) -> Iterator[types_pb2.VerdictRecord]:
        self.watched = request
        yield from self.verdicts

    def GetVersion(  # noqa: N802
        self, request: pb.GetVersionRequest, context: grpc.ServicerContext
    ) -> pb.GetVersionResponse:
        return pb.GetVersionResponse(name="sdn-controller", version="9.8.7")

    def SetLogLevel(  # noqa: N802
        self, request: pb.SetLogLevelRequest, context: grpc.ServicerContext
    ) -> pb.SetLogLevelResponse:
        if request.level not in ("debug", "info"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "level: use debug or info")
        before, self.level = self.level, request.level
        return pb.SetLogLevelResponse(previous=before)

    def _fitting(self, request: pb.GetRequest | pb.WatchRequest) -> list[dict[str, Any]]:
        return [
            document
            for (kind, namespace, name), document in sorted(self.objects.items())
            if kind == request.kind
            and request.namespace in ("", namespace)
            and request.name in ("", name)
            and all(
                document["metadata"].get("labels", {}).get(key) == value
                for key, _, value in (
                    part.partition("=") for part in request.label_selector.split(",") if part
                )
            )
        ]


def key_of(document: dict[str, Any]) -> tuple[str, str, str]:
    """Its kind, namespace and name."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def cells(text: str) -> list[list[str]]:
    """A table's cells, line by line."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.splitlines()]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Cluster, str]]:
    """A running server and its address."""
    cluster = Cluster()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_InspectionServicer_to_server(cluster, server)
    services.add_DaemonServicer_to_server(cluster, server)
    address = f"unix:{folder}/s"
    server.add_insecure_port(address)
    server.start()
    try:
        yield cluster, address
    finally:
        server.stop(None).wait()
