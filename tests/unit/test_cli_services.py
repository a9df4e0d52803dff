# SPDX-License-Identifier: Apache-2.0
"""Services on the command line: columns as kubectl has them, `describe`, groups, and files that declare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdn.cli import main
from sdn.v1 import inspection_pb2 as pb
from tests.unit.cli_server import Cluster, Sdnctl, cells

WEB: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
    "spec": {
        "type": "LoadBalancer",
        "selector": {"app": "web"},
        "clusterIP": "10.96.0.5",
        "clusterIPs": ["10.96.0.5", "fd00:10:96::5"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "PreferDualStack",
        "externalIPs": ["192.0.2.9"],
        "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web", "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        ],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000,
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}},
}
HEADLESS = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "db", "namespace": "shop"},
    "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 5432, "protocol": "TCP"}]},
}
FAR = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "far", "namespace": "shop"},
    "spec": {"type": "ExternalName", "externalName": "www.example.com"},
}
WAITING = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "waiting", "namespace": "other"},
    "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.6", "ports": [{"port": 1, "protocol": "SCTP"}]},
    "status": {"loadBalancer": {}},
}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "labels": {"kubernetes.io/service-name": "web"},
    },
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    "endpoints": [
        {"addresses": ["10.244.1.1"], "conditions": {"ready": True}},
        {"addresses": ["10.244.1.2"], "conditions": {"ready": False}},
        {"addresses": ["10.244.1.3"]},
        {"addresses": ["10.244.1.4"]},
    ],
}
EVENT = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": "web.1", "namespace": "shop"},
    "involvedObject": {"kind": "Service", "name": "web", "namespace": "shop"},
    "type": "Warning",
    "reason": "AddressPoolExhausted",
    "message": "no address is left in 198.51.100.0/28",
    "count": 3,
    "firstTimestamp": "2026-01-01T00:00:00Z",
    "lastTimestamp": "2026-01-01T00:00:09Z",
    "source": {"component": "sdn-controller"},
}


@pytest.fixture(autouse=True)
def declared(cluster: Cluster) -> None:
    cluster.declare(WEB, HEADLESS, FAR, WAITING, SLICE, EVENT)


@pytest.mark.parametrize("kind", ["services", "service", "svc"])
def test_services_have_the_columns_of_kubectl(sdnctl: Sdnctl, kind: str) -> None:
    header, *rows = cells(sdnctl("get", kind, "-n", "shop")[1])
    assert header == ["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert rows == [
        ["shop", "db", "ClusterIP", "None", "<none>", "5432/TCP", "<none>"],
        ["shop", "far", "ExternalName", "<none>", "www.example.com", "<none>", "<none>"],
        [
            *("shop", "web", "LoadBalancer", "10.96.0.5,fd00:10:96::5", "198.51.100.1,192.0.2.9"),
            *("80:30080/TCP,53/UDP", "<none>"),
        ],
    ]


def test_a_load_balancer_without_an_address_is_pending(sdnctl: Sdnctl) -> None:
    (row,) = cells(sdnctl("get", "svc", "other/waiting")[1])[1:]
    assert row[3:6] == ["10.96.0.6", "<pending>", "1/SCTP"]


def test_wide_shows_the_selector_and_all_namespaces_can_be_asked(sdnctl: Sdnctl) -> None:
    header, *rows = cells(sdnctl("get", "svc", "-A", "-o", "wide")[1])
    assert header[-2:] == ["SELECTOR", "LABELS"]
    assert [row[:2] for row in rows] == [
        ["other", "waiting"],
        ["shop", "db"],
        ["shop", "far"],
        ["shop", "web"],
    ]
    assert rows[-1][-2:] == ["app=web", "app=web"]


def test_slices_show_a_few_endpoints_and_how_many_more(sdnctl: Sdnctl) -> None:
    header, row = cells(sdnctl("get", "endpointslices")[1])
    assert header == ["NAMESPACE", "NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]
    assert row[2:5] == ["IPv4", "8080", "10.244.1.1,10.244.1.2,10.244.1.3 + 1 more..."]
    assert "3/4" in sdnctl("get", "endpointslices", "-o", "wide")[1]


def test_events_show_what_happened_to_what(sdnctl: Sdnctl) -> None:
    header, row = cells(sdnctl("get", "events")[1])
    assert header == ["NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert row[0] == "shop"
    assert row[2:] == ["Warning", "AddressPoolExhausted", "service/web", EVENT["message"]]
    assert row[1].endswith("d")


def test_services_are_watched_like_everything(sdnctl: Sdnctl) -> None:
    _, out, _ = sdnctl("get", "svc", "-n", "shop", "-w")
    assert [line.split()[0] for line in out.splitlines()] == ["EVENT", "ADDED", "ADDED", "ADDED"]


def test_a_file_of_services_and_slices_is_applied_and_deleted(
    sdnctl: Sdnctl, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.objects.clear()
    file = tmp_path / "o.yaml"
    listed = {"apiVersion": "v1", "kind": "List", "items": [HEADLESS, FAR]}
    file.write_text("---\n".join(yaml.safe_dump(item) for item in (WEB, listed, SLICE)), encoding="utf-8")
    code, out, _ = sdnctl("apply", "-f", str(file))
    assert (code, out.splitlines()) == (
        0,
        [
            *("service/shop/web created", "service/shop/db created", "service/shop/far created"),
            "endpointslice/shop/web-1 created",
        ],
    )
    (tmp_path / "back.json").write_text(sdnctl("get", "svc", "-o", "json")[1], encoding="utf-8")
    assert sdnctl("apply", "-f", str(tmp_path / "back.json"))[1].count("unchanged") == 3
    assert sdnctl("delete", "-f", str(file))[0] == 0
    assert cluster.objects == {}


def described() -> pb.DescribeServiceResponse:
    answer = pb.DescribeServiceResponse(
        endpoints=[
            pb.ServiceEndpoint(
                address="10.244.1.1",
                port_name="http",
                port=8080,
                protocol="TCP",
                node="node-1",
                zone="a",
                target="Pod/shop/web-1",
                ready=True,
                serving=True,
                connections=5,
            ),
            pb.ServiceEndpoint(address="10.244.2.1", port=53, protocol="UDP", serving=True, terminating=True),
        ],
        nodes=[
            pb.ServiceOnNode(
                node="node-1",
                connections=5,
                flows=[
                    pb.FlowEntry(
                        table="endpoint", table_number=5, priority=100, match="reg3=1", packets=3, bytes=300
                    ),
                    pb.FlowEntry(
                        table="load_balancing",
                        table_number=4,
                        priority=100,
                        match="tcp,nw_dst=10.96.0.5",
                        actions="group:2048",
                        why="a client",
                        packets=2**40,
                        bytes=2**41,
                    ),
                ],
                groups=[
                    pb.GroupEntry(
                        group_id=2048, type="select", buckets="bucket_id:1,actions=x", packets=7, bytes=70
                    )
                ],
            ),
            pb.ServiceOnNode(node="node-2", error="the switch of node-2 is not connected"),
        ],
    )
    answer.service.update(WEB)
    answer.events.add().update(EVENT)
    return answer


def test_describe_shows_a_service_with_all_that_is_behind_it(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.described["shop", "web"] = described()
    code, out, err = sdnctl("describe", "service", "web", "-n", "shop")
    assert (code, err) == (0, "")
    lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in out.splitlines()}
    assert lines["ClusterIPs"] == "10.96.0.5,fd00:10:96::5"
    assert lines["Load balancer"] == "198.51.100.1"
    assert lines["Session affinity"] == "ClientIP (60 s)"
    assert lines["External traffic"] == "Local"
    assert lines["Health check port"] == "31000"
    assert "http 80/TCP → web, node port 30080" in out
    rows = cells(out)
    assert ["10.244.1.1", "http 8080/TCP", "node-1", "a", "Pod/shop/web-1", "ready", "5"] in rows
    assert [
        *("10.244.2.1", "53/UDP", "<none>", "<none>", "<none>", "terminating, serving", "0"),
    ] in rows
    assert f"Node node-1: 5 connections, 2 flows ({2**40 + 3} packets, {2**41 + 300} bytes), 1 groups" in out
    tables = [row[0] for row in rows if row and row[0] in ("load_balancing", "endpoint")]
    assert tables == ["load_balancing", "endpoint"]
    assert ["2048", "select", "7", "70", "<none>", "bucket_id:1,actions=x"] in rows
    assert "not all is known: the switch of node-2 is not connected" in out
    assert rows[-1][1:] == ["Warning", "AddressPoolExhausted", "3", EVENT["message"]]


def test_describe_goes_by_namespace_and_name_and_may_be_of_one_node(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.described["shop", "web"] = described()
    found = json.loads(sdnctl("describe", "svc", "shop/web", "--node", "node-1", "-o", "json")[1])
    assert [node["node"] for node in found["nodes"]] == ["node-1"]
    assert found["nodes"][0]["flows"][0]["packets"] == 2**40
    assert found["endpoints"][0]["connections"] == 5
    assert found["service"]["spec"]["ports"][0]["port"] == 80
    same = yaml.safe_load(sdnctl("describe", "svc", "shop/web", "--node", "node-1", "-o", "yaml")[1])
    assert same == found


def test_describe_without_endpoints_and_events_says_so(sdnctl: Sdnctl, cluster: Cluster) -> None:
    answer = pb.DescribeServiceResponse()
    answer.service.update(HEADLESS)
    cluster.described["default", "db"] = answer
    out = sdnctl("describe", "service", "db")[1]
    assert out.splitlines().count("none") == 2


def test_what_cannot_be_described_is_one_line(sdnctl: Sdnctl) -> None:
    assert sdnctl("describe", "svc", "nobody") == (1, "", "sdnctl: Service default/nobody does not exist\n")
    for kind in ("pod", "nonsense"):
        code, out, err = sdnctl("describe", kind, "x")
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_groups_come_by_number_with_owner_and_buckets(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.groups = [
        pb.GroupEntry(
            group_id=4097,
            type="select",
            buckets="bucket_id:1,actions=a,bucket=bucket_id:2,actions=b",
            owner="Service/shop/web",
            why="spread",
            packets=9,
            bytes=900,
            bucket_count=2,
        ),
        pb.GroupEntry(group_id=1, type="select", bucket_count=0),
    ]
    assert cells(sdnctl("groups", "node-1")[1])[1:] == [
        ["1", "select", "0", "0", "0", "nobody", "<none>", "<none>"],
        [
            *("4097", "select", "2", "9", "900", "Service/shop/web", "spread"),
            "bucket_id:1,actions=a,bucket=bucket_id:2,actions=b",
        ],
    ]
    found = json.loads(sdnctl("groups", "node-1", "--owner", "Service/shop/web", "-o", "json")[1])
    assert [(group["group_id"], group["packets"]) for group in found["groups"]] == [(4097, 9)]
    assert sdnctl("groups", "node-9") == (1, "", "sdnctl: Node node-9 is not registered\n")
    assert sdnctl("groups", "node-1", "--owner", "web")[0] == 2


def test_names_of_services_are_completed(
    server: tuple[Cluster, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    command = typer.main.get_command(main.app)
    for line, expected in (
        ("get s", {"services", "switches"}),
        ("describe s", {"service"}),
        ("describe service shop/w", {"shop/web"}),
    ):
        words = ["sdnctl", "--server", server[1], *line.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_SDNCTL_COMPLETE", "complete_bash")
        with pytest.raises(SystemExit):
            command.main(args=[], prog_name="sdnctl")
        offered = {item.partition(",")[2] or item for item in capsys.readouterr().out.split()}
        assert offered == expected
