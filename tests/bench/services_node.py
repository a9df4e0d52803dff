# SPDX-License-Identifier: Apache-2.0
"""A node for the benchmark of Services: a real controller, a real switch with pods on it, and many Services.

All in one network namespace, except the pods, which have one each. There is no agent (so that what it does for
Services on the host is not in the figures): this process opens the agent's session and wires the pods as an agent
does. Every Service has ten endpoints, the same ten pods, listed by an EndpointSlice as Kubernetes writes them.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import struct_pb2

from sdn.v1 import inspection_pb2, types_pb2
from tests.bench import netns, process
from tests.bench.relay import Relay
from tests.switch.controller_process import AgentStream, ControllerProcess, attachment, node_info
from tests.switch.ovs import PrivateSwitch, wait_until

Document = dict[str, Any]

PREFIX: Final = "rc-services"
ENDPOINTS: Final = 10
"""Pods that are endpoints; the client is one more."""
PORT: Final = 80
TARGET_PORT: Final = 8080
STRAIGHT_PORT: Final = 8081
"""Of connections to a pod without a Service. Another, since a source port that comes again so soon would meet what is
left of a translated connection."""
SELECTING_ADDRESS: Final = "10.96.0.100"
MTU: Final = 1450
WAIT_SECONDS: Final = 600.0
_NFT_TABLE: Final = "bench"
_IN_FLIGHT: Final = 64
_ROOT: Final = Path(__file__).resolve().parents[2]


class Controller(ControllerProcess):
    """In the benchmark's namespace; asked over its unix socket, which is the same from everywhere."""

    def channel(self) -> grpc.Channel:
        channel = grpc.insecure_channel(
            f"unix:{self.folder}/controller.sock", [("grpc.max_receive_message_length", 32 << 20)]
        )
        self._channels.append(channel)
        return channel

    def spawn(self) -> subprocess.Popen[bytes]:
        with netns.entered(PREFIX):
            spawned = super().spawn()
        if process.is_first():
            process.go_first(spawned.pid)
        return spawned

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Node:
    """The node, with its controller. Make it by :func:`services_node`."""

    def __init__(self, controller: Controller, switch: PrivateSwitch, agent: AgentStream) -> None:
        self.controller = controller
        self.switch = switch
        self.pods: list[types_pb2.Attachment] = []
        self._agent = agent
        self._apply = controller.inspection().Apply

    @property
    def name(self) -> str:
        return self._agent.node.name

    @property
    def client(self) -> str:
        """Network namespace of the client's pod."""
        return f"{PREFIX}-pod-0"

    @property
    def servers(self) -> list[str]:
        """Network namespaces of the endpoints."""
        return [f"{PREFIX}-pod-{number}" for number in range(1, ENDPOINTS + 1)]

    @property
    def endpoints(self) -> list[str]:
        """Their IPv4 addresses."""
        return [pod.addresses[0] for pod in self.pods[1:]]

    def connect(self, port: int) -> None:
        """Point the switch at a port of the controller's, or of a relay's."""
        self.switch.vsctl(
            *("set-controller", self.switch.bridge, f"tcp:127.0.0.1:{port}"),
            *("--", "set", "controller", self.switch.bridge, "max_backoff=1000", "inactivity_probe=60000"),
        )

    def disconnect(self) -> None:
        """Take the controller away from the switch, which goes on."""
        self.switch.vsctl("del-controller", self.switch.bridge)
        wait_until(lambda: not self.status().connected, "the controller to see that the switch is gone")

    def status(self) -> inspection_pb2.Switch:
        return self.controller.switch(self.name)

    def apply(self, document: Document) -> None:
        """Declare one object. grpc.RpcError says why not."""
        self._apply(_request(document), timeout=WAIT_SECONDS)

    def apply_all(self, documents: Iterable[Document]) -> None:
        """Declare many, some of them at once; returns when all are stored."""
        waiting: deque[grpc.Future[inspection_pb2.ApplyResponse]] = deque()
        for document in documents:
            if len(waiting) >= _IN_FLIGHT:
                waiting.popleft().result()
            waiting.append(self._apply.future(_request(document), timeout=WAIT_SECONDS))
        for call in waiting:
            call.result()

    def add_pods(self) -> None:
        """Wire and attach the client and the endpoints."""
        self.pods = [
            attachment(self._agent.node, number, labels={"app": "web" if number else "client"})
            for number in range(ENDPOINTS + 1)
        ]
        with netns.entered(PREFIX):
            _run("nft", "add", "table", "netdev", _NFT_TABLE)
            for number, pod in enumerate(self.pods):
                _wire(f"{PREFIX}-pod-{number}", f"pod{number}", pod)
        for number, pod in enumerate(self.pods):
            self.switch.add_port(f"pod{number}", pod.ofport, kind="system")
        for sequence in [self._agent.attach(pod) for pod in self.pods]:
            if (why := self._agent.answer(sequence)) is not None:
                raise RuntimeError(f"a pod was rejected: {why}")


@contextmanager
def services_node() -> Iterator[Node]:
    """A registered node with its pods, connected to its controller."""
    with ExitStack() as stack:
        for name in (PREFIX, *(f"{PREFIX}-pod-{number}" for number in range(ENDPOINTS + 1))):
            stack.enter_context(netns.namespace(name))
        with netns.entered(PREFIX):
            switch = stack.enter_context(PrivateSwitch("netdev"))
            controller = Controller(log_level="info")
        stack.enter_context(controller)
        agent = stack.enter_context(AgentStream(controller, node_info(1)))
        agent.full_state()
        switch.vsctl(
            *("set", "bridge", switch.bridge),
            f"other-config:datapath-id={agent.node.datapath_id:016x}",
        )
        node = Node(controller, switch, agent)
        node.connect(controller.openflow_port)
        node.add_pods()
        yield node


@contextmanager
def relayed(node: Node) -> Iterator[Relay]:
    """While this lasts the switch is connected through a relay."""
    relay = Relay(PREFIX, ("127.0.0.1", node.controller.openflow_port))
    node.connect(relay.port)
    try:
        wait_until(lambda: relay.confirmations > 0 or relay.sent().messages > 5, "the switch to connect")
        wait_until(lambda: node.status().synchronized, "the switch to be compared")
        yield relay
    finally:
        node.connect(node.controller.openflow_port)
        relay.close()


@contextmanager
def accepting(node: Node) -> Iterator[None]:
    """While this lasts all endpoints take connections."""
    ports = f"{TARGET_PORT},{STRAIGHT_PORT}"
    command = [sys.executable, "-m", "tests.bench.acceptor", ports, *node.servers]
    server = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        if server.stdout.readline() != "listening\n":
            raise RuntimeError("the servers do not listen")
        yield
    finally:
        server.terminate()
        server.communicate()


def service_address(number: int) -> str:
    """The ClusterIP of a Service (10.96.1.0 and on)."""
    number += 256
    return f"10.96.{number >> 8}.{number & 255}"


def service_documents(number: int, endpoints: Sequence[str]) -> tuple[Document, Document]:
    """A Service (ClusterIP, IPv4, TCP) without a selector, and its EndpointSlice."""
    name = f"service-{number}"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": service_address(number),
            "ports": [{"port": PORT, "targetPort": TARGET_PORT}],
        },
    }
    return service, slice_document(number, endpoints)


def slice_document(number: int, endpoints: Sequence[str]) -> Document:
    """The EndpointSlice of a Service."""
    name = f"service-{number}"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-x",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "nodeName": "node-1"}
            for address in endpoints
        ],
        "ports": [{"port": TARGET_PORT, "protocol": "TCP"}],
    }


def selecting_service() -> Document:
    """A Service that finds its endpoints by the pods' label."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "selecting", "namespace": "default"},
        "spec": {
            "clusterIP": SELECTING_ADDRESS,
            "selector": {"app": "web"},
            "ports": [{"port": PORT, "targetPort": TARGET_PORT}],
        },
    }


def pod_document(pod: types_pb2.Attachment, ready: bool) -> Document:
    """A pod as the kubelet tells of it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.pod_name,
            "namespace": pod.pod_namespace,
            "labels": dict(pod.labels),
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def _request(document: Document) -> inspection_pb2.ApplyRequest:
    struct = struct_pb2.Struct()
    struct.update(document)
    return inspection_pb2.ApplyRequest(object=struct)


def _wire(namespace: str, port: str, pod: types_pb2.Attachment) -> None:
    """As the agent does: no checksum offload in the pod, and the host's stack does not see its packets again."""
    _run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _run("sysctl", "-qw", f"net.ipv6.conf.{port}.disable_ipv6=1")
    _run("ip", "link", "set", port, "mtu", str(MTU), "up")
    chain = f"{{ type filter hook ingress device {port} priority 0; policy drop; }}"
    _run("nft", "add", "chain", "netdev", _NFT_TABLE, port, chain)
    with netns.entered(namespace):
        _run("ip", "link", "set", "eth0", "address", pod.mac, "mtu", str(MTU), "up")
        _run("ethtool", "-K", "eth0", "tx", "off")
        address = pod.addresses[0]
        _run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "route", "add", "default", "via", f"{address.rpartition('.')[0]}.1")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
