# SPDX-License-Identifier: Apache-2.0
"""Connections that people ask about: how their ends are named, and that the answer is the reference evaluator's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.errors import NotFoundError, PreconditionError
from controller.policies import policy_pod
from sdn.model import InvalidObjectError, parse
from sdn.model.address import Address
from sdn.policy.evaluator import evaluate, would_deny
from sdn.policy.verdict import connection_between
from tests.switch.controller_process import attachment, node_info
from tests.unit.policies_engine import Asking, asking, cluster_policy, document, labels, network_policy
from tests.unit.services_engine import endpoint_slice, host_pod, policy_cluster, service

STAGED = {"sdn/staged": "true"}
FROM_WEB = {"from": [{"podSelector": labels(role="web")}], "ports": [{"port": "sql"}]}


def test_each_family_that_both_ends_have_is_answered_with_the_reasons_of_both(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        await ask.apply(network_policy("db", ingress=[FROM_WEB]))
        answer = await ask.check("web", "shop/db", 5432)
        assert [(one.family, one.allowed, one.protocol, one.port) for one in answer.verdicts] == [
            ("IPv4", True, "TCP", 5432),
            ("IPv6", True, "TCP", 5432),
        ]
        first = answer.verdicts[0]
        assert (first.source, first.source_address) == ("shop/web", ask.address("shop", "web"))
        assert (first.destination, first.destination_address) == ("shop/db", ask.address("shop", "db"))
        assert first.reason == (
            "Pod shop/web may open the connection: no policy selects it for egress. "
            "Pod shop/db lets the connection in: ingress[0] of NetworkPolicy/shop/db (tier NetworkPolicy) accepts it."
        )
        assert (first.egress.reason, first.ingress.reason) == ("unselected", "rule")
        assert (first.ingress.policy, first.ingress.rule) == ("NetworkPolicy/shop/db", "ingress[0]")
        assert (first.ingress.tier, first.ingress.action) == ("NetworkPolicy", "accept")
        assert list(first.ingress.isolating) == ["NetworkPolicy/shop/db"]
        denied = (await ask.check("web", "db", 80)).verdicts[0]
        assert (denied.allowed, denied.ingress.reason, denied.ingress.rule) == (False, "isolated", "")

    asking(tmp_path, scenario)


def test_an_end_that_is_of_one_family_is_asked_in_that_one(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        assert [one.family for one in (await ask.check("other/only-4", "db")).verdicts] == ["IPv4"]
        assert [one.family for one in (await ask.check("web", "db", family="IPv6")).verdicts] == ["IPv6"]
        for fields in ({"family": "IPv6"}, {"source": ask.address("shop", "web", 6)}):
            with pytest.raises(PreconditionError):
                await ask.check(**{"source": "web", "destination": "other/only-4", **fields})

    asking(tmp_path, scenario)


def test_ends_are_pods_nodes_and_addresses(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        await ask.apply(
            network_policy("db", ingress=[FROM_WEB]),
            host_pod("host", "node-2", role="web"),
            document("Namespace", "node"),
        )
        web = ask.address("shop", "web")
        for source, named in (
            ("web", "shop/web"),
            ("shop/web", "shop/web"),
            ("pod/shop/web", "shop/web"),
            (web, "shop/web"),
            ("node/node-2", "node/node-2"),
            ("172.30.0.2", "node/node-2"),
            ("default/host", "node/node-2"),
            ("192.0.2.9", "192.0.2.9"),
        ):
            (one,) = (await ask.check(source, "db", 5432, family="IPv4")).verdicts
            assert one.source == named
            assert one.allowed is (named == "shop/web"), source
        assert await ask.allowed("node/node-1", "db", 80), "a pod's own node is never shut out"
        answer = await ask.check("192.0.2.9", "192.0.2.10")
        assert answer.verdicts[0].reason == "No pod is at either end, so policies do not apply."

    asking(tmp_path, scenario)


def test_of_a_pod_whose_sandbox_is_replaced_the_newest_counts(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        engine = ask.engine
        (old,) = engine.cluster.attachments_of("shop", "web")
        node = node_info(1)
        node.pod_ranges.extend(engine.cluster.nodes["node-1"].pod_ranges)
        item = attachment(node, 9, pod_namespace="shop", pod_name="web", labels={"role": "other"})
        item.created_at.FromSeconds(2_000_000_000)
        await engine.attachments.attach("node-1", item, lambda _refused: None)
        (one,) = (await ask.check("web", "db", family="IPv4")).verdicts
        assert one.source_address == item.addresses[0] != old.addresses[0]

    asking(tmp_path, scenario)


def test_protocols_and_their_ports(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        udp = {"from": [{"podSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}]}
        await ask.apply(network_policy("db", ingress=[udp]))
        assert await ask.allowed("web", "db", 53, protocol="UDP")
        assert not await ask.allowed("web", "db", 53, protocol="tcp")
        assert not await ask.allowed("web", "db", 53, protocol="sctp")
        answer = await ask.check("web", "db", 0, protocol="icmp")
        assert [(one.protocol, one.port, one.allowed) for one in answer.verdicts] == [
            ("ICMP", 0, False),
            ("ICMPv6", 0, False),
        ]

    asking(tmp_path, scenario)


def test_what_staged_policies_would_deny_is_told_beside_the_answer(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        await ask.apply(network_policy("db", ingress=[FROM_WEB], annotations=STAGED))
        one = (await ask.check("web", "db", 80)).verdicts[0]
        assert (one.allowed, list(one.would_deny)) == (True, ["NetworkPolicy/shop/db"])
        assert not (await ask.check("web", "db", 5432)).verdicts[0].would_deny

    asking(tmp_path, scenario)


def test_a_service_is_asked_about_at_each_endpoint_with_the_endpoints_port(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        web = service("web", selector={"role": "web"})
        web["metadata"]["namespace"] = "shop"
        await ask.apply(
            web,
            network_policy("web", podSelector=labels(role="web"), ingress=[{"ports": [{"port": 8080}]}]),
            cluster_policy("job", subject={"pods": {"podSelector": {}, "namespaceSelector": {}}}, ingress=[]),
        )
        # Ready are pods whose switches have confirmed them; here there are none that could.
        for name in ("web", "job"):
            key = next(
                key for key, record in ask.engine.cluster.attachments.items() if record.pod_name == name
            )
            ask.engine.loadbalancing.in_force.add(key)
            ask.engine.loadbalancing.pod_changed("shop", name)
        await ask.engine.loadbalancing.idle()
        for destination in ("service/shop/web", "service/web"):
            answer = await ask.check("partner/client", destination, 80)
            assert answer.endpoint_total == 2
            assert [(one.destination, one.port, one.allowed) for one in answer.verdicts] == [
                ("shop/job", 8080, True),
                ("shop/web", 8080, True),
            ]
        assert await ask.allowed("partner/client", "service/web", 0), "it has one port of TCP only"
        web["spec"]["internalTrafficPolicy"] = "Local"
        await ask.apply(web)
        for source, endpoint in (("partner/client", "shop/job"), ("db", "shop/web")):
            answer = await ask.check(source, "service/web", 80)
            assert [one.destination for one in answer.verdicts] == [endpoint], "of the client's own node"
        assert len((await ask.check("192.0.2.1", "service/web", 80)).verdicts) == 2
        (spec,) = [
            value.spec
            for value in ask.engine.cluster.objects["Service"].values()
            if value.metadata.name == "web"
        ]
        with pytest.raises(InvalidObjectError, match="say service/shop/web"):
            await ask.check("web", spec.addresses[0])

    asking(tmp_path, scenario)


def test_endpoints_of_a_service_that_are_no_pods_are_told_by_address(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        addresses = [f"198.51.{number >> 8}.{number & 255}" for number in range(150)]
        await ask.apply(
            service("far", selector=None),
            endpoint_slice("far-1", "far", *addresses),
            cluster_policy(
                "no-far",
                egress=[{"action": "Deny", "to": [{"networks": ["198.51.0.7/32"]}]}],
            ),
        )
        answer = await ask.check("web", "service/default/far")
        assert answer.endpoint_total == 150
        assert len(answer.verdicts) == 100
        denied = [one for one in answer.verdicts if not one.allowed]
        assert [(one.destination, one.egress.policy) for one in denied] == [
            ("198.51.0.7", "ClusterNetworkPolicy/no-far")
        ]

    asking(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"source": "nobody"}, NotFoundError, "Pod shop/nobody does not exist"),
        ({"source": "a/b/c"}, InvalidObjectError, "source: 'a/b/c' is none of NAMESPACE/POD, POD"),
        ({"source": ""}, InvalidObjectError, "source: '' is none of"),
        ({"source": "service/shop/web"}, InvalidObjectError, "a Service opens no connections"),
        ({"source": "node/node-9"}, NotFoundError, "Node node-9 is not registered"),
        ({"destination": "waiting"}, PreconditionError, "Pod shop/waiting is not attached"),
        (
            {"destination": "10.96.0.77"},
            InvalidObjectError,
            "destination: 10.96.0.77 is an address of Services",
        ),
        ({"destination": "service/none"}, NotFoundError, "Service shop/none does not exist"),
        ({"destination": "service/empty"}, PreconditionError, "has no endpoint that could answer"),
        ({"destination": "service/alias"}, PreconditionError, "is another name for a.example"),
        (
            {"destination": "service/empty", "port": 81},
            InvalidObjectError,
            "has no port 81/TCP; it has 80/TCP",
        ),
        (
            {"destination": "service/two", "port": 0},
            InvalidObjectError,
            "which\\? Service shop/two has 1/TCP, 2/TCP",
        ),
        (
            {"destination": "service/empty", "protocol": "icmp", "port": 0},
            InvalidObjectError,
            "passes on no ICMP",
        ),
        ({"port": 0}, InvalidObjectError, "port: TCP needs the port"),
        ({"port": 70000}, InvalidObjectError, "port: must be 1 to 65535"),
        ({"protocol": "icmp"}, InvalidObjectError, "port: must be"),
        ({"protocol": "gre"}, InvalidObjectError, "protocol: 'gre' is none of tcp, udp, sctp, icmp"),
        ({"family": "IPv5"}, InvalidObjectError, "family: 'IPv5' is none of IPv4, IPv6"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_field(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    async def scenario(ask: Asking) -> None:
        alias = service("alias", selector=None, type="ExternalName", externalName="a.example", ports=[])
        two = service("two", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
        for each in (service("empty"), two, alias):
            each["metadata"]["namespace"] = "shop"
            await ask.apply(each)
        await ask.apply(document("Pod", "waiting", "shop"))
        with pytest.raises(error, match=says):
            await ask.check(**{"source": "web", "destination": "db", **fields})

    asking(tmp_path, scenario)


def test_the_answer_is_that_of_the_evaluator_on_the_whole_cluster(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        web = {"pods": {"namespaceSelector": {}, "podSelector": labels(role="web")}}
        await ask.apply(
            network_policy("db", ingress=[FROM_WEB]),
            network_policy("closed", "partner", podSelector={}, policyTypes=["Egress"], annotations=STAGED),
            network_policy("web", podSelector=labels(role="web"), egress=[{"to": [{"podSelector": {}}]}]),
            network_policy("elsewhere", "other", podSelector={}),
            cluster_policy("nodes", egress=[{"action": "Deny", "to": [{"nodes": {}}]}], subject=web),
            cluster_policy("pass", priority=1, ingress=[{"action": "Pass", "from": [{"namespaces": {}}]}]),
            cluster_policy(
                "mine",
                tier="Baseline",
                ingress=[{"action": "Deny", "from": [{"namespaces": labels(project="mine")}]}],
            ),
            cluster_policy(
                "names",
                priority=20,
                egress=[{"action": "Accept", "to": [{"domainNames": ["*.example.com"]}]}],
            ),
        )
        ask.engine.policies.names_resolved("www.example.com", [Address.parse("192.0.2.9")])
        whole = policy_cluster(ask.engine)
        cluster = ask.engine.cluster
        pods = [policy_pod(cluster, record) for record in cluster.attachments.values()]
        ends = [str(one.addresses[0]) for one in pods]
        ends += [record.addresses[0] for record in cluster.nodes.values()]
        ends += ["10.244.0.1", "10.244.1.1", "192.0.2.9", "203.0.113.1"]
        denied = 0
        for source in ends:
            for destination in ends:
                (one,) = (await ask.check(source, destination, 5432, family="IPv4")).verdicts
                connection = connection_between(
                    whole, Address.parse(source), Address.parse(destination), 6, 5432
                )
                expected = evaluate(whole, connection)
                assert (one.allowed, one.reason) == (expected.allowed, expected.describe())
                assert list(one.would_deny) == [str(ref) for ref in would_deny(whole, connection)]
                denied += not one.allowed
        assert 10 < denied < len(ends) ** 2

    asking(tmp_path, scenario)


def test_the_loop_goes_on_while_thousands_of_policies_are_asked(tmp_path: Path) -> None:
    async def scenario(ask: Asking) -> None:
        for number in range(3_000):
            peers = [{"namespaces": labels(team=str(number))}]
            value = parse(cluster_policy(f"p-{number}", ingress=[{"action": "Pass", "from": peers}]))
            ask.engine.cluster.put_object(value)
        rounds = 0

        async def count() -> None:
            nonlocal rounds
            while True:
                await asyncio.sleep(0)
                rounds += 1

        counting = asyncio.create_task(count())
        assert await ask.allowed("web", "db")
        counting.cancel()
        assert rounds > 20

    asking(tmp_path, scenario)
