# SPDX-License-Identifier: Apache-2.0
"""Policies described by a real engine: their pods, and what their rules come to. No switch is there to be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.errors import NotFoundError
from sdn.model import InvalidObjectError
from sdn.model.address import Address
from sdn.v1 import inspection_pb2
from tests.switch.controller_process import attachment, node_info
from tests.unit.policies_engine import Asking, asking, cluster_policy, labels, network_policy

STAGED = {"sdn/staged": "true", "sdn/audit": "deny, accept"}
WEB = {"podSelector": labels(role="web")}


def pods(rule: inspection_pb2.PolicyRule) -> list[str]:
    return [f"{pod.namespace}/{pod.name}" for pod in rule.pods]


def ports(rule: inspection_pb2.PolicyRule) -> list[tuple[str, int, int, str, list[str]]]:
    return [(port.protocol, port.first, port.last, port.name, list(port.resolved)) for port in rule.ports]


def test_a_policy_is_described_with_its_pods_and_who_isolates_them(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        await ask.apply(
            network_policy("db", ingress=[{"from": [WEB]}]),
            network_policy("all", podSelector={}, policyTypes=["Ingress", "Egress"]),
            network_policy("later", podSelector={}, annotations=STAGED),
        )
        told = await ask.describe("db")
        assert (told.tier, told.staged, list(told.audit), told.pod_total) == ("NetworkPolicy", False, [], 1)
        (pod,) = told.pods
        assert (pod.namespace, pod.name, pod.node) == ("shop", "db", "node-1")
        assert list(pod.addresses) == [ask.address("shop", "db"), ask.address("shop", "db", 6)]
        assert (pod.isolating_ingress, pod.isolating_egress) == (2, 1)
        assert [one.direction for one in told.isolation] == ["ingress"]
        later = await ask.describe("later")
        assert (later.staged, list(later.audit)) == (True, ["accept", "deny"])
        assert [pod.name for pod in later.pods] == ["db", "job", "web"]
        (node, _) = later.nodes
        assert (node.node, node.pods, node.error) == (
            "node-1",
            2,
            "the switch of Node node-1 is not connected",
        )

    asking(tmp_path, scenario)


def test_rules_have_their_peers_as_they_are_now(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}
        mine = {"namespaceSelector": labels(project="mine")}
        await ask.apply(network_policy("db", ingress=[{"from": [WEB, block]}, {"from": [mine]}, {}]))
        first, second, third = (await ask.describe("db")).rules
        assert (first.direction, first.rule, first.action) == ("ingress", "ingress[0]", "accept")
        assert (pods(first), first.pod_total, first.everybody) == (["shop/job", "shop/web"], 2, False)
        assert [(one.cidr, list(one.exceptions)) for one in first.networks] == [
            ("192.0.2.0/24", ["192.0.2.128/25"])
        ]
        assert pods(second) == ["partner/client"]
        assert (third.everybody, pods(third), third.pod_total) == (True, [], 0)
        assert not first.ports

    asking(tmp_path, scenario)


def test_nodes_and_domains_are_told_with_their_addresses(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        zone = {"topology.kubernetes.io/zone": "aa"}
        peers = [
            {"nodes": {"matchLabels": zone}},
            {"domainNames": ["*.example.com", "elsewhere.example"]},
            {"networks": ["203.0.113.0/24"]},
        ]
        rule = {"name": "out", "action": "Accept", "to": peers}
        await ask.apply(cluster_policy("out", priority=7, egress=[rule], subject={"namespaces": {}}))
        for name, address in (("a.example.com", "192.0.2.9"), ("b.example.com", "192.0.2.8")):
            ask.engine.policies.names_resolved(name, [Address.parse(address)])
        told = await ask.describe("out", "", "ClusterNetworkPolicy")
        assert (told.tier, told.pod_total, list(told.isolation)) == ("Admin", 5, [])
        (shown,) = told.rules
        assert (shown.rule, shown.action, shown.pod_total) == ("egress[0] (out)", "accept", 0)
        assert [(one.name, list(one.addresses)) for one in shown.nodes] == [
            ("node-2", ["172.30.0.2", "fd00:30::2"])
        ]
        assert [(one.pattern, list(one.addresses), one.address_total) for one in shown.domains] == [
            ("*.example.com", ["192.0.2.8", "192.0.2.9"], 2),
            ("elsewhere.example", [], 0),
        ]
        assert [one.cidr for one in shown.networks] == ["203.0.113.0/24"]

    asking(tmp_path, scenario)


def test_named_ports_are_told_with_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        wanted = [
            {"port": "sql"},
            {"port": "none"},
            {"port": 80},
            {"port": 8000, "endPort": 8080, "protocol": "UDP"},
        ]
        await ask.apply(
            network_policy("in", ingress=[{"ports": [*wanted, {"protocol": "SCTP"}]}]),
            network_policy(
                "out",
                podSelector=labels(role="web"),
                egress=[{"to": [{"podSelector": {}}], "ports": wanted[:2]}],
            ),
            cluster_policy(
                "named",
                ingress=[
                    {
                        "action": "Deny",
                        "from": [{"namespaces": {}}],
                        "protocols": [
                            {"destinationNamedPort": "sql"},
                            {"tcp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
                        ],
                    }
                ],
            ),
        )
        (rule,) = (await ask.describe("in")).rules
        assert ports(rule) == [
            ("TCP", 0, 0, "sql", ["5432/TCP"]),
            ("TCP", 0, 0, "none", []),
            ("TCP", 80, 80, "", []),
            ("UDP", 8000, 8080, "", []),
            ("SCTP", 0, 65535, "", []),
        ]
        (rule,) = (await ask.describe("out")).rules
        assert (pods(rule), ports(rule)[0]) == (["shop/db"], ("TCP", 0, 0, "sql", ["5432/TCP"]))
        (rule,) = (await ask.describe("named", "", "ClusterNetworkPolicy")).rules
        assert ports(rule) == [("", 0, 0, "sql", ["5432/TCP"]), ("TCP", 1, 9, "", [])]
        assert rule.action == "deny"

    asking(tmp_path, scenario)


def test_a_rule_that_others_say_too_names_them(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        for name in ("a", "b", "c"):
            await ask.apply(network_policy(name, ingress=[{"from": [WEB]}]))
        await ask.apply(network_policy("d", ingress=[{"from": [WEB], "ports": [{"port": 1}]}]))
        (rule,) = (await ask.describe("b")).rules
        assert (rule.shared_total, list(rule.shared_with)) == (
            2,
            ["NetworkPolicy/shop/a", "NetworkPolicy/shop/c"],
        )
        (rule,) = (await ask.describe("d")).rules
        assert (rule.shared_total, list(rule.shared_with)) == (0, [])

    asking(tmp_path, scenario)


def test_of_many_pods_the_first_hundred_are_told_and_how_many_there_are(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        node = node_info(1)
        node.pod_ranges.extend(ask.engine.cluster.nodes["node-1"].pod_ranges)
        for number in range(10, 140):
            item = attachment(
                node, number, pod_namespace="many", pod_name=f"p-{number}", labels={"role": "web"}
            )
            await ask.engine.attachments.attach("node-1", item, lambda _refused: None)
        await ask.apply(network_policy("many", "many", podSelector={}, ingress=[{"from": [WEB]}]))
        told = await ask.describe("many", "many")
        (rule,) = told.rules
        assert (len(told.pods), told.pod_total, len(rule.pods), rule.pod_total) == (100, 130, 100, 130)
        assert pods(rule) == sorted(pods(rule))
        assert told.pods[0].name == "p-10"

    asking(tmp_path, scenario)


def test_a_policy_for_nobody_is_described_too(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        await ask.apply(
            network_policy("alone", "nowhere", ingress=[{"from": [WEB], "ports": [{"port": "x"}]}])
        )
        told = await ask.describe("alone", "nowhere")
        assert (told.pod_total, list(told.nodes), told.rules[0].pod_total) == (0, [], 0)
        (node,) = (await ask.describe("alone", "nowhere", node="node-1")).nodes
        assert (node.node, node.error, node.pods, node.flow_total) == ("node-1", "", 0, 0)

    asking(tmp_path, scenario)


def test_what_is_not_there_cannot_be_described(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        await ask.apply(network_policy("db"))
        with pytest.raises(NotFoundError, match="NetworkPolicy shop/none does not exist"):
            await ask.describe("none")
        with pytest.raises(NotFoundError, match="Node node-9 is not registered"):
            await ask.describe("db", node="node-9")
        with pytest.raises(InvalidObjectError, match="kind: 'Pod' is none of NetworkPolicy"):
            await ask.describe("db", kind="Pod")

    asking(tmp_path, scenario)


def test_what_is_counted_on_nodes_that_are_not_connected_here_their_owners_tell(tmp_path: Path) -> None:
    def count(number: int) -> inspection_pb2.PolicyCount:
        return inspection_pb2.PolicyCount(connections=number, packets=2 * number, bytes=3 * number)

    async def scenario(ask: Asking) -> None:
        await ask.apply(network_policy("all", podSelector={}, ingress=[{}]))
        ask.elsewhere = {
            f"node-{number}": inspection_pb2.DescribePolicyResponse(
                rules=[inspection_pb2.PolicyRule(rule="ingress[0]", count=count(number))],
                isolation=[
                    inspection_pb2.PolicyIsolation(
                        direction="ingress", denied=count(10 * number), shared_total=number
                    )
                ],
                nodes=[inspection_pb2.PolicyOnNode(node=f"node-{number}", flow_total=number)],
            )
            for number in (1, 2)
        }
        told = await ask.describe("all")
        assert [(node.node, node.flow_total, node.error) for node in told.nodes] == [
            ("node-1", 1, ""),
            ("node-2", 2, ""),
        ]
        (rule,), (isolation,) = told.rules, told.isolation
        assert (rule.count, isolation.denied, isolation.shared_total) == (count(3), count(30), 2)
        alone = await ask.describe("all", node="node-1")
        assert alone.rules[0].count == count(0), "who is asked for one node answers himself"

    asking(tmp_path, scenario)
