# SPDX-License-Identifier: Apache-2.0
"""What the policy engine answers when it is asked: of policies, of pods, and of connections."""

from __future__ import annotations

from sdn.policy.cells import IsolationCell, PortMatch, RuleCell
from sdn.policy.evaluator import evaluate
from sdn.policy.values import Action, Direction, PolicyRef, Tier
from tests.unit.policy_world import (
    CLIENT,
    DB,
    JOB,
    NODE_2,
    OUTSIDE,
    STRAY,
    TCP,
    UDP,
    WEB,
    cluster_policy,
    connection,
    labels,
    network_policy,
    ref,
    rule,
    with_policies,
)
from tests.unit.test_policy_engine import engine_with, of

# Of policies.


def test_a_rule_of_a_policy_is_told_with_subjects_peers_and_ports() -> None:
    block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]}}
    policy = network_policy(
        podSelector=labels(role="db"),
        ingress=[
            {"from": [{"podSelector": labels(role="web")}, block], "ports": [{"port": 80, "endPort": 90}]},
            {"from": [{"namespaceSelector": labels(project="mine")}]},
        ],
    )
    engine = engine_with(
        policy,
        network_policy(
            "twin",
            podSelector=labels(role="db"),
            ingress=[{"from": [{"namespaceSelector": labels(project="mine")}]}],
        ),
    )
    first, second = engine.bodies_of(ref(policy))
    assert (first.rule, first.action, first.stage.tier) == ("ingress[0]", Action.ACCEPT, Tier.NETWORK_POLICY)
    assert first.subjects == (DB,)
    assert first.pods == (WEB,)
    assert list(map(str, first.networks)) == ["192.0.2.128/25"]
    assert first.ports == (PortMatch(TCP, 80, 90),)
    assert first.policies == (ref(policy),)
    assert (second.rule, second.pods, second.networks, second.ports) == ("ingress[1]", (CLIENT,), (), None)
    assert [one.name for one in second.policies] == ["policy", "twin"]
    numbers = {cell.key.conjunction for cell in of(engine, "node-1", RuleCell)}
    assert {first.conjunction, second.conjunction} == numbers


def test_rules_with_ports_by_name_are_told_as_they_are_asked() -> None:
    policy = network_policy(
        ingress=[{"ports": [{"port": "http"}]}],
        egress=[{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}],
        policyTypes=["Ingress", "Egress"],
    )
    into, *out = engine_with(policy).bodies_of(ref(policy))
    assert (into.names, into.ports) == (("http",), ())
    assert {one.ports: one.pods for one in out} == {
        (PortMatch(TCP, 8080, 8080),): (WEB,),
        (PortMatch(TCP, 9000, 9000),): (JOB,),
    }
    assert {one.rule for one in out} == {"egress[0]"}


def test_nodes_are_told_as_addresses() -> None:
    policy = cluster_policy(egress=[rule("Deny", {"nodes": labels(zone="b")}, name="no nodes")])
    (found,) = engine_with(policy).bodies_of(ref(policy))
    assert found.rule == "egress[0] (no nodes)"
    assert list(map(str, found.networks)) == [f"{NODE_2.addresses[0]}/32", f"{NODE_2.addresses[1]}/128"]


def test_the_pods_of_a_policy_and_the_policies_of_a_pod() -> None:
    some = network_policy("some", podSelector=labels(role="web"))
    everyone, staged = cluster_policy("everyone"), network_policy("staged", staged=True)
    engine = engine_with(some, everyone, staged)
    assert engine.selected_pods(ref(some)) == (WEB,)
    assert engine.selected_pods(ref(everyone)) == (STRAY, CLIENT, DB, JOB, WEB)
    assert engine.policies_of(WEB.key) == (ref(everyone), ref(some), ref(staged))
    assert engine.policies_of(CLIENT.key) == (ref(everyone),)
    nobody = PolicyRef("NetworkPolicy", "shop", "none")
    assert (engine.selected_pods(nobody), engine.bodies_of(nobody), engine.policies_of("none")) == (
        (),
        (),
        (),
    )


def test_a_rule_is_found_by_its_number_while_it_is_in_force() -> None:
    policy = network_policy(ingress=[{}])
    engine = engine_with(policy)
    (cell,) = of(engine, "node-1", RuleCell)
    assert engine.rule(cell.key.conjunction) == cell
    engine.remove_policy(ref(policy))
    assert engine.rule(cell.key.conjunction) is None


def test_isolation_is_told_by_pod_and_direction() -> None:
    engine = engine_with(
        network_policy(podSelector=labels(role="db")), network_policy("out", staged=True, egress=[])
    )
    (cell,) = (one for one in of(engine, "node-1", IsolationCell) if not one.key.staged)
    assert engine.isolation(DB.key, Direction.INGRESS) == cell
    assert engine.isolation(DB.key, Direction.EGRESS) is None
    assert engine.isolation(WEB.key, Direction.INGRESS) is None
    assert engine.isolation(WEB.key, Direction.INGRESS, staged=True) is not None
    assert engine.isolation("none", Direction.INGRESS) is None


# Of connections.


def test_of_a_connection_is_told_what_the_evaluator_says() -> None:
    policies = (
        network_policy(
            "web", podSelector=labels(role="db"), ingress=[{"from": [{"podSelector": labels(role="web")}]}]
        ),
        network_policy("deny"),
        cluster_policy(ingress=[rule("Pass", {"namespaces": labels(team="red")}, name="own")]),
    )
    engine, cluster = engine_with(*policies), with_policies(*policies)
    for source, destination in (
        (WEB, DB),
        (JOB, DB),
        (CLIENT, DB),
        (DB, CLIENT),
        (OUTSIDE, WEB),
        (DB, OUTSIDE),
    ):
        asked = connection(cluster, source, destination)
        ends = asked.source_address, asked.destination_address
        assert engine.allows(*ends, TCP, asked.port) == evaluate(cluster, asked).allowed


def test_connections_are_judged_as_things_are_now() -> None:
    engine = engine_with(network_policy(ingress=[{"from": [{"namespaceSelector": labels(project="mine")}]}]))

    def allowed() -> bool:
        return engine.allows(CLIENT.addresses[0], DB.addresses[0], TCP, 80)

    assert allowed()
    engine.put_namespace("partner", {})
    assert not allowed()
    engine.put_policy(network_policy(ingress=[{}]))
    assert allowed()
    engine.put_policy(cluster_policy(ingress=[rule("Deny")]))
    assert not allowed()
    engine.remove_pod(DB.key)
    assert allowed()


def test_connections_are_asked_for_by_their_addresses() -> None:
    engine = engine_with(
        network_policy(podSelector=labels(role="db"), ingress=[{"ports": [{"port": "sql"}]}])
    )
    web, db = WEB.addresses[0], DB.addresses[0]
    assert engine.allows(web, db, TCP, 5432)
    assert not engine.allows(web, db, UDP, 5432)
    assert not engine.allows(OUTSIDE, db, TCP, 80)
    assert engine.allows(db, OUTSIDE, TCP, 80)
