# SPDX-License-Identifier: Apache-2.0
"""A real sdn-controller in a process of its own, an agent's half of the session, and switches that connect to
it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import json_format

from sdn.v1 import controller_pb2, controller_pb2_grpc, inspection_pb2, inspection_pb2_grpc, types_pb2
from tests.ports import unused_port
from tests.switch.ovs import PrivateSwitch, wait_until

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class ControllerProcess:
    """sdn-controller with a folder of its own; can be killed and started again on the same state."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ct-controller-"))
        self.openflow_port = unused_port()
        self.grpc_port = unused_port()
        self.settings = {
            "store": f"sqlite://{self.folder}/state/store.db",
            "openflow_address": f"127.0.0.1:{self.openflow_port}",
            "grpc_address": f"127.0.0.1:{self.grpc_port}",
            "grpc_socket": f"{self.folder}/controller.sock",
            "log_level": "debug",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._channels: list[grpc.Channel] = []
        self.credentials: grpc.ChannelCredentials | None = None
        self._starts = 0
        self._asked_to_end = False

    def start(self) -> None:
        """Start and wait for readiness."""
        process = self.spawn()

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"the controller ended with {process.returncode}: {self.log_text()}")
            return any(line.get("event") == "ready" for line in self.log())

        wait_until(ready, "the controller to be ready")

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        self._starts += 1
        self._asked_to_end = False
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controller.main", *flags],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("SDN_")},
            )
        return self.process

    @property
    def _log_file(self) -> Path:
        return self.folder / f"log-{self._starts}"

    def log_text(self) -> str:
        return self._log_file.read_text()

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """Events of the current process, of one name or all."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if not event or line["event"] == event]

    def kill(self) -> None:
        assert self.process is not None
        self._asked_to_end = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        self._asked_to_end = True
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def ended_by_itself(self) -> str:
        """How, and its last words; empty: it did not, or nobody has started it."""
        code = self.process.poll() if self.process is not None else None
        if code is None or self._asked_to_end:
            return ""
        return f"the controller ended by itself with code {code}: {self.log_text()[-4000:]}"

    def channel(self) -> grpc.Channel:
        # A channel of its own: gRPC shares connections between equal ones, and a test may break its own.
        options = [("grpc.use_local_subchannel_pool", 1)]
        address = f"127.0.0.1:{self.grpc_port}"
        if self.credentials is not None:
            channel = grpc.secure_channel(address, self.credentials, options)
        else:
            channel = grpc.insecure_channel(address, options)
        self._channels.append(channel)
        return channel

    def inspection(self) -> inspection_pb2_grpc.InspectionStub:
        return inspection_pb2_grpc.InspectionStub(self.channel())

    def switch(self, node: str) -> inspection_pb2.Switch:
        """How the controller sees a node's switch."""
        answer = self.inspection().ListSwitches(inspection_pb2.ListSwitchesRequest(), timeout=PATIENCE)
        return next(switch for switch in answer.switches if switch.node == node)

    def get(self, kind: str, **fields: str) -> list[dict[str, Any]]:
        """Objects as plain documents."""
        answer = self.inspection().Get(inspection_pb2.GetRequest(kind=kind, **fields), timeout=PATIENCE)
        return [json_format.MessageToDict(item) for item in answer.objects]

    def flows(self, node: str, **fields: str) -> list[inspection_pb2.FlowEntry]:
        request = inspection_pb2.ListFlowsRequest(node=node, **fields)
        return [
            flow for answer in self.inspection().ListFlows(request, timeout=PATIENCE) for flow in answer.flows
        ]

    def wait_synchronized(self, node: str) -> None:
        wait_until(lambda: self.switch(node).synchronized, f"the switch of {node} to be synchronized")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        why = self.ended_by_itself()
        self.close()
        if why:
            raise AssertionError(why)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


def node_info(number: int, **fields: Any) -> types_pb2.NodeInfo:
    """Node number N of a cluster, as its agent would describe it."""
    values: dict[str, Any] = {
        "name": f"node-{number}",
        "uid": f"uid-{number}",
        "addresses": [f"172.30.{number >> 8}.{number & 255}", f"fd00:30::{number:x}"],
        "tunnel_address": f"172.30.{number >> 8}.{number & 255}",
        "tunnel_mac": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        "encapsulation": types_pb2.ENCAPSULATION_GENEVE,
        "datapath": types_pb2.DATAPATH_NETDEV,
        "datapath_id": 0xC700000000000000 + number,
        "mtu": 1450,
        "agent_version": "test",
    }
    return types_pb2.NodeInfo(**{**values, **fields})


def attachment(node: types_pb2.NodeInfo, number: int, **fields: Any) -> types_pb2.Attachment:
    """Pod number N on a registered node: address .N+2, port 16+N."""
    prefixes = [text.partition("/")[0] for text in node.pod_ranges]
    addresses = [
        f"{prefix}{number + 2:x}" if ":" in prefix else f"{prefix.rpartition('.')[0]}.{number + 2}"
        for prefix in prefixes
    ]
    low, high = node.datapath_id & 255, node.datapath_id >> 8 & 255
    values: dict[str, Any] = {
        "container_id": f"{node.name}-container-{number}",
        "interface_name": "eth0",
        "pod_namespace": "default",
        "pod_name": f"{node.name}-web-{number}",
        "pod_uid": f"{node.name}-pod-{number}",
        "ofport": 16 + number,
        "mac": f"0a:58:{high:02x}:{low:02x}:{number >> 8:02x}:{number & 255:02x}",
        "addresses": addresses,
    }
    return types_pb2.Attachment(**{**values, **fields})


class AgentStream:
    """An agent's session: sends what a test says, waits for the answer to a sequence number."""

    def __init__(self, controller: ControllerProcess, info: types_pb2.NodeInfo) -> None:
        self._outgoing: queue.Queue[controller_pb2.AgentMessage | None] = queue.Queue()
        self._call = controller_pb2_grpc.ControllerStub(controller.channel()).Session(
            iter(self._outgoing.get, None)
        )
        self._condition = threading.Condition()
        self._answers: dict[int, str | None] = {}
        #: The items of the last refused full state that are wrong, and why.
        self.wrong: dict[int, str] = {}
        self.peers: list[str] | None = None
        #: What the node's switch tracks: endpoint, frontend, how many connections; None: the agent does not answer.
        self.connections: list[tuple[controller_pb2.Destination, controller_pb2.Destination, int]] | None = []
        self.error: grpc.RpcError | None = None
        self.ended = False
        self._sequence = 0
        self._send(hello=controller_pb2.Hello(node=info))
        self.welcome: controller_pb2.Welcome = next(self._call).welcome
        self.node = self.welcome.node
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _send(self, **message: Any) -> None:
        self._outgoing.put(controller_pb2.AgentMessage(**message))

    def _read(self) -> None:
        try:
            for message in self._call:
                with self._condition:
                    match message.WhichOneof("message"):
                        case "programmed":
                            self._answers[message.programmed.sequence] = None
                        case "rejected":
                            self.wrong = {item.index: item.reason for item in message.rejected.wrong}
                            self._answers[message.rejected.sequence] = message.rejected.reason
                        case "peers":
                            self.peers = sorted(node.name for node in message.peers.nodes)
                        case "count_connections":
                            self._count(message.count_connections)
                    self._condition.notify_all()
        except grpc.RpcError as error:
            self.error = error
        with self._condition:
            self.ended = True
            self._condition.notify_all()

    def _count(self, question: controller_pb2.CountConnections) -> None:
        if self.connections is None:
            return
        asked = {(item.address, item.port, item.protocol) for item in question.endpoints}
        counts = [
            controller_pb2.ConnectionCount(endpoint=endpoint, frontend=frontend, connections=number)
            for endpoint, frontend, number in self.connections
            if (endpoint.address, endpoint.port, endpoint.protocol) in asked
        ]
        self._send(
            connection_counts=controller_pb2.ConnectionCounts(sequence=question.sequence, counts=counts)
        )

    # Each sends a message and gives its sequence number.

    def full_state(self, *attachments: types_pb2.Attachment) -> int:
        self._sequence += 1
        self._send(full_state=controller_pb2.FullState(sequence=self._sequence, attachments=attachments))
        return self._sequence

    def attach(self, item: types_pb2.Attachment) -> int:
        self._sequence += 1
        self._send(attach=controller_pb2.Attach(sequence=self._sequence, attachment=item))
        return self._sequence

    def detach(self, item: types_pb2.Attachment) -> int:
        self._sequence += 1
        self._send(
            detach=controller_pb2.Detach(
                sequence=self._sequence,
                container_id=item.container_id,
                interface_name=item.interface_name,
            )
        )
        return self._sequence

    def hello_again(self, info: types_pb2.NodeInfo) -> None:
        self._send(hello=controller_pb2.Hello(node=info))

    def answered(self, sequence: int) -> bool:
        with self._condition:
            return sequence in self._answers

    def answer(self, sequence: int) -> str | None:
        """Wait for the answer: None for Programmed, else the reason of Rejected."""
        with self._condition:
            done = self._condition.wait_for(lambda: sequence in self._answers or self.ended, PATIENCE)
            if sequence not in self._answers:
                raise AssertionError(
                    f"no answer to {sequence} ({'ended' if done else 'waiting'}): {self.error}"
                )
            return self._answers[sequence]

    def wait_ended(self) -> grpc.RpcError | None:
        with self._condition:
            assert self._condition.wait_for(lambda: self.ended, PATIENCE), "the stream did not end"
        return self.error

    def close(self) -> None:
        """The agent goes away."""
        self._outgoing.put(None)
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect_switch(switch: PrivateSwitch, controller: ControllerProcess, datapath_id: int) -> None:
    """Point a switch at the controller, as an agent does."""
    switch.vsctl("set", "bridge", switch.bridge, f"other-config:datapath-id={datapath_id:016x}")
    switch.vsctl("set-controller", switch.bridge, f"tcp:127.0.0.1:{controller.openflow_port}")
    switch.vsctl("set", "controller", switch.bridge, "max_backoff=1000", "inactivity_probe=5000")


def running_controller() -> Iterator[ControllerProcess]:
    """The body of a pytest fixture."""
    with ControllerProcess() as controller:
        yield controller


def lenient_controller() -> Iterator[ControllerProcess]:
    """The same; what a test changes in the switch stays until that connects anew."""
    with ControllerProcess(repair_at_once="false") as controller:
        yield controller
