# SPDX-License-Identifier: Apache-2.0
"""Services, EndpointSlices and Pods as documents: declared to a lab's controller, read back, waited for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import json_format, struct_pb2

from sdn.lab import readiness
from sdn.lab.lab import Lab
from sdn.lab.waiting import wait_until
from sdn.v1 import inspection_pb2, inspection_pb2_grpc

Document = dict[str, Any]
FAMILY = {"IPv4": 0, "IPv6": 1}


def port(
    number: int, target: int | str | None = None, protocol: str = "TCP", name: str = "", **more: Any
) -> Document:
    """A member of a Service's spec.ports."""
    made = {"name": name or f"{protocol.lower()}-{number}", "port": number, "protocol": protocol, **more}
    return made if target is None else {**made, "targetPort": target}


def both(number: int, target: int | str | None = None) -> list[Document]:
    """The same port for TCP and UDP."""
    return [port(number, target, protocol) for protocol in ("TCP", "UDP")]


def service(
    name: str, ports: Sequence[Document], selector: Mapping[str, str] | None = None, **spec: Any
) -> Document:
    """A Service, of both families unless `spec` says otherwise."""
    plain: Document = {"ipFamilyPolicy": "RequireDualStack", "ports": list(ports), **spec}
    if selector is not None:
        plain["selector"] = dict(selector)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {key: value for key, value in plain.items() if value is not None},
    }


def pod(
    name: str,
    node: str,
    labels: Mapping[str, str],
    *,
    ready: bool = True,
    host_network: bool = False,
    ports: Sequence[Document] = (),
    **more: Any,
) -> Document:
    """A Pod as the kubelet tells of it. It becomes real when the runtime makes it, or at once with hostNetwork."""
    spec: Document = {"nodeName": node, "containers": [{"name": "main", "ports": list(ports)}], **more}
    if host_network:
        spec["hostNetwork"] = True
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": dict(labels)},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def endpoint_slice(
    service_name: str,
    family: str,
    endpoints: Iterable[Document],
    ports: Iterable[Document],
    name: str = "",
) -> Document:
    """An EndpointSlice of a Service without a selector."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service_name}-{family.lower()}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


def apply(lab: Lab, *documents: Document, dry_run: bool = False) -> None:
    """Declare all; grpc.RpcError if one is refused."""
    with grpc.insecure_channel(lab.server) as channel:
        stub = inspection_pb2_grpc.InspectionStub(channel)
        for document in documents:
            message = struct_pb2.Struct()
            message.update(document)
            stub.Apply(inspection_pb2.ApplyRequest(object=message, dry_run=dry_run), timeout=30)


class Applier:
    """Many declarations over one connection, for the time of a `with` block."""

    def __init__(self, lab: Lab) -> None:
        self._channel = grpc.insecure_channel(lab.server)
        self._stub = inspection_pb2_grpc.InspectionStub(self._channel)

    def __call__(self, document: Document) -> None:
        """Declare; grpc.RpcError if it is refused."""
        message = struct_pb2.Struct()
        message.update(document)
        self._stub.Apply(inspection_pb2.ApplyRequest(object=message), timeout=30)

    def __enter__(self) -> Applier:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def delete(lab: Lab, kind: str, *names: str) -> None:
    """Remove declared objects of the namespace default; what is not there counts as removed."""
    with grpc.insecure_channel(lab.server) as channel:
        stub = inspection_pb2_grpc.InspectionStub(channel)
        for name in names:
            try:
                stub.Delete(
                    inspection_pb2.DeleteRequest(kind=kind, namespace="default", name=name), timeout=30
                )
            except grpc.RpcError as problem:
                if problem.code() != grpc.StatusCode.NOT_FOUND:
                    raise


def get(lab: Lab, kind: str, name: str, namespace: str = "default") -> Document:
    """One object as the controller shows it; LookupError if there is none."""
    with grpc.insecure_channel(lab.server) as channel:
        answer = inspection_pb2_grpc.InspectionStub(channel).Get(
            inspection_pb2.GetRequest(kind=kind, namespace=namespace, name=name), timeout=30
        )
    if not answer.objects:
        raise LookupError(f"{kind} {namespace}/{name}")
    return json_format.MessageToDict(answer.objects[0])


def names(lab: Lab, kind: str) -> set[str]:
    """All objects of a kind, as NAMESPACE/NAME."""
    with grpc.insecure_channel(lab.server) as channel:
        answer = inspection_pb2_grpc.InspectionStub(channel).Get(
            inspection_pb2.GetRequest(kind=kind), timeout=30
        )
    found = [json_format.MessageToDict(item)["metadata"] for item in answer.objects]
    return {f"{metadata['namespace']}/{metadata['name']}" for metadata in found}


def slices(lab: Lab, name: str, namespace: str = "default") -> list[Document]:
    """The EndpointSlices of a Service."""
    with grpc.insecure_channel(lab.server) as channel:
        answer = inspection_pb2_grpc.InspectionStub(channel).Get(
            inspection_pb2.GetRequest(
                kind="EndpointSlice",
                namespace=namespace,
                label_selector=f"kubernetes.io/service-name={name}",
            ),
            timeout=30,
        )
    return [json_format.MessageToDict(item) for item in answer.objects]


def settle(lab: Lab, seconds: float = 30) -> None:
    """Wait until every switch holds what it must, and until what it forwards by follows.

    Open vSwitch confirms flows when they are in its tables. What it has cached in the datapath is compared with them
    after that, which takes milliseconds, on a loaded machine up to half a second.
    """
    wait_until(
        lambda: not readiness.unsynchronized(lab.spec, lab.folder),
        "every switch to hold its flows",
        seconds,
        because=lambda: ", ".join(readiness.unsynchronized(lab.spec, lab.folder)),
    )
    command = ("ovs-appctl", "--timeout=20", "revalidator/wait")
    waiting = [lab.popen(node.name, *command, stderr=subprocess.DEVNULL) for node in lab.spec.node_machines]
    for process in waiting:
        # A node whose switch does not run forwards by nothing.
        process.wait(timeout=60)


def cluster_ip(lab: Lab, name: str, family: str = "IPv4", namespace: str = "default") -> str:
    """The Service's own address."""
    return _of_family(get(lab, "Service", name, namespace)["spec"]["clusterIPs"], family)


def load_balancer_ip(lab: Lab, name: str, family: str = "IPv4") -> str:
    """The address that the Service was given from the pool."""
    ingress = get(lab, "Service", name).get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return _of_family([item["ip"] for item in ingress], family)


def node_port(lab: Lab, name: str, protocol: str = "TCP", number: int | None = None) -> int:
    """The port that the Service has on every node."""
    for item in get(lab, "Service", name)["spec"]["ports"]:
        if item.get("protocol", "TCP") == protocol.upper() and number in (None, int(item["port"])):
            return int(item["nodePort"])
    raise LookupError(f"Service {name} has no {protocol} port {number}")


def _of_family(addresses: Iterable[str], family: str) -> str:
    found = [address for address in addresses if (":" in address) == (family == "IPv6")]
    if not found:
        raise LookupError(f"no {family} address among {list(addresses)}")
    return found[0]
