# SPDX-License-Identifier: Apache-2.0
"""Whatever the cluster: the engine says of any connection what the evaluator says, and so do the cells of its nodes.

Cells are read by a small interpreter that knows what a switch knows: the cells of its own node, and which addresses are
its node's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given

from sdn.model.networkpolicy import staged
from sdn.policy.cells import (
    Cell,
    CellKey,
    GuardCell,
    GuardKey,
    IsolationCell,
    IsolationKey,
    PeerCell,
    RuleCell,
    RuleKey,
    SubjectCell,
)
from sdn.policy.engine import PolicyEngine
from sdn.policy.evaluator import evaluate, policy_ref
from sdn.policy.values import Action, Direction, PolicyPod, Tier
from sdn.policy.verdict import Connection, PolicyCluster
from tests.property.policy_clusters import PolicyCase, policy_clusters

Cells = Mapping[CellKey, Cell]


def engine_of(cluster: PolicyCluster) -> PolicyEngine:
    """An engine that was told everything of a cluster."""
    engine = PolicyEngine()
    for policy in cluster.policies:
        engine.put_policy(policy)
    for pod in cluster.pods:
        engine.put_pod(pod)
    for name, labels in cluster.namespaces.items():
        engine.put_namespace(name, labels)
    for node in cluster.nodes:
        engine.put_node(node)
    for name, addresses in cluster.domains.items():
        engine.put_domain(name, addresses)
    return engine


def rule_of(
    cells: Cells, pod: PolicyPod, direction: Direction, tier: Tier, connection: Connection, with_staged: bool
) -> RuleCell | None:
    """The rule of a tier that a switch would find: of the first level at which the peer and the pod's port meet."""
    peer = connection.source_address if direction is Direction.INGRESS else connection.destination_address
    met: list[RuleCell] = []
    for subject in cells.values():
        if not isinstance(subject, SubjectCell) or subject.key.ofport != pod.ofport:
            continue
        stage, ports = subject.key.stage, subject.key.ports
        if (stage.direction, stage.tier) != (direction, tier) or (stage.staged and not with_staged):
            continue
        if ports is not None and (
            connection.protocol != ports.protocol or not ports.first <= connection.port <= ports.last
        ):
            continue
        for cell in cells.values():
            if isinstance(cell, PeerCell) and cell.key.stage == stage and peer in cell.key.network:
                for number in set(cell.conjunctions) & set(subject.conjunctions):
                    rule = cells[RuleKey(number)]
                    assert isinstance(rule, RuleCell)
                    assert rule.stage == stage
                    met.append(rule)
    if not met:
        return None
    first = min(rule.stage.level for rule in met)
    (action,) = {rule.action for rule in met if rule.stage.level == first}
    return next(rule for rule in met if rule.stage.level == first and rule.action is action)


def allowed_by_cells(
    engine: PolicyEngine,
    cluster: PolicyCluster,
    direction: Direction,
    connection: Connection,
    with_staged: bool,
) -> bool:
    """What the switch of the pod at one end makes of a connection."""
    pod, other = connection.source, connection.destination
    address = connection.destination_address
    if direction is Direction.INGRESS:
        pod, other, address = other, pod, connection.source_address
    if not isinstance(pod, PolicyPod) or (isinstance(other, PolicyPod) and pod.key == other.key):
        return True
    own = {
        one for node in cluster.nodes if node.name == pod.node for one in (*node.addresses, *node.gateways)
    }
    if direction is Direction.INGRESS and address in own:
        return True
    cells = engine.cells(pod.node)
    rule = rule_of(cells, pod, direction, Tier.ADMIN, connection, with_staged)
    if rule is not None and rule.action is not Action.PASS:
        return rule.action is Action.ACCEPT
    if address in own:
        return True
    if rule_of(cells, pod, direction, Tier.NETWORK_POLICY, connection, with_staged) is not None:
        return True
    if any(IsolationKey(direction, pod.ofport, staged=each) in cells for each in ({False, with_staged})):
        return False
    rule = rule_of(cells, pod, direction, Tier.BASELINE, connection, with_staged)
    return rule is None or rule.action is not Action.DENY


@given(policy_clusters())
def test_a_connection_between_addresses_is_allowed_when_the_evaluator_allows_it(case: PolicyCase) -> None:
    engine = engine_of(case.cluster)
    for connection in case.connections:
        source, destination = connection.source_address, connection.destination_address
        allowed = engine.allows(source, destination, connection.protocol, connection.port)
        assert allowed == evaluate(case.cluster, connection).allowed


@given(policy_clusters(connections=25))
def test_the_cells_of_the_nodes_of_both_pods_allow_what_the_evaluator_allows(case: PolicyCase) -> None:
    engine = engine_of(case.cluster)
    for connection in case.connections:
        for with_staged in (False, True):
            verdict = evaluate(case.cluster, connection, with_staged=with_staged)
            for decision in (verdict.egress, verdict.ingress):
                allowed = allowed_by_cells(engine, case.cluster, decision.direction, connection, with_staged)
                assert allowed == decision.allowed, (connection, decision, with_staged)


@given(policy_clusters(connections=0))
def test_cells_of_a_node_fit_together(case: PolicyCase) -> None:
    engine = engine_of(case.cluster)
    for node in case.cluster.nodes:
        cells = engine.cells(node.name)
        pods = {pod.ofport: pod for pod in case.cluster.pods if pod.node == node.name}
        rules = {key.conjunction for key in cells if isinstance(key, RuleKey)}
        for key, cell in cells.items():
            assert cell.key == key
            if isinstance(cell, PeerCell | SubjectCell):
                assert cell.conjunctions
                assert list(cell.conjunctions) == sorted(set(cell.conjunctions))
                assert rules.issuperset(cell.conjunctions)
                for number in cell.conjunctions:
                    rule = cells[RuleKey(number)]
                    assert isinstance(rule, RuleCell)
                    assert rule.stage == cell.key.stage
            if isinstance(cell, SubjectCell | IsolationCell | GuardCell):
                assert cell.addresses == pods[cell.key.ofport].addresses


@given(policy_clusters(connections=0))
def test_pods_are_guarded_exactly_when_a_policy_in_force_says_something_of_them(case: PolicyCase) -> None:
    engine = engine_of(case.cluster)
    saying = {
        policy_ref(one): one.KIND == "NetworkPolicy" or bool(one.spec.ingress or one.spec.egress)
        for one in case.cluster.policies
        if not staged(one.metadata)
    }
    for pod in case.cluster.pods:
        guarded = GuardKey(pod.ofport) in engine.cells(pod.node)
        assert guarded == any(saying.get(ref, False) for ref in engine.policies_of(pod.key))
