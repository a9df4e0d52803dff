# SPDX-License-Identifier: Apache-2.0
"""`sdnctl describe policy`: a policy of either kind with its pods, rules, counters and flows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from sdn.cli import main
from sdn.v1 import inspection_pb2 as pb
from tests.unit.cli_server import Cluster, Sdnctl, cells, key_of

WEB: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "shop", "annotations": {"sdn/audit": "deny"}},
    "spec": {"podSelector": {"matchLabels": {"app": "web"}}},
}
OUT: dict[str, Any] = {
    "apiVersion": "policy.networking.k8s.io/v1alpha2",
    "kind": "ClusterNetworkPolicy",
    "metadata": {"name": "out"},
    "spec": {"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}},
}
FLOW = pb.FlowEntry(
    table="ingress_policy",
    table_number=14,
    priority=60000,
    match="conj_id=7,ct_state=+new+trk",
    actions="goto_table:17",
    why="ingress[0]: accept",
    packets=3,
    bytes=300,
)


def web() -> pb.DescribePolicyResponse:
    pod = pb.PolicyPod(
        namespace="shop",
        name="web-1",
        node="node-1",
        addresses=["10.244.1.5", "fd00:10:244:1::5"],
        isolating_ingress=2,
        isolating_egress=1,
    )
    first = pb.PolicyRule(
        direction="ingress",
        rule="ingress[0]",
        action="accept",
        pods=[pb.PolicyPod(namespace="shop", name="client", node="node-2", addresses=["10.244.2.7"])],
        pod_total=120,
        ports=[
            pb.PolicyPort(protocol="TCP", first=80, last=80),
            pb.PolicyPort(protocol="UDP", first=8000, last=8080),
            pb.PolicyPort(protocol="SCTP", last=65535),
            pb.PolicyPort(protocol="TCP", name="sql", resolved=["5432/TCP"], resolved_total=3),
            pb.PolicyPort(protocol="TCP", name="none"),
        ],
        count=pb.PolicyCount(connections=2, packets=2**40, bytes=2**41),
        shared_total=2,
        shared_with=["NetworkPolicy/shop/a", "NetworkPolicy/shop/b"],
    )
    first.networks.add(cidr="192.0.2.0/24", exceptions=["192.0.2.128/25"])
    answer = pb.DescribePolicyResponse(
        tier="NetworkPolicy",
        audit=["deny"],
        pods=[pod],
        pod_total=1,
        rules=[first, pb.PolicyRule(direction="ingress", rule="ingress[1]", action="accept", everybody=True)],
        isolation=[
            pb.PolicyIsolation(
                direction="ingress",
                denied=pb.PolicyCount(connections=5, packets=6, bytes=420),
                shared_total=1,
            )
        ],
        nodes=[
            pb.PolicyOnNode(node="node-1", pods=1, flows=[FLOW], flow_total=9),
            pb.PolicyOnNode(node="node-2", pods=2, error="the switch of Node node-2 is not connected"),
        ],
    )
    answer.policy.update(WEB)
    return answer


def out() -> pb.DescribePolicyResponse:
    rule = pb.PolicyRule(
        direction="egress",
        rule="egress[0] (out)",
        action="deny",
        nodes=[pb.PolicyNode(name="node-1", addresses=["172.30.0.11"])],
        node_total=1,
        domains=[
            pb.PolicyDomain(pattern="*.example.com", addresses=["192.0.2.9"], address_total=4),
            pb.PolicyDomain(pattern="b.example"),
        ],
    )
    answer = pb.DescribePolicyResponse(tier="Admin", staged=True, rules=[rule])
    answer.policy.update(OUT)
    return answer


@pytest.fixture(autouse=True)
def declared(cluster: Cluster) -> None:
    cluster.declare(WEB, OUT)
    for document, description in ((WEB, web()), (OUT, out())):
        cluster.policies[key_of(document)] = description


def test_a_network_policy_is_shown_with_all_that_is_behind_it(sdnctl: Sdnctl) -> None:
    code, shown, err = sdnctl("describe", "policy", "web", "-n", "shop")
    assert (code, err) == (0, "")
    lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in shown.splitlines()}
    assert lines["Kind"] == "NetworkPolicy"
    assert lines["Subject"] == "pods app=web"
    assert lines["Isolates for"] == "ingress"
    assert lines["Audit"] == "deny"
    assert "Staged" not in lines
    rows = cells(shown)
    assert [
        *("shop", "web-1", "node-1", "10.244.1.5,fd00:10:244:1::5"),
        "ingress by 2 policies, egress by 1 policy",
    ] in rows
    assert [
        *("ingress[0]", "accept", "120 pods, 1 range"),
        "80/TCP, 8000-8080/UDP, all SCTP, sql = 5432/TCP and 2 more, none = no port",
        *("2", str(2**40), str(2**41), "shared with 2 other policies"),
    ] in rows
    assert ["ingress[1]", "accept", "everybody", "all traffic", "0", "0", "0", "its own"] in rows
    denied = ["ingress", "deny", "all others", "all traffic", "5", "6", "420", "shared with 1 other policy"]
    assert rows.index(denied) == 1 + rows.index(
        ["ingress[1]", "accept", "everybody", "all traffic", "0", "0", "0", "its own"]
    )
    assert ["pod", "shop/client", "node-2", "10.244.2.7"] in rows
    assert ["range", "192.0.2.0/24 except 192.0.2.128/25", "<none>", "<none>"] in rows
    assert "and 119 more" in shown.splitlines()
    assert "Peers of ingress[1]" not in shown
    assert "Node node-1: 1 pod, 1 flows (3 packets, 300 bytes)" in shown
    assert "and 8 more; --node node-1 shows more of them" in shown
    assert "not all is known: the switch of Node node-2 is not connected" in shown
    assert rows[-1] == ["none"]


def test_a_cluster_network_policy_is_found_under_the_same_word(sdnctl: Sdnctl) -> None:
    for kind in ("policy", "cnp", "clusternetworkpolicy", "ClusterNetworkPolicies"):
        code, shown, _ = sdnctl("describe", kind, "out")
        assert code == 0
        lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in shown.splitlines()}
        assert (lines["Tier"], lines["Priority"]) == ("Admin", "7")
        assert lines["Staged"] == "not in force; counted and logged is what it would say"
        rows = cells(shown)
        assert [
            *("egress[0] (out)", "would deny", "1 node, 2 domains", "all traffic", "0", "0", "0"),
            "its own",
        ] in rows
        assert ["node", "node-1", "node-1", "172.30.0.11"] in rows
        assert ["domain", "*.example.com", "<none>", "192.0.2.9 and 3 more"] in rows
        assert ["domain", "b.example", "<none>", "<none>"] in rows


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("policy", "nobody"),
            "there is no NetworkPolicy 'nobody' in namespace default, and no ClusterNetworkPolicy 'nobody'",
        ),
        (("netpol", "out"), "NetworkPolicy out does not exist"),
        (("cnp", "web"), "ClusterNetworkPolicy web does not exist"),
    ],
)
def test_a_policy_that_is_not_there_is_said_so(sdnctl: Sdnctl, arguments: tuple[str, ...], says: str) -> None:
    assert sdnctl("describe", *arguments) == (1, "", f"sdnctl: {says}\n")


def test_a_cluster_network_policy_is_in_no_namespace(sdnctl: Sdnctl) -> None:
    code, _, err = sdnctl("describe", "cnp", "out", "-n", "shop")
    assert (code, "are in no namespace" in err) == (2, True)


def test_it_comes_as_a_document_with_whole_numbers_and_may_be_of_one_node(sdnctl: Sdnctl) -> None:
    found = json.loads(sdnctl("describe", "netpol", "shop/web", "--node", "node-1", "-o", "json")[1])
    assert found["policy"] == WEB
    assert found["rules"][0]["count"] == {"connections": 2, "packets": 2**40, "bytes": 2**41}
    assert found["rules"][0]["networks"] == [{"cidr": "192.0.2.0/24", "exceptions": ["192.0.2.128/25"]}]
    assert found["isolation"] == [
        {
            "direction": "ingress",
            "denied": {"connections": 5, "packets": 6, "bytes": 420},
            "shared_total": 1,
        }
    ]
    assert [(node["node"], node["flow_total"]) for node in found["nodes"]] == [("node-1", 9)]
    assert found["nodes"][0]["flows"][0]["packets"] == 3
    same = yaml.safe_load(sdnctl("describe", "netpol", "shop/web", "--node", "node-1", "-o", "yaml")[1])
    assert same == found


def test_names_of_policies_are_completed(
    server: tuple[Cluster, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    command = typer.main.get_command(main.app)
    for line, expected in (
        ("describe p", {"policy"}),
        ("describe policy o", {"out"}),
        ("describe policy shop/", {"shop/web"}),
        ("describe netpol -n shop w", {"web"}),
    ):
        words = ["sdnctl", "--server", server[1], *line.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_SDNCTL_COMPLETE", "complete_bash")
        with pytest.raises(SystemExit):
            command.main(args=[], prog_name="sdnctl")
        offered = {item.partition(",")[2] or item for item in capsys.readouterr().out.split()}
        assert offered == expected, line
