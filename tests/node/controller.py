# SPDX-License-Identifier: Apache-2.0
"""A controller that only speaks the agent's protocol: it assigns ranges, remembers attachments and confirms them.

It stands in where the test is of the agent alone and of what the agent does when a controller is silent, refuses, or is
not there. Tests of packets use the real one.

Alone it is an older controller, which knows nothing of owners. Several of them in a `Cluster` (tests/node/cluster.py)
share the nodes: each refuses those that belong to another one, and takes those that belong to nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Protocol, Self

import grpc

from sdn.v1 import controller_pb2 as messages
from sdn.v1 import controller_pb2_grpc, types_pb2

#: As the real one: agents ask every two seconds for a sign of life.
_OPTIONS: Final = (
    ("grpc.http2.min_ping_interval_without_data_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class Nodes(Protocol):
    """What a controller must know of who owns which node."""

    def elsewhere(self, controller: Controller, node: str) -> str:
        """Why a controller must not serve a node; empty: it owns it, from now on if nobody did."""

    def word(self, node: str) -> messages.Owner:
        """Who owns it, as WatchOwner says it."""

    def targets(self) -> list[str]:
        """OpenFlow targets of all controllers."""


class Controller(controller_pb2_grpc.ControllerServicer):
    """Serves on `folder/NAME.sock`; ranges are 10.241.N.0/24 and fd00:10:241:N::/64 for node-N."""

    def __init__(
        self,
        folder: Path,
        ranges: list[str] | None = None,
        *,
        name: str = "controller",
        cluster: Nodes | None = None,
        openflow_target: str = "tcp:172.31.0.1:6653",
    ) -> None:
        """`ranges`: what every node is assigned, instead of the usual."""
        self.name = name
        self.target = self.socket = f"unix:{folder}/{name}.sock"
        self.openflow_target = openflow_target
        self._cluster = cluster
        self.ranges = ranges
        self._lock = threading.Lock()
        self.attachments: dict[str, dict[tuple[str, str], types_pb2.Attachment]] = {}
        self.nodes: dict[str, types_pb2.NodeInfo] = {}
        self.full_states: list[messages.FullState] = []
        self.confirms = threading.Event()
        self.confirms.set()
        self.refuses = ""
        #: Pods (namespace/name) that are wrong in a full state; and whether it lists them, or only writes of them.
        self.wrong: set[str] = set()
        self.lists_wrong = True
        #: Attach, as told: namespace/name.
        self.attached: list[str] = []
        self.serve_dns = False
        self.services: dict[tuple[str, str], messages.ServiceState] = {}
        self.connection_counts: SimpleQueue[messages.ConnectionCounts] = SimpleQueue()
        self.connections: SimpleQueue[messages.Connections] = SimpleQueue()
        #: What agents have told that they have put right: kind, and what it was.
        self.drifts: list[tuple[str, str]] = []
        self._service_streams: list[SimpleQueue[messages.ServiceUpdate | None]] = []
        self._streams: dict[str, SimpleQueue[messages.ControllerMessage | None]] = {}
        self._owner_streams: dict[str, list[SimpleQueue[messages.Owner | None]]] = {}
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(32), options=_OPTIONS)
        controller_pb2_grpc.add_ControllerServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.socket)
        self._server.start()

    def stop(self) -> None:
        """Gone without a word; what it remembers stays for the next start."""
        with self._lock:
            for stream in self._streams.values():
                stream.put(None)
            for watched in self._service_streams:
                watched.put(None)
            for asked in self._owner_streams.values():
                for words in asked:
                    words.put(None)
        if self._server is not None:
            self._server.stop(grace=0).wait()
            self._server = None

    def pods(self, node: str) -> set[str]:
        """namespace/name of what is attached."""
        with self._lock:
            found = self.attachments.get(node, {}).values()
            return {f"{attachment.pod_namespace}/{attachment.pod_name}" for attachment in found}

    @property
    def sessions(self) -> set[str]:
        """Nodes whose agents have a stream here."""
        with self._lock:
            return set(self._streams)

    @property
    def service_watchers(self) -> int:
        """How many streams of Services there are."""
        with self._lock:
            return len(self._service_streams)

    def end_session(self, node: str) -> None:
        """End the stream of a node's agent, as if nothing were wrong."""
        self._streams[node].put(None)

    def tell_owner(self, node: str, word: messages.Owner) -> None:
        """Say who owns a node to those who ask here."""
        with self._lock:
            for words in self._owner_streams.get(node, ()):
                words.put(word)

    def WatchOwner(  # noqa: N802
        self, request: messages.WatchOwnerRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.Owner]:
        if self._cluster is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        outgoing: SimpleQueue[messages.Owner | None] = SimpleQueue()
        with self._lock:
            outgoing.put(self._cluster.word(request.node))
            self._owner_streams.setdefault(request.node, []).append(outgoing)
        context.add_callback(lambda: outgoing.put(None))
        while (word := outgoing.get()) is not None:
            yield word
        with self._lock:
            self._owner_streams[request.node].remove(outgoing)

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
        if self._cluster is not None and (why := self._cluster.elsewhere(self, node)):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)
        number = int(node.rpartition("-")[2])
        info = types_pb2.NodeInfo()
        info.CopyFrom(hello.node)
        del info.pod_ranges[:]
        info.pod_ranges.extend(self.ranges or [f"10.241.{number}.0/24", f"fd00:10:241:{number}::/64"])
        outgoing: SimpleQueue[messages.ControllerMessage | None] = SimpleQueue()
        with self._lock:
            self.nodes[node] = info
            self._streams[node] = outgoing
        welcome = messages.Welcome(
            node=info,
            cluster_ranges=["10.241.0.0/16", "fd00:10:241::/48"],
            controller_name=self.name,
            controller_version="0",
            openflow_targets=self._cluster.targets() if self._cluster else [self.openflow_target],
            service_ranges=["10.97.0.0/16", "fd00:10:97::/112"],
            load_balancer_ranges=["172.31.0.192/28", "fd00:31::c0/124"],
            node_port_first=30000,
            node_port_last=32767,
            cluster_domain="cluster.local",
            dns_addresses=["10.97.0.10", "fd00:10:97::a"],
            serve_dns=self.serve_dns,
            takes_drift=True,
        )
        outgoing.put(messages.ControllerMessage(welcome=welcome))
        threading.Thread(target=self._listen, args=(node, request_iterator, outgoing), daemon=True).start()
        while (message := outgoing.get()) is not None:
            yield message
        with self._lock:
            if self._streams.get(node) is outgoing:
                del self._streams[node]

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
        if kind == "drift":
            self.drifts.append((message.drift.kind, message.drift.what))
            return
        wrong: list[messages.WrongItem] = []
        with self._lock:
            held = self.attachments.setdefault(node, {})
            if kind == "full_state":
                held.clear()
                for index, item in enumerate(message.full_state.attachments):
                    pod = f"{item.pod_namespace}/{item.pod_name}"
                    if pod in self.wrong:
                        reason = f"Pod {pod}: attachments[{index}].addresses[0]: is not what it should be"
                        wrong.append(messages.WrongItem(index=index, reason=reason))
                    else:
                        held[item.container_id, item.interface_name] = item
                self.full_states.append(message.full_state)
            elif kind == "attach" and not self.refuses:
                attachment = message.attach.attachment
                held[attachment.container_id, attachment.interface_name] = attachment
                self.attached.append(f"{attachment.pod_namespace}/{attachment.pod_name}")
            elif kind == "detach":
                held.pop((message.detach.container_id, message.detach.interface_name), None)
        sequence = getattr(message, str(kind)).sequence
        if kind == "attach" and self.refuses:
            rejected = messages.Rejected(sequence=sequence, reason=self.refuses)
            outgoing.put(messages.ControllerMessage(rejected=rejected))
        elif wrong:
            rejected = messages.Rejected(sequence=sequence, reason="; ".join(item.reason for item in wrong))
            if self.lists_wrong:
                rejected.wrong.extend(wrong)
            outgoing.put(messages.ControllerMessage(rejected=rejected))
        elif self.confirms.is_set():
            outgoing.put(messages.ControllerMessage(programmed=messages.Programmed(sequence=sequence)))
