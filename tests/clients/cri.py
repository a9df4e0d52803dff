# SPDX-License-Identifier: Apache-2.0
"""A small client of the Container Runtime Interface: the calls that a kubelet makes to run a pod.

The messages are described in `cri.proto` beside this file, compiled when the module is first used, and
spoken as plain Python values: a call takes and gives dictionaries in protobuf's JSON form
(`pod_sandbox_id`, not `podSandboxId`).
"""

from __future__ import annotations

import base64
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory
from grpc_tools import protoc  # type: ignore[import-untyped]

SERVICE: Final = "runtime.v1.RuntimeService"
CALL_SECONDS: Final = 120.0
"""How long a call may take before it is given up: containerd itself waits for every CNI plugin of the pod."""


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    """The compiled `cri.proto`, in a pool of its own so that it meets no other copy of the CRI."""
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="cri-proto-") as folder:
        out = Path(folder) / "cri.pb"
        if protoc.main(["protoc", f"-I{here}", f"--descriptor_set_out={out}", str(here / "cri.proto")]) != 0:
            raise RuntimeError(f"protoc refused {here / 'cri.proto'}")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


@dataclass(frozen=True)
class Pod:
    """A pod as a kubelet describes it to a runtime. `uid` tells two pods of one name apart over time."""

    name: str
    namespace: str = "default"
    uid: str = "11111111-2222-3333-4444-555555555555"
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    host_ports: tuple[tuple[int, int], ...] = ()
    """TCP (host port, container port) pairs, given to plugins that declare the `portMappings` capability."""

    def config(self) -> dict[str, Any]:
        """The pod as a CRI PodSandboxConfig."""
        return {
            "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid},
            "hostname": self.name,
            "labels": self.labels,
            "annotations": self.annotations,
            "port_mappings": [
                {"protocol": "TCP", "host_port": host, "container_port": container}
                for host, container in self.host_ports
            ],
        }


@dataclass(frozen=True)
class Output:
    """What a command in a container printed, and how it ended."""

    stdout: str
    stderr: str
    exit_code: int


class Runtime:
    """A connection to a runtime's CRI socket. A failed call raises `grpc.RpcError` in the runtime's words."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket}")

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """One call of the runtime service: `fields` are the request's, the answer has those that are set."""
        service = _pool().FindServiceByName(SERVICE)
        described = service.methods_by_name[method]
        request: message.Message = message_factory.GetMessageClass(described.input_type)()
        answer_class = message_factory.GetMessageClass(described.output_type)
        json_format.ParseDict(fields, request)
        invoke: Callable[..., message.Message] = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=_serialize,
            response_deserializer=answer_class.FromString,
        )
        answer = invoke(request, timeout=CALL_SECONDS, wait_for_ready=True)
        fields_set: dict[str, Any] = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        return fields_set

    def run_pod(self, pod: Pod) -> str:
        """Starts the pod's sandbox, network included; its identifier, which is also CNI's container ID."""
        return str(self.call("RunPodSandbox", config=pod.config())["pod_sandbox_id"])

    def pod_addresses(self, sandbox: str) -> tuple[str, ...]:
        """The addresses that the runtime tells the kubelet, primary one first; () when it has none."""
        status = self.call("PodSandboxStatus", pod_sandbox_id=sandbox)["status"]
        network = status.get("network", {})
        first = (network["ip"],) if network.get("ip") else ()
        return first + tuple(address["ip"] for address in network.get("additional_ips", []))

    def pods(self) -> dict[str, str]:
        """Every sandbox that the runtime knows, running or not: identifier to `namespace/name`."""
        items = self.call("ListPodSandbox").get("items", [])
        return {item["id"]: f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items}

    def stop_pod(self, sandbox: str) -> None:
        """Stops the sandbox and gives back its network; nothing happens if that was done before."""
        self.call("StopPodSandbox", pod_sandbox_id=sandbox)

    def remove_pod(self, sandbox: str) -> None:
        """Forgets the sandbox, after stopping it if it still runs. containerd calls DEL for it once more."""
        self.call("RemovePodSandbox", pod_sandbox_id=sandbox)

    def run_container(self, sandbox: str, pod: Pod, image: str, command: list[str]) -> str:
        """Creates and starts a container in the pod; its identifier."""
        created = self.call(
            "CreateContainer",
            pod_sandbox_id=sandbox,
            config={"metadata": {"name": "main"}, "image": {"image": image}, "command": command},
            sandbox_config=pod.config(),
        )
        container = str(created["container_id"])
        self.call("StartContainer", container_id=container)
        return container

    def execute(self, container: str, *command: str, seconds: int = 60) -> Output:
        """Runs a command in a running container and waits for its end; killed after `seconds`."""
        request = {"container_id": container, "cmd": list(command), "timeout": seconds}
        answer = self.call("ExecSync", **request)
        # Bytes travel as base64 in protobuf's JSON form.
        return Output(
            stdout=_text(answer.get("stdout", "")),
            stderr=_text(answer.get("stderr", "")),
            exit_code=int(answer.get("exit_code", 0)),
        )


def _serialize(value: message.Message) -> bytes:
    return value.SerializeToString()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
