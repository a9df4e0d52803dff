# SPDX-License-Identifier: Apache-2.0
"""The reference: what becomes of one connection, read off the objects as the documentation says it.

It walks over all objects each time and remembers nothing; whatever computes the same faster is held against it.
Sources: Kubernetes documentation, "Network Policies", and its API reference (networking.k8s.io/v1); Network Policy API,
apis/v1alpha2/clusternetworkpolicy_types.go. Which peers and ports a rule is for is in ``matching``.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from sdn.model.clusternetworkpolicy import (
    ACCEPT,
    DENY,
    PASS,
    ClusterNetworkPolicy,
    ClusterNetworkPolicyEgressRule,
    ClusterNetworkPolicyIngressRule,
)
from sdn.model.networkpolicy import EGRESS, INGRESS, NetworkPolicy, staged
from sdn.policy.matching import (
    cluster_peer_matches,
    cluster_protocol_matches,
    peer_matches,
    port_matches,
    selects_pod,
    subject_matches,
)
from sdn.policy.precedence import level
from sdn.policy.values import Action, Direction, PolicyPod, PolicyRef, Tier
from sdn.policy.verdict import (
    Connection,
    Decision,
    Policy,
    PolicyCluster,
    Reason,
    RuleRef,
    Verdict,
    rule_text,
    tier_of,
)

_ClusterRule: TypeAlias = ClusterNetworkPolicyIngressRule | ClusterNetworkPolicyEgressRule
_ACTIONS: Final = {ACCEPT: Action.ACCEPT, DENY: Action.DENY, PASS: Action.PASS}


def evaluate(cluster: PolicyCluster, connection: Connection, *, with_staged: bool = False) -> Verdict:
    """What becomes of a connection: it must be allowed to leave its source and to enter its destination. Staged
    policies are left out, or, ``with_staged``, taken as in force.
    """
    return Verdict(
        connection,
        _decide(cluster, connection, Direction.EGRESS, with_staged),
        _decide(cluster, connection, Direction.INGRESS, with_staged),
    )


def would_deny(cluster: PolicyCluster, connection: Connection) -> tuple[PolicyRef, ...]:
    """The staged policies that would have a connection denied which is allowed now, were they in force beside the
    others. Empty: it is denied already, or would stay allowed.
    """
    if not evaluate(cluster, connection).allowed:
        return ()
    verdict = evaluate(cluster, connection, with_staged=True)
    having_a_part: set[PolicyRef] = set()
    for decision in (verdict.egress, verdict.ingress):
        if not decision.allowed:
            having_a_part.update(decision.policies)
            having_a_part.update(one.policy for one in (decision.rule, decision.passed) if one is not None)
    return tuple(
        sorted(having_a_part & {policy_ref(one) for one in cluster.policies if staged(one.metadata)})
    )


def policy_ref(policy: Policy) -> PolicyRef:
    """A policy's name in the cluster."""
    return PolicyRef(policy.KIND, policy.metadata.namespace, policy.metadata.name)


def _decide(
    cluster: PolicyCluster, connection: Connection, direction: Direction, with_staged: bool
) -> Decision:
    """One direction, in the order of the tiers."""
    ingress = direction is Direction.INGRESS
    pod, peer = connection.source, connection.destination
    if ingress:
        pod, peer = peer, pod
    if not isinstance(pod, PolicyPod):
        return Decision(direction, True, Reason.NO_POD)
    if isinstance(peer, PolicyPod) and peer.key == pod.key:
        return Decision(direction, True, Reason.ITSELF)
    own_node = _on_own_node(cluster, connection, pod, direction)
    # A pod cannot keep its node out, whatever policies say; an administrator can keep it from its node.
    if ingress and own_node:
        return Decision(direction, True, Reason.OWN_NODE)
    policies = [one for one in cluster.policies if with_staged or not staged(one.metadata)]

    rule = _first_rule(cluster, policies, connection, pod, direction, Tier.ADMIN)
    if rule is not None and rule.action is not Action.PASS:
        return Decision(direction, rule.action is Action.ACCEPT, Reason.RULE, rule)
    passed = rule

    if own_node:
        return Decision(direction, True, Reason.OWN_NODE, passed=passed)

    isolating = _isolating(policies, pod, direction)
    if isolating:
        names = tuple(policy_ref(one) for one in isolating)
        for policy in isolating:
            for index in range(len(policy.spec.ingress if ingress else policy.spec.egress)):
                if _rule_allows(cluster, policy, index, connection, direction):
                    rule = RuleRef(
                        Tier.NETWORK_POLICY, policy_ref(policy), rule_text(direction, index), Action.ACCEPT
                    )
                    return Decision(direction, True, Reason.RULE, rule, passed, names)
        return Decision(direction, False, Reason.ISOLATED, None, passed, names)

    rule = _first_rule(cluster, policies, connection, pod, direction, Tier.BASELINE)
    if rule is not None and rule.action is not Action.PASS:
        return Decision(direction, rule.action is Action.ACCEPT, Reason.RULE, rule, passed)

    selected = any(_has_rules_for(cluster, one, pod, direction) for one in policies)
    return Decision(direction, True, Reason.UNMATCHED if selected else Reason.UNSELECTED, passed=passed)


def _on_own_node(
    cluster: PolicyCluster, connection: Connection, pod: PolicyPod, direction: Direction
) -> bool:
    """Whether the other end is the pod's own node: at one of the node's addresses, or at its gateway port's."""
    other = connection.source_address if direction is Direction.INGRESS else connection.destination_address
    return any(other in (*node.addresses, *node.gateways) for node in cluster.nodes if node.name == pod.node)


def _isolating(policies: list[Policy], pod: PolicyPod, direction: Direction) -> list[NetworkPolicy]:
    """The NetworkPolicies that isolate the pod, by name: together they allow what any of them allows."""
    type_ = INGRESS if direction is Direction.INGRESS else EGRESS
    return sorted(
        (
            one
            for one in policies
            if isinstance(one, NetworkPolicy)
            and one.metadata.namespace == pod.namespace
            and selects_pod(one.spec.pod_selector, pod)
            and one.spec.isolates(type_)
        ),
        key=lambda one: (one.metadata.namespace, one.metadata.name),
    )


def _rule_allows(
    cluster: PolicyCluster, policy: NetworkPolicy, index: int, connection: Connection, direction: Direction
) -> bool:
    """Whether the connection matches both the peers and the ports of a NetworkPolicy's rule; none of them: all do."""
    if direction is Direction.INGRESS:
        peers, ports = policy.spec.ingress[index].from_, policy.spec.ingress[index].ports
        end, address = connection.source, connection.source_address
    else:
        peers, ports = policy.spec.egress[index].to, policy.spec.egress[index].ports
        end, address = connection.destination, connection.destination_address
    namespace = policy.metadata.namespace
    return (not peers or any(peer_matches(cluster, one, namespace, end, address) for one in peers)) and (
        not ports or any(port_matches(one, connection) for one in ports)
    )


def _first_rule(
    cluster: PolicyCluster,
    policies: list[Policy],
    connection: Connection,
    pod: PolicyPod,
    direction: Direction,
    tier: Tier,
) -> RuleRef | None:
    """The first rule of a tier of ClusterNetworkPolicies that is for this connection."""
    matching: list[tuple[int, str, int, RuleRef]] = []
    for policy in policies:
        if not isinstance(policy, ClusterNetworkPolicy) or tier_of(policy) is not tier:
            continue
        if not subject_matches(cluster, policy.spec.subject, pod):
            continue
        for index, rule in enumerate(_rules(policy, direction)):
            if _cluster_rule_matches(cluster, rule, connection):
                action = _ACTIONS[rule.action]
                order = level(policy.spec.priority, index, action)
                ref = RuleRef(tier, policy_ref(policy), rule_text(direction, index, rule.name), action)
                matching.append((order, policy.metadata.name, index, ref))
    return min(matching, key=lambda one: one[:3])[3] if matching else None


def _rules(policy: ClusterNetworkPolicy, direction: Direction) -> tuple[_ClusterRule, ...]:
    return policy.spec.ingress if direction is Direction.INGRESS else policy.spec.egress


def _cluster_rule_matches(cluster: PolicyCluster, rule: _ClusterRule, connection: Connection) -> bool:
    """Whether the connection matches both the peers of a ClusterNetworkPolicy's rule and, where it has any, its
    protocols.
    """
    if isinstance(rule, ClusterNetworkPolicyIngressRule):
        peers, end, address = rule.from_, connection.source, connection.source_address
    else:
        peers, end, address = rule.to, connection.destination, connection.destination_address
    return any(cluster_peer_matches(cluster, one, end, address) for one in peers) and (
        not rule.protocols or any(cluster_protocol_matches(one, connection) for one in rule.protocols)
    )


def _has_rules_for(cluster: PolicyCluster, policy: Policy, pod: PolicyPod, direction: Direction) -> bool:
    """Whether a ClusterNetworkPolicy that selects the pod says something of this direction."""
    return (
        isinstance(policy, ClusterNetworkPolicy)
        and subject_matches(cluster, policy.spec.subject, pod)
        and bool(_rules(policy, direction))
    )
