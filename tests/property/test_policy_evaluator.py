# SPDX-License-Identifier: Apache-2.0
"""Whatever the cluster and its policies: what the documentation says of policies in general is so of every verdict."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sdn.model import clusternetworkpolicy as cnp
from sdn.model import networkpolicy as netpol
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.meta import ObjectMeta
from sdn.model.networkpolicy import NetworkPolicy, staged
from sdn.model.selector import LabelSelectorSpec
from sdn.policy.evaluator import evaluate, policy_ref, would_deny
from sdn.policy.values import Direction, PolicyPod, Tier
from sdn.policy.verdict import Connection, Decision, Policy, PolicyCluster, Reason, Verdict
from tests.property.policy_clusters import PolicyCase, policy_clusters
from tests.property.policy_objects import NAMESPACES, random_network_policy

CASES = policy_clusters(connections=20)
EVERYBODY = LabelSelectorSpec()


def with_policies(cluster: PolicyCluster, policies: Iterable[Policy]) -> PolicyCluster:
    return dataclasses.replace(cluster, policies=tuple(policies))


def with_spec(policy: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(policy, spec=msgspec.structs.replace(policy.spec, **fields))


def verdicts(cluster: PolicyCluster, connections: Iterable[Connection]) -> list[Verdict]:
    return [evaluate(cluster, connection) for connection in connections]


def allowed(cluster: PolicyCluster, connections: Iterable[Connection]) -> list[bool]:
    return [verdict.allowed for verdict in verdicts(cluster, connections)]


def decisions(verdict: Verdict) -> tuple[Decision, Decision]:
    return verdict.egress, verdict.ingress


# What policies add up to.


@given(case=CASES, seed=st.integers(0, 2**32 - 1))
def test_another_rule_of_a_network_policy_denies_nothing(case: PolicyCase, seed: int) -> None:
    rng = Random(seed)
    before = allowed(case.cluster, case.connections)
    for position, policy in enumerate(case.cluster.policies):
        if not isinstance(policy, NetworkPolicy):
            continue
        more = random_network_policy(rng, "more", policy.metadata.namespace).spec
        # Egress rules would isolate for egress where policyTypes are left out.
        egress = (
            policy.spec.egress + more.egress if policy.spec.isolates(netpol.EGRESS) else policy.spec.egress
        )
        wider = with_spec(policy, ingress=policy.spec.ingress + more.ingress, egress=egress)
        policies = list(case.cluster.policies)
        policies[position] = wider
        after = allowed(with_policies(case.cluster, policies), case.connections)
        assert not [one for one, was, now in zip(case.connections, before, after, strict=True) if was > now]


@given(case=CASES)
def test_pods_that_are_isolated_without_rules_get_nothing(case: PolicyCase) -> None:
    isolating = [
        NetworkPolicy(
            metadata=ObjectMeta(name="isolated", namespace=namespace),
            spec=netpol.NetworkPolicySpec(policy_types=(netpol.INGRESS, netpol.EGRESS)),
        )
        for namespace in NAMESPACES
    ]
    baseline = [
        policy
        for policy in case.cluster.policies
        if isinstance(policy, ClusterNetworkPolicy) and policy.spec.tier == cnp.BASELINE
    ]
    for verdict in verdicts(with_policies(case.cluster, [*isolating, *baseline]), case.connections):
        for decision in decisions(verdict):
            assert decision.allowed == (not decision.checked)


@given(case=CASES)
def test_a_policy_allows_what_its_rules_allow_as_policies_of_their_own(case: PolicyCase) -> None:
    split: list[Policy] = []
    for policy in case.cluster.policies:
        if isinstance(policy, NetworkPolicy):
            split += _one_for_each_rule(policy)
        else:
            split.append(policy)
    assert allowed(case.cluster, case.connections) == allowed(
        with_policies(case.cluster, split), case.connections
    )


def _one_for_each_rule(policy: NetworkPolicy) -> Iterator[NetworkPolicy]:
    types = tuple(one for one in (netpol.INGRESS, netpol.EGRESS) if policy.spec.isolates(one))
    ingress, egress = policy.spec.ingress, policy.spec.egress
    rules = [((), ()), *(((rule,), ()) for rule in ingress), *(((), (rule,)) for rule in egress)]
    for number, (ins, outs) in enumerate(rules):
        metadata = msgspec.structs.replace(policy.metadata, name=f"{policy.metadata.name}-{number}")
        yield with_spec(
            NetworkPolicy(metadata=metadata, spec=policy.spec), ingress=ins, egress=outs, policy_types=types
        )


@given(case=CASES)
def test_passing_everything_on_first_is_having_no_admin_tier(case: PolicyCase) -> None:
    peers = (
        cnp.ClusterNetworkPolicyPeer(namespaces=EVERYBODY),
        cnp.ClusterNetworkPolicyPeer(networks=("0.0.0.0/0", "::/0")),
    )
    passing = ClusterNetworkPolicy(
        metadata=ObjectMeta(name="passing"),
        spec=cnp.ClusterNetworkPolicySpec(
            tier=cnp.ADMIN,
            priority=0,
            subject=cnp.Subject(namespaces=EVERYBODY),
            ingress=(cnp.ClusterNetworkPolicyIngressRule(action=cnp.PASS, from_=peers),),
            egress=(cnp.ClusterNetworkPolicyEgressRule(action=cnp.PASS, to=peers),),
        ),
    )
    lower: list[Policy] = []
    others: list[Policy] = []
    for policy in case.cluster.policies:
        if isinstance(policy, ClusterNetworkPolicy):
            policy = with_spec(policy, priority=policy.spec.priority + 1)
        lower.append(policy)
        if isinstance(policy, NetworkPolicy) or policy.spec.tier != cnp.ADMIN:
            others.append(policy)
    assert allowed(with_policies(case.cluster, [passing, *lower]), case.connections) == allowed(
        with_policies(case.cluster, others), case.connections
    )


# What makes no difference.


@given(case=CASES, seed=st.integers(0, 2**32 - 1))
def test_the_order_of_objects_means_nothing(case: PolicyCase, seed: int) -> None:
    rng, cluster = Random(seed), case.cluster
    shuffled = PolicyCluster(
        namespaces=dict(rng.sample(sorted(cluster.namespaces.items()), len(cluster.namespaces))),
        nodes=tuple(rng.sample(cluster.nodes, len(cluster.nodes))),
        pods=tuple(rng.sample(cluster.pods, len(cluster.pods))),
        policies=tuple(rng.sample(cluster.policies, len(cluster.policies))),
        domains=dict(reversed(tuple(cluster.domains.items()))),
    )
    assert verdicts(cluster, case.connections) == verdicts(shuffled, case.connections)
    for connection in case.connections:
        assert would_deny(cluster, connection) == would_deny(shuffled, connection)


@given(case=CASES, seed=st.integers(0, 2**32 - 1))
def test_the_order_in_a_network_policy_means_nothing(case: PolicyCase, seed: int) -> None:
    rng = Random(seed)

    def shuffled(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(rng.sample(values, len(values)))

    policies: list[Policy] = []
    for policy in case.cluster.policies:
        if isinstance(policy, NetworkPolicy):
            ingress = [
                msgspec.structs.replace(rule, from_=shuffled(rule.from_), ports=shuffled(rule.ports))
                for rule in shuffled(policy.spec.ingress)
            ]
            egress = [
                msgspec.structs.replace(rule, to=shuffled(rule.to), ports=shuffled(rule.ports))
                for rule in shuffled(policy.spec.egress)
            ]
            policy = with_spec(policy, ingress=tuple(ingress), egress=tuple(egress))
        policies.append(policy)
    assert allowed(case.cluster, case.connections) == allowed(
        with_policies(case.cluster, policies), case.connections
    )


@given(case=CASES)
def test_pods_that_are_at_neither_end_mean_nothing(case: PolicyCase) -> None:
    for connection in case.connections:
        ends = tuple(end for end in (connection.source, connection.destination) if isinstance(end, PolicyPod))
        alone = dataclasses.replace(case.cluster, pods=ends)
        assert evaluate(alone, connection) == evaluate(case.cluster, connection)


@given(case=CASES)
def test_each_direction_is_decided_without_the_rules_of_the_other(case: PolicyCase) -> None:
    without: dict[Direction, list[Policy]] = {Direction.INGRESS: [], Direction.EGRESS: []}
    for policy in case.cluster.policies:
        if isinstance(policy, NetworkPolicy):
            types = tuple(one for one in (netpol.INGRESS, netpol.EGRESS) if policy.spec.isolates(one))
            policy = with_spec(policy, policy_types=types)
        without[Direction.INGRESS].append(with_spec(policy, ingress=()))
        without[Direction.EGRESS].append(with_spec(policy, egress=()))
    for connection in case.connections:
        verdict = evaluate(case.cluster, connection)
        only_egress = evaluate(with_policies(case.cluster, without[Direction.INGRESS]), connection)
        only_ingress = evaluate(with_policies(case.cluster, without[Direction.EGRESS]), connection)
        assert (verdict.egress, verdict.ingress) == (only_egress.egress, only_ingress.ingress)


def _halves(cidr: str) -> tuple[str, ...]:
    network = ipaddress.ip_network(cidr)
    if network.prefixlen == network.max_prefixlen:
        return (cidr,)
    return tuple(str(half) for half in network.subnets())


def _half_peers(peer: netpol.NetworkPolicyPeer) -> Iterator[netpol.NetworkPolicyPeer]:
    """Ranges by their halves, each with the exceptions that lie in it."""
    if peer.ip_block is None:
        yield peer
        return
    for half in _halves(peer.ip_block.cidr):
        within = [one for one in peer.ip_block.except_ if _within(one, half)]
        yield netpol.NetworkPolicyPeer(ip_block=netpol.IPBlock(cidr=half, except_=tuple(within)))


def _within(one: str, other: str) -> bool:
    network = ipaddress.ip_network(one)
    return network.network_address in ipaddress.ip_network(other)


@given(case=CASES)
def test_a_range_of_addresses_means_what_its_halves_mean(case: PolicyCase) -> None:
    policies: list[Policy] = []
    for policy in case.cluster.policies:
        if isinstance(policy, NetworkPolicy):
            ingress = [
                msgspec.structs.replace(
                    rule, from_=tuple(half for one in rule.from_ for half in _half_peers(one))
                )
                for rule in policy.spec.ingress
            ]
            egress = [
                msgspec.structs.replace(rule, to=tuple(half for one in rule.to for half in _half_peers(one)))
                for rule in policy.spec.egress
            ]
            policies.append(with_spec(policy, ingress=tuple(ingress), egress=tuple(egress)))
        else:
            rules = [
                msgspec.structs.replace(rule, to=tuple(_half_networks(one) for one in rule.to))
                for rule in policy.spec.egress
            ]
            policies.append(with_spec(policy, egress=tuple(rules)))
    assert verdicts(case.cluster, case.connections) == verdicts(
        with_policies(case.cluster, policies), case.connections
    )


def _half_networks(peer: cnp.ClusterNetworkPolicyPeer) -> cnp.ClusterNetworkPolicyPeer:
    networks = tuple(half for cidr in peer.networks for half in _halves(cidr))
    return msgspec.structs.replace(peer, networks=networks)


def _half_ports(port: netpol.NetworkPolicyPort) -> Iterator[netpol.NetworkPolicyPort]:
    if not isinstance(port.port, int) or port.end_port <= port.port:
        yield port
        return
    middle = (port.port + port.end_port) // 2
    yield msgspec.structs.replace(port, end_port=middle)
    yield msgspec.structs.replace(port, port=middle + 1)


@given(case=CASES)
def test_a_range_of_ports_means_what_its_halves_mean(case: PolicyCase) -> None:
    policies: list[Policy] = []
    for policy in case.cluster.policies:
        if isinstance(policy, NetworkPolicy):
            halved = {
                direction: tuple(
                    msgspec.structs.replace(
                        rule, ports=tuple(half for one in rule.ports for half in _half_ports(one))
                    )
                    for rule in rules
                )
                for direction, rules in (("ingress", policy.spec.ingress), ("egress", policy.spec.egress))
            }
            policy = with_spec(policy, **halved)
        policies.append(policy)
    assert verdicts(case.cluster, case.connections) == verdicts(
        with_policies(case.cluster, policies), case.connections
    )


# Staged policies.


def in_force(policy: Policy) -> Policy:
    metadata = msgspec.structs.replace(policy.metadata, annotations={})
    return msgspec.structs.replace(policy, metadata=metadata)


@given(case=CASES)
def test_staged_policies_change_no_verdict(case: PolicyCase) -> None:
    others = [policy for policy in case.cluster.policies if not staged(policy.metadata)]
    assert verdicts(case.cluster, case.connections) == verdicts(
        with_policies(case.cluster, others), case.connections
    )


@given(case=CASES)
def test_what_would_be_denied_is_what_is_denied_with_staged_policies_in_force(case: PolicyCase) -> None:
    all_in_force = with_policies(case.cluster, map(in_force, case.cluster.policies))
    known = {policy_ref(policy) for policy in case.cluster.policies if staged(policy.metadata)}
    for connection in case.connections:
        now, then = evaluate(case.cluster, connection), evaluate(all_in_force, connection)
        assert evaluate(case.cluster, connection, with_staged=True) == then
        names = would_deny(case.cluster, connection)
        assert bool(names) == (now.allowed and not then.allowed)
        assert set(names) <= known


@given(case=CASES)
def test_without_the_staged_policies_that_are_told_it_would_be_allowed(case: PolicyCase) -> None:
    """Or another one takes their place: so until none is left."""
    for connection in case.connections:
        cluster = case.cluster
        while names := would_deny(cluster, connection):
            left = [policy for policy in cluster.policies if policy_ref(policy) not in names]
            assert len(left) < len(cluster.policies)
            cluster = with_policies(cluster, left)
        assert evaluate(cluster, connection).allowed == evaluate(case.cluster, connection).allowed


# What a verdict says of itself.


@given(case=CASES)
def test_the_rule_that_is_told_decides_alone_too(case: PolicyCase) -> None:
    for verdict in verdicts(case.cluster, case.connections):
        for position, decision in enumerate(decisions(verdict)):
            told = {one.policy for one in (decision.rule, decision.passed) if one is not None}
            told.update(decision.policies if decision.reason is Reason.ISOLATED else ())
            policies = [policy for policy in case.cluster.policies if policy_ref(policy) in told]
            alone = decisions(evaluate(with_policies(case.cluster, policies), verdict.connection))[position]
            assert alone.allowed == decision.allowed
            if decision.checked and decision.reason is not Reason.UNMATCHED:
                assert (alone.reason, alone.rule, alone.passed) == (
                    decision.reason,
                    decision.rule,
                    decision.passed,
                )


@given(case=CASES)
def test_a_verdict_is_told_with_all_that_it_rests_on(case: PolicyCase) -> None:
    for verdict in verdicts(case.cluster, case.connections):
        text = verdict.describe()
        for decision in decisions(verdict):
            parts = [one for one in (decision.rule, decision.passed) if one is not None]
            assert all(str(one) in text for one in parts)
            if decision.reason is Reason.ISOLATED:
                assert all(str(one) in text for one in decision.policies)
        assert 1 <= text.count(". ") + text.endswith(".") <= 2


@given(case=CASES)
def test_decisions_hold_together(case: PolicyCase) -> None:
    for verdict in verdicts(case.cluster, case.connections):
        for decision in decisions(verdict):
            assert decision.allowed or decision.reason in (Reason.RULE, Reason.ISOLATED)
            assert (decision.rule is not None) == (decision.reason is Reason.RULE)
            assert decision.passed is None or decision.passed.tier is Tier.ADMIN
            assert decision.policies == tuple(sorted(decision.policies))
