# SPDX-License-Identifier: Apache-2.0
"""Is what exists what was asked for? Every keeper of facts is asked, and all must say the same.

Asked for: the pods that the runtime (the lab) made. Kept: by each node's agent (attachments, addresses in use),
its Open vSwitch (ports, flows), its kernel (interfaces), and by every controller that serves (pods), and the one that
owns a switch (flows).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import json_format

from sdn.lab import waiting
from sdn.lab.lab import Lab
from sdn.lab.programs import agent_grpc_socket
from sdn.lab.state import PodRecord
from sdn.v1 import agent_pb2, agent_pb2_grpc, inspection_pb2, inspection_pb2_grpc


def wait_until_settled(lab: Lab, seconds: float = 60) -> None:
    """Wait until all accounts agree; LabError tells what still differs."""
    problems: list[str] = []

    def settled() -> bool:
        problems[:] = differences(lab)
        return not problems

    waiting.wait_until(
        settled, "all accounts to agree", seconds, every=0.5, because=lambda: "; ".join(problems[:8])
    )


def differences(lab: Lab) -> list[str]:
    """What anybody holds that differs from the pods that exist, one line each."""
    pods = lab.folder.pods()
    try:
        return [
            *_of_addresses(pods),
            *_of_controllers(lab, pods),
            *_of_nodes(lab, pods),
        ]
    except grpc.RpcError as problem:
        return [f"a daemon does not answer: {problem.code().name} {problem.details()}"]


def agent_state(lab: Lab, node: str) -> agent_pb2.GetStateResponse:
    """What the node's agent holds."""
    with grpc.insecure_channel(f"unix:{agent_grpc_socket(lab.folder, node)}") as channel:
        return agent_pb2_grpc.AgentStub(channel).GetState(agent_pb2.GetStateRequest(), timeout=10)


def objects(lab: Lab, kind: str, controller: str = "") -> list[dict[str, Any]]:
    """Objects that this controller knows; without one, any that answers."""
    server = lab.server_of(controller) if controller else lab.server
    with grpc.insecure_channel(server) as channel:
        answer = inspection_pb2_grpc.InspectionStub(channel).Get(
            inspection_pb2.GetRequest(kind=kind), timeout=10
        )
    return [json_format.MessageToDict(item) for item in answer.objects]


def _of_addresses(pods: list[PodRecord]) -> Iterator[str]:
    counted = Counter(address for pod in pods for address in pod.addresses)
    yield from (
        f"address {address} was given {count} times" for address, count in counted.items() if count > 1
    )


def _of_controllers(lab: Lab, pods: list[PodRecord]) -> Iterator[str]:
    serving = lab.serving()
    if not serving:
        yield "no controller serves"
    for controller in serving:
        yield from _of_controller(lab, controller, pods)


def _of_controller(lab: Lab, controller: str, pods: list[PodRecord]) -> Iterator[str]:
    wanted = {pod.full_name: (pod.node, "Running", set(pod.addresses)) for pod in pods}
    held = {}
    for document in objects(lab, "Pod", controller):
        metadata, status = document["metadata"], document.get("status", {})
        addresses = {item["ip"] for item in status.get("podIPs", [])}
        name = f"{metadata['namespace']}/{metadata['name']}"
        held[name] = (document["spec"].get("nodeName", ""), status.get("phase"), addresses)
        if len(status.get("attachments", [])) > 1:
            yield f"{controller} holds {len(status['attachments'])} attachments of {name}"
    yield from _compared(controller, wanted, held)


def _of_nodes(lab: Lab, pods: list[PodRecord]) -> Iterator[str]:
    switches = lab.switches()
    for node in lab.spec.node_machines:
        of_node = [pod for pod in pods if pod.node == node.name]
        yield from _of_node(lab, node.name, of_node, switches.get(node.name))


def _of_node(
    lab: Lab, node: str, pods: list[PodRecord], switch: inspection_pb2.Switch | None
) -> Iterator[str]:
    state = agent_state(lab, node)
    wanted = {pod.container_id: (set(pod.addresses), True) for pod in pods}
    held = {
        item.attachment.container_id: (set(item.attachment.addresses), item.programmed)
        for item in state.attachments
    }
    yield from _compared(f"the agent of {node}", wanted, held)
    for usage in state.ranges:
        if usage.used != len(pods):
            yield f"{node}: {usage.used} addresses of {usage.range} are in use, by {len(pods)} pods"
    interfaces = {item.attachment.host_interface for item in state.attachments}
    yield from _of_switch(lab, node, interfaces, switch)
    shown = lab.run(node, "ip", "-j", "link", "show", "type", "veth").stdout
    links = {link["ifname"] for link in json.loads(shown or "[]")} - {"eth0"}
    if links != interfaces:
        yield f"{node}: interfaces {sorted(links ^ interfaces)} are there and not held, or held and not there"


def _of_switch(
    lab: Lab, node: str, interfaces: set[str], switch: inspection_pb2.Switch | None
) -> Iterator[str]:
    listed = lab.run(node, "ovs-vsctl", "--timeout=10", "list-ports", "br-int")
    if listed.returncode != 0:
        yield f"{node}: {' '.join(listed.stderr.split())}"
        return
    ports = {name for name in listed.stdout.split() if not name.startswith(("sdn-gw", "sdn-tun"))}
    if ports != interfaces:
        yield f"{node}: ports {sorted(ports ^ interfaces)} of br-int are there and not held, or held and not there"
    described = lab.run(node, "ovs-ofctl", "-O", "OpenFlow15", "show", "br-int").stdout
    numbers = [
        line.split("(")[0].strip() for line in described.splitlines() if line.startswith(" ") and "(" in line
    ]
    doubled = [number for number, count in Counter(n for n in numbers if n.isdecimal()).items() if count > 1]
    if doubled:
        yield f"{node}: OpenFlow ports {doubled} are there twice"
    if switch is None or not (switch.connected and switch.synchronized):
        yield f"{node}: no controller holds its switch synchronized"
        return
    dumped = lab.run(node, "ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", "br-int").stdout
    flows = sum("actions=" in line for line in dumped.splitlines())
    if flows != switch.desired_flows:
        yield f"{node}: {flows} flows are in the switch, {switch.desired_flows} are wanted"


def _compared(who: str, wanted: dict[str, Any], held: dict[str, Any]) -> Iterator[str]:
    for name in sorted(wanted.keys() - held.keys()):
        yield f"{who} does not hold {name}"
    for name in sorted(held.keys() - wanted.keys()):
        yield f"{who} still holds {name}"
    for name in sorted(wanted.keys() & held.keys()):
        if wanted[name] != held[name]:
            yield f"{who} holds {name} as {held[name]}, it is {wanted[name]}"
