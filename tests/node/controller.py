# SPDX-License-Identifier: Apache-2.0
"""A controller that only speaks the agent's protocol: it assigns ranges, remembers attachments and confirms them.

It stands in where the test is of the agent alone and of what the agent does when a controller is silent, refuses, or is
not there. Tests of packets use the real one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import grpc

from sdn.v1 import controller_pb2 as messages
from sdn.v1 import controller_pb2_grpc, types_pb2


class Controller(controller_pb2_grpc.ControllerServicer):
    """Serves on `folder/controller.sock`; ranges are 10.241.N.0/24 and fd00:10:241:N::/64 for node-N."""

    def __init__(self, folder: Path, ranges: list[str] | None = None) -> None:
        """`ranges`: what every node is assigned, instead of the usual."""
        self.target = f"unix:{folder}/controller.sock"
        self._ranges = ranges
        self._lock = threading.Lock()
        self.attachments: dict[str, dict[tuple[str, str], types_pb2.Attachment]] = {}
        self.nodes: dict[str, types_pb2.NodeInfo] = {}
        self.full_states: list[messages.FullState] = []
        self.confirms = threading.Event()
        self.confirms.set()
        self.refuses = ""
        self.serve_dns = False
        self.services: dict[tuple[str, str], messages.ServiceState] = {}
        self.connection_counts: SimpleQueue[messages.ConnectionCounts] = SimpleQueue()
        self.connections: SimpleQueue[messages.Connections] = SimpleQueue()
        self._service_streams: list[SimpleQueue[messages.ServiceUpdate | None]] = []
        self._streams: dict[str, SimpleQueue[messages.ControllerMessage | None]] = {}
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(16))
        controller_pb2_grpc.add_ControllerServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        self._server.start()

    def stop(self) -> None:
        """Gone without a word; what it remembers stays for the next start."""
        with self._lock:
            for stream in self._streams.values():
                stream.put(None)
            for watched in self._service_streams:
                watched.put(None)
        if self._server is not None:
            self._server.stop(grace=0).wait()
            self._server = None

    def pods(self, node: str) -> set[str]:
        """namespace/name of what is attached."""
        with self._lock:
            found = self.attachments.get(node, {}).values()
            return {f"{attachment.pod_namespace}/{attachment.pod_name}" for attachment in found}

    def tell_peers(self, node: str, peers: list[types_pb2.NodeInfo]) -> None:
        self._streams[node].put(messages.ControllerMessage(peers=messages.Peers(nodes=peers)))

    def serve(self, *services: messages.ServiceState) -> None:
        """Tell all agents of Services that are new or have changed."""
        for service in services:
            with self._lock:
                self.services[service.namespace, service.name] = service
                for stream in self._service_streams:
                    stream.put(messages.ServiceUpdate(service=service))

    def withdraw(self, *names: str) -> None:
        """Tell all agents that Services in namespace default are gone."""
        for name in names:
            with self._lock:
                del self.services["default", name]
                gone = messages.ServiceName(namespace="default", name=name)
                for stream in self._service_streams:
                    stream.put(messages.ServiceUpdate(removed=gone))

    def count_connections(self, node: str, *endpoints: messages.Destination) -> messages.ConnectionCounts:
        """Ask an agent, and wait for what it answers."""
        self._streams[node].put(
            messages.ControllerMessage(
                count_connections=messages.CountConnections(sequence=77, endpoints=endpoints)
            )
        )
        return self.connection_counts.get(timeout=60)

    def list_connections(self, node: str, *ranges: str) -> list[messages.Connections]:
        """Ask an agent, and wait for all of what it answers."""
        question = messages.ListConnections(sequence=78, ranges=ranges)
        self._streams[node].put(messages.ControllerMessage(list_connections=question))
        parts = [self.connections.get(timeout=60)]
        while not parts[-1].last:
            parts.append(self.connections.get(timeout=60))
        return parts

    def tell_verdicts(self, node: str, *records: types_pb2.VerdictRecord) -> None:
        verdicts = messages.Verdicts(records=records)
        self._streams[node].put(messages.ControllerMessage(verdicts=verdicts))

    def WatchServices(  # noqa: N802
        self, request: messages.WatchServicesRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.ServiceUpdate]:
        if request.node not in self.nodes:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no node {request.node}")
        outgoing: SimpleQueue[messages.ServiceUpdate | None] = SimpleQueue()
        with self._lock:
            for service in self.services.values():
                outgoing.put(messages.ServiceUpdate(service=service))
            outgoing.put(messages.ServiceUpdate(synced=messages.Synced()))
            self._service_streams.append(outgoing)
        context.add_callback(lambda: outgoing.put(None))
        while (update := outgoing.get()) is not None:
            yield update
        with self._lock:
            self._service_streams.remove(outgoing)

    def Session(  # noqa: N802
        self, request_iterator: Iterator[messages.AgentMessage], context: grpc.ServicerContext
    ) -> Iterator[messages.ControllerMessage]:
        hello = next(request_iterator).hello
        node = hello.node.name
        if node in self.nodes and self.nodes[node].uid != hello.node.uid:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"another node is registered as {node}")
        number = int(node.rpartition("-")[2])
        info = types_pb2.NodeInfo()
        info.CopyFrom(hello.node)
        del info.pod_ranges[:]
        info.pod_ranges.extend(self._ranges or [f"10.241.{number}.0/24", f"fd00:10:241:{number}::/64"])
        outgoing: SimpleQueue[messages.ControllerMessage | None] = SimpleQueue()
        with self._lock:
            self.nodes[node] = info
            self._streams[node] = outgoing
        welcome = messages.Welcome(
            node=info,
            cluster_ranges=["10.241.0.0/16", "fd00:10:241::/48"],
            controller_name="stub",
            controller_version="0",
            openflow_targets=["tcp:172.31.0.1:6653"],
            service_ranges=["10.97.0.0/16", "fd00:10:97::/112"],
            load_balancer_ranges=["172.31.0.192/28", "fd00:31::c0/124"],
            node_port_first=30000,
            node_port_last=32767,
            cluster_domain="cluster.local",
            dns_addresses=["10.97.0.10", "fd00:10:97::a"],
            serve_dns=self.serve_dns,
        )
        outgoing.put(messages.ControllerMessage(welcome=welcome))
        threading.Thread(target=self._listen, args=(node, request_iterator, outgoing), daemon=True).start()
        while (message := outgoing.get()) is not None:
            yield message

    def _listen(
        self,
        node: str,
        incoming: Iterator[messages.AgentMessage],
        outgoing: SimpleQueue[messages.ControllerMessage | None],
    ) -> None:
        try:
            for message in incoming:
                self._take(node, message, outgoing)
        except grpc.RpcError:
            pass  # the agent went away
        outgoing.put(None)

    def _take(
        self,
        node: str,
        message: messages.AgentMessage,
        outgoing: SimpleQueue[messages.ControllerMessage | None],
    ) -> None:
        kind = message.WhichOneof("message")
        if kind == "connection_counts":
            self.connection_counts.put(message.connection_counts)
            return
        if kind == "connections":
            self.connections.put(message.connections)
            return
        with self._lock:
            held = self.attachments.setdefault(node, {})
            if kind == "full_state":
                held.clear()
                held |= {(a.container_id, a.interface_name): a for a in message.full_state.attachments}
                self.full_states.append(message.full_state)
            elif kind == "attach" and not self.refuses:
                attachment = message.attach.attachment
                held[attachment.container_id, attachment.interface_name] = attachment
            elif kind == "detach":
                held.pop((message.detach.container_id, message.detach.interface_name), None)
        sequence = getattr(message, str(kind)).sequence
        if kind == "attach" and self.refuses:
            rejected = messages.Rejected(sequence=sequence, reason=self.refuses)
            outgoing.put(messages.ControllerMessage(rejected=rejected))
        elif self.confirms.is_set():
            outgoing.put(messages.ControllerMessage(programmed=messages.Programmed(sequence=sequence)))
