# SPDX-License-Identifier: Apache-2.0
"""What a controller asks of a node for its policies, and tells it: connections that the switch tracks, and verdicts for
the node's own log.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.services.listing import PORTION
from sdn.v1 import controller_pb2 as messages
from sdn.v1 import types_pb2
from tests.node.controller import Controller
from tests.node.node import Node, Underlay, wait_until

pytestmark = pytest.mark.root

CLIENT = {4: "10.241.1.2", 6: "fd00:10:241:1::2"}
SERVER = {4: "10.241.1.9", 6: "fd00:10:241:1::9"}
SERVICE = {4: "10.97.0.50", 6: "fd00:10:97::50"}
MARK = 16


@pytest.fixture
def tracking(node: Node) -> Iterator[Node]:
    """The node, whose switch tracks what is sent to it, translates what is for a Service, and marks the connections."""
    mark = f"exec(set_field:{MARK}->ct_mark)"
    for version, family in ((4, "ip"), (6, "ipv6")):
        field = "nw_dst" if version == 4 else "ipv6_dst"
        server = SERVER[version] if version == 4 else f"[{SERVER[version]}]"
        node.ofctl("add-flow", f"priority=1,in_port=local,{family} actions=ct(commit,zone=1,{mark})")
        node.ofctl("add-flow", f"priority=1,in_port=1,{family} actions=ct(commit,zone=2)")
        node.ofctl(
            "add-flow",
            f"priority=2,in_port=local,{family},{field}={SERVICE[version]} "
            f"actions=ct(commit,zone=1,nat(dst={server}),{mark})",
        )
    yield node
    node.ofctl("del-flows")
    node.appctl("dpctl/flush-conntrack")


def datagram(version: int, destination: str, protocol: int, payload: bytes) -> str:
    """A frame from the client, in hexadecimal; ``payload`` with its checksum at 2 (ICMP), at 6 (UDP) or at 16 (TCP)."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    addresses = socket.inet_pton(family, CLIENT[version]) + socket.inet_pton(family, destination)
    pseudo = b"" if protocol == 1 else addresses + struct.pack("!II", len(payload), protocol)
    place = {1: 2, 58: 2, 17: 6, 6: 16}[protocol]
    payload = payload[:place] + checksum(pseudo + payload) + payload[place + 2 :]
    if version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
        header = header[:10] + checksum(header + addresses)
    else:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    kind = "0800" if version == 4 else "86dd"
    return "0a58000000020a5800000001" + kind + (header + addresses + payload).hex()


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def tcp(source_port: int, port: int) -> bytes:
    return struct.pack("!HHIIHHHH", source_port, port, 1, 0, 5 << 12 | 2, 65535, 0, 0)


def udp(source_port: int, port: int) -> bytes:
    return struct.pack("!HHHH", source_port, port, 9, 0) + b"?"


def send(node: Node, *frames: str, port: str = "local") -> None:
    for frame in frames:
        node.ofctl("packet-out", f"in_port={port},packet={frame},actions=table")


def connections(answer: list[messages.Connections]) -> list[messages.TrackedConnection]:
    assert {(part.sequence, part.error) for part in answer} == {(78, "")}
    return [connection for part in answer for connection in part.connections]


def test_connections_of_all_kinds_are_listed_as_the_tracker_has_them(
    tracking: Node, controller: Controller
) -> None:
    node = tracking
    for version in (4, 6):
        echo = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, 77, 1)
        send(
            node,
            datagram(version, SERVER[version], 6, tcp(4001, 8080)),
            datagram(version, SERVICE[version], 17, udp(4002, 53)),
            datagram(version, SERVER[version], 1 if version == 4 else 58, echo),
        )
    # Another zone is no matter of policies.
    send(node, datagram(4, "10.241.1.77", 17, udp(4003, 53)), port="1")
    found = connections(controller.list_connections(node.name, "0.0.0.0/0", "::/0"))
    assert sorted((one.protocol, ":" in one.source) for one in found) == [
        *((1, False), (6, False), (6, True), (17, False), (17, True), (58, True))
    ]
    by_kind = {(one.protocol, 6 if ":" in one.source else 4): one for one in found}
    for version in (4, 6):
        straight, translated = by_kind[6, version], by_kind[17, version]
        assert straight == messages.TrackedConnection(
            protocol=6,
            source=CLIENT[version],
            source_port=4001,
            destination=SERVER[version],
            destination_port=8080,
            reply_source=SERVER[version],
            reply_source_port=8080,
            reply_destination=CLIENT[version],
            reply_destination_port=4001,
            mark=MARK,
        )
        assert (translated.destination, translated.destination_port) == (SERVICE[version], 53)
        assert (translated.reply_source, translated.reply_source_port) == (SERVER[version], 53)
        echo_found = by_kind[1 if version == 4 else 58, version]
        assert (echo_found.icmp_id, echo_found.icmp_type) == (77, 8 if version == 4 else 128)
        assert (echo_found.source_port, echo_found.destination_port) == (0, 0)


def test_only_connections_of_the_ranges_are_listed(tracking: Node, controller: Controller) -> None:
    node = tracking
    send(node, datagram(4, SERVICE[4], 17, udp(4001, 53)), datagram(6, SERVER[6], 17, udp(4002, 53)))

    def listed(*ranges: str) -> list[int]:
        answer = controller.list_connections(node.name, *ranges)
        return sorted(one.source_port for one in connections(answer))

    assert listed(f"{SERVICE[4]}/32") == listed(f"{SERVER[4]}/32") == listed("10.97.0.0/16") == [4001]
    assert listed(f"{CLIENT[6]}/128", "10.99.0.0/16") == [4002]
    assert listed("10.99.0.0/16", "fd00:10:241:1::10/124") == listed() == []


def test_many_connections_come_in_several_messages(tracking: Node, controller: Controller) -> None:
    node = tracking
    count = PORTION + 500
    # Each line of the file is one packet for the switch, as many as one command takes.
    node.ofctl("add-flow", "priority=5,in_port=local,udp actions=ct(commit,zone=1)")
    frames = [datagram(4, "10.241.1.200", 17, udp(1024 + n % 50000, 53 + n // 50000)) for n in range(count)]
    for start in range(0, count, 500):
        words: list[str] = []
        for frame in frames[start : start + 500]:
            words.append(f"packet-out in_port=local,packet={frame},actions=table")
        node.exec_with_input("\n".join(words) + "\n", *bundle(node))
    parts = controller.list_connections(node.name, "10.241.1.200/32")
    assert [len(part.connections) for part in parts] == [PORTION, count - PORTION]
    assert [part.last for part in parts] == [False, True]
    assert {one.source_port for one in connections(parts)} == set(range(1024, 1024 + count))


def bundle(node: Node) -> list[str]:
    return ["ovs-ofctl", "-O", "OpenFlow15", "bundle", f"unix:{node.folder}/br-int.mgmt", "-"]


def test_a_question_that_cannot_be_answered_says_why(node: Node, controller: Controller) -> None:
    (answer,) = controller.list_connections(node.name, "10.241.1.0/33")
    assert (answer.last, list(answer.connections)) == (True, [])
    assert "10.241.1.0/33" in answer.error
    node.kill("ovs-vswitchd")
    try:
        (answer,) = controller.list_connections(node.name, "0.0.0.0/0")
        assert "ovs-vswitchd" in answer.error
    finally:
        node.start_vswitchd()
        node.wait_able()
    assert connections(controller.list_connections(node.name, "0.0.0.0/0")) == []


def verdict(number: int) -> types_pb2.VerdictRecord:
    record = types_pb2.VerdictRecord(node="node-1", policy="NetworkPolicy/shop/web", source_port=number)
    record.time.FromMicroseconds(1_769_850_902_000_000 + number)
    return record


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_verdicts_are_in_the_nodes_log_and_none_is_lost_at_the_end(
    node: Node, controller: Controller
) -> None:
    path = node.folder / "state" / "audit.log"
    controller.tell_verdicts(node.name, *(verdict(number) for number in range(3)))
    wait_until(lambda: len(written(path)) == 3, "the verdicts in the log")
    assert written(path)[1]["time"] == "2026-01-31T09:15:02.000001Z"
    for start in range(3, 2003, 100):
        controller.tell_verdicts(node.name, *(verdict(number) for number in range(start, start + 100)))
    # The last one has reached the agent when the answer to a later question is there.
    controller.list_connections(node.name)
    assert node.kill("agent", signal.SIGTERM) == 0
    try:
        assert [line["sourcePort"] for line in written(path)] == list(range(2003))
    finally:
        node.start_agent()
        node.wait_able()


def test_without_a_file_verdicts_are_taken_and_forgotten(underlay: Underlay, controller: Controller) -> None:
    controller.nodes.pop("node-6", None)
    with Node(underlay, 6, [controller.target], audit_log="") as node:
        node.start_agent()
        node.wait_able()
        controller.tell_verdicts(node.name, verdict(1))
        controller.list_connections(node.name)
        assert not (node.folder / "state" / "audit.log").exists()


def test_a_log_that_cannot_be_written_disturbs_no_pod(underlay: Underlay, controller: Controller) -> None:
    controller.nodes.pop("node-7", None)
    with Node(underlay, 7, [controller.target], audit_log="/proc/no/such/place") as node:
        node.start_agent()
        node.wait_able()
        controller.tell_verdicts(node.name, verdict(1))
        node.wait_for_event("verdicts of policies are not written")
        with node.pod("web") as pod:
            node.cni("ADD", pod)
            node.cni("DEL", pod)
