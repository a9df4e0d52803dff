# SPDX-License-Identifier: Apache-2.0
"""`sdnctl policy log`: verdicts as lines for people and as documents for programs."""

from __future__ import annotations

import json

import yaml

from sdn.v1 import types_pb2
from tests.unit.cli_server import Cluster, Sdnctl


def records() -> list[types_pb2.VerdictRecord]:
    first = types_pb2.VerdictRecord(
        node="node-1",
        policy="NetworkPolicy/shop/web",
        rule="",
        tier="NetworkPolicy",
        direction="ingress",
        action="deny",
        protocol="TCP",
        source="10.244.2.7",
        source_port=40000,
        destination="10.244.1.5",
        destination_port=80,
        source_pod="other/client",
        destination_pod="shop/web-1",
        suppressed=12,
    )
    first.time.FromMicroseconds(1_769_850_902_000_001)
    second = types_pb2.VerdictRecord(
        node="node-2",
        policy="ClusterNetworkPolicy/gate",
        rule="egress[1]",
        tier="Admin",
        direction="egress",
        action="deny",
        staged=True,
        protocol="ICMPv6",
        source="fd00:10:244:1::5",
        destination="2001:db8::1",
        source_pod="shop/web-1",
    )
    second.time.FromMicroseconds(1_769_850_903_500_000)
    third = types_pb2.VerdictRecord(
        policy="P/a", action="accept", source="fd00::1", source_port=1, destination="::1", destination_port=2
    )
    return [first, second, third]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_a_verdict_is_a_line(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.verdicts = records()
    code, out, err = sdnctl("policy", "log")
    assert (code, err) == (0, "")
    header, first, second, third = out.splitlines()
    assert cells(header) == [
        *("TIME", "NODE", "ACTION", "DIRECTION", "POLICY", "RULE"),
        *("PROTOCOL", "SOURCE", "DESTINATION", "SUPPRESSED"),
    ]
    assert cells(first) == [
        *(
            "2026-01-31T09:15:02.000001Z",
            "node-1",
            "deny",
            "ingress",
            "NetworkPolicy/shop/web",
            "<none>",
            "TCP",
        ),
        *("other/client(10.244.2.7:40000)", "shop/web-1(10.244.1.5:80)", "12"),
    ]
    assert cells(second) == [
        *("2026-01-31T09:15:03.500000Z", "node-2", "would deny", "egress", "ClusterNetworkPolicy/gate"),
        *("egress[1]", "ICMPv6", "shop/web-1(fd00:10:244:1::5)", "2001:db8::1"),
    ]
    assert cells(third)[-2:] == ["[fd00::1]:1", "[::1]:2"]
    # Columns stand under their names, whatever comes.
    assert first.index("deny") == header.index("ACTION") == second.index("would deny")


def test_programs_get_a_document_a_verdict(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.verdicts = records()
    documents = [json.loads(line) for line in sdnctl("policy", "log", "-o", "json")[1].splitlines()]
    assert [document["sourcePort"] for document in documents] == [40000, 0, 1]
    assert documents[0] == {
        "time": "2026-01-31T09:15:02.000001Z",
        "node": "node-1",
        "policy": "NetworkPolicy/shop/web",
        "rule": "",
        "tier": "NetworkPolicy",
        "direction": "ingress",
        "action": "deny",
        "staged": False,
        "protocol": "TCP",
        "source": "10.244.2.7",
        "sourcePort": 40000,
        "sourcePod": "other/client",
        "destination": "10.244.1.5",
        "destinationPort": 80,
        "destinationPod": "shop/web-1",
        "suppressed": 12,
    }
    assert list(yaml.safe_load_all(sdnctl("policy", "log", "-o", "yaml")[1])) == documents


def test_what_is_asked_for_reaches_the_controller(sdnctl: Sdnctl, cluster: Cluster) -> None:
    assert sdnctl("policy", "log") == (0, "", "no verdicts\n")
    asked = cluster.watched
    assert (asked.node, asked.namespace, asked.policy, asked.follow) == ("", "", "", False)
    cluster.verdicts = records()[:1]
    code, out, err = sdnctl("policy", "log", "-f", "--node", "node-1", "-n", "shop", "--policy", "web")
    asked = cluster.watched
    assert (asked.node, asked.namespace, asked.policy, asked.follow) == ("node-1", "shop", "web", True)
    assert len(out.splitlines()) == 2
    # A log that is followed has no end of its own.
    assert (code, err) == (1, "sdnctl: the controller ended the log\n")
